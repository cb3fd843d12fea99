"""The ResNet trunk (He et al., 2016), by default in torchvision's version (v1.5).

Both papers use ResNet-50 and keep the last stage's resolution: 384x128 images give maps of 24x8
cells. Settings select other depths and widths, the basic blocks of ResNet-18 and 34, the strides of
the original network (v1) and IBN-a (Pan et al., ECCV 2018).
"""

import math
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from reid_jax.models.convolutions import conv, pointwise
from reid_jax.models.normalization import BatchNorm, InstanceBatchNorm
from reid_jax.models.residual import relu_once
from reid_jax.models.stem_pool import stem_pool


class Block(nn.Module):
    """Base class of both kinds of blocks: a branch, added to the shortcut.

    The shortcut is a 1x1 projection if the shape changes, otherwise the input itself.

    Attributes:
        features: a basic block's channels; a bottleneck's map has four times as many.
        stride: stride of the block's first 3x3 convolution, or of a bottleneck's first 1x1.
        inner: channels between the 1x1 convolutions of a bottleneck; None for `features`.
        stride_in_1x1: whether a bottleneck's stride is on its first 1x1 convolution.
        ibn: whether `bn1` is IBN-a's norm, half of it instance norm.
        dtype: dtype of the computation; parameters and batch statistics are float32.
        axis_name: the pmapped axis whose devices share a batch, or None.
    """

    features: int
    stride: int = 1
    inner: int | None = None
    stride_in_1x1: bool = False
    ibn: bool = False
    dtype: Any = jnp.float32
    axis_name: str | None = None

    expansion: ClassVar[int]  # channels of the block's map, in multiples of `features`

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Map (B, H, W, C) to (B, H / stride, W / stride, expansion * features)."""
        y = self.branch(x, train)
        width = self.features * self.expansion
        if self.stride != 1 or x.shape[-1] != width:
            x = every(x, self.stride)
            x = pointwise(width, dtype=self.dtype, name="downsample_conv")(x)
            x = self.norm("downsample_bn", train)(x)
        return relu_once(x + y)

    @nn.nowrap
    def branch(self, x: jax.Array, train: bool) -> jax.Array:
        """The convolutions: (B, H, W, C) to the map that is added to the shortcut."""
        raise NotImplementedError

    @nn.nowrap
    def norm(self, name: str, train: bool) -> nn.Module:
        """The norm with this name: batch norm, except IBN-a's `bn1`."""
        kind = InstanceBatchNorm if self.ibn and name == "bn1" else BatchNorm
        return kind(train=train, dtype=self.dtype, axis_name=self.axis_name, name=name)


def every(x: jax.Array, stride: int) -> jax.Array:
    """Every `stride`-th row and column of maps (B, H, W, C), as in a 1x1 convolution with a
    stride."""
    if stride == 1:
        return x
    # If the batch size is symbolic, as in an export, indexing would become a gather.
    return jax.lax.slice(x, (0, 0, 0, 0), x.shape, (1, stride, stride, 1))


class Bottleneck(Block):
    """1x1 down to `inner`, 3x3, 1x1 up to 4 `features`: ResNet-50 and deeper."""

    expansion: ClassVar[int] = 4

    @nn.nowrap
    def branch(self, x: jax.Array, train: bool) -> jax.Array:
        """Map (B, H, W, C) to (B, H / stride, W / stride, 4 features)."""
        width = self.features * self.expansion
        inner = self.inner or self.features
        first, second = (self.stride, 1) if self.stride_in_1x1 else (1, self.stride)
        y = pointwise(inner, dtype=self.dtype, name="conv1")(every(x, first))
        y = nn.relu(self.norm("bn1", train)(y))
        y = conv(inner, 3, second, dtype=self.dtype, name="conv2")(y)
        y = nn.relu(self.norm("bn2", train)(y))
        y = pointwise(width, dtype=self.dtype, name="conv3")(y)
        return self.norm("bn3", train)(y)


class BasicBlock(Block):
    """3x3 with the stride, 3x3: ResNet-18 and 34."""

    expansion: ClassVar[int] = 1

    @nn.nowrap
    def branch(self, x: jax.Array, train: bool) -> jax.Array:
        """Map (B, H, W, C) to (B, H / stride, W / stride, features)."""
        y = conv(self.features, 3, self.stride, dtype=self.dtype, name="conv1")(x)
        y = nn.relu(self.norm("bn1", train)(y))
        y = conv(self.features, 3, 1, dtype=self.dtype, name="conv2")(y)
        return self.norm("bn2", train)(y)


BLOCKS = {"bottleneck": Bottleneck, "basic": BasicBlock}


