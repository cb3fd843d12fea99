"""Train, query and gallery made from photographs."""

import collections
import logging
import os
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reid_jax.data import layouts, splitting

TRAIN, QUERY, GALLERY = range(3)


@pytest.fixture
def photos(tmp_path):
    """A function that makes photographs with these names; each holds its name."""

    def make(*names):
        for name in names:
            path = tmp_path / "photos" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(name)
        return tmp_path / "photos"

    return make


ALBUM = tuple(f"{who}/{i}.jpg" for who in ("anna", "bert", "carl", "dora") for i in range(3))


def split(folder, out, pattern=None, **options):
    photographs = splitting.read(folder, pattern)
    splits = splitting.divide(photographs.people, **options)
    return photographs, splits, splitting.write(photographs, splits, out)


def files(out):
    return {
        str(path.relative_to(out)): path.read_text()
        for path in sorted(out.rglob("*"))
        if not path.is_dir()
    }


def test_a_folder_for_each_person(photos, tmp_path, monkeypatch):
    folder, out = photos(*ALBUM, "solo/1.jpg"), tmp_path / "made" / "out"
    photographs, splits, linked = split(folder, out)
    assert linked
    assert np.bincount(splits).tolist() == [6, 2, 5]
    dataset = layouts.read("people", out)
    assert (len(dataset.train), len(dataset.query), len(dataset.gallery)) == (6, 2, 5)
    assert sorted(files(out).values()) == sorted([*ALBUM, "solo/1.jpg"])
    assert all(name.split("/", 1)[1] == text for name, text in files(out).items())
    assert splitting.described(photographs, splits).splitlines() == [
        f"'{folder}', without cameras:",
        "  all           5 identities         13 images",
        "  train         2 identities          6 images",
        "  query         2 identities          2 images",
        "  gallery       3 identities          5 images",
        "only in the gallery: 1 identity with one image",
    ]
    # Links are relative: both folders may move together, and the command may run anywhere.
    (tmp_path / "made").rename(tmp_path / "elsewhere")
    assert len(files(tmp_path / "elsewhere" / "out")) == 13
    monkeypatch.chdir(tmp_path)
    split("photos", "out")
    assert files(tmp_path / "out") == files(tmp_path / "elsewhere" / "out")


def test_names_with_cameras(photos, tmp_path):
    names = [f"{pid:03}_c{c}_{i}.jpg" for pid in range(1, 9) for c in ("1", "2") for i in range(2)]
    names += ["009_c1_0.jpg", "009_c01_1.jpg", "010_c1_0.jpg"]
    folder, out = photos(*names), tmp_path / "out"
    photographs, splits, _ = split(folder, out, train=0.25, seed=3)
    dataset = layouts.read("folder", out)
    assert dataset.train.num_identities == 2
    # One query of each of 6 people and 2 cameras.
    assert len(dataset.query) == len(set(zip(dataset.query.pids, dataset.query.camids)))  # noqa: B905
    assert len(dataset.query) == 12
    assert "', under 2 cameras:\n" in splitting.described(photographs, splits)
    # Identity 9 has images under camera 1 only, and 10 has one image.
    end = "only in the gallery: 2 identities under one camera only"
    assert splitting.described(photographs, splits).endswith(end)
    more = splitting.divide(photographs.people, train=0.25, seed=3, queries=5)
    assert np.sum(more == QUERY) == 12  # The last image under a camera stays in the gallery.


def test_names_of_another_pattern(photos, tmp_path):
    folder = photos(*(f"day{i % 2}/{who}-{i}.jpg" for who in "abc" for i in range(4)))
    pattern = r"(?P<pid>[a-z])-"
    photographs, splits, _ = split(folder, tmp_path / "out", pattern)
    assert (photographs.layout, photographs.has_cameras) == ("folder", False)
    assert splitting.identities(photographs, splits) == 2
    dataset = layouts.read("folder", tmp_path / "out", pattern=pattern)
    assert (len(dataset.train), len(dataset.query), len(dataset.gallery)) == (8, 1, 3)


_PEOPLE = st.lists(
    st.tuples(st.sampled_from("abcdefg"), st.sampled_from("123")), min_size=12, max_size=40
)


