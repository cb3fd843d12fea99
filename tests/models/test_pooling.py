import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reid_jax.models.pooling import GeneralizedMean, average_pool, generalized_pool, max_pool
from tests import reference

LAMBDAS = (0.0, 0.3, 0.5, 0.7, 1.0)
compiled_pool = jax.jit(generalized_pool, static_argnums=1)
both_ways = pytest.mark.parametrize("pool", [generalized_pool, compiled_pool], ids=["eager", "jit"])
both_dtypes = pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
TOLERANCE = {"float32": 1e-5, "bfloat16": 2.0**-8}


@jax.jit
def pooled_by_lambda(features):
    """(5, B, C): pooled with each of LAMBDAS separately."""
    return jnp.stack([generalized_pool(features, (threshold,)) for threshold in LAMBDAS])


@jax.jit
def gradients_by_lambda(features):
    """(5, B, H, W, C): the gradient of each pooled value by the values of its channel."""

    def total(features, threshold):
        return generalized_pool(features, (threshold,)).astype(jnp.float32).sum()

    return jnp.stack([jax.grad(total)(features, threshold) for threshold in LAMBDAS])


def flags_by_lambda(features):
    """The values that equation 6 keeps, for channels that are not constant, in float64."""
    values = np.asarray(features, np.float64)
    low, high = values.min(axis=(1, 2), keepdims=True), values.max(axis=(1, 2), keepdims=True)
    return np.stack([(values - low) / (high - low) >= threshold for threshold in LAMBDAS])


def channels(*rows):
    """One image with one channel per row; its locations have the row's values."""
    return np.float32(rows).T.reshape(1, -1, 1, len(rows))


@pytest.fixture(scope="module")
def features():
    """Channels of either sign, after a ReLU, and mostly negative."""
    x = np.random.default_rng(0).normal(size=(3, 6, 4, 12)).astype(np.float32)
    x[..., 4:8] = np.maximum(x[..., 4:8], 0)
    x[..., 8:] = 5 - 20 * np.abs(x[..., 8:])
    return x


@pytest.mark.parametrize("lambdas", [(0.0,), (0.3,), (0.7,), (1.0,), LAMBDAS, (0.1, 0.9)])
@both_dtypes
@both_ways
def test_equals_loops(features, pool, dtype, lambdas):
    x = jnp.asarray(features, dtype)
    got = pool(x, lambdas)
    assert got.dtype == x.dtype
    want = reference.generalized_pool(np.asarray(x, np.float64), lambdas)
    tolerance = TOLERANCE[dtype]
    atol = tolerance * np.abs(want).max()
    np.testing.assert_allclose(np.asarray(got, np.float64), want, rtol=tolerance, atol=atol)


@pytest.mark.parametrize(("threshold", "simple"), [(0.0, average_pool), (1.0, max_pool)])
@both_dtypes
@both_ways
def test_ends_are_average_and_max_pooling_to_the_bit(features, pool, dtype, threshold, simple):
    if pool is compiled_pool:
        simple = jax.jit(simple)
    x = jnp.asarray(features, dtype)
    got, want = pool(x, (threshold,)), simple(x)
    assert got.dtype == want.dtype == x.dtype
    np.testing.assert_array_equal(got, want)
    # 16 integers, whose sum and mean are exact, so NumPy gives the same bits.
    whole = jnp.round(4 * x)[:, :4]
    exact = np.asarray(whole, np.float32)
    want = exact.mean(axis=(1, 2)) if threshold == 0 else exact.max(axis=(1, 2))
    np.testing.assert_array_equal(pool(whole, (threshold,)), jnp.asarray(want).astype(dtype))


@both_dtypes
def test_a_constant_channel_gives_its_constant(dtype):
    constants = jnp.array([0.0, 3.0, -0.75, 2.0**-100, -(2.0**100)], dtype)
    x = jnp.broadcast_to(constants, (2, 4, 4, 5))  # 16 locations: the sum is exact
    want = np.broadcast_to(constants, (len(LAMBDAS), 2, 5))
    np.testing.assert_array_equal(pooled_by_lambda(x), want)
    np.testing.assert_array_equal(gradients_by_lambda(x), np.full((len(LAMBDAS), *x.shape), 1 / 16))


def test_spreads_at_the_edges_of_float32_are_finite():
    tiny = np.finfo(np.float32).smallest_subnormal
    x = channels([0, tiny], [0, 3e-38], [1, 1 + 1.2e-7], [-1e38, 1e38], [1e30, 1e30 + 1e23])
    pooled = np.asarray(pooled_by_lambda(x))
    assert np.all(x.min(axis=(1, 2)) <= pooled)
    assert np.all(pooled <= x.max(axis=(1, 2)))
    np.testing.assert_allclose(gradients_by_lambda(x).sum(axis=(2, 3)), np.ones((5, 1, 5)))


