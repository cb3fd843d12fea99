"""One collection of a Milvus database: requests, and errors of one line.

Fields of a row:
    key: VARCHAR, primary: the SHA-256 of the name, or a random number of an unnamed image.
    name: VARCHAR.
    row: INT64, larger for images that were added later.
    pid, camid: INT64.
    vector: FLOAT_VECTOR, the descriptor.
"""

import hashlib
import uuid
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from reid_jax.gallery_milvus_connection import Connection, one_line

#: Rows of one request, some megabytes.
BATCH = 1000

#: The most images that Milvus finds for a query.
MOST = 16384

# Rows of one page of all rows, without vectors.
_PAGE = 10_000
# Queries of one request.
_QUERIES = 64
# How often a search is sent while its images are being replaced.
_TRIES = 20
# Requests at the same time: most of a server's answer is waiting for its latest changes.
_THREADS = 8
# The numbers of one message, 16 MiB: a server sends and takes up to 64 MiB by default. A row
# without its vector counts as _ROW numbers.
_MESSAGE, _ROW = 2**22, 64
# The embedded database subtracts all queries of a request from all images of a segment, which has
# up to 100,000, at once: the float32 numbers of one request.
_SEGMENT, _NUMBERS = 100_000, 2**27

_LABELS = ("row", "pid", "camid", "name")
_FIELDS = ("key", *_LABELS, "vector")
# Where Milvus has no defaults of its own.
_INDEX_PARAMS = {"HNSW": {"M": 16, "efConstruction": 200}, "IVF": {"nlist": 128}}


class Index(NamedTuple):
    """How Milvus finds candidates; None means FLAT and L2, or those of an existing collection."""

    kind: str | None
    metric: str | None
    build: dict[str, Any]
    search: dict[str, Any]


class _Closed:
    """The client of a connection that was ended."""

    def __init__(self, place: str):
        self._place = place

    def __getattr__(self, name: str) -> Any:
        raise ValueError(f"{self._place} was closed: open it again")


