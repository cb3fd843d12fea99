"""The rows of a gallery, and the forms in which callers may pass them."""

import copy
import pathlib
import pickle
import re

import jax.numpy as jnp
import numpy as np
import pytest

from reid_jax.gallery_rows import (
    Rows,
    as_descriptors,
    as_integers,
    as_names,
    as_texts,
    check_finite,
    check_named,
    per_image,
)


def append(rows, *, count=1, dim=2, start=0):
    numbers = np.arange(start, start + count)
    features = np.repeat(numbers[:, None], dim, 1).astype(np.float32)
    return rows._append(features, numbers, numbers + 100, [f"{number}.jpg" for number in numbers])


def test_a_name_given_twice_is_found_in_time_of_their_number():
    compared = 0

    class Name(str):
        __hash__ = str.__hash__

        def __eq__(self, other):
            nonlocal compared
            compared += 1
            return str(self) == str(other)

    names = [Name(i) for i in [*range(1000), 999]]
    with pytest.raises(ValueError, match="names holds '999' twice"):
        check_named(names, dict.fromkeys(names, 1), once=True)
    assert compared < 10 * len(names)


def test_rows_stay_together_while_they_grow():
    rows = Rows()
    assert (len(rows), rows.dim) == (0, 0)
    moves = [append(rows, start=number) for number in range(100)]
    assert sum(moves) <= 8  # The capacity doubles.
    np.testing.assert_array_equal(rows.features[:, 0], np.arange(100))
    np.testing.assert_array_equal(rows.camids, np.arange(100, 200))
    assert rows.names == tuple(f"{number}.jpg" for number in range(100))
    assert rows.names is rows.names
    append(rows, start=100)
    assert rows.names[100] == "100.jpg"


def test_views_are_read_only_and_keep_what_they_show():
    rows = Rows()
    append(rows, count=3)
    features, pids = rows.features, rows.pids
    with pytest.raises(ValueError, match="read-only"):
        features[0] = 1
    append(rows, count=50, start=3)
    rows._relabel(np.full(53, 7), np.full(53, 8))
    assert (len(features), pids.tolist()) == (3, [0, 1, 2])
    assert set(rows.pids.tolist()) == {7}


def test_a_copy_by_pickle_is_independent():
    rows = Rows()
    append(rows, count=3)
    copied = pickle.loads(pickle.dumps(rows))
    append(rows, start=3)
    append(copied, count=2, start=9)
    assert (len(rows), len(copied)) == (4, 5)
    assert copied.names[:3] == rows.names[:3]


def test_descriptors_of_another_length_are_refused():
    rows = Rows()
    rows._check_dim(np.ones((1, 5)), "queries")
    append(rows)
    with pytest.raises(ValueError, match=r"queries of 5 numbers do not match .* of 2"):
        rows._check_dim(np.ones((1, 5)), "queries")


@pytest.mark.parametrize(
    "given",
    [[1, 2], [[1, 2]], np.ones(2, np.float64), ((1.0, 2.0),), jnp.ones((1, 2), jnp.bfloat16)],
)
def test_one_descriptor_is_a_row(given):
    array = as_descriptors(given)
    assert (array.shape, array.dtype) == ((1, 2), np.float32)


@pytest.mark.parametrize(
    "given", [1.0, np.ones((1, 0)), np.ones((1, 2, 3)), [["a", "b"]], [[None]]]
)
def test_what_is_no_descriptor_is_refused(given):
    with pytest.raises(ValueError, match="descriptors must be numbers"):
        as_descriptors(given)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e19])
def test_the_first_descriptor_without_a_usable_length_is_named(value):
    features = np.ones((4, 3), np.float32)
    check_finite(features)
    check_finite(features[:0])
    features[2:, 1] = value
    with pytest.raises(ValueError, match="descriptor 2 holds NaN or infinity or is longer"):
        check_finite(features)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        *((3, [3]), (np.uint8(4), [4]), ([1, 2], [1, 2]), (range(2), [0, 1]), ([], [])),
        *(({5}, [5]), ({5: 6}.keys(), [5]), ({5: 6}.values(), [6])),
        (np.array([2**63 - 1], np.uint64), [2**63 - 1]),
    ],
)
def test_integers_in_any_form(given, wanted):
    got = as_integers(given, "pids")
    assert (got.tolist(), got.dtype) == (wanted, np.int64)


@pytest.mark.parametrize("given", [1.5, [1.0], "1", [[1]], [True]])
def test_other_things_are_no_integers(given):
    with pytest.raises(ValueError, match="pids must be integers, got"):
        as_integers(given, "pids")


def test_an_integer_that_int64_cannot_hold_is_refused():
    with pytest.raises(
        ValueError, match=r"pids must be at most 2\^63 - 1, got 9223372036854775808"
    ):
        as_integers(np.array([1, 2**63], np.uint64), "pids")


def test_one_integer_is_every_image_s():
    assert per_image(None, 2, "pids").tolist() == [0, 0]
    assert per_image(4, 3, "pids").tolist() == [4, 4, 4]
    assert per_image(np.int32(4), 2, "pids").tolist() == [4, 4]
    assert per_image([1, 2], 2, "pids").tolist() == [1, 2]
    with pytest.raises(ValueError, match="pids must be 2 integers, one per image, got 1"):
        per_image([1], 2, "pids")


@pytest.mark.parametrize("kind", [set, frozenset])
def test_a_set_has_no_order_of_images(kind):
    message = "must be in the order of the images, got a set: pass a list"
    with pytest.raises(ValueError, match=f"pids {message}"):
        per_image(kind({12, 7}), 2, "pids")
    with pytest.raises(ValueError, match=f"names {message}"):
        as_names(kind({"b", "a"}), 2)
    # A filter needs none, and keys have one.
    assert sorted(as_names(kind({"b", "a"}))) == ["a", "b"]
    assert as_names({"b": 1, "a": 2}.keys(), 2) == ["b", "a"]
    assert per_image({12: "b", 7: "a"}.keys(), 2, "pids").tolist() == [12, 7]


def test_names_are_texts_or_paths():
    assert as_texts(["a", pathlib.Path("b/c"), b"d"]) == ["a", "b/c", "d"]
    with pytest.raises(ValueError, match="names must be several texts"):
        as_texts("abc")
    with pytest.raises(ValueError, match=re.escape("names must be texts or paths")):
        as_texts([1])


@pytest.mark.parametrize("copy_of", [copy.copy, copy.deepcopy])
def test_a_copy_and_the_original_change_apart(copy_of):
    rows = Rows()
    append(rows, count=3)
    copied = copy_of(rows)
    append(copied, start=3)
    append(rows, count=2, start=9)
    assert (len(rows.names), len(rows.features)) == (5, 5)
    assert (len(copied.names), len(copied.features)) == (4, 4)
    assert (rows.pids[3], copied.pids[3]) == (9, 3)


def test_a_pickle_has_no_unused_rows():
    rows = Rows()
    append(rows, count=1000)
    append(rows, start=1000)  # Makes room for more.
    state = rows.__getstate__()
    assert {len(state[name]) for name in ("_features", "_pids", "_camids", "_names")} == {1001}
