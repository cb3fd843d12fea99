import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reid_jax import schedules
from reid_jax.configs import common
from reid_jax.models import Baseline, ResNet
from reid_jax.training import optimizer as optimizers
from reid_jax.training.state import TrainState
from reid_jax.training.step import make_step
from tests import reference

SIZE = (96, 64)
LABELS = np.array([0, 0, 1, 1, 2, 2], np.int32)
STRIDES = (1, 2, 2, 1)


def tiny(classifier=True):
    """A baseline that compiles in a second or two."""
    return Baseline(
        num_classes=5, trunk=ResNet(depths=(1, 1, 1, 1), width=2), classifier=classifier
    )


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


def triplet_loss(embedding, margin):
    """The mean of equation 7 with batch-hard mining."""
    total = 0.0
    for anchor, label in zip(embedding, LABELS, strict=True):
        distances = np.sqrt(((embedding - anchor) ** 2).sum(axis=1))
        total += max(
            0.0, distances[label == LABELS].max() + margin - distances[label != LABELS].min()
        )
    return total / len(LABELS)


def identity_loss(logits, epsilon):
    """The mean of equations 8 and 9."""
    total = 0.0
    classes = logits.shape[1]
    for row, label in zip(logits, LABELS, strict=True):
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
    state = TrainState(jnp.int32(0), params, variables["batch_stats"], optimizer.init(params), 0)
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


def test_without_a_classifier_there_are_no_logits(variables, images):
    (output,), _ = jax.eval_shape(
        lambda v: tiny(False).apply(
            v, images, LABELS, jax.random.key(5), method="training", mutable=["batch_stats"]
        ),
        without_classifier(variables),
    )
    assert output.logits is None
    assert output.embedding.shape == (6, 64)
