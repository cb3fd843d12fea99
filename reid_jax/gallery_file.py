"""The file of a `Gallery`: safetensors, which holds arrays and texts, but no code.

Tensors:
    features: float32 (N, D).
    pids, camids: int64 (N,).
    names: uint8 (B,), all names concatenated in UTF-8. A lone surrogate, by which Python
        represents a byte of a file name that is not text, takes three bytes.
    ends: int64 (N,), the end of each name in `names`.

Metadata:
    format: the format of this file.
    origin: a JSON text in ASCII.
    crc32: a checksum of the origin and all tensors, which detects damage.
"""

import json
import os
import pathlib
import stat
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import safetensors
from safetensors.numpy import save_file

from reid_jax.runtime.files import local_path, replacing
from reid_jax.runtime.messages import shown

_FORMAT = "reid_jax gallery 1"

# Each tensor's dtype and number of axes, in the order of the checksum.
_TENSORS = {
    "features": (np.float32, 2),
    "pids": (np.int64, 1),
    "camids": (np.int64, 1),
    "names": (np.uint8, 1),
    "ends": (np.int64, 1),
}


class Arrays(NamedTuple):
    """The content of the file."""

    features: np.ndarray  # float32 (N, D)
    pids: np.ndarray  # int64 (N,)
    camids: np.ndarray  # int64 (N,)
    names: Sequence[str]
    origin: str


def write(path: str | os.PathLike[str], arrays: Arrays) -> None:
    """Write the file, completely or not at all. An existing one is replaced.

    Raises:
        OSError: it cannot be written.
    """
    path = pathlib.Path(local_path(path, "the gallery's file"))
    if path.is_dir():
        raise IsADirectoryError(f"{shown(path)} is a folder: pass the path of a file")
    path.parent.mkdir(parents=True, exist_ok=True)
    encoded = [name.encode("utf-8", "surrogatepass") for name in arrays.names]
    tensors = {
        "features": arrays.features,
        "pids": arrays.pids,
        "camids": arrays.camids,
        "names": np.frombuffer(b"".join(encoded), np.uint8),
        "ends": np.cumsum([len(name) for name in encoded], dtype=np.int64),
    }
    tensors = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    origin = json.dumps(arrays.origin)
    metadata = {"format": _FORMAT, "origin": origin, "crc32": str(_checksum(tensors, origin))}
    with replacing(path, unique=True) as draft:
        # Create the file first, because Python's errors are clearer than the library's.
        draft.touch()
        mode = draft.stat().st_mode  # The library replaces it by a file that only its owner reads.
        try:
            save_file(tensors, draft, metadata)
            draft.chmod(mode)
        except safetensors.SafetensorError as error:
            raise OSError(f"cannot write {shown(path)}: {error}") from None


def read(path: str | os.PathLike[str]) -> Arrays:
    """Read a file of `write`.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: it cannot be read.
        ValueError: the file is not one of `write`, or it is damaged.
    """
    path = local_path(path, "the gallery's file")
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ValueError(f"{shown(path)} is a folder, a pipe or a device instead of a gallery file")
    try:
        # Open it first, because the library calls a file that it may not read missing.
        with open(path, "rb"), safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != _FORMAT:
                raise ValueError(f"its format is {metadata.get('format')!r}, not {_FORMAT!r}")
            tensors = {name: file.get_tensor(name) for name in _TENSORS}
        for name, (dtype, axes) in _TENSORS.items():
            if tensors[name].dtype != dtype or tensors[name].ndim != axes:
                raise ValueError(f"its {name} are {tensors[name].dtype} {tensors[name].shape}")
        if metadata.get("crc32") != str(_checksum(tensors, metadata.get("origin", ""))):
            raise ValueError("its checksum is wrong")
        return _arrays(tensors, json.loads(metadata["origin"]))
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(
            f"{shown(path)} is not a file of Gallery.save, or it is damaged: {error}"
        ) from None


def _arrays(tensors: dict[str, np.ndarray], origin: str) -> Arrays:
    features, pids, camids, names, ends = (tensors[name] for name in _TENSORS)
    count = len(features)
    if not (len(pids) == len(camids) == len(ends) == count and isinstance(origin, str)):
        raise ValueError("its arrays have different lengths")
    starts = np.concatenate([[0], ends[:-1]]) if count else ends
    if (ends < starts).any() or (ends[-1] if count else 0) != len(names):
        raise ValueError("the ends of its names are wrong")
    data = names.tobytes()
    texts = [
        data[start:end].decode("utf-8", "surrogatepass")
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True)
    ]
    return Arrays(features, pids, camids, texts, origin)


def _checksum(tensors: dict[str, np.ndarray], origin: str) -> int:
    checksum = zlib.crc32(origin.encode("utf-8", "surrogatepass"))
    for name in _TENSORS:
        array = tensors[name]
        # Include the shapes, so that moving a border between two arrays changes the checksum.
        checksum = zlib.crc32(repr(array.shape).encode(), checksum)
        checksum = zlib.crc32(array.reshape(-1).view(np.uint8).data, checksum)
    return checksum
