"""Evaluation of a network on the query and gallery of a dataset.

Several hosts share the work: each describes its part of the images and ranks its part of the
queries.
"""

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from reid_jax.data.batch_sizes import batch_limit
from reid_jax.data.loaders import Images, open_images
from reid_jax.data.memory import MemoryImages
from reid_jax.data.skipping import advised
from reid_jax.data.splits import Dataset, Split
from reid_jax.data.streamed import StreamedImages
from reid_jax.evaluation import multi_query
from reid_jax.evaluation.descriptor_sets import Descriptors
from reid_jax.evaluation.descriptors import descriptor_face, extract
from reid_jax.evaluation.distances import Rescore
from reid_jax.evaluation.ranking import RankingResult, match_ranks, score_ranks
from reid_jax.evaluation.reranking import k_reciprocal
from reid_jax.evaluation.verification import NoPairs, VerificationResult, evaluate_verification
from reid_jax.recipe import RecipeConfig
from reid_jax.runtime import hosts
from reid_jax.runtime.messages import counted
from reid_jax.runtime.progress import Progress


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluation:
    """A network's descriptors of a dataset, and how well they rank.

    Attributes:
        evaluator: holds the network and the images.
        variables: {"params", "batch_stats"} of the network.
        query: descriptors of the queries.
        gallery: descriptors of the gallery.
        result: result of ranking the gallery for the queries.
        rescore: values that order the gallery instead of the distance; None for the distance.
        verification: how well distances separate pairs of one identity from the others; None if
            there is no positive or no negative pair.
    """

    evaluator: "Evaluator"
    variables: Any
    query: Descriptors
    gallery: Descriptors
    result: RankingResult
    rescore: Rescore | None = None
    verification: VerificationResult | None = None


