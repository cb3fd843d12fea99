"""Trunks compared with PyTorch's: blocks of torchvision's ResNets and of IBN-Net's, by name."""

import re

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from reid_jax.models.resnet import ResNet
from tests import reference

torch = pytest.importorskip("torch", reason="needs PyTorch")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

pytestmark = pytest.mark.extras

STRIDES = (1, 2, 2, 1)


class IBN(nn.Module):
    """Instance norm of half the channels, batch norm of the rest."""

    def __init__(self, channels):
        super().__init__()
        self.half = channels // 2
        self.IN = nn.InstanceNorm2d(self.half, affine=True)
        self.BN = nn.BatchNorm2d(channels - self.half)

    def forward(self, x):
        first, rest = torch.split(x, [self.half, x.shape[1] - self.half], dim=1)
        return torch.cat([self.IN(first), self.BN(rest)], dim=1)


class Block(nn.Module):
    """A bottleneck or a basic block.

    `first` is whether a bottleneck's stride is on its first convolution instead of the 3x3; `inner`
    is the number of channels between its 1x1 convolutions.
    """

    def __init__(self, basic, ibn, first, channels, features, inner, stride):
        super().__init__()
        width = features if basic else 4 * features
        sizes = [(3, stride), (3, 1)] if basic else [(1, 1), (3, stride), (1, 1)]
        if first:
            sizes = [(1, stride), (3, 1), (1, 1)]
        inputs = channels
        for number, (size, step) in enumerate(sizes, start=1):
            outputs = width if number == len(sizes) else inner
            conv = nn.Conv2d(inputs, outputs, size, step, padding=size // 2, bias=False)
            self.add_module(f"conv{number}", conv)
            norm = IBN if ibn and number == 1 else nn.BatchNorm2d
            self.add_module(f"bn{number}", norm(outputs))
            inputs = outputs
        self.count = len(sizes)
        self.downsample = nn.Identity()
        if stride != 1 or channels != width:
            shortcut = nn.Conv2d(channels, width, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(width))

    def forward(self, x):
        y = x
        for number in range(1, self.count + 1):
            y = self.get_submodule(f"bn{number}")(self.get_submodule(f"conv{number}")(y))
            y = F.relu(y) if number < self.count else y
        return F.relu(y + self.downsample(x))


class Trunk(nn.Module):
    """A trunk that returns the maps of res4's first block, of res4 and of res5."""

    def __init__(self, depths, width, stem, wide, basic, ibn, first):
        super().__init__()
        self.conv1 = nn.Conv2d(3, stem, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        channels = stem
        for stage, (depth, stride) in enumerate(zip(depths, STRIDES, strict=True)):
            features, blocks = width << stage, []
            for number in range(depth):
                kind = basic, ibn and stage < 3, first
                inner = 2 * features if wide else features
                blocks.append(Block(*kind, channels, features, inner, 1 if number else stride))
                channels = features if basic else 4 * features
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))

    def forward(self, images):
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(images))), 3, 2, padding=1)
        first = self.layer3[0](self.layer2(self.layer1(x)))
        last = self.layer3[1:](first)
        return first, last, self.layer4(last)


def torch_name(path):
    """`layer2_0/bn1/instance/scale` is `layer2.0.bn1.IN.weight`."""
    leaves = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
    parts = {
        **{"instance": "IN", "batch": "BN"},
        **{"downsample_conv": "downsample.0", "downsample_bn": "downsample.1"},
    }
    *modules, leaf = path
    names = [parts.get(name, name.replace("_", ".")) for name in modules]
    return ".".join([*names, leaves.get(leaf, leaf)])


def as_torch(tree):
    """Our arrays by PyTorch's names, in its layout, in float64."""
    found = {}
    for path, value in flatten_dict(tree).items():
        value = np.float64(value)
        if path[-1] == "kernel":
            value = value[None, None] if value.ndim == 2 else value
            value = value.transpose(3, 2, 0, 1)
        found[torch_name(path)] = torch.tensor(value)
    return found


