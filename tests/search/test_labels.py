"""Identities and cameras of a search, by the texts in file names."""

import functools

import pytest

from reid_jax.data import layouts
from reid_jax.search.labels import Labels


def labels_of(names, layout):
    return Labels(names, functools.partial(layouts.read_names, layout=layout), layout)


def test_an_identity_is_converted_as_file_names_are():
    folder = labels_of(["007_c00_1.jpg", "7_c1_1.jpg", "0_c1_1.jpg"], "folder")
    for pid in ("007", "7", "0"):
        number = folder.number(pid, 0, "--identity")
        assert [
            who[0] for who, n in zip(folder.texts, folder.pids, strict=True) if n == number
        ] == [pid]
    for pid in ("0007", "00", "07"):
        with pytest.raises(ValueError, match=f"--identity '{pid}': the gallery has none; it has"):
            folder.number(pid, 0, "--identity")
    cameras = [folder.number(camera, 1, "--camera") for camera in ("0", "00", "1", "01")]
    assert cameras == [folder.camids[0]] * 2 + [folder.camids[1]] * 2


@pytest.mark.parametrize(
    ("layout", "name"), [("market1501", "{}_c1s1_1.jpg"), ("cuhk03", "{}_c1_1.png")]
)
def test_numbers_have_no_leading_zeros(layout, name):
    numbered = labels_of([name.format(pid) for pid in ("0000", "0012", "0120")], layout)
    for texts, place in ((("0000", "0", "00"), 0), (("12", "0012"), 1), (("0120", "120"), 2)):
        for text in texts:
            assert numbered.number(text, 0, "--identity") == numbered.pids[place]
    assert numbered.number("0001", 1, "--camera") == 1
    for text in ("anna", "", "-"):
        with pytest.raises(ValueError, match=f"--identity '{text}': the gallery has none"):
            numbered.number(text, 0, "--identity")


def test_junk_is_named_like_any_identity():
    assert labels_of(["-1_c1s1_1.jpg", "0001_c1s1_1.jpg"], "market1501").number("-1", 0, "") == -1


@pytest.mark.parametrize(
    ("people", "counted"), [(["1", "10", "2"], False), (["1", "10", "2", "anna"], True)]
)
def test_whether_numbers_are_those_of_the_names(people, counted):
    labels = labels_of([f"{pid}_c3_1.jpg" for pid in people], "folder")
    assert labels.counted == [counted, False]
    assert ([str(pid) for pid in labels.pids] == people) == (not counted)
