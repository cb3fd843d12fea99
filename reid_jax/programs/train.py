"""A training run, from a recipe to a trained and evaluated network."""

import math
from collections.abc import Callable

import jax
import numpy as np
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from reid_jax import models
from reid_jax.data import datasets
from reid_jax.data.loaders import open_images
from reid_jax.data.pipeline import train_batches
from reid_jax.data.sampler import IdentitySampler
from reid_jax.evaluation.evaluator import Evaluator, table
from reid_jax.evaluation.ranking import RankingResult
from reid_jax.runs.metrics import Progress
from reid_jax.runs.record import Record
from reid_jax.runs.settings import check
from reid_jax.runs.symlinks import check_links
from reid_jax.runs.workdir import check_workdir, report_skipped
from reid_jax.runtime import hosts
from reid_jax.runtime.collectives import AXIS
from reid_jax.runtime.devices import check_divides, choose_devices, own_devices
from reid_jax.runtime.messages import Preempted, say
from reid_jax.runtime.preemption import Preemption
from reid_jax.training import optimizer as optimizers
from reid_jax.training.feed import feed
from reid_jax.training.state import TrainState, create_state
from reid_jax.training.step import make_step, place, pmap_step
from reid_jax.weights.initial import first_trunk

# What may differ between a run and its continuation: it changes nothing that was computed so far.
MAY_CHANGE = ("epochs", "max_steps", "devices", "data.loader", "eval", "log", "checkpoint")


def train(config: ConfigDict, workdir: str) -> RankingResult:
    """Trains the recipe `config` in `workdir`, or goes on where a run there was stopped.

    Leaves in the workdir `run.json`, `checkpoints/`, `metrics.jsonl`, `tensorboard/` and
    `curves.png`, and `skipped_images.json` where bad images were left out.

    Args:
        config: a recipe, as the files in `configs/` return.
        workdir: the run's folder, made where it does not exist.

    Returns:
        The evaluation of the last step.

    Raises:
        ValueError, OSError: bad settings, data or workdir, named; all before training starts.
        FloatingPointError: the loss or its gradient is not finite; names the last good checkpoint.
        Preempted: SIGTERM came. The step was finished, an evaluation due after it made, and its
          checkpoint written. Before the first step it ends the process instead, see `Preemption`.
    """
    # Settings, then folders, then images: what is quickly found wrong is found first.
    check(config)
    devices = choose_devices(config.devices)
    with Preemption() as preemption:
        return _train(config, workdir, devices, preemption)


