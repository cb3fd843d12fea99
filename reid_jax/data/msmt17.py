"""MSMT17 (Wei et al., "Person Transfer GAN to Bridge Domain Gap", CVPR 2018): splits by lists."""

import functools
import os
import re
from collections.abc import Sequence

import numpy as np

from reid_jax.runtime.messages import shown

# The lists of train, query and gallery. The training set includes the validation list:
# 32,621 boxes of 1,041 identities. Query: 11,659 boxes; gallery: 82,161; of 3,060 identities.
LISTS = (("list_train.txt", "list_val.txt"), ("list_query.txt",), ("list_gallery.txt",))

# Sub-folders of training and test boxes. V2 has V1's boxes and names, with faces made unreadable.
_FOLDERS = {"MSMT17_V1": ("train", "test"), "MSMT17_V2": ("mask_train_v2", "mask_test_v2")}

# 0000/0000_000_01_0303morning_0015_0.jpg 0: a file below its folder and the number of its identity.
# The name's third field is the camera, 01 to 15.
# More than nine digits may not fit int32.
_LINE = re.compile(
    r"(?P<path>(?:[^\s\0]+/)?\d+_\d+_(?P<camid>\d{1,9})_[^\s\0/]+)\s+(?P<pid>\d{1,9})"
)


def read(
    root: str, folders: Sequence[str] | None = None, *, to_train: bool = True
) -> list[tuple[tuple[str, ...], np.ndarray, np.ndarray]]:
    """Read the lists and the names of the files in the boxes' folders; no image is opened.

    The lists number training and test identities both from 0, although they are different people.
    Here they are numbered from 1 without gap or overlap, training first: 1 to 1,041 and 1,042 to
    4,101. Each number then stands for one person, and 0 remains for distractors.

    Args:
        root: the folder of the lists and of `train` and `test`, as MSMT17_V1 has them, or of
            `mask_train_v2` and `mask_test_v2`, as MSMT17_V2. V1's are used if both exist.
        folders: instead of those, the folders below the root of train, query and gallery.
        to_train: whether to read the training images. If not, the first split is empty, and test
            identities are numbered from 1.

    Returns:
        For train, query and gallery: N paths in sorted order, pids and camids, (N,) int32.

    Raises:
        FileNotFoundError: a folder, a list or a listed file does not exist.
        ValueError: a list has a line of another form or one that leads out of its folder, or a
          split is empty or has a file twice.
    """
    folders = folders or _folders(root, to_train)
    splits: list[tuple[tuple[str, ...], np.ndarray, np.ndarray]] = []
    first_pid = 1
    for i, (lists, folder) in enumerate(zip(LISTS, folders, strict=True)):
        if i == 0 and not to_train:
            splits.append(((), np.zeros(0, np.int32), np.zeros(0, np.int32)))
            continue
        before: set[str] = set()
        boxes = sorted(box for name in lists for box in _boxes(root, name, folder, before))
        if not boxes:
            raise ValueError(f"no image in {' and '.join(lists)} of {root!r}")
        paths, numbers, camids = zip(*boxes, strict=True)
        pids = np.array(numbers, np.int32) + np.int32(first_pid)
        if i == 0:
            first_pid = int(pids.max()) + 1
        splits.append((paths, pids, np.array(camids, np.int32)))
    return splits


def _folders(root: str, to_train: bool) -> Sequence[str]:
    """The folders below the root of the boxes of train, query and gallery."""
    for train, test in _FOLDERS.values():
        needed = (train, test) if to_train else (test,)
        if all(os.path.isdir(os.path.join(root, folder)) for folder in needed):
            return train, test, test
    known = " nor ".join(f"{' and '.join(pair)} ({name})" for name, pair in _FOLDERS.items())
    raise FileNotFoundError(
        f"neither folders {known} in {root!r} (data.root): name the folder that holds them and "
        "list_train.txt, or name others by data.folders"
    )


def _boxes(root: str, name: str, folder: str, before: set[str]) -> list[tuple[str, int, int]]:
    """The (path, number of the identity, camera) of every line of a list that is not empty.

    Paths are added to `before`, which holds those of the split's lists so far.
    """
    path = os.path.join(root, name)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"no list {name!r} in {root!r}: it comes with MSMT17")
    # The listing of a folder shows which files exist: one call for some thirty files.
    listing = functools.cache(_listing)
    boxes = []
    with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
        for number, line in enumerate(map(str.strip, file), start=1):
            if not line:
                continue
            match = _LINE.fullmatch(line)
            if not match:
                raise ValueError(
                    f"{shown(path)}, line {number}: {line!r} is not of the form "
                    "'0000/0000_000_01_0303morning_0015_0.jpg 0'"
                )
            if os.path.isabs(match["path"]) or ".." in match["path"].split("/"):
                raise ValueError(f"{shown(path)}, line {number}: {line!r} leads out of {folder!r}")
            box = os.path.join(root, folder, match["path"])
            if os.path.basename(box) not in listing(os.path.dirname(box)):
                raise FileNotFoundError(f"{shown(path)}, line {number}: there is no file {box!r}")
            if box in before:
                raise ValueError(f"{shown(path)}, line {number}: {box!r} is there twice")
            before.add(box)
            boxes.append((box, int(match["pid"]), int(match["camid"])))
    return boxes


def _listing(folder: str) -> frozenset[str]:
    try:
        return frozenset(os.listdir(folder))
    except PermissionError:
        raise
    except OSError:  # A missing folder, a name that is too long, links in a circle.
        return frozenset()
