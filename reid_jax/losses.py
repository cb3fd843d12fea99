"""The two losses of re-ID: cross entropy over identities and the batch-hard triplet loss."""

import jax
import jax.numpy as jnp
import optax

from reid_jax.runtime import collectives

# Squared distances below this count as zero, because the square root has no slope at zero. PyTorch
# programs clamp in the same way.
_TINY = 1e-12


def cross_entropy(
    logits: jax.Array, labels: jax.Array, smoothing: float, margin: float = 0.0
) -> jax.Array:
    """Cross entropy with label smoothing, HBFP-Net equations 8 and 9 (the ID loss of both papers).

        q[i] = 1 - smoothing (C - 1) / C for the true class i, smoothing / C for the others

    The margin is subtracted from the logit of the true class before the softmax, so the true class
    has to win by that much (Wang et al., CVPR 2018, "CosFace"; neither of the two papers has a
    margin).

    Args:
        logits: (B, C) float32.
        labels: (B,) int32.
        smoothing: epsilon in [0, 1); 0 is the plain loss.
        margin: at least 0, in units of the logits. For CosFace's margin m on cosines of scale s,
            pass s m.

    Returns:
        (B,) float32, in nats.
    """
    true = jax.nn.one_hot(labels, logits.shape[-1])
    targets = optax.smooth_labels(true, smoothing)
    if margin:
        logits = logits - margin * true
    return optax.softmax_cross_entropy(logits, targets)


def batch_hard_distances(
    embeddings: jax.Array, labels: jax.Array, axis_name: str | None = None
) -> tuple[jax.Array, jax.Array]:
    """Euclidean distances of each image to its farthest positive and nearest negative in the batch.

    Mining compares distances from the Gram matrix. The returned distances are computed from the
    differences of the mined pairs, so they keep float32 accuracy for near pairs, and gradients
    reach only the mined pairs.

    Args:
        embeddings: (b, E) float32, this device's anchors.
        labels: (b,) int32. The whole batch must hold at least two identities.
        axis_name: the pmapped axis, or None.

    Returns:
        positive (b,) and negative (b,), float32.
    """
    everyone = collectives.gather(embeddings, axis_name)
    same = labels[:, None] == collectives.gather(labels, axis_name)[None, :]

    fixed, all_fixed = jax.lax.stop_gradient((embeddings, everyone))
    products = jnp.matmul(fixed, all_fixed.T, precision=jax.lax.Precision.HIGHEST)
    # Leave out the anchor's own norm: it is constant along each row and changes no choice.
    nearness = jnp.square(all_fixed).sum(axis=1)[None, :] - 2.0 * products
    farthest = jnp.where(same, nearness, -jnp.inf).argmax(axis=1)
    nearest = jnp.where(same, jnp.inf, nearness).argmin(axis=1)

    def distance(index):
        squared = jnp.square(embeddings - everyone[index]).sum(axis=1)
        return jnp.sqrt(jnp.maximum(squared, _TINY))

    return distance(farthest), distance(nearest)


def triplet(positive: jax.Array, negative: jax.Array, margin: float | None) -> jax.Array:
    """Triplet loss from mined distances (Hermans et al., 2017; HBFP-Net equation 7).

    Args:
        positive: (B,) distance to the farthest positive.
        negative: (B,) distance to the nearest negative.
        margin: m of relu(m + positive - negative), or None for the soft margin, log(1 +
            exp(positive - negative)).

    Returns:
        (B,) float32.
    """
    difference = positive - negative
    return jax.nn.softplus(difference) if margin is None else jax.nn.relu(difference + margin)
