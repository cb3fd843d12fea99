"""Pictures of an evaluation: what the network looks at in queries, and their ranked lists."""

import pathlib

import jax
import numpy as np

from reid_jax import visualize
from reid_jax.evaluation.descriptors import pmap_face
from reid_jax.evaluation.distances import Descriptors, Rescore
from reid_jax.evaluation.evaluator import Evaluator
from reid_jax.evaluation.ranking import nearest
from reid_jax.models import Network


def write_figures(
    folder: str | pathlib.Path,
    evaluator: Evaluator,
    network: Network,
    devices: list[jax.Device],
    variables,
    query: Descriptors,
    gallery: Descriptors,
    *,
    count: int,
    length: int = 10,
    block_size: int,
    rescore: Rescore | None = None,
) -> list[pathlib.Path]:
    """Writes pictures of queries spread evenly over the split, those the network allows.

    They are `gradcam.png` of a network that classifies, `activations.png` of one that has
    `activations`, and always `ranked_lists.png`.

    Args:
        folder: made where it does not exist.
        evaluator: knows the images.
        network: whose maps to draw.
        devices: the evaluator's.
        variables: {"params", "batch_stats"}.
        query: descriptors of the queries.
        gallery: descriptors of the gallery.
        count: queries to show.
        length: nearest gallery images to show for each.
        block_size: of the ranking.
        rescore: of the ranking; lists then show its distances.

    Returns:
        The files.
    """
    shown = np.unique(np.linspace(0, len(query.pids) - 1, count).astype(np.int32))
    images = evaluator.query_pixels(shown)
    titles = [f"id {query.pids[i]}, cam {query.camids[i]}" for i in shown]
    # All devices get as many images: the last is repeated, and what it gives is dropped.
    batch = images[np.minimum(np.arange(evaluator.round_up(len(shown))), len(shown) - 1)]

    def maps(method: str) -> np.ndarray:
        return np.asarray(pmap_face(network, devices, method)(variables, batch))[: len(shown)]

    figures = {}
    if network.classifies:
        figures["gradcam.png"] = visualize.gradcam_figure(
            images, maps("gradcams"), names=network.stage_names, titles=titles
        )
    if hasattr(network, "activations"):
        activations = maps("activations")
        figures["activations.png"] = visualize.activation_figure(
            images,
            activations,
            rows=("without BFP", "with BFP")[: activations.shape[1]],
            columns=network.stage_names,
            titles=titles,
        )

    few = Descriptors(query.features[shown], query.pids[shown], query.camids[shown])
    found, distances = nearest(
        few,
        gallery,
        length,
        block_size=block_size,
        rescore=None if rescore is None else lambda i: rescore(shown[i]),
    )
    listed = evaluator.gallery_pixels(np.maximum(found, 0).ravel())
    pids = gallery.pids[found]
    figures["ranked_lists.png"] = visualize.ranked_list_figure(
        images,
        listed.reshape(*found.shape, *images.shape[1:]),
        pids == few.pids[:, None],
        query_pids=few.pids,
        query_camids=few.camids,
        pids=pids,
        camids=gallery.camids[found],
        distances=distances,
    )
    folder = pathlib.Path(folder)
    for name, figure in figures.items():
        visualize.save(figure, folder / name)
    return [folder / name for name in figures]
