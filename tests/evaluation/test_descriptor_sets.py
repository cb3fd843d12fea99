"""Checks of descriptors, identities and cameras."""

import re

import numpy as np
import pytest

from reid_jax.evaluation.descriptor_sets import Descriptors, check, check_dimensions, check_sets


def some(count=3, dim=2, **changes):
    arrays = {
        "features": np.ones((count, dim), np.float32),
        "pids": np.arange(count, dtype=np.int32),
        "camids": np.ones(count, np.uint8),
    }
    return Descriptors(**arrays | changes)


def test_arrays_become_float32_and_int64():
    query, gallery = check_sets(
        some(features=[[1, 2], [3, 4], [5, 6]], pids=[1, 2, 3]), some(count=4)
    )
    assert query.features.dtype == np.float32
    assert (query.pids.dtype, gallery.camids.dtype) == (np.int64, np.int64)
    assert query.features.tolist() == [[1, 2], [3, 4], [5, 6]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": np.ones(3)}, "query descriptors must be (images, dimensions), got (3,)"),
        ({"features": np.ones((0, 2))}, "the query set is empty: its descriptors are (0, 2)"),
        ({"features": np.ones((3, 0))}, "the query set is empty: its descriptors are (3, 0)"),
        ({"pids": np.arange(2)}, "query pids must be integers of shape (3,)"),
        ({"camids": np.ones(3)}, "query camids must be integers of shape (3,)"),
        (
            {"pids": np.array([1, 2**63, 2], np.uint64)},
            "query pids hold 9223372036854775808, which does not fit int64",
        ),
    ],
)
def test_shapes_and_dtypes_that_disagree_are_named(changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        check(some(**changes), "query")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_the_first_descriptor_that_is_not_finite_is_named(value):
    features = np.ones((5, 2), np.float32)
    features[[3, 4], 1] = value
    with pytest.raises(
        ValueError, match=r"gallery descriptors hold NaN or infinity, first in .* 3"
    ):
        check_sets(some(), some(5, features=features))


def test_sets_of_different_networks_are_refused():
    with pytest.raises(ValueError, match=r"query descriptors have 2 dimensions, gallery .* 3"):
        check_dimensions(some(dim=2), some(dim=3))
