"""Exports the descriptor network of a run in each format, and a page of facts beside the files."""

import functools
import hashlib
import json
import os
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

import reid_jax
from reid_jax import models
from reid_jax.data.augment import MEAN, STD
from reid_jax.evaluation.descriptors import descriptor_function
from reid_jax.export import onnx, stablehlo
from reid_jax.models.folding import fold
from reid_jax.recipe import typed
from reid_jax.runs.workdir import version
from reid_jax.runtime.files import new_folder
from reid_jax.runtime.messages import say, shown

# The keys are the extensions of the files, `descriptor.stablehlo` and `descriptor.onnx`.
FORMATS = {"stablehlo": stablehlo, "onnx": onnx}
FACTS = "descriptor.json"

# Largest relative difference between descriptors of a file and of the network. Rounding errors,
# also those of GPUs, are far smaller; a file beyond it computes another function.
_TOLERANCE = 1e-2


def export_run(
    workdir: str | os.PathLike[str],
    out: str | os.PathLike[str],
    checkpoint: str | int = "latest",
    formats: Iterable[str] | None = None,
) -> None:
    """Write `descriptor.stablehlo`, `descriptor.onnx` and `descriptor.json` into a new folder.

    Before the folder appears, each file is run on a few images and compared with the network.

    Args:
        workdir: folder of a run, or a file of `reid-jax pack`. It is only read.
        out: the folder, see `new_folder`.
        checkpoint: `latest`, `best` by mAP, or a step.
        formats: some of `FORMATS`, or one. None means all that can be written here: ONNX needs a
            converter.

    Raises:
        ImportError: ONNX is requested, and its converter is missing.
        OSError, ValueError: `out`, a format, the run or its checkpoint is bad; or the network
            cannot be converted.
    """
    formats = _chosen(formats)
    with new_folder(out) as folder:
        model = reid_jax.load(workdir, checkpoint)
        variables = jax.device_get(model.variables)
        size = model.config.data.image_size
        files = {}
        for name in formats:
            network, dtype = _network(name, model)
            face = descriptor_function(
                network, flip=model.config.eval.flip, unit_length=model.config.eval.normalize
            )
            describe = functools.partial(face, variables)
            # Rounded to bfloat16, folded weights would differ.
            folded = fold(variables) if dtype == "float32" else variables
            fast = functools.partial(face, folded)
            content, facts = _convert(name, fast, describe, size)
            (folder / f"descriptor.{name}").write_bytes(content)
            files[f"descriptor.{name}"] = {
                "bytes": len(content),
                "sha256": hashlib.sha256(content).hexdigest(),
                "computes_in": dtype,
                **facts,
            }
        facts = _facts(model, checkpoint) | {"files": files}
        (folder / FACTS).write_text(json.dumps(facts, indent=2) + "\n")
    say(f"{model.config.model.name}, step {model.step} of {shown(workdir)}, in {shown(out)}:")
    for name, facts in files.items():
        say(f"  {name}  {facts['bytes'] / 1e6:,.1f} MB")
    say(f"  {FACTS}")


def _chosen(formats: Iterable[str] | None) -> list[str]:
    if formats is None:
        try:
            onnx.check_converter()
        except ImportError as error:
            say(f"no descriptor.onnx: {error}")
            return ["stablehlo"]
        return list(FORMATS)
    formats = [formats] if isinstance(formats, str) else list(formats)
    unknown = [name for name in formats if name not in FORMATS]
    if unknown or not formats:
        raise ValueError(f"--formats is {','.join(formats)!r}; it must be some of {tuple(FORMATS)}")
    if "onnx" in formats:
        onnx.check_converter()
    return list(dict.fromkeys(formats))


def _network(name: str, model: "reid_jax.Model") -> tuple[models.Network, str]:
    """The network for a format, and its compute dtype."""
    dtype = model.config.model.dtype
    if name == "onnx" and dtype != "float32":
        # Few runtimes support bfloat16; weights are float32 in any case.
        config = ConfigDict(model.config.to_dict())
        config.model.dtype = "float32"
        return models.create(typed(config).model, model.network.num_classes), "float32"
    return model.network, dtype


def _convert(
    name: str, fast: Callable, describe: Callable, size: tuple[int, int]
) -> tuple[bytes, dict[str, Any]]:
    """Convert `fast` to the format, run the result and compare it with `describe`."""
    content, facts = FORMATS[name].convert(fast, size)
    images = np.random.default_rng(0).integers(0, 256, (3, *size, 3), np.uint8)
    want = np.asarray(jax.jit(describe)(images))
    error = np.linalg.norm(FORMATS[name].run(content, images) - want) / np.linalg.norm(want)
    if not error <= _TOLERANCE:
        raise ValueError(
            f"descriptor.{name} differs from the network: the descriptors of three images have "
            f"a relative error of {error:.1g}. No file was written"
        )
    return content, facts


def _facts(model: "reid_jax.Model", checkpoint: str | int) -> dict[str, Any]:
    height, width = model.config.data.image_size
    return {
        "reid_jax": version(),
        "network": model.config.model.name,
        "checkpoint": str(checkpoint),
        "step": model.step,
        "input": {
            "name": "images",
            "dtype": "uint8",
            "shape": ["b", height, width, 3],
            "axes": "image, row, column, channel (RGB)",
            "read": "upright by the EXIF orientation; RGB without alpha; the upper 8 bits of 16",
            "resize": f"to {width} x {height} pixels, whatever the shape was; bilinear with "
            f"antialiasing, as Pillow does: image.resize(({width}, image.height), BILINEAR)"
            f".resize(({width}, {height}), BILINEAR)",
        },
        "output": {
            "name": "descriptors",
            "dtype": "float32",
            "shape": ["b", model.dim],
            "compare_by": "Euclidean distance",
        },
        "inside": {
            "normalization": {"mean": list(MEAN), "std": list(STD)},
            "flip": bool(model.config.eval.flip),
            "unit_length": bool(model.config.eval.normalize),
        },
    }
