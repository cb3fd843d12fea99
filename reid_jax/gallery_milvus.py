"""A gallery in a Milvus database: one in a folder of this machine, or a server.

    import reid_jax

    gallery = reid_jax.MilvusGallery("people.db")
    gallery.add(model.embed(paths), names=paths)
    hits = gallery.search(model.embed("who.jpg"), k=5)

Milvus finds candidates; their distances are then computed from the stored float32 numbers, and
ordered, as by `Gallery`.
"""

import collections
import concurrent.futures
from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike

from reid_jax.evaluation.distances import squared_distances
from reid_jax.gallery_hits import Hits, reranked
from reid_jax.gallery_milvus_images import MilvusImages, filters_of
from reid_jax.gallery_milvus_store import MOST
from reid_jax.gallery_rows import (
    Integers,
    as_descriptors,
    check_finite,
    check_query_labels,
    per_image,
)
from reid_jax.runtime.counts import as_count

# Candidates beyond those that are asked for.
_MORE = 32

# Twice a bound on the error of Milvus' float32 squared distances, in units of the squared length.
_SLACK = 1e-5


class MilvusGallery(MilvusImages):
    """A `Gallery` in a collection of a Milvus database, which keeps every change.

        gallery = reid_jax.MilvusGallery("people.db")  # embedded, for one process at a time
        gallery = reid_jax.MilvusGallery("http://localhost:19530", "people", index="HNSW")

    Names are unique: adding a name again replaces the image, so an addition that was stopped can be
    repeated. Images without a name are always new ones.

    Args:
        uri: path of the embedded database, which ends in .db, or address of a server.
        collection: its name; it is created with the first images.
        index: how candidates are found, as Milvus names it. None means FLAT, which is exact, for a
            new collection, and its own for an existing one.
        metric: by what candidates are found: L2 (the default, likewise), IP or COSINE. Hits are
            ordered by Euclidean distance for all metrics.
        index_params: parameters of the index, such as ``{"M": 32}``.
        search_params: parameters of each search, such as ``{"nprobe": 32}``.
        origin: the source of the descriptors, stored with a new collection.
        token: password of a server, ``user:password`` or a key.

    Raises:
        ImportError: the extra `milvus` is not installed.
        OSError: there is no server, or another process holds the database.
        ValueError: the collection has another index, metric or origin, or other fields; or `origin`
            is not a text.
    """

    def search(
        self,
        features: ArrayLike,
        k: int = 10,
        *,
        pids: Integers | None = None,
        camids: Integers | None = None,
        own_camera: bool = True,
        identities: Integers | None = None,
        cameras: Integers | None = None,
        not_cameras: Integers | None = None,
        rerank: bool = False,
        candidates: int = 200,
    ) -> Hits:
        """Find the k nearest images of each query, as `Gallery.search` does.

        Milvus applies the filters. k, and `candidates` with `rerank`, are at most 16,384. Indices
        of the hits are int64 and larger for images that were added later.
        """
        rows = as_descriptors(features)
        k, candidates = as_count(k, "k"), as_count(candidates, "candidates")
        for name, number in (("k", k), ("candidates", candidates)):
            if number > MOST:
                raise ValueError(f"{name} must be at least 1 and at most {MOST}, got {number}")
        check_query_labels(pids, camids, own_camera)
        labels = per_image(pids, len(rows), "pids"), per_image(camids, len(rows), "camids")
        check_finite(rows)
        self._check_dim(rows, "queries")
        shared = ["pid != -1", *filters_of(identities, cameras, not_cameras)]
        groups: dict[str, list[int]] = {}
        for i, (pid, camid) in enumerate(zip(*labels, strict=True)):
            own = [] if own_camera else [f"camid != {camid}"]
            if own_camera and pids is not None and pid > 0:
                own = [f"(pid != {pid} or camid != {camid})"]
            groups.setdefault(" and ".join(shared + own), []).append(i)
        found: list[list[dict]] = [[] for _ in rows]
        wanted = max(k, candidates) if rerank else k
        size = self._store.queries if self.dim else 1
        jobs = [
            (members[first : first + size], expression)
            for expression, members in (groups if self.dim else {}).items()
            for first in range(0, len(members), size)
        ]

        def answer(job: tuple[list[int], str]) -> None:
            part, expression = job
            for i, near in zip(part, self._nearest(rows[part], wanted, expression), strict=True):
                found[i] = _ordered(rows[i], near, rerank)[:k]

        with concurrent.futures.ThreadPoolExecutor(self._store.threads) as pool:
            collections.deque(pool.map(answer, jobs), maxlen=0)
        return _hits(found, k)

    def _nearest(self, queries: np.ndarray, k: int, expression: str) -> list[list[dict]]:
        """Return rows of each query's k nearest images, ordered by float64 distances."""
        limit = min(k + _MORE, MOST)
        while True:
            near, decided = [], True
            for query, rows in zip(
                queries, self._store.search(queries, limit, expression), strict=True
            ):
                vectors = np.array([row["vector"] for row in rows], np.float32)
                squared = squared_distances(query, vectors) if rows else np.empty(0)
                order = np.lexsort((np.array([row["row"] for row in rows]), squared))
                if len(rows) == limit and limit > k:
                    # An image beyond the candidates may tie with the last that is wanted, or be
                    # nearer by less than a rounding error.
                    last = squared[order[k - 1]]
                    length = 2 * np.linalg.norm(query.astype(np.float64)) + np.sqrt(last)
                    decided &= bool(squared[order[-1]] > last + _SLACK * length**2)
                near.append([rows[i] | {"squared": squared[i]} for i in order[:k]])
            if decided or limit == MOST or self._store.index[:2] != ("FLAT", "L2"):
                return near
            limit = min(4 * limit, MOST)


def _ordered(query: np.ndarray, rows: list[dict], rerank: bool) -> list[dict]:
    """One query's rows without vectors, re-ranked if that is asked for."""
    order: Iterable[int] = range(len(rows))
    if rerank and rows:
        order = reranked(query, np.array([row["vector"] for row in rows], np.float32))
    fields = ("row", "pid", "camid", "name", "squared")
    return [{field: rows[place][field] for field in fields} for place in order]


def _hits(found: list[list[dict]], k: int) -> Hits:
    """The hits of at most k rows of each query."""
    shape = len(found), k
    indices, pids, camids = (np.full(shape, -1, np.int64) for _ in range(3))
    distances, names = np.full(shape, np.inf, np.float32), []
    for i, rows in enumerate(found):
        for array, field in ((indices, "row"), (pids, "pid"), (camids, "camid")):
            array[i, : len(rows)] = [row[field] for row in rows]
        distances[i, : len(rows)] = np.sqrt([row["squared"] for row in rows])
        names.append((*(row["name"] for row in rows), *[""] * (k - len(rows))))
    return Hits(indices, distances, pids, camids, tuple(names))
