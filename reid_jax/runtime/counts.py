"""Whole numbers of things, as callers pass them."""

import operator
from typing import SupportsIndex


def as_count(number: SupportsIndex, name: str) -> int:
    """Convert a count to an int, also one of NumPy's types, whose sums could overflow.

    Args:
        number: the count.
        name: of the argument, for the error.

    Raises:
        ValueError: it is no whole number, or is below 1.
    """
    try:
        count = operator.index(number)
    except TypeError:
        raise ValueError(f"{name} must be a whole number, got {number!r}") from None
    if count < 1:
        raise ValueError(f"{name} must be at least 1, got {count}")
    return count
