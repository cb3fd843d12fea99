"""Pooling: from a map (B, H, W, C) to one vector per image, (B, C)."""

import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp


def average_pool(features: jax.Array) -> jax.Array:
    """The mean over all locations, accumulated in float32: (B, H, W, C) to (B, C)."""
    return features.mean(axis=(1, 2), dtype=jnp.float32).astype(features.dtype)


def max_pool(features: jax.Array) -> jax.Array:
    """The largest value over all locations: (B, H, W, C) to (B, C). Ties share the gradient."""
    batch, height, width, channels = features.shape
    return _largest(features.reshape(batch, height * width, channels))


@jax.custom_vjp
def _largest(rows: jax.Array) -> jax.Array:
    """The largest value over all locations: (B, N, C) to (B, C)."""
    return rows.max(axis=1)


def _largest_forward(rows):
    # Store the location now, as `stem_pool` does. The gradient of `max` searches for the value: if
    # XLA computes `rows` a second time there, and rounds it differently, it finds none.
    largest = rows.max(axis=1)
    return largest, (rows, largest, rows.argmax(axis=1))


def _largest_backward(residuals, dy):
    rows, largest, location = residuals
    locations = jax.lax.broadcasted_iota(location.dtype, rows.shape, 1)
    here = (locations == location[:, None]) | (rows == largest[:, None])
    share = dy / here.sum(axis=1, dtype=dy.dtype)
    return (jnp.where(here, share[:, None], jnp.zeros_like(rows)),)


_largest.defvjp(_largest_forward, _largest_backward)


POOLINGS = {"average": average_pool, "max": max_pool}

# The smallest value and the smallest exponent in generalized-mean pooling. If p < 1, the slope of
# x^p at x = 0 is infinite; if p = 0, the formula divides by zero.
_LEAST_VALUE = 1e-6
_LEAST_EXPONENT = 0.1


class GeneralizedMean(nn.Module):
    """Generalized-mean pooling (Radenovic et al., TPAMI 2019) with one learnt exponent.

        y = (mean over locations of max(x, 1e-6)^p)^(1 / p)

    p = 1 is average pooling, and large p approaches max pooling. p below 0.1 counts as 0.1.

    Attributes:
        start: the initial value of p.
    """

    start: float = 3.0

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        """Map (B, H, W, C) to (B, C), computed in float32, with the dtype of `features`."""
        p = self.param("p", nn.initializers.constant(self.start), (1,), jnp.float32)[0]
        p = jnp.maximum(p, _LEAST_EXPONENT)
        logs = jnp.log(jnp.maximum(features.astype(jnp.float32), _LEAST_VALUE))
        # For large p, the powers themselves would overflow or underflow.
        log_mean = jax.nn.logsumexp(p * logs, axis=(1, 2)) - math.log(math.prod(logs.shape[1:3]))
        return jnp.exp(log_mean / p).astype(features.dtype)


# Keep a value that equals a threshold, however float32 rounds the two.
_AT_LEAST = 1.0 - 5e-7


def generalized_pool(
    features: jax.Array, lambdas: Sequence[float], reduction: str = "sum"
) -> jax.Array:
    """Generalized pooling, HBFP-Net equation 6: sum or mean over `lambdas` of `threshold_pool`.

    Args:
        features: (B, H, W, C).
        lambdas: thresholds in [0, 1]; the paper's are 0, 0.3, 0.5, 0.7 and 1.
        reduction: `sum`, as in the paper, or `mean`, the sum divided by the number of lambdas.

    Returns:
        (B, C), of the dtype of `features`.
    """
    pooled = jnp.stack([threshold_pool(features, threshold) for threshold in lambdas])
    reduce = {"sum": jnp.sum, "mean": jnp.mean}[reduction]
    return reduce(pooled, axis=0, dtype=jnp.float32).astype(features.dtype)


def threshold_pool(features: jax.Array, threshold: float) -> jax.Array:
    """The mean over the locations whose normalised value is at least lambda (equation 6).

    Each channel of each image is normalised to [0, 1] over its locations, by minimum and maximum.
    lambda = 0 equals average pooling and lambda = 1 equals max pooling, bit for bit. All locations
    of a constant channel are kept. Gradients flow through the kept values; the choice of the values
    has no gradient.

    Args:
        features: (B, H, W, C).
        threshold: lambda in [0, 1].

    Returns:
        (B, C), of the dtype of `features`.
    """
    if threshold == 0.0:
        return average_pool(features)
    if threshold == 1.0:
        return max_pool(features)
    values = features.astype(jnp.float32)
    low, high = (extreme(values, axis=(1, 2), keepdims=True) for extreme in (jnp.min, jnp.max))
    # For a constant channel both sides are zero.
    kept = jax.lax.stop_gradient(values - low >= threshold * _AT_LEAST * (high - low))
    total = jnp.where(kept, values, 0.0).sum(axis=(1, 2))
    return (total / kept.sum(axis=(1, 2), dtype=jnp.float32)).astype(features.dtype)
