"""Pictures: Grad-CAM and activation maps over images, ranked lists, training curves.

Pure functions from arrays to a `matplotlib.figure.Figure`. Nothing touches pyplot, so no figure
outlives its last reference, no display is needed and no global setting changes.
"""

import numbers
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from PIL import Image

# Green and red of Okabe and Ito, which the colour-blind tell apart.
RIGHT = "#009E73"
WRONG = "#D55E00"

_INK = "#222222"
_GREY = "#6B6B6B"
_PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_STYLES = ("-", "--", ":", "-.")
_DPI = 150
# Inches. 9 is a README's column.
_WIDTH = 9.0
_MARGIN = 0.08
_MAX_CELL = 1.0

# Names of losses. No others: in a legend, what stands between dollars is set as a formula.
_LOSS = re.compile(r"loss(/\w+)?", re.ASCII)

# Steps and values.
_Curve = tuple[np.ndarray, np.ndarray]


def overlay(image: np.ndarray, cam: np.ndarray) -> np.ndarray:
    """Lays a class-activation map over a grey version of the image.

    The map is scaled by its own maximum and enlarged bilinearly. The more active a place is, the
    more its colour covers the image; a map of zeros leaves the grey image.

    Args:
        image: uint8 (H, W, 3).
        cam: float (h, w), finite and not negative.

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
    # The smallest normal number guards the division for a map of zeros.
    cam = cam / max(cam.max(), np.finfo(np.float32).tiny)
    height, width = image.shape[:2]
    cam = np.asarray(Image.fromarray(cam).resize((width, height), Image.Resampling.BILINEAR))
    heat = mpl.colormaps["turbo"](cam)[..., :3]
    grey = np.asarray(Image.fromarray(image).convert("L"), np.float32)[..., None] / 255
    # Lightened, so that dark clothes do not swallow the colours.
    grey = 0.25 + 0.75 * grey
    opacity = 0.75 * np.sqrt(cam)[..., None]
    return np.round(255 * ((1 - opacity) * grey + opacity * heat)).astype(np.uint8)


def gradcam_figure(
    images: np.ndarray,
    cams: np.ndarray,
    *,
    names: Sequence[str] | None = None,
    titles: Sequence[str] | None = None,
) -> Figure:
    """Draws images beside their class-activation maps, as figure 4 of the PMM paper.

    Args:
        images: uint8 (N, H, W, 3).
        cams: float (N, S, h, w), a map for each of S stages; each is scaled by its own maximum.
        names: S names of the stages; Stage I, Stage II, ... by default.
        titles: N captions, one an image; none by default.

    Returns:
        A figure of N (1 + S) axes: each image, then its S maps; several images side by side.

    Raises:
        ValueError: if shapes or lengths disagree, or a map is negative or not finite.
    """
    images, cams = np.asarray(images), np.asarray(cams)
    _check_images(images, "images", 4)
    if cams.ndim != 4 or len(cams) != len(images) or 0 in cams.shape:
        raise ValueError(f"cams must be ({len(images)}, stages, h, w), got {cams.shape}")
    stages = cams.shape[1]
    names = [f"Stage {_roman(s)}" for s in range(1, stages + 1)] if names is None else names
    _check_texts(names=(names, stages), titles=(titles, len(images)))
    return _map_figure(images, cams[:, None], rows=None, columns=names, titles=titles)


def activation_figure(
    images: np.ndarray,
    maps: np.ndarray,
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    titles: Sequence[str] | None = None,
) -> Figure:
    """Draws images beside rows of their activation maps, as figure 5 of the HBFP-Net paper.

    Args:
        images: uint8 (N, H, W, 3).
        maps: float (N, R, S, h, w), a map for each of S levels in each of R ways, such as without
            and with BFP; each is scaled by its own maximum.
        rows: R names of the ways.
        columns: S names of the levels.
        titles: N captions, one an image; none by default.

    Returns:
        A figure of N R (1 + S) axes: for each image R rows, each of the image and its S maps;
        several images side by side.

    Raises:
        ValueError: if shapes or lengths disagree, or a map is negative or not finite.
    """
    images, maps = np.asarray(images), np.asarray(maps)
    _check_images(images, "images", 4)
    if maps.ndim != 5 or len(maps) != len(images) or 0 in maps.shape:
        raise ValueError(f"maps must be ({len(images)}, rows, columns, h, w), got {maps.shape}")
    _check_texts(
        rows=(rows, maps.shape[1]), columns=(columns, maps.shape[2]), titles=(titles, len(images))
    )
    return _map_figure(images, maps, rows=rows, columns=columns, titles=titles)


def ranked_list_figure(
    query_images: np.ndarray,
    gallery_images: np.ndarray,
    correct: np.ndarray,
    *,
    query_pids: np.ndarray,
    query_camids: np.ndarray,
    pids: np.ndarray,
    camids: np.ndarray,
    distances: np.ndarray,
) -> Figure:
    """Draws each query and its nearest gallery images, right and wrong ones marked.

    A right match has a green frame and a tick, a wrong one a red frame and a cross.

    Args:
        query_images: uint8 (N, H, W, 3).
        gallery_images: uint8 (N, k, H, W, 3), nearest first.
        correct: bool (N, k).
        query_pids: int (N,), identities of the queries.
        query_camids: int (N,), their cameras.
        pids: int (N, k), identities of the gallery images; those below 1 are called distractors.
        camids: int (N, k), their cameras.
        distances: float (N, k); an entry at infinity is missing and left blank.

    Returns:
        A figure of N (1 + k) axes, a row for each query.

    Raises:
        ValueError: if shapes disagree or a distance is NaN.
    """
    query_images, gallery_images = np.asarray(query_images), np.asarray(gallery_images)
    _check_images(query_images, "query_images", 4)
    _check_images(gallery_images, "gallery_images", 5)
    shape = gallery_images.shape[:2]
    given = {"query_pids": query_pids, "query_camids": query_camids}
    given |= {"correct": correct, "pids": pids, "camids": camids, "distances": distances}
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
    free = _WIDTH - 2 * _MARGIN - query_gap - shape[1] * gap
    cell = min(_MAX_CELL, free / (1 + shape[1]))
    height = cell * query_images.shape[1] / query_images.shape[2]
    pitch = header + height + caption
    figure = _figure(
        2 * _MARGIN + query_gap + (1 + shape[1]) * cell + shape[1] * gap,
        2 * _MARGIN + shape[0] * pitch,
    )
    for n in range(shape[0]):
        top = _MARGIN + n * pitch + header
        axes = _picture(figure, query_images[n], _MARGIN, top, cell, height, frame=_INK)
        axes.set_title("Query", fontsize=8, color=_INK, pad=4, fontweight="bold")
        who = f"id {query_pids[n]}\ncam {query_camids[n]}"
        _text(figure, _MARGIN + cell / 2, top + height + 0.05, who, 6.5, _GREY)
        for r in range(shape[1]):
            left = _MARGIN + query_gap + (1 + r) * (cell + gap)
            if np.isinf(distances[n, r]):
                axes = _picture(figure, None, left, top, cell, height)
                continue
            color, symbol = (RIGHT, "✓") if correct[n, r] else (WRONG, "✗")
            axes = _picture(figure, gallery_images[n, r], left, top, cell, height, frame=color)
            axes.set_title(f"{r + 1} {symbol}", fontsize=8, color=color, pad=4, fontweight="bold")
            who = f"id {pids[n, r]}" if pids[n, r] > 0 else "distractor"
            who += f"\ncam {camids[n, r]} · {distances[n, r]:#.3g}"
            _text(figure, left + cell / 2, top + height + 0.05, who, 6.5, _GREY)
    return figure


def curves_figure(records: Sequence[Mapping[str, object]]) -> Figure:
    """Draws loss, learning rate and retrieval scores against the step.

    Args:
        records: what training logged, in any order: mappings that hold `step` and some of `loss`,
            `loss/NAME_STAGE` of letters, digits and underscores, `lr`, and `mAP`, `Rank-1`, `mINP`
            as fractions. Other keys, values that are no number and records without a step are left
            out.

    Returns:
        A figure of one axes for each of the three that the records hold something of.

    Raises:
        ValueError: if the records hold nothing to draw.
    """
    series = _series(records)
    groups = (
        (_draw_losses, [name for name in series if _LOSS.fullmatch(name)]),
        (_draw_rate, ["lr"]),
        (_draw_scores, ["Rank-1", "mAP", "mINP"]),
    )
    panels = [(draw, {k: series[k] for k in keys if k in series}) for draw, keys in groups]
    panels = [(draw, curves) for draw, curves in panels if curves]
    if not panels:
        raise ValueError("no record holds loss, lr, mAP, Rank-1 or mINP: there is nothing to draw")

    figure = Figure(
        figsize=(_WIDTH * len(panels) / 3, 2.6), dpi=_DPI, layout="constrained", facecolor="white"
    )
    figure.get_layout_engine().set(w_pad=0.1)
    last = max(steps[-1] for _, curves in panels for steps, _ in curves.values())
    rows = figure.subplots(1, len(panels), squeeze=False)
    for axes, (draw, curves) in zip(rows[0], panels, strict=True):
        draw(axes, curves)
        axes.set_xlim(-0.03 * max(last, 1), 1.03 * max(last, 1))
        axes.set_xlabel("Step", fontsize=8, color=_GREY)
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.tick_params(labelsize=7.5, colors=_GREY, length=0)
        axes.grid(axis="y", color="#E6E6E6", linewidth=0.7)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.spines["bottom"].set_color("#BBBBBB")
    return figure


def save(figure: Figure, path: str | os.PathLike) -> None:
    """Writes the figure as PNG, whole or not at all, and creates the folder it goes to.

    Args:
        figure: any figure of this module.
        path: the file; an existing one is replaced.

    Raises:
        OSError: if the folder cannot be made or written to.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        # Without the version of matplotlib, the same picture is the same file.
        figure.savefig(part, format="png", metadata={"Software": None})
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _map_figure(
    images: np.ndarray,
    maps: np.ndarray,
    *,
    rows: Sequence[str] | None,
    columns: Sequence[str],
    titles: Sequence[str] | None,
) -> Figure:
    """Draws a group of panels an image: R rows of the image and its S maps (N, R, S, h, w)."""
    _, lines, stages = maps.shape[:3]
    people = min(len(images), max(1, 12 // (1 + stages)))
    gap, group_gap, header = 0.03, 0.18, 0.2
    caption = 0.0 if titles is None else 0.2
    margin = _MARGIN if rows is None else _MARGIN + 0.16
    free = _WIDTH - margin - _MARGIN - (people - 1) * group_gap - people * stages * gap
    cell = min(_MAX_CELL, free / (people * (1 + stages)))
    height = cell * images.shape[1] / images.shape[2]
    group = (1 + stages) * cell + stages * gap
    # Groups of several rows need more space between them than their rows.
    below = (1 + lines) * gap
    pitch = lines * height + (lines - 1) * gap + caption + below
    figure = _figure(
        margin + _MARGIN + people * group + (people - 1) * group_gap,
        2 * _MARGIN + header + -(-len(images) // people) * pitch - below,
    )
    for n, image in enumerate(images):
        down, across = divmod(n, people)
        left = margin + across * (group + group_gap)
        for row in range(lines):
            top = _MARGIN + header + down * pitch + row * (height + gap)
            panels = [image, *(overlay(image, cam) for cam in maps[n, row])]
            for p, (panel, name) in enumerate(zip(panels, ("Image", *columns), strict=True)):
                axes = _picture(figure, panel, left + p * (cell + gap), top, cell, height)
                if down == row == 0:
                    axes.set_title(name, fontsize=7.5, color=_INK, pad=3)
            if rows is not None and across == 0:
                middle = margin - 0.03, top + height / 2
                _text(figure, *middle, rows[row], 7.5, _INK, rotation=90, ha="right", va="center")
        if titles is not None:
            _text(figure, left + group / 2, top + height + 0.05, titles[n], 7, _GREY)
    return figure


def _draw_losses(axes: Axes, series: Mapping[str, _Curve]) -> None:
    """Draws the total, and under it each loss: a colour for each stage, a style for each kind."""
    parts = [name.removeprefix("loss/").rpartition("_") for name in series if name != "loss"]
    kinds = list(dict.fromkeys(kind or stage for kind, _, stage in parts))
    stages = list(dict.fromkeys(stage if kind else "" for kind, _, stage in parts))
    for name, (steps, values) in series.items():
        if name == "loss":
            style = {"color": _INK, "linewidth": 1.6, "label": "total"}
        else:
            kind, _, stage = name.removeprefix("loss/").rpartition("_")
            style = {
                "color": _PALETTE[stages.index(stage if kind else "") % len(_PALETTE)],
                "linestyle": _STYLES[kinds.index(kind or stage) % len(_STYLES)],
                "linewidth": 1.0,
                "label": f"{kind} {stage}".strip(),
            }
        axes.plot(steps, values, **style, **_dots(steps))
    axes.set_ylim(bottom=0)
    _name(axes, "Loss")
    if len(series) > 1:
        _legend(axes, "upper right", ncols=1 if len(series) < 5 else 2)


def _draw_rate(axes: Axes, series: Mapping[str, _Curve]) -> None:
    """Draws the learning rate."""
    ((steps, values),) = series.values()
    axes.plot(steps, values, color=_INK, linewidth=1.6, **_dots(steps))
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(lambda rate, _: _scientific(rate))
    _name(axes, "Learning rate")


def _draw_scores(axes: Axes, series: Mapping[str, _Curve]) -> None:
    """Draws retrieval scores, the last value of each in the legend."""
    for color, (name, (steps, values)) in zip(_PALETTE, series.items(), strict=False):
        label = f"{name}  {values[-1]:.1%}"
        axes.plot(steps, values, color=color, linewidth=1.6, marker="o", markersize=3, label=label)
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    _name(axes, "Retrieval")
    _legend(axes, "best")


def _series(records: Sequence[Mapping[str, object]]) -> dict[str, _Curve]:
    """Returns for each numeric key its steps, ascending, and its values, both float64."""
    points: dict[str, dict[int, float]] = {}
    for record in records:
        for key, value in record.items():
            if "step" in record and isinstance(value, numbers.Real):
                points.setdefault(key, {})[record["step"]] = float(value)
    return {key: tuple(np.array(sorted(values.items()), float).T) for key, values in points.items()}


def _dots(steps: np.ndarray) -> dict[str, object]:
    """Returns what makes a lone point visible."""
    return {"marker": "o", "markersize": 3} if len(steps) == 1 else {}


def _scientific(rate: float) -> str:
    """Returns 2e-4, not 0.0002, nor 2 with a power of ten out of sight above the axis."""
    rate = float(f"{rate:.3g}")
    return np.format_float_scientific(rate, trim="-", exp_digits=1) if rate else "0"


def _name(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize=9.5, color=_INK, loc="left", fontweight="bold", pad=8)


def _legend(axes: Axes, loc: str, ncols: int = 1) -> None:
    axes.legend(
        loc=loc,
        fontsize=7,
        ncols=ncols,
        frameon=False,
        labelcolor=_INK,
        handlelength=1.8,
        columnspacing=1,
    )


def _figure(width: float, height: float) -> Figure:
    """Returns an empty figure of a size in inches."""
    return Figure(figsize=(width, height), dpi=_DPI, facecolor="white")


def _picture(
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


def _text(
    figure: Figure, x: float, y: float, text: str, size: float, color: str, **style: object
) -> None:
    """Adds text, by default centred below, at a point in inches from the figure's top left."""
    across, down = figure.get_size_inches()
    style = {"ha": "center", "va": "top"} | style
    figure.text(x / across, 1 - y / down, text, fontsize=size, color=color, **style)


def _check_images(images: np.ndarray, name: str, ndim: int) -> None:
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


def _check_texts(**texts: tuple[Sequence[str] | None, int]) -> None:
    """Raises unless each argument, texts and their number, holds that many or is None."""
    for name, (given, count) in texts.items():
        if given is not None and len(given) != count:
            raise ValueError(f"{name} must hold {count} texts, got {len(given)}")


def _roman(number: int) -> str:
    """Returns a stage's number as the paper writes it."""
    tens, ones = divmod(number, 10)
    return "X" * tens + ("", "I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX")[ones]
