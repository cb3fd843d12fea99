"""The baseline with generalized-mean pooling, a neck and stripes, against NumPy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reid_jax import schedules
from reid_jax.configs import common
from reid_jax.models import Baseline, ResNet
from reid_jax.runtime.collectives import AXIS
from reid_jax.runtime.devices import place
from reid_jax.training import optimizer as optimizers
from reid_jax.training.feed import feed
from reid_jax.training.state import TrainState
from reid_jax.training.step import make_step, pmap_step
from tests import reference
from tests.slow import quick_only

SIZE = (96, 64)  # maps have 6x4 cells
LABELS = np.array([0, 0, 1, 1, 2, 2, 4, 4], np.int32)
STRIDES = (1, 2, 2, 1)
STRONG = {"pooling": "gem", "neck": "batch_norm", "stripes": 3}
# Each part separately, and combinations.
SETTINGS = [
    STRONG,
    {"pooling": "max", "stripes": 2},
    {"neck": "batch_norm", "cosine_scale": 8.0},
    {"pooling": "gem", "cosine_scale": 20.0, "stripes": 1},
    {"neck": "batch_norm", "stripes": 2, "whole_dim": 7, "stripe_dim": 3},
    {"stripes": 1, "stripe_dim": 5},
]
POOLS = {
    "average": lambda x, _: x.mean(axis=(1, 2)),
    "max": lambda x, _: x.max(axis=(1, 2)),
    "gem": lambda x, params: reference.generalized_mean(x, params["p"][0]),
}


def tiny(axis_name=None, **settings):
    trunk = ResNet(depths=(1, 1, 1, 1), width=2, axis_name=axis_name)
    return Baseline(num_classes=5, trunk=trunk, axis_name=axis_name, **settings)


def variables_of(network, seed=2):
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, *SIZE, 3)))
    return reference.random_variables(dict(shapes), np.random.default_rng(seed))


def parts_of(features, stripes):
    """The map, and the rows of each stripe from its top, cut by hand."""
    rows = features.shape[1] // max(stripes, 1)
    return [features] + [features[:, i * rows : i * rows + rows] for i in range(stripes)]


def heads_in_float64(features, params, stats, settings):
    """Embedding, descriptor and logits of every head, computed from res5."""
    pool, scale = POOLS[settings.get("pooling", "average")], settings.get("cosine_scale", 0)
    return [
        reference.pooled_head(
            part,
            params[f"heads_{i}"],
            pool,
            None if stats is None else stats.get(f"heads_{i}"),
            scale,
        )
        for i, part in enumerate(parts_of(features, settings.get("stripes", 0)))
    ]


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).normal(size=(8, *SIZE, 3)).astype(np.float32)


def close(got, want):
    assert got.dtype == jnp.float32
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4 * np.abs(want).max())


@pytest.mark.parametrize("settings", quick_only(SETTINGS, *SETTINGS[:2]))
def test_both_faces_equal_numpy_in_float64(images, settings):
    """Every head has logits; only the whole map's has an embedding, and so a triplet loss."""
    network = tiny(**settings)
    variables = variables_of(network)

    @jax.jit
    def training(variables):
        return network.apply(
            variables, images, LABELS, jax.random.key(5), method="training", mutable=["batch_stats"]
        )

    outputs, _ = training(variables)
    double = reference.in_float64(variables)
    params, stats = double["params"], double["batch_stats"]
    features = reference.resnet(np.float64(images), params["trunk"], STRIDES)
    wanted = heads_in_float64(features, params, None, settings)
    assert len(outputs) == 1 + settings.get("stripes", 0) == len(network.stage_names)
    for i, (output, want) in enumerate(zip(outputs, wanted, strict=True)):
        assert (output.embedding is None) == (i > 0)
        if i == 0:
            close(output.embedding, want[0])
        close(output.descriptor, want[1])
        close(output.logits, want[2])

    features = reference.resnet(np.float64(images), params["trunk"], STRIDES, stats["trunk"])
    wanted = heads_in_float64(features, params, stats, settings)
    descriptors = [descriptor for _, descriptor, _ in wanted]
    close(jax.jit(network.apply)(variables, images), np.concatenate(descriptors, axis=1))


def test_the_heads_are_named_and_have_maps_from_the_top(images):
    network = tiny(**STRONG)
    assert network.stage_names == ("res5", "Stripe 1", "Stripe 2", "Stripe 3")
    assert tiny().stage_names == ("res5",)
    variables = variables_of(network)
    whole, *parts = jax.jit(lambda v: network.apply(v, images[:2], train=False, method="maps"))(
        variables
    )
    assert whole.shape == (2, 6, 4, 64)
    assert [part.shape for part in parts] == [(2, 2, 4, 64)] * 3
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)
    (alone,) = jax.eval_shape(
        lambda v: tiny().apply(v, images[:2], train=False, method="maps"), variables
    )
    assert alone.shape == whole.shape


