"""Folder layouts of re-ID data sets: which images there are, of whom, under which camera."""

import collections
import dataclasses
import os
import re
from collections.abc import Sequence

import numpy as np
from absl import logging

from reid_jax.choices import LAYOUTS, NAMED_LAYOUTS
from reid_jax.data import msmt17
from reid_jax.data.identities import DISTRACTOR, JUNK
from reid_jax.data.splits import Dataset, Split
from reid_jax.runtime.files import local_path
from reid_jax.runtime.messages import shown

_SUFFIXES = (".jpg", ".jpeg", ".png")
_STANDARD_FOLDERS = ("bounding_box_train", "query", "bounding_box_test")
_MULTI_QUERY = "gt_bbox"

#: Sub-folders of train, query and gallery in the layout `folder`, unless others are named.
FOLDERS = ("train", "query", "gallery")
#: File names of the layout `folder`, unless another pattern is given: `anna_c2_0001.jpg` is the
#: identity `anna` under camera `2`. A pattern is a regular expression with the groups `pid` and
#: `camid`, matched from the first character of the file name; each group may hold any text.
PATTERN = r"(?P<pid>[^_]+)_c(?P<camid>\d+)"


@dataclasses.dataclass(frozen=True)
class _Layout:
    """What tells one layout from another."""

    pattern: str
    folders: tuple[str, ...] = _STANDARD_FOLDERS  # of train, query and gallery
    junk: tuple[int, ...] = ()  # pids of boxes that the protocol ignores
    distractors: tuple[int, ...] = ()  # pids of boxes of nobody, for the gallery alone


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


def read(
    layout: str,
    root: str | os.PathLike,
    *,
    pattern: str | None = None,
    folders: Sequence[str] | None = None,
) -> Dataset:
    """Reads the file names of a data set; no image is opened.

    Of the files in a split's folder, those called .jpg, .jpeg or .png in any case are its images.
    Market-1501's junk boxes (pid -1) are dropped; its distractors (pid 0) stay in the gallery and
    never enter the training split.

    In the layouts `market1501`, `dukemtmc` and `cuhk03`, pids and camids are the numbers in the
    names. In `folder` they may be any text, numbered in sorted order over all splits together. In
    `msmt17` splits and identities are what lists say, with numbers as in `msmt17.read`.

    Args:
        layout: one of `LAYOUTS`.
        root: the folder that holds the splits' folders.
        pattern: layout `folder` only: what file names look like, as in `PATTERN`, its default.
        folders: layout `folder` only: sub-folders of train, query and gallery; default `FOLDERS`.

    Returns:
        The data set.

    Raises:
        FileNotFoundError: the root, a split's folder or a listed file does not exist.
        ValueError: the layout is unknown, the pattern is no regular expression with its groups, a
          folder holds no image, a name shows no identity or camera, there are fewer than two
          training identities, or no query has a match under another camera.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"unknown layout {layout!r} (data.layout); known: {', '.join(LAYOUTS)}")
    if layout != "folder" and (pattern or folders):
        raise ValueError(
            f"a pattern and folders are for the layout 'folder'; {layout!r} has its own"
        )
    root = local_path(root, "data.root")
    if not os.path.isdir(root):
        raise FileNotFoundError(f"no folder {root!r} (data.root)")
    if layout == "msmt17":
        splits = [Split(*split) for split in msmt17.read(root)]
        sources: Sequence[str] = [lists[0] for lists in msmt17.LISTS]
    else:
        rules = _LAYOUTS[layout]
        rules = dataclasses.replace(
            rules, pattern=pattern or rules.pattern, folders=tuple(folders or rules.folders)
        )
        splits = _read_folders(rules, root, numbered=layout != "folder")
        sources = rules.folders
    train, query, gallery = splits
    dataset = Dataset(train, query, gallery, name=layout, root=root, sources=tuple(sources))
    check(dataset)
    _warn_of_shared_identities(dataset)
    return dataset


def read_multi_query(dataset: Dataset) -> Split:
    """Reads which hand-drawn boxes of Market-1501 show a query's identity under its camera.

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
    names = _image_names(dataset.root, _MULTI_QUERY)
    fields = _parse(_LAYOUTS[dataset.name].pattern, folder, names)
    pids, camids = np.array([(int(pid), int(camid)) for pid, camid in fields], np.int32).T
    boxes = Split(tuple(os.path.join(folder, name) for name in names), pids, camids)
    check_multi_query(dataset, boxes)
    asked = set(_whose(dataset.query))
    return boxes.take([who in asked for who in _whose(boxes)])


