"""PMM, the Progressive Multi-stage feature Mix network (Zhang et al., ICASSP 2021, section 2).

Stage I reads the trunk. Stages II and III read the map of one extra bottleneck, in which the blocks
that the previous stage found most salient are replaced by another identity's, so that each stage
has to find other clues.
"""

import jax
import jax.numpy as jnp

from reid_jax import mixing
from reid_jax.gradcam import gradcam
from reid_jax.mixing import Mixture
from reid_jax.models.heads import StageHead, StageOutput
from reid_jax.models.network import Network, logits_of
from reid_jax.runtime import collectives

# Kinds of mixing that change the maps of stages II and III. The others change the images.
_OF_FEATURES = ("hardmix", "cutout")
_OF_IMAGES = ("cutmix", "attentive_cutmix")


class PMM(Network):
    """The network of figure 2.

    Attributes, in addition to those of every network:
        embedding_dim: size of each stage's embedding; the descriptor is `stages` times as long.
        stages: 1, 2 or 3 stages.
        mixing: how the task of later stages differs from the first one's, or a rival method (tables
            1 and 3). `hardmix`, attentive Hard-Mix of section 2.2: another identity's blocks
            replace the ranked blocks. `cutout`: the ranked blocks become 0. `cutmix`: images get a
            random box of another identity's image and part of its label; maps are unchanged.
            `attentive_cutmix`: the same as `cutmix`, with the blocks in which the other image's map
            is most active. `none`: no mixing.
        block: (height, width) of a block of the ranking, in cells of the map.
        top_k: K, the number of blocks that are replaced.
    """

    embedding_dim: int = 512
    stages: int = 3
    mixing: str = "hardmix"
    block: tuple[int, int] = (3, 2)
    top_k: int = 3

    def setup(self):  # noqa: D102
        self.extra = self.trunk.block_of(stage=4)  # 2048-512-2048 for ResNet-50
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
        """The map each stage reads before mixing: res5, for later stages the extra bottleneck's."""
        features = self.trunk(images, train).res5
        if self.stages == 1:
            return (features,)
        extra = self.extra(features, train)
        return (features, *[extra] * (self.stages - 1))

    def training(
        self, images: jax.Array, labels: jax.Array, key: jax.Array
    ) -> tuple[StageOutput, ...]:
        """Training: one `StageOutput` per stage. Apply with `mutable=["batch_stats"]`.

        The Grad-CAM of a stage is computed on the map that the stage pools. Its ranked blocks are
        mixed into the *unmixed* map for the next stage, with newly drawn partners. If images are
        mixed instead of maps, all stages share the mixture.

        Args:
            images: (B, H, W, 3) float32, normalised.
            labels: (B,) int32 identities, at least two in the whole batch.
            key: typed key, equal on all devices.
        """
        mixture = None
        if self.mixing in _OF_IMAGES:
            images, mixture = self._mixed_images(images, labels, key)
        outputs = []
        mask = None
        for stage, (head, unmixed) in enumerate(
            zip(self.heads, self.maps(images, train=True), strict=True)
        ):
            features = unmixed
            if mask is not None and self.mixing == "cutout":
                features = jnp.where(mask[..., None] > 0, unmixed, jnp.zeros_like(unmixed))
            elif mask is not None:
                stage_key = jax.random.fold_in(key, stage)
                partner = mixing.partners(stage_key, labels, self.axis_name)
                features = mixing.hard_mix(unmixed, mask, partner, self.axis_name)
            outputs.append(head(features, train=True)._replace(mixture=mixture))
            if self.mixing in _OF_FEATURES and stage + 1 < self.stages:
                cam = gradcam(logits_of(head, train=True), features, labels)
                mask = mixing.block_mask(cam, self.block, self.top_k)
        return tuple(outputs)

    def _mixed_images(
        self, images: jax.Array, labels: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, Mixture]:
        """Images with a part of a partner's image at the same place, and the mixture of identities.

        Attentive CutMix uses a pretrained network to find what matters in the partner's image. Here
        the trunk itself is used, in inference mode and in an extra forward pass: the mean over
        channels of its last map.
        """
        partner_key, box_key = jax.random.split(key)
        partner = mixing.partners(partner_key, labels, self.axis_name)
        if self.mixing == "cutmix":
            keys = collectives.batch_keys(box_key, images.shape[0], self.axis_name)
            mask = mixing.cutmix_mask(keys, _size(images))
        else:
            features = jax.lax.stop_gradient(self.trunk(images, train=False).res5)
            activity = features.mean(axis=-1, dtype=jnp.float32)
            mask = mixing.block_mask(activity, self.block, self.top_k)
            mask = collectives.gather(mask, self.axis_name)[partner]
            mask = mixing.enlarge(mask, _size(images))
        donors = collectives.gather(labels, self.axis_name)[partner]
        mixture = Mixture(donors, 1.0 - mask.mean(axis=(1, 2)))
        return mixing.hard_mix(images, mask, partner, self.axis_name), mixture

    @property
    def stage_names(self) -> tuple[str, ...]:
        """The stages' names, numbered as in the paper."""
        return ("Stage I", "Stage II", "Stage III")[: self.stages]

    def check(self, image_size: tuple[int, int]) -> None:
        """Raise ValueError, naming the config leaf, if settings contradict each other."""
        super().check(image_size)
        map_size = self.trunk.map_size(image_size)
        attentive = self.mixing == "attentive_cutmix"
        if attentive or (self.mixing in _OF_FEATURES and self.stages > 1):
            mixing.check_blocks(map_size, self.block, self.top_k)
        if attentive:
            mixing.check_cells(map_size, image_size)


def _size(images: jax.Array) -> tuple[int, int]:
    """(height, width) of images (B, H, W, C)."""
    return images.shape[1], images.shape[2]
