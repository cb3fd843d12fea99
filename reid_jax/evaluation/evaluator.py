"""Evaluation of a network on the query and gallery of a dataset."""

from collections.abc import Callable

import flax.linen as nn
import jax
import numpy as np

from reid_jax.data.images import Images, open_images
from reid_jax.data.layouts import Dataset, Split
from reid_jax.evaluation.descriptors import extract, pmap_face
from reid_jax.evaluation.ranking import Descriptors, RankingResult, evaluate_ranking


class Evaluator:
    """Opens the images of query and gallery once, and scores any weights of one network on them."""

    def __init__(
        self,
        network: nn.Module,
        dataset: Dataset,
        config,
        devices: list[jax.Device],
        progress: Callable[[str], object] | None = None,
    ):
        """Reads and checks every image of both splits.

        Args:
            network: from `reid_jax.models.create`.
            dataset: whose query and gallery to take.
            config: a whole recipe; reads `data` and `eval`.
            devices: to share each batch.
            progress: called with a line of text now and then; None is silence.

        Raises:
            ValueError: a file is no image.
        """
        self.dataset = dataset
        self._devices = len(devices)
        self._config = config
        self._face = pmap_face(network, devices)
        size, loader = config.data.image_size, config.data.loader
        self.query_images = open_images(dataset.query.paths, size, loader, progress)
        self.gallery_images = open_images(dataset.gallery.paths, size, loader, progress)

    def describe(self, variables) -> tuple[Descriptors, Descriptors]:
        """Descriptors of the query and of the gallery under {"params", "batch_stats"}."""
        return (
            self._describe(variables, self.query_images, self.dataset.query),
            self._describe(variables, self.gallery_images, self.dataset.gallery),
        )

    def rank(self, query: Descriptors, gallery: Descriptors) -> RankingResult:
        """CMC, mAP and mINP of descriptors, in blocks of `eval.block_size`."""
        return evaluate_ranking(query, gallery, block_size=self._config.eval.block_size)

    def round_up(self, count: int) -> int:
        """The next number of images that the devices share evenly."""
        return -(-count // self._devices) * self._devices

    def __call__(self, variables) -> RankingResult:
        """CMC, mAP and mINP of {"params", "batch_stats"}."""
        return self.rank(*self.describe(variables))

    def _describe(self, variables, images: Images, split: Split) -> Descriptors:
        batch_size = self.round_up(self._config.eval.batch_size)
        features = extract(self._face, variables, images, len(split), batch_size)
        return Descriptors(features, split.pids, split.camids)


def check(config) -> None:
    """Raises ValueError, naming the leaf of a recipe's `eval`, for sizes below 1."""
    for leaf in ("batch_size", "block_size"):
        if config[leaf] < 1:
            raise ValueError(f"eval.{leaf} is {config[leaf]}; it must be at least 1")


def table(result: RankingResult) -> str:
    """The scores in per cent as two lines of text, and a third where queries have no match."""
    names = ["Rank-1", "Rank-5", "Rank-10", "mAP", "mINP"]
    ranks = [result.cmc[min(k, len(result.cmc)) - 1] for k in (1, 5, 10)]
    values = 100 * np.array([*ranks, result.mAP, result.mINP])
    lines = [
        "".join(f"{name:>9}" for name in names),
        "".join(f"{value:9.1f}" for value in values),
    ]
    if len(result.unmatched):
        lines.append(
            f"{len(result.unmatched)} of {result.num_queries} queries have no match in the gallery "
            "and are left out"
        )
    return "\n".join(lines)