def check_multi_query(dataset: Dataset, boxes: Split) -> None:
    """Raises ValueError where a query has no box of its identity under its camera."""
    there = set(_whose(boxes))
    queries = zip(dataset.query.paths, _whose(dataset.query), strict=True)
    lacking = [path for path, who in queries if who not in there]
    if lacking:
        folder = os.path.join(dataset.root, _MULTI_QUERY)
        raise ValueError(
            f"{len(lacking):,} of {len(dataset.query):,} queries have no image of their identity "
            f"under their camera in {folder!r}, the first of them {lacking[0]!r}"
        )


def _whose(split: Split) -> list[tuple[int, int]]:
    """The (pid, camid) of each image."""
    return list(zip(split.pids.tolist(), split.camids.tolist(), strict=True))


def read_extra(folder: str | os.PathLike) -> Split:
    """Finds more images for the gallery: distractors, pid 0 and camid 0 whatever their names say.

    Args:
        folder: with images in it or in folders below, called .jpg, .jpeg or .png in any case. For
            example the 500,000 distractors of Market-1501. Links to folders are followed, each
            folder once.

    Returns:
        All images, in the order of their paths.

    Raises:
        FileNotFoundError: the folder does not exist.
        ValueError: there is no image.
    """
    paths = find_images(folder, "--gallery-extra")
    nobody = np.zeros(len(paths), np.int32)
    return Split(tuple(paths), nobody, nobody)


def find_images(folder: str | os.PathLike, option: str) -> list[str]:
    """All images in a folder or in folders below, as `read_extra` finds them.

    Args:
        folder: where they are.
        option: by which it was named, for errors.

    Returns:
        Their paths, sorted.

    Raises:
        FileNotFoundError: the folder does not exist.
        ValueError: there is no image.
    """
    folder = local_path(folder, option)
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"no folder {folder!r} ({option})")
    paths, waiting, seen = [], [folder], set()
    while waiting:
        path = waiting.pop()
        status = os.stat(path)
        if (status.st_dev, status.st_ino) in seen:  # A link leads back, or two to one place.
            continue
        seen.add((status.st_dev, status.st_ino))
        folders = []
        with os.scandir(path) as entries:
            for entry in entries:
                if os.path.isdir(entry.path):
                    folders.append(entry.path)
                elif _is_image(entry.name):
                    paths.append(entry.path)
        waiting += sorted(folders, reverse=True)
    if not paths:
        raise ValueError(f"no image ({', '.join(_SUFFIXES)}) in or below {folder!r} ({option})")
    return sorted(paths)


def read_names(
    paths: Sequence[str],
    layout: str | None = None,
    pattern: str | None = None,
    option: str = "pattern",
) -> list[tuple[str, str] | None]:
    """Identities and cameras as the names of files show them, whatever folders they are in.

    Args:
        paths: N paths.
        layout: one of `choices.NAMED_LAYOUTS`; or None, with a pattern.
        pattern: as `PATTERN`.
        option: by which the pattern was given, for errors.

    Returns:
        The (pid, camid) of each, texts; numbers without leading zeros in layouts that have numbers.
        None where the name shows none.

    Raises:
        ValueError: the pattern is no regular expression with its groups, or the layout is unknown.
    """
    if pattern is None:
        if layout not in _LAYOUTS:
            known = ", ".join(NAMED_LAYOUTS)
            raise ValueError(f"unknown layout {layout!r}; supported layouts: {known}")
        expression = _compiled(_LAYOUTS[layout].pattern, option)
    else:
        expression = _compiled(pattern, option)
    numbered = pattern is None and layout != "folder"
    fields = [_match(expression, os.path.basename(path)) for path in paths]
    if numbered:
        fields = [who and (str(int(who[0])), str(int(who[1]))) for who in fields]
    return fields


