import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reid_jax.gradcam import gradcam
from reid_jax.models.heads import StageHead
from tests import reference


@pytest.fixture
def head_and_map(rng):
    """A head with random parameters, a map with distinct maxima, and labels."""

    def build(pooling):
        head = StageHead(pooling=pooling, embedding_dim=7, num_classes=5)
        features = rng.normal(0.3, 1, (4, 3, 2, 6)).astype(np.float32)
        variables = head.init(jax.random.key(0), jnp.array(features), train=False)
        variables = jax.tree.map(
            lambda x: jnp.array(x + 0.3 * rng.normal(size=x.shape), jnp.float32), variables
        )
        return head, variables, features, np.array([0, 3, 1, 3], np.int32)

    return build


@pytest.mark.parametrize("pooling", ["average", "max"])
@pytest.mark.parametrize("train", [True, False])
def test_equals_finite_differences_of_a_numpy_head(head_and_map, pooling, train):
    """Also in training mode, in which batch norm lets the gradient cross images."""
    head, variables, features, labels = head_and_map(pooling)
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), variables["params"])
    stats = jax.tree.map(lambda x: np.asarray(x, np.float64), variables["batch_stats"])
    stats["bn"]["var"] = np.abs(stats["bn"]["var"])
    variables = {"params": variables["params"], "batch_stats": jax.tree.map(jnp.float32, stats)}

    def true_logits(x):
        _, logits = reference.stage_head(x, params, pooling, None if train else stats)
        return logits[np.arange(4), labels].sum()

    gradient = reference.numerical_gradient(true_logits, features.astype(np.float64))
    weights = gradient.mean(axis=(1, 2))
    want = np.zeros((4, 3, 2))
    for b, h, w in np.ndindex(want.shape):
        want[b, h, w] = max(0.0, (weights[b] * features[b, h, w]).sum())

    def logits_of(x):
        return head.apply(variables, x, train=train, mutable=["batch_stats"])[0].logits

    got = jax.jit(lambda x: gradcam(logits_of, x, labels))(features)
    assert want.max() > 0
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5 * want.max())


def test_no_gradient_leaves_the_cam(head_and_map):
    head, variables, features, labels = head_and_map("max")

    def total(variables, x):
        def logits_of(y):
            return head.apply(variables, y, train=True, mutable=["batch_stats"])[0].logits

        return gradcam(logits_of, x, labels).sum()

    value, gradients = jax.jit(jax.value_and_grad(total, argnums=(0, 1)))(variables, features)
    assert value > 0
    assert all(np.all(np.asarray(x) == 0) for x in jax.tree.leaves(gradients))


def test_four_devices_share_batch_norm(head_and_map):
    head, variables, features, labels = head_and_map("max")
    parallel = head.clone(axis_name="batch")

    def cam(module, x, y):
        def logits_of(z):
            return module.apply(variables, z, train=True, mutable=["batch_stats"])[0].logits

        return gradcam(logits_of, x, y)

    parts = jax.pmap(lambda x, y: cam(parallel, x, y), axis_name="batch")(
        features[:, None], labels[:, None]
    )
    np.testing.assert_allclose(parts[:, 0], cam(head, features, labels), rtol=1e-4, atol=1e-6)


def test_bfloat16_maps_give_float32_cams(standard_promotion, rng):
    features = jnp.array(rng.normal(size=(2, 3, 2, 4)), jnp.bfloat16)
    kernel = jnp.array(rng.normal(size=(4, 3)), jnp.bfloat16)
    labels = jnp.array([0, 2], jnp.int32)
    cam = gradcam(lambda x: (x.mean((1, 2)) @ kernel).astype(jnp.float32), features, labels)
    assert cam.dtype == jnp.float32
    assert np.all(np.isfinite(cam))
