"""Files of trunks: reads those of torchvision, timm, Caffe and this package, and writes the last.

Our own format is a `.safetensors` file of the trunk's variables (`params/conv1/kernel`). Its
metadata hold the structure and the source of the trunk.
"""

import json
import os
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from flax.traverse_util import flatten_dict, unflatten_dict

from reid_jax.models.resnet import BLOCKS, ResNet
from reid_jax.runtime.files import local_path, write_atomically
from reid_jax.runtime.messages import shown
from reid_jax.weights import authors, caffe, resnet
from reid_jax.weights.files import WeightsFile, listed, read
from reid_jax.weights.resnet import RESNET50, Structure, structure_of
from reid_jax.weights.tensors import account, shapes_of, variables

_KEY = "reid_jax"  # one JSON text in the metadata: the library orders several keys at random
_FORMAT = "trunk 2"
_FORMATS = ("trunk 1", _FORMAT)  # The first version lacks the leaves of `_SINCE_2`.
_SINCE_2 = ("stem_width", "base_width", "stride_in_1x1")


class Trunk(NamedTuple):
    """A trunk with weights."""

    structure: Structure
    variables: dict[str, Any]  # {"params", "batch_stats"} as in `ResNet`, float32
    source: str  # name of the file that it came from
    sha256: str  # of that file
    left_out: tuple[str, ...] = ()  # omitted tensors or layers of the file, a classifier's

    @property
    def num_tensors(self) -> int:
        """The number of arrays, including batch statistics."""
        return len(jax.tree.leaves(self.variables))

    @property
    def num_parameters(self) -> int:
        """The number of trained values."""
        return sum(x.size for x in jax.tree.leaves(self.variables["params"]))


def read_trunk(path: str | os.PathLike[str]) -> Trunk:
    """Read the trunk in a file of `write_trunk`, torchvision, timm or Caffe.

    Args:
        path: path of the file, `.safetensors`, `.pth` or `.caffemodel`.

    Raises:
        OSError, ImportError: as `files.read`.
        ValueError: as `files.read`; its tensors are not those of a ResNet (the message lists them);
            or it is a whole network (the message states how to convert it).
    """
    file = read(path)
    if is_own(file):
        return from_own(file)
    program = authors.recognise(file.arrays)
    if program:
        raise ValueError(
            f"{shown(path)} holds a whole network, {program.upper()}, instead of an ImageNet "
            "ResNet: `reid-jax weights FILE OUT` converts it to a workdir for `reid-jax eval`"
        )
    return from_file(file)


def is_own(file: WeightsFile) -> bool:
    """Whether a file has this package's metadata, as trunks of `write_trunk` and packed runs."""
    return _KEY in file.metadata


def from_file(file: WeightsFile) -> Trunk:
    """The trunk in a file of another program; raises ValueError as `read_trunk`."""
    if file.layers:
        structure, tree, left_out = caffe.convert(file)
        return Trunk(structure, tree, file.path.name, file.sha256, left_out)
    if not resnet.recognise(file.arrays):
        raise ValueError(
            f"{shown(file.path)} holds no supported network: it must be an ImageNet ResNet with "
            "torchvision's or timm's names (layer1.0.conv1.weight), or the authors' PMM or BDB. "
            f"Its tensors: {listed(sorted(file.arrays)) or 'none'}"
        )
    arrays = {name: x for name, x in file.arrays.items() if name not in resnet.CLASSIFIER}
    structure = resnet.infer(arrays)
    return Trunk(
        structure,
        variables(arrays, resnet.tensors(structure), structure.title, file.path),
        file.path.name,
        file.sha256,
        tuple(name for name in resnet.CLASSIFIER if name in file.arrays),
    )


def write_trunk(trunk: Trunk, path: str | os.PathLike[str]) -> None:
    """Write a trunk under our names, completely or not at all.

    Args:
        trunk: any trunk.
        path: the new `.safetensors` file; missing folders are created.

    Raises:
        OSError: the file exists or cannot be written.
    """
    path = pathlib.Path(local_path(path, "OUT"))
    if path.exists():
        raise FileExistsError(f"{shown(path)} exists: choose another OUT")
    path.parent.mkdir(parents=True, exist_ok=True)
    # safetensors ignores strides and writes the memory of an array as it is.
    arrays = {
        name: np.ascontiguousarray(x, np.float32)
        for name, x in flatten_dict(trunk.variables, sep="/").items()
    }
    about = {"format": _FORMAT, **trunk.structure._asdict()}
    about |= {"source": trunk.source, "sha256": trunk.sha256}
    write_atomically(path, safetensors.numpy.save(arrays, {_KEY: json.dumps(about)}))


