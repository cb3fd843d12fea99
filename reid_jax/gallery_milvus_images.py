"""The images of a `MilvusGallery`: adding, labelling, replacing and removing them."""

import os
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from reid_jax.gallery_milvus_store import BATCH, Index, Store, batches, key_of, keys_in
from reid_jax.gallery_rows import (
    Integers,
    as_descriptors,
    as_integers,
    as_names,
    check_finite,
    check_named,
    check_origin,
    per_image,
)
from reid_jax.runtime.messages import counted, shown


class MilvusImages:
    """N images in a collection of a Milvus database, see `gallery_milvus.MilvusGallery`."""

    def __init__(
        self,
        uri: str | os.PathLike[str],
        collection: str = "gallery",
        *,
        index: str | None = None,
        metric: str | None = None,
        index_params: dict[str, Any] | None = None,
        search_params: dict[str, Any] | None = None,
        origin: str = "",
        token: str = "",
    ):
        check_origin(origin)
        self._lock, self._last = threading.RLock(), 0
        # Milvus takes these names in any case, and stores capitals.
        kind, metric = index and index.upper(), metric and metric.upper()
        how = Index(kind, metric, index_params or {}, search_params or {})
        self._store = Store(os.fsdecode(uri), collection, how, origin, token)

    def __repr__(self) -> str:
        numbers = counted(self.dim, "number")
        images = counted(len(self), "image")
        return f"<MilvusGallery of {images}, {numbers} each, in {self._store.place}>"

    def __len__(self) -> int:
        return self._store.count()

    @property
    def dim(self) -> int:
        """D, the length of the descriptors; 0 before the first images are added."""
        return self._store.dim

    @property
    def origin(self) -> str:
        """The source of the descriptors."""
        return self._store.origin

    @property
    def names(self) -> tuple[str, ...]:
        """N texts, in the order in which the images were added."""
        return tuple(row["name"] for row in self._store.everything())

    def close(self) -> None:
        """End the connection, so that another process can open an embedded database."""
        self._store.close()

    def add(
        self,
        features: ArrayLike,
        *,
        pids: Integers | None = None,
        camids: Integers | None = None,
        names: Sequence[str | os.PathLike[str]] | None = None,
    ) -> None:
        """Add images, or replace those with the same names, in batches of up to 1,000.

        Arguments and errors are those of `Gallery.add`. After a ValueError, the gallery is
        unchanged; after an OSError, a whole number of batches is stored: repeat the call.
        """
        rows = as_descriptors(features)
        check_finite(rows)
        texts = as_names(names, len(rows))
        _check_texts(texts)
        labels = per_image(pids, len(rows), "pids"), per_image(camids, len(rows), "camids")
        with self._lock:
            if len(rows) and not self.dim:
                self._store.create(rows.shape[1])
            self._check_dim(rows, "descriptors")
            keys = [key_of(text) for text in texts]
            for first in range(0, len(rows), BATCH):
                part = range(first, min(first + BATCH, len(rows)))
                there = self._store.get([keys[i] for i in part if texts[i]])
                self._last = max(self._last + 1, time.time_ns())
                self._store.upsert(
                    [
                        {
                            "key": keys[i],
                            "name": texts[i],
                            "row": there.get(keys[i], {"row": self._last + i - first})["row"],
                            "pid": int(labels[0][i]),
                            "camid": int(labels[1][i]),
                            "vector": rows[i],
                        }
                        for i in part
                    ]
                )
                self._last += len(part)

    def label(self, *, pids: Integers | None = None, camids: Integers | None = None) -> None:
        """Change identities or cameras of all images, as `Gallery.label` does."""
        with self._lock:
            keys = [row["key"] for row in self._store.everything()]
            self._write(
                keys,
                {
                    field: per_image(given, len(keys), f"{field}s")
                    for field, given in (("pid", pids), ("camid", camids))
                    if given is not None
                },
            )

    def update(
        self,
        features: ArrayLike,
        *,
        names: Sequence[str | os.PathLike[str]],
        pids: Integers | None = None,
        camids: Integers | None = None,
    ) -> None:
        """Replace the descriptors of the images with these names, as `Gallery.update` does."""
        rows = as_descriptors(features)
        check_finite(rows)
        texts = as_names(names, len(rows))
        columns: dict[str, np.ndarray] = {"vector": rows}
        for field, given in (("pid", pids), ("camid", camids)):
            if given is not None:
                columns[field] = per_image(given, len(rows), f"{field}s")
        with self._lock:
            keys = self._keys(texts, once=True)
            self._check_dim(rows, "descriptors")
            self._write(keys, columns)

    def remove(
        self,
        *,
        names: Sequence[str | os.PathLike[str]] | None = None,
        identities: Integers | None = None,
        cameras: Integers | None = None,
        not_cameras: Integers | None = None,
    ) -> int:
        """Remove the images that pass all filters that are given, as `Gallery.remove` does."""
        filters = filters_of(identities, cameras, not_cameras)
        if names is None and not filters:
            raise ValueError("remove needs names, identities, cameras or not_cameras")
        with self._lock:
            chosen = [filters]
            if names is not None:
                parts = batches(self._keys(as_names(names)))
                chosen = [[keys_in(part), *filters] for part in parts]
            removed = 0
            for expressions in chosen if self.dim else []:
                expression = " and ".join(expressions)
                if count := self._store.count(expression):
                    self._store.delete(expression)
                    removed += count
        return removed

    def _check_dim(self, features: np.ndarray, what: str) -> None:
        if self.dim and features.shape[1] != self.dim:
            raise ValueError(
                f"{what} of {features.shape[1]} numbers do not match this gallery's images, of "
                f"{self.dim}, in {self._store.place}: describe all images with the same network"
            )

    def _keys(self, names: list[str], *, once: bool = False) -> list[str]:
        """Return the keys of images with some names; raise ValueError as `check_named`."""
        keys = {name: key_of(name) for name in names}
        there = self._store.get([key for name, key in keys.items() if name])
        check_named(names, {name: int(key in there) for name, key in keys.items()}, once)
        return list(keys.values())

    def _write(self, keys: list[str], columns: dict[str, np.ndarray]) -> None:
        """Replace fields of the rows with some keys."""
        places = list(range(len(keys)))
        for part in batches(places):
            rows = self._store.get([keys[i] for i in part], vectors="vector" not in columns)
            if missing := len(part) - len(rows):
                raise OSError(
                    f"{self._store.place}: another program replaced or removed "
                    f"{counted(missing, 'image')} of this call: repeat it"
                )
            self._store.upsert(
                [
                    rows[keys[i]]
                    | {
                        field: column[i] if field == "vector" else int(column[i])
                        for field, column in columns.items()
                    }
                    for i in part
                ]
            )


def _check_texts(names: list[str]) -> None:
    """Raise ValueError if names cannot be stored, or one is given twice."""
    seen = set()
    for name in filter(None, names):
        if name in seen:
            raise ValueError(f"names holds {shown(name)} twice; in Milvus, each is one image's")
        seen.add(name)
        try:
            name.encode()
        except UnicodeEncodeError:
            raise ValueError(f"the name {shown(name)} is not text: rename the file") from None


def filters_of(
    identities: Integers | None, cameras: Integers | None, not_cameras: Integers | None
) -> list[str]:
    """The expressions of the filters that are given."""
    return [
        f"{field} {word} {as_integers(chosen, label).tolist()}"
        for field, word, chosen, label in (
            ("pid", "in", identities, "identities"),
            ("camid", "in", cameras, "cameras"),
            ("camid", "not in", not_cameras, "not_cameras"),
        )
        if chosen is not None
    ]
