"""BDB, the Batch DropBlock network (Dai et al., ICCV 2019). PMM builds on it and compares with it.

A global branch reads the whole map. A part branch reads a map in which one rectangle is set to
zero, at the same place in all images of the batch, so that the branch has to find other clues.
"""

import jax
import jax.numpy as jnp

from reid_jax.models.heads import StageHead, StageOutput
from reid_jax.models.network import Network
from reid_jax.rectangles import inside


class BDB(Network):
    """The network of figure 2 of the BDB paper.

    Attributes, in addition to those of every network:
        global_dim: size of the global branch's embedding.
        part_dim: size of the part branch's embedding. The descriptor is both embeddings,
            concatenated.
        drop_height: height of the dropped rectangle, as a fraction of the map's height.
        drop_width: width of the dropped rectangle, as a fraction of the map's width.
    """

    global_dim: int = 512
    part_dim: int = 1024
    drop_height: float = 0.33
    drop_width: float = 1.0

    def setup(self):  # noqa: D102
        common = {"dtype": self.dtype, "axis_name": self.axis_name}
        self.extra = self.trunk.block_of(stage=4)  # 2048-512-2048 for ResNet-50
        self.heads = [
            StageHead(pooling, dim, self.num_classes, **common)
            for pooling, dim in (("average", self.global_dim), ("max", self.part_dim))
        ]

    def maps(self, images: jax.Array, train: bool) -> tuple[jax.Array, ...]:
        """The global branch's map, res5, and the part branch's map, from an extra bottleneck."""
        features = self.trunk(images, train).res5
        return features, self.extra(features, train)

    def training(
        self, images: jax.Array, labels: jax.Array, key: jax.Array
    ) -> tuple[StageOutput, ...]:
        """Training: one `StageOutput` per branch. Apply with `mutable=["batch_stats"]`.

        Args:
            images: (B, H, W, 3) float32, normalised.
            labels: (B,) int32 identities; ignored.
            key: typed key, equal on all devices, so that the same rectangle is dropped in all
                images.
        """
        whole, part = self.maps(images, train=True)
        part = batch_drop(key, part, self._rectangle((part.shape[1], part.shape[2])))
        return tuple(head(x, train=True) for head, x in zip(self.heads, (whole, part), strict=True))

    @property
    def stage_names(self) -> tuple[str, ...]:
        """The names of the branches."""
        return ("Global branch", "Part branch")

    def check(self, image_size: tuple[int, int]) -> None:
        """Raise ValueError, naming the config leaf, if settings contradict each other."""
        super().check(image_size)
        size = self.trunk.map_size(image_size)
        if 0 in self._rectangle(size) or self._rectangle(size) == tuple(size):
            raise ValueError(
                f"model.drop_height and model.drop_width are {self.drop_height} and "
                f"{self.drop_width}, which drop {self._rectangle(size)} of {tuple(size)} cells; "
                "at least one cell must be dropped and at least one kept"
            )

    def _rectangle(self, size: tuple[int, int]) -> tuple[int, int]:
        return round(self.drop_height * size[0]), round(self.drop_width * size[1])


def batch_drop(key: jax.Array, features: jax.Array, rectangle: tuple[int, int]) -> jax.Array:
    """Set one rectangle to 0, at the same uniformly random place in all maps.

    Args:
        key: typed key.
        features: (B, H, W, C).
        rectangle: (height, width), in cells of the map.

    Returns:
        (B, H, W, C), of the dtype of `features`.
    """
    row_key, column_key = jax.random.split(key)
    size = (features.shape[1], features.shape[2])
    top = jax.random.randint(row_key, (), 0, size[0] - rectangle[0] + 1)
    left = jax.random.randint(column_key, (), 0, size[1] - rectangle[1] + 1)
    dropped = inside(size, top, left, *rectangle)
    return jnp.where(dropped[None, :, :, None], jnp.zeros_like(features), features)
