"""Class activation maps (Grad-CAM and CAM) over their images."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

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

# Points.
_TITLE = 7


def overlay(image: np.ndarray, cam: np.ndarray) -> np.ndarray:
    """Lay a class-activation map over a grey version of the image.

    The map is scaled by its own maximum and enlarged bilinearly. The more active a place is, the
    more its colour covers the image. A map of zeros leaves the grey image.

    Args:
        image: uint8 (H, W, 3).
        cam: float (h, w), finite and not negative; `scaled` converts any finite map.

    Returns:
        uint8 (H, W, 3).

    Raises:
        ValueError: if a shape is wrong, or the map is negative or not finite somewhere.
    """
    if image.ndim != 3 or image.shape[2] != 3 or cam.ndim != 2:
        raise ValueError(f"expected image (H, W, 3) and map (h, w), got {image.shape}, {cam.shape}")
    cam = np.asarray(cam, np.float32)
    if not np.all(np.isfinite(cam)) or cam.min() < 0:
        raise ValueError("a class-activation map is NaN, infinite or negative somewhere")
    # The smallest normal number prevents a division by zero for a map of zeros.
    cam = cam / max(cam.max(), np.finfo(np.float32).tiny)
    height, width = image.shape[:2]
    cam = np.asarray(Image.fromarray(cam).resize((width, height), Image.Resampling.BILINEAR))
    heat = mpl.colormaps["turbo"](cam)[..., :3]
    grey = np.asarray(Image.fromarray(image).convert("L"), np.float32)[..., None] / 255
    # Lighten the image, so that colours stay visible on dark clothes.
    grey = 0.25 + 0.75 * grey
    opacity = 0.75 * np.sqrt(cam)[..., None]
    return np.round(255 * ((1 - opacity) * grey + opacity * heat)).astype(np.uint8)


def scaled(maps: np.ndarray) -> np.ndarray:
    """Scale each map to [0, 1] by its minimum and maximum, as CAM is drawn (Zhou et al., 2016).

    Args:
        maps: float (..., h, w), finite, of any sign.

    Returns:
        float32 (..., h, w). A constant map becomes 0.

    Raises:
        ValueError: if a map is not finite somewhere.
    """
    maps = np.asarray(maps, np.float32)
    if not np.all(np.isfinite(maps)):
        raise ValueError("a class activation map is NaN or infinite somewhere")
    low, high = (extreme(maps, axis=(-2, -1), keepdims=True) for extreme in (np.min, np.max))
    # The smallest normal number prevents a division by zero for a constant map.
    return (maps - low) / np.maximum(high - low, np.finfo(np.float32).tiny)


def gradcam_figure(
    images: np.ndarray,
    cams: np.ndarray,
    *,
    names: Sequence[str] | None = None,
    titles: Sequence[str] | None = None,
) -> Figure:
    """Draw images beside their class-activation maps, as figure 4 of the PMM paper.

    Args:
        images: uint8 (N, H, W, 3).
        cams: float (N, S, h, w), a map for each of S stages; each is scaled by its own maximum.
        names: S names of the stages; Stage I, Stage II, ... by default.
        titles: N captions, one per image; a long one loses its middle. By default there are no
            captions.

    Returns:
        A figure of N (1 + S) axes: each image, then its S maps. Several images are side by
        side.

    Raises:
        ValueError: if shapes or lengths disagree, or a map is negative or not finite.
    """
    images, cams = np.asarray(images), np.asarray(cams)
    check_images(images, "images", 4)
    if cams.ndim != 4 or len(cams) != len(images) or 0 in cams.shape:
        raise ValueError(f"cams must be ({len(images)}, stages, h, w), got {cams.shape}")
    stages = cams.shape[1]
    names = [f"Stage {_roman(s)}" for s in range(1, stages + 1)] if names is None else names
    check_texts(names=(names, stages), titles=(titles, len(images)))
    return _map_figure(images, cams[:, None], rows=None, columns=names, titles=titles)


def class_activation_figure(
    images: np.ndarray,
    cams: np.ndarray,
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    titles: Sequence[str] | None = None,
) -> Figure:
    """Draw images beside rows of their class activation maps, as figure 5 of the HBFP-Net paper.

    Args:
        images: uint8 (N, H, W, 3).
        cams: float (N, R, S, h, w) of any sign, maps of S levels in R rows, such as without and
            with BFP. Each map is scaled to [0, 1] by its own minimum and maximum, so colours show
            where a map is high and do not compare maps.
        rows: R names of the rows.
        columns: S names of the levels.
        titles: N captions, one per image; a long one loses its middle. By default there are no
            captions.

    Returns:
        A figure of N R (1 + S) axes: for each image R rows, each with the image and its S maps.
        Several images are side by side.

    Raises:
        ValueError: if shapes or lengths disagree, or a map is not finite.
    """
    images, cams = np.asarray(images), np.asarray(cams)
    check_images(images, "images", 4)
    if cams.ndim != 5 or len(cams) != len(images) or 0 in cams.shape:
        raise ValueError(f"cams must be ({len(images)}, rows, columns, h, w), got {cams.shape}")
    check_texts(
        rows=(rows, cams.shape[1]), columns=(columns, cams.shape[2]), titles=(titles, len(images))
    )
    return _map_figure(images, scaled(cams), rows=rows, columns=columns, titles=titles)


def _map_figure(
    images: np.ndarray,
    maps: np.ndarray,
    *,
    rows: Sequence[str] | None,
    columns: Sequence[str],
    titles: Sequence[str] | None,
) -> Figure:
    """Draw one group of panels per image: R rows of the image and its S maps (N, R, S, h, w)."""
    _, lines, stages = maps.shape[:3]
    people = min(len(images), max(1, 12 // (1 + stages)))
    gap, group_gap, header = 0.03, 0.18, 0.2
    caption = 0.0 if titles is None else 0.2
    margin = MARGIN if rows is None else MARGIN + 0.16
    free = WIDTH - margin - MARGIN - (people - 1) * group_gap - people * stages * gap
    cell = min(MAX_CELL, free / (people * (1 + stages)))
    height = cell * images.shape[1] / images.shape[2]
    group = (1 + stages) * cell + stages * gap
    # Groups of several rows need more space between them than the rows inside a group.
    below = (1 + lines) * gap
    pitch = lines * height + (lines - 1) * gap + caption + below
    figure = new_figure(
        margin + MARGIN + people * group + (people - 1) * group_gap,
        2 * MARGIN + header + -(-len(images) // people) * pitch - below,
    )
    for n, image in enumerate(images):
        down, across = divmod(n, people)
        left = margin + across * (group + group_gap)
        for row in range(lines):
            top = MARGIN + header + down * pitch + row * (height + gap)
            panels = [image, *(overlay(image, cam) for cam in maps[n, row])]
            for p, (panel, name) in enumerate(zip(panels, ("Image", *columns), strict=True)):
                axes = picture(figure, panel, left + p * (cell + gap), top, cell, height)
                if down == row == 0:
                    axes.set_title(name, fontsize=7.5, color=INK, pad=3)
            if rows is not None and across == 0:
                middle = margin - 0.03, top + height / 2
                text(figure, *middle, rows[row], 7.5, INK, rotation=90, ha="right", va="center")
        if titles is not None:
            title = fitted(titles[n], group, _TITLE)
            text(figure, left + group / 2, top + height + 0.05, title, _TITLE, GREY)
    return figure


def _roman(number: int) -> str:
    """Return a stage's number as the paper writes it."""
    tens, ones = divmod(number, 10)
    return "X" * tens + ("", "I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX")[ones]
