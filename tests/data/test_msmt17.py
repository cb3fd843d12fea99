import logging
import os
import shutil

import numpy as np
import pytest

from reid_jax.data import layouts

# By hand: identities count from 0 in both halves, three for training and two to find.
LISTS = {
    "list_train.txt": [
        "0001/0001_000_01_0303morning_0017_2.jpg 1",
        "0000/0000_001_14_0303morning_0030_0.jpg 0",
    ],
    "list_val.txt": [
        "0000/0000_000_02_0114noon_0008_0_ex.jpg 0",
        "0002/0002_000_15_0302afternoon_0008_0.jpg 2",
    ],
    "list_query.txt": [
        "0000/0000_000_01_0303morning_0015_0.jpg 0",
        "0001/0001_003_05_0113noon_0015_1.jpg 1",
    ],
    "list_gallery.txt": [
        "0001/0001_001_06_0113noon_0044_0.jpg 1",
        "0000/0000_004_03_0303morning_0020_0.jpg 0",
        "0000/0000_002_01_0303morning_0016_0.jpg 0",
    ],
}
V1, V2 = ("train", "test"), ("mask_train_v2", "mask_test_v2")


def make(root, lists=LISTS, folders=V1):
    """Write the lists and empty files for the entries of `LISTS`."""
    for name, lines in lists.items():
        (root / name).write_text("".join(f"{line}\n" for line in lines))
    for name, lines in LISTS.items():
        folder = root / folders[name in ("list_query.txt", "list_gallery.txt")]
        for line in lines:
            path = folder / line.split()[0]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    return root


@pytest.mark.parametrize("folders", [V1, V2])
def test_splits_are_what_the_lists_say(tmp_path, folders):
    dataset = layouts.read("msmt17", make(tmp_path, folders=folders))
    assert (dataset.name, dataset.root) == ("msmt17", str(tmp_path))
    train, test = (str(tmp_path / folder) for folder in folders)
    assert dataset.train.paths == (
        f"{train}/0000/0000_000_02_0114noon_0008_0_ex.jpg",
        f"{train}/0000/0000_001_14_0303morning_0030_0.jpg",
        f"{train}/0001/0001_000_01_0303morning_0017_2.jpg",
        f"{train}/0002/0002_000_15_0302afternoon_0008_0.jpg",
    )
    np.testing.assert_array_equal(dataset.train.camids, [2, 14, 1, 15])
    np.testing.assert_array_equal(dataset.query.camids, [1, 5])
    assert [os.path.relpath(path, test) for path in dataset.gallery.paths] == sorted(
        line.split()[0] for line in LISTS["list_gallery.txt"]
    )
    np.testing.assert_array_equal(dataset.gallery.camids, [1, 3, 6])
    for split in (dataset.train, dataset.query, dataset.gallery):
        assert split.pids.dtype == split.camids.dtype == np.int32
        assert all(os.path.isfile(path) for path in split.paths)


def test_no_number_is_two_people_or_a_distractor(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, logger="absl"):
        dataset = layouts.read("msmt17", make(tmp_path))
    np.testing.assert_array_equal(dataset.train.pids, [1, 1, 2, 3])
    np.testing.assert_array_equal(dataset.train.labels, [0, 0, 1, 2])
    np.testing.assert_array_equal(dataset.query.pids, [4, 5])
    np.testing.assert_array_equal(dataset.gallery.pids, [4, 4, 5])
    assert [dataset.identity(pid) for pid in dataset.query.pids] == ["0", "1"]
    assert not caplog.text  # that identities are in training and in query


def test_folders_of_other_names(tmp_path):
    root = make(tmp_path, folders=("mine/train", "mine/test"))
    folders = ("mine/train", "mine/test", "mine/test")
    dataset = layouts.read("msmt17", root, folders=folders)
    assert (len(dataset.train), len(dataset.query), len(dataset.gallery)) == (4, 2, 3)


def test_query_and_gallery_without_training_lists_and_folder(tmp_path):
    for folders in (V1, V2):
        root = tmp_path / folders[0]
        root.mkdir()
        make(root, {name: lines for name, lines in LISTS.items() if name[5] in "qg"}, folders)
        shutil.rmtree(root / folders[0])
        dataset = layouts.read("msmt17", root, to_train=False)
        np.testing.assert_array_equal(dataset.query.pids, [1, 2])
        # As the lists call them, with and without the training split.
        assert [dataset.identity(pid) for pid in dataset.gallery.pids] == ["0", "0", "1"]


def test_empty_lines_and_line_ends_of_another_system(tmp_path):
    root = make(tmp_path)
    lines = LISTS["list_query.txt"]
    (root / "list_query.txt").write_bytes(f"\ufeff{lines[0]}\r\n\r\n{lines[1]}".encode())
    assert len(layouts.read("msmt17", root).query) == 2


