"""Files of weights, read as data: `.safetensors`, PyTorch's `.pth` and Caffe's `.caffemodel`.

The content decides which of them a file is, not its name: `.safetensors` and `.pth` begin with
bytes of their own, and all other files are tried as a network of Caffe, whose format has none.
Nothing in a file is run. Each format has a library that reads it; PyTorch's reads with
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

# How PyTorch's files begin: a zip archive, or before version 1.6 a pickle.
_PYTORCH = (b"PK\x03\x04", b"\x80")

# Before, files could run code in spite of `weights_only` (CVE-2025-32434).
_SAFE_PYTORCH = (2, 6)

# What programs wrap their weights in.
_WRAPPERS = ("state_dict", "model")
# What `DataParallel` puts before every name.
_PARALLEL = "module."

_DTYPES = {
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F32": np.dtype(np.float32),
    "F64": np.dtype(np.float64),
    "I64": np.dtype(np.int64),
}


class WeightsFile(NamedTuple):
    """What a file of weights holds."""

    path: pathlib.Path
    sha256: str  # of the whole file
    arrays: dict[str, np.ndarray]  # by name; of a dtype that NumPy lacks, an array of objects
    metadata: Mapping[str, str]  # of .safetensors
    epoch: int | None  # of a training program's checkpoint
    layers: tuple[Layer, ...] = ()  # of .caffemodel, which has no arrays by name


def read(path: str | os.PathLike[str]) -> WeightsFile:
    """Reads a `.safetensors` file, a PyTorch checkpoint or a network of Caffe.

    Wrappers, `{"state_dict": ...}` or `{"model": ...}`, and the `module.` that `DataParallel` puts
    before all names are taken off.

    Args:
        path: of the file.

    Returns:
        Its arrays, each of the dtype and shape that it has there; or the layers of a network of
        Caffe.

    Raises:
        OSError: there is no such file, or it cannot be read.
        ValueError: it is damaged, or none of the three, or holds something else than weights.
        ImportError: it needs PyTorch, which is not installed, or too old to be safe.
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
    """Some of several names, and how many more there are."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(map(_name_shown, names[:most])) + more


def _name_shown(name: str) -> str:
    """A tensor's name, which may be anybody's text, on one line and not endless."""
    quoted = name if name.isascii() and name.isprintable() and name else shown(name)
    return quoted if len(quoted) <= 100 else quoted[:97] + "..."


def _safetensors(
    path: pathlib.Path, data: bytes
) -> tuple[dict[str, np.ndarray], Mapping[str, str]]:
    try:
        entries = safetensors.deserialize(data)
    except safetensors.SafetensorError as error:
        raise _unreadable(path, error) from error
    # The library has found the header sound.
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    arrays = {}
    for name, entry in entries:
        if entry["dtype"] in _DTYPES:
            array = np.frombuffer(entry["data"], _DTYPES[entry["dtype"]]).reshape(entry["shape"])
        else:
            array = np.empty(entry["shape"], object)
        arrays[name] = array
    return arrays, header.get("__metadata__", {})


def _pytorch(path: pathlib.Path, data: bytes) -> tuple[dict[str, np.ndarray], int | None]:
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            f"{shown(path)} is a PyTorch checkpoint, and PyTorch is not installed: python -m pip "
            "install torch, or convert it to .safetensors where PyTorch is"
        ) from error
    if tuple(map(int, torch.__version__.split(".")[:2])) < _SAFE_PYTORCH:
        raise ImportError(
            f"{shown(path)} is a PyTorch checkpoint, and what loads them safely came with PyTorch "
            f"{'.'.join(map(str, _SAFE_PYTORCH))}; here is {torch.__version__}: python -m pip "
            "install --upgrade torch, or convert it to .safetensors elsewhere"
        )
    try:
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # Of whatever type: its unpickler follows the file.
        raise _unreadable(path, error) from error
    weights = content
    for wrapper in _WRAPPERS:
        if isinstance(weights, Mapping) and isinstance(weights.get(wrapper), Mapping):
            weights = weights[wrapper]
    if not isinstance(weights, Mapping) or not all(isinstance(name, str) for name in weights):
        raise ValueError(f"{shown(path)} holds no tensors by name but a {type(weights).__name__}")
    others = [name for name, tensor in weights.items() if not isinstance(tensor, torch.Tensor)]
    if others:
        raise ValueError(f"{shown(path)} holds what are no tensors: {listed(others)}")
    epoch = content.get("epoch")
    try:
        arrays = {name: _as_numpy(tensor, torch) for name, tensor in weights.items()}
    except (RuntimeError, TypeError, NotImplementedError) as error:  # Sparse, or without values.
        raise _unreadable(path, error) from error
    return arrays, epoch if type(epoch) is int else None


def _caffe(path: pathlib.Path, data: bytes) -> tuple[Layer, ...]:
    layers = read_layers(data, path)
    if layers is None and path.suffix == ".caffemodel":
        raise ValueError(f"{shown(path)} is damaged: it holds no network of Caffe, or only a part")
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
        return np.empty(tuple(tensor.shape), object)  # Quantised, and other dtypes of its own.


def _unreadable(path: pathlib.Path, error: Exception) -> ValueError:
    """What is wrong, in one line, without PyTorch's advice on how to run what is in the file."""
    text = str(error)
    if match := re.search(r"GLOBAL ([\w.]+)", text):
        return ValueError(
            f"{shown(path)} holds more than weights: it asks for {match[1]}, and nothing of a file "
            "is run. Where you trust it, save its tensors alone"
        )
    first = next(iter(text.rpartition("WeightsUnpickler error: ")[2].strip().splitlines()), "")
    first = "".join(c for c in first if c.isprintable())[:200]
    return ValueError(f"{shown(path)} is damaged ({type(error).__name__}: {first})")