def test_any_people_are_divided_by_identity():
    divided = 0

    @settings(derandomize=True, database=None, max_examples=300, deadline=None)
    @given(_PEOPLE, st.booleans(), st.floats(0.01, 0.99), st.integers(1, 3), st.integers(0, 9))
    def any_people(people, cameras, share, queries, seed):
        nonlocal divided
        people = people if cameras else [(pid, "") for pid, _ in people]
        options = {"train": share, "queries": queries, "seed": seed}
        if len(splitting.searchable(people)) < 3:
            return
        splits = splitting.divide(people, **options)
        np.testing.assert_array_equal(splits, splitting.divide(people, **options))
        by_split = [[people[i] for i in np.flatnonzero(splits == n)] for n in range(3)]
        identities = [{pid for pid, _ in who} for who in by_split]
        assert not identities[TRAIN] & (identities[QUERY] | identities[GALLERY])
        assert len(identities[TRAIN]) >= 2
        assert identities[QUERY] == splitting.searchable(people) - identities[TRAIN] != set()
        # Each query has a match, and each person and camera has at most the wanted queries.
        for pid, camid in by_split[QUERY]:
            assert any(p == pid and (c != camid or not c) for p, c in by_split[GALLERY])
        assert max(collections.Counter(by_split[QUERY]).values()) <= queries
        images = collections.Counter(pid for pid, _ in people)
        assert all(images[pid] > 1 for pid in identities[TRAIN])
        divided += 1

    any_people()
    assert divided > 100


def test_the_seed_and_the_share_decide(photos):
    people = splitting.read(photos(*ALBUM)).people
    first = splitting.divide(people)
    assert any((splitting.divide(people, seed=seed) != first).any() for seed in (1, 2, 3))
    assert np.sum(splitting.divide(people, train=0.99) == TRAIN) == 9
    assert np.sum(splitting.divide(people, train=0.01) == TRAIN) == 6
    assert np.sum(splitting.divide(people, queries=2) == QUERY) == 4
    assert np.sum(splitting.divide(people, queries=9) == QUERY) == 4


def test_a_folder_above_a_link(photos, tmp_path):
    (tmp_path / "else" / "where").mkdir(parents=True)
    photos(*ALBUM).rename(tmp_path / "else" / "photos")
    (tmp_path / "link").symlink_to(tmp_path / "else" / "where")
    split(tmp_path / "link" / ".." / "photos", tmp_path / "out")
    assert sorted(files(tmp_path / "out").values()) == sorted(ALBUM)


def test_copies_without_links(photos, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError("no links here")

    monkeypatch.setattr(os, "symlink", refuse)
    folder = photos(*ALBUM)
    _, _, linked = split(folder, tmp_path / "out")
    assert not linked
    assert not any(path.is_symlink() for path in (tmp_path / "out").rglob("*"))
    shutil.rmtree(folder)
    assert sorted(files(tmp_path / "out").values()) == sorted(ALBUM)


def test_all_or_nothing(photos, tmp_path, monkeypatch):
    folder, out = photos(*ALBUM), tmp_path / "out"
    calls = []

    def full(path, place):
        calls.append(path)
        if len(calls) == 5:
            raise OSError("disk full")

    monkeypatch.setattr(splitting, "_link", lambda *_: False)
    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(OSError, match="disk full"):
        split(folder, out)
    assert os.listdir(tmp_path) == ["photos"]
    out.mkdir()
    (out / "mine").touch()
    with pytest.raises(FileExistsError, match=r"out' exists and is no empty folder: choose"):
        split(folder, out)
    assert os.listdir(out) == ["mine"]


@pytest.mark.parametrize("below", [".", "out", "anna/out"])
def test_out_is_not_in_the_folder(photos, below):
    folder = photos(*ALBUM)
    with pytest.raises(ValueError, match=r"OUT .* lies in FOLDER .*: choose another OUT"):
        split(folder, folder / below)


def test_bad_folders_are_named(photos, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere' \(FOLDER\)"):
        splitting.read(tmp_path / "nowhere")
    folder = photos("anna/1.jpg", "anna/2.jpg")
    with pytest.raises(ValueError, match=r"^images of 'anna' only: a split needs at least three"):
        split(folder, tmp_path / "out")
    photos("bert/1.jpg", "carl/1.jpg", "carl/2.jpg")
    with pytest.raises(ValueError, match=r"^only 2 people have two images, .*: a split needs two"):
        split(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (folder / "empty").mkdir()
    with pytest.raises(ValueError, match=r"no image in the folder '.*empty' of a person"):
        splitting.read(folder)
    photos("stray.jpg")
    with pytest.raises(ValueError, match=r"no identity .*'.*1\.jpg'.* move '.*/stray\.jpg'"):
        splitting.read(folder)
    with pytest.raises(ValueError, match=r"--pattern 'x' lacks the groups"):
        splitting.read(folder, "x")


def test_names_alike_are_reported(photos, caplog):
    folder = photos("7_c1_1.jpg", "07_c1_1.jpg")
    with caplog.at_level(logging.WARNING, logger="absl"):
        splitting.read(folder)
    assert "different identities: 07 (1 image) and 7 (1 image). Give each" in caplog.text
