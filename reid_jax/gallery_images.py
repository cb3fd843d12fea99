"""The images of a `Gallery`: adding, labelling, replacing and removing them."""

import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from reid_jax.evaluation.distances import Index
from reid_jax.gallery_rows import (
    Integers,
    Rows,
    as_descriptors,
    as_names,
    check_finite,
    passing,
    per_image,
)


class Images(Rows):
    """N images that can be changed. A change is made completely or, if an error is raised, not.

    Arrays that were returned earlier never change.
    """

    def __init__(self):
        super().__init__()
        self._index: Index | None = None

    def add(
        self,
        features: ArrayLike,
        *,
        pids: Integers | None = None,
        camids: Integers | None = None,
        names: Sequence[str] | None = None,
    ) -> None:
        """Add images after the existing ones. If an error is raised, the gallery is unchanged.

            gallery.add(model.embed(paths), names=paths)
            gallery.add(model.embed(crops), pids=[7, 7, 12], camids=2)

        Args:
            features: numbers (N, D), or (D,) for one image; float32 is stored unchanged.
            pids: identities, N integers or one for all. None means 0 for all, an unknown person (a
                distractor in re-ID datasets). -1 is junk, which no search finds.
            camids: cameras, N integers or one for all. None means 0 for all.
            names: N texts or paths that identify the images. None means "" for all.

        Raises:
            ValueError: shapes or dtypes disagree, D is not that of the existing images, a
                descriptor is not finite or longer than 1e18, or labels or names are a set, which
                has no order.
        """
        rows = as_descriptors(features)
        count = len(rows)
        check_finite(rows)
        labels = per_image(pids, count, "pids"), per_image(camids, count, "camids")
        texts = as_names(names, count)
        with self._lock:
            self._check_dim(rows, "descriptors")
            if count and self._append(rows, *labels, texts):
                self._index = None  # It would keep the old arrays in memory.

    def label(
        self,
        *,
        pids: Integers | None = None,
        camids: Integers | None = None,
    ) -> None:
        """Change identities or cameras. If an error is raised, the gallery is unchanged.

            gallery.label(pids=[7, 7, 12])

        Args:
            pids: as in `add`, for all N images; None leaves them unchanged.
            camids: likewise.

        Raises:
            ValueError: as `add`.
        """
        with self._lock:
            count = len(self)
            labels = [self.pids, self.camids]
            for i, (given, name) in enumerate(((pids, "pids"), (camids, "camids"))):
                if given is not None:
                    labels[i] = per_image(given, count, name)
            self._relabel(*labels)
            self._index = None

    def update(
        self,
        features: ArrayLike,
        *,
        names: Sequence[str | os.PathLike[str]],
        pids: Integers | None = None,
        camids: Integers | None = None,
    ) -> None:
        """Replace the descriptors of the images with these names, which keep their places.

            gallery.update(model.embed(paths), names=paths)

        It copies all descriptors: update many images at once.

        Args:
            features: as in `add`.
            names: N names of images in the gallery.
            pids: new identities, N integers or one for all; None leaves them unchanged.
            camids: new cameras, likewise.

        Raises:
            ValueError: as `add`, or there is not exactly one image of each name.
        """
        rows = as_descriptors(features)
        check_finite(rows)
        texts = as_names(names, len(rows))
        labels = [
            given if given is None else per_image(given, len(rows), label)
            for given, label in ((pids, "pids"), (camids, "camids"))
        ]
        with self._lock:
            places = self._places(texts, once=True)
            self._check_dim(rows, "descriptors")
            self._replace(places, rows, *labels)
            self._index = None

    def remove(
        self,
        *,
        names: Sequence[str | os.PathLike[str]] | None = None,
        identities: Integers | None = None,
        cameras: Integers | None = None,
        not_cameras: Integers | None = None,
    ) -> int:
        """Remove the images that pass all filters that are given, and return their number.

            gallery.remove(names=["anna.jpg", "bert.jpg"])
            gallery.remove(identities=[7, 12], not_cameras=3)

        The images after them move up. It copies the other descriptors: remove many images at once.

        Args:
            names: remove only images with these names, all of each name.
            identities: as in `search`.
            cameras: likewise.
            not_cameras: likewise.

        Raises:
            ValueError: no filter is given, or no image has one of the names.
        """
        if all(chosen is None for chosen in (names, identities, cameras, not_cameras)):
            raise ValueError("remove needs names, identities, cameras or not_cameras")
        texts = None if names is None else as_names(names)
        with self._lock:
            gone = passing(self._images(), identities, cameras, not_cameras)
            if gone is None:
                gone = np.ones(len(self), bool)
            if texts is not None:
                named = np.zeros(len(self), bool)
                named[self._places(texts)] = True
                gone &= named
            if gone.any():
                self._keep(~gone)
                self._index = None
        return int(np.count_nonzero(gone))
