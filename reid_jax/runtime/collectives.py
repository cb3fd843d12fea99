"""The global batch, seen from one device.

A step is per-device code under `jax.pmap` with a named axis. If a formula needs the whole batch
(batch-hard mining, mixing partners, random numbers that must not depend on the number of devices),
it uses these helpers. `axis_name=None` means that the caller's batch is the whole batch, so every
formula also runs outside `jax.pmap`.
"""

import jax
import jax.numpy as jnp

# The axis that all pmapped functions of the package name.
AXIS = "batch"


def gather(x: jax.Array, axis_name: str | None) -> jax.Array:
    """Gather every device's part of the batch: (b, ...) on each of n devices to (n * b, ...).

    The result is in the order of the devices. It is differentiable: the gradient of each part
    returns to its device, summed over devices.
    """
    return x if axis_name is None else jax.lax.all_gather(x, axis_name, tiled=True)


def own_rows(x: jax.Array, axis_name: str | None) -> jax.Array:
    """This device's part of an array over the whole batch: (n * b, ...) to (b, ...)."""
    if axis_name is None:
        return x
    size = x.shape[0] // device_count(axis_name)
    return jax.lax.dynamic_slice_in_dim(x, jax.lax.axis_index(axis_name) * size, size)


def batch_keys(key: jax.Array, size: int, axis_name: str | None) -> jax.Array:
    """One key per image of this device, a function of the image's place in the whole batch.

    Args:
        key: a scalar typed key, equal on all devices.
        size: images on this device, b.
        axis_name: the pmapped axis, or None.

    Returns:
        (b,) typed keys.
    """
    first = 0 if axis_name is None else jax.lax.axis_index(axis_name) * size
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, first + jnp.arange(size))


def mean(x, axis_name: str | None):
    """The mean over devices of each leaf of a pytree."""
    return x if axis_name is None else jax.lax.pmean(x, axis_name)


def device_count(axis_name: str | None) -> int:
    """The number of devices that share the batch."""
    return 1 if axis_name is None else jax.lax.axis_size(axis_name)
