"""PMM, the Progressive Multi-stage feature Mix network (Zhang et al., ICASSP 2021, section 2).

Stage I reads the trunk. Stages II and III read one extra bottleneck's map in which the blocks that
the stage before found most salient are replaced by another identity's, so that each has to find
other clues.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from reid_jax import mixing
from reid_jax.gradcam import gradcam
from reid_jax.models.heads import StageHead, StageOutput
from reid_jax.models.resnet import EXPANSION, Bottleneck, ResNet

MIXINGS = ("hardmix", "none")


class PMM(nn.Module):
    """The network of figure 2.

    Attributes:
        num_classes: training identities.
        trunk: the ResNet, unbound.
        embedding_dim: of each stage; the descriptor has `stages` times as many numbers.
        stages: 1, 2 or 3 stages.
        mixing: `hardmix`, attentive Hard-Mix of section 2.2, or `none`: stages II and III see the
            whole map.
        block: (height, width) of a block of the ranking in cells of the map.
        top_k: K, blocks that are replaced.
        dtype: of the computation.
        axis_name: the pmapped axis whose devices share a batch, or None.
    """

    num_classes: int
    trunk: ResNet
    embedding_dim: int = 512
    stages: int = 3
    mixing: str = "hardmix"
    block: Sequence[int] = (3, 2)
    top_k: int = 3
    dtype: Any = jnp.float32
    axis_name: str | None = None

    def setup(self):  # noqa: D102
        self.extra = Bottleneck(
            self.trunk.features // EXPANSION, dtype=self.dtype, axis_name=self.axis_name
        )
        self.heads = [
            StageHead(
                pooling=pooling,
                embedding_dim=self.embedding_dim,
                num_classes=self.num_classes,
                dtype=self.dtype,
                axis_name=self.axis_name,
            )
            for pooling in ("average", "max", "max")[: self.stages]
        ]

    def maps(self, images: jax.Array, train: bool) -> tuple[jax.Array, ...]:
        """The map each stage reads before mixing: res5, for later ones the extra bottleneck's."""
        features = self.trunk(images, train).res5
        if self.stages == 1:
            return (features,)
        extra = self.extra(features, train)
        return (features, *[extra] * (self.stages - 1))

    def __call__(self, images: jax.Array) -> jax.Array:
        """Inference: normalised images (B, H, W, 3) to descriptors (B, stages * E) float32."""
        maps = self.maps(images, train=False)
        outputs = [head(x, train=False) for head, x in zip(self.heads, maps, strict=True)]
        return jnp.concatenate([output.embedding for output in outputs], axis=-1)

    def training(
        self, images: jax.Array, labels: jax.Array, key: jax.Array
    ) -> tuple[StageOutput, ...]:
        """Training: one `StageOutput` a stage. Apply with `mutable=["batch_stats"]`.

        The map a stage pools carries the Grad-CAM of that stage; its ranked blocks are mixed into
        the *unmixed* map for the next one, with partners of their own.

        Args:
            images: (B, H, W, 3) float32, normalised.
            labels: (B,) int32 identities, at least two in the whole batch.
            key: typed key, equal on all devices.
        """
        outputs = []
        mask = None
        for stage, (head, unmixed) in enumerate(
            zip(self.heads, self.maps(images, train=True), strict=True)
        ):
            features = unmixed
            if mask is not None:
                stage_key = jax.random.fold_in(key, stage)
                partner = mixing.partners(stage_key, labels, self.axis_name)
                features = mixing.hard_mix(unmixed, mask, partner, self.axis_name)
            outputs.append(head(features, train=True))
            if self.mixing == "hardmix" and stage + 1 < self.stages:
                cam = gradcam(_logits_of(head, train=True), features, labels)
                mask = mixing.block_mask(cam, self.block, self.top_k)
        return tuple(outputs)

    def gradcams(self, images: jax.Array) -> jax.Array:
        """Grad-CAM of each stage's predicted identity (figure 4): (B, stages, h, w) float32."""
        cams = []
        for head, features in zip(self.heads, self.maps(images, train=False), strict=True):
            predicted = head(features, train=False).logits.argmax(axis=-1)
            cams.append(gradcam(_logits_of(head, train=False), features, predicted))
        return jnp.stack(cams, axis=1)

    def check(self, image_size: tuple[int, int]) -> None:
        """Raises ValueError, naming the config leaf, where settings contradict each other."""
        if self.mixing not in MIXINGS:
            raise ValueError(f"model.mixing is {self.mixing!r}; it must be one of {MIXINGS}")
        if self.stages not in (1, 2, 3):
            raise ValueError(f"model.stages is {self.stages}; PMM has 1, 2 or 3 stages")
        if self.embedding_dim < 1:
            raise ValueError(f"model.embedding_dim is {self.embedding_dim}; it must be at least 1")
        self.trunk.check()
        if self.mixing == "hardmix" and self.stages > 1:
            mixing.check_blocks(self.trunk.map_size(image_size), self.block, self.top_k)


def _logits_of(head: StageHead, train: bool):
    """A bound head as a pure function from a map to logits; batch norm records nothing.

    It repeats the head's forward pass, a few products on pooled features, which XLA may merge with
    the stage's own.
    """
    module, variables = head.unbind()

    def logits(features):
        output, _ = module.apply(variables, features, train=train, mutable=["batch_stats"])
        return output.logits

    return logits
