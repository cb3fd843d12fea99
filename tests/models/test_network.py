"""The common parts of all networks, tested with a network of two linear heads."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from reid_jax.models.heads import StageOutput
from reid_jax.models.network import Network, logits_of
from reid_jax.models.resnet import ResNet

CLASSES = 3


class Head(nn.Module):
    """Mean -> linear = embedding -> linear = logits."""

    @nn.compact
    def __call__(self, features, train):
        embedding = nn.Dense(5, name="reduction")(features.mean((1, 2)))
        return StageOutput(embedding, nn.Dense(CLASSES, name="classifier")(embedding))


class Two(Network):
    """The maps are the image, and the image at half the resolution."""

    def setup(self):
        self.heads = [Head(), Head()]

    def maps(self, images, train):
        return images, images[:, ::2, ::2] ** 2


@pytest.fixture
def images(rng):
    return jnp.asarray(rng.normal(size=(2, 4, 6, 3)), jnp.float32)


@pytest.fixture
def network():
    return Two(CLASSES, ResNet(depths=(1, 1, 1, 1), width=4))


@pytest.fixture
def variables(network, images):
    return jax.jit(network.init)(jax.random.key(0), images)


def test_the_descriptor_is_the_embeddings_of_all_heads(network, variables, images):
    outputs = network.apply(
        variables, images, jnp.zeros(2, jnp.int32), jax.random.key(1), method="training"
    )
    got = network.apply(variables, images)
    assert got.shape == (2, 10)
    np.testing.assert_array_equal(got, np.concatenate([x.described for x in outputs], axis=1))


def test_grad_cam_is_the_predicted_class_s_weights_over_each_map(network, variables, images):
    """The heads are linear, so the gradient is the product of their kernels, in float64 NumPy."""
    cams = network.apply(variables, images, method="cams")
    assert [cam.shape for cam in cams] == [(2, 4, 6), (2, 2, 3)]
    maps = [np.float64(images), np.float64(images)[:, ::2, ::2] ** 2]
    for i, (cam, features) in enumerate(zip(cams, maps, strict=True)):
        weights = jax.tree.map(np.float64, variables["params"][f"heads_{i}"])
        kernel = weights["reduction"]["kernel"] @ weights["classifier"]["kernel"]
        bias = weights["reduction"]["bias"] @ weights["classifier"]["kernel"]
        predicted = (features.mean((1, 2)) @ kernel + bias).argmax(1)
        area = features.shape[1] * features.shape[2]
        wanted = np.einsum("bhwc,cb->bhw", features, kernel[:, predicted]) / area
        np.testing.assert_allclose(cam, np.maximum(wanted, 0), atol=1e-6)


def test_maps_of_one_size_are_stacked(network, variables, images):
    with pytest.raises(ValueError, match="same shape"):
        network.apply(variables, images, method="gradcams")

    class Same(Two):
        def maps(self, images, train):
            return images, -images

    same = Same(*(getattr(network, name) for name in ("num_classes", "trunk")))
    assert same.apply(variables, images, method="gradcams").shape == (2, 2, 4, 6)


def test_a_head_s_logits_are_a_pure_function_of_its_map(network, variables, images):
    bound = network.bind(variables)
    logits = logits_of(bound.heads[0], train=False)
    np.testing.assert_array_equal(jax.jit(logits)(images), bound.heads[0](images, False).logits)


def test_the_image_size_has_to_suit_the_trunk(network):
    network.check((64, 32))
    with pytest.raises(ValueError, match=r"data\.image_size"):
        network.check((1, 1))
