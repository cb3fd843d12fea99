"""Datasets whose people and cameras have names: the numbers of names, and data without cameras."""

import collections
import os
import re
from collections.abc import Sequence

import numpy as np

from reid_jax.data.splits import Dataset, Split
from reid_jax.runtime.messages import counted, printable, warn

#: The identity and the camera of an image; the camera is "" if it is not known.
Who = tuple[str, str]


def dataset(
    layout: str,
    root: str,
    sources: Sequence[str],
    paths: Sequence[Sequence[str]],
    people: Sequence[Sequence[Who]],
) -> Dataset:
    """Number the names of people and cameras, in sorted order over all splits together.

    If no image has a camera, `has_cameras` is False, and each file is a camera of its own. The
    protocol, which ignores gallery images of the query's identity and camera, then ignores only the
    query's own file. Links to one file are that file.

    Args:
        layout: the name of the layout.
        root: as `Dataset.root`.
        sources: as `Dataset.sources`.
        paths: the paths of train, query and gallery.
        people: the identity and the camera of each, the camera as `plain_number` gives it. It is
            "" for all images or for no image.
    """
    pid_numbers = _numbering(people, 0)
    warn_of_zeros(people)
    has_cameras = any(camid for split in people for _, camid in split)
    if has_cameras:
        camid_numbers = _numbering(people, 1)
        camids = [[camid_numbers[camid] for _, camid in split] for split in people]
    else:
        camid_numbers, camids = {}, _file_numbers(paths)
    train, query, gallery = (
        Split(
            tuple(found),
            np.array([pid_numbers[pid] for pid, _ in who], np.int32),
            np.array(numbers, np.int32),
        )
        for found, who, numbers in zip(paths, people, camids, strict=True)
    )
    return Dataset(
        train,
        query,
        gallery,
        name=layout,
        root=root,
        sources=tuple(sources),
        identity_names={number: pid for pid, number in pid_numbers.items()},
        camera_names={number: camid for camid, number in camid_numbers.items()},
        has_cameras=has_cameras,
    )


def plain_number(camera: str) -> str:
    """A camera's name; if it is a number, without leading zeros: 1 and 01 are one camera."""
    return (camera.lstrip("0") or "0") if re.fullmatch("[0-9]+", camera) else camera


def _numbering(people: Sequence[Sequence[Who]], field: int) -> dict[str, int]:
    """Numbers of names, one for all splits."""
    names = sorted({who[field] for split in people for who in split})
    # From 1, because 0 is the number of distractors.
    return {name: number for number, name in enumerate(names, start=1)}


def _file_numbers(paths: Sequence[Sequence[str]]) -> list[list[int]]:
    """The number of each path's file, from 1; equal for links to one file."""
    numbers: dict[object, int] = {}
    return [
        [numbers.setdefault(_file(path), len(numbers) + 1) for path in split] for split in paths
    ]


def _file(path: str) -> object:
    try:
        status = os.stat(path)
    except OSError:  # The loader reports unreadable files.
        return path
    return status.st_dev, status.st_ino


def warn_of_zeros(people: Sequence[Sequence[Who]]) -> None:
    """Warn of names that differ only in leading zeros of their numbers, such as c1 and c01."""
    for field, nouns in enumerate((("identity", "identities"), ("camera", "cameras"))):
        _warn_of_zeros(people, field, *nouns)


def _warn_of_zeros(people: Sequence[Sequence[Who]], field: int, noun: str, plural: str) -> None:
    images = collections.Counter(who[field] for split in people for who in split)
    alike = collections.defaultdict(list)
    for name in sorted(images):
        alike[re.sub(r"(?<![0-9])0+(?=[0-9])", "", name)].append(name)
    groups = [names for names in alike.values() if len(names) > 1]
    if groups:
        few = "; ".join(
            " and ".join(f"{printable(name)} ({counted(images[name], 'image')})" for name in names)
            for names in groups[:3]
        )
        more = f"; and {counted(len(groups) - 3, 'more group')}" if len(groups) > 3 else ""
        warn(
            f"names that differ only in leading zeros are different {plural}: {few}{more}. Give "
            f"each {noun} one name if they are the same"
        )
