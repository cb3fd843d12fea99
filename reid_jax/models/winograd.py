"""3x3 convolutions with 16 products where 36 are usual, on CPUs.

Winograd's F(2x2, 3x3), as Lavin and Gray have it (CVPR 2016). A map is cut into tiles d of 4x4
values, which overlap by two. For a kernel g, the 2x2 results of a tile are

    Y = A^T [(G g G^T) * (B^T d B)] A

where * multiplies each value. The matrices hold only 0, 1, -1 and 1/2, so the transforms are sums.
Over all channels and tiles, each of the 16 products is a product of matrices. XLA for CPUs takes
half the time for them that it takes for its convolution. GPUs' libraries choose such algorithms by
themselves, so other devices get the usual convolution.

G g G^T is the same for all images. Its time does not matter for the batches of training, but for a
single image it is a quarter of a layer's. Networks that only describe images keep it.

Rounding errors are about twice those of the usual convolution.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import lax

Grid = Sequence[Sequence[jax.Array]]  # arrays in rows and columns

# The collection of variables that holds G g G^T of kernels.
TRANSFORMED = "transformed"

# Below 32 channels, the transforms' passes over the maps cost more than the products save. A layer
# of few multiplications, here those of a 1x1 convolution of the same channels, takes about a
# millisecond either way, and the tiles take longer to compile. With kernels that are transformed
# already, fewer multiplications are enough.
_CHANNELS = 32
_MULTIPLICATIONS = 2**25
_MULTIPLICATIONS_IF_TRANSFORMED = 2**23


def conv3x3(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """A 3x3 convolution with stride 1 and padding 1, by whichever way is faster.

    Args:
        x: (B, H, W, C).
        kernel: (3, 3, C, D), of the same dtype.

    Returns:
        (B, H, W, D).
    """
    # In an export the batch size is a symbol, and whatever runs the file may choose.
    sizes_are_known = all(isinstance(size, int) for size in x.shape)
    if sizes_are_known and _is_wide(kernel) and _is_large(x, kernel.shape[3], _MULTIPLICATIONS):
        return _by_tiles_on_cpus(x, kernel)
    return directly(x, kernel)


def as_conv_general_dilated(x: jax.Array, kernel: jax.Array, *_, **__) -> jax.Array:
    """`conv3x3` as Linen's `Conv` calls it."""
    return conv3x3(x, kernel)


def transformed(params: Mapping[str, Any]) -> dict[str, Any]:
    """G g G^T of all wide 3x3 kernels, for the collection `TRANSFORMED`.

    Args:
        params: parameters of a network, NumPy arrays.

    Returns:
        4x4 matrices (C, D) for each kernel, at its place in `params`.
    """
    return unflatten_dict(
        {
            path: _transformed(leaf)
            for path, leaf in flatten_dict(params).items()
            if leaf.ndim == 4 and leaf.shape[:2] == (3, 3) and _is_wide(leaf)
        }
    )


def use_transformed(call: Callable, arguments: tuple, options: dict, context: Any) -> Any:
    """For `nn.intercept_methods`: run convolutions by tiles with what `TRANSFORMED` holds."""
    layer = context.module
    if (
        isinstance(layer, nn.Conv)
        and layer.conv_general_dilated is as_conv_general_dilated
        and layer.has_variable(TRANSFORMED, "kernel")
    ):
        (x,) = arguments
        if _is_large(x, layer.features, _MULTIPLICATIONS_IF_TRANSFORMED):
            return _by_tiles_of_transformed(x, layer.get_variable(TRANSFORMED, "kernel"))
    return call(*arguments, **options)


def _is_wide(kernel: jax.Array | np.ndarray) -> bool:
    return min(kernel.shape[2:]) >= _CHANNELS


def _is_large(x: jax.Array, outputs: int, least: int) -> bool:
    return x.dtype == jnp.float32 and x.size * outputs >= least


@jax.custom_vjp
def _by_tiles_on_cpus(x, kernel):
    return lax.platform_dependent(x, kernel, cpu=by_tiles, default=directly)


def _forward(x, kernel):
    return _by_tiles_on_cpus(x, kernel), (x, kernel)


def _backward(residuals, dy):
    def direct_gradients(x, kernel, dy):
        return jax.vjp(directly, x, kernel)[1](dy)

    return lax.platform_dependent(*residuals, dy, cpu=gradients_by_tiles, default=direct_gradients)


_by_tiles_on_cpus.defvjp(_forward, _backward)


