"""Reads files of weights as data: `.safetensors`, PyTorch's `.pth` and Caffe's `.caffemodel`.

The content of a file decides its format, not the name: `.safetensors` and `.pth` begin with
specific bytes, and all other files are tried as a network of Caffe, whose format has no such bytes.
No content of a file is executed. Each format is read by its own library; PyTorch's reads with
`weights_only`, which accepts only tensors and containers.
"""

import hashlib
import io
import json
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import safetensors

from reid_jax.runtime.files import local_path
from reid_jax.runtime.messages import shown
from reid_jax.weights.caffemodel import Layer, read_layers

# First bytes of PyTorch's files: a zip archive, or before version 1.6 a pickle.
_PYTORCH = (b"PK\x03\x04", b"\x80")

# In earlier versions, files could run code in spite of `weights_only` (CVE-2025-32434).
_SAFE_PYTORCH = (2, 6)

# Keys under which programs wrap their weights.
_WRAPPERS = ("state_dict", "model")
# The prefix that `DataParallel` adds to every name.
_PARALLEL = "module."

_DTYPES = {
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F32": np.dtype(np.float32),
    "F64": np.dtype(np.float64),
    "I64": np.dtype(np.int64),
}


class WeightsFile(NamedTuple):
    """The content of a file of weights."""

    path: pathlib.Path
    sha256: str  # of the whole file
    arrays: dict[str, np.ndarray]  # by name; arrays of objects for dtypes that NumPy lacks
    metadata: Mapping[str, str]  # from .safetensors
    epoch: int | None  # from a training program's checkpoint
    layers: tuple[Layer, ...] = ()  # from .caffemodel, which has no arrays by name


def read(path: str | os.PathLike[str]) -> WeightsFile:
    """Read a `.safetensors` file, a PyTorch checkpoint or a network of Caffe.

    Wrappers, `{"state_dict": ...}` or `{"model": ...}`, and the `module.` that `DataParallel` puts
    before all names are removed.

    Args:
        path: path of the file.

    Returns:
        Its arrays with their dtypes and shapes in the file, or the layers of a network of Caffe.

    Raises:
        OSError: the file does not exist or cannot be read.
        ValueError: it is damaged, has another format, or holds something other than weights.
        ImportError: it needs PyTorch, which is not installed or too old to be safe.
    """
    path = pathlib.Path(local_path(path, "the file of weights"))
    data = path.read_bytes()
    arrays: dict[str, np.ndarray] = {}
    metadata: Mapping[str, str] = {}
    epoch: int | None = None
    layers: tuple[Layer, ...] = ()
    if data[8:9] == b"{":
        arrays, metadata = _safetensors(path, data)
    elif data.startswith(_PYTORCH):
        arrays, epoch = _pytorch(path, data)
    else:
        layers = _caffe(path, data)
    if arrays and all(name.startswith(_PARALLEL) for name in arrays):
        arrays = {name.removeprefix(_PARALLEL): array for name, array in arrays.items()}
    return WeightsFile(path, hashlib.sha256(data).hexdigest(), arrays, metadata, epoch, layers)


def listed(names: Sequence[str], most: int = 10) -> str:
    """List some of several names, and the number of the others."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(map(_name_shown, names[:most])) + more


def _name_shown(name: str) -> str:
    """A tensor's name, which may be any text, on one line and shortened."""
    quoted = name if name.isascii() and name.isprintable() and name else shown(name)
    return quoted if len(quoted) <= 100 else quoted[:97] + "..."


def _safetensors(
    path: pathlib.Path, data: bytes
) -> tuple[dict[str, np.ndarray], Mapping[str, str]]:
    try:
        entries = safetensors.deserialize(data)
    except safetensors.SafetensorError as error:
        raise _unreadable(path, error) from error
    # The library has already checked the header.
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    arrays = {}
    for name, entry in entries:
        if entry["dtype"] in _DTYPES:
            array = np.frombuffer(entry["data"], _DTYPES[entry["dtype"]]).reshape(entry["shape"])
        else:
            array = np.empty(entry["shape"], object)
        arrays[name] = array
    return arrays, header.get("__metadata__") or {}


def _pytorch(path: pathlib.Path, data: bytes) -> tuple[dict[str, np.ndarray], int | None]:
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            f"{shown(path)} is a PyTorch checkpoint, but PyTorch is not installed: python -m pip "
            "install torch, or convert it to .safetensors on a machine with PyTorch"
        ) from error
    if tuple(map(int, torch.__version__.split(".")[:2])) < _SAFE_PYTORCH:
        raise ImportError(
            f"{shown(path)} is a PyTorch checkpoint, which needs PyTorch "
            f"{'.'.join(map(str, _SAFE_PYTORCH))} or newer to be loaded safely, but "
            f"{torch.__version__} is installed: python -m pip install --upgrade torch, or convert "
            "it to .safetensors elsewhere"
        )
    try:
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # The unpickler raises exceptions of any type.
        raise _unreadable(path, error) from error
    weights = content
    for wrapper in _WRAPPERS:
        if isinstance(weights, Mapping) and isinstance(weights.get(wrapper), Mapping):
            weights = weights[wrapper]
    if not isinstance(weights, Mapping) or not all(isinstance(name, str) for name in weights):
        raise ValueError(f"{shown(path)} holds no tensors by name but a {type(weights).__name__}")
    others = [name for name, tensor in weights.items() if not isinstance(tensor, torch.Tensor)]
    if others:
        raise ValueError(f"{shown(path)} holds objects that are not tensors: {listed(others)}")
    epoch = content.get("epoch")
    try:
        arrays = {name: _as_numpy(tensor, torch) for name, tensor in weights.items()}
    except (RuntimeError, TypeError, NotImplementedError) as error:  # sparse or meta tensors
        raise _unreadable(path, error) from error
    return arrays, epoch if type(epoch) is int else None


def _caffe(path: pathlib.Path, data: bytes) -> tuple[Layer, ...]:
    layers = read_layers(data, path)
    if layers is None and path.suffix == ".caffemodel":
        raise ValueError(f"{shown(path)} is damaged: it holds no complete network of Caffe")
    if layers is None:
        raise ValueError(
            f"{shown(path)} is neither a .safetensors file nor a PyTorch checkpoint (.pth) nor a "
            "network of Caffe (.caffemodel)"
        )
    return layers


def _as_numpy(tensor: Any, torch: Any) -> np.ndarray:
    tensor = tensor.detach()
    if tensor.dtype == torch.bfloat16:
        return tensor.to(torch.float32).numpy()
    try:
        return tensor.numpy()
    except TypeError:
        if tensor.layout != torch.strided or tensor.is_meta:
            raise
        return np.empty(tuple(tensor.shape), object)  # quantised, or another dtype of PyTorch's own


def _unreadable(path: pathlib.Path, error: Exception) -> ValueError:
    """Describe the error in one line, without PyTorch's advice to run the file's content."""
    text = str(error)
    if match := re.search(r"GLOBAL ([\w.]+)", text):
        return ValueError(
            f"{shown(path)} holds more than weights: it needs {match[1]}, and no content of a file "
            "is executed. If you trust the file, save only its tensors"
        )
    first = next(iter(text.rpartition("WeightsUnpickler error: ")[2].strip().splitlines()), "")
    first = "".join(c for c in first if c.isprintable())[:200]
    return ValueError(f"{shown(path)} is damaged ({type(error).__name__}: {first})")