def _read_folders(rules: _Layout, root: str, numbered: bool) -> list[Split]:
    """Train, query and gallery of a layout that tells them by folders and file names.

    Args:
        rules: the layout.
        root: the folder that holds the splits' folders.
        numbered: whether pids and camids are numbers in the names.
    """
    if len(rules.folders) != 3:
        raise ValueError(f"folders must name train, query and gallery, not {rules.folders}")
    names = [_image_names(root, folder) for folder in rules.folders]
    parsed = [
        _parse(rules.pattern, os.path.join(root, folder), split)
        for folder, split in zip(rules.folders, names, strict=True)
    ]
    if numbered:
        pid_numbers = camid_numbers = int
    else:
        pid_numbers, camid_numbers = (_numbering(parsed, field) for field in (0, 1))
    splits = []
    for folder, split, fields in zip(rules.folders, names, parsed, strict=True):
        pids = np.array([pid_numbers(pid) for pid, _ in fields], np.int32)
        camids = np.array([camid_numbers(camid) for _, camid in fields], np.int32)
        in_train = folder == rules.folders[0]
        keep = ~np.isin(pids, rules.junk + (rules.distractors if in_train else ()))
        paths = tuple(os.path.join(root, folder, name) for name in split)
        splits.append(Split(paths, pids, camids).take(keep))
    return splits


def _is_image(name: str) -> bool:
    # A leading dot marks the resource forks that macOS leaves beside the files: ._0002_c1s1.jpg
    return name.lower().endswith(_SUFFIXES) and not name.startswith(".")


def _image_names(root: str, folder: str) -> list[str]:
    """The image files in a split's folder, sorted."""
    path = os.path.join(root, folder)
    if not os.path.isdir(path):
        raise FileNotFoundError(f"no folder {folder!r} in {root!r}, which holds {_listing(root)}")
    names = sorted(filter(_is_image, os.listdir(path)))
    if not names:
        raise ValueError(f"no image ({', '.join(_SUFFIXES)}) in {path!r}")
    return names


def _listing(root: str) -> str:
    folders = sorted(entry.name for entry in os.scandir(root) if os.path.isdir(entry.path))
    listed = ", ".join(map(shown, folders[:8])) + (", ..." if len(folders) > 8 else "")
    return listed or "no folders"


def _parse(pattern: str, folder: str, names: Sequence[str]) -> list[tuple[str, str]]:
    """The (pid, camid) texts of file names."""
    expression = _compiled(pattern, "data.pattern")
    fields = []
    for name in names:
        who = _match(expression, name)
        if who is None:
            raise ValueError(
                f"no identity and camera in the name of {os.path.join(folder, name)!r}: "
                f"names must match {pattern!r}"
            )
        fields.append(who)
    return fields


def _compiled(pattern: str, option: str) -> re.Pattern:
    """The regular expression of a pattern that `option` gives."""
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{option} {pattern!r} is no regular expression: {error}") from None
    if not {"pid", "camid"} <= expression.groupindex.keys():
        raise ValueError(f"{option} {pattern!r} lacks the groups (?P<pid>...), (?P<camid>...)")
    return expression


def _match(expression: re.Pattern, name: str) -> tuple[str, str] | None:
    """The (pid, camid) texts of a file's name, or None."""
    match = expression.match(name)
    return (match["pid"], match["camid"]) if match and match["pid"] and match["camid"] else None


def _numbering(parsed: Sequence[Sequence[tuple[str, str]]], field: int):
    """A function from texts to numbers, one for all splits."""
    texts = sorted({fields[field] for split in parsed for fields in split})
    # From 1: 0 stands for distractors.
    return {text: number for number, text in enumerate(texts, start=1)}.__getitem__


def check(dataset: Dataset) -> None:
    """Raises ValueError where the data can neither be trained on nor evaluated."""
    train, query, gallery = (os.path.join(dataset.root, source) for source in dataset.sources)
    if dataset.train.num_identities < 2:
        raise ValueError(f"fewer than two identities to train on in {train!r}")

    cameras = collections.defaultdict(set)
    for pid, camid in zip(dataset.gallery.pids, dataset.gallery.camids, strict=True):
        cameras[pid].add(camid)
    queries = zip(dataset.query.pids, dataset.query.camids, strict=True)
    if not any(cameras[pid] - {camid} for pid, camid in queries):
        raise ValueError(
            f"no query in {query!r} has a match under another camera in {gallery!r}: "
            "evaluation needs identities seen by two cameras"
        )


def _warn_of_shared_identities(dataset: Dataset) -> None:
    shared = len(np.intersect1d(dataset.train.pids, dataset.query.pids))
    if shared:
        train, query, _ = (os.path.join(dataset.root, source) for source in dataset.sources)
        logging.warning(
            "%d identities of %r are in %r too: figures will flatter the network",
            shared,
            query,
            train,
        )
