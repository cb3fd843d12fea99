"""What pictures are drawn on: a figure of a size in inches, images and texts at places in it."""

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
BLUE = "#0072B2"  # The first of Okabe and Ito's colours to draw with.

DPI = 150
# Inches. 9 is a README's column.
WIDTH = 9.0
MARGIN = 0.08
MAX_CELL = 1.0


def save(figure: Figure, path: str | os.PathLike) -> None:
    """Writes the figure as PNG, whole or not at all, and creates the folder it goes to.

    Args:
        figure: any figure of this module.
        path: the file; an existing one is replaced.

    Raises:
        OSError: if the folder cannot be made or written to.
    """
    path = Path(local_path(path, "the picture's file"))
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, unique=True) as draft:
        # Without the version of matplotlib, the same picture is the same file.
        figure.savefig(draft, format="png", metadata={"Software": None})


def new_figure(width: float, height: float) -> Figure:
    """Returns an empty figure of a size in inches."""
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
    """Adds axes at inches from the figure's top left that show an image, or nothing."""
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
    """Adds text, by default centred below, at a point in inches from the figure's top left."""
    across, down = figure.get_size_inches()
    # Without formulas: a name may hold dollar signs.
    look: dict[str, Any] = {"ha": "center", "va": "top", "parse_math": False, **style}
    figure.text(x / across, 1 - y / down, text, fontsize=size, color=color, **look)


def fitted(text: str, width: float, size: float) -> str:
    """A name from elsewhere, made fit for a line of a caption: one that `text` draws as it is.

    What the font lacks or no one could see becomes a box. Where the line is too long its middle is
    left out.

    Args:
        text: any.
        width: inches.
        size: of the letters, points.
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
    """Raises unless images are uint8, RGB and at least one."""
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
    """Raises unless each argument, texts and their number, holds that many or is None."""
    for name, (given, count) in texts.items():
        if given is not None and len(given) != count:
            raise ValueError(f"{name} must hold {count} texts, got {len(given)}")
