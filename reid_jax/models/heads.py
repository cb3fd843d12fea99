"""Heads: what turns a map into an embedding and logits over the training identities."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from reid_jax.mixing import Mixture
from reid_jax.models.normalization import BatchNorm
from reid_jax.models.pooling import POOLINGS, GeneralizedMean, generalized_pool
from reid_jax.models.resnet import kaiming_fan_out


class StageOutput(NamedTuple):
    """What a stage hands to the trainer."""

    embedding: jax.Array | None  # (B, E) float32, for the triplet loss; None for no triplet loss
    logits: jax.Array | None  # (B, C) float32, for the ID loss; None for no ID loss
    mixture: Mixture | None = None  # who else the images show, where images were mixed
    descriptor: jax.Array | None = None  # (B, D) float32, at test; None: it is the embedding

    @property
    def described(self) -> jax.Array:
        """The stage's part of an image's descriptor, (B, D) float32."""
        return self.embedding if self.descriptor is None else self.descriptor


class StageHead(nn.Module):
    """Pool -> linear -> batch norm -> ReLU = embedding -> linear = logits (PMM section 2.1).

    Attributes:
        pooling: `average` or `max`.
        embedding_dim: E.
        num_classes: C, training identities.
        dtype: of the computation; embedding and logits are float32 whatever it is.
        axis_name: the pmapped axis whose devices share a batch, or None.
    """

    pooling: str
    embedding_dim: int
    num_classes: int
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, features: jax.Array, train: bool) -> StageOutput:
        """(B, H, W, C) to embedding and logits."""
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
    """Pooling = embedding -> neck -> linear = logits (HBFP-Net sections 3.3 and 3.4).

    Without a neck the embedding is the descriptor, as in the paper. The batch-norm neck (Luo et
    al., IEEE TMM 2019, "BNNeck") takes the embedding to the descriptor, which the classifier reads:
    triplet loss and ID loss then act on different spaces, and the embedding's scale is free.

    Attributes:
        num_classes: C, training identities; None for no classifier.
        pooling: `average`, `max`, `gem` (generalized mean) or `generalized` (HBFP-Net's).
        lambdas: thresholds of `generalized`; (0,) is average pooling.
        reduction: of the terms of `generalized`, `sum` or `mean`.
        neck: of `choices.NECKS`.
        triplet: whether there is a triplet loss on the embedding.
        cosine_scale: 0 for a linear classifier. Otherwise logits are this number times the cosine
            between the descriptor and the weights of each class (Wang et al., CVPR 2018,
            "CosFace"; the margin is `loss.id_margin`).
        classifier_std: standard deviation of the classifier's initial weights.
        dtype: of the computation; embedding and logits are float32 whatever it is.
        axis_name: the pmapped axis whose devices share a batch, or None.
    """

    num_classes: int | None
    pooling: str = "average"
    lambdas: Sequence[float] = (0.0,)
    reduction: str = "sum"
    neck: str = "none"
    triplet: bool = True
    cosine_scale: float = 0.0
    classifier_std: float = 1e-3
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, features: jax.Array, train: bool) -> StageOutput:
        """(B, H, W, C) to embedding (B, C) and logits."""
        embedding = self._pool(features)
        descriptor = embedding
        if self.neck == "batch_norm":
            descriptor = BatchNorm(
                train=train,
                bias=False,
                dtype=self.dtype,
                axis_name=self.axis_name,
                name="neck",
            )(embedding)
        return StageOutput(
            embedding=embedding.astype(jnp.float32) if self.triplet else None,
            logits=None if self.num_classes is None else self._classify(descriptor),
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
    def _classify(self, descriptor: jax.Array) -> jax.Array:
        init = nn.initializers.normal(self.classifier_std)
        if self.cosine_scale:
            classifier = CosineClassifier(
                self.num_classes, self.cosine_scale, init, name="classifier"
            )
            return classifier(descriptor)
        # The neck's output has mean zero, and a bias for each class would undo that.
        return nn.Dense(
            self.num_classes,
            use_bias=self.neck == "none",
            dtype=self.dtype,
            kernel_init=init,
            name="classifier",
        )(descriptor).astype(jnp.float32)


class CosineClassifier(nn.Module):
    """Logits (B, C): `scale` times the cosine between the input and each class's weights.

    Attributes:
        num_classes: C.
        scale: of the cosines.
        kernel_init: of the weights (D, C), float32; their lengths do not matter.
    """

    num_classes: int
    scale: float
    kernel_init: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, D) to (B, C) float32."""
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.num_classes))
        return self.scale * (unit_length(x.astype(jnp.float32)) @ unit_length(kernel, axis=0))


def unit_length(x: jax.Array, axis: int = -1) -> jax.Array:
    """`x` divided by its Euclidean lengths along an axis; zero vectors stay zero."""
    squared = jnp.square(x).sum(axis=axis, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(squared, 1e-24))