class Evaluator:
    """Opens the images of query and gallery once, and scores any weights of one network on them."""

    def __init__(
        self,
        network: nn.Module,
        dataset: Dataset,
        config: RecipeConfig,
        devices: list[jax.Device],
        progress: Progress = None,
        *,
        boxes: Split | None = None,
        pooling: str = "average",
        extra: Split | None = None,
    ):
        """Read and check every image of this host's part.

        Args:
            network: from `reid_jax.models.create`.
            dataset: the dataset whose query and gallery are used.
            config: a whole recipe; reads `data` and `eval`.
            devices: this host's devices, which share each batch.
            progress: called with progress messages; None disables them.
            boxes: for multi-query, images from `layouts.read_multi_query` that replace the query's.
            pooling: how the boxes' descriptors are combined into a query's, `average` or `max`.
            extra: more gallery images, from `layouts.read_extra`. They are read from disk while
                they are described.

        Raises:
            ValueError: a file is not an image, or `pooling` is unknown.
        """
        self.network, self.devices = network, devices
        self._config = config
        self._progress = progress
        self._face = descriptor_face(
            network, devices, flip=config.eval.flip, unit_length=config.eval.normalize
        )

        multi_query.check(pooling)
        self._pooling = pooling
        self._open(dataset, boxes, extra)

    def on(
        self, dataset: Dataset, *, boxes: Split | None = None, extra: Split | None = None
    ) -> "Evaluator":
        """An evaluator of another dataset, with the same compiled functions.

        Arguments and errors are those of `Evaluator`.
        """
        other = copy.copy(self)
        other._open(dataset, boxes, extra)
        return other

    def _open(self, dataset: Dataset, boxes: Split | None, extra: Split | None) -> None:
        """Read and check every image of this host's part."""
        self.dataset, config, progress = dataset, self._config, self._progress
        splits = [split for split in (dataset.query, dataset.gallery, boxes, extra) if split]
        if any(len(split) < hosts.count() for split in splits):
            raise ValueError("there are more hosts than images to evaluate on: use fewer hosts")

        def read(split: Split, streamed: bool = False) -> tuple[Images, Split]:
            paths, size = split.paths[hosts.own_part(len(split))], config.data.image_size
            with advised():
                if streamed:
                    return StreamedImages(paths, size, progress), split
                return open_images(paths, size, config.data.loader, progress), split

        def read_all():
            # Multi-query reads only identities and cameras of the queries.
            query = read(dataset.query) if boxes is None else None
            gallery = [read(dataset.gallery)]
            if extra is not None:
                gallery.append(read(extra, streamed=True))
            return query, None if boxes is None else read(boxes), gallery

        self._query, self._boxes, self._gallery = hosts.together(read_all)
        # The files of the gallery, including extra images, in the order of its descriptors.
        self.gallery_paths = [path for _, split in self._gallery for path in split.paths]

    def describe(self, variables) -> tuple[Descriptors, Descriptors]:
        """Compute the descriptors of query and gallery from {"params", "batch_stats"}."""
        if self._boxes is None:
            query = self._describe(variables, [self._query])
        else:
            boxes = self._describe(variables, [self._boxes])
            query = multi_query.pool(
                self.dataset.query, boxes, self._pooling, self._config.eval.normalize
            )
        return query, self._describe(variables, self._gallery)

    def rank(
        self, query: Descriptors, gallery: Descriptors, rescore: Rescore | None = None
    ) -> RankingResult:
        """Compute CMC, mAP and mINP of descriptors, in blocks of `eval.block_size`."""
        own = hosts.own_part(len(query.pids))
        ranks = match_ranks(
            Descriptors(query.features[own], query.pids[own], query.camids[own]),
            gallery,
            block_size=self.block_size,
            rescore=None if rescore is None else lambda i: rescore(own.start + i),
            progress=self._progress,
        )
        lengths = hosts.gather_rows(np.array([len(r) for r in ranks]))
        every = hosts.gather_rows(np.concatenate(ranks))
        return score_ranks(np.split(every, np.cumsum(lengths)[:-1]))

    def verify(
        self, query: Descriptors, gallery: Descriptors, rescore: Rescore | None = None
    ) -> VerificationResult | None:
        """ROC of all pairs, in blocks of `eval.block_size`; None if one kind of pair is missing."""
        try:
            return evaluate_verification(
                query,
                gallery,
                block_size=self.block_size,
                rescore=rescore,
                progress=self._progress,
                team=hosts.EVERYBODY,
            )
        except NoPairs as error:
            if self._progress:
                self._progress(f"verification is left out: {error}")
            return None

    def evaluate(self, variables, *, rerank: bool = False) -> Evaluation:
        """Describe all images, rank the gallery and score verification.

        Args:
            variables: {"params", "batch_stats"}.
            rerank: order the gallery by k-reciprocal re-ranking.
        """
        query, gallery = self.describe(variables)
        rescore = None
        if rerank:
            rescore = k_reciprocal(
                query, gallery, block_size=self.block_size, progress=self._progress
            )
        result = self.rank(query, gallery, rescore)
        verification = self.verify(query, gallery, rescore)
        return Evaluation(self, variables, query, gallery, result, rescore, verification)

    def __call__(self, variables) -> RankingResult:
        """Compute CMC, mAP and mINP from {"params", "batch_stats"}."""
        return self.rank(*self.describe(variables))

    @property
    def batch_size(self) -> int:
        """Images per batch at most, a multiple of the number of devices: `batch_limit` of
        `eval.batch_size`."""
        config = self._config
        limit = batch_limit(config.eval.batch_size, config.data.image_size, self.devices)
        return self.round_up(limit)

    @property
    def block_size(self) -> int:
        """Gallery images that are ranked at a time, `eval.block_size`."""
        return self._config.eval.block_size

    def query_pixels(self, indices: np.ndarray) -> np.ndarray:
        """Read a few query images again: (N,) indices to (N, H, W, 3) uint8."""
        return self._pixels(self.dataset.query.paths, indices)

    def gallery_pixels(self, indices: np.ndarray) -> np.ndarray:
        """Read a few gallery images again, including extra ones: (N,) indices to (N, H, W, 3)
        uint8."""
        return self._pixels(self.gallery_paths, indices)

    def _pixels(self, paths: Sequence[str], indices: np.ndarray) -> np.ndarray:
        return MemoryImages([paths[i] for i in indices], self._config.data.image_size).pixels

    def round_up(self, count: int) -> int:
        """Round a number of images up to a multiple of the number of this host's devices."""
        return -(-count // len(self.devices)) * len(self.devices)

    def _describe(self, variables, parts: list[tuple[Images, Split]]) -> Descriptors:
        features = extract(
            self._face,
            variables,
            [(images, len(images)) for images, _ in parts],
            self.batch_size,
            self._progress,
            devices=self.devices,
        )
        features = _in_order(features, [len(split) for _, split in parts])
        pids, camids = (
            np.concatenate([getattr(split, field) for _, split in parts])
            for field in ("pids", "camids")
        )
        return Descriptors(features, pids, camids)


def _in_order(features: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """Gather every host's descriptors: part after part with the given sizes, each in order.

    Args:
        features: this host's share of each part, one after the other, (n, D).
        sizes: the sizes of the parts, over all hosts.
    """
    if hosts.count() == 1:
        return features
    shares = [hosts.own_part(size) for size in sizes]
    ends = np.cumsum([share.stop - share.start for share in shares])[:-1]
    return np.concatenate([hosts.gather_rows(part) for part in np.split(features, ends)])


def scores(result: RankingResult) -> dict[str, float]:
    """Rank-1, Rank-5, Rank-10, mAP and mINP in per cent."""
    ranks = {f"Rank-{k}": result.cmc[min(k, len(result.cmc)) - 1] for k in (1, 5, 10)}
    values = ranks | {"mAP": result.mAP, "mINP": result.mINP}
    return {name: 100 * float(value) for name, value in values.items()}


def table(result: RankingResult) -> str:
    """The scores in per cent as two lines of text, and a third line if queries have no match."""
    shares = scores(result)
    lines = [
        "".join(f"{name:>9}" for name in shares),
        "".join(f"{value:9.1f}" for value in shares.values()),
    ]
    if len(result.unmatched):
        lines.append(
            f"left out: {len(result.unmatched)} of "
            f"{counted(result.num_queries, 'query', 'queries')} without a match in the gallery"
        )
    return "\n".join(lines)


def tables(results: Mapping[str, RankingResult]) -> str:
    """The scores on several datasets by name, one row each; `table` if there is only one."""
    if len(results) == 1:
        return table(*results.values())
    width = max(map(len, results))
    lines = [" " * width + table(next(iter(results.values()))).split("\n")[0]]
    for name, result in results.items():
        _, values, *left_out = table(result).split("\n")
        lines += [f"{name:{width}}{values}", *(f"  {line}" for line in left_out)]
    return "\n".join(lines)
