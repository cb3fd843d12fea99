"""The images of a dataset in three splits: train, query and gallery."""

import dataclasses
import os
from collections.abc import Mapping, Sequence

import numpy as np

from reid_jax.runtime.messages import shown


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """The images of one split, in the order of their file names.

    Attributes:
        paths: N paths.
        pids: (N,) int32, the identity of each.
        camids: (N,) int32, the camera of each.
        skipped: the path of each omitted bad file, and its problem; see `skipping`.
    """

    paths: tuple[str, ...]
    pids: np.ndarray
    camids: np.ndarray
    skipped: tuple[tuple[str, str], ...] = ()

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, keep: Sequence[bool] | np.ndarray) -> "Split":
        """Keep the images for which `keep` (N,) is True."""
        chosen = np.flatnonzero(keep)
        return dataclasses.replace(
            self,
            paths=tuple(self.paths[i] for i in chosen),
            pids=self.pids[chosen],
            camids=self.camids[chosen],
        )

    @property
    def labels(self) -> np.ndarray:
        """(N,) int32: the identities renumbered 0 to C - 1 in the order of their pids."""
        return np.unique(self.pids, return_inverse=True)[1].astype(np.int32)

    @property
    def num_identities(self) -> int:
        """C, the number of identities."""
        return len(np.unique(self.pids))


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """The three splits of a dataset.

    Attributes:
        train: images to learn from.
        query: images to search with.
        gallery: images to search.
        name: the name of the layout.
        root: the folder or the CSV file that they were read from.
        sources: the folder or list of each split below the root, or its name in the CSV file.
        identity_names: texts by pid, where identities are not called by their pids.
        camera_names: texts by camid, likewise.
        has_cameras: whether cameras are known. If not, each file has a camid of its own.
    """

    train: Split
    query: Split
    gallery: Split
    name: str
    root: str
    sources: tuple[str, ...]
    identity_names: Mapping[int, str] = dataclasses.field(default_factory=dict)
    camera_names: Mapping[int, str] = dataclasses.field(default_factory=dict)
    has_cameras: bool = True

    def identity(self, pid: int) -> str:
        """What the identity is called."""
        return self.identity_names.get(int(pid), str(pid))

    def camera(self, camid: int) -> str:
        """What the camera is called; "" if cameras are not known."""
        if not self.has_cameras:
            return ""
        return self.camera_names.get(int(camid), str(camid))

    @property
    def folder(self) -> str:
        """The folder in which names of files are relative: the root, or the CSV file's folder."""
        return os.path.dirname(self.root) if self.name == "csv" else self.root

    def places(self) -> list[str]:
        """The places of train, query and gallery, for messages."""
        if self.name == "csv":
            return [f"split {source} of {shown(self.root)}" for source in self.sources]
        return [shown(os.path.join(self.root, source)) for source in self.sources]

    @property
    def skipped(self) -> tuple[tuple[str, str], ...]:
        """The skipped files of all three splits."""
        return self.train.skipped + self.query.skipped + self.gallery.skipped
