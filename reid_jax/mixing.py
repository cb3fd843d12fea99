"""Attentive Hard-Mix (PMM section 2.2) and the image mixing that PMM's paper compares with it.

Attentive Hard-Mix replaces the most salient blocks of a map by those of another identity. CutMix
and Attentive CutMix paste a part of another identity's image, and mix its label in as well.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from reid_jax.rectangles import inside
from reid_jax.runtime import collectives


class Mixture(NamedTuple):
    """The second identity in mixed images, whose part was pasted."""

    labels: jax.Array  # (b,) int32, the donor's identity
    share: jax.Array  # (b,) float32, the donor's share of the image, in [0, 1]


def check_blocks(map_size: tuple[int, int], block: tuple[int, int], top_k: int) -> None:
    """Raise ValueError if blocks do not tile a map, or if `top_k` exceeds their number."""
    (height, width), (block_height, block_width) = map_size, block
    if block_height < 1 or block_width < 1:
        raise ValueError(f"model.block is {tuple(block)}; both sides must be at least 1")
    if height % block_height or width % block_width:
        raise ValueError(
            f"blocks of {block_height}x{block_width} cells (model.block) do not tile a map of "
            f"{height}x{width} cells: choose model.block or data.image_size so that they do"
        )
    count = (height // block_height) * (width // block_width)
    if not 0 < top_k <= count:
        raise ValueError(
            f"model.top_k is {top_k}, but a map of {height}x{width} cells has {count} blocks of "
            f"{block_height}x{block_width}"
        )


def block_mask(cam: jax.Array, block: tuple[int, int], top_k: int) -> jax.Array:
    """Block ranking, PMM equation 1: 0 over the `top_k` blocks with the largest sum, 1 elsewhere.

    Among blocks with equal sums, the first in row-major order ranks highest.

    Args:
        cam: (B, H, W) float32.
        block: (height, width) of a block in cells of the map.
        top_k: K, the number of blocks to mask.

    Returns:
        (B, H, W) float32 of zeros and ones.

    Raises:
        ValueError: blocks do not tile the map, or K is not between 1 and the number of blocks.
    """
    batch, height, width = cam.shape
    check_blocks((height, width), block, top_k)
    rows, columns = height // block[0], width // block[1]
    sums = cam.reshape(batch, rows, block[0], columns, block[1]).sum(axis=(2, 4))
    _, top = jax.lax.top_k(sums.reshape(batch, -1), top_k)
    kept = 1.0 - jax.nn.one_hot(top, rows * columns).sum(axis=1)
    return jnp.repeat(jnp.repeat(kept.reshape(batch, rows, columns), block[0], 1), block[1], 2)


def partners(key: jax.Array, labels: jax.Array, axis_name: str | None = None) -> jax.Array:
    """For each image, a uniformly random image of another identity in the whole batch.

    Every device draws for the whole batch, so the result does not depend on the number of devices.
    The batch must hold at least two identities; the sampler guarantees that.

    Args:
        key: typed key, equal on all devices.
        labels: (b,) int32, this device's identities.
        axis_name: the pmapped axis, or None.

    Returns:
        (b,) int32 places in the whole batch.
    """
    everyone = collectives.gather(labels, axis_name)
    other = everyone[:, None] != everyone[None, :]
    chosen = jax.random.categorical(key, jnp.where(other, 0.0, -jnp.inf))
    return collectives.own_rows(chosen, axis_name)


def hard_mix(
    features: jax.Array, mask: jax.Array, partner: jax.Array, axis_name: str | None = None
) -> jax.Array:
    """Feature Hard-Mix, PMM equation 2: f~ = m * f_a + (1 - m) * f_n, at the same place in the map.

    The same equation mixes images in CutMix and Attentive CutMix, with other masks.

    Args:
        features: (b, H, W, C), this device's maps or images.
        mask: (b, H, W), 1 where the image's own features are kept.
        partner: (b,) int32 places in the whole batch, from `partners`.
        axis_name: the pmapped axis, or None.

    Returns:
        (b, H, W, C), of the dtype of `features`.
    """
    # GPUs sum the gradients of images with the same partner faster in float32 than in bfloat16.
    everyone = collectives.gather(features, axis_name).astype(jnp.float32)
    donors = everyone[partner].astype(features.dtype)
    return jnp.where(mask[..., None] > 0, features, donors)


def cutmix_mask(keys: jax.Array, size: tuple[int, int]) -> jax.Array:
    """CutMix's boxes (Yun et al., ICCV 2019, equation 2): 0 inside a random box, 1 elsewhere.

    Each image's lambda is uniform in [0, 1), their Beta(1, 1). Height and width of the box are
    sqrt(1 - lambda) of the image's, and its centre is uniform. The part outside the image is cut
    off.

    Args:
        keys: (b,) typed keys, one per image.
        size: (H, W) of the images.

    Returns:
        (b, H, W) float32 of zeros and ones.
    """

    def one(key):
        lambda_key, row_key, column_key = jax.random.split(key, 3)
        ratio = jnp.sqrt(1.0 - jax.random.uniform(lambda_key))
        row, column = (
            jax.random.randint(centre_key, (), 0, extent)
            for extent, centre_key in zip(size, (row_key, column_key), strict=True)
        )
        up, across = (jnp.floor(ratio * extent).astype(jnp.int32) // 2 for extent in size)
        box = inside(size, row - up, column - across, 2 * up, 2 * across)
        return 1.0 - box.astype(jnp.float32)

    return jax.vmap(one)(keys)


def enlarge(mask: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Enlarge a mask (b, h, w) over cells to the pixels (b, H, W) of the cells.

    Raises:
        ValueError: H, W are not multiples of h, w.
    """
    check_cells((mask.shape[1], mask.shape[2]), size)
    rows, columns = (extent // cells for extent, cells in zip(size, mask.shape[1:], strict=True))
    return jnp.repeat(jnp.repeat(mask, rows, axis=1), columns, axis=2)


def check_cells(map_size: tuple[int, int], image_size: tuple[int, int]) -> None:
    """Raise ValueError if the cells of a map do not cover whole numbers of pixels."""
    if any(extent % cells for extent, cells in zip(image_size, map_size, strict=True)):
        raise ValueError(
            f"images of {image_size[0]}x{image_size[1]} pixels (data.image_size) are not a "
            f"multiple of their maps of {map_size[0]}x{map_size[1]} cells, which "
            "model.mixing='attentive_cutmix' needs; change data.image_size"
        )
