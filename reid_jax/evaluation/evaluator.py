"""Evaluation of a network on the query and gallery of a dataset."""

from collections.abc import Callable

import flax.linen as nn
import jax
import numpy as np

from reid_jax.data.images import Images, open_images
from reid_jax.data.layouts import Dataset, Split
from reid_jax.data.streamed import StreamedImages
from reid_jax.evaluation import multi_query
from reid_jax.evaluation.descriptors import descriptor_face, extract
from reid_jax.evaluation.ranking import RankingResult, evaluate_ranking
from reid_jax.evaluation.search import Descriptors, Rescore


class Evaluator:
    """Opens the images of query and gallery once, and scores any weights of one network on them."""

    def __init__(
        self,
        network: nn.Module,
        dataset: Dataset,
        config,
        devices: list[jax.Device],
        progress: Callable[[str], object] | None = None,
        *,
        boxes: Split | None = None,
        pooling: str = "average",
        extra: Split | None = None,
    ):
        """Reads and checks every image.

        Args:
            network: from `reid_jax.models.create`.
            dataset: whose query and gallery to take.
            config: a whole recipe; reads `data` and `eval`.
            devices: to share each batch.
            progress: called with a line of text now and then; None is silence.
            boxes: for multi-query, images that take the place of the query's, from
                `layouts.read_multi_query`.
            pooling: how their descriptors become a query's, `average` or `max`.
            extra: more gallery images, from `layouts.read_extra`, read from disk as they are
                described.

        Raises:
            ValueError: a file is no image, or `pooling` is another.
        """
        self.dataset = dataset
        self._devices = len(devices)
        self._config = config
        self._progress = progress
        self._face = descriptor_face(
            network, devices, flip=config.eval.flip, unit_length=config.eval.normalize
        )

        def read(split: Split) -> Images:
            return open_images(split.paths, config.data.image_size, config.data.loader, progress)

        self.query_images = read(dataset.query)
        self._gallery = [(read(dataset.gallery), dataset.gallery)]
        if extra is not None:
            streamed = StreamedImages(extra.paths, config.data.image_size, progress)
            self._gallery.append((streamed, extra))
        multi_query.check(pooling)
        self._pooling = pooling
        self._boxes = None if boxes is None else (read(boxes), boxes)

    def describe(self, variables) -> tuple[Descriptors, Descriptors]:
        """Descriptors of the query and of the gallery under {"params", "batch_stats"}."""
        split = self.dataset.query
        if self._boxes is None:
            query = self._describe(variables, [(self.query_images, split)])
        else:
            boxes = self._describe(variables, [self._boxes])
            query = multi_query.pool(split, boxes, self._pooling, self._config.eval.normalize)
        return query, self._describe(variables, self._gallery)

    def rank(
        self, query: Descriptors, gallery: Descriptors, rescore: Rescore | None = None
    ) -> RankingResult:
        """CMC, mAP and mINP of descriptors, in blocks of `eval.block_size`."""
        return evaluate_ranking(
            query,
            gallery,
            block_size=self._config.eval.block_size,
            rescore=rescore,
            progress=self._progress,
        )

    def gallery_pixels(self, indices: np.ndarray) -> np.ndarray:
        """Images of the gallery, extra ones included, (N, H, W, 3) uint8, by (N,) indices."""
        pixels = np.empty((len(indices), *self._config.data.image_size, 3), np.uint8)
        first = 0
        for images, split in self._gallery:
            (here,) = np.nonzero((indices >= first) & (indices < first + len(split)))
            if len(here):
                (pixels[here],) = images.batches([(indices[here] - first).astype(np.int32)])
            first += len(split)
        return pixels

    def round_up(self, count: int) -> int:
        """The next number of images that the devices share evenly."""
        return -(-count // self._devices) * self._devices

    def __call__(self, variables) -> RankingResult:
        """CMC, mAP and mINP of {"params", "batch_stats"}."""
        return self.rank(*self.describe(variables))

    def _describe(self, variables, parts: list[tuple[Images, Split]]) -> Descriptors:
        features = extract(
            self._face,
            variables,
            [(images, len(split)) for images, split in parts],
            self.round_up(self._config.eval.batch_size),
            self._progress,
        )
        pids, camids = (
            np.concatenate([getattr(split, field) for _, split in parts])
            for field in ("pids", "camids")
        )
        return Descriptors(features, pids, camids)


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
