"""CAM and Grad-CAM: maps of the evidence for a class.

Grad-CAM is from Selvaraju et al. (2017) and PMM section 2.1, CAM from Zhou et al. (2016) and
HBFP-Net section 4.4. The gradient of Grad-CAM runs only through a stage's head, because the map is
an input here. No pass through the trunk is repeated, and the cost is a few matrix products on
pooled features.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def gradcam(
    logits_of: Callable[[jax.Array], jax.Array], features: jax.Array, labels: jax.Array
) -> jax.Array:
    """Grad-CAM of each image's class over the map that a head pools.

        cam[b, h, w] = relu(sum_c weight[b, c] features[b, h, w, c])
        weight[b, c] = mean over h, w of d(sum_b logits[b, labels[b]]) / d features[b, h, w, c]

    Summing the true logits over the batch gives each image its own gradient if the head treats
    images one by one. A head with batch norm in training mode couples them: the gradient then
    crosses images (and, under `jax.pmap`, devices), as it does in the authors' program.

    Args:
        logits_of: the head, a pure function from a map (B, H, W, C) to logits (B, classes).
        features: (B, H, W, C), float32 or bfloat16.
        labels: (B,) int32, the class to show the evidence for.

    Returns:
        (B, H, W) float32, not negative. `stop_gradient` is applied, so the later stage's loss does
        not reach the earlier head.
    """
    features = jax.lax.stop_gradient(features)

    def true_logits(x):
        logits = logits_of(x)
        return jnp.take_along_axis(logits, labels[:, None], axis=1).sum()

    gradients = jax.grad(true_logits)(features)
    weights = gradients.mean(axis=(1, 2), dtype=jnp.float32)
    return jax.lax.stop_gradient(jax.nn.relu(class_activation_map(features, weights)))


def class_activation_map(features: jax.Array, weights: jax.Array) -> jax.Array:
    """The class activation map of Zhou et al. (CVPR 2016, section 2), not rectified.

        cam[b, h, w] = sum_c weights[b, c] features[b, h, w, c]

    Negative values are evidence against the class. If the head is average pooling and a linear
    classifier, the mean of the map over h and w is the class's logit without its bias.

    Args:
        features: (B, H, W, C), float32 or bfloat16.
        weights: (B, C), the classifier's weights of each image's class.

    Returns:
        (B, H, W) float32.
    """
    return jnp.einsum(
        "bhwc,bc->bhw", features, weights.astype(features.dtype), preferred_element_type=jnp.float32
    )
