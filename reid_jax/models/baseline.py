"""The plain baseline of HBFP-Net's table 2 and the strong baseline of `configs/strong_*.py`.

By default it is ResNet, average pooling and one head. The strong baseline changes `pooling`,
`neck`, `stripes` and the lengths of descriptors.
"""

import jax
import jax.numpy as jnp

from reid_jax.models.heads import PooledHead
from reid_jax.models.network import Network


class Baseline(Network):
    """ResNet, pooling, triplet loss and, with a classifier, ID loss (section 4.5).

    Attributes, in addition to those of every network:
        classifier: whether the network has a classifier and therefore an ID loss. False gives the
            "Baseline" row of table 2, True the rows with label smoothing (LS).
        classifier_std: standard deviation of the classifier's initial weights.
        cosine_scale: 0 for a linear classifier, otherwise the scale of a cosine classifier.
        pooling: `average`, `max` or `gem`, generalized mean.
        neck: `none` or `batch_norm`.
        stripes: number of horizontal stripes of the map, 0 for none. Each stripe has a head with an
            ID loss and no triplet loss, like the parts of PCB (Sun et al., ECCV 2018). The stripes'
            descriptors follow the descriptor of the whole map.
        whole_dim: length of the whole map's descriptor; 0 for the map's number of channels.
        stripe_dim: length of each stripe's descriptor; 0 for the map's number of channels.
    """

    classifier: bool = True
    classifier_std: float = 1e-3
    cosine_scale: float = 0.0
    pooling: str = "average"
    neck: str = "none"
    stripes: int = 0
    whole_dim: int = 0
    stripe_dim: int = 0

    def setup(self):  # noqa: D102
        self.heads = [
            PooledHead(
                self.num_classes if self.classifier else None,
                pooling=self.pooling,
                descriptor_dim=self.stripe_dim if index else self.whole_dim,
                neck=self.neck,
                triplet=index == 0,
                cosine_scale=self.cosine_scale,
                classifier_std=self.classifier_std,
                dtype=self.dtype,
                axis_name=self.axis_name,
            )
            for index in range(1 + self.stripes)
        ]

    def maps(self, images: jax.Array, train: bool) -> tuple[jax.Array, ...]:
        """The trunk's last map, (B, H, W, C), and its stripes from top to bottom, (B, H / n, W,
        C)."""
        features = self.trunk(images, train).res5
        if not self.stripes:
            return (features,)
        return (features, *jnp.split(features, self.stripes, axis=1))

    def cams(self, images: jax.Array) -> list[jax.Array]:
        """Grad-CAM of each head, (B, H, W). It is zero outside the stripe that the head pools."""
        whole, *parts = super().cams(images)
        placed = [whole]
        for index, part in enumerate(parts):
            top, height = index * part.shape[1], part.shape[1]
            below = whole.shape[1] - top - height
            placed.append(jnp.pad(part, ((0, 0), (top, below), (0, 0))))
        return placed

    @property
    def classifies(self) -> bool:
        """Whether the heads return logits."""
        return self.classifier

    @property
    def stage_names(self) -> tuple[str, ...]:
        """The part of the map that each head pools."""
        return ("res5", *(f"Stripe {i + 1}" for i in range(self.stripes)))

    def check(self, image_size: tuple[int, int]) -> None:
        """Raise ValueError, naming the config leaf, if settings contradict each other."""
        super().check(image_size)
        height = self.trunk.map_size(image_size)[0]
        if self.stripes and height % self.stripes:
            raise ValueError(
                f"model.stripes is {self.stripes}, but the map has {height} rows, which do not "
                "divide into that many stripes of equal height"
            )
        if self.classifier:
            return
        # Without an ID loss, stripes and linear layers would not be trained, and weight decay would
        # shrink the neck's scale to zero.
        plain = {"stripes": 0, "whole_dim": 0, "neck": "none", "cosine_scale": 0}
        for leaf, value in plain.items():
            if getattr(self, leaf) != value:
                raise ValueError(
                    f"model.{leaf} is {getattr(self, leaf)!r}; it must be {value!r}, because "
                    "model.classifier is False"
                )
