"""PMM, the Progressive Multi-stage feature Mix network (Zhang et al., ICASSP 2021, section 2).

Stage I reads the trunk. Stages II and III read one extra bottleneck's map in which the blocks that
the stage before found most salient are replaced by another identity's, so that each has to find
other clues.
"""

import jax
import jax.numpy as jnp

from reid_jax import mixing
from reid_jax.gradcam import gradcam
from reid_jax.mixing import Mixture
from reid_jax.models.heads import StageHead, StageOutput
from reid_jax.models.network import Network, logits_of
from reid_jax.runtime import collectives

# Those that change the maps of stages II and III, and those that change the images.
_OF_FEATURES = ("hardmix", "cutout")
_OF_IMAGES = ("cutmix", "attentive_cutmix")


class PMM(Network):
    """The network of figure 2.

    Attributes, beside those of every network:
        embedding_dim: of each stage; the descriptor has `stages` times as many numbers.
        stages: 1, 2 or 3 stages.
        mixing: what sets later stages other tasks than the first, or a rival (tables 1 and 3).
            `hardmix`, attentive Hard-Mix of section 2.2: the ranked blocks give way to another
            identity's. `cutout`: they become 0. `cutmix`: images get a random box of another
            identity's image, and part of its label; maps stay whole. `attentive_cutmix`: the same
            with the blocks where the other's map is most active. `none`: nothing is mixed.
        block: (height, width) of a block of the ranking in cells of the map.
        top_k: K, blocks that are replaced.
    """

    embedding_dim: int = 512
    stages: int = 3
    mixing: str = "hardmix"
    block: tuple[int, int] = (3, 2)
    top_k: int = 3

    def setup(self):  # noqa: D102
        self.extra = self.trunk.block_of(stage=4)  # of ResNet-50 2048-512-2048
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

    def training(
        self, images: jax.Array, labels: jax.Array, key: jax.Array
    ) -> tuple[StageOutput, ...]:
        """Training: one `StageOutput` a stage. Apply with `mutable=["batch_stats"]`.

        The map a stage pools carries the Grad-CAM of that stage; its ranked blocks are mixed into
        the *unmixed* map for the next one, with partners of their own. Where images are mixed
        instead, all stages share the mixture.

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
        """Images with part of a partner's at the same place, and who that is.

        Where Attentive CutMix asks a pretrained network what matters in the partner's image, the
        trunk itself is asked, in inference: the mean over channels of its last map, in a forward
        pass more.
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
        """As the paper numbers them."""
        return ("Stage I", "Stage II", "Stage III")[: self.stages]

    def check(self, image_size: tuple[int, int]) -> None:
        """Raises ValueError, naming the config leaf, where settings contradict each other."""
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
