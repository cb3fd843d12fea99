"""CSV files that list images."""

import logging
import os
import pathlib
import re
import tempfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reid_jax.data import csv_list, datasets, layouts
from tests.data.test_file_names import is_good

HEADER = "path,identity,camera,split"
LINES = (
    "b/1.jpg,anna,1,train",
    "a/1.jpg,Zoë Æ,01,train",
    "b/2.jpg,anna,2,train",
    "q.jpg,carl,1,query",
    "b/3.jpg,carl,lobby,gallery",
)


@pytest.fixture
def write(tmp_path):
    """A function that writes lines to a file, and makes an image for each path of `LINES`."""
    for line in LINES:
        path = tmp_path / line.partition(",")[0]
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(line.encode())

    def write(*lines, header=HEADER, encoding="utf-8", newline="\n"):
        path = tmp_path / "people.csv"
        text = "".join(f"{line}{newline}" for line in (header, *lines))
        path.write_bytes(text.encode(encoding))
        return path

    return write


def test_a_list(write, tmp_path):
    file = write(*LINES)
    dataset = layouts.read("csv", file)
    assert (dataset.name, dataset.root) == ("csv", str(file))
    assert dataset.train.paths == tuple(
        str(tmp_path / name) for name in ("a/1.jpg", "b/1.jpg", "b/2.jpg")
    )
    assert [dataset.identity(pid) for pid in dataset.train.pids] == ["Zoë Æ", "anna", "anna"]
    # As numbers, 01 and 1 are one camera.
    assert [dataset.camera(camid) for camid in dataset.train.camids] == ["1", "1", "2"]
    assert dataset.camera(dataset.gallery.camids[0]) == "lobby"
    assert dataset.query.pids[0] == dataset.gallery.pids[0] == 3
    assert dataset.has_cameras


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_forms_of_a_list(write, encoding, newline, caplog):
    file = write(
        'query,carl, "q.jpg",,"a ""note"", with a comma"',
        "",
        " train ,anna,b/1.jpg,,\xe6",
        "train,\xc6,a/1.jpg,,",
        "gallery, carl ,./b//3.jpg,,",
        header="Split, identity ,path,camera no,note",
        encoding=encoding,
        newline=newline,
    )
    with caplog.at_level(logging.WARNING, logger="absl"):
        dataset = layouts.read("csv", file)
    assert caplog.messages == [f"columns of '{file}' that are not used: 'camera no', 'note'"]
    assert (len(dataset.train), dataset.has_cameras) == (2, False)
    assert dataset.identity(dataset.query.pids[0]) == "carl"
    assert dataset.query.pids[0] == dataset.gallery.pids[0]


@pytest.mark.parametrize("header", [HEADER, "path,identity,split"])
def test_no_camera_of_any_image(write, header):
    empty = "," if "camera" in header else ""
    lines = [re.sub(",[^,]*(?=,[a-z]+$)", empty, line) for line in LINES]
    dataset = layouts.read("csv", write(*lines, header=header))
    assert not dataset.has_cameras
    assert len({*dataset.train.camids, *dataset.query.camids, *dataset.gallery.camids}) == 5


def test_a_file_in_query_and_gallery_is_no_match_of_itself(write):
    header, lines = "path,identity,split", [re.sub(",[^,]*,(?=[a-z]+$)", ",", x) for x in LINES]
    both = [*lines[:4], "./q.jpg,carl,gallery"]
    with pytest.raises(ValueError, match=r"no query in split query of '.*people\.csv' has a match"):
        layouts.read("csv", write(*both, header=header))
    dataset = layouts.read("csv", write(*both, lines[4], header=header))
    assert dataset.query.camids[0] == dataset.gallery.camids[1] != dataset.gallery.camids[0]


