"""What all networks have in common: a trunk, maps, and a head that reads each map."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from reid_jax.gradcam import gradcam
from reid_jax.models.heads import StageOutput
from reid_jax.models.resnet import ResNet


class Network(nn.Module):
    """A network with two faces: inference, `network(images)`, and `network.training(...)`.

    A subclass defines `maps` and, in `setup`, `heads`, one for each map.

    Attributes:
        num_classes: training identities.
        trunk: the ResNet, unbound.
        dtype: dtype of the computation; parameters and batch statistics are float32.
        axis_name: the pmapped axis whose devices share a batch, or None.
    """

    num_classes: int
    trunk: ResNet
    dtype: Any = jnp.float32
    axis_name: str | None = None

    def maps(self, images: jax.Array, train: bool) -> tuple[jax.Array, ...]:
        """The map (B, h, w, C) that each head pools, without dropping or mixing for training."""
        raise NotImplementedError

    def __call__(self, images: jax.Array) -> jax.Array:
        """Inference: map normalised images (B, H, W, 3) to descriptors (B, D) float32."""
        maps = self.maps(images, train=False)
        outputs = [head(x, train=False) for head, x in zip(self.heads, maps, strict=True)]
        return jnp.concatenate([output.described for output in outputs], axis=-1)

    def training(
        self, images: jax.Array, labels: jax.Array, key: jax.Array
    ) -> tuple[StageOutput, ...]:
        """Training: one `StageOutput` per head. Apply with `mutable=["batch_stats"]`.

        Args:
            images: (B, H, W, 3) float32, normalised.
            labels: (B,) int32 identities, at least two in the whole batch.
            key: typed key, equal on all devices.
        """
        maps = self.maps(images, train=True)
        return tuple(head(x, train=True) for head, x in zip(self.heads, maps, strict=True))

    def gradcams(self, images: jax.Array) -> jax.Array:
        """Grad-CAM of each head's predicted identity: (B, heads, h, w) float32."""
        return jnp.stack(self.cams(images), axis=1)

    def cams(self, images: jax.Array) -> list[jax.Array]:
        """Grad-CAM as in `gradcams`: one array per head, with the size of the map that it pools."""
        cams = []
        for head, features in zip(self.heads, self.maps(images, train=False), strict=True):
            predicted = head(features, train=False).predicted
            cams.append(gradcam(logits_of(head, train=False), features, predicted))
        return cams

    @property
    def classifies(self) -> bool:
        """Whether the heads return logits, which Grad-CAM needs."""
        return True

    @property
    def stage_names(self) -> tuple[str, ...]:
        """The names of the heads in figures, in order."""
        raise NotImplementedError

    @nn.nowrap
    def start(self, variables: dict) -> dict:
        """The variables a run starts with, given initialised ones whose trunk may be pretrained."""
        return variables

    def check(self, image_size: tuple[int, int]) -> None:
        """Raise ValueError, naming the config leaf, if settings contradict each other."""
        self.trunk.check(image_size)


def logits_of(head: nn.Module, train: bool):
    """Wrap a bound head as a pure function from a map to logits. Batch norm records nothing.

    The function repeats the head's forward pass: a few products on pooled features, which XLA may
    merge with the stage's own.
    """
    module, variables = head.unbind()

    def logits(features):
        output, _ = module.apply(variables, features, train=train, mutable=["batch_stats"])
        return output.logits

    return logits
