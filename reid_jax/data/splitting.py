"""Train, query and gallery made from a folder of photographs, by identity."""

import collections
import contextlib
import os
import pathlib
import shutil
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from reid_jax.data import file_names, named
from reid_jax.data.image_files import find_images
from reid_jax.data.layouts import FOLDERS, PATTERN
from reid_jax.runtime.files import local_path, new_folder
from reid_jax.runtime.messages import counted, shown

_TRAIN, _QUERY, _GALLERY = range(3)


class Photographs(NamedTuple):
    """The images of a folder.

    Attributes:
        folder: holds them.
        layout: `people` if it has a folder for each person, otherwise `folder`.
        paths: N paths, sorted.
        people: the identity and the camera of each; cameras are "" if they are not known.
    """

    folder: str
    layout: str
    paths: list[str]
    people: list[named.Who]

    @property
    def has_cameras(self) -> bool:
        """Whether cameras are known."""
        return bool(self.people[0][1])


def read(folder: str | os.PathLike, pattern: str | None = None) -> Photographs:
    """Find the images of a folder, and whom they show.

    Args:
        folder: with a folder for each person; or, if an image lies in it directly or there is a
            pattern, with names of files that show the identity.
        pattern: of these names, as `layouts.PATTERN`, which is the default.

    Raises:
        FileNotFoundError: the folder does not exist.
        ValueError: it has no image, a name shows no identity, or a person's folder has no image.
    """
    folder = local_path(folder, "FOLDER")
    paths = find_images(folder, "FOLDER")
    loose = [path for path in paths if os.sep not in os.path.relpath(path, folder)]
    layout = "people" if pattern is None and not loose else "folder"
    if layout == "people":
        people = file_names.people_of_folders(folder, paths)
    else:
        expression = file_names.compiled(pattern or PATTERN, "--pattern", cameras=False)
        try:
            people = file_names.who_are(expression, folder, paths)
        except ValueError as error:
            if pattern is not None or len(loose) == len(paths):
                raise
            raise ValueError(
                f"{error}. If FOLDER has a folder for each person, move {loose[0]!r} into one"
            ) from None
        people = [(pid, named.plain_number(camid)) for pid, camid in people]
    named.warn_of_zeros([people])
    return Photographs(folder, layout, paths, people)


def divide(
    people: Sequence[named.Who], *, train: float = 0.5, queries: int = 1, seed: int = 0
) -> np.ndarray:
    """Choose the split of each image.

    People can be searched for if they have images under two cameras, or two images if cameras are
    not known. A share of them is for training: at least two, and all but one at most. So is the
    same share of the others, except those with one image. All the rest is for the test: a few
    images of each person and camera are queries if the person can be searched for, and the others
    are the gallery. At least one image of each camera stays in the gallery; a person with one image
    under each camera has one query.

    Args:
        people: the identity and the camera of each of N images.
        train: the share of identities to train on, above 0 and below 1.
        queries: query images of each identity and camera.
        seed: chooses people and queries.

    Returns:
        (N,) int64: 0 for train, 1 for query, 2 for gallery.

    Raises:
        ValueError: there would be fewer than two identities to train on, or no query.
    """
    rng = np.random.default_rng(seed)
    images: dict[str, dict[str, list[int]]] = collections.defaultdict(dict)
    for i, (pid, camid) in enumerate(people):
        images[pid].setdefault(camid, []).append(i)
    if len(images) < 3:
        raise ValueError(
            f"images of {' and '.join(map(repr, images))} only: a split needs at least three "
            "people, two to train on and one to search for"
        )
    wanted = searchable(people)
    several = sorted(pid for pid in images if sum(map(len, images[pid].values())) > 1)
    splits, taught, asked = np.full(len(people), _GALLERY), 0, 0
    for group in ([p for p in several if p in wanted], [p for p in several if p not in wanted]):
        count = int(train * len(group) + 0.5)
        if group and group[0] in wanted:
            count = min(max(count, 2), len(group) - 1)
        for place, i in enumerate(rng.permutation(len(group))):
            cameras = [images[group[i]][camid] for camid in sorted(images[group[i]])]
            if place < count:
                splits[np.concatenate(cameras)] = _TRAIN
                taught += 1
            elif group[i] in wanted:
                splits[_queries(cameras, queries, rng)] = _QUERY
                asked += 1
    if taught < 2 or not asked:
        raise ValueError(
            f"only {counted(len(wanted), 'person has', 'people have')} two images, under two "
            "cameras if cameras are known: a split needs two such people to train on and one to "
            "search for"
        )
    return splits


