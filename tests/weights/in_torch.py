"""PyTorch modules: torchvision's ResNets, IBN-a's, and the networks of the authors' PMM and BDB.

They are written from what is known about those programs. Modules have the same names as there, so
that `state_dict` has the keys of their files.
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from tests.weights import formula


class IBN(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.half = channels // 2
        self.IN = nn.InstanceNorm2d(self.half, affine=True)
        self.BN = nn.BatchNorm2d(channels - self.half)

    def forward(self, x):
        first, rest = x[:, : self.half], x[:, self.half :]
        return torch.cat([self.IN(first.contiguous()), self.BN(rest.contiguous())], 1)


class Block(nn.Module):
    def __init__(self, channels, out, stride, project):
        super().__init__()
        self.downsample = None
        if project:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out)
            )

    def forward(self, x):
        y = self.branch(x)
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(Block):
    """The stride is on the 3x3 convolution, or on the first 1x1."""

    expansion = 4

    def __init__(self, channels, features, stride=1, ibn=False, base_width=64, stride_in_1x1=False):
        out, inner = 4 * features, features * base_width // 64
        super().__init__(channels, out, stride, stride != 1 or channels != out)
        strides = (stride, 1) if stride_in_1x1 else (1, stride)
        self.conv1 = nn.Conv2d(channels, inner, 1, strides[0], bias=False)
        self.bn1 = IBN(inner) if ibn else nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, strides[1], 1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)

    def branch(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        return self.bn3(self.conv3(x))


class BasicBlock(Block):
    expansion = 1

    def __init__(self, channels, features, stride=1, ibn=False):
        super().__init__(channels, features, stride, stride != 1 or channels != features)
        self.conv1 = nn.Conv2d(channels, features, 3, stride, 1, bias=False)
        self.bn1 = IBN(features) if ibn else nn.BatchNorm2d(features)
        self.conv2 = nn.Conv2d(features, features, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(features)

    def branch(self, x):
        return self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))


KINDS = {"bottleneck": Bottleneck, "basic": BasicBlock}


class ResNet(nn.Module):
    """A ResNet with an `fc`, which `forward` omits; the last stage has stride 1."""

    def __init__(
        self,
        block="bottleneck",
        depths=(3, 4, 6, 3),
        width=64,
        ibn=False,
        stem_width=0,
        **of_bottlenecks,
    ):
        super().__init__()
        kind = KINDS[block]
        channels = stem_width or width
        self.conv1 = nn.Conv2d(3, channels, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        for stage, (depth, stride) in enumerate(zip(depths, (1, 2, 2, 1), strict=True), 1):
            features = width * 2 ** (stage - 1)
            blocks = []
            for i in range(depth):
                of_block = stride if i == 0 else 1, ibn and stage < 4
                blocks.append(kind(channels, features, *of_block, **of_bottlenecks))
                channels = features * kind.expansion
            self.add_module(f"layer{stage}", nn.Sequential(*blocks))
        self.fc = nn.Linear(channels, 10)
        self.channels = channels

    def forward(self, x):
        """The maps that `TrunkMaps` names."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer2(self.layer1(x))
        first = self.layer3[0](x)
        middle = self.layer3[1:](first)
        return first, middle, self.layer4(middle)


class Program(nn.Module):
    """The common parts of PMM's and BDB's programs: all except the other heads."""

    def __init__(self, depths, width, global_dim, classes):
        super().__init__()
        resnet = ResNet("bottleneck", depths, width)
        self.backbone = nn.Sequential(
            resnet.conv1, resnet.bn1, resnet.relu, resnet.maxpool,
            resnet.layer1, resnet.layer2, resnet.layer3,
        )  # fmt: skip
        self.res_part = resnet.layer4
        self.global_reduction = reduction(resnet.channels, global_dim)
        self.global_softmax = nn.Linear(global_dim, classes)
        self.res_part2 = Bottleneck(resnet.channels, resnet.channels // 4)
        self.channels = resnet.channels

    def forward(self, x):
        """The descriptor."""
        x = self.res_part(self.backbone(x))
        parts = [self.global_reduction(F.adaptive_avg_pool2d(x, 1)).flatten(1)]
        pooled = F.adaptive_max_pool2d(self.res_part2(x), 1)
        return torch.cat([*parts, *self.of_pooled(pooled)], 1)


def reduction(channels, dim):
    return nn.Sequential(nn.Conv2d(channels, dim, 1), nn.BatchNorm2d(dim), nn.ReLU())


class PMM(Program):
    def __init__(self, depths=(3, 4, 6, 3), width=64, dim=512, classes=751):
        super().__init__(depths, width, dim, classes)
        self.reduction1 = reduction(self.channels, dim)
        self.softmax1 = nn.Linear(dim, classes)
        self.reduction2 = reduction(self.channels, dim)
        self.softmax2 = nn.Linear(dim, classes)

    def of_pooled(self, x):
        return self.reduction1(x).flatten(1), self.reduction2(x).flatten(1)


class BDB(Program):
    """Its part branch reduces by a linear map, in later versions of the program by `conv`."""

    def __init__(self, depths=(3, 4, 6, 3), width=64, dims=(512, 1024), classes=751, conv=False):
        super().__init__(depths, width, dims[0], classes)
        self.conv = conv
        self.reduction = reduction(self.channels, dims[1])
        if not conv:
            self.reduction = nn.Sequential(
                nn.Linear(self.channels, dims[1]), nn.BatchNorm1d(dims[1]), nn.ReLU()
            )
        self.softmax = nn.Linear(dims[1], classes)

    def of_pooled(self, x):
        return (self.reduction(x if self.conv else x.flatten(1)).flatten(1),)


def by_formula(module):
    """The module for inference, with the weights of `formula.tensor`."""
    state = {
        name: torch.from_numpy(np.asarray(formula.tensor(name, tuple(x.shape))))
        for name, x in module.state_dict().items()
    }
    module.load_state_dict(state)
    return module.eval()


def apply(module, images):
    """The output of a module for (B, H, W, 3); maps as (B, h, w, C)."""
    with torch.no_grad():
        outputs = module(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))
    if isinstance(outputs, tuple):
        return [x.numpy().transpose(0, 2, 3, 1) for x in outputs]
    return outputs.numpy()
