import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict
from PIL import Image

from reid_jax import schedules
from reid_jax.configs import common
from reid_jax.data.loaders import open_images
from reid_jax.data.pipeline import train_batches
from reid_jax.data.sampler import IdentitySampler
from reid_jax.mixing import Mixture
from reid_jax.models import PMM, ResNet, StageOutput
from reid_jax.runtime.devices import place
from reid_jax.training import optimizer as optimizers
from reid_jax.training.feed import feed
from reid_jax.training.state import TrainState, create_state
from reid_jax.training.step import AXIS, make_step, norm_of, pmap_step, shard
from tests.compilations import count_compilations

pytestmark = pytest.mark.usefixtures("standard_promotion")

SIZE = (96, 64)


CONFIG = ConfigDict(
    {
        "seed": 0,
        "loss": {**common.pmm(top_k=3).loss, "triplet_margin": None},
        "augment": {**common.recipe().augment, "cutout_size": 16},
        "optim": {
            "schedule": "staircase",
            "lr": 1e-3,
            "weight_decay": 5e-4,
            "trunk_lr": 1.0,
            "frozen_epochs": 0,
            "warmup_epochs": 0,
            "warmup_every": 1,
            "milestones": (),
            "decay": 0.1,
        },
    }
)


def build(axis_name, block="bottleneck", ibn=False, dtype=jnp.float32, **settings):
    shared = {"axis_name": axis_name, "dtype": dtype}
    trunk = ResNet(depths=(1, 1, 1, 1), width=2, block=block, ibn=ibn, **shared)
    network = PMM(
        num_classes=4, trunk=trunk, **{"embedding_dim": 8, "top_k": 1}, **shared, **settings
    )
    schedule = schedules.create_schedule(CONFIG.optim, 10)
    optimizer = optimizers.create_optimizer(CONFIG.optim, schedule)
    state = create_state(network, optimizer, SIZE, CONFIG.seed)
    return state, make_step(network, optimizer, schedule, CONFIG, axis_name)


def make_batch(rng):
    images = rng.integers(0, 256, (16, *SIZE, 3)).astype(np.uint8)
    return {"image": images, "label": np.repeat(np.arange(4), 4).astype(np.int32)}


@pytest.fixture
def batch(rng):
    return make_batch(rng)


@pytest.fixture(scope="module")
def trajectories():
    """Metrics and states of three steps, on 1 and on 4 devices."""
    rng = np.random.default_rng(0)
    batch = make_batch(rng)
    found = {}
    with jax.numpy_dtype_promotion("standard"):
        for count in (1, 4):
            state, step = build(AXIS)
            step = pmap_step(step, jax.devices()[:count])
            state = place(state, jax.devices()[:count])
            compilations, metrics, states, deleted = [], [], [], []
            for fed in feed([batch] * 3, jax.devices()[:count]):
                before = state
                with count_compilations() as events:
                    state, scalars = step(state, fed)
                    metrics.append(jax.device_get(scalars))
                compilations.append(len(events))
                deleted.append(before.params["extra"]["conv1"]["kernel"].is_deleted())
                # Copy: NumPy's view of a buffer on the CPU would prevent its donation.
                states.append(jax.device_get(jax.tree.map(jnp.copy, state)))
            found[count] = {
                "metrics": metrics,
                "states": states,
                "compilations": compilations,
                "deleted": deleted,
                "step": step,
            }
    return found


