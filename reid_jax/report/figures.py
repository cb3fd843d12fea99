"""Pictures of an evaluation: activation maps of some queries, and their ranked lists."""

import pathlib

import numpy as np
from matplotlib.figure import Figure

from reid_jax import visualize
from reid_jax.data.identities import DISTRACTOR
from reid_jax.evaluation.descriptor_sets import Descriptors
from reid_jax.evaluation.descriptors import pmap_face
from reid_jax.evaluation.evaluator import Evaluation
from reid_jax.evaluation.ranking import nearest
from reid_jax.runtime.devices import memory_set_by
from reid_jax.runtime.messages import printable


def write_figures(
    folder: str | pathlib.Path, evaluation: Evaluation, *, shown: np.ndarray, length: int = 10
) -> list[pathlib.Path]:
    """Write the pictures that the network supports, of some queries.

    They are `gradcam.png` if the network classifies, `activations.png` if it has
    `class_activations`, with each level's map for the class that it predicts, and always
    `ranked_lists.png`.

    Args:
        folder: created if it does not exist.
        evaluation: the evaluation to draw. Lists show the distances of its ranking.
        shown: (n,) indices of the queries to show, from `programs.evaluate.choose_queries`.
        length: number of nearest gallery images to show for each query.

    Returns:
        The files.
    """
    images = evaluation.evaluator.query_pixels(shown)
    figures = _map_figures(evaluation, shown, images)
    figures["ranked_lists.png"] = _ranked_lists(evaluation, shown, images, length)
    folder = pathlib.Path(folder)
    for name, figure in figures.items():
        visualize.save(figure, folder / name)
    return [folder / name for name in figures]


def _map_figures(
    evaluation: Evaluation, shown: np.ndarray, images: np.ndarray
) -> dict[str, Figure]:
    """Activation maps of the queries `shown` as pictures, by file name."""
    evaluator, query = evaluation.evaluator, evaluation.query
    network = evaluator.network
    dataset = evaluator.dataset
    titles = [printable(f"id {dataset.identity(query.pids[i])}") for i in shown]
    if dataset.has_cameras:
        cameras = [printable(dataset.camera(query.camids[i])) for i in shown]
        titles = [f"{who}, cam {camera}" for who, camera in zip(titles, cameras, strict=True)]

    def maps(method: str) -> np.ndarray:
        face = pmap_face(network, evaluator.devices, method)
        size = min(evaluator.batch_size, evaluator.round_up(len(shown)))
        parts = []
        with memory_set_by("eval.batch_size"):
            for start in range(0, len(shown), size):
                # The last image is repeated, and its extra maps are dropped.
                batch = images[np.minimum(np.arange(start, start + size), len(shown) - 1)]
                parts.append(np.asarray(face(evaluation.variables, batch))[: len(shown) - start])
        return np.concatenate(parts)

    figures = {}
    if network.classifies:
        figures["gradcam.png"] = visualize.gradcam_figure(
            images, maps("gradcams"), names=network.stage_names, titles=titles
        )
    if hasattr(network, "class_activations"):
        cams = maps("class_activations")
        figures["activations.png"] = visualize.class_activation_figure(
            images,
            cams,
            rows=("without BFP", "with BFP")[: cams.shape[1]],
            columns=network.stage_names,
            titles=titles,
        )
    return figures


def _ranked_lists(
    evaluation: Evaluation, shown: np.ndarray, images: np.ndarray, length: int
) -> Figure:
    """A picture of the nearest gallery images of the queries `shown`."""
    evaluator, gallery, rescore = evaluation.evaluator, evaluation.gallery, evaluation.rescore
    query = evaluation.query
    few = Descriptors(query.features[shown], query.pids[shown], query.camids[shown])
    found, distances = nearest(
        few,
        gallery,
        length,
        block_size=evaluator.block_size,
        rescore=None if rescore is None else lambda i: rescore(shown[i]),
    )
    listed = evaluator.gallery_pixels(np.maximum(found, 0).ravel())
    pids = gallery.pids[found]
    return visualize.ranked_list_figure(
        images,
        listed.reshape(*found.shape, *images.shape[1:]),
        (pids == few.pids[:, None]) & (pids > DISTRACTOR),
        distances=distances,
        captions=visualize.Identities(
            few.pids,
            few.camids,
            pids,
            gallery.camids[found],
            evaluator.dataset.identity,
            evaluator.dataset.camera,
        ),
    )