@both_dtypes
@both_ways
def test_values_at_the_threshold_are_kept(pool, dtype):
    """Integers from 0 to 10, shifted."""
    shifts = np.array([0, -5, -10, 7])
    x = jnp.asarray(channels(*(np.arange(11) + shift for shift in shifts)), dtype)
    for threshold, least in ((0.0, 0), (0.3, 3), (0.5, 5), (0.7, 7), (1.0, 10)):
        want = jnp.asarray(np.arange(least, 11).mean() + shifts, dtype)
        np.testing.assert_array_equal(pool(x, (threshold,))[0], want)
    for gradient, least in zip(gradients_by_lambda(x), (0, 3, 5, 7, 10), strict=True):
        kept = np.arange(11) >= least
        want = np.asarray(jnp.asarray(kept / kept.sum(), dtype), np.float32)
        for column in np.asarray(gradient, np.float32)[0, :, 0].T:
            np.testing.assert_allclose(column, want, rtol=1e-6)


@pytest.mark.parametrize("threshold", [0.2, 0.3, 0.5, 0.7])
@both_ways
def test_no_rounding_drops_a_value_at_the_threshold(pool, threshold):
    """Integers from 0 to n, where 1 / n is not a float32: still, k / n >= k / n."""
    sizes = [size for size in range(2, 200) if abs(threshold * size % 1 - 0.5) > 0.4999]
    # More zeros do not change the result for a threshold above 0.
    x = channels(*(np.pad(np.arange(size + 1), (199 - size, 0)) for size in sizes))
    want = [np.arange(round(threshold * size), size + 1).mean() for size in sizes]
    np.testing.assert_allclose(pool(x, (threshold,))[0], want, rtol=1e-6)


def test_ties_at_the_maximum_share():
    x = channels([4, 0, 4, 1, 4], [-2, -9, -9, -2, -9])
    for pooled, gradient in zip(pooled_by_lambda(x)[1:], gradients_by_lambda(x)[1:], strict=True):
        np.testing.assert_array_equal(pooled, [[4, -2]])
        want = channels([1 / 3, 0, 1 / 3, 0, 1 / 3], [1 / 2, 0, 0, 1 / 2, 0])
        np.testing.assert_allclose(gradient, want, rtol=1e-6)


def test_negative_values_by_hand():
    """Normalised to 0, 0.5, 0.25, 1; the mean is over the original values."""
    x = channels([-9, -5, -7, -1], [-8, -4, -6, 0])
    want = [[-5.5, -4.5], [-3, -2], [-3, -2], [-1, 0], [-1, 0]]
    np.testing.assert_allclose(pooled_by_lambda(x)[:, 0], want, rtol=1e-6)


def test_several_lambdas_are_summed(features):
    want = np.float64(pooled_by_lambda(features)).sum(axis=0)
    np.testing.assert_allclose(compiled_pool(features, LAMBDAS), want, rtol=1e-5, atol=1e-5)
    gradient = jax.jit(jax.grad(lambda x: generalized_pool(x, LAMBDAS).sum()))(features)
    np.testing.assert_allclose(gradient, gradients_by_lambda(features).sum(axis=0), rtol=1e-6)


def test_channels_and_images_are_normalised_apart(features):
    """Scaling one channel of one image changes only its own result."""
    scaled = features.copy()
    scaled[1, :, :, 2] *= 100
    before, after = (np.array(compiled_pool(x, LAMBDAS)) for x in (features, scaled))
    assert abs(after[1, 2]) > 50 * abs(before[1, 2])
    before[1, 2] = after[1, 2]
    np.testing.assert_array_equal(before, after)


def test_positive_affine_maps_keep_the_same_locations(features):
    x = np.round(8 * features)
    pooled, gradients = np.float64(pooled_by_lambda(x)), gradients_by_lambda(x)
    for scale, shift in ((2, 0), (0.25, 3), (4, -7), (3, 11)):
        moved = np.float32(scale) * x + np.float32(shift)  # exact
        np.testing.assert_array_equal(gradients_by_lambda(moved), gradients)
        want = scale * pooled + shift
        np.testing.assert_allclose(pooled_by_lambda(moved), want, rtol=1e-5, atol=1e-3)


@both_dtypes
def test_the_gradient_is_one_by_the_number_kept(features, dtype):
    x = jnp.asarray(features, dtype)
    flags = flags_by_lambda(x)
    got = gradients_by_lambda(x)
    assert got.dtype == x.dtype
    got = np.asarray(got, np.float64)
    np.testing.assert_array_equal(got != 0, flags)
    # After the ReLU many values are tied at the minimum, and lambda > 0 drops all of them.
    np.testing.assert_allclose(
        got, flags / flags.sum(axis=(2, 3), keepdims=True), rtol=TOLERANCE[dtype]
    )


@both_dtypes
def test_gradients_of_constant_and_extreme_channels_are_finite(dtype):
    x = channels([0, 0, 0, 0], [5, 5, 5, 5], [1e30, 0, 0, 0], [-1e30, 1e-30, 0, -1e-30])
    gradients = np.asarray(gradients_by_lambda(jnp.asarray(x, dtype)), np.float64)
    assert np.isfinite(gradients).all()
    np.testing.assert_array_equal(gradients[..., :2], np.full((5, 1, 4, 1, 2), 1 / 4))
    np.testing.assert_allclose(gradients.sum(axis=(2, 3)), np.ones((5, 1, 4)), rtol=1e-2)