class TrunkMaps(NamedTuple):
    """Maps of the trunk, each (B, H, W, C), named as the papers name ResNet's stages."""

    res4_1: jax.Array  # after the first block of res4
    res4: jax.Array
    res5: jax.Array


class ResNet(nn.Module):
    """The trunk, from normalised images to maps.

    Attributes:
        depths: blocks in res2, res3, res4 and res5. ResNet-50 has (3, 4, 6, 3).
        width: channels of res2's blocks; res3 to res5 have 2, 4 and 8 times as many. Maps of
            bottlenecks have four times these channels.
        stem_width: channels of the stem; 0 for `width`.
        base_width: channels between the 1x1 convolutions of res2's bottlenecks if `width` is 64,
            and in proportion otherwise, as torchvision's `width_per_group`. Wide ResNet has 128.
        strides: strides of res2 to res5.
        stride_in_1x1: whether the stride of a downsampling bottleneck is on its first 1x1
            convolution (v1: the original network, Caffe, Keras) instead of its 3x3 (v1.5).
        block: one of `BLOCKS`. `basic` with depths (2, 2, 2, 2) is ResNet-18, with (3, 4, 6, 3)
            ResNet-34.
        ibn: whether the first norm of every block outside res5 is IBN-a's.
        dtype: dtype of the computation; parameters and batch statistics are float32.
        axis_name: the pmapped axis whose devices share a batch, or None.
    """

    depths: Sequence[int] = (3, 4, 6, 3)
    width: int = 64
    stem_width: int = 0
    base_width: int = 64
    strides: Sequence[int] = (1, 2, 2, 1)
    stride_in_1x1: bool = False
    block: str = "bottleneck"
    ibn: bool = False
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @property
    def features(self) -> int:
        """Channels of the last map: 2048 for ResNet-50, 512 for ResNet-18."""
        return self.width * 8 * BLOCKS[self.block].expansion

    @nn.nowrap
    def block_of(self, stage: int, stride: int = 1, name: str | None = None) -> Block:
        """Create a block like those of res2, ..., res5 (`stage` 1, ..., 4), as a child of the
        caller."""
        features = self.width * 2 ** (stage - 1)
        return BLOCKS[self.block](
            features=features,
            stride=stride,
            inner=features * self.base_width // 64,
            stride_in_1x1=self.stride_in_1x1,
            ibn=self.ibn and stage < 4,
            dtype=self.dtype,
            axis_name=self.axis_name,
            name=name,
        )

    def map_size(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) of the last map for images of (height, width)."""
        height, width = image_size
        for stride in (2, 2, *self.strides):
            height, width = -(-height // stride), -(-width // stride)
        return height, width

    def check(self, image_size: tuple[int, int]) -> None:
        """Raise ValueError, naming the config leaves, if settings contradict each other.

        Images must be at least as large as one cell of a map, and each layer needs a whole number
        of channels.
        """
        cell = 4 * math.prod(self.strides)
        if min(image_size) < cell:
            raise ValueError(
                f"data.image_size is {tuple(image_size)}; both sides must be at least {cell} "
                f"pixels, the size of one cell of the trunk's map (model.trunk.strides "
                f"{tuple(self.strides)})"
            )
        if self.block == "basic" and (self.stride_in_1x1 or self.base_width != 64):
            raise ValueError(
                "model.trunk.block is 'basic', and basic blocks have no 1x1 convolutions: "
                "set model.trunk.stride_in_1x1 to False and model.trunk.base_width to 64"
            )
        if self.width * self.base_width % 64:
            raise ValueError(
                f"model.trunk.width x model.trunk.base_width / 64 is {self.width} x "
                f"{self.base_width} / 64 channels; it must be a whole number"
            )
        if self.ibn and self.width < 2:
            raise ValueError(
                f"model.trunk.width is {self.width}; it must be at least 2, because "
                "model.trunk.ibn halves the channels of norms"
            )

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> TrunkMaps:
        """Map (B, H, W, 3) float32 to maps. If `train`, batch norm uses the batch's statistics."""
        stem = self.stem_width or self.width
        x = conv(stem, 7, 2, dtype=self.dtype, name="conv1")(images)
        x = BatchNorm(train=train, dtype=self.dtype, axis_name=self.axis_name, name="bn1")(x)
        x = stem_pool(nn.relu(x))
        maps = {}
        for stage, (depth, stride) in enumerate(zip(self.depths, self.strides, strict=True), 1):
            for block in range(depth):
                name = f"layer{stage}_{block}"
                x = self.block_of(stage, stride if block == 0 else 1, name)(x, train)
                maps[stage + 1, block + 1] = x
        return TrunkMaps(maps[4, 1], maps[4, self.depths[2]], x)
