"""Networks of Caffe in float64 NumPy, and their files, written and read byte by byte.

The module does not use `reid_jax`: numbers of fields, names of layers and the computations of
layers are written again. A network is a list of `Layer`s. Their `bottoms` and `tops` name their
inputs and outputs, which determine the evaluation.
"""

import dataclasses
import math
import struct

import numpy as np

# Fields of convolution_param.
SETTINGS = {"pad": 3, "kernel_size": 4, "group": 5, "stride": 6, "dilation": 18}
SETTINGS |= {"pad_h": 9, "pad_w": 10, "kernel_h": 11, "kernel_w": 12}
SETTINGS |= {"stride_h": 13, "stride_w": 14}


@dataclasses.dataclass
class Layer:
    name: str
    type: str
    bottoms: list = dataclasses.field(default_factory=list)
    tops: list = dataclasses.field(default_factory=list)
    blobs: list = dataclasses.field(default_factory=list)
    settings: dict = dataclasses.field(default_factory=dict)  # of a convolution or of pooling
    eps: float | None = None


# Files: fields of the wire format of Protocol Buffers.


def varint(number):
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def field(number, value):
    """An integer (negative ones as 64 bits), a float, or bytes, texts and messages."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value % 2**64)
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def blob(array, shape=None):
    """An array as Caffe writes it; a damaged one if `shape` differs from its own."""
    shape = np.shape(array) if shape is None else shape
    dims = b"".join(varint(size % 2**64) for size in shape)
    return field(7, field(1, dims)) + field(5, np.asarray(array, "<f4").tobytes())


def blob_in_double(array):
    dims = b"".join(varint(size) for size in np.shape(array))
    return field(7, field(1, dims)) + field(8, np.asarray(array, "<f8").tobytes())


def blob_one_by_one(array):
    """Numbers and sizes that are not packed, which every reader must accept."""
    dims = b"".join(field(1, size) for size in np.shape(array))
    numbers = b"".join(field(5, float(x)) for x in np.ravel(array))
    return field(7, dims) + numbers


def blob_of_four_axes(array):
    """The format from before `shape`: num, channels, height and width."""
    shape = (1,) * (4 - np.ndim(array)) + np.shape(array)
    sizes = b"".join(field(i, size) for i, size in enumerate(shape, 1))
    return sizes + field(5, np.asarray(array, "<f4").tobytes())


def write_layer(layer, blob=blob):
    data = field(1, layer.name) + field(2, layer.type)
    data += b"".join(field(3, name) for name in layer.bottoms)
    data += b"".join(field(4, name) for name in layer.tops)
    data += field(6, field(3, 1.0))  # learning rates, which are ignored
    data += b"".join(field(7, blob(array)) for array in layer.blobs)
    data += field(10, 0)  # the phase
    if layer.type == "Convolution":
        settings = [field(1, len(layer.blobs[0]))]
        settings += [field(SETTINGS[name], value) for name, value in layer.settings.items()]
        data += field(106, b"".join(settings))
    if layer.type == "Pooling":
        numbers = {"pool": 1, "kernel_size": 2, "stride": 3}
        data += field(121, b"".join(field(numbers[k], v) for k, v in layer.settings.items()))
    if layer.type == "BatchNorm":
        data += field(139, field(1, 0) + (b"" if layer.eps is None else field(3, layer.eps)))
    if layer.type == "Scale":
        data += field(142, field(4, 1))
    return data


def write(layers, blob=blob):
    """A `.caffemodel`."""
    return field(1, "a network") + b"".join(field(100, write_layer(x, blob)) for x in layers)


def fields(data):
    """Number and value of each field of a message: integers, or bytes."""
    place = 0

    def integer():
        nonlocal place
        number = shift = 0
        while True:
            byte = data[place]
            place += 1
            number |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return number

    while place < len(data):
        number, kind = divmod(integer(), 8)
        if kind == 0:
            yield number, integer()
            continue
        size = {1: 8, 5: 4}.get(kind) or integer()
        yield number, data[place : place + size]
        place += size


def read(data):
    """The layers of a `.caffemodel` such as open_nsfw's."""
    layers = []
    for number, content in fields(data):
        if number != 100:
            continue
        layer = Layer("", "")
        for key, value in fields(content):
            if key in (1, 2):
                setattr(layer, {1: "name", 2: "type"}[key], value.decode())
            elif key in (3, 4):
                {3: layer.bottoms, 4: layer.tops}[key].append(value.decode())
            elif key == 7:
                found = dict(fields(value))
                sizes, rest = [], dict(fields(found[7]))[1]
                while rest:
                    size = next(fields(b"\x00" + rest))[1]
                    sizes.append(size)
                    rest = rest[len(varint(size)) :]
                layer.blobs.append(np.frombuffer(found[5], "<f4").reshape(sizes))
            elif key == 106:
                names = {number: name for name, number in SETTINGS.items()}
                layer.settings = {names[k]: v for k, v in fields(value) if k in names}
            elif key == 121:
                names = {1: "pool", 2: "kernel_size", 3: "stride"}
                layer.settings = {names[k]: v for k, v in fields(value)}
        layers.append(layer)
    return layers