class Store:
    """A collection, which is created with its first rows.

    Attributes:
        place: the database and the collection, for messages.
        threads: how many requests are worth sending at the same time.
        dim: the length of the descriptors; 0 if there is no collection yet.
        index: its index.
        origin: the source of the descriptors.
    """

    def __init__(self, uri: str, collection: str, index: Index, origin: str, token: str):
        self.index, self.origin = index, origin
        self._connection, self._collection = Connection(uri, token), collection
        self._client, self._embedded = self._connection.client, self._connection.embedded
        self.place = f"collection {collection!r} of {self._connection.shown}"
        self.threads = 1 if self._embedded else _THREADS
        self._dim = self._unindexed = 0
        try:
            self._read()
        except Exception:
            self.close()
            raise

    def close(self) -> None:
        """End the connection. Another process may open an embedded database after the last one."""
        self._connection.close()
        self._client = _Closed(self.place)

    @property
    def dim(self) -> int:
        """The length of the descriptors; 0 if there is no collection yet."""
        if not self._dim:  # Another program may have created it.
            self._read()
        return self._dim

    def create(self, dim: int) -> None:
        """Create the collection for descriptors of a length, or its index if that is missing."""
        from pymilvus import DataType

        kind, metric, build, _ = self.index
        kind, metric = kind or "FLAT", metric or "L2"
        with one_line(self.place):
            if not self._client.has_collection(self._collection):
                schema = self._client.create_schema(auto_id=False, description=self.origin)
                schema.add_field("key", DataType.VARCHAR, max_length=64, is_primary=True)
                schema.add_field("name", DataType.VARCHAR, max_length=65535)
                for field in ("row", "pid", "camid"):
                    schema.add_field(field, DataType.INT64)
                schema.add_field("vector", DataType.FLOAT_VECTOR, dim=dim)
                # The embedded database keeps no description.
                more: dict = {"properties": {"origin": self.origin}} if self._embedded else {}
                self._client.create_collection(
                    self._collection, schema=schema, consistency_level="Strong", **more
                )
            if not self._client.list_indexes(self._collection):
                indexes = self._client.prepare_index_params()
                params = _INDEX_PARAMS.get(kind.partition("_")[0], {}) | build
                indexes.add_index("vector", index_type=kind, metric_type=metric, params=params)
                self._client.create_index(self._collection, indexes)
        self._read()

    def upsert(self, rows: list[dict[str, Any]]) -> None:
        """Write rows; those with the same key are replaced."""
        with one_line(self.place):
            for part in batches(rows, self._rows):
                self._client.upsert(self._collection, part)
        self._unindexed += len(rows)

    def delete(self, expression: str) -> None:
        """Delete the rows that an expression selects."""
        with one_line(self.place):
            self._client.delete(self._collection, filter=expression)

    def count(self, expression: str = "") -> int:
        """Count the rows that an expression selects."""
        if not self.dim:
            return 0
        with one_line(self.place):
            return self._query(expression, ["count(*)"])[0]["count(*)"]

    def get(self, keys: list[str], *, vectors: bool = False) -> dict[str, dict[str, Any]]:
        """Return the rows with some keys, by key, with or without their vectors."""
        fields = [*_FIELDS] if vectors else [*_FIELDS[:-1]]
        found: dict[str, dict[str, Any]] = {}
        if self.dim:
            with one_line(self.place):
                for part in batches(keys, self._rows):
                    rows = self._query(keys_in(part), fields)
                    found.update((row["key"], {f: row[f] for f in fields}) for row in rows)
        return found

    def everything(self) -> list[dict[str, Any]]:
        """Return all rows without their vectors, in the order in which they were added."""
        rows: list[dict[str, Any]] = []
        if self.dim and self._embedded:  # It has no iterators and no limit.
            with one_line(self.place):
                rows.extend(self._query("row >= 0", [*_FIELDS[:-1]]))
        elif self.dim:
            with one_line(self.place):
                pages = self._client.query_iterator(
                    self._collection, batch_size=_PAGE, filter="", output_fields=[*_FIELDS[:-1]]
                )
                while page := pages.next():
                    rows.extend(page)
                pages.close()
        return sorted(rows, key=lambda row: row["row"])

    @property
    def _rows(self) -> int:
        """The most rows of one message, with vectors."""
        return max(1, _MESSAGE // (self.dim + _ROW))

    @property
    def queries(self) -> int:
        """The most queries of one request."""
        if not self._embedded:
            return _QUERIES
        with one_line(self.place):
            count = int(self._client.get_collection_stats(self._collection)["row_count"])
        numbers = min(count, _SEGMENT) * self.dim
        return max(1, min(_QUERIES, _NUMBERS // max(numbers, 1)))

    def search(self, queries: np.ndarray, limit: int, expression: str) -> list[list[dict]]:
        """Return the rows of each query's candidates, with vectors, for queries (Q, D)."""
        size = max(1, self._rows // limit)
        if len(queries) > size:
            parts = (queries[i : i + size] for i in range(0, len(queries), size))
            return [rows for part in parts for rows in self.search(part, limit, expression)]
        for _ in range(_TRIES):
            with one_line(self.place):
                found = self._candidates(queries, limit, expression)
            if found is not None:
                return found
        raise OSError(f"{self.place}: its images are being replaced all the time: search again")

    def _candidates(
        self, queries: np.ndarray, limit: int, expression: str
    ) -> list[list[dict]] | None:
        """Search once; None if images that were found were replaced or removed meanwhile."""
        from pymilvus.exceptions import MilvusException

        params, separate = dict(self.index.search), limit > self._rows
        if self.index.kind == "HNSW":
            params["ef"] = max(limit, params.get("ef", 64))
        if self._embedded and self._unindexed >= BATCH:
            # It converts rows that are not yet in a segment one by one for each search.
            self._client.flush(self._collection)
            self._unindexed = 0
        try:
            found = self._client.search(
                self._collection,
                data=list(queries),
                limit=limit,
                filter=expression,
                output_fields=["key"] if separate else [*_LABELS, "vector"],
                search_params={"metric_type": self.index.metric, "params": params},
                consistency_level="Strong",
            )
        except MilvusException as error:
            # A server looks up the vectors after the search.
            if "incomplete query result" in error.message:
                return None
            raise
        if not separate:
            return [[hit["entity"] for hit in hits] for hits in found]
        keys = [[hit["entity"]["key"] for hit in hits] for hits in found]
        rows = [list(self.get(some, vectors=True).values()) for some in keys]
        return rows if [*map(len, rows)] == [*map(len, keys)] else None

    def _query(self, expression: str, fields: list[str]) -> list[dict[str, Any]]:
        return self._client.query(
            self._collection,
            filter=expression,
            output_fields=fields,
            consistency_level="Strong",
        )

    def _read(self) -> None:
        """Read what an existing collection holds, and compare it with what was asked for."""
        with one_line(self.place):
            if not self._client.has_collection(self._collection):
                return
            described = self._client.describe_collection(self._collection)
            fields = {field["name"]: field["params"] for field in described["fields"]}
            if not fields.keys() >= set(_FIELDS):
                raise ValueError(
                    f"{self.place} was not written by MilvusGallery: it has the fields "
                    f"{', '.join(sorted(fields))}; name another collection"
                )
            if not self._client.list_indexes(self._collection):
                return  # The program that created it was stopped, or is about to create the index.
            self._client.load_collection(self._collection)
            index = self._client.describe_index(self._collection, "vector")
        kind, metric = index["index_type"], index["metric_type"]
        origin = described.get("properties", {}).get("origin", described["description"])
        asked = {"index": self.index.kind, "metric": self.index.metric, "origin": self.origin}
        _check_asked(self.place, asked, {"index": kind, "metric": metric, "origin": origin})
        self.index = self.index._replace(kind=kind, metric=metric)
        self._dim, self.origin = int(fields["vector"]["dim"]), origin or self.origin


def _check_asked(place: str, asked: dict[str, str | None], own: dict[str, str]) -> None:
    """Raise ValueError if an existing collection has something else than what was asked for."""
    for name, wanted in asked.items():
        if wanted and own[name] and wanted != own[name]:
            raise ValueError(
                f"{place} has the {name} {own[name]!r}, not {wanted!r}: leave {name} out, or "
                "name another collection"
            )


def key_of(name: str) -> str:
    """The key of an image: that of its name, or a new one if it has none."""
    return (
        hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
        if name
        else uuid.uuid4().hex
    )


def keys_in(keys: Iterable[str]) -> str:
    """The expression that selects some keys."""
    listed = ", ".join(f'"{key}"' for key in keys)
    return f"key in [{listed}]"


def batches(items: list, most: int = BATCH) -> Iterator[list]:
    """Yield consecutive parts of a list, for one request each, of at most so many items."""
    size = min(most, BATCH)
    for first in range(0, len(items), size):
        yield items[first : first + size]
