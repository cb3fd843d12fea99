"""HBFP-Net, the Hierarchical Bi-directional Feature Perception network (Liu et al., ACM MM 2020).

Maps of three levels of the trunk (low: the first block of res4, middle: res4, high: res5) inform
each other in pairs. The informed low and middle maps then pass through the rest of the network a
second time, through blocks with separate weights. Each level is pooled and trained (section 3,
figure 2).
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from reid_jax.choices import LEVELS, PAIRS
from reid_jax.gradcam import class_activation_map
from reid_jax.models.bilinear import BFP
from reid_jax.models.heads import PooledHead
from reid_jax.models.network import Network


class HBFP(Network):
    """The network of figure 2. Every row of tables 2 and 3 is a choice of attributes.

    Attributes, in addition to those of every network:
        levels: the levels that are trained and form the descriptor, out of `low`, `middle` and
            `high`.
        pairs: the pairs of levels that inform each other, out of `low&middle` and `middle&high`. A
            level that is in no pair uses the trunk's map.
        hierarchy: whether the informed maps pass through blocks of res4 and res5 a second time.
        lambdas: thresholds of the generalized pooling; (0,) is average pooling.
        reduction: how the generalized pooling combines its terms, `sum` or `mean`.
        neck: neck of each level's head, `none` or `batch_norm`.
        classifier_std: standard deviation of the classifiers' initial weights.
        correlation_dim: L of `BFP`.
        perception_dim: L' of `BFP`.
    """

    levels: Sequence[str] = LEVELS
    pairs: Sequence[str] = tuple(PAIRS)
    hierarchy: bool = True
    lambdas: Sequence[float] = (0.0, 0.3, 0.5, 0.7, 1.0)
    reduction: str = "sum"
    neck: str = "none"
    classifier_std: float = 1e-3
    correlation_dim: int = 512
    perception_dim: int = 2048

    def setup(self):  # noqa: D102
        common = {"dtype": self.dtype, "axis_name": self.axis_name}
        dims = self.correlation_dim, self.perception_dim
        self.bfp = {pair.replace("&", "_"): BFP(*dims, **common) for pair in self.pairs}
        if self.hierarchy:
            depths, block_of = self.trunk.depths, self.trunk.block_of
            self.second_res4 = [block_of(stage=3) for _ in range(1, depths[2])]
            self.second_res5 = [block_of(stage=4) for _ in range(depths[3])]
        self.heads = [
            PooledHead(
                self.num_classes,
                pooling="generalized",
                lambdas=self.lambdas,
                reduction=self.reduction,
                neck=self.neck,
                classifier_std=self.classifier_std,
                **common,
            )
            for _ in self.levels
        ]

    def perceived(self, images: jax.Array, train: bool) -> tuple[dict, dict]:
        """The trunk's maps by level, and the same after BFP. A level without a pair is
        unchanged."""
        trunk = self.trunk(images, train)
        plain = dict(zip(LEVELS, (trunk.res4_1, trunk.res4, trunk.res5), strict=True))
        informed: dict[str, jax.Array] = {}
        for pair in self.pairs:
            levels = PAIRS[pair]
            x, y = (plain[level] for level in levels)
            outputs = self.bfp[pair.replace("&", "_")](x, y, train)
            for level, features in zip(levels, outputs, strict=True):
                # The middle level is in two pairs; its two results are summed.
                informed[level] = informed[level] + features if level in informed else features
        return plain, plain | informed

    def maps(self, images: jax.Array, train: bool) -> tuple[jax.Array, ...]:
        """The map that is pooled for each of `levels`."""
        _, informed = self.perceived(images, train)
        return self._pooled(informed, train)

    def _pooled(self, informed: dict, train: bool) -> tuple[jax.Array, ...]:
        """The map that is pooled for each of `levels`, computed from the maps that BFP informed."""
        maps = dict(informed)
        if self.hierarchy:
            x = maps["low"]
            for block in self.second_res4:
                x = block(x, train)
            x = maps["middle"] = x + maps["middle"]
            for block in self.second_res5:
                x = block(x, train)
            maps["high"] = x + maps["high"]
        return tuple(maps[level] for level in self.levels)

    def class_activations(self, images: jax.Array, classes: jax.Array | None = None) -> jax.Array:
        """Class activation maps of each level, without and with BFP (figure 5, section 4.4).

        Each is the map of Zhou et al. (2016), the paper's reference 50, with the classifier weights
        w of class c in the level's head:

            cam[y, x] = sum_k w[k, c] f[y, x, k]

        f is first the trunk's map (the paper's "original"), then BFP's output A_L, A_M or A_H
        ("augmented"), before the second pass: section 4.4 draws "the augmented feature maps via
        BFP", and section 3.1 gives that name to BFP's output.

        - Values may be negative, as in Zhou et al. To draw a map, scale it to [0, 1].
        - With a hierarchy, the middle and high heads pool sums that contain A_M and A_H as one
          term. The map shows only that term's evidence; `gradcams` reads the whole sum.
        - If a level has a pair, its head was not trained on the trunk's map. The map then shows
          what the head's classifier finds in the trunk's map. To draw a classifier trained on the
          trunk's maps, use a network without pairs ("Low+Middle+High(Res)" of table 2).
        - Generalized pooling keeps the channels, so the weights fit for any `lambdas`. The mean of
          a map is its part of the logit only if `lambdas` is (0,).

        Args:
            images: (B, H, W, 3) float32, normalised.
            classes: (B,) int32 in [0, num_classes), not checked: each image's class, used for all
                levels. By default each level uses the class that its head predicts.

        Returns:
            (B, 2, levels, h, w) float32: without BFP, then with BFP. For a level without a pair,
            both are equal. For a network without pairs, (B, 1, levels, h, w), without BFP.
        """
        plain, informed = self.perceived(images, train=False)
        if classes is None:
            pooled = self._pooled(informed, train=False)
            chosen = [
                head(x, train=False).predicted for head, x in zip(self.heads, pooled, strict=True)
            ]
        else:
            chosen = [classes] * len(self.levels)
        weights = {
            level: head.class_weights(c)
            for level, head, c in zip(self.levels, self.heads, chosen, strict=True)
        }
        rows = [
            [class_activation_map(maps[level], weights[level]) for level in self.levels]
            for maps in ((plain, informed) if self.pairs else (plain,))
        ]
        return jnp.stack([jnp.stack(row, axis=1) for row in rows], axis=1)

    @property
    def stage_names(self) -> tuple[str, ...]:
        """The names of the levels."""
        return tuple(level.capitalize() for level in self.levels)

    @nn.nowrap
    def start(self, variables: dict) -> dict:
        """Start the second pass of the hierarchy from the trunk's weights and statistics."""
        if not self.hierarchy:
            return variables
        copies = {f"second_res4_{b - 1}": f"layer3_{b}" for b in range(1, self.trunk.depths[2])}
        copies |= {f"second_res5_{b}": f"layer4_{b}" for b in range(self.trunk.depths[3])}
        return {
            name: {**tree, **{new: tree["trunk"][old] for new, old in copies.items()}}
            for name, tree in variables.items()
        }

    def check(self, image_size: tuple[int, int]) -> None:
        """Raise ValueError, naming the config leaf, if settings contradict each other."""
        super().check(image_size)
        for pair in self.pairs:
            missing = [level for level in PAIRS[pair] if level not in self.levels]
            if missing:
                raise ValueError(f"model.pairs has {pair!r}, but model.levels lacks {missing[0]!r}")
        if self.hierarchy and len(self.pairs) < len(PAIRS):
            raise ValueError(
                f"model.hierarchy needs all of model.pairs {tuple(PAIRS)}, not {tuple(self.pairs)}"
            )
        if "low" in self.levels and self.trunk.depths[2] < 2:
            raise ValueError(
                f"model.trunk.depths is {tuple(self.trunk.depths)}; the low and the middle level "
                "are the first and the last block of res4, so res4 needs at least two blocks"
            )
        if self.trunk.strides[3] != 1:
            raise ValueError(
                f"model.trunk.strides is {tuple(self.trunk.strides)}; the last must be 1, so that "
                "all levels have maps of the same size"
            )
