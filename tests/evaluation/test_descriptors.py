import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reid_jax.data.augment import normalize
from reid_jax.evaluation.descriptors import extract, pmap_face


class Means(nn.Module):
    """A network whose descriptor is the mean colour."""

    def __call__(self, images):
        return images.mean(axis=(1, 2))

    def gradcams(self, images):
        return images[:, None, :, :, 0]


class Array:
    """Images from an array."""

    def __init__(self, images):
        self._images = images

    def batches(self, index_batches):
        return (self._images[index] for index in index_batches)


@pytest.fixture
def images(rng):
    return rng.integers(0, 256, (11, 6, 4, 3)).astype(np.uint8)


@pytest.mark.parametrize(("devices", "batch_size"), [(1, 4), (1, 16), (4, 4), (4, 8)])
def test_no_image_is_lost_and_none_is_added(images, devices, batch_size):
    face = pmap_face(Means(), jax.devices()[:devices])
    got = extract(face, {}, Array(images), len(images), batch_size)
    want = np.asarray(normalize(jnp.array(images)), np.float64).mean(axis=(1, 2))
    assert got.shape == (11, 3)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_other_faces(images):
    face = pmap_face(Means(), jax.devices(), "gradcams")
    maps = face({}, images[:8])
    assert maps.shape == (8, 1, 6, 4)
    np.testing.assert_allclose(maps, normalize(jnp.array(images[:8]))[:, None, :, :, 0], atol=1e-6)
