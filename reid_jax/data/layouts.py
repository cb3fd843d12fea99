"""Folder layouts of re-ID datasets: which images they hold, of whom, under which camera."""

import collections
import dataclasses
import os
import re
from collections.abc import Sequence

import numpy as np

from reid_jax.choices import LAYOUTS, NAMED_LAYOUTS
from reid_jax.data import csv_list, file_names, identities, msmt17, named
from reid_jax.data.identities import DISTRACTOR, JUNK
from reid_jax.data.image_files import find_images
from reid_jax.data.splits import Dataset, Split
from reid_jax.runtime.files import local_path
from reid_jax.runtime.messages import counted, shown, warn

_STANDARD_FOLDERS = ("bounding_box_train", "query", "bounding_box_test")
_MULTI_QUERY = "gt_bbox"

#: Folders of train, query and gallery in the layout `folder`, unless others are named.
FOLDERS = ("train", "query", "gallery")
#: File names of the layout `folder`, unless another pattern is given: `anna_c2_0001.jpg` is the
#: identity `anna` under camera `2`. A pattern is a regular expression with the groups `pid` and
#: `camid`, matched from the first character of the file name; each group may hold any text. Without
#: the group `camid`, cameras are not known. If a pattern has slashes, it is matched from the
#: folders above the file too: `(?P<pid>[^/]+)/c(?P<camid>\d+)`.
PATTERN = r"(?P<pid>[^_]+)_c(?P<camid>\d+)"


@dataclasses.dataclass(frozen=True)
class _Layout:
    """The properties in which layouts differ."""

    pattern: str
    folders: tuple[str, ...] = _STANDARD_FOLDERS  # of train, query and gallery
    junk: tuple[int, ...] = ()  # pids of boxes that the protocol ignores
    distractors: tuple[int, ...] = ()  # pids of distractors, only for the gallery


# Numbers have at most nine digits: more may not fit int32.
_LAYOUTS = {
    # 0002_c1s1_000451_03.jpg: the fourth box of frame 451 in sequence 1 of camera 1.
    "market1501": _Layout(
        r"(?P<pid>-1|\d{1,9})_c(?P<camid>\d{1,9})s\d+_", junk=(JUNK,), distractors=(DISTRACTOR,)
    ),
    # 0001_c2_f0046182.jpg: frame 46182 of camera 2.
    "dukemtmc": _Layout(r"(?P<pid>\d{1,9})_c(?P<camid>\d{1,9})_f\d+"),
    # 0001_c1_2.png: image 2 under camera 1. The detected and the labeled boxes are two roots.
    "cuhk03": _Layout(r"(?P<pid>\d{1,9})_c(?P<camid>\d{1,9})_\d+"),
    "folder": _Layout(PATTERN, folders=FOLDERS),
}
_PEOPLE = _Layout(r"(?P<pid>[^/]+)/", folders=FOLDERS)  # the first folder below a split's


