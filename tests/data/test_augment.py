import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from reid_jax.data import augment


def test_normalize_equals_float64(rng):
    images = rng.integers(0, 256, (2, 5, 4, 3)).astype(np.uint8)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    want = (images / 255.0 - mean) / std
    np.testing.assert_allclose(augment.normalize(jnp.array(images)), want, rtol=1e-5, atol=1e-6)


def test_flip_has_its_probability_and_mirrors(rng):
    image = rng.normal(size=(4, 6, 3)).astype(np.float32)
    keys = jax.random.split(jax.random.key(0), 2000)
    out = jax.vmap(augment.random_flip, in_axes=(0, None, None))(keys, image, 0.3)
    flipped = np.all(np.asarray(out) == image[:, ::-1], axis=(1, 2, 3))
    same = np.all(np.asarray(out) == image, axis=(1, 2, 3))
    assert np.all(flipped ^ same)
    assert abs(flipped.mean() - 0.3) < 5 * np.sqrt(0.3 * 0.7 / 2000)


def test_cutout_is_one_whole_square_anywhere(rng):
    image = np.abs(rng.normal(size=(12, 8, 3)).astype(np.float32)) + 1
    keys = jax.random.split(jax.random.key(1), 3000)
    out = jax.vmap(augment.cutout, in_axes=(0, None, None, None))(keys, image, 0.5, 4)
    hole = np.all(np.asarray(out) == 0, axis=-1)
    assert np.all(np.isin(hole.sum(axis=(1, 2)), [0, 16]))
    cut = hole.any(axis=(1, 2))
    assert abs(cut.mean() - 0.5) < 5 * np.sqrt(0.25 / 3000)
    tops = hole[cut].any(axis=2).argmax(axis=1)
    lefts = hole[cut].any(axis=1).argmax(axis=1)
    for values, places in ((tops, 9), (lefts, 5)):
        counts = np.bincount(values, minlength=places)
        assert len(counts) == places
        assert np.all(np.abs(counts - cut.sum() / places) < 5 * np.sqrt(cut.sum() / places))
    # A square: every hole spans exactly four rows and four columns.
    assert np.all(hole[cut].any(axis=2).sum(axis=1) == 4)
    assert np.all(hole[cut].any(axis=1).sum(axis=1) == 4)


CONFIG = ConfigDict({"flip": 0.5, "cutout_probability": 0.5, "cutout_size": 4})


def test_augmentation_does_not_depend_on_the_number_of_devices(rng):
    images = rng.integers(0, 256, (8, 12, 8, 3)).astype(np.uint8)
    key = jax.random.key(2)
    whole = jax.jit(lambda x: augment.augment(key, x, CONFIG))(images)
    parts = jax.pmap(lambda x: augment.augment(key, x, CONFIG, "batch"), axis_name="batch")(
        images.reshape(4, 2, 12, 8, 3)
    )
    np.testing.assert_allclose(np.asarray(parts).reshape(whole.shape), whole, atol=1e-6)


@pytest.mark.parametrize(
    ("leaf", "value"), [("flip", 1.5), ("cutout_probability", -0.1), ("cutout_size", 9)]
)
def test_check_names_the_leaf(leaf, value):
    config = ConfigDict({**CONFIG, leaf: value})
    augment.check(CONFIG, (12, 8))
    with pytest.raises(ValueError, match=rf"augment\.{leaf}"):
        augment.check(config, (12, 8))