BAD = {
    "missing.jpg,carl,1,query": r"line 7: no file 'missing\.jpg' in '.*'",
    "../out.jpg,carl,1,query": r"line 7: no file '\.\./out\.jpg' in '.*'",
    "b,carl,1,query": "line 7: no file 'b' in '.*'",
    "q.jpg,carl,1": "line 7: 3 fields, but the first line has 4",
    "q.jpg,carl,1,query,x": "line 7: 5 fields, but the first line has 4",
    "q.jpg,carl,1,test": "line 7: unknown split 'test'; it must be train, query or gallery",
    "q.jpg,carl,1,": "line 7: unknown split ''; it must be train, query or gallery",
    ",carl,1,query": "line 7: the path is empty",
    "q.jpg, ,1,query": "line 7: the identity is empty",
    "./q.jpg,carl,1,query": r"line 7: '\./q\.jpg' is in the split 'query' already, by line 5",
    "q.jpg,anna,1,gallery": r"line 7: 'q\.jpg' shows 'anna', but 'carl' in line 5",
    "q.jpg,carl,2,gallery": r"line 7: 'q\.jpg' has the camera '2', but '1' in line 5",
    "q.jpg,carl,,gallery": "line 7: no camera, but line 2 has one: give all images .*, or none",
    '"q.jpg,carl,1,gallery': "line 7: unexpected end of data",
    '"q.jpg"x,carl,1,gallery': "line 7: ',' expected after '\"'",
}


@pytest.mark.parametrize(("line", "message"), BAD.items(), ids=BAD.values())
def test_bad_lines_are_named(write, line, message):
    file = write(*LINES, line)
    with pytest.raises(ValueError, match=rf"^'{re.escape(str(file))}', {message}$"):
        layouts.read("csv", file)


def test_absolute_and_relative_paths_are_one_file(write, tmp_path, monkeypatch):
    path = tmp_path / "q.jpg"
    monkeypatch.chdir(tmp_path)
    for line, message in (
        (f"{path},carl,1,query", "is in the split 'query' already, by line 5"),
        (f"{path},anna,1,gallery", "shows 'anna', but 'carl' in line 5"),
        (f"../{tmp_path.name}/q.jpg,carl,2,gallery", "has the camera '2', but '1' in line 5"),
    ):
        for file in (write(*LINES, line), "people.csv"):
            with pytest.raises(ValueError, match=f"line 7: '.*q.jpg' {message}$"):
                layouts.read("csv", file)


def test_bad_lines_are_counted(write):
    file = write(*LINES, *(",x,1,query" for _ in range(5)))
    with pytest.raises(ValueError, match=r"line 7: .*; line 9: [^;]*; and 2 more bad lines$"):
        layouts.read("csv", file)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("path;identity;camera;split", "no column 'path' in 'path;identity;camera;split'; the"),
        ("path,identity,camera", "no column 'split' in 'path,identity,camera'; the first line"),
        ("path,identity,split,split", "two columns 'split' in 'path,"),
        ("", "no column 'path' in ''"),
    ],
)
def test_bad_headers_are_named(write, header, message):
    with pytest.raises(ValueError, match=f"'.*', line 1: {message}"):
        layouts.read("csv", write(*LINES, header=header))


def test_a_wrong_encoding_is_named(write):
    file = write(*LINES, encoding="latin-1")
    with pytest.raises(ValueError, match=r"people\.csv', line 3: no text in UTF-8; save the file"):
        layouts.read("csv", file)
    with pytest.raises(ValueError, match=r"people\.csv', line 1: no text in UTF-8"):
        layouts.read("csv", write(*LINES, encoding="utf-16"))


def test_a_camera_of_some_images_is_named(write):
    lines = ["b/1.jpg,anna,,train", *LINES[1:]]
    with pytest.raises(ValueError, match=r"', line 3: a camera, but line 2 has none: give all .*"):
        layouts.read("csv", write(*lines))


@pytest.mark.parametrize("split", ["query", "gallery"])
def test_a_split_without_lines_is_named(write, split):
    lines = [line for line in LINES if not line.endswith(split)]
    with pytest.raises(ValueError, match=f"has no line with the split '{split}'$"):
        layouts.read("csv", write(*lines))