# Evaluation, with arrays (B, C, H, W) as in Caffe.


def windows(x, size, stride):
    return np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(2, 3))[
        :, :, ::stride, ::stride
    ]


def convolve(x, layer, border):
    """Convolve, with zeros around the map or a `border` of one number per channel around images."""
    pad, stride = layer.settings.get("pad", 0), layer.settings.get("stride", 1)
    around = np.zeros((x.shape[0], x.shape[1], *(size + 2 * pad for size in x.shape[2:])))
    around += np.reshape(border, (1, -1, 1, 1))
    around[:, :, pad : pad + x.shape[2], pad : pad + x.shape[3]] = x
    kernel = np.float64(layer.blobs[0])
    size = kernel.shape[2]
    y = np.einsum("bchwij,ocij->bohw", windows(around, size, stride), kernel, optimize=True)
    if len(layer.blobs) == 2:
        y += np.float64(layer.blobs[1]).reshape(1, -1, 1, 1)
    return y


def pool(x, layer, as_ours):
    """Caffe's max pooling: windows start at the first cell; those that reach outside are cut.

    With `as_ours`, the trunk's windows, which start one cell earlier.
    """
    size, stride = layer.settings["kernel_size"], layer.settings["stride"]
    pads = [(0, 0), (0, 0)]
    for length in x.shape[2:]:
        before = 1 if as_ours else 0
        count = math.ceil(length / stride if as_ours else (length - size) / stride + 1)
        pads.append((before, max(0, (count - 1) * stride + size - length - before)))
    return windows(np.pad(x, pads, constant_values=-np.inf), size, stride).max((4, 5))


def normalize(x, layer):
    mean, var, factor = (np.float64(blob) for blob in layer.blobs)
    share = 0.0 if factor[0] == 0 else 1 / factor[0]
    mean, var = (share * each.reshape(1, -1, 1, 1) for each in (mean, var))
    return (x - mean) / np.sqrt(var + np.float64(np.float32(layer.eps or 1e-5)))


def evaluate(layers, images, border=0.0, pool_as_ours=False):
    """Every map of a network by its name.

    Args:
        layers: those after `data`. Layers without a computation here (a classifier) are omitted.
        images: (B, 3, H, W), blue, green and red in 0..255 minus the network's mean.
        border: the numbers around the images, (3,); Caffe has zeros.
        pool_as_ours: whether max pooling uses the trunk's windows.
    """
    maps = {"data": np.float64(images)}
    for layer in layers:
        if not layer.bottoms or layer.bottoms[0] not in maps:
            continue
        x = maps[layer.bottoms[0]]
        if layer.type == "Convolution":
            y = convolve(x, layer, border if layer.bottoms[0] == "data" else 0.0)
        elif layer.type == "BatchNorm":
            y = normalize(x, layer)
        elif layer.type == "Scale":
            gain, *shift = (np.float64(each).reshape(1, -1, 1, 1) for each in layer.blobs)
            y = x * gain + (shift[0] if shift else 0.0)
        elif layer.type == "ReLU":
            y = np.maximum(x, 0)
        elif layer.type == "Eltwise":
            y = sum(maps[name] for name in layer.bottoms)
        elif layer.type == "Pooling" and not layer.settings.get("pool"):
            y = pool(x, layer, pool_as_ours)
        elif layer.type == "Split":
            y = x
        else:
            continue
        maps |= dict.fromkeys(layer.tops, y)
    return maps


# Networks.


