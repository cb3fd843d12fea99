"""Queries and their nearest gallery images, with right and wrong ones marked."""

import dataclasses
from collections.abc import Callable, Sequence

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

# Green and red of Okabe and Ito, which colour-blind readers can distinguish.
RIGHT = "#009E73"
WRONG = "#D55E00"

# Points.
_CAPTION = 6.5


@dataclasses.dataclass(frozen=True, eq=False)
class Identities:
    """Captions with identity and camera.

    Attributes:
        query_pids: int (N,), identities of the queries.
        query_camids: int (N,), their cameras.
        pids: int (N, k), identities of the gallery images; those below 1 are shown as distractors.
        camids: int (N, k), their cameras.
        identity: gives what an identity is called, such as `Dataset.identity`.
        camera: likewise of a camera; "" leaves it out.
    """

    query_pids: np.ndarray
    query_camids: np.ndarray
    pids: np.ndarray
    camids: np.ndarray
    identity: Callable[[int], str] = str
    camera: Callable[[int], str] = str

    def check(self, shape: tuple[int, int]) -> None:
        """Raise ValueError unless they belong to N queries with k images each."""
        for name in ("query_pids", "query_camids", "pids", "camids"):
            _check_shape(name, getattr(self, name), shape)

    def query(self, n: int, width: float) -> str:
        """The caption of a query, at most `width` inches wide."""
        who = _called("id", self.identity(int(self.query_pids[n])), width)
        camera = self.camera(int(self.query_camids[n]))
        return f"{who}\n{_called('cam', camera, width)}" if camera else who

    def found(self, n: int, r: int, width: float, distance: str) -> str:
        """The caption of a gallery image, at most `width` inches wide."""
        pid = int(self.pids[n, r])
        who = _called("id", self.identity(pid), width) if pid > 0 else "distractor"
        camera = self.camera(int(self.camids[n, r]))
        where = f"{_called('cam', camera, width / 2)} · " if camera else ""
        return f"{who}\n{where}{distance}"


def _called(kind: str, name: str, width: float) -> str:
    """`id 7` or `id gina`; a name that is no number loses its middle if it is too long."""
    plain = name.isascii() and name.isdigit()
    return f"{kind} {name}" if plain else fitted(f"{kind} {name}", width, _CAPTION)


@dataclasses.dataclass(frozen=True)
class Names:
    """Captions that are names. The middle of a long name is left out.

    Attributes:
        query_names: N texts.
        names: N times k texts, names of the gallery images.
    """

    query_names: Sequence[str]
    names: Sequence[Sequence[str]]

    def check(self, shape: tuple[int, int]) -> None:
        """Raise ValueError unless they belong to N queries with k images each."""
        check_texts(query_names=(self.query_names, shape[0]))
        if len(self.names) != shape[0]:
            raise ValueError(f"names must have {shape[0]} rows, got {len(self.names)}")
        for row in self.names:
            check_texts(names=(row, shape[1]))

    def query(self, n: int, width: float) -> str:
        """The caption of a query, at most `width` inches wide."""
        return fitted(self.query_names[n], width, _CAPTION)

    def found(self, n: int, r: int, width: float, distance: str) -> str:
        """The caption of a gallery image, at most `width` inches wide."""
        return f"{fitted(self.names[n][r], width, _CAPTION)}\n{distance}"


def ranked_list_figure(
    query_images: np.ndarray,
    gallery_images: np.ndarray,
    correct: np.ndarray,
    *,
    distances: np.ndarray,
    captions: Identities | Names,
    known: np.ndarray | None = None,
    empty: str = "",
) -> Figure:
    """Draw each query and its nearest gallery images, with right and wrong ones marked.

    A right match has a green frame and a tick, a wrong one a red frame and a cross. If it is
    unknown whether a match is right, the frame is grey and there is no mark.

    Args:
        query_images: uint8 (N, H, W, 3).
        gallery_images: uint8 (N, k, H, W, 3), nearest first.
        correct: bool (N, k).
        distances: float (N, k); an infinite entry means that there is no image, and is left blank.
        captions: the captions below the images.
        known: bool (N, k), False where `correct` is unknown; None means everywhere known.
        empty: text beside a query without any image.

    Returns:
        A figure of N (1 + k) axes, a row for each query.

    Raises:
        ValueError: if shapes disagree or a distance is NaN.
    """
    query_images, gallery_images = np.asarray(query_images), np.asarray(gallery_images)
    shape = _check(query_images, gallery_images, correct, distances, known)
    captions.check(shape)

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
        below = top + height + 0.05
        axes = picture(figure, query_images[n], MARGIN, top, cell, height, frame=INK)
        axes.set_title("Query", fontsize=8, color=INK, pad=4, fontweight="bold")
        text(figure, MARGIN + cell / 2, below, captions.query(n, cell), _CAPTION, GREY)
        if empty and np.isinf(distances[n]).all():
            left = MARGIN + query_gap + cell + gap
            text(figure, left, top + height / 2, empty, 8, GREY, ha="left", va="center")
        for r in range(shape[1]):
            left = MARGIN + query_gap + (1 + r) * (cell + gap)
            if np.isinf(distances[n, r]):
                picture(figure, None, left, top, cell, height)
                continue
            color, symbol = (RIGHT, " ✓") if correct[n, r] else (WRONG, " ✗")
            if known is not None and not known[n, r]:
                color, symbol = GREY, ""
            axes = picture(figure, gallery_images[n, r], left, top, cell, height, frame=color)
            axes.set_title(f"{r + 1}{symbol}", fontsize=8, color=color, pad=4, fontweight="bold")
            who = captions.found(n, r, cell, f"{distances[n, r]:#.3g}")
            text(figure, left + cell / 2, below, who, _CAPTION, GREY)
    return figure


def _check(
    query_images: np.ndarray,
    gallery_images: np.ndarray,
    correct: np.ndarray,
    distances: np.ndarray,
    known: np.ndarray | None,
) -> tuple[int, int]:
    """Return N and k. Raise ValueError as `ranked_list_figure`."""
    check_images(query_images, "query_images", 4)
    check_images(gallery_images, "gallery_images", 5)
    shape = gallery_images.shape[:2]
    _check_shape("correct", correct, shape)
    _check_shape("distances", distances, shape)
    if known is not None:
        _check_shape("known", known, shape)
    if query_images.shape != (shape[0], *gallery_images.shape[2:]):
        raise ValueError(
            f"query_images {query_images.shape} do not match gallery_images {gallery_images.shape}"
        )
    if np.isnan(distances).any():
        raise ValueError("distances hold NaN")
    return shape


def _check_shape(name: str, array: np.ndarray, shape: tuple[int, int]) -> None:
    expected = shape[:1] if name.startswith("query") else shape
    if np.shape(array) != expected:
        raise ValueError(f"{name} must be of shape {expected}, got {np.shape(array)}")