@pytest.mark.slow
def test_four_devices_train_as_one_does(trajectories):
    """Losses, batch statistics and updates, with mining and mixing across devices."""
    one, four = trajectories[1], trajectories[4]
    for name, value in one["metrics"][0].items():
        np.testing.assert_allclose(four["metrics"][0][name], value, rtol=1e-4, err_msg=name)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5),
        one["states"][0].batch_stats,
        four["states"][0].batch_stats,
    )
    for step in (1, 2):
        losses = [run["metrics"][step]["loss"] for run in (one, four)]
        np.testing.assert_allclose(losses[1], losses[0], rtol=1e-2)
    # Adam's first update is the rate times the gradient's sign, so a comparison means little where
    # the gradient is rounding noise, and is exact elsewhere.
    compared = total = 0
    moments = jax.tree.leaves(one["states"][0].opt_state[1].mu)
    noise = 1e-5 * max(np.abs(moment).max() for moment in moments)
    for x, y, moment in zip(
        *(jax.tree.leaves(run["states"][0].params) for run in (one, four)), moments, strict=True
    ):
        clear = np.abs(moment) > max(noise, 1e-2 * np.abs(moment).max())
        np.testing.assert_allclose(x[clear], y[clear], rtol=0, atol=1e-6)
        compared, total = compared + clear.sum(), total + clear.size
    assert compared > 0.8 * total


@pytest.mark.slow
def test_gradients_of_four_devices_equal_those_of_one(trajectories):
    """The first moment after one step is 0.1 of the gradient; Adam's update would hide its size."""
    moments = [trajectories[count]["states"][0].opt_state[1].mu for count in (1, 4)]
    for one, four in zip(*map(jax.tree.leaves, moments), strict=True):
        assert np.linalg.norm(one - four) <= 1e-3 * np.linalg.norm(one) + 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 4])
def test_the_state_is_donated_and_the_step_compiled_once(trajectories, count):
    assert all(trajectories[count]["deleted"])
    assert trajectories[count]["compilations"][0] > 0  # The listener works.
    assert trajectories[count]["compilations"][1:] == [0, 0]


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 4])
def test_loaders_train_alike_and_share_one_program(trajectories, count, tmp_path, rng):
    """Bit for bit: parameters and metrics. The step has already been compiled."""
    labels = np.repeat(np.arange(4, dtype=np.int32), 6)
    paths = [f"{tmp_path}/{i}.png" for i in range(len(labels))]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (*SIZE, 3), np.uint8)).save(path)
    sampler = IdentitySampler(labels, 4, 4, seed=0)
    devices = jax.devices()[:count]
    first, _ = build(AXIS)
    found = []
    for loader in ("memory", "device", "tfdata"):
        images = open_images(paths, SIZE, loader, devices=devices)
        state, metrics = place(first, devices), []
        batches = feed(train_batches(images, labels, sampler, 0, 3), devices)
        for batch in batches:
            with count_compilations() as events, jax.transfer_guard("disallow"):
                state, scalars = trajectories[count]["step"](state, batch)
            assert events == []
            metrics.append(scalars)
        found.append(jax.device_get((metrics, state)))
    assert len(found[0][0]) == 3
    assert len({float(scalars["loss"]) for scalars in found[0][0]}) == 3
    for other in found[1:]:
        jax.tree.map(np.testing.assert_array_equal, other, found[0])


@pytest.mark.slow
def test_a_step_is_a_function_of_state_and_batch(trajectories):
    """A second start gives the same, bit for bit."""
    rng = np.random.default_rng(0)
    state, step = build(AXIS)
    devices = jax.devices()[:1]
    step, batch = pmap_step(step, devices), shard(make_batch(rng), 1)
    state = place(state, devices)
    for metrics in trajectories[1]["metrics"]:
        state, again = step(state, batch)
        jax.tree.map(np.testing.assert_array_equal, jax.device_get(again), metrics)
    jax.tree.map(
        np.testing.assert_array_equal, jax.device_get(state), trajectories[1]["states"][-1]
    )


@pytest.mark.slow
def test_metrics_add_up(trajectories):
    metrics = trajectories[1]["metrics"][0]
    parts = [metrics[f"loss/{loss}_{stage}"] for loss in ("id", "triplet") for stage in (1, 2, 3)]
    np.testing.assert_allclose(metrics["loss"], sum(parts), rtol=1e-6)
    assert metrics["lr"] == np.float32(1e-3)
    assert 0 <= metrics["accuracy_1"] <= 1
    assert 0 <= metrics["ordered_3"] <= 1


