import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reid_jax import losses


def brute_force_cross_entropy(logits, labels, smoothing):
    classes = logits.shape[1]
    values = []
    for row, label in zip(logits.astype(np.float64), labels, strict=True):
        log_p = row - np.log(np.exp(row - row.max()).sum()) - row.max()
        q = [
            1 - (classes - 1) / classes * smoothing if i == label else smoothing / classes
            for i in range(classes)
        ]
        values.append(-sum(q[i] * log_p[i] for i in range(classes)))
    return np.array(values)


def brute_force_hard_distances(embeddings, labels):
    e = embeddings.astype(np.float64)
    positive, negative = [], []
    for i in range(len(e)):
        distances = [np.sqrt(((e[i] - e[j]) ** 2).sum()) for j in range(len(e))]
        positive.append(max(d for d, y in zip(distances, labels, strict=True) if y == labels[i]))
        negative.append(min(d for d, y in zip(distances, labels, strict=True) if y != labels[i]))
    return np.array(positive), np.array(negative)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.3])
def test_cross_entropy_is_equations_8_and_9(rng, smoothing):
    logits = rng.normal(0, 4, (7, 11)).astype(np.float32)
    labels = rng.integers(0, 11, 7).astype(np.int32)
    got = jax.jit(losses.cross_entropy, static_argnums=2)(logits, labels, smoothing)
    np.testing.assert_allclose(got, brute_force_cross_entropy(logits, labels, smoothing), rtol=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("margin", [0.35, 10.5])
def test_a_margin_lowers_the_logit_of_the_true_class_alone(rng, smoothing, margin):
    logits = rng.normal(0, 4, (7, 11)).astype(np.float32)
    labels = rng.integers(0, 11, 7).astype(np.int32)
    lowered = logits.astype(np.float64)
    lowered[np.arange(7), labels] -= margin
    run = jax.jit(losses.cross_entropy, static_argnums=(2, 3))
    got = run(logits, labels, smoothing, margin)
    want = brute_force_cross_entropy(lowered, labels, smoothing)
    np.testing.assert_allclose(got, want, rtol=1e-5)
    np.testing.assert_array_equal(
        run(logits, labels, smoothing, 0.0), run(logits, labels, smoothing)
    )


def test_hard_distances_equal_brute_force(rng):
    embeddings = rng.normal(0, 2, (24, 33)).astype(np.float32)
    labels = np.repeat(np.arange(6), 4).astype(np.int32)[rng.permutation(24)]
    positive, negative = jax.jit(losses.batch_hard_distances)(embeddings, labels)
    want_positive, want_negative = brute_force_hard_distances(embeddings, labels)
    np.testing.assert_allclose(positive, want_positive, rtol=1e-5)
    np.testing.assert_allclose(negative, want_negative, rtol=1e-5)


def test_near_pairs_far_from_the_origin_keep_their_accuracy(rng):
    """Here |a|^2 + |b|^2 - 2ab would cancel to noise in float32."""
    embeddings = (100 + 1e-3 * rng.normal(size=(8, 64))).astype(np.float32)
    labels = np.arange(8, dtype=np.int32) // 4
    e = embeddings.astype(np.float64)
    positive, _ = losses.batch_hard_distances(embeddings, labels)
    distances = np.sqrt(((e[:, None] - e[None]) ** 2).sum(-1))
    # The mined pair may be another nearly as far, but its distance is exact.
    assert np.all(np.abs(distances - np.asarray(positive)[:, None]).min(axis=1) < 1e-6)


@pytest.mark.parametrize("margin", [None, 0.3])
def test_triplet_by_hand(margin):
    positive, negative = np.float32([1.0, 2.0, 0.5]), np.float32([1.5, 1.0, 0.6])
    difference = np.array([-0.5, 1.0, -0.1])
    want = np.log1p(np.exp(difference)) if margin is None else np.maximum(difference + 0.3, 0)
    np.testing.assert_allclose(losses.triplet(positive, negative, margin), want, atol=1e-6)


def test_gradients_are_finite_for_coinciding_embeddings():
    labels = jnp.array([0, 0, 1, 1], jnp.int32)

    def loss(e):
        return losses.triplet(*losses.batch_hard_distances(e, labels), None).sum()

    gradient = jax.grad(loss)(jnp.ones((4, 5)))
    assert np.all(np.isfinite(gradient))


def test_gradient_equals_finite_differences(rng):
    embeddings = rng.normal(size=(8, 5)).astype(np.float32)
    labels = np.arange(8, dtype=np.int32) // 2

    def loss(e):
        positive, negative = brute_force_hard_distances(e, labels)
        return np.log1p(np.exp(positive - negative)).mean()

    from tests.reference import numerical_gradient

    got = jax.grad(lambda e: losses.triplet(*losses.batch_hard_distances(e, labels), None).mean())(
        embeddings
    )
    np.testing.assert_allclose(
        got, numerical_gradient(loss, embeddings.astype(np.float64)), atol=1e-6
    )


def test_mining_sees_the_batch_of_all_devices(rng):
    embeddings = rng.normal(size=(16, 9)).astype(np.float32)
    labels = np.tile(np.arange(4), 4).astype(np.int32)  # positives are on other devices

    def total(e, y, axis_name):
        return losses.triplet(*losses.batch_hard_distances(e, y, axis_name), 0.3)

    whole, whole_gradient = jax.value_and_grad(lambda e: total(e, labels, None).sum())(embeddings)
    mapped = jax.pmap(
        jax.value_and_grad(lambda e, y: total(e, y, "batch").sum()), axis_name="batch"
    )
    parts, gradient = mapped(embeddings.reshape(4, 4, 9), labels.reshape(4, 4))
    np.testing.assert_allclose(parts.sum(), whole, rtol=1e-6)
    np.testing.assert_allclose(gradient.reshape(16, 9), whole_gradient, atol=1e-6)
