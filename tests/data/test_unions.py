"""Several datasets as one training set."""

import numpy as np

from reid_jax.data import unions
from reid_jax.data.splits import Dataset, Split

FIRST = Split(
    ("a", "b", "c"), np.array([7, 3, 7], np.int32), np.array([1, 6, 1], np.int32), (("x", "bad"),)
)
# It has numbers of the first one, and the largest that a layout can have.
SECOND = Split(
    ("d", "e", "f", "g"),
    np.array([3, 999_999_999, 7, 3], np.int32),
    np.array([999_999_999, 1, 6, 6], np.int32),
    (("y", "bad"),),
)
EMPTY = Split((), np.empty(0, np.int32), np.empty(0, np.int32))


def test_no_person_and_no_camera_is_shared():
    joined = unions.join([FIRST, SECOND, FIRST])
    assert joined.paths == (*"abc", *"defg", *"abc")
    assert joined.skipped == (("x", "bad"), ("y", "bad"), ("x", "bad"))
    assert joined.pids.tolist() == [2, 1, 2, 3, 5, 4, 3, 7, 6, 7]
    assert joined.camids.tolist() == [1, 2, 1, 5, 3, 4, 4, 6, 7, 6]
    assert joined.pids.dtype == joined.camids.dtype == np.int32
    # Within a dataset, images are of one person or camera if they were before.
    for part, split in ((slice(0, 3), FIRST), (slice(3, 7), SECOND), (slice(7, 10), FIRST)):
        for field in ("pids", "camids"):
            after, before = getattr(joined, field)[part], getattr(split, field)
            np.testing.assert_array_equal(
                after[:, None] == after, before[:, None] == before, err_msg=field
            )
    assert joined.num_identities == 2 + 3 + 2
    assert joined.labels.tolist() == (joined.pids - 1).tolist()


def test_one_split_is_left_alone():
    assert unions.join([SECOND]) is SECOND


def test_each_image_has_its_source():
    sources = unions.sources([FIRST, SECOND])
    assert sources.tolist() == [0] * 3 + [1] * 4
    assert sources.dtype == np.int32


def test_names_are_layouts_with_a_number_if_there_are_several():
    sets = [
        Dataset(EMPTY, EMPTY, EMPTY, name, f"root {i}", ("t", "q", "g"))
        for i, name in enumerate(["people", "cuhk03", "people", "people"])
    ]
    assert unions.names(sets) == ["people", "cuhk03", "people-2", "people-3"]
