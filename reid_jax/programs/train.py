"""A training run, from a recipe to a trained and evaluated network."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import optax
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict, FrozenConfigDict

from reid_jax import models, schedules
from reid_jax.data import datasets, unions
from reid_jax.data.loaders import Images, open_images
from reid_jax.data.pipeline import train_batches
from reid_jax.data.sampler import IdentitySampler
from reid_jax.data.skipping import advised
from reid_jax.data.splits import Dataset, Split
from reid_jax.data.tensorflow_extra import check_loader
from reid_jax.evaluation.evaluator import Evaluator, tables
from reid_jax.evaluation.ranking import RankingResult
from reid_jax.recipe import RecipeConfig, typed
from reid_jax.runs.record import Record
from reid_jax.runs.settings import check
from reid_jax.runs.symlinks import check_symlinks
from reid_jax.runs.workdir import check_workdir, report_skipped
from reid_jax.runtime import hosts
from reid_jax.runtime.collectives import AXIS
from reid_jax.runtime.devices import (
    check_divides,
    choose_devices,
    memory_set_by,
    own_devices,
    place,
)
from reid_jax.runtime.files import local_path
from reid_jax.runtime.memory import check_holds
from reid_jax.runtime.messages import counted, say
from reid_jax.runtime.preemption import Preemption
from reid_jax.runtime.progress import TrainingProgress
from reid_jax.training.calendar import Calendar
from reid_jax.training.feed import feed
from reid_jax.training.loop import Loop
from reid_jax.training.optimizer import create_optimizer
from reid_jax.training.state import TrainState, create_state
from reid_jax.training.step import make_step, pmap_step
from reid_jax.weights.initial import initial_trunk

# Leaves that may change when a run is resumed, because they do not affect earlier results.
MAY_CHANGE = ("epochs", "max_steps", "devices", "data.loader", "eval", "log", "checkpoint")

# What of a recipe a step depends on, besides the network.
_OF_STEP = ("loss", "augment", "optim")

# The leaves whose product is the number of images in a batch.
_BATCH = "data.identities_per_batch x data.images_per_identity"


def train(config: ConfigDict | RecipeConfig, workdir: str) -> RankingResult:
    """Train the recipe `config` in `workdir`, or resume a run that was stopped there.

    Writes into the workdir `run.json`, `checkpoints/`, `metrics.jsonl`, `tensorboard/` and
    `curves.png`, and `skipped_images.json` if bad images were left out.

    Args:
        config: a recipe, as the files in `configs/` return.
        workdir: the run's folder, created if it does not exist.

    Returns:
        The evaluation of the last step, on the dataset of `data.root`.

    Raises:
        ValueError, OSError: bad settings, data or workdir; raised before training starts.
        ImportError: `data.loader` is `tfdata` and TensorFlow is not installed.
        MemoryError: a device or this machine has too little memory. The message names the leaves to
          lower.
        FloatingPointError: the loss or its gradient is not finite. The message names the last good
          checkpoint.
        Preempted: SIGTERM or Ctrl-C was received. The step was finished, an evaluation due after it
          was made, and its checkpoint written. Before the first step, they end the process instead,
          see `Preemption`.
    """
    # Quick checks come first: settings, then folders, then images.
    check(config)
    config = typed(config)
    workdir = local_path(workdir, "workdir")
    check_loader(config.data.loader)
    devices = choose_devices(config.devices)
    check_divides(devices, _batch_size(config), _BATCH)
    _check_batch_in_memory(config)
    # JAX_ENABLE_X64 would change random draws and dtypes of the step.
    with Preemption() as preemption, jax.enable_x64(False), memory_set_by(_BATCH):
        _agree_on_recipe(config)
        hosts.together(lambda: check_symlinks(workdir))
        trunk = initial_trunk(config.model, workdir)

        # Data. The workdir is checked before images are decoded, which may take minutes.
        sets = datasets.load_all(config.data, say)
        images = unions.join([dataset.train for dataset in sets])
        fingerprint = _claim_workdir(workdir, config, sets, images.num_identities)
        data = _open_training_data(config, images, sets, devices)

        # The network, its optimizer, and its evaluation.
        network = models.create(config.model, images.num_identities, AXIS)
        evaluators = _evaluators(network, sets, config, devices)
        calendar = Calendar.from_recipe(config, data.sampler.steps_per_epoch)
        state, step = _create(config, network, calendar, devices, trunk)
        say(_opening(config, state, _content(images, sets), calendar, devices))

        with Record(workdir, keep=config.checkpoint.keep) as record:
            # The newest checkpoint, if there is one.
            state = place(record.restore(state), devices)
            start_step = int(state.step)
            _check_not_past_end(start_step, calendar, workdir)
            record.begin(config, images.num_identities, fingerprint, start_step)

            # An evaluation at the start reveals faults of the evaluation before hours of training.
            evaluate = _Evaluations(evaluators, record, calendar, start_step)
            if start_step in (0, calendar.total_steps):
                evaluate(state)
            loop = Loop(
                step=step,
                evaluate=evaluate,
                calendar=calendar,
                record=record,
                progress=TrainingProgress(calendar.total_steps, _batch_size(config)),
                preemption=preemption,
                # JAX 0.10's CPU collectives between processes deadlock if steps run ahead.
                wait=hosts.count() > 1 and devices[0].platform == "cpu",
            )
            loop.run(state, data.batches(start_step, calendar.total_steps), start_step)
    return evaluate.last


@dataclasses.dataclass(frozen=True, eq=False)
class _TrainingData:
    """Training images, their identities, and the selection of a step's batch."""

    images: Images
    labels: np.ndarray
    sampler: IdentitySampler
    devices: list[jax.Device]  # this host's

    def batches(self, start_step: int, stop_step: int):
        """This host's part of the batches of these steps, on its devices."""
        batches = train_batches(self.images, self.labels, self._own_indices, start_step, stop_step)
        return feed(batches, self.devices)

    def _own_indices(self, step: int) -> np.ndarray:
        indices = self.sampler(step)
        return indices[hosts.own_part(len(indices))]


