"""`report.html`: every query of an evaluation with its list and its Grad-CAM, for a browser."""

import dataclasses
import hashlib
import os
import pathlib
import shutil
import uuid
from collections.abc import Iterable, Mapping

import numpy as np
from matplotlib.figure import Figure

from reid_jax import visualize
from reid_jax.evaluation.descriptor_sets import Descriptors
from reid_jax.evaluation.evaluator import Evaluation, scores
from reid_jax.evaluation.first_matches import first_matches
from reid_jax.evaluation.ranking import RankingResult, nearest
from reid_jax.evaluation.verification import VerificationResult
from reid_jax.report import content, page, thumbnails
from reid_jax.runs.results import IMAGES, PAGE, remove_images
from reid_jax.runtime.files import local_path, write_text_atomically
from reid_jax.runtime.messages import counted, printable, shown
from reid_jax.runtime.progress import Progress

#: Bytes of a page with its thumbnails. Browsers open a page up to this size at once.
PAGE_BYTES = 48_000_000


def write_report(
    folder: str | os.PathLike[str],
    evaluation: Evaluation,
    *,
    facts: Mapping[str, str],
    curves: Mapping[str, Figure],
    rows: Mapping[str, RankingResult] = {},
    length: int = 10,
    page_bytes: int = PAGE_BYTES,
    progress: Progress = None,
) -> pathlib.Path:
    """Write `report.html`, completely or not at all: after a kill, an earlier page is unchanged.

    Thumbnails are part of the page, in the best quality that fits into `page_bytes`. If even the
    smallest do not fit, they are written to `report_images` beside the page. Memory holds a page
    and a few batches of images.

    Args:
        folder: an existing folder.
        evaluation: the evaluation to show. Grad-CAM is shown if the network classifies.
        facts: what was evaluated and how, as names and printable texts.
        curves: training curves by heading, from `visualize.curve_figures`; may be empty.
        rows: results on several datasets by name, that of `evaluation` first, for the table of
            scores. By default, the table shows only the scores of `evaluation`.
        length: number of nearest gallery images to show for each query.
        page_bytes: size that the page may have, if its other content allows it.
        progress: called with progress messages, and at the end with the names of the written files;
            None disables them.

    Returns:
        The page.

    Raises:
        ValueError: a Grad-CAM is not finite, or an image can no longer be read.
        OSError: the folder cannot be written to.
    """
    folder = pathlib.Path(local_path(folder, "the report's folder"))
    shown_images, lists = _lists(evaluation, length, progress)
    summary = _summary(evaluation, facts, curves, rows)
    ratio = shown_images.ratio

    def build(files: list[bytes] | str) -> str:
        size = len(evaluation.gallery.pids)
        return page.build(summary, lists, files, ratio=ratio, gallery_size=size)

    count = len(shown_images)
    # Base64 encodes 3 bytes as 4, and rounds up each file.
    free = (page_bytes - len(build("")) - 16 * count) * 3 // 4
    files = thumbnails.fitting(shown_images.read, count, free)
    path = folder / PAGE
    if files is None:
        stream = thumbnails.stream(shown_images.read, count, thumbnails.FREE)
        digest = _write_images(folder / IMAGES, stream)
        write_text_atomically(path, build(f"{IMAGES}/{digest}"))
        remove_images(folder, but=digest)
        beside = f", thumbnails of {counted(count, 'image')} in {shown(folder / IMAGES)}"
    else:
        write_text_atomically(path, build(files))
        remove_images(folder)
        beside = ""
    if progress:
        progress(f"wrote {shown(path)}, {path.stat().st_size / 1e6:,.1f} MB{beside}")
    return path


@dataclasses.dataclass(frozen=True, eq=False)
class _ShownImages:
    """The images of a page: all queries, then the gallery images that are in some list.

    Attributes:
        evaluation: holds the images.
        listed: (T,) indices of those gallery images.
    """

    evaluation: Evaluation
    listed: np.ndarray

    def __len__(self) -> int:
        return len(self.evaluation.query.pids) + len(self.listed)

    @property
    def ratio(self) -> float:
        """Width divided by height of an image as it is shown."""
        height, width = thumbnails.shape(self.read(np.arange(1)).shape[1:3], 1024)
        return width / height

    def read(self, indices: np.ndarray) -> np.ndarray:
        """Read images by their indices: uint8 (n, H, W, 3)."""
        evaluator, queries = self.evaluation.evaluator, len(self.evaluation.query.pids)
        own = indices[indices < queries]
        others = self.listed[indices[indices >= queries] - queries]
        parts = [(evaluator.query_pixels, own), (evaluator.gallery_pixels, others)]
        return np.concatenate([pixels(some) for pixels, some in parts if len(some)])


