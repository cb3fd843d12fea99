"""Several datasets: their names, and their training images as one split."""

import collections
from collections.abc import Sequence

import numpy as np

from reid_jax.data.splits import Dataset, Split


def names(datasets: Sequence[Dataset]) -> list[str]:
    """A short name for each dataset: its layout; `people-2` for the second of a layout.

    They do not depend on folders, so a run keeps them if its data move.
    """
    seen: collections.Counter[str] = collections.Counter()
    found = []
    for dataset in datasets:
        seen[dataset.name] += 1
        number = seen[dataset.name]
        found.append(dataset.name if number == 1 else f"{dataset.name}-{number}")
    return found


def join(splits: Sequence[Split]) -> Split:
    """Join splits of different datasets, which share no person and no camera.

    Identities and cameras are numbered from 1, split after split, in the order of their numbers in
    each. A single split is returned unchanged.

    Args:
        splits: at least one split. Identities are people: no distractors, no junk.
    """
    if len(splits) == 1:
        return splits[0]
    return Split(
        paths=tuple(path for split in splits for path in split.paths),
        pids=_apart([split.pids for split in splits]),
        camids=_apart([split.camids for split in splits]),
        skipped=tuple(image for split in splits for image in split.skipped),
    )


def sources(splits: Sequence[Split]) -> np.ndarray:
    """(N,) int32: for each image of the joined splits, the index of its split."""
    return np.repeat(np.arange(len(splits), dtype=np.int32), [len(split) for split in splits])


def _apart(numbers: Sequence[np.ndarray]) -> np.ndarray:
    """Numbers from 1 for the values of each array; no two arrays share a number."""
    first, found = 1, []
    for values in numbers:
        distinct, places = np.unique(values, return_inverse=True)
        found.append(first + places)
        first += len(distinct)
    return np.concatenate(found).astype(np.int32)
