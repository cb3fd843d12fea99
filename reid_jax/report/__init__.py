"""`report.html`: an evaluation to look at in a browser, every query with its list and its Grad-CAM.

`content` gathers what is shown, `thumbnails` makes images small, `page` writes the HTML around
`page.css` and `page.js`.
"""

import hashlib
import os
import pathlib
import re
import shutil
from collections.abc import Callable, Iterable, Mapping

import jax
import numpy as np
from matplotlib.figure import Figure

from reid_jax.runtime.progress import Progress
from reid_jax import visualize
from reid_jax.evaluation.distances import Descriptors, Rescore
from reid_jax.evaluation.evaluator import Evaluator, scores
from reid_jax.evaluation.ranking import RankingResult, nearest
from reid_jax.models import Network
from reid_jax.report import content, page, thumbnails
from reid_jax.runs.workdir import write_text_atomically
from reid_jax.runtime.messages import printable, shown

PAGE = "report.html"
IMAGES = "report_images"  # beside it, where images do not fit into it

#: Bytes of a page with its thumbnails; with no more, browsers open it at once.
PAGE_BYTES = 48_000_000

# Names of the folders in IMAGES: digests of what lies there.
_DIGEST = re.compile(r"[0-9a-f]{16}", re.ASCII)


def write_report(
    folder: str | os.PathLike[str],
    evaluator: Evaluator,
    network: Network,
    devices: list[jax.Device],
    variables,
    query: Descriptors,
    gallery: Descriptors,
    result: RankingResult,
    *,
    facts: Mapping[str, str],
    curves: Figure | None,
    batch_size: int,
    block_size: int,
    rescore: Rescore | None = None,
    length: int = 10,
    page_bytes: int = PAGE_BYTES,
    progress: Progress,
) -> pathlib.Path:
    """Writes `report.html`, whole or not at all: a kill leaves an earlier one as it was.

    Thumbnails are part of it, as good as they may be in `page_bytes`. Where even the smallest do
    not fit, they lie in `report_images` beside the page. Memory holds a page and a few batches of
    images.

    Args:
        folder: an existing folder.
        evaluator: knows the images.
        network: whose Grad-CAM to show, where it classifies.
        devices: the evaluator's.
        variables: {"params", "batch_stats"}.
        query: descriptors of the queries.
        gallery: descriptors of the gallery.
        result: of ranking the one for the other.
        facts: what was evaluated and how: names and printable texts.
        curves: of the training, or None.
        batch_size: images that Grad-CAM takes at a time.
        block_size: of the ranking.
        rescore: of the ranking; lists then show its distances.
        length: nearest gallery images to show for each query.
        page_bytes: what the page may take, if its other content lets it.
        progress: called with a line of text now and then, and with what was written at the end.

    Returns:
        The page.

    Raises:
        ValueError: a Grad-CAM is not finite, or an image cannot be read any more.
        OSError: the folder cannot be written to.
    """
    folder = pathlib.Path(folder)
    found, distances = nearest(
        query, gallery, length, block_size=block_size, rescore=rescore, progress=progress
    )
    maps = np.zeros((len(found), 0, 1, 1), np.uint8)
    if network.classifies:
        maps = content.gradcam_maps(network, devices, variables, evaluator, batch_size, progress)
    distinct, found = content.listed(found)
    split, root = evaluator.dataset.query, evaluator.dataset.root
    lists = content.Lists(
        query=content.Images(content.names(split.paths, root), split.pids, split.camids),
        gallery=content.Images(
            content.names([evaluator.gallery_paths[g] for g in distinct], root),
            gallery.pids[distinct],
            gallery.camids[distinct],
        ),
        found=found,
        distances=distances,
        average_precision=result.average_precision,
        ranks=result.ranks,
        stages=network.stage_names if network.classifies else (),
        maps=maps,
    )
    charts = [("CMC curve", visualize.inline_svg(visualize.cmc_figure(result.cmc), "cmc"))]
    if curves is not None:
        charts.append(("Training curves", visualize.inline_svg(curves, "training")))
    counts = {
        "Queries": f"{result.num_queries:,}"
        + (f", {len(result.unmatched):,} without a match" if len(result.unmatched) else ""),
        "Gallery": f"{len(gallery.pids):,}",
    }
    summary = content.Summary(
        title=f"{type(network).__name__} on {printable(os.path.basename(os.path.abspath(root)))}",
        facts=[*facts.items(), *counts.items()],
        scores=list(scores(result).items()),
        charts=charts,
    )

    def read(indices: np.ndarray) -> np.ndarray:
        """Images of the page by their indices: the queries, then those of the gallery."""
        own = indices[indices < len(split)]
        others = distinct[indices[indices >= len(split)] - len(split)]
        parts = [(evaluator.query_pixels, own), (evaluator.gallery_pixels, others)]
        return np.concatenate([pixels(some) for pixels, some in parts if len(some)])

    def build(files: list[bytes] | str) -> str:
        return page.build(summary, lists, files, ratio=ratio, gallery_size=len(gallery.pids))

    height, width = thumbnails.shape(read(np.arange(1)).shape[1:3], 1024)
    ratio = width / height
    count = len(split) + len(distinct)
    # Base64 makes 4 bytes of 3, and rounds each up.
    free = (page_bytes - len(build("")) - 16 * count) * 3 // 4
    files = thumbnails.fitting(read, count, free)
    path = folder / PAGE
    if files is None:
        digest = _write_images(folder / IMAGES, thumbnails.stream(read, count, thumbnails.FREE))
        write_text_atomically(path, build(f"{IMAGES}/{digest}"))
        _remove_images(folder / IMAGES, but=digest)
        beside = f", thumbnails of {count:,} images in {shown(folder / IMAGES)}"
    else:
        write_text_atomically(path, build(files))
        _remove_images(folder / IMAGES)
        beside = ""
    progress(f"wrote {shown(path)}, {path.stat().st_size / 1e6:,.1f} MB{beside}")
    return path


def _write_images(folder: pathlib.Path, files: Iterable[bytes]) -> str:
    """Writes files below a folder of their own in `folder`, and gives its name, their digest."""
    part = folder / f".{os.getpid()}.part"
    shutil.rmtree(part, ignore_errors=True)
    digest = hashlib.sha256()
    for i, file in enumerate(files):
        path = part / page.image_path(i)
        if i % 1000 == 0:
            path.parent.mkdir(parents=True)
        path.write_bytes(file)
        digest.update(len(file).to_bytes(8) + file)
    name = digest.hexdigest()[:16]
    if (folder / name).exists():
        shutil.rmtree(part)
    else:
        part.rename(folder / name)
    return name


def _remove_images(folder: pathlib.Path, but: str | None = None) -> None:
    """Removes the images of earlier pages, and `folder` where nothing else is in it."""
    if not folder.is_dir() or folder.is_symlink():
        return
    for path in folder.iterdir():
        if _DIGEST.fullmatch(path.name) and path.name != but:
            shutil.rmtree(path)
    if not any(folder.iterdir()):
        folder.rmdir()
