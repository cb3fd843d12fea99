"""The file format of Caffe, `.caffemodel`: the layers of a network with their arrays.

A file is one Protocol Buffers message, `NetParameter`, which protobuf's own library reads. The
message is described here with only the fields that a ResNet needs; the library skips all others. No
content of a file is executed.
"""

import functools
import math
import os
from typing import Any, NamedTuple

import numpy as np

from reid_jax.runtime.messages import shown

_MOST_AXES = 32  # the largest number of axes of an array in Caffe


class Convolution(NamedTuple):
    """The settings of a convolution; sizes are (height, width)."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...] = (1, 1)
    pad: tuple[int, ...] = (0, 0)
    dilation: tuple[int, ...] = (1, 1)
    groups: int = 1


class Layer(NamedTuple):
    """A layer of a network."""

    name: str
    type: str  # `Convolution`, `BatchNorm`, ...
    blobs: tuple[np.ndarray, ...]  # its arrays, float32
    convolution: Convolution  # read for layers of every type; Caffe's defaults if not given
    epsilon: float  # of batch norm; read for layers of every type, too


def read_layers(data: bytes, path: str | os.PathLike[str]) -> tuple[Layer, ...] | None:
    """Read the layers of a network.

    Args:
        data: the content of a file.
        path: path of the file, for error messages.

    Returns:
        The layers in their order. None if the content is not a network of Caffe; most truncated
        files are not.

    Raises:
        ValueError: the network is in the format used before 2014, or an array does not match its
            shape.
    """
    from google.protobuf.message import DecodeError

    try:
        net = _net_class().FromString(data)
    except DecodeError:
        return None
    if any(layer.name or layer.layer for layer in net.layers):
        raise ValueError(
            f"{shown(path)} is in Caffe's old format (V1LayerParameter): convert it with Caffe's "
            "upgrade_net_proto_binary"
        )
    return tuple(_layer(layer, path) for layer in net.layer) or None


def _layer(message: Any, path: str | os.PathLike[str]) -> Layer:
    name = message.name.decode("utf-8", "replace")
    settings = message.convolution_param
    convolution = Convolution(
        kernel=_sizes(settings, settings.kernel_size, "kernel", 0),
        stride=_sizes(settings, settings.stride, "stride", 1),
        pad=_sizes(settings, settings.pad, "pad", 0),
        dilation=_sizes(settings, settings.dilation, "", 1),
        groups=settings.group,
    )
    return Layer(
        name=name,
        type=message.type.decode("utf-8", "replace"),
        blobs=tuple(_array(blob, name, path) for blob in message.blobs),
        convolution=convolution,
        epsilon=message.batch_norm_param.eps,
    )


def _sizes(settings: Any, repeated: Any, name: str, default: int) -> tuple[int, ...]:
    """A setting for both axes, which Caffe stores as one number, as two, or per axis by name."""
    if name and (settings.HasField(f"{name}_h") or settings.HasField(f"{name}_w")):
        return getattr(settings, f"{name}_h"), getattr(settings, f"{name}_w")
    values = tuple(repeated[:3])  # A third value is kept, so that it is reported as an error.
    return values * 2 if len(values) == 1 else values or (default, default)


def _array(blob: Any, layer: str, path: str | os.PathLike[str]) -> np.ndarray:
    numbers = blob.double_data or blob.data
    if blob.HasField("shape"):
        shape = tuple(blob.shape.dim[: _MOST_AXES + 1])
    else:
        shape = blob.num, blob.channels, blob.height, blob.width
    # Without limits, a shape from an untrusted file could make the product huge.
    whole = len(shape) <= _MOST_AXES and all(1 <= size < 2**31 for size in shape)
    if not whole or math.prod(shape) != len(numbers):
        raise ValueError(
            f"{shown(path)} is damaged: layer {shown(layer)[:100]} has an array of shape "
            f"{str(shape)[:100]} with {len(numbers):,} numbers"
        )
    with np.errstate(over="ignore"):  # Infinite values are reported later, with the array's name.
        return np.array(numbers).astype(np.float32).reshape(shape)


# Name, number and type of the fields of each message; the names are Caffe's. A star marks repeated
# fields. Texts are read as bytes, because they may not be UTF-8.
_MESSAGES: dict[str, dict[str, tuple]] = {
    "BlobShape": {"dim": (1, "int64*")},
    "BlobProto": {
        **{name: (i, "int32") for i, name in enumerate(("num", "channels", "height", "width"), 1)},
        "data": (5, "float*"),
        "shape": (7, "BlobShape"),
        "double_data": (8, "double*"),
    },
    "ConvolutionParameter": {
        "pad": (3, "uint32*"),
        "kernel_size": (4, "uint32*"),
        "group": (5, "uint32", "1"),
        "stride": (6, "uint32*"),
        "pad_h": (9, "uint32"),
        "pad_w": (10, "uint32"),
        "kernel_h": (11, "uint32"),
        "kernel_w": (12, "uint32"),
        "stride_h": (13, "uint32"),
        "stride_w": (14, "uint32"),
        "dilation": (18, "uint32*"),
    },
    "BatchNormParameter": {"eps": (3, "float", "1e-5")},
    "LayerParameter": {
        "name": (1, "bytes"),
        "type": (2, "bytes"),
        "blobs": (7, "BlobProto*"),
        "convolution_param": (106, "ConvolutionParameter"),
        "batch_norm_param": (139, "BatchNormParameter"),
    },
    # For old formats, only the fields that show that a layer exists.
    "V1LayerParameter": {"layer": (1, "bytes"), "name": (4, "bytes")},
    "NetParameter": {"layers": (2, "V1LayerParameter*"), "layer": (100, "LayerParameter*")},
}


@functools.cache
def _net_class() -> Any:
    """The class of `NetParameter`, created from `_MESSAGES`."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    kinds = descriptor_pb2.FieldDescriptorProto
    package = "reid_jax.caffe"
    file = descriptor_pb2.FileDescriptorProto(
        name="reid_jax/caffe.proto", package=package, syntax="proto2"
    )
    for message, fields in _MESSAGES.items():
        description = file.message_type.add(name=message)
        for name, (number, kind, *default) in fields.items():
            field = description.field.add(name=name, number=number)
            repeated, kind = kind.endswith("*"), kind.rstrip("*")
            field.label = kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL
            if kind in _MESSAGES:
                field.type, field.type_name = kinds.TYPE_MESSAGE, f".{package}.{kind}"
            else:
                field.type = getattr(kinds, f"TYPE_{kind.upper()}")
            if default:
                (field.default_value,) = default
    pool = descriptor_pool.DescriptorPool()  # Separate: other libraries may register Caffe's.
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.NetParameter"))
