"""Kinds of leaves of a recipe: numbers, words, tuples, and the values that each may have."""

import operator
from collections.abc import Callable
from typing import Any, NamedTuple

from reid_jax.choices import LAYOUTS, parse_dataset


class Leaf(NamedTuple):
    """The values that a leaf of a recipe may have, and its meaning.

    Attributes:
        words: the condition, which follows "it must be" in errors.
        holds: whether a value satisfies it.
        meaning: one sentence for `--help`.
    """

    words: str
    holds: Callable[[Any], bool]
    meaning: str = ""

    def means(self, meaning: str) -> "Leaf":
        """The same leaf, with its meaning."""
        return self._replace(meaning=meaning)


_LIMITS = {
    "least": ("at least", operator.ge),
    "above": ("above", operator.gt),
    "most": ("at most", operator.le),
    "below": ("below", operator.lt),
}
_LARGEST = (2 - 2**-23) * 2.0**127  # of float32


def number(**limits: float) -> Leaf:
    """A float or an int that float32 can hold, within `_LIMITS` by name."""

    def holds(value):
        return (
            isinstance(value, float | int)
            and not isinstance(value, bool)
            and -_LARGEST <= value <= _LARGEST  # False also for NaN.
            and all(_LIMITS[name][1](value, limit) for name, limit in limits.items())
        )

    within = " and ".join(f"{_LIMITS[name][0]} {limit}" for name, limit in limits.items())
    return Leaf(f"a finite number, {within}", holds)


def whole(least: int, why: str = "") -> Leaf:
    """An int from `least` to the largest int32; `why` is the reason for the limit."""
    words = f"a whole number, at least {least} and below 2^31" + (f": {why}" if why else "")
    holds = number(least=least, below=2**31).holds
    return Leaf(words, lambda value: isinstance(value, int) and holds(value))


def one_of(*names: str) -> Leaf:
    """One of several strings."""
    words = "one of " + ", ".join(repr(name) for name in names)
    return Leaf(words, lambda value: isinstance(value, str) and value in names)


def several(each: Leaf, *counts: int, least: int = 0) -> Leaf:
    """A tuple or list with one of the lengths `counts`, or with any length from `least` on."""
    least_length = f"length {least} or more" if least else "any length"
    length = f"length {' or '.join(map(str, counts))}" if counts else least_length

    def holds(value):
        return (
            isinstance(value, tuple | list)
            and (len(value) in counts if counts else len(value) >= least)
            and all(map(each.holds, value))
        )

    return Leaf(f"a tuple of {length}, each {each.words}", holds)


def rising(values: Leaf, by: Callable[[Any, Any], bool], words: str) -> Leaf:
    """A tuple of `values` whose neighbours are in the order `by`."""

    def holds(value):
        return values.holds(value) and all(map(by, value[:-1], value[1:]))

    return Leaf(f"{values.words}, {words}", holds)


def some_of(*names: str, least: int = 0) -> Leaf:
    """A tuple of some of several strings, each once and in their order."""
    known = several(one_of(*names), least=least)

    def holds(value):
        return known.holds(value) and list(value) == [name for name in names if name in value]

    return Leaf(f"{'some' if least else 'none or some'} of {names}, in order", holds)


#: True or False.
SWITCH = Leaf("True or False", lambda value: isinstance(value, bool))
TEXT = Leaf("text", lambda value: isinstance(value, str))
ANYTHING = Leaf("anything", lambda value: True)
SHARE = number(least=0, most=1)
#: A dataset, such as `people:shop`.
DATASET = Leaf(
    "text of the form LAYOUT:ROOT, with a LAYOUT of " + ", ".join(LAYOUTS),
    lambda value: isinstance(value, str) and parse_dataset(value) is not None,
)
COUNT = whole(1)
