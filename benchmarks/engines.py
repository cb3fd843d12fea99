"""What `gallery.py` measures: `Gallery`, `MilvusGallery` embedded and on a server, and FAISS.

Each engine adds descriptors with their numbers, and finds the numbers of the nearest ones. It keeps
its files in a folder of its own.
"""

import importlib.util
import os
import pathlib
import time
import uuid

import numpy as np

import reid_jax

CAMERAS = 7
# Cells of FAISS' inverted file, those that a search reads, and descriptors per cell to train on.
CELLS, PROBES, TRAINED = 1024, 16, 40
# The variable with the address of a Milvus server.
SERVER = "REID_JAX_MILVUS"


class Exact:
    """`reid_jax.Gallery`. The first search computes its index."""

    needs = ()
    filters = {  # noqa: RUF012
        "one camera": {"cameras": 3},
        "other cameras": {"camids": 3, "own_camera": False},
    }

    def __init__(self, folder: pathlib.Path, images: int, dim: int):
        self.gallery, self.path = reid_jax.Gallery(), folder / "gallery"

    def add(self, features: np.ndarray, numbers: np.ndarray) -> None:
        """Add descriptors (N, D) with their numbers (N,)."""
        self.gallery.add(features, camids=numbers % CAMERAS, names=_names(numbers))

    def search(self, queries: np.ndarray, k: int, **filters) -> np.ndarray:
        """Find the numbers (Q, k) of the nearest descriptors."""
        return self.gallery.search(queries, k, **filters).indices

    def save(self) -> None:
        """Write the files and release the memory."""
        self.gallery.save(self.path)
        self.gallery = None

    def load(self) -> None:
        """Read the files."""
        self.gallery = reid_jax.Gallery.load(self.path)

    def end(self) -> None:
        """Release what outlives the folder."""


class Milvus(Exact):
    """`reid_jax.MilvusGallery` with an embedded database and the default parameters."""

    needs = ("pymilvus", "milvus_lite")
    filters = {}  # noqa: RUF012
    kind = "FLAT"

    def __init__(self, folder: pathlib.Path, images: int, dim: int):
        self.path = folder / "gallery.db"
        self.load()

    def index(self) -> None:
        """Wait until each segment has its index, which a thread of the database writes."""
        self.gallery.search(np.zeros(self.gallery.dim), 1)  # Writes the last images into a segment.
        while _stems(self.path, "data_*.parquet") - _stems(self.path, "*.idx"):
            time.sleep(0.2)

    def search(self, queries: np.ndarray, k: int, **filters) -> np.ndarray:
        """Find the numbers (Q, k) of the nearest descriptors."""
        names = self.gallery.search(queries, k, **filters).names
        return np.array([[_number(name) for name in row] for row in names])

    def save(self) -> None:
        """Close the database, which keeps every change."""
        self.gallery.close()

    def load(self) -> None:
        """Open the database."""
        self.gallery = reid_jax.MilvusGallery(self.path, index=self.kind)

    def end(self) -> None:
        """Close the database, which would stay open until the process ends."""
        self.gallery.close()


class MilvusCells(Milvus):
    """The same with an inverted file for each segment: 128 cells, of which 10 are read."""

    kind = "IVF_FLAT"


class MilvusServer(Milvus):
    """`reid_jax.MilvusGallery` on a server, in a collection that is dropped at the end."""

    needs = ("pymilvus", SERVER)

    def __init__(self, folder: pathlib.Path, images: int, dim: int):
        import pymilvus

        self.address, self.collection = os.environ[SERVER], f"benchmark_{uuid.uuid4().hex}"
        self.client = pymilvus.MilvusClient(self.address)
        self.load()

    def index(self) -> None:
        """Wait until the server has indexed all images."""
        self.client.flush(self.collection)
        (name,) = self.client.list_indexes(self.collection, field_name="vector")
        while self.client.describe_index(self.collection, name)["pending_index_rows"]:
            time.sleep(0.2)

    def load(self) -> None:
        """Connect to the server."""
        self.gallery = reid_jax.MilvusGallery(self.address, self.collection, index=self.kind)

    def end(self) -> None:
        """Drop the collection."""
        self.gallery.close()
        self.client.drop_collection(self.collection)


class MilvusServerGraph(MilvusServer):
    """The same with an index HNSW."""

    kind = "HNSW"


class Faiss(Exact):
    """FAISS, all descriptors in memory and compared."""

    needs = ("faiss",)
    filters = {}  # noqa: RUF012

    def __init__(self, folder: pathlib.Path, images: int, dim: int):
        import faiss

        self.faiss, self.path = faiss, str(folder / "index.faiss")
        self.gallery = self.make(images, dim)

    def make(self, images: int, dim: int):
        """The empty index."""
        return self.faiss.IndexFlatL2(dim)

    def add(self, features: np.ndarray, numbers: np.ndarray) -> None:
        """Add descriptors (N, D), which FAISS numbers itself."""
        self.gallery.add(features)

    def search(self, queries: np.ndarray, k: int, **filters) -> np.ndarray:
        """Find the numbers (Q, k) of the nearest descriptors."""
        return self.gallery.search(queries, k)[1]

    def save(self) -> None:
        """Write the index and release the memory."""
        self.faiss.write_index(self.gallery, self.path)
        self.gallery = None

    def load(self) -> None:
        """Read the index."""
        self.gallery = self.faiss.read_index(self.path)


class FaissCells(Faiss):
    """FAISS, an inverted file: of 1,024 cells, a search reads the 16 nearest."""

    def make(self, images: int, dim: int):
        """The index, before it is trained. A small one has fewer cells."""
        cells = max(1, min(CELLS, images // TRAINED))
        index = self.faiss.IndexIVFFlat(self.faiss.IndexFlatL2(dim), dim, cells)
        index.nprobe = PROBES
        return index

    @property
    def trained(self) -> int:
        """How many descriptors it is trained on."""
        return self.gallery.nlist * TRAINED

    def train(self, features: np.ndarray) -> None:
        """Choose the cells."""
        self.gallery.train(features)


ENGINES = {
    "exact": Exact,
    "faiss_flat": Faiss,
    "faiss_ivf": FaissCells,
    "milvus_flat": Milvus,
    "milvus_ivf": MilvusCells,
    "milvus_server": MilvusServer,
    "milvus_server_hnsw": MilvusServerGraph,
}


def missing(engine: str) -> list[str]:
    """What an engine needs and does not have, as text."""
    absent = []
    for name in ENGINES[engine].needs:
        if name == SERVER and SERVER not in os.environ:
            absent.append(f"{SERVER} not set")
        elif name != SERVER and importlib.util.find_spec(name) is None:
            absent.append(f"{name} not installed")
    return absent


def disk_bytes(folder: pathlib.Path) -> int:
    """The size of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _names(numbers: np.ndarray) -> list[str]:
    return [f"folder/{number:07d}.jpg" for number in numbers]


def _number(name: str) -> int:
    """The number in a name; -1 for the empty name of a hit that does not exist."""
    return int(pathlib.PurePath(name).stem or -1)


def _stems(folder: pathlib.Path, pattern: str) -> set[str]:
    return {path.name.partition(".")[0] for path in folder.rglob(pattern)}
