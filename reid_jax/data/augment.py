"""Augmentation on the device: pure functions of key and images. Needs no TensorFlow.

Images arrive as uint8 (B, H, W, 3). Each image has its own key, a function of its place in the
whole batch, so the result does not depend on how many devices share the batch.
"""

import jax
import jax.numpy as jnp

from reid_jax.recipe import AugmentConfig
from reid_jax.rectangles import inside
from reid_jax.runtime import collectives

# ImageNet statistics of RGB in [0, 1].
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

# Weights of red, green and blue in an image's luma (ITU-R BT.601).
LUMA = (0.299, 0.587, 0.114)

# Random rectangles that erasing tries before it leaves an image unchanged.
_DRAWS = 100


def normalize(images: jax.Array) -> jax.Array:
    """Convert uint8 (B, H, W, 3) to float32 with ImageNet's mean 0 and deviation 1 per channel."""
    scale = 1.0 / (255.0 * jnp.array(STD, jnp.float32))
    shift = jnp.array(MEAN, jnp.float32) / jnp.array(STD, jnp.float32)
    return images.astype(jnp.float32) * scale.reshape(1, 1, 1, 3) - shift.reshape(1, 1, 1, 3)


def random_flip(key: jax.Array, image: jax.Array, probability: float) -> jax.Array:
    """Mirror the image (H, W, 3) left to right with `probability`."""
    return jnp.where(jax.random.bernoulli(key, float(probability)), image[:, ::-1], image)


def cutout(key: jax.Array, image: jax.Array, probability: float, size: int) -> jax.Array:
    """With `probability`, set one `size` x `size` square inside the image (H, W, 3) to 0.

    Applied after normalisation, so 0 is ImageNet's mean colour (DeVries and Taylor, 2017, as in
    BDB's program).
    """
    height, width, _ = image.shape
    apply_key, row_key, column_key = jax.random.split(key, 3)
    top = jax.random.randint(row_key, (), 0, height - size + 1)
    left = jax.random.randint(column_key, (), 0, width - size + 1)
    hole = jax.random.bernoulli(apply_key, float(probability))
    return _erased(image, hole, top, left, size, size)


def random_erasing(
    key: jax.Array,
    image: jax.Array,
    probability: float,
    area: tuple[float, float],
    aspect: tuple[float, float],
) -> jax.Array:
    """With `probability`, set one rectangle inside the image (H, W, 3) to 0 (Zhong et al., 2020).

    The rectangle's share of the image is uniform over `area`, and its height divided by its width
    uniform over `aspect`. A rectangle that does not fit is drawn again, at most a hundred times, as
    in the authors' program. Its place is uniform. Applied after normalisation, so 0 is ImageNet's
    mean colour.
    """
    height, width, _ = image.shape
    apply_key, area_key, aspect_key, row_key, column_key = jax.random.split(key, 5)
    # Draw all at once: the first that fits is the one that drawing in turn would use.
    areas = height * width * jax.random.uniform(area_key, (_DRAWS,), minval=area[0], maxval=area[1])
    ratios = jax.random.uniform(aspect_key, (_DRAWS,), minval=aspect[0], maxval=aspect[1])
    heights = jnp.round(jnp.sqrt(areas * ratios)).astype(jnp.int32)
    widths = jnp.round(jnp.sqrt(areas / ratios)).astype(jnp.int32)
    fits = (heights < height) & (widths < width)
    first = fits.argmax()
    size = heights[first], widths[first]
    hole = jax.random.bernoulli(apply_key, float(probability)) & fits[first]
    top = jax.random.randint(row_key, (), 0, height - size[0] + 1)
    left = jax.random.randint(column_key, (), 0, width - size[1] + 1)
    return _erased(image, hole, top, left, *size)


def _erased(image: jax.Array, hole, top, left, height, width) -> jax.Array:
    """The image (H, W, 3) with a rectangle set to 0, if there is a hole."""
    rows, columns, channels = image.shape
    # Rows of W * 3 numbers: a program for CPUs that goes through three channels at a time takes
    # almost twice as long.
    cells = rows, columns * channels
    erased = inside(cells, top, left * channels, height, width * channels) & hole
    return jnp.where(erased, 0.0, image.reshape(cells)).reshape(image.shape)


