"""The images of a dataset in splits."""

import numpy as np

from reid_jax.data.splits import Dataset, Split

SPLIT = Split(
    paths=("a", "b", "c", "d"),
    pids=np.array([7, 3, 7, 9], np.int32),
    camids=np.array([1, 2, 3, 4], np.int32),
    skipped=(("x", "is empty"),),
)


def test_labels_renumber_identities_in_their_order():
    assert SPLIT.labels.tolist() == [1, 0, 1, 2]
    assert SPLIT.labels.dtype == np.int32
    assert (len(SPLIT), SPLIT.num_identities) == (4, 3)


def test_take_keeps_the_rows_together():
    taken = SPLIT.take([False, True, False, True])
    assert taken.paths == ("b", "d")
    assert taken.pids.tolist() == [3, 9]
    assert taken.camids.tolist() == [2, 4]
    assert taken.skipped == SPLIT.skipped
    assert taken.labels.tolist() == [0, 1]


def test_a_dataset_has_the_skipped_files_of_all_splits():
    empty = Split((), np.empty(0, np.int32), np.empty(0, np.int32))
    dataset = Dataset(SPLIT, empty, SPLIT, "folder", "root", ("train", "query", "gallery"))
    assert dataset.skipped == (("x", "is empty"), ("x", "is empty"))