def test_the_norm_is_of_all_leaves(rng):
    tree = {"a": {"bias": rng.normal(size=7), "kernel": rng.normal(size=(3, 4))}}
    tree |= {"p": rng.normal(size=()), "scale": rng.normal(size=2)}
    leaves = jax.tree.leaves(tree)
    want = np.sqrt(sum(np.square(leaf).sum() for leaf in leaves))
    tree = jax.tree.map(np.float32, tree)
    assert norm_of(tree) == pytest.approx(want, rel=1e-6)
    assert norm_of(leaves[:1]) == pytest.approx(np.linalg.norm(leaves[0]), rel=1e-6)


@pytest.mark.slow
def test_basic_blocks_with_ibn_train_on_four_devices_as_on_one(batch):
    """Losses, statistics and gradients, which reach every parameter."""
    found = {}
    for count in (1, 4):
        devices = jax.devices()[:count]
        state, step = build(AXIS, block="basic", ibn=True, stages=2)
        (fed,) = feed([batch], devices)
        found[count] = jax.device_get(pmap_step(step, devices)(place(state, devices), fed))
    (one, metrics), (four, others) = found[1], found[4]
    for name, value in metrics.items():
        np.testing.assert_allclose(others[name], value, rtol=1e-4, err_msg=name)
    assert one.batch_stats["trunk"]["layer1_0"]["bn1"].keys() == {"batch"}
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5),
        one.batch_stats,
        four.batch_stats,
    )
    moments = [jax.tree_util.tree_leaves_with_path(s.opt_state[1].mu) for s in (one, four)]
    for (path, moment), (_, other) in zip(*moments, strict=True):
        assert np.isfinite(moment).all(), path
        assert np.any(moment != 0), path
        assert np.linalg.norm(moment - other) <= 1e-3 * np.linalg.norm(moment) + 1e-6, path


def test_one_trunk_forward_and_one_trunk_backward(batch):
    """A 3x3 convolution's backward pass has two more.

    1x1 convolutions are matrix products and do not count here; tests of `benchmarks.networks` count
    the flops of all. So is the stem's forward pass in a network as narrow as this one. Its backward
    pass is one convolution: images need no gradient.
    """
    state, step = build(None)
    program = jax.jit(step).lower(state, batch).as_text()
    # One 3x3 in each of the trunk's four bottlenecks and in the extra one.
    forward = 4 + 1
    assert len(re.findall(r"stablehlo\.convolution", program)) == 3 * forward + 1


@pytest.mark.slow
def test_bfloat16_step_stays_near_float32(batch, trajectories):
    state, step = build(None, dtype=jnp.bfloat16)
    state, metrics = jax.jit(step)(state, batch)
    assert all(x.dtype in (jnp.float32, jnp.int32) for x in jax.tree.leaves(state))
    want = trajectories[1]["metrics"][0]["loss"]
    assert 0 < abs(metrics["loss"] - want) < 0.05 * want


def losses_of(outputs, labels, **leaves):
    """Metrics of a step of a network with these outputs, with other leaves of `loss`."""

    class Fixed:
        def apply(self, variables, *inputs, **options):
            stages = jax.tree.map(jnp.asarray, tuple(outputs))
            return stages, {"batch_stats": variables["batch_stats"]}

    config = ConfigDict({**CONFIG, "loss": {**CONFIG.loss, **leaves}})
    optimizer = optax.sgd(0.0)
    state = TrainState(jnp.int32(0), jnp.float32(1.0), {}, optimizer.init(jnp.float32(1.0)), 0)
    step = jax.jit(make_step(Fixed(), optimizer, lambda step: 0.0, config, None))
    batch = {"image": np.zeros((len(labels), 32, 32, 3), np.uint8), "label": labels}
    return step(state, batch)[1]


