"""The images that a search finds in a gallery, also as rows of a JSON or a CSV file."""

import csv
import io
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from reid_jax.evaluation.descriptor_sets import Descriptors
from reid_jax.evaluation.ranking import nearest
from reid_jax.evaluation.reranking import AVERAGED, NEIGHBOURS, k_reciprocal
from reid_jax.runtime.files import local_path, write_text_atomically
from reid_jax.runtime.messages import shown

#: Endings of the files that `Hits.save` writes.
SUFFIXES = (".json", ".csv")

_COLUMNS = ("query", "rank", "name", "pid", "camid", "distance")


class Hits(NamedTuple):
    """The result of a search in a gallery: row i belongs to query i, nearest first.

    If there are fewer than k images to find for a query, the row is filled up with index -1, an
    infinite distance, identity and camera -1, and the name "". With re-ranking, a row is in the
    order of the re-ranked distances, so that its Euclidean distances may also decrease.

    Attributes:
        indices: int32 (Q, k), the places of the images in the gallery at the time of the search; of
            a `MilvusGallery` int64, large numbers in the order of adding.
        distances: float32 (Q, k), Euclidean.
        pids: int64 (Q, k), identities.
        camids: int64 (Q, k), cameras.
        names: Q tuples of k texts.
    """

    indices: np.ndarray
    distances: np.ndarray
    pids: np.ndarray
    camids: np.ndarray
    names: tuple[tuple[str, ...], ...]

    def within(self, distance: float) -> "Hits":
        """Keep the hits up to a distance; the end of each row is as if there were no more images.

            hits = gallery.search(model.embed("who.jpg")).within(model.threshold(fpr=1e-3))

        Raises:
            ValueError: the distance is negative or not a number.
        """
        if not distance >= 0:
            raise ValueError(f"distance is {distance}; it must be a number of at least 0")
        distance = float(distance)  # NumPy compares its own float64 more exactly than float32.
        # Re-ranked rows may have a near image after a far one.
        order = np.argsort(self.distances > distance, axis=1, kind="stable")
        fields = [np.take_along_axis(field, order, axis=1) for field in self[:4]]
        near = fields[1] <= distance
        names = tuple(
            tuple(row[i] if kept else "" for i, kept in zip(places, flags, strict=True))
            for row, places, flags in zip(self.names, order.tolist(), near.tolist(), strict=True)
        )
        indices, distances, pids, camids = (
            np.where(near, field, field.dtype.type(missing))
            for field, missing in zip(fields, (-1, np.inf, -1, -1), strict=True)
        )
        return Hits(indices, distances, pids, camids, names)

    def rows(self, queries: Sequence[Any] | None = None) -> list[dict[str, Any]]:
        """Return the images found, one dictionary each: query, rank, name, pid, camid, distance.

            for row in hits.rows(queries=["who.jpg"]):
                print(row["rank"], row["name"], row["distance"])

        Args:
            queries: a name for each of the Q queries; None numbers them from 0.

        Raises:
            ValueError: there are not Q names, or they are one text.
        """
        if isinstance(queries, str | bytes):
            raise ValueError("queries must be several names, one per query, got a single text")
        labels = range(len(self.names)) if queries is None else queries
        if len(labels) != len(self.names):
            raise ValueError(f"queries must be {len(self.names)} names, got {len(labels)}")
        rows = zip(labels, *(field.tolist() for field in self[:4]), self.names, strict=True)
        return [
            dict(zip(_COLUMNS, (query, rank, name, pid, camid, distance), strict=True))
            for query, *columns in rows
            for rank, (i, distance, pid, camid, name) in enumerate(zip(*columns, strict=True), 1)
            if i >= 0
        ]

    def save(self, path: str | os.PathLike[str], queries: Sequence[Any] | None = None) -> None:
        """Write `rows` into a JSON file (a list) or a CSV file (with a header), by its ending.

            hits.save("hits.csv", queries=["who.jpg"])

        Its folder is created if necessary, and an existing file is replaced.

        Raises:
            OSError: it cannot be written.
            ValueError: as `rows`, or the file has another ending than .json and .csv.
        """
        write_rows(path, self.rows(queries))


def write_rows(path: str | os.PathLike[str], rows: Sequence[dict[str, Any]]) -> None:
    """Write rows of `Hits.rows`, see `Hits.save`."""
    path = pathlib.Path(local_path(path, "the file of the hits"))
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{shown(path)} must end in {' or '.join(SUFFIXES)}")
    text = io.StringIO()
    if path.suffix.lower() == ".json":
        json.dump(rows, text, indent=1, default=_plain)
        text.write("\n")
    else:
        writer = csv.DictWriter(_Lines(text), _COLUMNS)
        writer.writeheader()
        for row in rows:
            query = row["query"]
            writer.writerow(
                row | {"query": os.fsdecode(query) if isinstance(query, bytes) else query}
            )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text_atomically(path, text.getvalue(), unique=True)


class _Lines:
    """A file of a CSV writer, whose lines end with a line feed.

    The writer itself ends them with a carriage return too, because it quotes a text that holds a
    character of the line's end.
    """

    def __init__(self, text: io.StringIO):
        self._text = text

    def write(self, line: str) -> None:
        self._text.write(line.removesuffix("\r\n") + "\n")


def _plain(query: Any) -> Any:
    """Convert the name of a query, a path or a NumPy number, for JSON."""
    return query.item() if isinstance(query, np.generic) else os.fsdecode(query)


def reranked(query: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Order the candidates of one query by k-reciprocal re-ranking, see `evaluation.reranking`.

    With fewer candidates than the method's 20 neighbours, it uses as many as there are.

    Args:
        query: float32 (D,).
        candidates: float32 (n, D), nearest first.

    Returns:
        int64 (n,), places among the candidates. Equally near ones keep their order.
    """
    count = len(candidates)
    if count < 2:
        return np.arange(count)
    nobody = np.zeros(count, np.int64)
    query_set = Descriptors(query[None], nobody[:1], nobody[:1])
    candidate_set = Descriptors(candidates, nobody, nobody)
    k1, k2 = min(NEIGHBOURS, count), min(AVERAGED, count + 1)
    rescore = k_reciprocal(query_set, candidate_set, k1=k1, k2=k2)
    return nearest(query_set, candidate_set, count, rescore=rescore)[0][0].astype(np.int64)