@both_dtypes
def test_the_mean_over_lambdas_is_the_sum_by_their_number(features, dtype):
    x = jnp.asarray(features, dtype)
    for lambdas in ((0.3,), LAMBDAS):
        got = generalized_pool(x, lambdas, "mean")
        assert got.dtype == x.dtype
        double = np.asarray(x, np.float64)
        want = reference.generalized_pool(double, lambdas) / len(lambdas)
        atol = TOLERANCE[dtype] * np.abs(want).max()
        np.testing.assert_allclose(
            np.asarray(got, np.float64), want, rtol=TOLERANCE[dtype], atol=atol
        )


def gem(features, p):
    return GeneralizedMean().apply({"params": {"p": jnp.full((1,), p, jnp.float32)}}, features)


@jax.jit
def gem_gradients(features, p, weights):
    """The gradient of a weighted sum of the pooled values, by features and by p."""

    def total(features, p):
        return (weights * gem(features, p).astype(jnp.float32)).sum()

    return jax.grad(total, argnums=(0, 1))(features, p)


@pytest.fixture(scope="module")
def positive():
    """Values as after a ReLU, but at least the smallest value that counts."""
    return np.random.default_rng(4).gamma(1.0, size=(2, 3, 2, 4)).astype(np.float32) + 0.01


@pytest.mark.parametrize("p", [0.5, 1.0, 3.0, 6.5])
@both_dtypes
def test_the_generalized_mean_and_its_gradients_equal_float64(positive, dtype, p):
    x = jnp.asarray(positive, dtype)
    weights = np.random.default_rng(5).normal(size=(2, 4)).astype(np.float32)
    double = np.asarray(x, np.float64)
    got = jax.jit(gem)(x, p)
    assert got.dtype == x.dtype
    tolerance = TOLERANCE[dtype]
    want = reference.generalized_mean(double, p)
    np.testing.assert_allclose(np.asarray(got, np.float64), want, rtol=tolerance)

    by_x, by_p = gem_gradients(x, jnp.float32(p), weights)

    def total(values, exponent):
        return (weights * reference.generalized_mean(values, exponent)).sum()

    want = reference.numerical_gradient(lambda values: total(values, p), double)
    atol = tolerance * np.abs(want).max()
    np.testing.assert_allclose(np.asarray(by_x, np.float64), want, rtol=tolerance, atol=atol)
    want = reference.numerical_gradient(lambda ps: total(double, ps[0]), np.array([p]))
    # Its terms, one per channel, cancel; in bfloat16 the incoming gradient is rounded.
    np.testing.assert_allclose(by_p, want[0], rtol=10 * tolerance, atol=10 * tolerance)


def test_the_exponent_starts_at_3_and_goes_from_average_to_max(positive):
    variables = GeneralizedMean().init(jax.random.key(0), positive)
    np.testing.assert_array_equal(variables["params"]["p"], [3.0])
    np.testing.assert_array_equal(GeneralizedMean().apply(variables, positive), gem(positive, 3.0))
    np.testing.assert_allclose(gem(positive, 1.0), average_pool(positive), rtol=1e-5)
    # The minimum is (1 / 6)^(1 / p) of the maximum.
    for p in (30.0, 1000.0, 1e5):
        got, largest = np.asarray(gem(positive, p)), positive.max(axis=(1, 2))
        assert np.all(got <= largest * (1 + 1e-5))
        assert np.all(got >= largest * 6 ** (-1 / p) * (1 - 1e-5))


@pytest.mark.parametrize("p", [-3.0, 0.0, 1e-3, 0.3, 1.0, 3.0, 50.0, 1e4])
@both_dtypes
def test_values_and_gradients_of_the_generalized_mean_are_finite(dtype, p):
    """Zeros, negative values, and powers beyond the range of float32."""
    x = channels([0, 0, 0], [-1, -2, -3], [0, -5, 7], [1e30, 0, 1], [1e-30, 1e30, 1e30])
    x = jnp.asarray(x, dtype)
    got = np.asarray(gem(x, p), np.float64)
    assert np.all(got[:, :2] <= 2e-6)
    assert np.all((got > 0) & (got <= 1.01e30))
    weights = jnp.ones((1, 5), jnp.float32)
    by_x, by_p = gem_gradients(x, jnp.float32(p), weights)
    assert np.isfinite(np.asarray(by_x, np.float64)).all()
    assert np.isfinite(by_p)
    assert np.all(np.asarray(by_x, np.float64)[0, 1, 0, 1:3] == 0)  # negative values


def test_exponents_below_the_least_count_as_it(positive):
    for p in (-3.0, 0.0, 0.05):
        np.testing.assert_array_equal(gem(positive, p), gem(positive, 0.1))
    assert np.any(gem(positive, 0.2) != gem(positive, 0.1))