def _train(
    config: ConfigDict, workdir: str, devices: list[jax.Device], preemption: Preemption
) -> RankingResult:
    own = own_devices(devices)
    batch_size = config.data.identities_per_batch * config.data.images_per_identity
    check_divides(devices, batch_size, "data.identities_per_batch x data.images_per_identity")
    _check_same_recipe(config)
    hosts.together(lambda: check_links(workdir))
    trunk = first_trunk(config.model, workdir)
    dataset = datasets.load(config.data, say)
    labels, num_classes = dataset.train.labels, dataset.train.num_identities
    sampler = IdentitySampler(
        labels,
        num_identities=config.data.identities_per_batch,
        num_instances=config.data.images_per_identity,
        seed=config.seed,
    )
    network = models.create(config.model, num_classes, AXIS)
    train_images = datasets.fingerprint(dataset)
    hosts.check_same("set of training images", train_images)
    hosts.from_first(lambda: check_workdir(workdir, config, num_classes, MAY_CHANGE, train_images))
    if hosts.is_first():
        report_skipped(workdir, dataset.skipped, say)
    images = open_images(
        dataset.train.paths, config.data.image_size, config.data.loader, say, own, shared=True
    )
    evaluator = Evaluator(network, dataset, config, own, say)

    steps_per_epoch = sampler.steps_per_epoch
    total_steps = config.epochs * steps_per_epoch
    length = f"epochs is {config.epochs}, {total_steps} steps"
    if 0 < config.max_steps < total_steps:
        total_steps, length = config.max_steps, f"max_steps is {config.max_steps}"
    schedule = optimizers.create_schedule(config.optim, steps_per_epoch)
    optimizer = optimizers.create_optimizer(config.optim, schedule)
    state = create_state(network, optimizer, config.data.image_size, config.seed, trunk)
    step = pmap_step(make_step(network, optimizer, schedule, config), devices)
    say(
        f"{config.model.name}: {_count(state.params):,} parameters; {len(dataset.train):,} images "
        f"of {num_classes:,} identities; {total_steps:,} steps of {batch_size} images on "
        f"{len(devices)} {devices[0].device_kind} device(s)"
        + (f" of {hosts.count()} hosts" if hosts.count() > 1 else "")
    )

    with Record(workdir, keep=config.checkpoint.keep) as record:
        state = place(record.restore(state), devices)
        start_step = int(state.step)
        if start_step > total_steps:
            raise ValueError(
                f"{length}, but the run in {workdir} has made {start_step} steps already"
            )
        if start_step > 0:
            say(f"going on from step {start_step}")
        record.begin(config, num_classes, train_images, start_step)

        def evaluate(state: TrainState) -> RankingResult:
            done = int(state.step)
            result = evaluator({"params": state.params, "batch_stats": state.batch_stats})
            say(f"step {done}:\n{table(result)}")
            if done > start_step or done == 0:  # Else metrics and checkpoint are there.
                summary = result.summary()
                record.write(done, "eval", {"epoch": done / steps_per_epoch, **summary})
                record.save(state, summary)
            record.draw()
            return result

        # Evaluating at the start too shows a fault of the evaluation before hours of training.
        result = evaluate(state) if start_step in (0, total_steps) else None
        progress = Progress(total_steps, batch_size)
        is_due = _calendar(config, steps_per_epoch, total_steps)
        batches = train_batches(images, labels, _own_part(sampler), start_step, total_steps)
        for done, batch in enumerate(feed(batches, own), start=start_step + 1):
            state, scalars = step(state, batch)
            preemption.begin()
            if hosts.count() > 1 and devices[0].platform == "cpu":
                # JAX 0.10's CPU collectives between processes deadlock where steps run ahead.
                jax.block_until_ready(scalars)

            first, stop = done == start_step + 1, preemption.due(done)
            if not (first or stop or is_due(done, "log", "eval", "checkpoint")):
                continue  # Nothing is read from the devices: they run ahead.

            record.check()
            values = {name: float(x) for name, x in jax.device_get(scalars).items()}
            _stop_unless_finite(done, values, record)
            if first or is_due(done, "log"):
                epoch = done / steps_per_epoch
                rate = progress.report(done, epoch, values["loss"])
            if is_due(done, "log"):
                speed = {} if rate is None else {"images_per_second": rate}
                record.write(done, "train", {"epoch": epoch, **values, **speed})
            with progress.paused():
                if is_due(done, "eval"):
                    result = evaluate(state)
                elif stop or is_due(done, "checkpoint"):
                    record.save(state)
            if stop and done < total_steps:
                raise Preempted(
                    f"stopped by SIGTERM after step {done}, whose checkpoint is written: the same "
                    "command goes on"
                )
    return result


def _check_same_recipe(config: ConfigDict) -> None:
    """Raises ValueError where hosts would train by other leaves; data may lie elsewhere."""
    if hosts.count() > 1:
        leaves = flatten_dict(config.to_dict(), sep=".")
        # Data and weights may lie elsewhere. That the weights are the same, `first_trunk` checks.
        elsewhere = {"data.root": "", "model.pretrained": bool(config.model.pretrained)}
        hosts.check_same("recipe", leaves | elsewhere)


def _calendar(config, steps_per_epoch: int, total_steps: int) -> Callable[..., bool]:
    """Whether any of `log`, `eval` and `checkpoint` is due once so many steps are made."""
    periods = {
        "log": config.log.every_steps,
        "eval": config.eval.every_epochs * steps_per_epoch,
        "checkpoint": config.checkpoint.every_epochs * steps_per_epoch,
    }
    return lambda done, *kinds: done == total_steps or any(done % periods[k] == 0 for k in kinds)


def _own_part(sampler: Callable[[int], np.ndarray]) -> Callable[[int], np.ndarray]:
    """The sampler of this host's part of each batch."""
    if hosts.count() == 1:
        return sampler

    def own(step: int) -> np.ndarray:
        indices = sampler(step)
        return indices[hosts.own_part(len(indices))]

    return own


def _stop_unless_finite(step: int, values: dict[str, float], record: Record) -> None:
    """Raises where a metric of the step, or the parameters it made, are not finite."""
    bad = {name: value for name, value in values.items() if not math.isfinite(value)}
    if bad:
        raise FloatingPointError(
            f"not finite at step {step}: {', '.join(f'{k} is {v}' for k, v in bad.items())}. The "
            f"last good checkpoint is {record.last_good}. A lower --config.optim.lr may help, in "
            "another --workdir"
        )


def _count(params) -> int:
    return sum(int(np.prod(x.shape)) for x in jax.tree.leaves(params))