def read(
    layout: str,
    root: str | os.PathLike,
    *,
    pattern: str | None = None,
    folders: Sequence[str] | None = None,
    to_train: bool = True,
) -> Dataset:
    """Read the file names of a dataset; no image is opened.

    Images are the files that `image_files.find_images` finds in a split's folder and below.

    In the layout `market1501` identity -1 is junk, which is dropped, and 0 are distractors, which
    stay in the gallery and never enter the training split. In the others 0 is a person like all
    others, whose pid is above 0. So is -1 in `folder`, `people` and `csv`; in the rest it is an
    error. A warning counts the images if either number changes which of them are used.

    In the layouts `market1501`, `dukemtmc` and `cuhk03`, pids and camids are the numbers in the
    names; pids are one more where an identity 0 is a person. In `folder`, `people` and `csv` they
    are any text, numbered as in `named.dataset`, and cameras may be unknown. In `people`, each
    split's folder has a folder for each person. In `csv`, splits and identities are those of a
    list, see `csv_list.read`. In `msmt17` they are those of its lists, with numbers as in
    `msmt17.read`. `Dataset.identity` gives the original text.

    Args:
        layout: one of `LAYOUTS`.
        root: the folder that holds the splits' folders; in `csv`, the list.
        pattern: layout `folder` only: what file names look like, as in `PATTERN`, its default.
        folders: folders below the root of train, query and gallery; None means the layout's own.
            Not for `csv`.
        to_train: whether to read the training split. If not, it is empty, and need not exist.

    Returns:
        The dataset.

    Raises:
        FileNotFoundError: the root, a split's folder or a listed file does not exist.
        ValueError: the layout is unknown, the pattern is no regular expression with its groups, a
          folder holds no image, a name shows no identity or camera, a line of a list is wrong,
          there are fewer than two training identities, or no query has a match.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"unknown layout {layout!r} (data.layout); known: {', '.join(LAYOUTS)}")
    if layout != "folder" and pattern:
        raise ValueError(
            f"a pattern is for the layout 'folder', not for {layout!r}: leave data.pattern empty"
        )
    if folders and len(folders) != 3:
        raise ValueError(f"folders must name train, query and gallery, not {tuple(folders)}")
    root = local_path(root, "data.root")
    if layout == "csv":
        dataset = _read_csv(root, folders, to_train)
    elif not os.path.isdir(root):
        raise FileNotFoundError(f"no folder {root!r} (data.root)")
    elif layout == "msmt17":
        dataset = _read_msmt17(root, folders, to_train)
    else:
        rules = _PEOPLE if layout == "people" else _LAYOUTS[layout]
        rules = dataclasses.replace(
            rules, pattern=pattern or rules.pattern, folders=tuple(folders or rules.folders)
        )
        dataset = _read_folders(layout, rules, root, to_train)
    check(dataset, to_train=to_train)
    _warn_of_shared_identities(dataset)
    return dataset


def read_multi_query(dataset: Dataset) -> Split:
    """Find the hand-drawn boxes of Market-1501 that show a query's identity under its camera.

    Args:
        dataset: from `read`, in the layout `market1501`.

    Returns:
        Those images of the folder `gt_bbox`. The others, of training identities and of other
        cameras, are left out.

    Raises:
        FileNotFoundError: the folder does not exist.
        ValueError: the layout is another, a name shows no identity or camera, or a query has no
          such box.
    """
    if dataset.name != "market1501":
        raise ValueError(
            f"--multi-query is defined for Market-1501, not for the layout {dataset.name!r}"
        )
    folder = os.path.join(dataset.root, _MULTI_QUERY)
    if not os.path.isdir(folder):
        raise FileNotFoundError(
            f"no folder {folder!r}: --multi-query needs Market-1501's hand-drawn boxes, which lie "
            "there"
        )
    paths = find_images(folder, "--multi-query")
    expression = file_names.compiled(_LAYOUTS[dataset.name].pattern, "data.pattern")
    people = file_names.who_are(expression, folder, paths)
    pids, camids = np.array([(int(pid), int(camid)) for pid, camid in people], np.int32).T
    boxes = Split(tuple(paths), pids, camids)
    check_multi_query(dataset, boxes)
    asked = set(_whose(dataset.query))
    return boxes.take([who in asked for who in _whose(boxes)])


def check_multi_query(dataset: Dataset, boxes: Split) -> None:
    """Raise ValueError if a query has no box of its identity under its camera."""
    there = set(_whose(boxes))
    queries = zip(dataset.query.paths, _whose(dataset.query), strict=True)
    lacking = [path for path, who in queries if who not in there]
    if lacking:
        folder = os.path.join(dataset.root, _MULTI_QUERY)
        raise ValueError(
            f"no image of the same identity and camera in {folder!r} for {len(lacking):,} of "
            f"{counted(len(dataset.query), 'query', 'queries')}, the first of them {lacking[0]!r}"
        )


def _whose(split: Split) -> list[tuple[int, int]]:
    """The (pid, camid) of each image."""
    return list(zip(split.pids.tolist(), split.camids.tolist(), strict=True))


def read_extra(folder: str | os.PathLike) -> Split:
    """Find more images for the gallery: distractors, with pid 0 and camid 0 for any file name.

    Args:
        folder: with images in it or in folders below, as `image_files.find_images` finds them. For
            example the 500,000 distractors of Market-1501.

    Returns:
        All images, in the order of their paths.

    Raises:
        FileNotFoundError: the folder does not exist.
        ValueError: there is no image.
    """
    paths = find_images(folder, "--gallery-extra")
    nobody = np.zeros(len(paths), np.int32)
    return Split(tuple(paths), nobody, nobody)


def read_names(
    paths: Sequence[str],
    layout: str | None = None,
    pattern: str | None = None,
    option: str = "pattern",
) -> list[tuple[str, str] | None]:
    """Find identities and cameras in the names of files, in any folders.

    Args:
        paths: N paths.
        layout: one of `choices.NAMED_LAYOUTS`; or None, with a pattern.
        pattern: as `PATTERN`.
        option: the option that set the pattern, for errors.

    Returns:
        The (pid, camid) of each, texts; cameras that are numbers, and identities in layouts that
        have numbers, without leading zeros. None for names without them.

    Raises:
        ValueError: the pattern is no regular expression with its groups, or the layout is unknown.
    """
    if pattern is None:
        if layout not in _LAYOUTS:
            known = ", ".join(NAMED_LAYOUTS)
            raise ValueError(f"unknown layout {layout!r}; supported layouts: {known}")
        expression = file_names.compiled(_LAYOUTS[layout].pattern, option)
    else:
        expression = file_names.compiled(pattern, option)
    rule = layout if pattern is None else None
    fields = [file_names.who_is(expression, path) for path in paths]
    return [who and (plain_name(who[0], 0, rule), plain_name(who[1], 1, rule)) for who in fields]


def plain_name(text: str, field: int, layout: str | None) -> str:
    """An identity (field 0) or a camera (1) as `read_names` returns it.

    Args:
        text: as a file name shows it, or a user names it.
        field: 0 or 1.
        layout: as in `read_names`; None with a pattern.

    Returns:
        If it is a number by the rules of `read_names`, without leading zeros; otherwise the text.
    """
    if layout in (None, "folder"):
        return named.plain_number(text) if field else text
    return str(int(text)) if re.fullmatch(r"-?\d+", text) else text


def least_identity(layout: str | None) -> int:
    """The smallest number that names of a layout may show and that keeps its meaning as a pid."""
    rules = _LAYOUTS.get(layout or "", _LAYOUTS["folder"])
    return min(rules.junk + rules.distractors, default=1)


def _read_msmt17(root: str, folders: Sequence[str] | None, to_train: bool) -> Dataset:
    train, query, gallery = (
        Split(*split) for split in msmt17.read(root, folders, to_train=to_train)
    )
    # Test identities are called by the numbers in their lists, from 0.
    first = int(train.pids.max(initial=0)) + 1
    test = np.union1d(query.pids, gallery.pids).tolist()
    return Dataset(
        train,
        query,
        gallery,
        name="msmt17",
        root=root,
        sources=tuple(lists[0] for lists in msmt17.LISTS),
        identity_names={pid: str(pid - first) for pid in test},
    )


def _read_csv(root: str, folders: Sequence[str] | None, to_train: bool) -> Dataset:
    """The splits of a list."""
    if folders:
        raise ValueError("data.folders is not for the layout 'csv': the list names each file")
    if not os.path.isfile(root):
        what = "a folder" if os.path.isdir(root) else "no file"
        raise FileNotFoundError(
            f"data.root {root!r} is {what}: with data.layout=csv, it must be the CSV file"
        )
    paths, people = csv_list.read(root, to_train=to_train)
    identities.warn_of_people_0("csv", root, people)
    return named.dataset("csv", root, csv_list.SPLITS, paths, people)


def _read_folders(layout: str, rules: _Layout, root: str, to_train: bool) -> Dataset:
    """The splits of a layout of folders, and of file names or folders of people."""
    expression = file_names.compiled(rules.pattern, "data.pattern", cameras=False)
    _check_there(root, rules.folders if to_train else rules.folders[1:])
    paths, people = [], []
    for i, folder in enumerate(rules.folders):
        found = _split_images(root, folder, rules.folders) if i or to_train else []
        paths.append(found)
        place = os.path.join(root, folder)
        if layout != "people":
            people.append(file_names.who_are(expression, place, found))
        else:
            others = [os.path.join(root, other) for other in rules.folders]
            people.append(file_names.people_of_folders(place, found, others) if found else [])
    if layout in ("folder", "people"):
        identities.warn_of_people_0(layout, root, people)
        people = [[(pid, named.plain_number(camid)) for pid, camid in who] for who in people]
        return named.dataset(layout, root, rules.folders, paths, people)
    people = [[(str(int(pid)), str(int(camid))) for pid, camid in who] for who in people]
    above = int(not rules.distractors and any(pid == "0" for who in people for pid, _ in who))
    pid_numbers = {pid: int(pid) + above for who in people for pid, _ in who}
    camid_numbers = {camid: int(camid) for who in people for _, camid in who}
    splits = []
    for found, who in zip(paths, people, strict=True):
        pids = np.array([pid_numbers[pid] for pid, _ in who], np.int32)
        camids = np.array([camid_numbers[camid] for _, camid in who], np.int32)
        splits.append(Split(tuple(found), pids, camids))
    if rules.distractors:
        places = [os.path.join(root, folder) for folder in rules.folders]
        identities.warn_of_distractors(layout, places, people)
    else:
        identities.warn_of_people_0(layout, root, people)
    train, query, gallery = (
        split.take(~np.isin(split.pids, rules.junk + (rules.distractors if i == 0 else ())))
        for i, split in enumerate(splits)
    )
    return Dataset(
        train,
        query,
        gallery,
        name=layout,
        root=root,
        sources=rules.folders,
        identity_names={number: pid for pid, number in pid_numbers.items()},
        camera_names={number: camid for camid, number in camid_numbers.items()},
    )


def _check_there(root: str, folders: Sequence[str]) -> None:
    """Raise one FileNotFoundError for all folders below the root that are missing."""
    missing = [folder for folder in folders if not os.path.isdir(os.path.join(root, folder))]
    if missing:
        raise FileNotFoundError(
            f"no folder {' and no folder '.join(map(repr, missing))} in {root!r}, which holds "
            f"{_listing(root)}: data.folders names the folders of train, query and gallery"
        )


def _split_images(root: str, folder: str, folders: Sequence[str]) -> list[str]:
    """The images in a split's folder and below, without those of another split below it."""
    others = [os.path.join(root, other) for other in folders]
    return find_images(os.path.join(root, folder), "data.folders", but=others)