def test_gradcam_of_a_stripe_lies_at_its_rows(images):
    """Average pooling, neck and classifier are linear, so channel weights have a closed form."""
    settings = {"neck": "batch_norm", "stripes": 3}
    network = tiny(**settings)
    variables = variables_of(network)
    cams = jax.jit(lambda v: network.apply(v, images, method="gradcams"))(variables)
    double = reference.in_float64(variables)
    params, stats = double["params"], double["batch_stats"]
    features = reference.resnet(np.float64(images), params["trunk"], STRIDES, stats["trunk"])
    want = np.zeros((8, 4, 6, 4))
    heads = heads_in_float64(features, params, stats, settings)
    rows_of = [slice(0, 6), slice(0, 2), slice(2, 4), slice(4, 6)]
    for i, ((_, _, logits), rows) in enumerate(zip(heads, rows_of, strict=True)):
        head, neck = params[f"heads_{i}"], stats[f"heads_{i}"]["neck"]
        slope = head["neck"]["scale"] / np.sqrt(neck["var"] + 1e-5)
        for b, predicted in enumerate(logits.argmax(axis=1)):
            part = features[b, rows]
            weights = head["classifier"]["kernel"][:, predicted] * slope / part[..., 0].size
            want[b, i, rows] = np.maximum(0, part @ weights)
    close(cams, want)
    assert np.all(want.max(axis=(0, 2, 3)) > 0)


@pytest.mark.parametrize(
    ("settings", "size", "message"),
    [
        ({"stripes": 4}, SIZE, r"^model\.stripes is 4, but the map has 6 rows"),
        ({"stripes": 12}, SIZE, r"^model\.stripes is 12, but the map has 6 rows"),
        ({"stripes": 3}, (112, 64), r"^model\.stripes is 3, but the map has 7 rows"),
        ({"stripes": 3, "classifier": False}, SIZE, r"^model\.stripes is 3; .*classifier is False"),
        (
            {"neck": "batch_norm", "classifier": False},
            SIZE,
            r"^model\.neck is 'batch_norm'; it must be 'none', because model\.classifier is False",
        ),
        (
            {"whole_dim": 9, "classifier": False},
            SIZE,
            r"^model\.whole_dim is 9; .*classifier is False",
        ),
        (
            {"cosine_scale": 9.0, "classifier": False},
            SIZE,
            r"^model\.cosine_scale is 9\.0; .*classifier is False",
        ),
    ],
)
def test_what_no_baseline_can_have_is_named(settings, size, message):
    with pytest.raises(ValueError, match=message):
        tiny(**settings).check(size)


def test_stripes_may_be_of_one_row():
    tiny(stripes=6).check(SIZE)
    tiny(stripes=7).check((112, 64))


LOSSES = {
    "triplet_margin": 0.0,
    "triplet_weight": 0.5,
    "metric": "euclidean",
    "label_smoothing": 0.1,
    "id_margin": 0.2,
}


def still_config():
    """The strong recipe without augmentation, with losses that tests check."""
    config = common.strong()
    config.augment.update(
        {"flip": 0.0, "crop_padding": 0, "erasing_probability": 0.0, "cutout_probability": 0.0}
    )
    config.augment.update({"brightness": 0.0, "contrast": 0.0, "saturation": 0.0})
    config.loss.update(LOSSES)
    config.optim.update(trunk_lr=1.0, frozen_epochs=0)
    return config


def stepper(axis_name=None):
    """The step of a tiny strong network, and its initial state."""
    config, network = still_config(), tiny(axis_name, **STRONG)
    schedule = schedules.create_schedule(config.optim, 10)
    optimizer = optimizers.create_optimizer(config.optim, schedule, 10)
    variables = variables_of(network)
    params = jax.tree.map(jnp.asarray, variables["params"])
    state = TrainState(jnp.int32(0), params, variables["batch_stats"], optimizer.init(params), 0)
    return config, make_step(network, optimizer, schedule, config, axis_name), state


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(3).integers(0, 256, (8, *SIZE, 3)).astype(np.uint8)


