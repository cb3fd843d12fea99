"""The pooled head: poolings, neck, classifiers, and its outputs for losses and descriptor."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reid_jax.models.heads import CosineClassifier, PooledHead, StageOutput, unit_length
from reid_jax.models.normalization import BatchNorm
from tests import reference

LAMBDAS = (0.0, 0.5, 1.0)
POOLS = {
    "average": lambda x, _: x.mean(axis=(1, 2)),
    "max": lambda x, _: x.max(axis=(1, 2)),
    "gem": lambda x, params: reference.generalized_mean(x, params["p"][0]),
    "generalized": lambda x, _: reference.generalized_pool(x, LAMBDAS) / len(LAMBDAS),
}


@pytest.fixture(scope="module")
def features():
    """Features as after a ReLU, whose mean is far from zero."""
    return np.random.default_rng(0).gamma(2.0, size=(6, 4, 2, 5)).astype(np.float32)


def variables_of(head, features, seed=1):
    shapes = jax.eval_shape(lambda: head.init(jax.random.key(0), features, train=False))
    return reference.random_variables(dict(shapes), np.random.default_rng(seed))


def close(got, want, rtol=1e-5):
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, want, rtol=rtol, atol=rtol * np.abs(want).max())


@pytest.mark.parametrize("pooling", POOLS)
@pytest.mark.parametrize("neck", ["none", "batch_norm"])
@pytest.mark.parametrize("cosine_scale", [0.0, 16.0])
@pytest.mark.parametrize("train", [True, False])
def test_a_head_equals_float64(features, pooling, neck, cosine_scale, train):
    """The descriptor and the logits come after the neck, the embedding before it."""
    head = PooledHead(
        7, pooling, LAMBDAS, "mean", neck=neck, cosine_scale=cosine_scale, classifier_std=0.1
    )
    variables = variables_of(head, features)
    output, _ = head.apply(variables, features, train=train, mutable=["batch_stats"])
    double = reference.in_float64(variables)
    stats = None if train else double.get("batch_stats")
    want = reference.pooled_head(
        np.float64(features), double["params"], POOLS[pooling], stats, cosine_scale
    )
    for got, expected in zip(
        (output.embedding, output.descriptor, output.logits), want, strict=True
    ):
        close(got, expected)
    np.testing.assert_array_equal(output.described, output.descriptor)
    assert (neck == "none") == np.array_equal(output.embedding, output.descriptor)
    assert output.mixture is None


def test_a_neck_takes_the_batchs_statistics_in_training_and_remembers_them(features):
    head = PooledHead(7, neck="batch_norm")
    variables = variables_of(head, features)
    _, updates = head.apply(variables, features, train=True, mutable=["batch_stats"])
    embedding = features.mean(axis=(1, 2), dtype=np.float64)
    before, after = variables["batch_stats"]["neck"], updates["batch_stats"]["neck"]
    close(after["mean"], 0.9 * before["mean"] + 0.1 * embedding.mean(axis=0))
    close(after["var"], 0.9 * before["var"] + 0.1 * embedding.var(axis=0, ddof=1))
    # At inference, an image's descriptor does not depend on the rest of its batch.
    both = head.apply(variables, features, train=False).descriptor
    one = head.apply(variables, features[2:3], train=False).descriptor
    np.testing.assert_allclose(one, both[2:3], rtol=1e-5)


@pytest.mark.parametrize(
    ("settings", "parameters"),
    [
        ({}, {"classifier": {"kernel", "bias"}}),
        ({"num_classes": None}, {}),
        ({"neck": "batch_norm"}, {"neck": {"scale"}, "classifier": {"kernel"}}),
        ({"neck": "batch_norm", "num_classes": None}, {"neck": {"scale"}}),
        ({"cosine_scale": 8.0}, {"classifier": {"kernel"}}),
        ({"pooling": "gem"}, {"pool": {"p"}, "classifier": {"kernel", "bias"}}),
    ],
)
def test_which_parameters_a_head_has(features, settings, parameters):
    head = PooledHead(**{"num_classes": 7, **settings})
    variables = jax.eval_shape(lambda: head.init(jax.random.key(0), features, train=False))
    found = {name: set(tree) for name, tree in variables.get("params", {}).items()}
    assert found == parameters


@pytest.mark.parametrize("cosine_scale", [0.0, 16.0])
@pytest.mark.parametrize("deviation", [1e-3, 0.2])
def test_the_initial_deviation_of_the_classifier(cosine_scale, deviation):
    head = PooledHead(400, cosine_scale=cosine_scale, classifier_std=deviation)
    kernel = head.init(jax.random.key(3), jnp.ones((1, 1, 1, 50)), train=False)["params"][
        "classifier"
    ]["kernel"]
    assert kernel.shape == (50, 400)
    assert abs(float(kernel.std()) / deviation - 1) < 5 / np.sqrt(2 * kernel.size)
    assert abs(float(kernel.mean())) < 5 * deviation / np.sqrt(kernel.size)


def test_what_a_stage_hands_on(features):
    head = PooledHead(7, triplet=False)
    variables = variables_of(head, features)
    output = head.apply(variables, features, train=True)
    assert output.embedding is None
    close(output.described, features.mean(axis=(1, 2)))
    assert PooledHead(None).apply({}, features, train=True).logits is None
    # The embedding is the descriptor of a stage without a separate one.
    embedding, descriptor = jnp.ones((2, 3)), jnp.zeros((2, 4))
    assert StageOutput(embedding, None).described is embedding
    assert StageOutput(embedding, None, descriptor=descriptor).described is descriptor


@pytest.mark.parametrize("settings", [{}, {"neck": "batch_norm", "cosine_scale": 16.0}])
def test_outputs_are_float32_whatever_the_computation_is_in(features, settings):
    head = PooledHead(7, pooling="gem", dtype=jnp.bfloat16, **settings)
    variables = variables_of(head, features)
    output = head.apply(variables, jnp.asarray(features, jnp.bfloat16), train=False)
    whole = PooledHead(7, pooling="gem", **settings).apply(variables, features, train=False)
    for name in ("embedding", "descriptor", "logits"):
        close(getattr(output, name), np.asarray(getattr(whole, name)), rtol=0.02)


def cosines(x, kernel, scale):
    classifier = CosineClassifier(kernel.shape[1], scale, nn.initializers.ones)
    return classifier.apply({"params": {"kernel": kernel}}, x)


def test_cosines_do_not_depend_on_lengths(rng):
    x = rng.normal(size=(4, 6)).astype(np.float32)
    kernel = rng.normal(size=(6, 3)).astype(np.float32)
    plain = cosines(x, kernel, 2.0)
    assert np.abs(plain).max() <= 2.0
    scaled = cosines(100 * x, kernel * np.float32([[1, 0.1, 9]]), 2.0)
    np.testing.assert_allclose(scaled, plain, rtol=1e-5)
    np.testing.assert_allclose(cosines(kernel[:, 1][None], kernel, 2.0)[0, 1], 2.0, rtol=1e-6)


def test_zero_vectors_have_finite_cosines_and_gradients():
    def total(x, kernel):
        return cosines(x, kernel, 30.0).sum()

    x, kernel = jnp.array([[0.0, 0.0], [3.0, 4.0]]), jnp.array([[0.0, 1.0], [0.0, 0.0]])
    np.testing.assert_allclose(total(x, kernel), 30 * 0.6, rtol=1e-6)
    by_x, by_kernel = jax.grad(total, argnums=(0, 1))(x, kernel)
    np.testing.assert_array_equal(by_x[0], [0, 0])
    np.testing.assert_array_equal(by_kernel[:, 0], [0, 0])
    np.testing.assert_allclose(by_x[1], [30 * 0.128, -30 * 0.096], rtol=1e-5)
    # The cosine with (1, 0) changes by the height 0.8 where the kernel turns.
    np.testing.assert_allclose(by_kernel[:, 1], [0, 30 * 0.8], rtol=1e-5, atol=1e-5)


def test_lengths_along_either_axis(rng):
    x = rng.normal(size=(3, 4)).astype(np.float32)
    for axis in (0, 1, -1):
        want = np.float64(x) / np.linalg.norm(np.float64(x), axis=axis, keepdims=True)
        np.testing.assert_allclose(unit_length(x, axis), want, rtol=1e-6)


@pytest.mark.parametrize("train", [True, False])
def test_batch_norm_without_a_shift(rng, train):
    x = rng.normal(2, 3, size=(8, 5)).astype(np.float32)
    module = BatchNorm(train=train, bias=False)
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), x))
    variables = reference.random_variables(dict(shapes), rng)
    assert set(variables["params"]) == {"scale"}
    double = reference.in_float64(variables)
    want = reference.batch_norm(
        np.float64(x),
        {**double["params"], "bias": 0.0},
        None if train else double["batch_stats"],
    )
    got, _ = module.apply(variables, x, mutable=["batch_stats"])
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
