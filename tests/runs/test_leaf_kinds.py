"""Kinds of leaves: the values that each accepts, and its description."""

import operator

import pytest

from reid_jax.runs import leaf_kinds
from reid_jax.runs.leaf_kinds import number, one_of, rising, several, some_of, whole


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (number(), [0, 1.5, -3e38], [None, True, "1", float("nan"), float("inf"), 1e39, (1,)]),
        (number(least=0, below=1), [0, 0.999], [-1e-9, 1]),
        (number(above=0, most=1), [1e-9, 1], [0, 1.001]),
        (whole(2), [2, 2**31 - 1], [1, 2.0, 2**31, True, "2"]),
        (one_of("a", "b"), ["a"], ["c", "", None, ("a",)]),
        (several(whole(1), 2), [(1, 2), [3, 4]], [(1,), (1, 2, 3), (1, 0), 1, "12"]),
        (several(whole(1), 0, 3), [(), (1, 2, 3)], [(1,)]),
        (several(whole(1), least=1), [(1,), (1, 2, 3)], [()]),
        (rising(several(whole(0)), operator.lt, "rising"), [(), (1, 2)], [(2, 1), (1, 1)]),
        (some_of("a", "b"), [(), ("a", "b"), ("b",)], [("b", "a"), ("a", "a"), ("c",)]),
        (some_of("a", "b", least=1), [("a",)], [()]),
        (leaf_kinds.SWITCH, [True, False], [0, 1, "True"]),
        (leaf_kinds.TEXT, ["", "x"], [None, 1]),
        (leaf_kinds.SHARE, [0, 1, 0.5], [-0.1, 1.1]),
        (leaf_kinds.COUNT, [1], [0]),
    ],
)
def test_a_kind_holds_some_values_and_no_others(kind, good, bad):
    assert [value for value in good if not kind.holds(value)] == []
    assert [value for value in bad if kind.holds(value)] == []


def test_words_follow_it_must_be():
    assert number(least=0, below=1).words == "a finite number, at least 0 and below 1"
    assert whole(2, "negatives").words == ("a whole number, at least 2 and below 2^31: negatives")
    assert one_of("a", "b").words == "one of 'a', 'b'"
    assert several(leaf_kinds.TEXT, 0, 3).words == "a tuple of length 0 or 3, each text"


def test_a_meaning_changes_nothing_else():
    leaf = whole(1).means("How many.")
    assert (leaf.meaning, leaf.words) == ("How many.", whole(1).words)
    assert leaf.holds(1)
