import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reid_jax import losses, mixing
from reid_jax.models import PMM, ResNet
from reid_jax.runtime import collectives
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
    return jax.jit(tiny().init)(jax.random.key(0), images)


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
    extra = reference.block(res5, params["extra"])
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
    """By central differences over the head's input: the pooled values of the map."""
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
    extra = reference.block(res5, params["extra"], stats=stats["extra"])
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
    """Once, although a head's logits are computed for the loss and again for its Grad-CAM."""
    params = reference.in_float64(variables["params"])
    res5 = reference.resnet(images.astype(np.float64), params["trunk"], (1, 2, 2, 1))
    reduction = params["heads_0"]["reduction"]
    x = res5.mean(axis=(1, 2)) @ reduction["kernel"] + reduction["bias"]
    _, updates = trained
    got = updates["batch_stats"]["heads_0"]["bn"]
    np.testing.assert_allclose(got["mean"], 0.1 * x.mean(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(got["var"], 0.9 + 0.1 * x.var(0, ddof=1), rtol=1e-4)


def test_mixing_changes_later_stages_only(variables, images, trained):
    plain, _ = tiny(mixing="none").apply(
        variables, images, LABELS, jax.random.key(5), method="training", mutable=["batch_stats"]
    )
    outputs, _ = trained
    np.testing.assert_allclose(plain[0].logits, outputs[0].logits, rtol=1e-4, atol=1e-5)
    assert not np.allclose(plain[1].logits, outputs[1].logits, rtol=1e-3)


def test_cutout_sets_the_ranked_blocks_to_zero(variables, images):
    """Stage II of two: its map lacks the blocks of stage I's Grad-CAM by finite differences."""
    network = tiny(mixing="cutout", stages=2)

    @jax.jit
    def run(variables, images):
        return network.apply(
            variables, images, LABELS, jax.random.key(5), method="training", mutable=["batch_stats"]
        )

    outputs, _ = run(variables, images)
    params = reference.in_float64(variables["params"])
    res5 = reference.resnet(images.astype(np.float64), params["trunk"], (1, 2, 2, 1))
    gradient = _gradient_of_true_logits(res5, params["heads_0"], "average")
    cam = np.maximum(np.einsum("bhwc,bc->bhw", res5, gradient.mean(axis=(1, 2))), 0)
    mask = np.asarray(mixing.block_mask(jnp.array(cam, jnp.float32), (3, 2), 2), np.float64)
    assert np.all((mask == 0).sum(axis=(1, 2)) == 12)
    features = mask[..., None] * reference.block(res5, params["extra"])
    _, logits = reference.stage_head(features, params["heads_1"], "max")
    np.testing.assert_allclose(outputs[1].logits, logits, rtol=1e-4, atol=1e-4)
    assert outputs[1].mixture is None


def _mix_images(kind, variables, images, labels, axis_name=None):
    trunk = ResNet(depths=(1, 1, 1, 1), width=2, axis_name=axis_name)
    network = PMM(
        num_classes=5, trunk=trunk, embedding_dim=6, top_k=1, mixing=kind, axis_name=axis_name
    )
    key = jax.random.key(5)
    return network.apply(variables, images, labels, key, method="_mixed_images")


def test_cutmix_pastes_a_box_of_another_identity(variables, images):
    mixed, mixture = _mix_images("cutmix", variables, jnp.array(images), jnp.array(LABELS))
    partner_key, box_key = jax.random.split(jax.random.key(5))
    partner = np.asarray(mixing.partners(partner_key, jnp.array(LABELS)))
    mask = np.asarray(mixing.cutmix_mask(collectives.batch_keys(box_key, 6, None), SIZE))
    np.testing.assert_array_equal(mixed, np.where(mask[..., None] == 1, images, images[partner]))
    np.testing.assert_array_equal(mixture.labels, LABELS[partner])
    np.testing.assert_allclose(mixture.share, (mask == 0).mean(axis=(1, 2)), atol=1e-6)
    assert np.all(np.asarray(mixture.labels) != LABELS)


def test_attentive_cutmix_pastes_the_donors_most_active_block(variables, images):
    mixed, mixture = _mix_images("attentive_cutmix", variables, jnp.array(images), LABELS)
    params, stats = (reference.in_float64(variables[name]) for name in ("params", "batch_stats"))
    res5 = reference.resnet(
        images.astype(np.float64), params["trunk"], (1, 2, 2, 1), stats["trunk"]
    )
    partner_key, _ = jax.random.split(jax.random.key(5))
    partner = np.asarray(mixing.partners(partner_key, jnp.array(LABELS)))
    want = images.copy()
    for image, donor in enumerate(partner):
        # Cells are 16x16 pixels, blocks 3x2 cells.
        blocks = res5[donor].sum(axis=-1).reshape(2, 3, 2, 2).sum(axis=(1, 3))
        row, column = np.unravel_index(blocks.argmax(), (2, 2))
        pixels = np.s_[48 * row : 48 * row + 48, 32 * column : 32 * column + 32]
        want[image][pixels] = images[donor][pixels]
    np.testing.assert_array_equal(mixed, want)
    np.testing.assert_array_equal(mixture.labels, LABELS[partner])
    np.testing.assert_allclose(mixture.share, 0.25)


@pytest.mark.parametrize("kind", ["cutmix", "attentive_cutmix"])
def test_image_mixing_does_not_depend_on_the_number_of_devices(kind, variables, images):
    whole = _mix_images(kind, variables, jnp.array(images), jnp.array(LABELS))
    parts = jax.pmap(
        lambda v, x, y: _mix_images(kind, v, x, y, "batch"),
        axis_name="batch",
        in_axes=(None, 0, 0),
        devices=jax.devices()[:3],
    )(variables, images.reshape(3, 2, *SIZE, 3), LABELS.reshape(3, 2))
    for one, three in zip(jax.tree.leaves(whole), jax.tree.leaves(parts), strict=True):
        # Shares are means, whose roundings differ.
        np.testing.assert_allclose(np.asarray(three).reshape(one.shape), one, rtol=1e-6)


def test_stages_are_trained_on_mixed_images(variables, images):
    """As for PMM without mixing on images mixed beforehand; all stages have the mixture."""
    labels = jnp.array(LABELS)

    @jax.jit
    def run(variables, images):
        def outputs(kind, images):
            return tiny(mixing=kind, stages=1).apply(
                variables,
                images,
                labels,
                jax.random.key(5),
                method="training",
                mutable=["batch_stats"],
            )[0]

        mixed, _ = _mix_images("cutmix", variables, images, labels)
        return outputs("cutmix", images), outputs("none", mixed)

    (cutmix,), (plain,) = run(variables, jnp.array(images))
    np.testing.assert_allclose(cutmix.logits, plain.logits, rtol=1e-5, atol=1e-6)
    assert plain.mixture is None
    _, mixture = _mix_images("cutmix", variables, jnp.array(images), jnp.array(LABELS))
    np.testing.assert_array_equal(cutmix.mixture.labels, mixture.labels)


def test_stages_have_partners_of_their_own():
    """Stages II and III fold their number into the key."""
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
        ({"mixing": "attentive_cutmix", "block": (2, 2)}, (94, 64), r"images of 94x64 pixels"),
        ({"mixing": "cutout", "top_k": 5}, SIZE, r"model\.top_k is 5"),
        ({}, (15, 64), r"data\.image_size is \(15, 64\); .* 16 pixels"),
    ],
)
def test_contradicting_settings_name_the_leaf(settings, size, message):
    with pytest.raises(ValueError, match=message):
        tiny(**settings).check(size)