def directly(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """The convolution as XLA has it."""
    return lax.conv_general_dilated(
        x, kernel, (1, 1), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


@jax.jit  # Layers of equal shapes are traced once.
def by_tiles(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """The convolution by tiles."""
    return _multiply(_tiles(x), _transformed(kernel), x.shape[1:3])


@jax.jit
def _by_tiles_of_transformed(x: jax.Array, kernel: Grid) -> jax.Array:
    return _multiply(_tiles(x), kernel, x.shape[1:3])


@jax.jit
def gradients_by_tiles(
    x: jax.Array, kernel: jax.Array, dy: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The gradients of `x` and `kernel` for the gradient `dy` of the result.

    The gradient of `x` is the convolution of `dy` with the kernel turned by 180 degrees. That of
    the kernel is G^T [(A dY A^T) * (B^T d B)] G, summed over tiles.
    """
    # A zero that depends on `dy`. With a constant, XLA would not compute the tiles again but keep
    # those of the forward pass, which are four times as large as the map. It ignores barriers on
    # CPUs.
    zero = 0.0 * dy[0, 0, 0, 0]
    transformed = _transformed(kernel)
    turn = (3, 1, 2, 0)  # G of a turned kernel is G g in this order
    turned = [[transformed[i][j].T for j in turn] for i in turn]
    dx = _multiply(_tiles(dy), turned, dy.shape[1:3])

    spread = _along_both(_spread_results, _split(_padded(dy, 0), 2, 2))
    products = [
        [_rows(tile).T @ _rows(result) for tile, result in zip(*pair, strict=True)]
        for pair in zip(_tiles(x, zero), spread, strict=True)
    ]
    dkernel = _along_both(_gather_kernel, products)
    return dx, jnp.stack([jnp.stack(row) for row in dkernel])


def _multiply(tiles: Grid, kernels: Grid, size: Sequence[int]) -> jax.Array:
    """A^T [kernels * tiles] A, put together to a map of `size` (height, width)."""
    batch, rows, columns, _ = tiles[0][0].shape
    products = [
        [
            (_rows(tile) @ kernel).reshape(batch, rows, columns, -1)
            for tile, kernel in zip(*pair, strict=True)
        ]
        for pair in zip(tiles, kernels, strict=True)
    ]
    results = _along_both(_results, products)
    y = jnp.stack([jnp.stack(row, axis=3) for row in results], axis=2)
    y = y.reshape(batch, 2 * rows, 2 * columns, -1)
    return y[:, : size[0], : size[1]]


def _tiles(x: jax.Array, zero: jax.Array | float = 0.0) -> Grid:
    """B^T d B of all tiles: 4x4 arrays (B, H/2, W/2, C), sizes rounded up."""
    return _along_both(_transform_tile, _split(_padded(x, 1, zero), 4, 2))


def _padded(x: jax.Array, margin: int, zero: jax.Array | float = 0.0) -> jax.Array:
    """Maps with zeros around. An odd number of rows or columns gets one more."""
    _, height, width, _ = x.shape
    margins = ((0, 0), (margin, margin + height % 2), (margin, margin + width % 2), (0, 0))
    return jnp.pad(x, margins, constant_values=zero)


def _split(x: jax.Array, size: int, stride: int) -> Grid:
    """Value (i, j) of every window, for i and j below `size`."""
    stop = (x.shape[1] - size, x.shape[2] - size)
    return [
        [
            lax.slice(
                x,
                (0, i, j, 0),
                (x.shape[0], i + stop[0] + 1, j + stop[1] + 1, x.shape[3]),
                (1, stride, stride, 1),
            )
            for j in range(size)
        ]
        for i in range(size)
    ]


def _transformed(kernel: jax.Array | np.ndarray) -> Grid:
    """G g G^T: 4x4 matrices (C, D)."""
    return _along_both(_transform_kernel, [[kernel[i, j] for j in range(3)] for i in range(3)])


def _rows(x: jax.Array) -> jax.Array:
    """(..., C) as a matrix with C columns."""
    return x.reshape(-1, x.shape[-1])


def _along_both(transform: Callable[..., Sequence[jax.Array]], grid: Grid) -> Grid:
    """T g T^T, for a `transform` that multiplies the values it gets by T."""
    columns = [transform(*column) for column in zip(*grid, strict=True)]
    return [transform(*row) for row in zip(*columns, strict=True)]


def _transform_tile(a, b, c, d):
    """B^T."""
    return a - c, b + c, c - b, b - d


def _transform_kernel(a, b, c):
    """G."""
    outer, inner = 0.5 * (a + c), 0.5 * b
    return a, outer + inner, outer - inner, c


def _results(a, b, c, d):
    """A^T."""
    return a + b + c, b - c - d


def _spread_results(a, b):
    """A."""
    return a, a + b, a - b, -b


def _gather_kernel(a, b, c, d):
    """G^T."""
    outer, inner = 0.5 * (b + c), 0.5 * (b - c)
    return a + outer, inner, outer + d
