"""The content of a report, as arrays and texts, independent of HTML."""

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from reid_jax.evaluation.descriptors import pmap_face
from reid_jax.evaluation.evaluator import Evaluator
from reid_jax.runtime.devices import memory_set_by
from reid_jax.runtime.messages import printable, shown
from reid_jax.runtime.progress import Progress, Tracker


@dataclasses.dataclass(frozen=True, eq=False)
class Summary:
    """The head of a report.

    Attributes:
        title: title of the page.
        facts: what was evaluated, as names and texts.
        scores: for each dataset, by its name, the names of scores and their values in per cent. If
            there is only one, its name is not shown.
        charts: headings for screen readers, and `svg` elements.
    """

    title: str
    facts: Sequence[tuple[str, str]]
    scores: Mapping[str, Mapping[str, float]]
    charts: Sequence[tuple[str, str]]


@dataclasses.dataclass(frozen=True, eq=False)
class Images:
    """Images of one kind, with their identities and cameras.

    Attributes:
        names: N texts, printable.
        pids: int (N,).
        camids: int (N,).
    """

    names: Sequence[str]
    pids: np.ndarray
    camids: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Lists:
    """Queries, their ranked lists, and their activation maps.

    Attributes:
        query: Q images.
        gallery: T images, those that are in some list.
        found: int32 (Q, k), nearest first, indices into `gallery`; -1 if there are fewer than k.
        distances: float32 (Q, k), the values that order the lists.
        average_precision: float (Q,), NaN for a query without a match.
        ranks: Q arrays of int, the ranks of each query's matches, ascending.
        stages: S names, empty if the network has no Grad-CAM.
        maps: uint8 (Q, S, h, w), each scaled by its own maximum.
        missed: int32 (Q,), the first match of a query if its list holds no match, as an index into
            `gallery`; otherwise -1.
        missed_distances: float32 (Q,), the values that order these.
        identities: what identities are called, by pid, if not by their pids.
        cameras: likewise cameras, by camid; "" if they are not known.
    """

    query: Images
    gallery: Images
    found: np.ndarray
    distances: np.ndarray
    average_precision: np.ndarray
    ranks: Sequence[np.ndarray]
    stages: Sequence[str]
    maps: np.ndarray
    missed: np.ndarray
    missed_distances: np.ndarray
    identities: Mapping[int, str] = dataclasses.field(default_factory=dict)
    cameras: Mapping[int, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        count, shape = len(self.query.names), np.shape(self.found)
        same = {len(self.query.pids), len(self.query.camids), len(self.average_precision)}
        same |= {len(self.ranks), len(self.maps), shape[0]}
        same |= {len(self.missed), len(self.missed_distances)}
        if same != {count}:
            raise ValueError(f"{count} queries do not match arrays of {sorted(same)} rows")
        if self.distances.shape != shape or self.maps.shape[1] != len(self.stages):
            raise ValueError(
                f"found {shape}, distances {self.distances.shape}, maps {self.maps.shape} and "
                f"{len(self.stages)} stages do not match"
            )


def hardest_first(average_precision: np.ndarray) -> np.ndarray:
    """The order of queries by ascending average precision, ties by index.

    Queries without a match, whose average precision is NaN, come last.
    """
    return np.argsort(average_precision, kind="stable")


def listed(found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The gallery images in any of the lists, each once, and the lists as indices into these.

    Args:
        found: int (Q, k) indices into the gallery, -1 for none.

    Returns:
        Ascending indices into the gallery, (T,), and int32 (Q, k) indices into those, -1 for none.
    """
    distinct = np.unique(found[found >= 0])
    positions = np.searchsorted(distinct, found)
    return distinct, np.where(found >= 0, positions, -1).astype(np.int32)


def names(paths: Sequence[str], root: str | os.PathLike) -> list[str]:
    """Paths as a page shows them: relative to the root if they are inside it, and printable."""
    root = os.path.join(os.fspath(root), "")
    return [printable(path.removeprefix(root)) for path in paths]


def called(numbers: np.ndarray, name: Callable[[int], str]) -> dict[int, str]:
    """What numbers are called, printable, if not by themselves."""
    every = {number: printable(name(number)) for number in np.unique(numbers).tolist()}
    return {number: text for number, text in every.items() if text != str(number)}


def gradcam_maps(evaluator: Evaluator, variables: Any, progress: Progress = None) -> np.ndarray:
    """Compute Grad-CAM of all queries, batch by batch, keeping a few bytes of each query.

    Args:
        evaluator: holds the images and a network that classifies.
        variables: {"params", "batch_stats"}.
        progress: called with progress messages; None disables them.

    Returns:
        (Q, S, h, w) uint8, each map scaled by its own maximum.

    Raises:
        ValueError: a map is not finite. The message names the image.
    """
    paths = evaluator.dataset.query.paths
    count = len(paths)
    batch_size = min(evaluator.batch_size, evaluator.round_up(count))
    face = pmap_face(evaluator.network, evaluator.devices, "gradcams")
    parts = []
    tracking = Tracker(progress, count, "made Grad-CAM of", "query", "queries")
    with memory_set_by("eval.batch_size"), tracking as tracker:
        for start in range(0, count, batch_size):
            # One shape means one compilation: the last image is repeated, and its maps are dropped.
            indices = np.minimum(np.arange(start, start + batch_size), count - 1)
            maps = np.asarray(face(variables, evaluator.query_pixels(indices)))[: count - start]
            finite = np.isfinite(maps).all(axis=(1, 2, 3))
            if not finite.all():
                bad = paths[start + int(np.argmin(finite))]
                raise ValueError(
                    f"Grad-CAM of {shown(bad)} is not finite: the network has diverged"
                )
            parts.append(_as_bytes(maps))
            tracker.update(min(start + batch_size, count))
    return np.concatenate(parts)


def _as_bytes(maps: np.ndarray) -> np.ndarray:
    """Scale maps (..., h, w), not negative, by their maxima to 0 to 255. Zero maps stay zero."""
    largest = maps.max(axis=(-2, -1), keepdims=True)
    scaled = maps / np.maximum(largest, np.finfo(np.float32).tiny)
    return np.round(255 * scaled).astype(np.uint8)