@pytest.mark.parametrize("stream", ["augment", "mix"])
def test_the_seed_is_an_input_of_one_program(rng, stream):
    """It, and the number of the step, change how images are augmented and mixed."""

    class Seen:
        def apply(self, variables, images, labels, key, **options):
            from_images = images.std(axis=(1, 2)) - images.mean(axis=(1, 2))
            logits = from_images if stream == "augment" else jax.random.normal(key, (9, 3))
            return (StageOutput(None, logits),), {"batch_stats": variables["batch_stats"]}

    optimizer = optax.sgd(0.0)
    step = jax.jit(make_step(Seen(), optimizer, lambda step: 0.0, CONFIG, None))
    images = rng.integers(0, 256, (9, 32, 32, 3), np.uint8)
    batch = {"image": images, "label": np.repeat(np.arange(3), 3).astype(np.int32)}
    losses = {}
    for seed in (0, 1, 2**31 - 1):
        state = TrainState(jnp.int32(0), jnp.float32(1.0), {}, optimizer.init(0.0), jnp.int32(seed))
        for number in (0, 1):
            state, metrics = step(state, batch)
            assert state.seed == seed
            losses[seed, number] = float(metrics["loss"])
    assert step._cache_size() == 1
    assert len(set(losses.values())) == 6


def mined(embedding, labels):
    """Distances to the farthest positive and the nearest negative, by NumPy in float64."""
    embedding = np.float64(embedding)
    distances = np.linalg.norm(embedding[:, None] - embedding[None], axis=-1)
    same = labels[:, None] == labels[None]
    return np.where(same, distances, -1).max(axis=1), np.where(same, np.inf, distances).min(axis=1)


def cross(logits, labels, smoothing=0.1):
    """Cross entropy with label smoothing, by NumPy in float64: (B,)."""
    logs = np.float64(logits)
    logs = logs - np.log(np.exp(logs).sum(axis=1, keepdims=True))
    true = logs[np.arange(len(labels)), labels]
    return -((1 - smoothing) * true + smoothing * logs.mean(axis=1))


def test_the_metric_is_of_embeddings_or_of_their_directions(rng):
    labels = np.repeat(np.arange(3), 3).astype(np.int32)
    embedding = (rng.normal(size=(9, 5)) * rng.uniform(0.1, 9, (9, 1))).astype(np.float32)
    directions = np.float64(embedding) / np.linalg.norm(embedding, axis=1, keepdims=True)
    found = []
    for metric, compared in (("euclidean", embedding), ("cosine", directions)):
        positive, negative = mined(compared, labels)
        stage = StageOutput(embedding, None)
        metrics = losses_of([stage], labels, metric=metric, triplet_margin=0.3)
        want = np.maximum(positive - negative + 0.3, 0).mean()
        np.testing.assert_allclose(metrics["loss/triplet_1"], want, rtol=1e-5)
        np.testing.assert_allclose(metrics["loss"], want, rtol=1e-5)
        assert metrics["ordered_1"] == (positive < negative).mean()
        found.append(want)
    assert abs(found[0] - found[1]) > 0.1


@pytest.mark.parametrize("weight", [0.0, 0.25, 3.0])
def test_the_triplet_loss_has_a_weight(rng, weight):
    """The total includes the weight; the metric is the loss without it."""
    labels = np.repeat(np.arange(2), 3).astype(np.int32)
    stages = [
        StageOutput(*(rng.normal(size=(6, n)).astype(np.float32) for n in (4, 3))) for _ in range(2)
    ]
    metrics = losses_of(stages, labels, triplet_weight=weight)
    total = 0.0
    for number, stage in enumerate(stages, start=1):
        positive, negative = mined(stage.embedding, labels)
        triplet = np.log1p(np.exp(positive - negative)).mean()
        np.testing.assert_allclose(metrics[f"loss/triplet_{number}"], triplet, rtol=1e-5)
        total += weight * triplet + cross(stage.logits, labels).mean()
    np.testing.assert_allclose(metrics["loss"], total, rtol=1e-5)


