"""Folders and lists with names of any kind give a dataset, or an error that names the cause."""

import os
import pathlib
import re
import tempfile

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from reid_jax.data import layouts

FOLDERS = {
    **dict.fromkeys(
        ("market1501", "dukemtmc", "cuhk03"), ("bounding_box_train", "query", "bounding_box_test")
    ),
    "folder": layouts.FOLDERS,
}
# Names that the layouts support, with numbers of any length and digits of any script.
_NUMBER = st.one_of(
    st.integers(0, 3).map("{:04}".format), st.integers(-1, 10**14).map(str), st.just("٣"),
    st.from_regex(r"\d{1,12}", fullmatch=True),
)  # fmt: skip
_FORMS = {
    "market1501": "{}_c{}s1_{}",
    "dukemtmc": "{}_c{}_f{}",
    "cuhk03": "{}_c{}_{}",
    "folder": "{}_c{}_{}",
}
# Any possible name of a file, including bytes that are not text.
_ANY = st.text(
    st.one_of(
        st.characters(blacklist_characters="/\0", blacklist_categories=("Cs",)),
        st.integers(0x80, 0xFF).map(lambda byte: os.fsdecode(bytes([byte]))),
    ),
    min_size=1,
    max_size=12,
).map(lambda name: os.fsdecode(os.fsencode(name)))  # as `os.listdir` returns it


def names(layout):
    known = st.builds(_FORMS[layout].format, _NUMBER, _NUMBER, _NUMBER)
    stems = st.one_of(known, known, known, _ANY, st.builds("{}{}".format, known, _ANY))
    suffixes = st.sampled_from((".jpg", ".jpg", ".WebP", ".PNG", ".tiff", ".txt"))
    return st.lists(st.builds("{}{}".format, stems, suffixes), max_size=4)


def is_good(split):
    assert split.pids.dtype == split.camids.dtype == np.int32
    assert len(split.paths) == len(split.pids) == len(split.camids) > 0
    assert split.labels.max() < split.num_identities
    return all(map(os.path.lexists, split.paths))


def read(layout, root):
    """The dataset, or the message of one of the documented errors."""
    try:
        dataset = layouts.read(layout, root)
    except (ValueError, FileNotFoundError) as error:
        caught = error
    else:
        caught = None
    if caught:
        assert type(caught) in (ValueError, FileNotFoundError)
        assert str(caught).isprintable()
        assert root in str(caught)
        return str(caught)
    assert is_good(dataset.train)
    assert is_good(dataset.query)
    assert is_good(dataset.gallery)
    return dataset


def touch(path):
    try:
        path.touch()
    except OSError:  # A file system may refuse a name.
        return False
    return True


@pytest.mark.parametrize("layout", FOLDERS)
def test_folders(layout):
    outcomes = {"good": 0, "named": 0}

    @settings(derandomize=True, database=None, max_examples=80, deadline=None)
    @given(st.tuples(names(layout), names(layout), names(layout)))
    def any_names(split_names):
        with tempfile.TemporaryDirectory() as root:
            written = []
            # A dataset that is good except for the added files.
            for folder, pid, camid in zip(FOLDERS[layout], (1, 2, 2), (1, 1, 2), strict=True):
                path = pathlib.Path(root, folder)
                path.mkdir()
                (path / f"{_FORMS[layout].format(pid, camid, 0)}.jpg").touch()
                (path / f"{_FORMS[layout].format(pid + 1, camid, 0)}.jpg").touch()
            for folder, added in zip(FOLDERS[layout], split_names, strict=True):
                paths = [pathlib.Path(root, folder, name) for name in added]
                written += [str(path) for path in paths if touch(path)]
            result = read(layout, root)
            if isinstance(result, str):
                assert "no identity and camera" in result
                assert any(repr(path) in result for path in written)
            outcomes["named" if isinstance(result, str) else "good"] += 1

    any_names()
    assert min(outcomes.values()) > 10


FIRST = {
    "list_train.txt": ["0/0_0_1_a.jpg 0", "1/1_0_1_a.jpg 1"],
    "list_val.txt": [],
    "list_query.txt": ["0/0_0_1_a.jpg 0"],
    "list_gallery.txt": ["0/0_0_2_a.jpg 0"],
}
_LINE = st.one_of(
    st.builds("{}/{}_{}_{}_x.jpg {}".format, _NUMBER, _NUMBER, _NUMBER, _NUMBER, _NUMBER),
    st.builds("0/0_0_1_a.jpg {}".format, _NUMBER),
    st.builds("{} {}".format, _ANY, _NUMBER),
    st.sampled_from(
        [
            "../../etc/1_1_1_x.jpg 0",
            "/etc/1_1_1_x 0",
            "0/0_0_2_a.jpg 00",
            "0/0_0_1_a.jpg 2",
            "",
            "\0/0_0_1_a.jpg 1",
        ]
    ),
    st.integers(1, 5000).map(lambda length: f"{'0/' * length}0_0_1_a.jpg {'7' * length}"),
    st.integers(1, 5000).map(lambda length: f"{'long' * length}/0_0_1_a.jpg 7"),
    st.text(max_size=30),
)
# A file that no list has yet.
_NEW = st.builds("0/0_0_3_a.jpg {}".format, st.integers(0, 9))


def test_lists():
    outcomes = {"good": 0, "named": 0}

    @settings(derandomize=True, database=None, max_examples=200, deadline=None)
    @given(
        st.sampled_from(list(FIRST)),
        _NEW.map(lambda line: [line]) | st.lists(_LINE, min_size=1, max_size=3),
        st.just(b"") | st.binary(),
    )
    @example("list_query.txt", ["0/0_0_1_a.jpg 99999999999999"], b"")
    def any_lines(name, lines, end):
        with tempfile.TemporaryDirectory() as root:
            for file, there in FIRST.items():
                pathlib.Path(root, file).write_text("".join(f"{line}\n" for line in there))
                folder = "train" if file in ("list_train.txt", "list_val.txt") else "test"
                for line in (*there, "0/0_0_3_a.jpg"):
                    path = pathlib.Path(root, folder, line.split()[0])
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.touch()
            with open(os.path.join(root, name), "ab") as file:
                text = "\n".join(lines)
                file.write(text.encode("utf-8", "surrogatepass") + b"\n" + end)
            result = read("msmt17", root)
            if isinstance(result, str):
                assert re.search(
                    re.escape(repr(os.path.join(root, name))) + r", line \d+: ", result
                )
            outcomes["named" if isinstance(result, str) else "good"] += 1

    any_lines()
    assert min(outcomes.values()) > 5
