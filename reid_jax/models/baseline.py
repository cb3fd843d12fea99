"""The plain baseline of HBFP-Net's table 2, and what has been added to such baselines since.

By default: ResNet, average pooling, one head. `pooling`, `neck`, `cosine_scale` and `stripes` make
it the strong baseline of `configs/strong_*.py`.
"""

import jax

from reid_jax.models.heads import PooledHead
from reid_jax.models.network import Network


class Baseline(Network):
    """ResNet, pooling, triplet loss and, with a classifier, ID loss (section 4.5).

    Attributes, beside those of every network:
        classifier: whether there is a classifier, and so an ID loss. Without it this is the
            "Baseline" row of table 2, with it the rows with label smoothing (LS).
        classifier_std: standard deviation of the classifier's initial weights.
        cosine_scale: 0 for a linear classifier, or the factor of a cosine classifier.
        pooling: `average`, `max` or `gem`.
        neck: `none` or `batch_norm`.
        stripes: horizontal stripes of the map, from top to bottom, each with a head of its own that
            has an ID loss only, as the parts of PCB (Sun et al., ECCV 2018); 0 for none.
    """

    classifier: bool = True
    classifier_std: float = 1e-3
    cosine_scale: float = 0.0
    pooling: str = "average"
    neck: str = "none"
    stripes: int = 0

    def setup(self):  # noqa: D102
        self.heads = [
            PooledHead(
                self.num_classes if self.classifier else None,
                pooling=self.pooling,
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
        """The trunk's last map, and its stripes, (B, H, W, C) and (B, H / stripes, W, C)."""
        features = self.trunk(images, train).res5
        if not self.stripes:
            return (features,)
        height = features.shape[1] // self.stripes
        parts = [features[:, i * height : (i + 1) * height] for i in range(self.stripes)]
        return (features, *parts)

    @property
    def classifies(self) -> bool:
        """Whether there are logits."""
        return self.classifier

    @property
    def stage_names(self) -> tuple[str, ...]:
        """The maps that the heads pool."""
        return ("res5", *(f"Stripe {i + 1}" for i in range(self.stripes)))

    def check(self, image_size: tuple[int, int]) -> None:
        """Raises ValueError, naming the config leaf, if settings contradict each other."""
        super().check(image_size)
        height = self.trunk.map_size(image_size)[0]
        if self.stripes and height % self.stripes:
            raise ValueError(
                f"model.stripes is {self.stripes}, and the map's {height} rows do not divide into "
                "as many stripes of one height"
            )
        if self.stripes and not self.classifier:
            raise ValueError(
                f"model.stripes is {self.stripes} and model.classifier is False: stripes have an "
                "ID loss only, and need a classifier"
            )
