import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reid_jax import losses, mixing
from reid_jax.models import PMM, ResNet
from tests import reference

SIZE = (96, 64)  # maps of 6x4 cells: four blocks of 3x2
LABELS = np.array([0, 0, 1, 1, 2, 2], np.int32)


def tiny(**settings):
    """A PMM that compiles in a second or two."""
    settings = {"embedding_dim": 6, "top_k": 2, **settings}
    return PMM(num_classes=5, trunk=ResNet(depths=(1, 1, 1, 1), width=2), **settings)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).normal(size=(6, *SIZE, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def variables(images):
    return tiny().init(jax.random.key(0), jnp.array(images))


@pytest.fixture(scope="module")
def trained(variables, images):
    """Stage outputs and new batch statistics of one training pass."""

    @jax.jit
    def run(variables, images):
        return tiny().apply(
            variables, images, LABELS, jax.random.key(5), method="training", mutable=["batch_stats"]
        )

    return run(variables, images)


def test_training_equals_numpy_in_float64(variables, images, trained):
    """Trunk, extra bottleneck, Grad-CAM by finite differences, ranking, mixing, heads."""
    params = reference.in_float64(variables["params"])
    res5 = reference.resnet(images.astype(np.float64), params["trunk"], (1, 2, 2, 1))
    extra = reference.bottleneck(res5, params["extra"])
    outputs, _ = trained
    features = res5
    for stage, pooling in enumerate(("average", "max", "max")):
        head = params[f"heads_{stage}"]
        embedding, logits = reference.stage_head(features, head, pooling)
        np.testing.assert_allclose(outputs[stage].embedding, embedding, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(outputs[stage].logits, logits, rtol=1e-4, atol=1e-5)
        if stage == 2:
            return
        gradient = _gradient_of_true_logits(features, head, pooling)
        cam = np.maximum(np.einsum("bhwc,bc->bhw", features, gradient.mean(axis=(1, 2))), 0)
        mask = np.asarray(mixing.block_mask(jnp.array(cam, jnp.float32), (3, 2), 2), np.float64)
        key = jax.random.fold_in(jax.random.key(5), stage + 1)
        partner = np.asarray(mixing.partners(key, jnp.array(LABELS)))
        features = mask[..., None] * extra + (1 - mask[..., None]) * extra[partner]


def _gradient_of_true_logits(features, head, pooling):
    """By central differences over what the head sees of the map: its pooled values."""
    batch, height, width, channels = features.shape
    flat = features.reshape(batch, -1, channels)
    pooled = flat.mean(axis=1) if pooling == "average" else flat.max(axis=1)

    def true_logits(x):
        _, logits = reference.stage_head(x[:, None, None, :], head, "average")
        return logits[np.arange(batch), LABELS].sum()

    gradient = reference.numerical_gradient(true_logits, pooled)[:, None]
    if pooling == "average":
        spread = np.broadcast_to(gradient / (height * width), flat.shape)
    else:
        at_maximum = flat == pooled[:, None]
        spread = gradient * at_maximum / at_maximum.sum(axis=1, keepdims=True)
    return spread.reshape(features.shape)


def test_inference_equals_numpy_in_float64(variables, images):
    params, stats = (
        reference.in_float64(variables["params"]),
        reference.in_float64(variables["batch_stats"]),
    )
    res5 = reference.resnet(
        images.astype(np.float64), params["trunk"], (1, 2, 2, 1), stats["trunk"]
    )
    extra = reference.bottleneck(res5, params["extra"], stats=stats["extra"])
    want = np.concatenate(
        [
            reference.stage_head(x, params[name], pooling, stats[name])[0]
            for x, name, pooling in (
                (res5, "heads_0", "average"),
                (extra, "heads_1", "max"),
                (extra, "heads_2", "max"),
            )
        ],
        axis=1,
    )
    got = jax.jit(tiny().apply)(variables, images)
    assert got.shape == (6, 18)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5 * want.max())


def test_later_stages_send_nothing_through_the_cam_to_earlier_heads(variables, images):
    def loss(params, stage):
        outputs, _ = tiny().apply(
            {**variables, "params": params},
            images,
            LABELS,
            jax.random.key(5),
            method="training",
            mutable=["batch_stats"],
        )
        return losses.cross_entropy(outputs[stage].logits, LABELS, 0.1).mean()

    gradients = jax.jit(jax.grad(loss), static_argnums=1)(variables["params"], 2)
    for head in ("heads_0", "heads_1"):
        assert all(np.all(np.asarray(x) == 0) for x in jax.tree.leaves(gradients[head]))
    for part in ("trunk", "extra", "heads_2"):
        assert any(np.any(np.asarray(x) != 0) for x in jax.tree.leaves(gradients[part]))


def test_batch_statistics_are_updated_once(variables, images, trained):
    """Although a head's logits are evaluated for the loss and again for its Grad-CAM."""
    params = reference.in_float64(variables["params"])
    res5 = reference.resnet(images.astype(np.float64), params["trunk"], (1, 2, 2, 1))
    reduction = params["heads_0"]["reduction"]
    x = res5.mean(axis=(1, 2)) @ reduction["kernel"] + reduction["bias"]
    _, updates = trained
    got = updates["batch_stats"]["heads_0"]["bn"]
    np.testing.assert_allclose(got["mean"], 0.1 * x.mean(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(got["var"], 0.9 + 0.1 * x.var(0), rtol=1e-4)


def test_mixing_changes_later_stages_only(variables, images, trained):
    plain, _ = tiny(mixing="none").apply(
        variables, images, LABELS, jax.random.key(5), method="training", mutable=["batch_stats"]
    )
    outputs, _ = trained
    np.testing.assert_allclose(plain[0].logits, outputs[0].logits, rtol=1e-4, atol=1e-5)
    assert not np.allclose(plain[1].logits, outputs[1].logits, rtol=1e-3)


def test_stages_have_partners_of_their_own():
    """Stage II and III fold their number into the key."""
    labels = jnp.arange(32, dtype=jnp.int32)
    keys = [jax.random.fold_in(jax.random.key(5), stage) for stage in (1, 2)]
    first, second = (mixing.partners(key, labels) for key in keys)
    assert np.any(np.asarray(first) != np.asarray(second))


@pytest.mark.parametrize("stages", [1, 2])
def test_fewer_stages(stages, images):
    network = tiny(stages=stages)
    variables = jax.eval_shape(network.init, jax.random.key(0), images)
    assert sum(name.startswith("heads") for name in variables["params"]) == stages
    assert ("extra" in variables["params"]) == (stages > 1)
    assert jax.eval_shape(network.apply, variables, images).shape == (6, 6 * stages)


def test_gradcams_follow_the_predicted_identity(variables, images):
    network = tiny()
    cams = network.apply(variables, images, method="gradcams")
    assert cams.shape == (6, 3, 6, 4)
    assert cams.dtype == jnp.float32
    assert np.all(np.asarray(cams) >= 0)
    assert np.asarray(cams).max() > 0

    params, stats = (
        reference.in_float64(variables["params"]),
        reference.in_float64(variables["batch_stats"]),
    )
    res5 = reference.resnet(
        images.astype(np.float64), params["trunk"], (1, 2, 2, 1), stats["trunk"]
    )
    head, head_stats = params["heads_0"], stats["heads_0"]
    predicted = reference.stage_head(res5, head, "average", head_stats)[1].argmax(1)

    def predicted_logit(pooled):
        logits = reference.stage_head(pooled[:, None, None], head, "average", head_stats)[1]
        return logits[np.arange(6), predicted].sum()

    weights = reference.numerical_gradient(predicted_logit, res5.mean(axis=(1, 2))) / 24
    want = np.maximum(np.einsum("bhwc,bc->bhw", res5, weights), 0)
    np.testing.assert_allclose(cams[:, 0], want, rtol=1e-3, atol=1e-5 * want.max())


@pytest.mark.parametrize(
    ("settings", "size", "message"),
    [
        ({}, (80, 64), r"model\.block.*5x4"),
        ({"top_k": 5}, SIZE, r"model\.top_k is 5"),
        ({"mixing": "cutmixx"}, SIZE, r"model\.mixing is 'cutmixx'"),
        ({"stages": 4}, SIZE, r"model\.stages is 4"),
    ],
)
def test_contradicting_settings_name_the_leaf(settings, size, message):
    with pytest.raises(ValueError, match=message):
        tiny(**settings).check(size)
