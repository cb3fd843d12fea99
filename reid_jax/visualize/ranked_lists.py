"""Queries and what the network takes for the same person, right and wrong ones marked."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from reid_jax.visualize.canvas import (
    GREY,
    INK,
    MARGIN,
    MAX_CELL,
    WIDTH,
    check_images,
    check_texts,
    fitted,
    new_figure,
    picture,
    text,
)

# Green and red of Okabe and Ito, which the colour-blind tell apart.
RIGHT = "#009E73"
WRONG = "#D55E00"

# Points.
_CAPTION = 6.5


def ranked_list_figure(
    query_images: np.ndarray,
    gallery_images: np.ndarray,
    correct: np.ndarray,
    *,
    query_pids: np.ndarray | None = None,
    query_camids: np.ndarray | None = None,
    pids: np.ndarray | None = None,
    camids: np.ndarray | None = None,
    distances: np.ndarray,
    known: np.ndarray | None = None,
    query_names: Sequence[str] | None = None,
    names: Sequence[Sequence[str]] | None = None,
) -> Figure:
    """Draws each query and its nearest gallery images, right and wrong ones marked.

    A right match has a green frame and a tick, a wrong one a red frame and a cross. Where nobody
    knows there is a grey frame and no mark. Captions say identity and camera, or instead names.

    Args:
        query_images: uint8 (N, H, W, 3).
        gallery_images: uint8 (N, k, H, W, 3), nearest first.
        correct: bool (N, k).
        query_pids: int (N,), identities of the queries. These four are needed where there are no
            names.
        query_camids: int (N,), their cameras.
        pids: int (N, k), identities of the gallery images; those below 1 are called distractors.
        camids: int (N, k), their cameras.
        distances: float (N, k); an entry at infinity is missing and left blank.
        known: bool (N, k), whether `correct` tells anything; None is wherever.
        query_names: N texts; of one that is too long the middle is left out.
        names: N times k texts, of the gallery images.

    Returns:
        A figure of N (1 + k) axes, a row for each query.

    Raises:
        ValueError: if shapes disagree or a distance is NaN.
    """
    query_images, gallery_images = np.asarray(query_images), np.asarray(gallery_images)
    check_images(query_images, "query_images", 4)
    check_images(gallery_images, "gallery_images", 5)
    shape = gallery_images.shape[:2]
    given = {"correct": correct, "distances": distances}
    if known is not None:
        given["known"] = known
    named = names is not None and query_names is not None
    if named:
        check_texts(query_names=(query_names, shape[0]), names=(names, shape[0]))
        for row in names:
            check_texts(names=(row, shape[1]))
    else:
        given |= {"query_pids": query_pids, "query_camids": query_camids}
        given |= {"pids": pids, "camids": camids}
    for name, array in given.items():
        expected = shape[:1] if name.startswith("query") else shape
        if np.shape(array) != expected:
            raise ValueError(f"{name} must be of shape {expected}, got {np.shape(array)}")
    if query_images.shape != (shape[0], *gallery_images.shape[2:]):
        raise ValueError(
            f"query_images {query_images.shape} do not go with gallery_images "
            f"{gallery_images.shape}"
        )
    if np.isnan(distances).any():
        raise ValueError("distances hold NaN")

    gap, query_gap, header, caption = 0.1, 0.16, 0.22, 0.32
    free = WIDTH - 2 * MARGIN - query_gap - shape[1] * gap
    cell = min(MAX_CELL, free / (1 + shape[1]))
    height = cell * query_images.shape[1] / query_images.shape[2]
    pitch = header + height + caption
    figure = new_figure(
        2 * MARGIN + query_gap + (1 + shape[1]) * cell + shape[1] * gap,
        2 * MARGIN + shape[0] * pitch,
    )
    for n in range(shape[0]):
        top = MARGIN + n * pitch + header
        axes = picture(figure, query_images[n], MARGIN, top, cell, height, frame=INK)
        axes.set_title("Query", fontsize=8, color=INK, pad=4, fontweight="bold")
        if named:
            who = fitted(query_names[n], cell, _CAPTION)
        else:
            who = f"id {query_pids[n]}\ncam {query_camids[n]}"
        text(figure, MARGIN + cell / 2, top + height + 0.05, who, _CAPTION, GREY)
        for r in range(shape[1]):
            left = MARGIN + query_gap + (1 + r) * (cell + gap)
            if np.isinf(distances[n, r]):
                axes = picture(figure, None, left, top, cell, height)
                continue
            color, symbol = (RIGHT, " ✓") if correct[n, r] else (WRONG, " ✗")
            if known is not None and not known[n, r]:
                color, symbol = GREY, ""
            axes = picture(figure, gallery_images[n, r], left, top, cell, height, frame=color)
            axes.set_title(f"{r + 1}{symbol}", fontsize=8, color=color, pad=4, fontweight="bold")
            distance = f"{distances[n, r]:#.3g}"
            if named:
                who = f"{fitted(names[n][r], cell, _CAPTION)}\n{distance}"
            else:
                who = f"id {pids[n, r]}" if pids[n, r] > 0 else "distractor"
                who += f"\ncam {camids[n, r]} · {distance}"
            text(figure, left + cell / 2, top + height + 0.05, who, _CAPTION, GREY)
    return figure