def random_crop(key: jax.Array, image: jax.Array, padding: int) -> jax.Array:
    """Shift the image (H, W, 3) by at most `padding` pixels in each direction.

    All sides are padded with `padding` zeros, and a crop of the original size is taken at a
    uniformly random place (He et al., 2016, section 4.2). Applied after normalisation, so 0 is
    ImageNet's mean colour.
    """
    padded = jnp.pad(image, ((padding, padding), (padding, padding), (0, 0)))
    row_key, column_key = jax.random.split(key)
    top = jax.random.randint(row_key, (), 0, 2 * padding + 1)
    left = jax.random.randint(column_key, (), 0, 2 * padding + 1)
    return jax.lax.dynamic_slice(padded, (top, left, 0), image.shape)


def color_jitter(
    key: jax.Array, image: jax.Array, brightness: float, contrast: float, saturation: float
) -> jax.Array:
    """Change brightness, contrast and saturation of a normalised image (H, W, 3) at random.

    The formulas are those of torchvision's `ColorJitter`, for RGB in [0, 1] and clipped to that
    range after each step, but the order is fixed:

        x = brightness x
        x = mean(luma(x)) + contrast (x - mean(luma(x)))
        x = luma(x) + saturation (x - luma(x))

    Each factor is uniform over [1 - s, 1 + s].

    Args:
        key: typed key.
        image: (H, W, 3) float32, from `normalize`.
        brightness: s of the brightness factor, in [0, 1]; 0 leaves the brightness unchanged.
        contrast: s of the contrast factor, likewise.
        saturation: s of the saturation factor, likewise.

    Returns:
        (H, W, 3) float32, normalised.
    """
    mean, std = jnp.array(MEAN, jnp.float32), jnp.array(STD, jnp.float32)
    image = image * std.reshape(1, 1, 3) + mean.reshape(1, 1, 3)
    strengths = jnp.array([brightness, contrast, saturation], jnp.float32)
    factors = 1.0 + strengths * jax.random.uniform(key, (3,), minval=-1.0, maxval=1.0)

    def luma(image):
        return (image * jnp.array(LUMA, jnp.float32).reshape(1, 1, 3)).sum(axis=-1, keepdims=True)

    image = jnp.clip(image * factors[0], 0.0, 1.0)
    grey = luma(image).mean()
    image = jnp.clip(grey + factors[1] * (image - grey), 0.0, 1.0)
    image = jnp.clip(luma(image) + factors[2] * (image - luma(image)), 0.0, 1.0)
    return (image - mean.reshape(1, 1, 3)) / std.reshape(1, 1, 3)


def augment(
    key: jax.Array, images: jax.Array, config: AugmentConfig, axis_name: str | None = None
) -> jax.Array:
    """Flip, normalise, jitter, crop, erase and cut out in this device's part of a batch.

    Args:
        key: typed key, equal on all devices.
        images: (b, H, W, 3) uint8.
        config: a recipe's `augment`: probabilities in [0, 1] of `flip`, `erasing_probability` and
            `cutout_probability`; `erasing_area`, least and largest share of an image;
            `erasing_aspect`, least and largest height by width; `cutout_size` and `crop_padding`
            in pixels; `brightness`, `contrast` and `saturation`, see `color_jitter`.
        axis_name: the pmapped axis, or None.

    Returns:
        (b, H, W, 3) float32.
    """

    def one(key, image):
        flip_key, cutout_key, erasing_key = jax.random.split(key, 3)
        # Use other keys than those above, so that recipes without jitter and crop draw the same
        # numbers as before. `fold_in` with 0, 1 or 2 would return one of those three keys.
        color_key, crop_key = (jax.random.fold_in(key, stream) for stream in (3, 4))
        image = normalize(random_flip(flip_key, image, config.flip)[None])[0]
        if config.brightness or config.contrast or config.saturation:
            image = color_jitter(
                color_key, image, config.brightness, config.contrast, config.saturation
            )
        if config.crop_padding:
            image = random_crop(crop_key, image, config.crop_padding)
        if config.erasing_probability:
            image = random_erasing(
                erasing_key,
                image,
                config.erasing_probability,
                config.erasing_area,
                config.erasing_aspect,
            )
        if config.cutout_probability:
            image = cutout(cutout_key, image, config.cutout_probability, config.cutout_size)
        return image

    return jax.vmap(one)(collectives.batch_keys(key, images.shape[0], axis_name), images)
