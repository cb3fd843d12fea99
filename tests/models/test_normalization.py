import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reid_jax.models.normalization import (
    BatchNorm,
    InstanceBatchNorm,
    InstanceNorm,
    normalize_batch,
)
from reid_jax.runtime.collectives import AXIS
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
    """Grad-CAM has a gradient inside the gradient of the step."""
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
        # Each device has the part of its own images.
        np.testing.assert_allclose(value.sum(axis=0), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("train", [True, False])
def test_module_computes_and_remembers_as_flaxs_does(case, train):
    """Except the running variance: Flax's is biased."""
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
    got, want = updates["batch_stats"], remembered["batch_stats"]
    np.testing.assert_allclose(got["mean"], want["mean"], rtol=1e-6)
    if train:
        assert (want["var"] < got["var"]).all()
        want = {"var": 0.9 * 0.5 + 0.1 * unbiased(x)}
    np.testing.assert_allclose(got["var"], want["var"], rtol=1e-5)


def unbiased(x):
    """The variance of each channel as in PyTorch's running variance, with a divisor of n - 1."""
    values = np.float64(x).reshape(-1, x.shape[-1])
    return np.square(values - values.mean(0)).sum(0) / (len(values) - 1)


@pytest.mark.parametrize("devices", [1, 4])
@pytest.mark.parametrize("size", [(8, 3, 2, 5), (4, 1, 1, 5), (4, 5)])
def test_the_remembered_variance_is_unbiased_over_all_devices(rng, devices, size):
    """For 48 and 4 values per channel: the count of one device would give a very different
    result."""
    x = rng.normal(2, 0.5, size).astype(np.float32)
    before = {"mean": jnp.full(5, 1.5), "var": jnp.full(5, 0.5)}
    variables = {"params": {"scale": jnp.ones(5), "bias": jnp.zeros(5)}, "batch_stats": before}

    def remember(x, axis_name=None):
        norm = BatchNorm(train=True, axis_name=axis_name)
        return norm.apply(variables, x, mutable=["batch_stats"])[1]["batch_stats"]

    if devices == 1:
        got = jax.tree.map(lambda leaf: leaf[None], remember(x))
    else:
        parts = x.reshape(devices, -1, *x.shape[1:])
        got = jax.pmap(lambda x: remember(x, AXIS), axis_name=AXIS)(parts)
    axes = tuple(range(x.ndim - 1))
    want = {"mean": 0.9 * 1.5 + 0.1 * np.float64(x).mean(axes)}
    want["var"] = 0.9 * 0.5 + 0.1 * unbiased(x)
    for name, value in want.items():
        assert got[name].shape == (devices, 5)
        np.testing.assert_allclose(got[name], np.broadcast_to(value, got[name].shape), rtol=1e-5)


def test_one_number_a_channel_is_remembered_as_of_no_variance():
    """An unbiased variance does not exist; PyTorch rejects such a batch."""
    x = jnp.full((1, 2), 3.0)
    norm = BatchNorm(train=True)
    variables = norm.init(jax.random.key(0), x)
    _, updates = norm.apply(variables, x, mutable=["batch_stats"])
    np.testing.assert_allclose(updates["batch_stats"]["var"], 0.9 * np.ones(2), rtol=1e-6)


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


@pytest.fixture
def ibn_case(case):
    """Variables of IBN-a's norm with five channels, two of them instance-normalised, and a map."""
    x, scale, bias, dy = case
    variables = {
        "params": {
            "instance": {"scale": jnp.array(scale[:2]), "bias": jnp.array(bias[:2])},
            "batch": {"scale": jnp.array(scale[2:]), "bias": jnp.array(bias[2:])},
        },
        "batch_stats": {"batch": {"mean": jnp.full(3, 1.5), "var": jnp.full(3, 0.5)}},
    }
    return variables, x, dy


@pytest.mark.parametrize("train", [True, False])
def test_ibn_computes_and_remembers_as_float64(ibn_case, train):
    variables, x, _ = ibn_case
    got, updates = InstanceBatchNorm(train=train).apply(variables, x, mutable=["batch_stats"])
    double, stats = reference.in_float64((variables["params"], variables["batch_stats"]))
    want = reference.ibn(x.astype(np.float64), double, None if train else stats)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    rest = x[..., 2:].astype(np.float64)
    remembered = {"mean": 0.9 * 1.5 + 0.1 * rest.mean((0, 1, 2))}
    remembered["var"] = 0.9 * 0.5 + 0.1 * unbiased(rest)
    if not train:
        remembered = stats["batch"]
    assert updates["batch_stats"].keys() == {"batch"}  # Instance norm has no running statistics.
    for name, value in remembered.items():
        np.testing.assert_allclose(updates["batch_stats"]["batch"][name], value, rtol=1e-5)


def test_an_image_is_normalised_by_instance_whatever_the_others_are(ibn_case):
    variables, x, _ = ibn_case
    norm = InstanceBatchNorm(train=True)
    whole, _ = norm.apply(variables, x, mutable=["batch_stats"])
    part, _ = norm.apply(variables, x[:2], mutable=["batch_stats"])
    np.testing.assert_allclose(part[..., :2], whole[:2, ..., :2], rtol=1e-5, atol=1e-5)
    assert np.abs(part[..., 2:] - whole[:2, ..., 2:]).min(axis=(0, 1, 2)).max() > 1e-3


def test_ibns_gradients_equal_differences_of_float64(ibn_case):
    variables, x, dy = ibn_case

    def ours(params, x):
        norm = InstanceBatchNorm(train=True)
        y, _ = norm.apply({**variables, "params": params}, x, mutable=["batch_stats"])
        return (y * dy).sum()

    got, dx = jax.grad(ours, argnums=(0, 1))(variables["params"], jnp.array(x))
    double, map64 = reference.in_float64(variables["params"]), x.astype(np.float64)

    def check(got, value, total):
        want = reference.numerical_gradient(total, value)
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5 * np.abs(want).max())

    check(dx, map64, lambda value: (reference.ibn(value, double) * dy).sum())
    for part in ("instance", "batch"):
        for leaf in ("scale", "bias"):

            def total(value, part=part, leaf=leaf):
                params = {**double, part: {**double[part], leaf: value}}
                return (reference.ibn(map64, params) * dy).sum()

            check(got[part][leaf], double[part][leaf], total)