def triple(rng, names, bottom, top, shape, stride, pad, bias):
    """A convolution, its norm and its scale, the last two in place."""
    count = shape[0]
    kernel = rng.normal(size=shape) * np.sqrt(2 / np.prod(shape[1:]))
    if shape[1] == 3 and shape[2] == 7:
        kernel /= 60  # for pixels in 0..255
    blobs = [kernel] + ([0.3 * rng.normal(size=count)] if bias else [])
    factor = 7.5
    norm = [factor * 0.3 * rng.normal(size=count), factor * rng.uniform(0.5, 1.5, count), [factor]]
    scale = [rng.uniform(0.2, 1.2, count), 0.5 * rng.normal(size=count)]
    settings = {"pad": pad, "kernel_size": shape[2], "stride": stride}
    return [
        Layer(names[0], "Convolution", [bottom], [top], blobs, settings),
        Layer(names[1], "BatchNorm", [top], [top], norm),
        Layer(names[2], "Scale", [top], [top], scale),
    ]


def original_names(stage, number, branch, long):
    """`res3a_branch2b`, and the names of its norm and scale. `long` stages number their blocks."""
    block = "abcdefgh"[number] if not long or number == 0 else f"b{number}"
    return [f"{kind}{stage + 1}{block}_branch{branch}" for kind in ("res", "bn", "scale")]


def pynetbuilder_names(stage, number, branch, long):
    end = "proj_shortcut" if branch == "1" else "branch" + branch
    return [f"{kind}_stage{stage - 1}_block{number}_{end}" for kind in ("conv", "bn", "scale")]


STEMS = {
    original_names: ["conv1", "bn_conv1", "scale_conv1"],
    pynetbuilder_names: ["conv_1", "bn_1", "scale_1"],
}


def resnet(
    rng,
    names=original_names,
    depths=(1, 2, 2, 1),
    width=4,
    stem=None,
    basic=False,
    in_1x1=True,
    strides=(1, 2, 2, 2),
    biases=False,
    long=(),
):
    """A ResNet with random weights, from `data` to `loss`; maps of blocks are `block S.N`."""
    stem = width if stem is None else stem
    layers = [Layer("data", "MemoryData", [], ["data", "label"])]
    layers += triple(rng, STEMS[names], "data", "stem", (stem, 3, 7, 7), 2, 3, True)
    layers.append(Layer("conv1_relu", "ReLU", ["stem"], ["stem"]))
    layers.append(
        Layer("pool1", "Pooling", ["stem"], ["x"], [], {"pool": 0, "kernel_size": 3, "stride": 2})
    )
    channels, bottom = stem, "x"
    for stage in range(1, 5):
        features = width * 2 ** (stage - 1)
        out = features if basic else 4 * features
        for number in range(depths[stage - 1]):
            stride = 1 if number else strides[stage - 1]
            first, second = (stride, 1) if basic or in_1x1 else (1, stride)
            branch = [("2a", features, 1, first), ("2b", features, 3, second), ("2c", out, 1, 1)]
            if basic:
                branch = [("2a", features, 3, first), ("2b", out, 3, 1)]
            block, shortcut = f"block {stage}.{number}", bottom
            if channels != out:
                shortcut = f"{block} shortcut"
                layers += triple(
                    rng, names(stage, number, "1", stage in long), bottom, shortcut,
                    (out, channels, 1, 1), stride, 0, biases,
                )  # fmt: skip
            x, inputs = bottom, channels
            for i, (end, outputs, size, step) in enumerate(branch):
                top = f"{block} {end}"
                layers += triple(
                    rng, names(stage, number, end, stage in long), x, top,
                    (outputs, inputs, size, size), step, size // 2, biases,
                )  # fmt: skip
                if i < len(branch) - 1:
                    layers.append(Layer(f"{top} relu", "ReLU", [top], [top]))
                x, inputs = top, outputs
            layers.append(Layer(block, "Eltwise", [shortcut, x], [block]))
            layers.append(Layer(f"{block} relu", "ReLU", [block], [block]))
            bottom, channels = block, out
    fc = [rng.normal(size=(10, channels)), rng.normal(size=10)]
    layers.append(Layer("pool5", "Pooling", [bottom], ["pool5"], [], {"pool": 1}))
    layers.append(Layer("fc1000", "InnerProduct", ["pool5"], ["fc1000"], fc))
    layers.append(Layer("loss", "SoftmaxWithLoss", ["fc1000", "label"], ["loss"]))
    return layers
