"""From a map (B, H, W, C) to one vector an image (B, C)."""

import jax
import jax.numpy as jnp


def average_pool(features: jax.Array) -> jax.Array:
    """The mean over all locations, accumulated in float32: (B, H, W, C) to (B, C)."""
    return features.mean(axis=(1, 2), dtype=jnp.float32).astype(features.dtype)


def max_pool(features: jax.Array) -> jax.Array:
    """The largest value over all locations: (B, H, W, C) to (B, C). Ties share the gradient."""
    return features.max(axis=(1, 2))


POOLINGS = {"average": average_pool, "max": max_pool}
