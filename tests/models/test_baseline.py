import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reid_jax import schedules
from reid_jax.configs import common
from reid_jax.models import Baseline, ResNet
from reid_jax.runtime.collectives import AXIS
from reid_jax.training import optimizer as optimizers
from reid_jax.training.feed import feed
from reid_jax.training.state import TrainState, create_state
from reid_jax.training.step import make_step, place, pmap_step
from tests import reference

SIZE = (96, 64)
LABELS = np.array([0, 0, 1, 1, 2, 2], np.int32)
STRIDES = (1, 2, 2, 1)


STRIPES = 3  # of two rows each: maps have 6x4 cells


def tiny(classifier=True, axis_name=None, **settings):
    """A baseline that compiles in a second or two."""
    trunk = ResNet(depths=(1, 1, 1, 1), width=2, axis_name=axis_name)
    return Baseline(
        num_classes=5, trunk=trunk, axis_name=axis_name, classifier=classifier, **settings
    )


def strong(axis_name=None, **settings):
    """With all that the strong recipe adds."""
    settings = {"pooling": "gem", "neck": "batch_norm", "stripes": STRIPES, **settings}
    return tiny(axis_name=axis_name, **settings)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).normal(size=(6, *SIZE, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def variables(images):
    shapes = jax.eval_shape(tiny().init, jax.random.key(0), images)
    return reference.random_variables(shapes, np.random.default_rng(2))


def without_classifier(variables):
    params = {name: tree for name, tree in variables["params"].items() if name != "heads_0"}
    return {**variables, "params": params}


def close(got, want):
    assert got.dtype == jnp.float32
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4 * np.abs(want).max())


def test_training_equals_numpy_in_float64(variables, images):
    @jax.jit
    def run(variables, images):
        return tiny().apply(
            variables, images, LABELS, jax.random.key(5), method="training", mutable=["batch_stats"]
        )

    ((embedding, logits, *_),), _ = run(variables, images)
    params = reference.in_float64(variables["params"])
    pooled = reference.resnet(np.float64(images), params["trunk"], STRIDES).mean(axis=(1, 2))
    classifier = params["heads_0"]["classifier"]
    close(embedding, pooled)
    close(logits, pooled @ classifier["kernel"] + classifier["bias"])


@pytest.mark.parametrize("classifier", [True, False])
def test_inference_equals_numpy_in_float64(variables, images, classifier):
    double = reference.in_float64(variables)
    res5 = reference.resnet(
        np.float64(images), double["params"]["trunk"], STRIDES, double["batch_stats"]["trunk"]
    )
    given = variables if classifier else without_classifier(variables)
    close(jax.jit(tiny(classifier).apply)(given, images), res5.mean(axis=(1, 2)))


def test_the_classifier_is_a_choice(images):
    given = {
        classifier: jax.eval_shape(tiny(classifier).init, jax.random.key(0), images)
        for classifier in (True, False)
    }
    assert set(given[False]["params"]) == {"trunk"}
    assert set(given[True]["params"]) == {"trunk", "heads_0"}
    assert given[True]["params"]["heads_0"]["classifier"]["kernel"].shape == (64, 5)
    assert set(given[True]["params"]["heads_0"]) == {"classifier"}
    for tree in given.values():
        assert set(tree["batch_stats"]) == {"trunk"}
    assert tiny(True).classifies
    assert not tiny(False).classifies


def gem(x, params):
    return reference.generalized_mean(x, params["p"][0])


def stripes_in_float64(res5):
    """The whole map, and the rows of each stripe."""
    return [res5, res5[:, 0:2], res5[:, 2:4], res5[:, 4:6]]


@pytest.fixture(scope="module")
def strong_variables(images):
    shapes = jax.eval_shape(strong().init, jax.random.key(0), images)
    return reference.random_variables(shapes, np.random.default_rng(3))


def strong_in_float64(variables, images, train, cosine_scale=0):
    """Embedding, descriptor and logits of each head of the strong baseline."""
    double = reference.in_float64(variables)
    params, stats = double["params"], double["batch_stats"]
    trunk_stats = None if train else stats["trunk"]
    res5 = reference.resnet(np.float64(images), params["trunk"], STRIDES, trunk_stats)
    return [
        reference.pooled_head(
            x,
            params[f"heads_{i}"],
            gem,
            None if train else stats[f"heads_{i}"],
            cosine_scale=cosine_scale,
        )
        for i, x in enumerate(stripes_in_float64(res5))
    ]


def test_the_strong_baseline_in_training_equals_numpy_in_float64(strong_variables, images):
    """Every head has logits; only the whole map's head has an embedding for the triplet loss."""

    @jax.jit
    def run(variables, images):
        return strong().apply(
            variables, images, LABELS, jax.random.key(5), method="training", mutable=["batch_stats"]
        )

    outputs, updates = run(strong_variables, images)
    want = strong_in_float64(strong_variables, images, train=True)
    assert len(outputs) == len(want) == 1 + STRIPES
    close(outputs[0].embedding, want[0][0])
    assert all(output.embedding is None for output in outputs[1:])
    for output, (_, descriptor, logits) in zip(outputs, want, strict=True):
        close(output.descriptor, descriptor)
        close(output.logits, logits)
    jax.tree.map(
        lambda new, old: np.testing.assert_array_less(0, np.abs(new - old).max()),
        updates["batch_stats"],
        strong_variables["batch_stats"],
    )


def test_the_strong_descriptor_is_that_of_all_heads_side_by_side(strong_variables, images):
    want = strong_in_float64(strong_variables, images, train=False)
    got = jax.jit(strong().apply)(strong_variables, images)
    assert got.shape == (6, 64 * (1 + STRIPES))
    close(got, np.concatenate([descriptor for _, descriptor, _ in want], axis=1))


@pytest.mark.parametrize("pooling", ["average", "max"])
def test_stripes_and_neck_are_choices_of_their_own(images, pooling):
    """Without the other, from the same weights."""
    pools = {"average": lambda x: x.mean(axis=(1, 2)), "max": lambda x: x.max(axis=(1, 2))}
    network = strong(pooling=pooling, neck="none")
    shapes = jax.eval_shape(network.init, jax.random.key(0), images)
    variables = reference.random_variables(shapes, np.random.default_rng(3))
    double = reference.in_float64(variables)
    res5 = reference.resnet(
        np.float64(images), double["params"]["trunk"], STRIDES, double["batch_stats"]["trunk"]
    )
    want = [pools[pooling](x) for x in stripes_in_float64(res5)]
    close(jax.jit(network.apply)(variables, images), np.concatenate(want, axis=1))


def test_gradcams_of_stripes_lie_at_their_rows(strong_variables, images):
    """Each equals float64, with the gradient by differences; elsewhere it is zero."""
    network, few = strong(), images[:2]
    cams = jax.jit(lambda v, x: network.apply(v, x, method="gradcams"))(strong_variables, few)
    assert cams.shape == (2, 1 + STRIPES, 6, 4)
    assert network.stage_names == ("res5", "Stripe 1", "Stripe 2", "Stripe 3")
    double = reference.in_float64(strong_variables)
    params, stats = double["params"], double["batch_stats"]
    res5 = reference.resnet(np.float64(few), params["trunk"], STRIDES, stats["trunk"])
    # res5's gradient by differences takes long; it is the same code.
    for stripe, features in list(enumerate(stripes_in_float64(res5)))[1:]:
        head = params[f"heads_{stripe}"], stats[f"heads_{stripe}"]

        def logits(x, head=head):
            return reference.pooled_head(x, head[0], gem, head[1])[2]

        predicted = logits(features).argmax(axis=1)
        gradient = reference.numerical_gradient(
            lambda x, p=predicted, logits=logits: logits(x)[[0, 1], p].sum(), features
        )
        weights = gradient.mean(axis=(1, 2), keepdims=True)
        want = np.zeros((2, 6, 4))
        want[:, 2 * (stripe - 1) : 2 * stripe] = np.maximum((weights * features).sum(axis=-1), 0)
        assert want.max() > 0
        close(cams[:, stripe], want)
    assert np.all(cams[:, 0].max(axis=(1, 2)) > 0)


def test_cams_without_stripes_are_of_the_whole_map(variables, images):
    cams = jax.eval_shape(lambda v: tiny().apply(v, images, method="gradcams"), variables)
    assert cams.shape == (6, 1, 6, 4)
    assert tiny().stage_names == ("res5",)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stripes": 4}, r"model\.stripes is 4, but the map has 6 rows"),
        ({"stripes": 7}, r"model\.stripes is 7, but the map has 6 rows"),
        ({"classifier": False}, r"model\.stripes is 3, but model\.classifier is False: set"),
        (
            {"classifier": False, "stripes": 0, "cosine_scale": 8.0},
            r"model\.cosine_scale is 8\.0, but model\.classifier is False: set",
        ),
    ],
)
def test_contradictions_name_their_leaves(settings, message):
    network = strong(**settings)
    with pytest.raises(ValueError, match=message):
        network.check(SIZE)


