"""Which cells of an image or a map a rectangle covers, for all that erases, drops or pastes one."""

import jax
import jax.numpy as jnp


def inside(size: tuple[int, int], top, left, height, width) -> jax.Array:
    """(H, W) bool, True inside the rectangle; what reaches beyond the border is cut off.

    Args:
        size: (H, W), in cells.
        top: the first row, a Python or traced integer, perhaps negative; likewise the others.
        left: the first column.
        height: rows.
        width: columns.
    """
    rows, columns = (jnp.arange(extent) for extent in size)
    in_rows = (rows >= top) & (rows < top + height)
    in_columns = (columns >= left) & (columns < left + width)
    return in_rows[:, None] & in_columns[None, :]