def searchable(people: Sequence[named.Who]) -> set[str]:
    """The identities with images under two cameras, or two images if cameras are not known."""
    seen: dict[str, list[str]] = collections.defaultdict(list)
    for pid, camid in people:
        if not camid or camid not in seen[pid]:
            seen[pid].append(camid)
    return {pid for pid, cameras in seen.items() if len(cameras) > 1}


def _queries(cameras: list[list[int]], count: int, rng: np.random.Generator) -> list[int]:
    """Choose the queries of a person from the images under each camera."""
    chosen = [rng.permutation(images)[: min(count, len(images) - 1)] for images in cameras]
    every = np.concatenate(chosen)
    return (every if len(every) else rng.choice(np.concatenate(cameras), 1)).tolist()


def write(photographs: Photographs, splits: np.ndarray, out: str | os.PathLike) -> bool:
    """Write the folders `train`, `query` and `gallery`, completely or not at all.

    Names below them are those below the folder of the photographs.

    Args:
        photographs: N images.
        splits: (N,), as from `divide`.
        out: the folder to make.

    Returns:
        Whether the images are relative symbolic links. If the file system has none, they are
        copies.

    Raises:
        OSError: `out` exists and is not empty, or cannot be written to.
        ValueError: `out` lies in the folder of the photographs.
    """
    folder = os.path.realpath(photographs.folder)
    if os.path.commonpath([folder, os.path.realpath(local_path(out, "OUT"))]) == folder:
        raise ValueError(
            f"OUT {shown(out)} lies in FOLDER {shown(photographs.folder)}, whose images would then "
            "be found twice: choose another OUT"
        )
    linked = True
    with new_folder(out) as draft:
        for path, split in zip(photographs.paths, splits.tolist(), strict=True):
            below = os.path.relpath(path, photographs.folder)
            place = draft / FOLDERS[split] / below
            place.parent.mkdir(parents=True, exist_ok=True)
            linked = linked and _link(os.path.join(folder, below), place)
            if not linked:
                shutil.copyfile(path, place)
    return linked


def _link(path: str, place: pathlib.Path) -> bool:
    """Make a relative symbolic link, if the file system allows it."""
    with contextlib.suppress(OSError, ValueError, NotImplementedError):
        place.symlink_to(os.path.relpath(path, place.parent))
        return True
    return False


def identities(photographs: Photographs, splits: np.ndarray) -> int:
    """The number of identities to train on."""
    return len({photographs.people[i][0] for i in np.flatnonzero(splits == _TRAIN)})


def described(photographs: Photographs, splits: np.ndarray) -> str:
    """Identities and images of each split, and identities that are in the gallery only."""
    people = photographs.people
    cameras = "without cameras"
    if photographs.has_cameras:
        cameras = f"under {counted(len({camid for _, camid in people}), 'camera')}"
    lines = [f"{shown(photographs.folder)}, {cameras}:"]
    rows = [("all", people)]
    for number, name in enumerate(FOLDERS):
        rows.append((name, [people[i] for i in np.flatnonzero(splits == number)]))
    for name, whom in rows:
        identities = counted(len({pid for pid, _ in whom}), "identity", "identities")
        lines.append(f"  {name:<8}{identities:>18}{counted(len(whom), 'image'):>18}")
    query, gallery = ({pid for pid, _ in whom} for _, whom in rows[2:])
    unasked = len(gallery - query)
    if unasked:
        why = "under one camera only" if photographs.has_cameras else "with one image"
        lines.append(f"only in the gallery: {counted(unasked, 'identity', 'identities')} {why}")
    return "\n".join(lines)
