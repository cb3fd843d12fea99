"""ResNet v1.5 trunk (He et al., 2016), as torchvision has it: strides are on 3x3 convolutions.

Both papers take ResNet-50 and keep the last stage's resolution: 384x128 images give maps of 24x8
cells.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from reid_jax.models.normalization import BatchNorm
from reid_jax.models.stem_pool import stem_pool

EXPANSION = 4


def kaiming_fan_out(key: jax.Array, shape: Sequence[int], dtype=jnp.float32) -> jax.Array:
    """Normal, of variance 2 / fan-out (He et al., 2015), for kernels (..., inputs, outputs).

    Bit for bit `variance_scaling(2.0, "fan_out", "normal")`, but drawn in one axis: XLA compiles
    the generator two to three times as fast for it as for a kernel's four.
    """
    size = math.prod(shape)
    variance = jnp.array(2.0 * shape[-2] / size, dtype)
    return jax.random.normal(key, (size,), dtype).reshape(shape) * jnp.sqrt(variance)


def conv(features: int, kernel: int, stride: int, *, dtype, name: str) -> nn.Conv:
    """A convolution without bias, padded as PyTorch pads: (kernel - 1) // 2 on both sides."""
    padding = (kernel - 1) // 2
    return nn.Conv(
        features,
        (kernel, kernel),
        strides=stride,
        padding=((padding, padding), (padding, padding)),
        use_bias=False,
        dtype=dtype,
        kernel_init=kaiming_fan_out,
        name=name,
    )


def pointwise(features: int, *, dtype, name: str) -> nn.Dense:
    """A 1x1 convolution as the matrix product it is: XLA's gradients of it are faster on CPUs."""
    return nn.Dense(
        features,
        use_bias=False,
        dtype=dtype,
        kernel_init=kaiming_fan_out,
        name=name,
        dot_general=_product_of_rows,
    )


def _product_of_rows(x, kernel, dimension_numbers, **options):
    """(..., C) times (C, D), all locations in one axis.

    XLA copies and transposes a map before its weight gradient sums over several axes, not over one.
    """
    rows = jax.lax.dot_general(
        x.reshape(-1, x.shape[-1]), kernel, (((1,), (0,)), ((), ())), **options
    )
    return rows.reshape(*x.shape[:-1], -1)


class Bottleneck(nn.Module):
    """1x1 down to `features`, 3x3 with the stride, 1x1 up to 4 `features`, added to the shortcut.

    The shortcut is a 1x1 projection where shape changes, the input itself elsewhere.
    """

    features: int
    stride: int = 1
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """(B, H, W, C) to (B, H / stride, W / stride, 4 features)."""

        def norm(name):
            return BatchNorm(train=train, dtype=self.dtype, axis_name=self.axis_name, name=name)

        width = self.features * EXPANSION
        y = nn.relu(norm("bn1")(pointwise(self.features, dtype=self.dtype, name="conv1")(x)))
        y = conv(self.features, 3, self.stride, dtype=self.dtype, name="conv2")(y)
        y = nn.relu(norm("bn2")(y))
        y = norm("bn3")(pointwise(width, dtype=self.dtype, name="conv3")(y))
        if self.stride != 1 or x.shape[-1] != width:
            if self.stride != 1:
                # Indexing would gather where the batch's size is symbolic, as it is in an export.
                x = jax.lax.slice(x, (0, 0, 0, 0), x.shape, (1, self.stride, self.stride, 1))
            x = pointwise(width, dtype=self.dtype, name="downsample_conv")(x)
            x = norm("downsample_bn")(x)
        return nn.relu(x + y)


class TrunkMaps(NamedTuple):
    """Maps of the trunk, each (B, H, W, C), named as the papers name ResNet's stages."""

    res4_1: jax.Array  # after the first block of res4
    res4: jax.Array
    res5: jax.Array


class ResNet(nn.Module):
    """The trunk, from normalised images to maps.

    Attributes:
        depths: bottlenecks in res2, res3, res4 and res5. ResNet-50 has (3, 4, 6, 3).
        width: channels of the stem; res2 to res5 have 4, 8, 16 and 32 times as many.
        strides: of res2 to res5.
        dtype: of the computation; parameters and batch statistics are float32.
        axis_name: the pmapped axis whose devices share a batch, or None.
    """

    depths: Sequence[int] = (3, 4, 6, 3)
    width: int = 64
    strides: Sequence[int] = (1, 2, 2, 1)
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @property
    def features(self) -> int:
        """Channels of the last map: 2048 for ResNet-50."""
        return self.width * 8 * EXPANSION

    def map_size(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) of the last map for images of (height, width)."""
        for stride in (2, 2, *self.strides):
            image_size = tuple(-(-size // stride) for size in image_size)
        return image_size

    def check(self, image_size: tuple[int, int]) -> None:
        """Raises ValueError, naming the config leaves, for images smaller than a cell of a map."""
        cell = 4 * math.prod(self.strides)
        if min(image_size) < cell:
            raise ValueError(
                f"data.image_size is {tuple(image_size)}; both sides must be at least the {cell} "
                f"pixels that a cell of the trunk's map stands for (model.trunk.strides "
                f"{tuple(self.strides)})"
            )

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> TrunkMaps:
        """(B, H, W, 3) float32 to maps; in `train` batch norm takes the batch's statistics."""
        x = conv(self.width, 7, 2, dtype=self.dtype, name="conv1")(images)
        x = BatchNorm(train=train, dtype=self.dtype, axis_name=self.axis_name, name="bn1")(x)
        x = stem_pool(nn.relu(x))
        maps = {}
        for stage, (depth, stride) in enumerate(zip(self.depths, self.strides, strict=True)):
            for block in range(depth):
                x = Bottleneck(
                    features=self.width * 2**stage,
                    stride=stride if block == 0 else 1,
                    dtype=self.dtype,
                    axis_name=self.axis_name,
                    name=f"layer{stage + 1}_{block}",
                )(x, train)
                maps[stage + 2, block + 1] = x
        return TrunkMaps(maps[4, 1], maps[4, self.depths[2]], x)
