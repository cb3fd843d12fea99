"""One collection of a Milvus database: requests, and errors of one line.

Fields of a row:
    key: VARCHAR, primary: the SHA-256 of the name, or a random number of an unnamed image.
    name: VARCHAR.
    row: INT64, larger for images that were added later.
    pid, camid: INT64.
    vector: FLOAT_VECTOR, the descriptor.
"""

import collections
import contextlib
import fcntl
import hashlib
import logging
import os
import pathlib
import threading
import uuid
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from reid_jax.runtime.files import local_path
from reid_jax.runtime.messages import shown

#: Rows of one request, some megabytes.
BATCH = 1000

#: The most images that Milvus finds for a query.
MOST = 16384

# Queries of one request.
_QUERIES = 64
# The embedded database subtracts all queries of a request from all images of a segment, which has
# up to 100,000, at once: the float32 numbers of one request.
_SEGMENT, _NUMBERS = 100_000, 2**27

_INSTALL = "python -m pip install -e '.[milvus]', in the checkout"
# How many stores of this process have an embedded database open, by its path.
_open: collections.Counter[str] = collections.Counter()
_lock = threading.Lock()

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


class Store:
    """A collection, which is created with its first rows.

    Attributes:
        place: the database and the collection, for messages.
        dim: the length of the descriptors; 0 if there is no collection yet.
        index: its index.
        origin: the source of the descriptors.
    """

    def __init__(self, uri: str, collection: str, index: Index, origin: str, token: str):
        self.place = f"collection {collection!r} of {shown(uri)}"
        self.dim, self.index, self.origin = 0, index, origin
        self._unindexed = 0
        self._embedded, self._collection = "://" not in uri, collection
        with _lock:
            self._client = _connect(uri, self._embedded, token)
            self._path = os.path.abspath(os.path.expanduser(uri)) if self._embedded else None
            _open[self._path or uri] += 1
        try:
            with self._errors():
                self._read()
        except Exception:
            self.close()
            raise

    def close(self) -> None:
        """End the connection. Another process may open an embedded database after the last one."""
        self._client.close()
        path, self._path = self._path, None
        with _lock:
            if path is not None:
                _open[path] -= 1
                if not _open[path]:
                    from milvus_lite.server_manager import server_manager_instance

                    server_manager_instance.release_server(path)

    def create(self, dim: int) -> None:
        """Create the collection for descriptors of a length."""
        from pymilvus import DataType

        kind, metric, build, _ = self.index
        kind, metric = kind or "FLAT", metric or "L2"
        with self._errors():
            schema = self._client.create_schema(auto_id=False, description=self.origin)
            schema.add_field("key", DataType.VARCHAR, max_length=64, is_primary=True)
            schema.add_field("name", DataType.VARCHAR, max_length=65535)
            for field in ("row", "pid", "camid"):
                schema.add_field(field, DataType.INT64)
            schema.add_field("vector", DataType.FLOAT_VECTOR, dim=dim)
            indexes = self._client.prepare_index_params()
            params = _INDEX_PARAMS.get(kind.partition("_")[0], {}) | build
            indexes.add_index("vector", index_type=kind, metric_type=metric, params=params)
            # The embedded database keeps no description.
            more: dict = {"properties": {"origin": self.origin}} if self._embedded else {}
            self._client.create_collection(
                self._collection,
                schema=schema,
                index_params=indexes,
                consistency_level="Strong",
                **more,
            )
            self._read()

    def upsert(self, rows: list[dict[str, Any]]) -> None:
        """Write rows; those with the same key are replaced."""
        with self._errors():
            self._client.upsert(self._collection, rows)
        self._unindexed += len(rows)

    def delete(self, expression: str) -> None:
        """Delete the rows that an expression selects."""
        with self._errors():
            self._client.delete(self._collection, filter=expression)

    def count(self, expression: str = "") -> int:
        """Count the rows that an expression selects."""
        if not self.dim:
            return 0
        with self._errors():
            return self._query(expression, ["count(*)"])[0]["count(*)"]

    def get(self, keys: list[str], *, vectors: bool = False) -> dict[str, dict[str, Any]]:
        """Return the rows with some keys, by key, with or without their vectors."""
        fields = [*_FIELDS] if vectors else [*_FIELDS[:-1]]
        found: dict[str, dict[str, Any]] = {}
        if self.dim:
            with self._errors():
                for part in batches(keys):
                    rows = self._query(keys_in(part), fields)
                    found.update((row["key"], {f: row[f] for f in fields}) for row in rows)
        return found

    def everything(self) -> list[dict[str, Any]]:
        """Return all rows without their vectors, in the order in which they were added."""
        rows: list[dict[str, Any]] = []
        if self.dim and self._embedded:  # It has no iterators and no limit.
            with self._errors():
                rows.extend(self._query("row >= 0", [*_FIELDS[:-1]]))
        elif self.dim:
            with self._errors():
                pages = self._client.query_iterator(
                    self._collection, batch_size=BATCH, filter="", output_fields=[*_FIELDS[:-1]]
                )
                while page := pages.next():
                    rows.extend(page)
                pages.close()
        return sorted(rows, key=lambda row: row["row"])

    @property
    def queries(self) -> int:
        """The most queries of one request."""
        if not self._embedded:
            return _QUERIES
        with self._errors():
            count = int(self._client.get_collection_stats(self._collection)["row_count"])
        numbers = min(count, _SEGMENT) * self.dim
        return max(1, min(_QUERIES, _NUMBERS // max(numbers, 1)))

    def search(self, queries: np.ndarray, limit: int, expression: str) -> list[list[dict]]:
        """Return the rows of each query's candidates, with vectors, for queries (Q, D)."""
        params = dict(self.index.search)
        if self.index.kind == "HNSW":
            params["ef"] = max(limit, params.get("ef", 64))
        with self._errors():
            if self._embedded and self._unindexed >= BATCH:
                # It converts rows that are not yet in a segment one by one for each search.
                self._client.flush(self._collection)
                self._unindexed = 0
            found = self._client.search(
                self._collection,
                data=list(queries),
                limit=limit,
                filter=expression,
                output_fields=[*_LABELS, "vector"],
                search_params={"metric_type": self.index.metric, "params": params},
                consistency_level="Strong",
            )
        return [[hit["entity"] for hit in hits] for hits in found]

    def _query(self, expression: str, fields: list[str]) -> list[dict[str, Any]]:
        return self._client.query(
            self._collection,
            filter=expression,
            output_fields=fields,
            consistency_level="Strong",
        )

    def _read(self) -> None:
        """Read what an existing collection holds, and compare it with what was asked for."""
        if not self._client.has_collection(self._collection):
            return
        self._client.load_collection(self._collection)
        described = self._client.describe_collection(self._collection)
        fields = {field["name"]: field["params"] for field in described["fields"]}
        if not fields.keys() >= set(_FIELDS):
            raise ValueError(
                f"{self.place} was not written by MilvusGallery: it has the fields "
                f"{', '.join(sorted(fields))}; name another collection"
            )
        index = self._client.describe_index(self._collection, "vector")
        kind, metric = index["index_type"], index["metric_type"]
        origin = described.get("properties", {}).get("origin", described["description"])
        for name, asked, own in (
            ("index", self.index.kind, kind),
            ("metric", self.index.metric, metric),
            ("origin", self.origin, origin),
        ):
            if asked and own and asked != own:
                raise ValueError(
                    f"{self.place} has the {name} {own!r}, not {asked!r}: leave {name} out, or "
                    "name another collection"
                )
        self.index = self.index._replace(kind=kind, metric=metric)
        self.dim, self.origin = int(fields["vector"]["dim"]), origin or self.origin

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Raise OSError of one line for errors of Milvus."""
        from pymilvus.exceptions import MilvusException

        try:
            yield
        except MilvusException as error:
            raise OSError(f"{self.place}: {_line(error)}") from None


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


def batches(items: list) -> Iterator[list]:
    """Yield consecutive parts of a list, for one request each."""
    for first in range(0, len(items), BATCH):
        yield items[first : first + BATCH]


def _connect(uri: str, embedded: bool, token: str) -> Any:
    """Connect to a server, or open an embedded database.

    Raises:
        ImportError: pymilvus, or for an embedded database milvus-lite, is not installed.
        OSError: there is no server, or the database cannot be opened.
        ValueError: the path does not end in .db.
    """
    try:
        import pymilvus

        if embedded:
            import milvus_lite  # noqa: F401
    except ImportError as error:
        raise ImportError(f"MilvusGallery needs {error.name}: {_INSTALL}") from None
    # They print tracebacks of errors that are raised, or that the client expects.
    for library in ("pymilvus", "milvus_lite", "grpc._server"):
        logging.getLogger(library).setLevel(logging.CRITICAL)
    path = pathlib.Path(local_path(uri, "the Milvus database")) if embedded else None
    if path is not None:
        if path.suffix != ".db":
            raise ValueError(
                f"the Milvus database {shown(uri)} is neither the address of a server, such as "
                "http://localhost:19530, nor a path that ends in .db"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        return pymilvus.MilvusClient(str(path) if path else uri, token=token, timeout=10)
    except pymilvus.exceptions.MilvusException as error:
        if path is None:
            raise ConnectionError(f"no Milvus server at {shown(uri)}: {_line(error)}") from None
        if _is_held(path):
            raise OSError(
                f"another process holds the Milvus database {shown(path)}: close it there, or run "
                "a server for several processes"
            ) from None
        raise OSError(f"{shown(path)} is no Milvus database: {_line(error)}") from None


def _is_held(path: pathlib.Path) -> bool:
    """Whether a process has an embedded database open."""
    try:
        with (path / "LOCK").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _line(error: Any) -> str:
    return " ".join(str(getattr(error, "message", error)).split())