@pytest.mark.parametrize("stripes", [0, 1, 2, 3, 6])
def test_stripes_that_divide_the_rows_pass(stripes):
    strong(stripes=stripes).check(SIZE)


def triplet_loss(embedding, margin):
    """The mean of equation 7 with batch-hard mining."""
    total = 0.0
    for anchor, label in zip(embedding, LABELS, strict=True):
        distances = np.sqrt(((embedding - anchor) ** 2).sum(axis=1))
        total += max(
            0.0, distances[label == LABELS].max() + margin - distances[label != LABELS].min()
        )
    return total / len(LABELS)


def identity_loss(logits, epsilon, margin=0.0):
    """The mean of equations 8 and 9; the true class's logit loses the margin first."""
    total = 0.0
    classes = logits.shape[1]
    for row, label in zip(logits, LABELS, strict=True):
        row = row.copy()
        row[label] -= margin
        p = np.exp(row) / np.exp(row).sum()
        for i in range(classes):
            q = 1 - (classes - 1) / classes * epsilon if i == label else epsilon / classes
            total -= q * np.log(p[i])
    return total / len(LABELS)


@pytest.mark.parametrize("classifier", [True, False])
def test_a_step_has_an_id_loss_with_a_classifier_only(
    variables, classifier, rng, standard_promotion
):
    config = common.baseline("ls" if classifier else "triplet")
    config.augment.update({"cutout_size": 16, "flip": 0.0, "erasing_probability": 0.0})
    variables = variables if classifier else without_classifier(variables)
    schedule = schedules.create_schedule(config.optim, 10)
    optimizer = optimizers.create_optimizer(config.optim, schedule)
    params = jax.tree.map(jnp.asarray, variables["params"])
    state = TrainState(jnp.int32(0), params, variables["batch_stats"], optimizer.init(params))
    pixels = rng.integers(0, 256, (6, *SIZE, 3)).astype(np.uint8)
    step = jax.jit(make_step(tiny(classifier), optimizer, schedule, config, None))
    after, metrics = step(state, {"image": pixels, "label": LABELS})

    double = reference.in_float64(params)
    images = (pixels / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    embedding = reference.resnet(images, double["trunk"], STRIDES).mean(axis=(1, 2))
    want = {"loss/triplet_1": triplet_loss(embedding, margin=0.3)}
    if classifier:
        weights = double["heads_0"]["classifier"]
        want["loss/id_1"] = identity_loss(embedding @ weights["kernel"] + weights["bias"], 0.3)
    losses = {name: value for name, value in metrics.items() if name.startswith("loss/")}
    assert losses.keys() == want.keys()
    for name, value in want.items():
        assert value > 0
        np.testing.assert_allclose(losses[name], value, rtol=1e-4, err_msg=name)
    np.testing.assert_allclose(metrics["loss"], sum(want.values()), rtol=1e-4)
    assert ("accuracy_1" in metrics) == classifier
    assert "ordered_1" in metrics
    assert "loss/triplet_2" not in metrics
    moved = jax.tree.map(lambda x, y: bool(np.any(x != y)), after.params, params)
    assert all(jax.tree.leaves(moved))


@pytest.mark.parametrize(
    "loss",
    [
        {"triplet_margin": 0.3, "label_smoothing": 0.1},
        {"triplet_margin": 0.3, "metric": "cosine", "triplet_weight": 0.5, "id_margin": 0.7},
        {"triplet_margin": 0.3, "triplet_weight": 0.0},
    ],
)
@pytest.mark.parametrize("cosine_scale", [0.0, 4.0])
def test_a_step_of_the_strong_baseline_equals_numpy_in_float64(
    strong_variables, loss, cosine_scale, rng, standard_promotion
):
    config = common.strong()
    config.loss.update(loss)
    config.augment.update({"flip": 0.0, "erasing_probability": 0.0, "crop_padding": 0})
    schedule = optimizers.create_schedule(config.optim, 10)
    optimizer = optimizers.create_optimizer(config.optim, schedule)
    params = jax.tree.map(jnp.asarray, strong_variables["params"])
    state = TrainState(
        jnp.int32(0), params, strong_variables["batch_stats"], optimizer.init(params)
    )
    pixels = rng.integers(0, 256, (6, *SIZE, 3)).astype(np.uint8)
    network = strong(cosine_scale=cosine_scale)
    step = jax.jit(make_step(network, optimizer, schedule, config, None))
    after, metrics = step(state, {"image": pixels, "label": LABELS})

    images = (pixels / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    heads = strong_in_float64(strong_variables, images, train=True, cosine_scale=cosine_scale)
    embedding = heads[0][0]
    if config.loss.metric == "cosine":
        embedding = embedding / np.linalg.norm(embedding, axis=1, keepdims=True)
    want = {"loss/triplet_1": triplet_loss(embedding, margin=0.3)}
    for stage, (_, _, logits) in enumerate(heads, start=1):
        want[f"loss/id_{stage}"] = identity_loss(
            logits, config.loss.label_smoothing, config.loss.id_margin
        )
        accuracy = (logits.argmax(axis=1) == LABELS).mean()
        np.testing.assert_allclose(metrics[f"accuracy_{stage}"], accuracy, rtol=1e-6)
    losses = {name: value for name, value in metrics.items() if name.startswith("loss/")}
    assert losses.keys() == want.keys()
    for name, value in want.items():
        assert value > 0
        np.testing.assert_allclose(losses[name], value, rtol=1e-4, err_msg=name)
    total = sum(want.values()) - (1 - config.loss.triplet_weight) * want["loss/triplet_1"]
    np.testing.assert_allclose(metrics["loss"], total, rtol=1e-4)
    assert {name for name in metrics if name.startswith("ordered")} == {"ordered_1"}
    moved = jax.tree.map(lambda x, y: bool(np.any(x != y)), after.params, params)
    assert all(jax.tree.leaves(moved))


def test_a_step_has_the_gradient_of_the_weighted_losses(strong_variables, standard_promotion):
    """By differences in float64, of a few parameters of each kind; with margin, cosines, weight."""
    config = common.strong()
    config.loss.update({"metric": "cosine", "triplet_weight": 0.5, "id_margin": 0.7})
    config.loss.update({"triplet_margin": 0.3})
    config.augment.update({"flip": 0.0, "erasing_probability": 0.0, "crop_padding": 0})
    config.optim.weight_decay = 0.0
    schedule = optimizers.create_schedule(config.optim, 10)
    optimizer = optimizers.create_optimizer(config.optim, schedule)
    params = jax.tree.map(jnp.asarray, strong_variables["params"])
    state = TrainState(
        jnp.int32(0), params, strong_variables["batch_stats"], optimizer.init(params)
    )
    pixels = np.random.default_rng(7).integers(0, 256, (6, *SIZE, 3)).astype(np.uint8)
    step = jax.jit(make_step(strong(cosine_scale=4.0), optimizer, schedule, config, None))
    after, _ = step(state, {"image": pixels, "label": LABELS})
    # Adam's first moment after a step is 0.1 of the gradient.
    gradient = jax.tree.map(lambda moment: 10 * moment, after.opt_state[1].mu)

    images = (pixels / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    double = reference.in_float64(strong_variables)
    res5 = reference.resnet(images, double["params"]["trunk"], STRIDES)

    def loss(heads):
        total = 0.0
        for i, x in enumerate(stripes_in_float64(res5)):
            embedding, _, logits = reference.pooled_head(x, heads[i], gem, cosine_scale=4.0)
            total += identity_loss(logits, 0.1, 0.7)
            if i == 0:
                unit = embedding / np.linalg.norm(embedding, axis=1, keepdims=True)
                total += 0.5 * triplet_loss(unit, margin=0.3)
        return total

    heads = [double["params"][f"heads_{i}"] for i in range(1 + STRIPES)]
    for i, name, leaf in ((0, "pool", "p"), (0, "neck", "scale"), (2, "classifier", "kernel")):
        array, got = heads[i][name][leaf], gradient[f"heads_{i}"][name][leaf]
        for spot in list(np.ndindex(*array.shape))[:5]:
            before, values = array[spot], []
            for shift in (1e-5, -1e-5):
                array[spot] = before + shift
                values.append(loss(heads))
            array[spot] = before
            want = (values[0] - values[1]) / 2e-5
            np.testing.assert_allclose(got[spot], want, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_four_devices_train_the_strong_baseline_as_one_does(standard_promotion):
    """Losses, statistics and gradients, which reach every parameter."""
    rng = np.random.default_rng(0)
    batch = {
        "image": rng.integers(0, 256, (16, *SIZE, 3)).astype(np.uint8),
        "label": np.tile(np.arange(4, dtype=np.int32), 4),  # positives are on other devices
    }
    config = common.strong()
    config.loss.update({"metric": "cosine", "id_margin": 0.1})
    config.augment.update({"brightness": 0.2, "contrast": 0.2, "saturation": 0.2})
    schedule = optimizers.create_schedule(config.optim, 10)
    optimizer = optimizers.create_optimizer(config.optim, schedule)
    found = {}
    for count in (1, 4):
        devices = jax.devices()[:count]
        network = strong(AXIS, cosine_scale=8.0)
        state = create_state(network, optimizer, SIZE, config.seed)
        step = pmap_step(make_step(network, optimizer, schedule, config), devices)
        (fed,) = feed([batch], devices)
        found[count] = jax.device_get(step(place(state, devices), fed))
    (one, metrics), (four, others) = found[1], found[4]
    for name, value in metrics.items():
        np.testing.assert_allclose(others[name], value, rtol=1e-4, err_msg=name)
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


def test_without_a_classifier_there_are_no_logits(variables, images):
    (output,), _ = jax.eval_shape(
        lambda v: tiny(False).apply(
            v, images, LABELS, jax.random.key(5), method="training", mutable=["batch_stats"]
        ),
        without_classifier(variables),
    )
    assert output.logits is None
    assert output.embedding.shape == (6, 64)