def check_fits(trunk: Trunk, network: ResNet, path: str) -> None:
    """Check that these weights fit a network's trunk.

    Args:
        trunk: from a file.
        network: the network's trunk.
        path: `model.pretrained`, for error messages.

    Raises:
        ValueError: they belong to another trunk. The message names both, and the leaves to set.
    """
    wanted = structure_of(network)
    if _with_stride_of(trunk.structure, wanted) != wanted:
        raise ValueError(
            f"model.pretrained {shown(path)} is a {trunk.structure.title}, but model.trunk is a "
            f"{wanted.title}: pass {flags(trunk.structure, wanted)}, or another file"
            + (f". {STRIDE_UNKNOWN}" if trunk.structure.stride_in_1x1 is None else "")
        )
    image = jnp.zeros((1, 32, 32, 3))
    shapes = jax.eval_shape(lambda: network.init(jax.random.key(0), image, train=False))
    title = f"{wanted.title} of model.trunk.strides {tuple(network.strides)}"
    account(flatten_dict(trunk.variables, sep="/"), shapes_of(shapes), title, path)


STRIDE_UNKNOWN = (
    "The file does not record which convolution of a downsampling bottleneck has the stride: the "
    "3x3 is assumed (torchvision, timm). If it is the first 1x1 (Caffe, Keras), pass "
    "--config.model.trunk.stride_in_1x1=True"
)


def _with_stride_of(structure: Structure, other: Structure) -> Structure:
    """`structure`, with the stride's place from `other` if its own is unknown."""
    if structure.stride_in_1x1 is None:
        return structure._replace(stride_in_1x1=other.stride_in_1x1)
    return structure


def flags(structure: Structure, default: Structure = RESNET50) -> str:
    """The command-line flags that change a recipe's trunk from `default` to `structure`."""
    structure = _with_stride_of(structure, default)
    leaves = structure._asdict().items() - default._asdict().items()
    names = [name for name in Structure._fields if name in dict(leaves)]
    values = {name: str(value) for name, value in leaves}
    return " ".join(
        f"--config.model.trunk.{name}=" + (f'"{v}"' if " " in (v := values[name]) else v)
        for name in names
    )


def from_own(file: WeightsFile) -> Trunk:
    """The trunk in a file of this package.

    Raises:
        ValueError: it is a packed run, or is damaged.
    """
    kind = ""
    try:
        about = json.loads(file.metadata[_KEY])
        kind = str(about["format"])
        since_2 = {} if about["format"] == _FORMATS[0] else {n: about[n] for n in _SINCE_2}
        structure = Structure(
            about["block"], tuple(about["depths"]), about["width"], about["ibn"], **since_2
        )
        source, sha256 = about["source"], about["sha256"]
        sound = (
            about["format"] in _FORMATS
            and structure.block in BLOCKS
            and len(structure.depths) == 4
            and all(
                type(x) is int
                for x in (
                    *structure.depths,
                    structure.width,
                    structure.stem_width,
                    structure.base_width,
                )
            )
            and all(1 <= depth < 1000 for depth in structure.depths)
            and 1 <= structure.width < 2**20
            and 0 <= structure.stem_width < 2**20
            and 1 <= structure.base_width < 2**20
            and isinstance(structure.stride_in_1x1, bool | None)
            and isinstance(structure.ibn, bool)
            and isinstance(source, str)
            and isinstance(sha256, str)
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        sound = False
    if kind.startswith("packed run"):
        raise ValueError(
            f"{shown(file.path)} is a packed run, not an ImageNet ResNet: pass it to reid-jax "
            "eval, search or export with --workdir"
        )
    if not sound:
        raise ValueError(
            f"{shown(file.path)} has metadata that are not of a trunk of this version: "
            f"{file.metadata[_KEY][:200]!r}"
        )
    shapes = {t.variable: (t.our_shape,) for t in resnet.tensors(structure)}
    account(file.arrays, shapes, structure.title, file.path)
    arrays = {name: np.asarray(x, np.float32) for name, x in file.arrays.items()}
    return Trunk(structure, unflatten_dict(arrays, sep="/"), source, sha256)
