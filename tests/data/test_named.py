"""Numbers of the names of people and cameras."""

import logging

import numpy as np
import pytest

from reid_jax.data import named


@pytest.mark.parametrize(
    ("camera", "plain"),
    [("1", "1"), ("001", "1"), ("00", "0"), ("c01", "c01"), ("", ""), ("-01", "-01")],
)
def test_numbers_have_no_leading_zeros(camera, plain):
    assert named.plain_number(camera) == plain


def test_names_are_numbered_over_all_splits():
    paths = [["a"], ["b"], ["c", "d"]]
    people = [[("zoe", "2")], [("anna", "10")], [("anna", "2"), ("bert", "x")]]
    dataset = named.dataset("folder", "root", ("t", "q", "g"), paths, people)
    assert [split.pids.tolist() for split in (dataset.train, dataset.query, dataset.gallery)] == [
        [3], [1], [1, 2]
    ]  # fmt: skip
    assert dataset.gallery.camids.tolist() == [2, 3]
    assert (dataset.camera(1), dataset.identity(3)) == ("10", "zoe")


def test_without_cameras_each_file_is_one(tmp_path):
    (tmp_path / "a").touch()
    (tmp_path / "link").symlink_to("a")
    (tmp_path / "b").touch()
    paths = [[], [str(tmp_path / "a")], [str(tmp_path / name) for name in ("b", "link", "gone")]]
    people = [[("x", "")] * len(split) for split in paths]
    dataset = named.dataset("people", str(tmp_path), ("t", "q", "g"), paths, people)
    assert not dataset.has_cameras
    np.testing.assert_array_equal(dataset.gallery.camids == dataset.query.camids, [0, 1, 0])
    assert len(set(dataset.gallery.camids)) == 3
    assert min(dataset.gallery.camids) > 0  # 0 is the camera of --gallery-extra.


def test_many_names_alike_are_counted(caplog):
    people = [[(form.format(n), "1") for n in range(5) for form in ("a{}", "a00{}")]]
    with caplog.at_level(logging.WARNING, logger="absl"):
        named.warn_of_zeros(people)
    (message,) = caplog.messages
    assert message.count("(1 image)") == 6
    assert "; and 2 more groups. Give each identity one name" in message
