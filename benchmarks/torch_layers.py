"""The layers of `benchmarks/torch_networks.py`: those of `reid_jax.models` in PyTorch.

Maps are (B, C, h, w), channels_last. Names of parameters are those of our modules.
"""

from collections.abc import Sequence

import torch
from ml_collections import ConfigDict
from torch import nn
from torch.nn import functional as F

from reid_jax.models import resnet

EXPANSION = resnet.Bottleneck.expansion


class Bottleneck(nn.Module):
    """`reid_jax.models.resnet.Bottleneck`."""

    def __init__(self, channels: int, features: int, stride: int = 1):
        super().__init__()
        width = features * EXPANSION
        self.conv1 = nn.Conv2d(channels, features, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(features)
        self.conv2 = nn.Conv2d(features, features, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(features)
        self.conv3 = nn.Conv2d(features, width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.projects = stride != 1 or channels != width
        if self.projects:
            self.downsample_conv = nn.Conv2d(channels, width, 1, stride, bias=False)
            self.downsample_bn = nn.BatchNorm2d(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) to (B, 4 features, H / stride, W / stride)."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.bn3(self.conv3(y))
        if self.projects:
            x = self.downsample_bn(self.downsample_conv(x))
        return F.relu(y.add_(x), inplace=True)


class Trunk(nn.Module):
    """`reid_jax.models.ResNet` with plain bottlenecks, up to its last map."""

    def __init__(self, config: ConfigDict):
        super().__init__()
        width = config.width
        self.conv1 = nn.Conv2d(3, width, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.blocks = nn.ModuleDict()
        channels = width
        stages = zip(config.depths, config.strides, strict=True)
        for stage, (depth, stride) in enumerate(stages):
            features = width * 2**stage
            for block in range(depth):
                self.blocks[f"layer{stage + 1}_{block}"] = Bottleneck(
                    channels, features, stride if block == 0 else 1
                )
                channels = features * EXPANSION
        self.features = channels

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) to (B, C, h, w)."""
        return self.levels(images)[-1]

    def levels(self, images: torch.Tensor) -> list[torch.Tensor]:
        """The maps after the first block of res4, after res4 and after res5."""
        x = F.relu(self.bn1(self.conv1(images)), inplace=True)
        x = F.max_pool2d(x, 3, 2, padding=1)
        maps = {}
        for name, block in self.blocks.items():
            x = maps[name[: len("layer3")]] = block(x)
            if name == "layer3_0":
                maps["first"] = x
        return [maps["first"], maps["layer3"], maps["layer4"]]


class PooledHead(nn.Module):
    """`reid_jax.models.heads.PooledHead` with generalized pooling and a classifier."""

    def __init__(
        self, channels: int, num_classes: int, lambdas: Sequence[float] = (0.0,), mean: bool = False
    ):
        super().__init__()
        self.lambdas, self.mean = tuple(lambdas), mean
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, C, h, w) to embedding and logits."""
        embedding = sum(threshold_pool(features, threshold) for threshold in self.lambdas)
        if self.mean:
            embedding = embedding / len(self.lambdas)
        return embedding, self.classifier(embedding)


def threshold_pool(features: torch.Tensor, threshold: float) -> torch.Tensor:
    """`reid_jax.models.pooling.threshold_pool`: (B, C, h, w) to (B, C)."""
    if threshold in (0.0, 1.0):
        return features.mean((2, 3)) if threshold == 0.0 else features.amax((2, 3))
    with torch.no_grad():
        low, high = (reduce(features, (2, 3), True) for reduce in (torch.amin, torch.amax))
        kept = features - low >= threshold * (1.0 - 5e-7) * (high - low)
    return (features * kept).sum((2, 3)) / kept.sum((2, 3))


class StageHead(nn.Module):
    """`reid_jax.models.heads.StageHead`."""

    def __init__(self, pooling: str, channels: int, embedding_dim: int, num_classes: int):
        super().__init__()
        self.pool = {"average": torch.mean, "max": torch.amax}[pooling]
        self.reduction = nn.Linear(channels, embedding_dim)
        self.bn = nn.BatchNorm1d(embedding_dim)
        self.classifier = nn.Linear(embedding_dim, num_classes)

    def forward(
        self, features: torch.Tensor, record: bool = True
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, C, h, w) to embedding and logits.

        Without `record`, batch norm uses the batch's statistics, as in training, but does not store
        them.
        """
        x = self.reduction(self.pool(features, (2, 3)))
        if record:
            x = self.bn(x)
        else:
            x = F.batch_norm(x, None, None, self.bn.weight, self.bn.bias, True, eps=self.bn.eps)
        embedding = F.relu(x)
        return embedding, self.classifier(embedding)


class Projection(nn.Module):
    """`reid_jax.models.bilinear.Projection`, over maps."""

    def __init__(self, channels: int, features: int):
        super().__init__()
        self.linear = nn.Conv2d(channels, features, 1, bias=False)
        self.bn = nn.BatchNorm2d(features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w) to (B, features, h, w)."""
        return self.bn(self.linear(x))


class BFP(nn.Module):
    """`reid_jax.models.bilinear.BFP`."""

    def __init__(self, channels: tuple[int, int], correlation_dim: int, perception_dim: int):
        super().__init__()
        self.mask_x, self.mask_y = (nn.Conv2d(count, 1, 1) for count in channels)
        self.u, self.v = (Projection(count, correlation_dim) for count in channels)
        self.u_prime, self.v_prime = (Projection(count, perception_dim) for count in channels)
        self.p_x, self.p_y = (Projection(perception_dim, count) for count in channels)
        self.p = nn.Parameter(torch.zeros(correlation_dim))

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Two maps of one size, (B, C, h, w), to two maps of the same shapes."""
        x, y = torch.sigmoid(self.mask_x(x)) * x, torch.sigmoid(self.mask_y(y)) * y
        # Rows of locations and channels, which channels_last has without a copy.
        weighted, other = (
            F.relu(projected).permute(0, 2, 3, 1).flatten(1, 2)
            for projected in (self.u(x), self.v(y))
        )
        with torch.autocast(x.device.type, enabled=False):
            weighted, other = weighted.to(self.p.dtype) * self.p, other.to(self.p.dtype)
            correlation = weighted @ other.transpose(1, 2)
        from_x, from_y = (c.softmax(1) for c in (correlation, correlation.transpose(1, 2)))
        x, y = F.relu(self.u_prime(x)), F.relu(self.v_prime(y))

        def sent(weights, features):
            rows = features.permute(0, 2, 3, 1).flatten(1, 2)
            received = weights.transpose(1, 2).to(rows.dtype) @ rows
            return received.unflatten(1, features.shape[2:]).permute(0, 3, 1, 2)

        return self.p_x(x * sent(from_y, y)), self.p_y(y * sent(from_x, x))