def losses_in_float64(features, params):
    """Losses of the batch `LABELS` by name, from res5 and the heads' parameters."""
    heads = heads_in_float64(features, params, None, STRONG)
    embedding = heads[0][0]
    distances = np.sqrt(((embedding[:, None] - embedding[None]) ** 2).sum(axis=2))
    same = LABELS[:, None] == LABELS[None]
    farthest = np.where(same, distances, 0).max(axis=1)
    nearest = np.where(same, np.inf, distances).min(axis=1)
    found = {"loss/triplet_1": np.log1p(np.exp(farthest - nearest)).mean()}
    for stage, (_, _, logits) in enumerate(heads, start=1):
        lowered = logits.copy()
        lowered[np.arange(8), LABELS] -= 0.2
        logs = lowered - np.log(np.exp(lowered).sum(axis=1, keepdims=True))
        targets = np.full(logits.shape, 0.1 / 5)
        targets[np.arange(8), LABELS] += 0.9
        found[f"loss/id_{stage}"] = -(targets * logs).sum(axis=1).mean()
    return found


def total(losses):
    return 0.5 * losses["loss/triplet_1"] + sum(losses[f"loss/id_{i}"] for i in (1, 2, 3, 4))


def test_a_step_equals_numpy_in_float64(pixels, standard_promotion):
    """Losses, statistics of necks, and the gradients of all of the heads' parameters."""
    config, step, state = stepper()
    after, metrics = jax.jit(step)(state, {"image": pixels, "label": LABELS})

    params = reference.in_float64(state.params)
    images = (pixels / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    features = reference.resnet(images, params["trunk"], STRIDES)
    want = losses_in_float64(features, params)
    assert {name for name in metrics if name.startswith("loss/")} == want.keys()
    for name, value in want.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-4, err_msg=name)
    np.testing.assert_allclose(metrics["loss"], total(want), rtol=1e-4)
    assert {"accuracy_1", "accuracy_4", "ordered_1"} <= metrics.keys()
    assert "ordered_2" not in metrics

    moments = after.opt_state[1].mu  # 0.1 of the gradient, after one step
    decay = config.optim.weight_decay
    for i in range(4):
        head = params[f"heads_{i}"]
        assert {name: set(tree) for name, tree in head.items()} == {
            "pool": {"p"},
            "neck": {"scale"},
            "classifier": {"kernel"},
        }
        for name, leaf in (("pool", "p"), ("neck", "scale"), ("classifier", "kernel")):

            def loss_of(values, i=i, name=name, leaf=leaf):
                changed = {**params[f"heads_{i}"], name: {leaf: values}}
                return total(losses_in_float64(features, {**params, f"heads_{i}": changed}))

            gradient = reference.numerical_gradient(loss_of, head[name][leaf])
            gradient = gradient + decay * head[name][leaf]
            got = 10 * np.float64(moments[f"heads_{i}"][name][leaf])
            scale = np.abs(gradient).max()
            np.testing.assert_allclose(got, gradient, rtol=1e-3, atol=1e-3 * scale)

        part = parts_of(features, 3)[i]
        embedding = reference.generalized_mean(part, head["pool"]["p"][0])
        before = state.batch_stats[f"heads_{i}"]["neck"]
        remembered = after.batch_stats[f"heads_{i}"]["neck"]
        np.testing.assert_allclose(
            remembered["mean"], 0.9 * before["mean"] + 0.1 * embedding.mean(axis=0), rtol=1e-4
        )
        np.testing.assert_allclose(
            remembered["var"], 0.9 * before["var"] + 0.1 * embedding.var(axis=0, ddof=1), rtol=1e-4
        )
    moved = jax.tree.map(lambda x, y: bool(np.any(x != y)), after.params, state.params)
    assert all(jax.tree.leaves(moved))


@pytest.mark.slow
def test_four_devices_train_as_one_does(pixels, standard_promotion):
    found = {}
    for count in (1, 4):
        devices = jax.devices()[:count]
        _, step, state = stepper(AXIS)
        (fed,) = feed([{"image": pixels, "label": LABELS}], devices)
        found[count] = jax.device_get(pmap_step(step, devices)(place(state, devices), fed))
    (one, metrics), (four, others) = found[1], found[4]
    for name, value in metrics.items():
        np.testing.assert_allclose(others[name], value, rtol=1e-4, err_msg=name)
    assert "neck" in one.batch_stats["heads_3"]
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5),
        one.batch_stats,
        four.batch_stats,
    )
    moments = [jax.tree_util.tree_leaves_with_path(s.opt_state[1].mu) for s in (one, four)]
    for (path, moment), (_, other) in zip(*moments, strict=True):
        assert np.any(moment != 0), path
        assert np.linalg.norm(moment - other) <= 1e-3 * np.linalg.norm(moment) + 1e-6, path
