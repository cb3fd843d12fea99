"""Augmentation on the device: pure functions of key and images. Needs no TensorFlow.

Images arrive as uint8 (B, H, W, 3). Each image has a key of its own, a function of its place in the
whole batch, so the result does not depend on how many devices share the batch.
"""

import jax
import jax.numpy as jnp

from reid_jax import collectives

# ImageNet statistics of RGB in [0, 1].
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def normalize(images: jax.Array) -> jax.Array:
    """uint8 (B, H, W, 3) to float32 with ImageNet's mean 0 and deviation 1 in each channel."""
    scale = 1.0 / (255.0 * jnp.array(STD, jnp.float32))
    shift = jnp.array(MEAN, jnp.float32) / jnp.array(STD, jnp.float32)
    return images.astype(jnp.float32) * scale.reshape(1, 1, 1, 3) - shift.reshape(1, 1, 1, 3)


def random_flip(key: jax.Array, image: jax.Array, probability: float) -> jax.Array:
    """The image (H, W, 3), mirrored left to right with `probability`."""
    return jnp.where(jax.random.bernoulli(key, probability), image[:, ::-1], image)


def cutout(key: jax.Array, image: jax.Array, probability: float, size: int) -> jax.Array:
    """With `probability`, one `size` x `size` square, wholly inside the image (H, W, 3), becomes 0.

    Applied after normalisation, so 0 is ImageNet's mean colour (DeVries and Taylor, 2017, as BDB's
    program has it).
    """
    height, width, _ = image.shape
    apply_key, row_key, column_key = jax.random.split(key, 3)
    top = jax.random.randint(row_key, (), 0, height - size + 1)
    left = jax.random.randint(column_key, (), 0, width - size + 1)
    rows = (jnp.arange(height) >= top) & (jnp.arange(height) < top + size)
    columns = (jnp.arange(width) >= left) & (jnp.arange(width) < left + size)
    hole = rows[:, None] & columns[None, :] & jax.random.bernoulli(apply_key, probability)
    return jnp.where(hole[:, :, None], 0.0, image)


def augment(key: jax.Array, images: jax.Array, config, axis_name: str | None = None) -> jax.Array:
    """Flip, normalisation and cutout of this device's part of a batch.

    Args:
        key: typed key, equal on all devices.
        images: (b, H, W, 3) uint8.
        config: a recipe's `augment`: `flip` and `cutout_probability` in [0, 1], `cutout_size` in
            pixels.
        axis_name: the pmapped axis, or None.

    Returns:
        (b, H, W, 3) float32.
    """
    keys = jax.vmap(jax.random.split)(collectives.batch_keys(key, images.shape[0], axis_name))
    images = jax.vmap(random_flip, in_axes=(0, 0, None))(keys[:, 0], images, config.flip)
    return jax.vmap(cutout, in_axes=(0, 0, None, None))(
        keys[:, 1], normalize(images), config.cutout_probability, config.cutout_size
    )


def check(config, image_size: tuple[int, int]) -> None:
    """Raises ValueError, naming the config leaf, where augmentation does not fit the image size."""
    for leaf in ("flip", "cutout_probability"):
        if not 0.0 <= config[leaf] <= 1.0:
            raise ValueError(f"augment.{leaf} is {config[leaf]}; it must be between 0 and 1")
    if not 0 < config.cutout_size <= min(image_size):
        raise ValueError(
            f"augment.cutout_size is {config.cutout_size} pixels; it must be between 1 and the "
            f"smaller side of data.image_size {tuple(image_size)}"
        )