class _Evaluations:
    """Evaluates states while a run trains: prints the scores, records them and draws the curves.

    The first dataset decides which checkpoint is the best. Records of the others have the kind
    `eval/NAME`.

    Attributes:
        last: the latest result on the first dataset.
    """

    last: RankingResult

    def __init__(
        self,
        evaluators: Mapping[str, Evaluator],
        record: Record,
        calendar: Calendar,
        start_step: int,
    ):
        self._evaluators, self._record, self._calendar = evaluators, record, calendar
        self._start_step = start_step

    def __call__(self, state: TrainState) -> None:
        done = int(state.step)
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        results = {name: evaluator(variables) for name, evaluator in self._evaluators.items()}
        self.last, *_ = results.values()
        if done > self._start_step or done == 0:  # Otherwise metrics and checkpoint exist.
            for i, (name, result) in enumerate(results.items()):
                scores = {"epoch": self._calendar.epoch(done), **result.summary()}
                self._record.write(done, f"eval/{name}" if i else "eval", scores)
            self._record.save(state, self.last.summary())
        say(f"step {done}:\n{tables(results)}")
        self._record.draw()


def _batch_size(config: RecipeConfig) -> int:
    return config.data.identities_per_batch * config.data.images_per_identity


def _check_batch_in_memory(config: RecipeConfig) -> None:
    """Raise MemoryError if this host's part of a batch is larger than its memory."""
    height, width = config.data.image_size
    count = -(-_batch_size(config) // hosts.count())
    what = f"the pixels of a batch, {counted(count, 'image')} of {height} x {width},"
    check_holds(3 * count * height * width, what, f"{_BATCH}, or data.image_size")


def _agree_on_recipe(config: RecipeConfig) -> None:
    """Raise ValueError if hosts have different recipes. Folders of data may differ."""
    if hosts.count() > 1:
        leaves = flatten_dict(config.to_dict(), sep=".")
        # Data and weights may be elsewhere. `initial_trunk` checks that the weights are the same.
        also = [entry.partition(":")[0] for entry in config.data.also]
        pretrained = bool(config.model.pretrained)
        elsewhere = {"data.root": "", "data.also": also, "model.pretrained": pretrained}
        hosts.check_same("recipe", leaves | elsewhere)


def _claim_workdir(
    workdir: str, config: RecipeConfig, sets: Sequence[Dataset], num_classes: int
) -> Mapping[str, int | str]:
    """Check that this run may write to the workdir, and list skipped images there.

    Returns:
        The fingerprint of the training images.
    """
    fingerprint = datasets.fingerprint(*sets)
    hosts.check_same("set of training images", fingerprint)
    hosts.from_first(lambda: check_workdir(workdir, config, num_classes, MAY_CHANGE, fingerprint))
    if hosts.is_first():
        report_skipped(workdir, [image for dataset in sets for image in dataset.skipped], say)
    return fingerprint


def _open_training_data(
    config: RecipeConfig, split: Split, sets: Sequence[Dataset], devices: list[jax.Device]
) -> _TrainingData:
    """Open the images of `split`, which joins the training splits of `sets`."""
    own, labels = own_devices(devices), split.labels
    sources = unions.sources([dataset.train for dataset in sets])
    sampler = IdentitySampler(
        labels,
        num_identities=config.data.identities_per_batch,
        num_instances=config.data.images_per_identity,
        seed=config.seed,
        sources=sources if config.data.balanced else None,
    )
    with advised():
        images = open_images(
            split.paths,
            config.data.image_size,
            config.data.loader,
            say,
            own,
            team=hosts.EVERYBODY,
        )
    return _TrainingData(images, labels, sampler, own)


def _evaluators(
    network: models.Network,
    sets: Sequence[Dataset],
    config: RecipeConfig,
    devices: list[jax.Device],
) -> dict[str, Evaluator]:
    """An evaluator of each dataset, by its name."""
    first = Evaluator(network, sets[0], config, own_devices(devices), say)
    every = [first, *(first.on(dataset) for dataset in sets[1:])]
    return dict(zip(unions.names(sets), every, strict=True))


def _create(
    config: RecipeConfig,
    network: models.Network,
    calendar: Calendar,
    devices: list[jax.Device],
    trunk: dict[str, Any] | None,
) -> tuple[TrainState, Callable]:
    """The state at step 0, and the step over all devices."""
    optimizer, step = _make(network, _of_step(config), calendar.steps_per_epoch)
    state = create_state(network, optimizer, config.data.image_size, config.seed, trunk)
    return state, pmap_step(step, devices)


def _of_step(config: RecipeConfig) -> FrozenConfigDict:
    """What a step depends on besides the network. Equal ones have equal hashes."""
    leaves = config.to_dict()
    return FrozenConfigDict({name: leaves[name] for name in _OF_STEP})


# A later run of this process with the same network and settings has the same step, which is traced
# and compiled once.
@functools.lru_cache(maxsize=4)
def _make(
    network: models.Network, of_step: FrozenConfigDict, steps_per_epoch: int
) -> tuple[optax.GradientTransformation, Callable]:
    """The optimizer and the step of one device."""
    config = typed(of_step)
    schedule = schedules.create_schedule(config.optim, steps_per_epoch)
    optimizer = create_optimizer(config.optim, schedule, steps_per_epoch)
    return optimizer, make_step(network, optimizer, schedule, config)


def _opening(
    config: RecipeConfig,
    state: TrainState,
    content: str,
    calendar: Calendar,
    devices: list[jax.Device],
) -> str:
    """The first line of a run: the network, the content of its data, and its devices."""
    parameters = sum(int(np.prod(x.shape)) for x in jax.tree.leaves(state.params))
    return (
        f"{config.model.name}: {counted(parameters, 'parameter')}; {content}; "
        f"{counted(calendar.total_steps, 'step')} of {counted(_batch_size(config), 'image')} on "
        f"{counted(len(devices), f'{devices[0].device_kind} device')}"
        + (f" of {hosts.count()} hosts" if hosts.count() > 1 else "")
    )


def _content(images: Split, sets: Sequence[Dataset]) -> str:
    """The numbers of training images and identities; if there are several datasets, of each."""

    def counts(split: Split) -> str:
        identities = counted(split.num_identities, "identity", "identities")
        return f"{counted(len(split), 'image')} of {identities}"

    each = [counts(x.train) + ("" if x.has_cameras else ", without cameras") for x in sets]
    if len(sets) == 1:
        return each[0]
    named = [f"{name}: {text}" for name, text in zip(unions.names(sets), each, strict=True)]
    return f"{counts(images)} in {len(sets)} datasets ({'; '.join(named)})"


def _check_not_past_end(start_step: int, calendar: Calendar, workdir: str) -> None:
    """Raise ValueError if the run has already made more steps; print the step it resumes from."""
    if start_step > calendar.total_steps:
        raise ValueError(
            f"{calendar.length}, but the run in {workdir} has made {counted(start_step, 'step')} "
            "already"
        )
    if start_step > 0:
        say(f"resuming from step {start_step}")
