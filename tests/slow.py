"""Parameters of tests, of which the quick suite has only some."""

from collections.abc import Iterable

import pytest


def quick_only(values: Iterable, *quick) -> list:
    """Mark the values `slow`, except those in `quick`."""
    return [
        value if value in quick else pytest.param(value, marks=pytest.mark.slow) for value in values
    ]