def test_the_id_loss_has_a_margin_and_the_accuracy_none(rng):
    labels = np.arange(8, dtype=np.int32) % 4
    logits = rng.normal(size=(8, 4)).astype(np.float32)
    logits[np.arange(4), labels[:4]] += 1.5  # some are right by less than the margin
    lowered = np.float64(logits)
    lowered[np.arange(8), labels] -= 2.0
    metrics = losses_of([StageOutput(None, logits)], labels, id_margin=2.0)
    np.testing.assert_allclose(metrics["loss/id_1"], cross(lowered, labels).mean(), rtol=1e-5)
    assert metrics["accuracy_1"] == (logits.argmax(axis=1) == labels).mean()
    assert (logits.argmax(axis=1) == labels).sum() > (lowered.argmax(axis=1) == labels).sum()


def test_a_margin_is_of_each_identity_that_a_mixed_image_shows(rng):
    labels = np.arange(6, dtype=np.int32) % 3
    others = (labels + 1) % 3
    logits = rng.normal(size=(6, 3)).astype(np.float32)
    share = np.linspace(0, 1, 6).astype(np.float32)
    stage = StageOutput(None, logits, Mixture(labels=others.astype(np.int32), share=share))
    metrics = losses_of([stage], labels, id_margin=0.5)
    parts = []
    for shown in (labels, others):
        lowered = np.float64(logits)
        lowered[np.arange(6), shown] -= 0.5
        parts.append(cross(lowered, shown))
    want = ((1 - np.float64(share)) * parts[0] + np.float64(share) * parts[1]).mean()
    np.testing.assert_allclose(metrics["loss/id_1"], want, rtol=1e-5)


def test_a_stage_has_the_losses_that_it_has_outputs_for(rng):
    """Stripes of the strong baseline have logits only."""
    labels = np.repeat(np.arange(2), 2).astype(np.int32)
    embedding, logits = (rng.normal(size=(4, n)).astype(np.float32) for n in (5, 2))
    metrics = losses_of([StageOutput(embedding, None), StageOutput(None, logits)], labels)
    assert {name for name in metrics if name[-1].isdigit()} == {
        *("loss/triplet_1", "ordered_1"),
        *("loss/id_2", "accuracy_2"),
    }
    np.testing.assert_allclose(
        metrics["loss"], metrics["loss/triplet_1"] + metrics["loss/id_2"], rtol=1e-6
    )


def test_mixed_images_have_both_labels(rng):
    """The loss of a network with a mixture in its outputs, by NumPy in float64."""
    labels = np.repeat(np.arange(2), 4).astype(np.int32)
    mixture = Mixture(
        labels=jnp.array(labels[::-1].copy()),
        share=jnp.array([0.0, 0.25, 0.5, 0.75, 1.0, 0.1, 0.6, 0.3], jnp.float32),
    )
    logits, embedding = (rng.normal(size=(8, n)).astype(np.float32) for n in (2, 3))
    metrics = losses_of([StageOutput(embedding, logits, mixture)], labels)
    share = np.asarray(mixture.share, np.float64)
    own, other = cross(logits, labels), cross(logits, labels[::-1])
    np.testing.assert_allclose(
        metrics["loss/id_1"], ((1 - share) * own + share * other).mean(), rtol=1e-5
    )
    # Mining uses the identity with the larger share; with equal shares, the image's own.
    shown = np.where(share > 0.5, labels[::-1], labels)
    positive, negative = mined(embedding, shown)
    triplet = np.log1p(np.exp(positive - negative)).mean()
    np.testing.assert_allclose(metrics["loss/triplet_1"], triplet, rtol=1e-5)
    assert metrics["accuracy_1"] == (logits.argmax(axis=1) == shown).mean()
