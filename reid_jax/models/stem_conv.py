"""The stem's 7x7 convolution with stride 2, in forms that CPUs and NVIDIA's GPUs compute faster.

Both count four pixels, 2x2, as one location, so that the stride is 1 and the kernel has 4x4
locations.

*GPUs*: libraries have no fast kernel for the three channels of an image. They have one for the
twelve channels of such a location.

*CPUs, in narrow trunks*: XLA's convolution takes as long for 4 channels of the result as for 64. As
one product of matrices it takes the multiplications of an 8x8 kernel, and no more:

- A row of the first matrix is four locations that follow each other in a row of the image.
- A column of the second is a channel of the result, from one of the kernel's four rows.
- The results of the four rows are summed.

With four channels or fewer, copying locations into rows takes most of the time. A row of the first
matrix is then six locations and gives the results of three columns: half as many copies, and more
multiplications, by zeros.
"""

import jax
import jax.numpy as jnp
from jax import lax

# With more channels XLA's convolution is faster.
_CHANNELS = 32
# Up to this number of channels three columns together are faster.
_CHANNELS_TOGETHER, _COLUMNS_TOGETHER = 4, 3


def conv7x7(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """A 7x7 convolution with stride 2 and padding 3, by whichever way is faster.

    Args:
        x: (B, H, W, C).
        kernel: (7, 7, C, D), of the same dtype.

    Returns:
        (B, ceil(H / 2), ceil(W / 2), D).
    """
    # In an export the batch size is a symbol, and whatever runs the file may choose.
    sizes_are_known = all(isinstance(size, int) for size in x.shape)
    return _by_platform(x, kernel) if sizes_are_known else directly(x, kernel)


def as_conv_general_dilated(x: jax.Array, kernel: jax.Array, *_, **__) -> jax.Array:
    """`conv7x7` as Linen's `Conv` calls it."""
    return conv7x7(x, kernel)


@jax.custom_vjp
def _by_platform(x, kernel):
    narrow = x.dtype == jnp.float32 and kernel.shape[3] <= _CHANNELS
    on_cpus = by_product if narrow else directly
    return lax.platform_dependent(x, kernel, cpu=on_cpus, cuda=by_blocks, default=directly)


def _forward(x, kernel):
    return _by_platform(x, kernel), (x, kernel)


def _backward(residuals, dy):
    def gradients_of(way):
        return lambda x, kernel, dy: jax.vjp(way, x, kernel)[1](dy)

    # On CPUs, XLA's own is the faster one.
    return lax.platform_dependent(
        *residuals, dy, cuda=gradients_of(by_blocks), default=gradients_of(directly)
    )


_by_platform.defvjp(_forward, _backward)


def directly(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """The convolution as XLA has it."""
    return lax.conv_general_dilated(
        x, kernel, (2, 2), ((3, 3), (3, 3)), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def by_blocks(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """The convolution over locations of 2x2 pixels, as a 4x4 convolution with stride 1."""
    batch, rows, columns, channels = x.shape
    height, width = -(-rows // 2), -(-columns // 2)  # of the result
    # Zeros before the image make the margin even, and the kernel gets a row and a column of them.
    margins = (4, 2 * height + 2 - rows), (4, 2 * width + 2 - columns)
    x = jnp.pad(x, ((0, 0), *margins, (0, 0)))
    x = x.reshape(batch, height + 3, 2, width + 3, 2, channels)
    x = x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height + 3, width + 3, -1)
    kernel = jnp.pad(kernel, ((1, 0), (1, 0), (0, 0), (0, 0)))
    kernel = kernel.reshape(4, 2, 4, 2, channels, -1).transpose(0, 2, 1, 3, 4, 5)
    kernel = kernel.reshape(4, 4, 4 * channels, -1)
    # Kernels for matrix units read multiples of eight channels, in float32 of four.
    missing = -4 * channels % (4 if x.dtype == jnp.float32 else 8)
    x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, missing)))
    kernel = jnp.pad(kernel, ((0, 0), (0, 0), (0, missing), (0, 0)))
    return lax.conv_general_dilated(
        x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def by_product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """The convolution by one product of matrices."""
    batch, rows, columns, channels = x.shape
    height, width = -(-rows // 2), -(-columns // 2)  # of the result
    together = _COLUMNS_TOGETHER if kernel.shape[3] <= _CHANNELS_TOGETHER else 1
    groups = -(-width // together)  # in a row of the result
    step = 2 * together  # pixels from a group to the next
    steps = -(-(step + 6) // step)  # that a group reads

    # Zeros before the image make the margin even, and the kernel gets a row and a column of them.
    margins = (4, 2 * height + 2 - rows), (4, (groups + steps - 1) * step - 4 - columns)
    x = jnp.pad(x, ((0, 0), *margins, (0, 0)))
    kernel = jnp.pad(kernel, ((1, 0), (1, 0), (0, 0), (0, 0)))
    # Each column of a group has the kernel in another place: (8, pixels, C, together, D).
    pixels = steps * step
    places = [((0, 0), (2 * i, pixels - 8 - 2 * i), (0, 0), (0, 0)) for i in range(together)]
    kernel = jnp.stack([jnp.pad(kernel, place) for place in places], axis=3)

    x = x.reshape(batch, height + 3, 2, groups + steps - 1, step * channels)
    x = jnp.stack([x[:, :, :, i : i + groups] for i in range(steps)], axis=4)
    # (B, rows, 2, groups, steps, step C): what a group reads becomes the last axes.
    x = x.transpose(0, 1, 3, 2, 4, 5).reshape(-1, 2 * pixels * channels)
    # (4 rows, 2, pixels, C, together, D): the same order, then the kernel's rows and the results.
    kernel = kernel.reshape(4, 2, pixels, channels, together, -1).transpose(1, 2, 3, 0, 4, 5)
    kernel = kernel.reshape(2 * pixels * channels, -1)
    parts = (x @ kernel).reshape(batch, height + 3, groups, 4, -1)
    y = parts[:, :height, :, 0]
    for i in range(1, 4):
        y += parts[:, i : i + height, :, i]
    return y.reshape(batch, height, groups * together, -1)[:, :, :width]
