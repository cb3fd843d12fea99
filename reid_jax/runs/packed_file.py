"""A packed run: weights, recipe and results in one safetensors file, from which no code runs.

Tensors:
    params/..., batch_stats/...: the variables of the network, under the names of their leaves.

Metadata, one JSON text in ASCII under the key `reid_jax`:
    format: the format and its version.
    step: the step of the checkpoint.
    run: the content of `run.json`.
    trained_on: the training data: layout, folder, number of images and identities; and, under
        `also`, layout and folder of each further dataset.
    results: the content of `results.json`, or null.
    crc32: a checksum of all the others and of the tensors.
"""

import json
import os
import pathlib
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import safetensors
import safetensors.numpy

from reid_jax.runtime.files import local_path
from reid_jax.runtime.messages import shown

_KEY = "reid_jax"  # one text: the library writes several in random order
_KIND = "packed run"
_VERSION = 1

# The types of errors that reading a file raises, other than OSError.
_DAMAGE = (safetensors.SafetensorError, ValueError, KeyError, TypeError, RecursionError)


class PackedRun(NamedTuple):
    """The content of the file."""

    step: int
    run: dict[str, Any]
    trained_on: dict[str, Any]
    results: dict[str, Any] | None
    arrays: dict[str, np.ndarray]  # by name, `params/trunk/conv1/kernel`


def is_packed(workdir: str | os.PathLike[str]) -> bool:
    """Whether a `--workdir` is a file, not the folder of a run. Does not read it."""
    return os.path.isfile(local_path(workdir, "workdir"))


def to_bytes(packed: PackedRun) -> bytes:
    """The file's content: the same bytes for the same run."""
    # safetensors writes an array's memory in its own order, regardless of its strides.
    arrays = {name: np.array(x, order="C") for name, x in packed.arrays.items()}
    about = {"format": f"{_KIND} {_VERSION}", **packed._replace(arrays={})._asdict()}
    del about["arrays"]
    about["crc32"] = _checksum(about, arrays)
    return safetensors.numpy.save(arrays, {_KEY: json.dumps(about)})


def read(path: str | os.PathLike[str]) -> PackedRun:
    """Read a file that `to_bytes` made.

    Raises:
        OSError: the file is missing or cannot be read.
        ValueError: it is damaged, another kind of file, or has the format of a newer version.
    """
    data = pathlib.Path(local_path(path, "the packed file")).read_bytes()
    try:
        arrays = safetensors.numpy.load(data)
        # The library has checked the header.
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        about = json.loads(header.get("__metadata__", {}).get(_KEY, "{}"))
        _check_format(about.get("format"))
        if about.pop("crc32") != _checksum(about, arrays):
            raise ValueError("its checksum differs")
        del about["format"]
        if type(about["step"]) is not int or not isinstance(about["run"], dict):
            raise ValueError("it has no step or no recipe")
        return PackedRun(**about, arrays=arrays)
    except _NewerFormat as error:
        raise ValueError(f"{shown(path)} {error}") from None
    except (*_DAMAGE, AttributeError) as error:
        raise ValueError(
            f"{shown(path)} is not a file of `reid-jax pack`, or is damaged: {error}"
        ) from None


class _NewerFormat(ValueError):
    pass


def _check_format(text: Any) -> None:
    kind, _, number = text.rpartition(" ") if isinstance(text, str) else ("", "", "")
    if kind != _KIND or not number.isdecimal():
        raise ValueError(f"its format is {text!r}, not '{_KIND} {_VERSION}'")
    if int(number) > _VERSION:
        raise _NewerFormat(
            f"has the format {text!r} of a newer reid_jax; this one reads '{_KIND} {_VERSION}': "
            "update reid_jax"
        )


def _checksum(about: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> int:
    checksum = zlib.crc32(json.dumps(about).encode())
    for name in sorted(arrays):
        array = arrays[name]
        checksum = zlib.crc32(f"{name} {array.dtype} {array.shape}".encode(), checksum)
        checksum = zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data, checksum)
    return checksum