def test_ibn_on_four_devices_computes_what_one_does(ibn_case):
    variables, x, dy = ibn_case

    def run(x, dy, axis_name):
        def apply(params, x):
            norm = InstanceBatchNorm(train=True, axis_name=axis_name)
            given = {**variables, "params": params}
            return norm.apply(given, x, mutable=["batch_stats"])

        y, backward, updates = jax.vjp(apply, variables["params"], x, has_aux=True)
        params, dx = backward(dy)
        return (y, dx), updates, params

    (y, dx), updates, params = run(x, dy, None)
    parts = [value.reshape(4, 2, *value.shape[1:]) for value in (x, dy)]
    maps, four, shares = jax.pmap(lambda *a: run(*a, AXIS), axis_name=AXIS)(*parts)
    for got, want in zip(maps, (y, dx), strict=True):
        np.testing.assert_allclose(got.reshape(want.shape), want, rtol=1e-4, atol=1e-5)
    for got, want in zip(*map(jax.tree.leaves, (four, updates)), strict=True):
        assert got.shape == (4, 3)
        np.testing.assert_allclose(got, np.broadcast_to(want, got.shape), rtol=1e-5)
    for got, want in zip(*map(jax.tree.leaves, (shares, params)), strict=True):
        # Each device has the part of its own images.
        np.testing.assert_allclose(got.sum(axis=0), want, rtol=1e-4, atol=1e-5)


def test_ibn_of_bfloat16_is_normalised_in_float32(ibn_case):
    variables, x, dy = ibn_case
    half = x.astype(jnp.bfloat16)

    def apply(dtype, x):
        norm = InstanceBatchNorm(train=True, dtype=dtype)
        return norm.apply(variables, x, mutable=["batch_stats"])

    got, backward, updates = jax.vjp(lambda x: apply(jnp.bfloat16, x), half, has_aux=True)
    want, expected = apply(jnp.float32, half.astype(jnp.float32))
    assert got.dtype == jnp.bfloat16
    np.testing.assert_array_equal(got, want.astype(jnp.bfloat16))
    jax.tree.map(np.testing.assert_array_equal, updates, expected)
    (dx,) = backward(dy.astype(jnp.bfloat16))
    assert dx.dtype == jnp.bfloat16


def test_a_map_that_hardly_varies_about_a_large_mean(rng):
    """As for an image of one colour. Mean of squares minus squared mean would be only noise."""
    x = (30 + 1e-2 * rng.normal(size=(2, 4, 3, 2))).astype(np.float32)
    params = {"scale": np.array([1.5, 0.5], np.float32), "bias": np.array([0.1, 0.2], np.float32)}
    got = InstanceNorm().apply({"params": params}, x)
    want = reference.instance_norm(x.astype(np.float64), reference.in_float64(params))
    np.testing.assert_allclose(got, want, rtol=2e-3, atol=2e-3)
    # A constant map becomes the bias, and its gradients are finite.
    flat = jnp.full((2, 4, 3, 2), 7.0)
    y, backward = jax.vjp(lambda x: InstanceNorm().apply({"params": params}, x), flat)
    np.testing.assert_allclose(y, np.broadcast_to(params["bias"], flat.shape), rtol=1e-6)
    assert np.isfinite(backward(jnp.ones_like(y))[0]).all()