def test_an_evaluation_needs_no_training_images(write, tmp_path):
    file = write("nowhere.jpg,anna,,train", *LINES[3:])
    assert len(layouts.read("csv", file, to_train=False).train) == 0
    with pytest.raises(ValueError, match=r"no file 'nowhere\.jpg'"):
        layouts.read("csv", file)
    with pytest.raises(ValueError, match=r"fewer than two identities .* in split train of '.*csv'"):
        layouts.read("csv", write(*LINES[:1], *LINES[3:]))


def test_what_is_no_list(write, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"data\.root .* is a folder: .* the CSV file"):
        layouts.read("csv", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"nowhere' is no file: .* the CSV file"):
        layouts.read("csv", tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"data\.folders is not for the layout 'csv'"):
        layouts.read("csv", write(*LINES), folders=("a", "b", "c"))
    with pytest.raises(ValueError, match="a pattern is for the layout 'folder', not for 'csv'"):
        layouts.read("csv", write(*LINES), pattern="x")


def test_similar_and_special_names_are_reported(write, caplog):
    with caplog.at_level(logging.WARNING, logger="absl"):
        layouts.read("csv", write("a/1.jpg,0,c1,train", "b/1.jpg,00,c01,train", *LINES[3:]))
    special, people, cameras = caplog.messages
    assert special.startswith("people in layout csv: 1 image of identity 0 and 1 image of")
    assert "different identities: 0 (1 image) and 00 (1 image). Give" in people
    assert "different cameras: c01 (1 image) and c1 (1 image). Give" in cameras


def test_the_fingerprint_is_of_images_not_of_lines(write, tmp_path, monkeypatch):
    def fingerprint(file):
        return datasets.fingerprint(layouts.read("csv", file))

    before = fingerprint(write(*LINES))
    assert fingerprint(write(*LINES[::-1])) == before
    assert fingerprint(write(*(line.replace("q.jpg", "./q.jpg") for line in LINES))) == before
    monkeypatch.chdir(tmp_path)
    assert fingerprint("people.csv") == before
    moved = tmp_path.rename(tmp_path.with_name("moved"))
    assert fingerprint(moved / "people.csv") == before
    moved.rename(tmp_path)
    others = [line.replace("b/2.jpg,anna", "b/2.jpg,Zoë Æ") for line in LINES]
    assert fingerprint(write(*others)) != before
    assert fingerprint(write(*LINES[1:]))["count"] == 2


_FIELD = st.one_of(
    st.sampled_from(("q.jpg", "a/1.jpg", "anna", "", "1", "01", "train", "query", "gallery")),
    st.text(max_size=8),
)


_LINE = st.just(["q.jpg", "carl", "1", "gallery"]) | st.lists(_FIELD, min_size=3, max_size=5)


def test_any_lines_are_read_or_named(write):
    outcomes = {"good": 0, "named": 0}

    @settings(derandomize=True, database=None, max_examples=200, deadline=None)
    @given(st.lists(_LINE, max_size=2), st.just(b"") | st.binary())
    def any_lines(lines, end):
        with tempfile.TemporaryDirectory() as root:
            for line in LINES:
                path = pathlib.Path(root, line.partition(",")[0])
                path.parent.mkdir(exist_ok=True)
                path.touch()
            file = os.path.join(root, "people.csv")
            with open(file, "wb") as opened:
                text = "\n".join([HEADER, *LINES, *(",".join(fields) for fields in lines)])
                opened.write(text.encode("utf-8", "surrogatepass") + b"\n" + end)
            try:
                dataset = layouts.read("csv", file)
            except ValueError as error:
                problem = str(error)
            else:
                assert is_good(dataset.train)
                outcomes["good"] += 1
                return
            assert re.match(rf"{re.escape(repr(file))}, line \d+: ", problem)
            assert problem.isprintable()
            outcomes["named"] += 1

    any_lines()
    assert min(outcomes.values()) > 3


def test_paths_and_people_are_in_one_order(write):
    paths, people = csv_list.read(str(write(*LINES)))
    assert [os.path.basename(path) for path in paths[0]] == ["1.jpg", "1.jpg", "2.jpg"]
    assert people[0] == [("Zoë Æ", "1"), ("anna", "1"), ("anna", "2")]
    assert np.shape(people[1]) == (1, 2)