def _listing(root: str) -> str:
    folders = sorted(entry.name for entry in os.scandir(root) if os.path.isdir(entry.path))
    listed = ", ".join(map(shown, folders[:8])) + (", ..." if len(folders) > 8 else "")
    return listed or "no folders"


def check(dataset: Dataset, *, to_train: bool = True) -> None:
    """Raise ValueError if the data cannot be evaluated or, with `to_train`, trained on."""
    train, query, gallery = dataset.places()
    if to_train and dataset.train.num_identities < 2:
        raise ValueError(f"fewer than two identities to train on in {train}")

    cameras = collections.defaultdict(set)
    for pid, camid in zip(dataset.gallery.pids, dataset.gallery.camids, strict=True):
        cameras[pid].add(camid)
    queries = zip(dataset.query.pids, dataset.query.camids, strict=True)
    if not any(pid > DISTRACTOR and cameras[pid] - {camid} for pid, camid in queries):
        raise ValueError(
            f"no query in {query} has a match under another camera in {gallery}: evaluation needs "
            "identities seen by two cameras"
            if dataset.has_cameras
            else f"no query in {query} has a match in {gallery}: evaluation needs identities with "
            "an image in each"
        )


def _warn_of_shared_identities(dataset: Dataset) -> None:
    shared = len(np.intersect1d(dataset.train.pids, dataset.query.pids))
    if shared:
        train, query, _ = dataset.places()
        warn(
            f"in training and evaluation: {counted(shared, 'identity', 'identities')} of "
            f"{query} can be seen in {train}, so the scores flatter the network"
        )
