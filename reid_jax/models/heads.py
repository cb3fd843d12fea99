"""Heads: modules that turn a map into an embedding and logits over the training identities."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from reid_jax.mixing import Mixture
from reid_jax.models.convolutions import kaiming_fan_out
from reid_jax.models.normalization import EPSILON, BatchNorm
from reid_jax.models.pooling import POOLINGS, GeneralizedMean, generalized_pool

# Squared norms below this count as zero.
_TINY = 1e-24


class StageOutput(NamedTuple):
    """The output of a stage, from which the trainer computes losses."""

    embedding: jax.Array | None  # (B, E) float32; None for no triplet loss
    logits: jax.Array | None  # (B, C) float32; None for no ID loss
    mixture: Mixture | None = None  # the other identities in the images, if images were mixed
    descriptor: jax.Array | None = None  # (B, D) float32; None if it is the embedding

    @property
    def described(self) -> jax.Array:
        """The stage's part of an image's descriptor, (B, D) float32."""
        described = self.embedding if self.descriptor is None else self.descriptor
        assert described is not None
        return described

    @property
    def predicted(self) -> jax.Array:
        """The class with the largest logit, (B,) int32. The stage must have logits."""
        assert self.logits is not None
        return self.logits.argmax(axis=-1)


class StageHead(nn.Module):
    """Pool -> linear -> batch norm -> ReLU = embedding -> linear = logits (PMM section 2.1).

    Attributes:
        pooling: `average` or `max`.
        embedding_dim: E.
        num_classes: C, training identities.
        dtype: dtype of the computation. Embedding and logits are always float32.
        axis_name: the pmapped axis whose devices share a batch, or None.
    """

    pooling: str
    embedding_dim: int
    num_classes: int
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, features: jax.Array, train: bool) -> StageOutput:
        """Map (B, H, W, C) to embedding and logits."""
        x = POOLINGS[self.pooling](features)
        x = nn.Dense(
            self.embedding_dim, dtype=self.dtype, kernel_init=kaiming_fan_out, name="reduction"
        )(x)
        x = BatchNorm(train=train, dtype=self.dtype, axis_name=self.axis_name, name="bn")(x)
        embedding = nn.relu(x)
        logits = nn.Dense(
            self.num_classes, dtype=self.dtype, kernel_init=kaiming_fan_out, name="classifier"
        )(embedding)
        return StageOutput(embedding.astype(jnp.float32), logits.astype(jnp.float32))


class PooledHead(nn.Module):
    """Pooling = embedding -> (linear) -> neck = descriptor -> classifier = logits.

    Without a linear layer and a neck the embedding is the descriptor, as in HBFP-Net (sections 3.3
    and 3.4). The batch-norm neck (Luo et al., IEEE TMM 2019, "BNNeck") normalises the embedding;
    the result is the descriptor, which the classifier reads. The triplet loss and the ID loss then
    act on different spaces, and the scale of the embedding does not affect the logits. A linear
    layer before the neck makes the descriptor shorter.

    Attributes:
        num_classes: C, training identities; None for no classifier.
        pooling: `average`, `max`, `gem` (generalized mean) or `generalized` (HBFP-Net's).
        lambdas: thresholds of `generalized`; (0,) is average pooling.
        reduction: how the terms of `generalized` are combined, `sum` or `mean`.
        descriptor_dim: length of the descriptor, D; 0 for no linear layer, so D is the number of
            channels of the map.
        neck: one of `choices.NECKS`.
        triplet: whether the output has the embedding, for a triplet loss.
        cosine_scale: 0 for a linear classifier, otherwise the scale of a `CosineClassifier`.
        classifier_std: standard deviation of the classifier's initial weights.
        dtype: dtype of the computation. Embedding and logits are always float32.
        axis_name: the pmapped axis whose devices share a batch, or None.
    """

    num_classes: int | None
    pooling: str = "average"
    lambdas: Sequence[float] = (0.0,)
    reduction: str = "sum"
    descriptor_dim: int = 0
    neck: str = "none"
    triplet: bool = True
    cosine_scale: float = 0.0
    classifier_std: float = 1e-3
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, features: jax.Array, train: bool) -> StageOutput:
        """Map (B, H, W, channels) to embedding (B, channels), descriptor (B, D) and logits."""
        embedding = descriptor = self._pool(features)
        if self.descriptor_dim:
            descriptor = nn.Dense(
                self.descriptor_dim,
                use_bias=self.neck == "none",  # The neck subtracts the mean.
                dtype=self.dtype,
                kernel_init=kaiming_fan_out,
                name="linear",
            )(descriptor)
        if self.neck == "batch_norm":
            descriptor = BatchNorm(
                train=train,
                bias=False,
                dtype=self.dtype,
                axis_name=self.axis_name,
                name="neck",
            )(descriptor)
        return StageOutput(
            embedding=embedding.astype(jnp.float32) if self.triplet else None,
            logits=None
            if self.num_classes is None
            else self._classify(descriptor, self.num_classes),
            descriptor=descriptor.astype(jnp.float32),
        )

    @nn.nowrap
    def _pool(self, features: jax.Array) -> jax.Array:
        if self.pooling == "gem":
            return GeneralizedMean(name="pool")(features)
        if self.pooling == "generalized":
            return generalized_pool(features, self.lambdas, self.reduction)
        return POOLINGS[self.pooling](features)

    @nn.nowrap
    def _classify(self, descriptor: jax.Array, num_classes: int) -> jax.Array:
        init = nn.initializers.normal(self.classifier_std)
        if self.cosine_scale:
            classifier = CosineClassifier(num_classes, self.cosine_scale, init, name="classifier")
            return classifier(descriptor)
        # The neck's output has mean zero, so the classifier has no bias.
        return nn.Dense(
            num_classes,
            use_bias=self.neck == "none",
            dtype=self.dtype,
            kernel_init=init,
            name="classifier",
        )(descriptor).astype(jnp.float32)

    def class_weights(self, classes: jax.Array) -> jax.Array:
        """The weight of each channel of a pooled map for some classes: (B,) int32 to (B, C).

        The classifier has to be linear. The weights are those of inference, in which a batch-norm
        neck scales the channels.
        """
        kernel = self.variables["params"]["classifier"]["kernel"]
        if self.neck == "batch_norm":
            scale = self.variables["params"]["neck"]["scale"]
            var = self.variables["batch_stats"]["neck"]["var"]
            kernel = kernel * (scale * jax.lax.rsqrt(var + EPSILON))[:, None]
        if self.descriptor_dim:
            kernel = self.variables["params"]["linear"]["kernel"] @ kernel
        return jnp.take(kernel, classes, axis=1).T


class CosineClassifier(nn.Module):
    """Logits that are `scale` times the cosine between the input and each class's weights.

    Wang et al., CVPR 2018 ("CosFace"). The margin of CosFace is the `margin` of
    `losses.cross_entropy`.

    Attributes:
        num_classes: C.
        scale: factor of the cosines, CosFace's s.
        kernel_init: initialiser of the weights (D, C), float32. The lengths of its vectors do not
            affect the logits.
    """

    num_classes: int
    scale: float
    kernel_init: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map (B, D) to (B, C) float32."""
        kernel = self.param(
            "kernel", self.kernel_init, (x.shape[-1], self.num_classes), jnp.float32
        )
        return self.scale * (unit_length(x.astype(jnp.float32)) @ unit_length(kernel, axis=0))


def unit_length(x: jax.Array, axis: int = -1) -> jax.Array:
    """Divide `x` by its Euclidean norm along an axis. Zero vectors stay zero and have no
    gradient."""
    squared = jnp.square(x).sum(axis=axis, keepdims=True)
    zero = squared < _TINY
    return jnp.where(zero, 0.0, x * jax.lax.rsqrt(jnp.where(zero, 1.0, squared)))