def close(got, want, tolerance=1e-5):
    """Compare one of our arrays with a tensor."""
    want = want.detach().numpy()
    assert got.shape == want.shape
    assert np.linalg.norm(got - want) <= tolerance * np.linalg.norm(want)


def channels_first(x):
    return np.transpose(x, (0, 3, 1, 2))


TRUNKS = {
    "basic": {"block": "basic"},
    "bottleneck-ibn": {"ibn": True},
    "basic-ibn": {"block": "basic", "ibn": True},
    "wide": {"base_width": 128},
    "v1": {"stride_in_1x1": True, "stem_width": 9},
}


@pytest.fixture(params=TRUNKS.values(), ids=TRUNKS.keys())
def pair(request, rng):
    """A trunk, its variables, PyTorch's trunk with the same weights in float64, and images."""
    leaves, depths, width = request.param, (1, 1, 2, 1), 6
    trunk = ResNet(depths=depths, width=width, strides=STRIDES, **leaves)
    images = rng.normal(size=(3, 64, 32, 3)).astype(np.float32)
    shapes = jax.eval_shape(lambda: trunk.init(jax.random.key(0), images, train=False))
    variables = reference.random_variables(shapes, rng)
    theirs = Trunk(
        depths,
        width,
        stem=leaves.get("stem_width", width),
        wide="base_width" in leaves,
        basic="block" in leaves,
        ibn="ibn" in leaves,
        first="stride_in_1x1" in leaves,
    ).double()
    state = as_torch(variables["params"]) | as_torch(variables["batch_stats"])
    counters = {name for name in theirs.state_dict() if name.endswith("num_batches_tracked")}
    assert theirs.state_dict().keys() - counters == state.keys()
    theirs.load_state_dict(state, strict=False)
    return trunk, variables, theirs, images


def test_inference_is_pytorchs(pair):
    trunk, variables, theirs, images = pair
    got = jax.jit(lambda v, x: trunk.apply(v, x, train=False))(variables, images)
    with torch.no_grad():
        want = theirs.eval()(torch.tensor(channels_first(images)).double())
    for x, tensor in zip(got, want, strict=True):
        close(channels_first(x), tensor)


def test_training_is_pytorchs(pair, rng):
    """Maps, gradients, and the running means and unbiased variances."""
    trunk, variables, theirs, images = pair

    @jax.jit
    def train(params, images, weights):
        def forward(params):
            given = {**variables, "params": params}
            maps, updates = trunk.apply(given, images, train=True, mutable=["batch_stats"])
            return sum((x * dy).sum() for x, dy in zip(maps, weights, strict=True)), (maps, updates)

        return jax.grad(forward, has_aux=True)(params)

    want = theirs.train()(torch.tensor(channels_first(images)).double())
    # Cotangents of all maps.
    weights = [torch.tensor(rng.normal(size=x.shape)) for x in want]
    sum((x * dy).sum() for x, dy in zip(want, weights, strict=True)).backward()
    weights = [np.float32(dy.permute(0, 2, 3, 1).numpy()) for dy in weights]
    gradients, (maps, updates) = train(variables["params"], images, weights)

    for x, tensor in zip(maps, want, strict=True):
        close(channels_first(x), tensor)
    gradients, updates = as_torch(gradients), as_torch(updates["batch_stats"])
    for name, parameter in theirs.named_parameters():
        # Near kinks of ReLU and maximum, roundings may end on different sides.
        close(gradients.pop(name).numpy(), parameter.grad, 1e-3)
    assert not gradients
    remembered = {
        name: x for name, x in theirs.state_dict().items() if re.search("running_(mean|var)$", name)
    }
    assert updates.keys() == remembered.keys()
    for name, statistic in remembered.items():
        close(updates[name].numpy(), statistic)
