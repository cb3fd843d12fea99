"""Pictures of an evaluation: what the network looks at in queries, and their ranked lists."""

import os
import pathlib
from collections.abc import Sequence

import jax
import numpy as np

from reid_jax import console, visualize
from reid_jax.evaluation.descriptors import pmap_face
from reid_jax.evaluation.evaluator import Evaluator
from reid_jax.evaluation.ranking import nearest
from reid_jax.evaluation.search import Descriptors, Rescore
from reid_jax.models import Network


def choose_queries(chosen: int | Sequence[str], paths: Sequence[str]) -> np.ndarray:
    """The queries to draw.

    Args:
        chosen: how many, spread evenly over the split; or the files to draw, in this order, each a
            path or the end of one, such as a file's name.
        paths: the files of all queries.

    Returns:
        (n,) int32 indices.

    Raises:
        ValueError: a file is not a query, or is the end of several paths; all such are named.
    """
    if isinstance(chosen, int):
        return np.unique(np.linspace(0, len(paths) - 1, chosen).astype(np.int32))
    parts = [pathlib.Path(os.path.abspath(path)).parts for path in paths]
    indices, problems = [], []
    for file in chosen:
        end, name = pathlib.Path(file).parts, console.shown(file)
        found = [i for i, path in enumerate(parts) if end and path[-len(end) :] == end]
        indices += found
        if not found:
            problems.append(f"no query matches {name}")
        elif len(found) > 1:
            first, second = (console.shown(paths[i]) for i in found[:2])
            problems.append(f"{len(found)} queries match {name}, such as {first} and {second}")
    if problems:
        raise ValueError(
            f"queries to draw: {'; '.join(problems)}. Give each as a path, or the end of a path, "
            f"that only one query has, such as {console.shown(paths[0])}"
        )
    return np.array(indices, np.int32)


def write_figures(
    folder: str | pathlib.Path,
    evaluator: Evaluator,
    network: Network,
    devices: list[jax.Device],
    variables,
    query: Descriptors,
    gallery: Descriptors,
    *,
    shown: np.ndarray,
    length: int = 10,
    block_size: int,
    rescore: Rescore | None = None,
) -> list[pathlib.Path]:
    """Writes pictures of some queries, those the network allows.

    They are `gradcam.png` of a network that classifies, `activations.png` of one that has
    `class_activations`, each level's for the class it predicts, and always `ranked_lists.png`.

    Args:
        folder: made where it does not exist.
        evaluator: knows the images.
        network: whose maps to draw.
        devices: the evaluator's.
        variables: {"params", "batch_stats"}.
        query: descriptors of the queries.
        gallery: descriptors of the gallery.
        shown: (n,) indices of the queries to show, from `choose_queries`.
        length: nearest gallery images to show for each.
        block_size: of the ranking.
        rescore: of the ranking; lists then show its distances.

    Returns:
        The files.
    """
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
    if hasattr(network, "class_activations"):
        cams = maps("class_activations")
        figures["activations.png"] = visualize.class_activation_figure(
            images,
            cams,
            rows=("without BFP", "with BFP")[: cams.shape[1]],
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
