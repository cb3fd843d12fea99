"""The cells of an image or a map that a rectangle covers, to erase, drop or paste them."""

import jax
import jax.numpy as jnp


def inside(size: tuple[int, int], top, left, height, width) -> jax.Array:
    """Mark the cells inside a rectangle. The part beyond the border is cut off.

    Args:
        size: (H, W), in cells.
        top: the first row, a Python or traced integer that may be negative; so may the others.
        left: the first column.
        height: number of rows.
        width: number of columns.

    Returns:
        (H, W) bool, True inside the rectangle.
    """
    rows, columns = (jnp.arange(extent) for extent in size)
    in_rows = (rows >= top) & (rows < top + height)
    in_columns = (columns >= left) & (columns < left + width)
    return in_rows[:, None] & in_columns[None, :]
