"""Bi-directional Feature Perception, BFP (Liu et al., ACM MM 2020, section 3.2, figures 3 and 4).

Two maps of one image, seen as N = h w locations each, exchange information. A correlation map holds
how strongly each location of one map relates to each location of the other. Each map is multiplied
by what it receives from the other through the correlation map.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from reid_jax.models.convolutions import pointwise
from reid_jax.models.normalization import BatchNorm


def self_awareness(features: jax.Array, scores: jax.Array) -> jax.Array:
    """Re-weight each location, HBFP-Net equation 1: X'[n] = M[n] X[n], M = sigmoid(scores).

    Args:
        features: X, (B, N, D).
        scores: (B, N, 1), the output of a 1x1 convolution of X.

    Returns:
        X', (B, N, D), of the dtype of `features`.
    """
    return nn.sigmoid(scores) * features


def correlation_maps(x: jax.Array, y: jax.Array, p: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Low-rank bilinear correlation of all pairs of locations, HBFP-Net equations 2 and 3.

        C[i, j] = sum_l p[l] relu(x[i, l]) relu(y[j, l])

    and softmax over each column of C and of its transpose. One map is multiplied by p first, so no
    array of size L N N is created.

    Args:
        x: X'U, (B, N, L), the first map in the pooling space.
        y: Y'V, (B, N, L), the second map in the pooling space.
        p: (L,).

    Returns:
        C_x and C_y, each (B, N, N) float32. `C_x[b, m, n]` is the weight of location m of X in what
        X sends to location n of Y; `C_y[b, m, n]` is the weight of location m of Y in what Y sends
        to location n of X. Each column (axis 1) sums to one.
    """
    weighted = nn.relu(x) * p.astype(x.dtype).reshape(1, 1, -1)
    correlation = jnp.einsum(
        "bil,bjl->bij", weighted, nn.relu(y), preferred_element_type=jnp.float32
    )
    c_x = nn.softmax(correlation, axis=1)
    c_y = nn.softmax(correlation.swapaxes(1, 2), axis=1)
    return c_x, c_y


def perceive(
    x: jax.Array, y: jax.Array, c_x: jax.Array, c_y: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Bi-directional perception, HBFP-Net equation 4.

        X_y[n] = relu(x[n]) * sum_m C_y[m, n] relu(y[m])
        Y_x[n] = relu(y[n]) * sum_m C_x[m, n] relu(x[m])

    Args:
        x: X'U', (B, N, L').
        y: Y'V', (B, N, L').
        c_x: (B, N, N), from `correlation_maps`.
        c_y: (B, N, N), from `correlation_maps`.

    Returns:
        X_y and Y_x, each (B, N, L') with the dtype of `x`. They are the transposes of the paper's
        matrices, as in its equation 5.
    """
    x, y = nn.relu(x), nn.relu(y)
    to_x = jnp.einsum("bmn,bml->bnl", c_y.astype(y.dtype), y)
    to_y = jnp.einsum("bmn,bml->bnl", c_x.astype(x.dtype), x)
    return x * to_x, y * to_y


class Projection(nn.Module):
    """A linear map of each location, then batch norm. All linear maps of the paper have it
    (4.2)."""

    features: int
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """(B, N, D) to (B, N, features)."""
        x = pointwise(self.features, dtype=self.dtype, name="linear")(x)
        return BatchNorm(train=train, dtype=self.dtype, axis_name=self.axis_name, name="bn")(x)


class BFP(nn.Module):
    """The module of figure 4: maps X and Y of one size to X~_y and Y~_x of the same shapes.

    Its parameters are those of the paper: the masks of equation 1, U, V and p of equation 2, U' and
    V' of equation 4, P_x and P_y of equation 5. X and Y are interchangeable.

    Attributes:
        correlation_dim: L, the size of the space in which locations are correlated.
        perception_dim: L', the size of the space in which maps inform each other.
        dtype: dtype of the computation. Correlation maps are always float32.
        axis_name: the pmapped axis whose devices share a batch, or None.
    """

    correlation_dim: int = 512
    perception_dim: int = 2048
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, y: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
        """Map (B, h, w, D_1) and (B, h, w, D_2) to two maps of the same shapes."""

        def project(features, name):
            return Projection(features, dtype=self.dtype, axis_name=self.axis_name, name=name)

        shapes = x.shape, y.shape
        if x.shape[:3] != y.shape[:3]:
            raise ValueError(f"BFP needs two maps of the same size, got {x.shape} and {y.shape}")
        x, y = (features.reshape(features.shape[0], -1, features.shape[-1]) for features in (x, y))
        x = self_awareness(x, nn.Dense(1, dtype=self.dtype, name="mask_x")(x))
        y = self_awareness(y, nn.Dense(1, dtype=self.dtype, name="mask_y")(y))

        c_x, c_y = correlation_maps(
            project(self.correlation_dim, "u")(x, train),
            project(self.correlation_dim, "v")(y, train),
            self.param(
                "p",
                nn.initializers.normal(self.correlation_dim**-0.5),
                (self.correlation_dim,),
                jnp.float32,
            ),
        )
        x_y, y_x = perceive(
            project(self.perception_dim, "u_prime")(x, train),
            project(self.perception_dim, "v_prime")(y, train),
            c_x,
            c_y,
        )
        x = project(shapes[0][-1], "p_x")(x_y, train)
        y = project(shapes[1][-1], "p_y")(y_x, train)
        return x.reshape(shapes[0]), y.reshape(shapes[1])
