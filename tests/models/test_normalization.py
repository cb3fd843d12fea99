import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reid_jax.collectives import AXIS
from reid_jax.models.normalization import BatchNorm, normalize_batch
from tests import reference


@pytest.fixture
def case(rng):
    """A map with a mean far from zero, scale, bias and a cotangent."""
    x = rng.normal(2, 0.5, (8, 3, 2, 5)).astype(np.float32)
    scale, bias = (rng.normal(1, 0.3, 5).astype(np.float32) for _ in range(2))
    return x, scale, bias, rng.normal(size=x.shape).astype(np.float32)


def as_double(scale, bias):
    return {"scale": scale.astype(np.float64), "bias": bias.astype(np.float64)}


def test_batch_statistics_and_output_equal_float64(case):
    x, scale, bias, _ = case
    y, mean, var = normalize_batch(x, scale, bias)
    double = x.astype(np.float64)
    np.testing.assert_allclose(
        y, reference.batch_norm(double, as_double(scale, bias)), rtol=1e-5, atol=1e-5
    )
    np.testing.assert_allclose(mean, double.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(var, double.var((0, 1, 2)), rtol=1e-5)


def test_gradients_equal_differences_of_float64(case):
    x, scale, bias, dy = case

    def total(x, scale, bias):
        return (reference.batch_norm(x, {"scale": scale, "bias": bias}) * dy).sum()

    inputs = [value.astype(np.float64) for value in (x, scale, bias)]
    for i, got in enumerate(jax.vjp(normalize_batch, x, scale, bias)[1]((dy, bias, bias))):

        def of_one(value, i=i):
            return total(*inputs[:i], value, *inputs[i + 1 :])

        want = reference.numerical_gradient(of_one, inputs[i])
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5 * np.abs(want).max())


def test_gradient_of_a_gradient_equals_flaxs(case, standard_promotion):
    """Grad-CAM's formula has one inside the step's."""
    x, scale, bias, dy = case
    variables = {"params": {"scale": scale, "bias": bias}}

    def ours(x, scale, bias):
        return normalize_batch(x, scale, bias)[0]

    def flaxs(x, scale, bias):
        variables["params"] = {"scale": scale, "bias": bias}
        norm = nn.BatchNorm(use_running_average=False, epsilon=1e-5)
        return norm.apply({**variables, "batch_stats": {}}, x, mutable=["batch_stats"])[0]

    def slope(norm):
        def evidence(x, scale, bias):
            return (jnp.square(norm(x, scale, bias)) * dy).sum()

        def length(*inputs):
            return jnp.square(jax.grad(evidence)(*inputs)).sum()

        return jax.grad(length, argnums=(0, 1, 2))(x, scale, bias)

    for got, want in zip(slope(ours), slope(flaxs), strict=True):
        assert np.abs(want).max() > 0
        np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-4 * np.abs(want).max())


def test_four_devices_compute_what_one_does(case):
    x, scale, bias, dy = case

    def outputs_and_gradients(x, dy, axis_name):
        outputs, backward = jax.vjp(lambda *a: normalize_batch(*a, axis_name), x, scale, bias)
        return outputs, backward((dy, jnp.zeros(5), jnp.zeros(5)))

    def parts(value):
        return value.reshape(4, 2, *value.shape[1:])

    want, want_gradients = outputs_and_gradients(x, dy, None)
    got, gradients = jax.pmap(lambda x, dy: outputs_and_gradients(x, dy, AXIS), axis_name=AXIS)(
        parts(x), parts(dy)
    )
    np.testing.assert_allclose(got[0].reshape(x.shape), want[0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        gradients[0].reshape(x.shape), want_gradients[0], rtol=1e-4, atol=1e-5
    )
    for value, expected in zip(got[1:], want[1:], strict=True):
        for device in value:
            np.testing.assert_allclose(device, expected, rtol=1e-5)
    for value, expected in zip(gradients[1:], want_gradients[1:], strict=True):
        # Each device has its own images' share.
        np.testing.assert_allclose(value.sum(axis=0), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("train", [True, False])
def test_module_computes_and_remembers_as_flaxs_does(case, train):
    x, scale, bias, _ = case
    variables = {
        "params": {"scale": jnp.array(scale), "bias": jnp.array(bias)},
        "batch_stats": {"mean": jnp.full(5, 1.5), "var": jnp.full(5, 0.5)},
    }
    flaxs = nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5)
    want, remembered = flaxs.apply(variables, x, mutable=["batch_stats"])
    got, updates = BatchNorm(train=train).apply(variables, x, mutable=["batch_stats"])
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    assert jax.tree.structure(updates) == jax.tree.structure(remembered)
    for value, expected in zip(jax.tree.leaves(updates), jax.tree.leaves(remembered), strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-6)


def test_initial_variables_are_flaxs():
    x = jnp.ones((2, 5))
    got = BatchNorm(train=True, axis_name=AXIS).init(jax.random.key(0), x)
    want = nn.BatchNorm(use_running_average=True).init(jax.random.key(0), x)
    assert jax.tree.structure(got) == jax.tree.structure(want)
    jax.tree.map(np.testing.assert_array_equal, got, want)


def test_bfloat16_is_normalised_in_float32(case):
    x, scale, bias, dy = case
    half = x.astype(jnp.bfloat16)
    norm = BatchNorm(train=True, dtype=jnp.bfloat16)
    variables = {
        "params": {"scale": jnp.array(scale), "bias": jnp.array(bias)},
        "batch_stats": {"mean": jnp.zeros(5), "var": jnp.ones(5)},
    }

    def apply(x):
        return norm.apply(variables, x, mutable=["batch_stats"])[0]

    got, backward = jax.vjp(apply, half)
    assert got.dtype == jnp.bfloat16
    want = normalize_batch(half.astype(jnp.float32), scale, bias)[0].astype(jnp.bfloat16)
    np.testing.assert_array_equal(got, want)
    (dx,) = backward(dy.astype(jnp.bfloat16))
    assert dx.dtype == jnp.bfloat16


def test_the_backward_pass_keeps_the_map_and_no_other_array_of_its_size(case):
    x, scale, bias, _ = case
    _, backward = jax.vjp(normalize_batch, jnp.array(x), scale, bias)
    kept = [leaf for leaf in jax.tree.leaves(backward) if leaf.size >= x.size]
    assert len(kept) == 1