def _lists(
    evaluation: Evaluation, length: int, progress: Progress
) -> tuple[_ShownImages, content.Lists]:
    """Rank the gallery for every query and compute Grad-CAM of the queries."""
    evaluator, gallery = evaluation.evaluator, evaluation.gallery
    network, dataset = evaluator.network, evaluator.dataset
    split, root = dataset.query, dataset.folder or "."
    found, distances = nearest(
        evaluation.query,
        gallery,
        length,
        block_size=evaluator.block_size,
        rescore=evaluation.rescore,
        progress=progress,
    )
    maps = np.zeros((len(found), 0, 1, 1), np.uint8)
    if network.classifies:
        maps = content.gradcam_maps(evaluator, evaluation.variables, progress)
    missed, missed_distances = _missed(evaluation, found.shape[1])
    distinct, indices = content.listed(np.column_stack([found, missed]))
    camids = split.camids, gallery.camids
    if not dataset.has_cameras:  # All images are of one camera without a name.
        camids = np.zeros_like(split.camids), np.zeros_like(gallery.camids)
    lists = content.Lists(
        query=content.Images(content.names(split.paths, root), split.pids, camids[0]),
        gallery=content.Images(
            content.names([evaluator.gallery_paths[g] for g in distinct], root),
            gallery.pids[distinct],
            camids[1][distinct],
        ),
        found=indices[:, :-1],
        distances=distances,
        average_precision=evaluation.result.average_precision,
        ranks=evaluation.result.ranks,
        stages=network.stage_names if network.classifies else (),
        maps=maps,
        missed=indices[:, -1],
        missed_distances=missed_distances,
        identities=content.called(np.append(split.pids, gallery.pids), dataset.identity),
        cameras=content.called(np.concatenate(camids), dataset.camera),
    )
    return _ShownImages(evaluation, distinct), lists


def _missed(evaluation: Evaluation, length: int) -> tuple[np.ndarray, np.ndarray]:
    """The first match of every query whose list is too short to hold it; see `content.Lists`."""
    query, rescore = evaluation.query, evaluation.rescore
    indices = np.full(len(query.pids), -1, np.int32)
    distances = np.full(len(query.pids), np.inf, np.float32)
    late = np.array([len(ranks) > 0 and ranks[0] > length for ranks in evaluation.result.ranks])
    if late.any():
        some = np.flatnonzero(late)
        indices[some], distances[some] = first_matches(
            Descriptors(query.features[some], query.pids[some], query.camids[some]),
            evaluation.gallery,
            None if rescore is None else lambda i: rescore(some[i]),
        )
    return indices, distances


def _summary(
    evaluation: Evaluation,
    facts: Mapping[str, str],
    curves: Mapping[str, Figure],
    rows: Mapping[str, RankingResult],
) -> content.Summary:
    """The head of the page."""
    result, evaluator = evaluation.result, evaluation.evaluator
    figures = {"CMC curve": visualize.cmc_figure(result.cmc)}
    verified = {}
    if evaluation.verification is not None:
        verified["Verification"], drawn = _verification(evaluation.verification)
        for heading, figure in drawn.items():
            figures[f"{heading}. {verified['Verification']}"] = figure
    figures |= {f"Training: {heading}": figure for heading, figure in curves.items()}
    charts = [
        (heading, visualize.inline_svg(figure, f"chart{i}"))
        for i, (heading, figure) in enumerate(figures.items())
    ]
    counts = {
        "Queries": f"{result.num_queries:,}"
        + (f", {len(result.unmatched):,} without a match" if len(result.unmatched) else ""),
        "Gallery": f"{len(evaluation.gallery.pids):,}",
    }
    folder = printable(os.path.basename(os.path.abspath(evaluator.dataset.root)))
    return content.Summary(
        title=f"{type(evaluator.network).__name__} on {folder}",
        facts=[*facts.items(), *counts.items(), *verified.items()],
        scores={name: scores(row) for name, row in (rows or {"": result}).items()},
        charts=charts,
    )


def _verification(result: VerificationResult) -> tuple[str, dict[str, Figure]]:
    """The scores of verification as text, and its figures by heading."""
    rate = 1e-3
    tpr, threshold = result.at(rate)
    text = (
        f"AUC {result.AUC:.1%}, EER {result.EER:.1%}, true positive rate {tpr:.1%} at false "
        f"positive rate {rate:g}"
    )
    line = None
    if threshold is not None:
        text += f" (distance {threshold:.4f})"
        line = f"FPR {rate:g}: {threshold:.4g}", threshold
    return text, {
        "Distances": visualize.distances_figure(
            result.edges, result.positive_histogram, result.negative_histogram, line
        ),
        "ROC": visualize.roc_figure(result.fpr, result.tpr, result.AUC),
    }


def _write_images(folder: pathlib.Path, files: Iterable[bytes]) -> str:
    """Write files to a new folder in `folder` and return its name, the digest of the files."""
    part = folder / f".{uuid.uuid4().hex}.part"
    digest = hashlib.sha256()
    try:
        for i, file in enumerate(files):
            path = part / page.image_path(i)
            if i % 1000 == 0:
                path.parent.mkdir(parents=True)
            path.write_bytes(file)
            digest.update(len(file).to_bytes(8) + file)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    name = digest.hexdigest()[:16]
    if (folder / name).exists():
        shutil.rmtree(part)
    else:
        part.rename(folder / name)
    return name
