"""Helpers to draw on a figure whose size is in inches: images and texts at given positions."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font

from reid_jax.runtime.files import local_path, replacing

INK = "#222222"
GREY = "#6B6B6B"
GRID = "#E6E6E6"
AXIS = "#BBBBBB"
BLUE = "#0072B2"  # the first drawing colour of Okabe and Ito

DPI = 150
# Inches. 9 is the width of a README's column.
WIDTH = 9.0
MARGIN = 0.08
MAX_CELL = 1.0


def save(figure: Figure, path: str | os.PathLike) -> None:
    """Write the figure as PNG, completely or not at all, and create its folder.

    Args:
        figure: any figure of this package.
        path: the file; an existing one is replaced.

    Raises:
        OSError: if the folder cannot be created or written to.
    """
    path = Path(local_path(path, "the picture's file"))
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, unique=True) as draft:
        # Without matplotlib's version in it, the same picture gives the same file.
        figure.savefig(draft, format="png", metadata={"Software": None})


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of a size in inches."""
    return Figure(figsize=(width, height), dpi=DPI, facecolor="white")


def picture(
    figure: Figure,
    image: np.ndarray | None,
    left: float,
    top: float,
    width: float,
    height: float,
    frame: str | None = None,
) -> Axes:
    """Add axes, at inches from the figure's top left, that show an image or stay empty."""
    across, down = figure.get_size_inches()
    axes = figure.add_axes(
        (left / across, 1 - (top + height) / down, width / across, height / down)
    )
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(frame is not None)
    if image is not None:
        axes.imshow(image, aspect="auto")
    if frame is not None:
        axes.spines[:].set(color=frame, linewidth=2.5)
    return axes


def text(
    figure: Figure, x: float, y: float, text: str, size: float, color: str, **style: Any
) -> None:
    """Add text, by default centred below, at a point in inches from the figure's top left."""
    across, down = figure.get_size_inches()
    # Do not parse formulas: a name may contain dollar signs.
    look: dict[str, Any] = {"ha": "center", "va": "top", "parse_math": False, **style}
    figure.text(x / across, 1 - y / down, text, fontsize=size, color=color, **look)


def fitted(text: str, width: float, size: float) -> str:
    """Make a text from elsewhere fit into one line of a caption that `text` can draw.

    Characters that the font lacks or that are invisible become boxes. If the line is too long, its
    middle is left out.

    Args:
        text: any text.
        width: width of the line, inches.
        size: size of the letters, points.
    """
    font = get_font(findfont(FontProperties()))
    font.set_size(size, DPI)
    text = "".join(c if c.isprintable() and font.get_char_index(ord(c)) else "□" for c in text)

    def too_wide(line: str) -> bool:
        font.set_text(line)
        return font.get_width_height()[0] / 64 > DPI * width

    line, kept = text, len(text)
    while kept > 1 and too_wide(line):
        kept -= 1
        line = f"{text[: (kept + 1) // 2]}…{text[len(text) - kept // 2 :]}"
    return line


def check_images(images: np.ndarray, name: str, ndim: int) -> None:
    """Raise ValueError unless images are uint8, RGB and at least one."""
    if (
        images.ndim != ndim
        or images.shape[-1] != 3
        or images.dtype != np.uint8
        or 0 in images.shape
    ):
        axes = "(N, H, W, 3)" if ndim == 4 else "(N, k, H, W, 3)"
        raise ValueError(
            f"{name} must be uint8 {axes} and not empty, got {images.dtype} {images.shape}"
        )


def check_texts(**texts: tuple[Sequence[str] | None, int]) -> None:
    """Raise ValueError unless each argument, (texts, count), has `count` texts or is None."""
    for name, (given, count) in texts.items():
        if given is not None and len(given) != count:
            raise ValueError(f"{name} must hold {count} texts, got {len(given)}")