@pytest.mark.parametrize("name", LISTS)
def test_missing_list(tmp_path, name):
    os.remove(make(tmp_path) / name)
    with pytest.raises(FileNotFoundError, match=f"no list '{name}' in '{tmp_path}'"):
        layouts.read("msmt17", tmp_path)


@pytest.mark.parametrize(
    "line",
    [
        "0000/0000_000_01_0303morning_0015_0.jpg",
        "0000/0000_000_01_0303morning_0015_0.jpg zero",
        "0000/0000_000_01_0303morning_0015_0.jpg 0 0",
        "0000/0000_000.jpg 0",
        "0000/0000_000_c1_0303morning_0015_0.jpg 0",
        "0000/0000_000_01_0303morning_0015_0.jpg -1",
        "0000/0000_000_01_0303morning_0015_0.jpg 1234567890",
        "0000/0000_000_1234567890_0303morning_0015_0.jpg 1",
        "0000/0000_000_01_0303\0morning_0015_0.jpg 1",
        "\udcff",
    ],
)
@pytest.mark.parametrize("name", ["list_val.txt", "list_query.txt"])
def test_line_of_another_form(tmp_path, name, line):
    root = make(tmp_path)
    content = "\n".join([LISTS[name][0], line, LISTS[name][1]])
    (root / name).write_text(content, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(ValueError, match=r"line 2: .* is not of the form '0000/") as caught:
        layouts.read("msmt17", root)
    assert str(root / name) in str(caught.value)


@pytest.mark.parametrize("number", [0, 1])
def test_a_file_that_is_listed_twice(tmp_path, number):
    again = f"0000/0000_002_01_0303morning_0016_0.jpg {number}"
    lists = LISTS | {"list_gallery.txt": [*LISTS["list_gallery.txt"], again]}
    with pytest.raises(ValueError, match=r"list_gallery\.txt', line 4: .*_0016_0\.jpg' is there"):
        layouts.read("msmt17", make(tmp_path, lists))


@pytest.mark.parametrize("path", ["../0000/0_0_1_0.jpg", "a/../../0_0_1_0.jpg", "{root}/0_0_1_0"])
def test_line_that_leads_out_of_the_folder(tmp_path, path):
    root = make(tmp_path)
    path = path.format(root=root)
    (root / "0_0_1_0").touch()  # It exists, but is not part of the dataset.
    (root / "list_query.txt").write_text(f"{path} 0\n")
    with pytest.raises(ValueError, match=r"list_query\.txt', line 1: .* leads out of 'test'"):
        layouts.read("msmt17", root)


def test_names_that_are_no_text(tmp_path):
    root, name = make(tmp_path), os.fsdecode(b"0000/0000_0_2_\xff.jpg")
    try:
        (root / "train" / name).touch()
    except OSError:
        pytest.skip("this file system has no such names")
    with open(root / "list_train.txt", "ab") as file:
        file.write(os.fsencode(name) + b" 0\n")
    assert os.path.join(root, "train", name) in layouts.read("msmt17", root).train.paths


@pytest.mark.parametrize("missing", ["0000/0000_009_01_0303morning_0001_0.jpg", "9/9_0_1_0_0.jpg"])
@pytest.mark.parametrize(
    ("name", "folder"), [("list_val.txt", "train"), ("list_query.txt", "test")]
)
def test_listed_file_that_is_not_there(tmp_path, name, folder, missing):
    root = make(tmp_path, LISTS | {name: [*LISTS[name], f"{missing} 0"]})
    with pytest.raises(FileNotFoundError, match=r"line 3: there is no file") as caught:
        layouts.read("msmt17", root)
    assert f"{str(root / name)!r}, line 3" in str(caught.value)
    assert str(root / folder / missing) in str(caught.value)


def test_missing_folders(tmp_path):
    (tmp_path / "MSMT17_V1").mkdir()
    make(tmp_path / "MSMT17_V1")
    with pytest.raises(FileNotFoundError, match=r"train and test .*mask_train_v2.*data\.root"):
        layouts.read("msmt17", tmp_path)


@pytest.mark.parametrize("empty", [("list_train.txt", "list_val.txt"), ("list_gallery.txt",)])
def test_empty_lists(tmp_path, empty):
    root = make(tmp_path, LISTS | {name: [] for name in empty})
    with pytest.raises(ValueError, match=f"no image in {' and '.join(empty)} of"):
        layouts.read("msmt17", root)


def test_data_that_cannot_be_evaluated_names_the_lists(tmp_path):
    own = [line for line in LISTS["list_gallery.txt"] if "_01_" in line]
    lists = LISTS | {"list_gallery.txt": own}
    with pytest.raises(ValueError, match=r"list_query\.txt' has a match .*list_gallery\.txt'"):
        layouts.read("msmt17", make(tmp_path, lists))
