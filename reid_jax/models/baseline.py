"""The plain baseline of HBFP-Net's table 2: ResNet, average pooling, one head."""

import jax

from reid_jax.models.heads import PooledHead
from reid_jax.models.network import Network


class Baseline(Network):
    """ResNet, average pooling, triplet loss and, with a classifier, ID loss (section 4.5).

    Attributes, beside those of every network:
        classifier: whether there is a linear classifier, and so an ID loss. Without it this is the
            "Baseline" row of table 2, with it the rows with label smoothing (LS).
        classifier_std: standard deviation of the classifier's initial weights.
    """

    classifier: bool = True
    classifier_std: float = 1e-3

    def setup(self):  # noqa: D102
        self.heads = [
            PooledHead(
                self.num_classes if self.classifier else None,
                classifier_std=self.classifier_std,
                dtype=self.dtype,
            )
        ]

    def maps(self, images: jax.Array, train: bool) -> tuple[jax.Array, ...]:
        """The trunk's last map."""
        return (self.trunk(images, train).res5,)

    @property
    def classifies(self) -> bool:
        """Whether there are logits."""
        return self.classifier

    @property
    def stage_names(self) -> tuple[str, ...]:
        """The map that the head pools."""
        return ("res5",)
