"""Pictures of an evaluation: Grad-CAM over queries, and their ranked lists."""

import pathlib
from collections.abc import Callable

import numpy as np

from reid_jax import visualize
from reid_jax.evaluation.evaluator import Evaluator
from reid_jax.evaluation.ranking import Descriptors, nearest


def write_figures(
    folder: str | pathlib.Path,
    evaluator: Evaluator,
    gradcams: Callable,
    variables,
    query: Descriptors,
    gallery: Descriptors,
    *,
    count: int,
    length: int = 10,
    block_size: int,
) -> list[pathlib.Path]:
    """Writes `gradcam.png` and `ranked_lists.png` for queries spread evenly over the split.

    Args:
        folder: made where it does not exist.
        evaluator: holds the images.
        gradcams: the network's face of that name, from `descriptors.pmap_face`.
        variables: {"params", "batch_stats"}.
        query: descriptors of the queries.
        gallery: descriptors of the gallery.
        count: queries to show.
        length: nearest gallery images to show for each.
        block_size: of the ranking.

    Returns:
        The two files.
    """
    shown = np.unique(np.linspace(0, len(query.pids) - 1, count).astype(np.int32))
    images = _pixels(evaluator.query_images, shown)
    # All devices get as many images: the last is repeated, and what it gives is dropped.
    batch = images[np.minimum(np.arange(evaluator.round_up(len(shown))), len(shown) - 1)]
    cams = np.asarray(gradcams(variables, batch))[: len(shown)]
    titles = [f"id {query.pids[i]}, cam {query.camids[i]}" for i in shown]

    few = Descriptors(query.features[shown], query.pids[shown], query.camids[shown])
    found, distances = nearest(few, gallery, length, block_size=block_size)
    listed = _pixels(evaluator.gallery_images, np.maximum(found, 0).ravel())
    pids = gallery.pids[found]
    folder = pathlib.Path(folder)
    figures = {
        "gradcam.png": visualize.gradcam_figure(images, cams, titles=titles),
        "ranked_lists.png": visualize.ranked_list_figure(
            images,
            listed.reshape(*found.shape, *images.shape[1:]),
            pids == few.pids[:, None],
            query_pids=few.pids,
            query_camids=few.camids,
            pids=pids,
            camids=gallery.camids[found],
            distances=distances,
        ),
    }
    for name, figure in figures.items():
        visualize.save(figure, folder / name)
    return [folder / name for name in figures]


def _pixels(images, indices: np.ndarray) -> np.ndarray:
    (batch,) = images.batches([indices.astype(np.int32)])
    return batch
