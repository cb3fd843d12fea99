import importlib
import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reid_jax import models
from reid_jax.data.augment import normalize
from reid_jax.evaluation import descriptors
from reid_jax.evaluation.descriptors import descriptor_face, extract, pmap_face
from reid_jax.models.convolutions import conv, pointwise
from reid_jax.models.normalization import BatchNorm
from reid_jax.runtime import progress
from tests import reference


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
    """The split has two parts, of which the first has one image more than is requested."""
    face = descriptor_face(Means(), jax.devices()[:devices])
    parts = [(Array(images[:8]), 7), (Array(images[7:]), 4)]
    got = extract(face, {}, parts, batch_size, devices=jax.devices()[:devices])
    want = np.asarray(normalize(jnp.array(images)), np.float64).mean(axis=(1, 2))
    assert got.shape == (11, 3)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


class LeftHalf(nn.Module):
    """A network that distinguishes an image from its mirror image."""

    def __call__(self, images):
        return images[:, :, :2].mean(axis=(1, 2))


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("unit_length", [False, True])
def test_flip_averaging_and_unit_length(images, flip, unit_length):
    images[3] = 0
    face = descriptor_face(LeftHalf(), jax.devices(), flip=flip, unit_length=unit_length)
    got = face({}, images[:8])
    want = np.asarray(normalize(jnp.array(images[:8])), np.float64)
    want = want.mean(axis=(1, 2)) if flip else want[:, :, :2].mean(axis=(1, 2))
    if unit_length:
        want /= np.linalg.norm(want, axis=1, keepdims=True)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


class Zeros(nn.Module):
    def __call__(self, images):
        return jnp.zeros((images.shape[0], 3))


def test_a_descriptor_of_zeros_has_no_length_to_divide_by(images):
    face = descriptor_face(Zeros(), jax.devices()[:1], unit_length=True)
    np.testing.assert_array_equal(face({}, images), np.zeros((11, 3)))


def test_long_extraction_says_how_far_it_is(images, monkeypatch):
    monkeypatch.setattr(progress, "PERIOD", -1.0)
    lines = []
    face = descriptor_face(Means(), jax.devices()[:1])
    extract(face, {}, [(Array(images), 11)], 4, lines.append, devices=jax.devices()[:1])
    assert [line.split(" images")[0] for line in lines] == [
        "described 4 of 11",
        "described 8 of 11",
        "described 11 of 11",
    ]
    assert all("images/s  ETA 0:00:0" in line for line in lines)


def test_few_batches_are_under_way(images):
    """With many images, only some are decoded and on the devices at a time."""
    asked, taken = [], []

    class Counting(Array):
        def batches(self, index_batches):
            for index in index_batches:
                asked.append(len(index))
                yield self._images[index]

    def face(variables, batch):
        return Row(batch)

    class Row:
        def __init__(self, batch):
            self.batch = batch

        def __array__(self, dtype=None, copy=None):
            taken.append(len(self.batch))
            assert len(asked) - len(taken) < 4
            return self.batch.mean(axis=(1, 2)).astype(np.float32)

    got = extract(face, {}, [(Counting(images), 11)], 1, devices=jax.devices()[:1])
    assert got.shape == (11, 3)
    assert len(taken) == 11


def test_other_faces(images):
    face = pmap_face(Means(), jax.devices(), "gradcams")
    maps = face({}, images[:8])
    assert maps.shape == (8, 1, 6, 4)
    np.testing.assert_allclose(maps, normalize(jnp.array(images[:8]))[:, None, :, :, 0], atol=1e-6)


class Wide(nn.Module):
    """A network with a 3x3 kernel that CPUs run by tiles, and a batch norm after it."""

    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, images):
        x = pointwise(64, dtype=self.dtype, name="widen")(images)
        x = conv(64, 3, 1, dtype=self.dtype, name="conv1")(x)
        x = BatchNorm(train=False, dtype=self.dtype, name="bn1")(x)
        return x.mean(axis=(1, 2)).astype(jnp.float32)


@pytest.mark.parametrize(
    ("dtype", "platform", "transforms"),
    [("float32", "cpu", True), ("float32", "cuda", False), ("bfloat16", "cpu", None)],
)
def test_weights_are_those_that_take_least_time(rng, monkeypatch, dtype, platform, transforms):
    monkeypatch.setattr(descriptors, "place", lambda tree, devices: tree)
    network, images = Wide(jnp.dtype(dtype)), jnp.zeros((2, 96, 64, 3))
    shapes = jax.eval_shape(network.init, jax.random.key(0), images)
    variables = reference.random_variables(dict(shapes), rng)
    device = types.SimpleNamespace(platform=platform)
    weights = descriptors.descriptor_weights(network, variables, [device])
    if transforms is None:
        assert weights["params"]["conv1"]["kernel"].dtype == jnp.bfloat16
        assert weights["params"]["bn1"] == variables["params"]["bn1"]
        return
    assert "scale" not in weights["params"]["bn1"]
    assert ("transformed" in weights) == transforms
    face = jax.jit(descriptors.descriptor_function(network))
    pixels = rng.integers(0, 256, (2, 96, 64, 3)).astype(np.uint8)
    got, want = np.asarray(face(weights, pixels)), np.asarray(face(variables, pixels))
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * np.abs(want).max())
    # The program reads either a kernel or its transform.
    reads_kernel = "tensor<3x3x64x64xf32>" in face.lower(weights, pixels).as_text()
    assert reads_kernel == (not transforms)


@pytest.mark.parametrize("name", ["pmm", "bdb", "hbfp", "strong"])
def test_rounded_kernels_give_the_same_bits(rng, name):
    module = importlib.import_module(f"reid_jax.configs.{name}_synthetic")
    config = module.get_config("small")
    config.model.dtype = "bfloat16"
    network, size = models.create(config.model, 5), tuple(config.data.image_size)
    images = rng.integers(0, 256, (2, *size, 3)).astype(np.uint8)
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((2, *size, 3)))
    variables = reference.random_variables(dict(shapes), rng)
    weights = descriptors.descriptor_weights(network, variables, jax.devices()[:1])
    kernels = {leaf.dtype for leaf in jax.tree.leaves(weights["params"]) if leaf.ndim == 4}
    assert kernels == {jnp.dtype(jnp.bfloat16)}
    face = jax.jit(descriptors.descriptor_function(network))
    np.testing.assert_array_equal(face(weights, images), face(variables, images))
