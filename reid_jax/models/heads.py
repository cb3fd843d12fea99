"""Heads: what turns a map into an embedding and logits over the training identities."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from reid_jax.mixing import Mixture
from reid_jax.models.normalization import BatchNorm
from reid_jax.models.pooling import POOLINGS, generalized_pool
from reid_jax.models.resnet import kaiming_fan_out


class StageOutput(NamedTuple):
    """What a stage hands to the trainer."""

    embedding: jax.Array  # (B, E) float32, for the triplet loss
    logits: jax.Array | None  # (B, C) float32, for the ID loss; None for no ID loss
    mixture: Mixture | None = None  # who else the images show, where images were mixed


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
    """Generalized pooling = embedding -> linear = logits (HBFP-Net sections 3.3 and 3.4).

    Attributes:
        num_classes: C, training identities; None for no classifier.
        lambdas: thresholds of the generalized pooling; (0,) is average pooling.
        dtype: of the computation; embedding and logits are float32 whatever it is.
    """

    num_classes: int | None
    lambdas: Sequence[float] = (0.0,)
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, features: jax.Array, train: bool) -> StageOutput:
        """(B, H, W, C) to embedding (B, C) and logits; `train` changes nothing."""
        embedding = generalized_pool(features, self.lambdas)
        logits = None
        if self.num_classes is not None:
            # Small, as strong baselines start: embeddings are neither normalised nor reduced.
            logits = nn.Dense(
                self.num_classes,
                dtype=self.dtype,
                kernel_init=nn.initializers.normal(1e-3),
                name="classifier",
            )(embedding).astype(jnp.float32)
        return StageOutput(embedding.astype(jnp.float32), logits)

    def class_weights(self, classes: jax.Array) -> jax.Array:
        """The classifier's weights of some classes: (B,) int32 to (B, C) float32."""
        kernel = self.variables["params"]["classifier"]["kernel"]
        return jnp.take(kernel, classes, axis=1).T
