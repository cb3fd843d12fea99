"""Curves: losses, rates and scores against the step, CMC against the rank, ROC, and histograms."""

import numbers
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator, PercentFormatter

from reid_jax.visualize.canvas import AXIS, BLUE, DPI, GREY, GRID, INK, WIDTH

_PALETTE = (BLUE, "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_STYLES = ("-", "--", ":", "-.")

# Names of losses. Other names are rejected: a legend would typeset text between dollars as a
# formula.
_LOSS = re.compile(r"loss(/\w+)?", re.ASCII)

# Steps and values.
_Curve = tuple[Sequence[float] | np.ndarray, Sequence[float] | np.ndarray]

# How to draw a group of curves, and its curves by name.
_Panel = tuple[Callable[[Axes, Mapping[str, _Curve]], None], Mapping[str, _Curve]]


def curves_figure(records: Sequence[Mapping[str, object]]) -> Figure:
    """Draw loss, learning rate and retrieval scores against the step.

    Args:
        records: what training logged, in any order: mappings that hold `step` and some of `loss`,
            `loss/NAME_STAGE` of letters, digits and underscores, `lr`, and `mAP`, `Rank-1`, `mINP`
            as fractions. Other keys, values that are not numbers, records without a step and those
            of the kind `eval/NAME` are ignored.

    Returns:
        A figure with one axes for each of the three groups that the records have values of.

    Raises:
        ValueError: if the records have no value to draw.
    """
    panels = _panels(records)
    if not panels:
        raise ValueError("there is nothing to draw: no record holds loss, lr, mAP, Rank-1 or mINP")
    return _drawn(panels)


def curve_figures(records: Sequence[Mapping[str, object]]) -> dict[str, Figure]:
    """Draw the same as `curves_figure`, a figure for each group.

    Args:
        records: as for `curves_figure`.

    Returns:
        Figures of one axes each, by their titles; none if the records have no value to draw.
    """
    figures = [_drawn([panel]) for panel in _panels(records)]
    return {figure.axes[0].get_title(loc="left"): figure for figure in figures}


def _panels(records: Sequence[Mapping[str, object]]) -> list[_Panel]:
    """The groups that the records have values of."""
    series = _series(records)
    groups = (
        (_draw_losses, [name for name in series if _LOSS.fullmatch(name)]),
        (_draw_rate, ["lr"]),
        (_draw_scores, ["Rank-1", "mAP", "mINP"]),
    )
    panels = [(draw, {k: series[k] for k in keys if k in series}) for draw, keys in groups]
    return [(draw, curves) for draw, curves in panels if curves]


def _drawn(panels: Sequence[_Panel]) -> Figure:
    """Draw groups side by side, against the same steps."""
    figure = Figure(
        figsize=(WIDTH * len(panels) / 3, 2.6),
        dpi=DPI,
        layout=ConstrainedLayoutEngine(w_pad=0.1),
        facecolor="white",
    )
    last = max(steps[-1] for _, curves in panels for steps, _ in curves.values())
    rows = figure.subplots(1, len(panels), squeeze=False)
    for axes, (draw, curves) in zip(rows[0], panels, strict=True):
        draw(axes, curves)
        axes.set_xlim(-0.03 * max(last, 1), 1.03 * max(last, 1))
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        _plain(axes, "Step")
    return figure


def cmc_figure(cmc: np.ndarray) -> Figure:
    """Draw the cumulative matching characteristic.

    Args:
        cmc: float (K,); the share of queries whose first match is among the k nearest, for k from 1
            to K.

    Returns:
        A figure with one axes, from 0 to 100 %, with points at Rank-1, Rank-5 and Rank-10.

    Raises:
        ValueError: if there is no rank, or shares are not between 0 and 1.
    """
    cmc = np.asarray(cmc, float)
    if cmc.ndim != 1 or len(cmc) == 0 or not (np.all(cmc >= 0) and np.all(cmc <= 1)):
        raise ValueError(f"cmc must hold shares (K,) of queries, from 0 to 1, got {cmc}")
    figure = Figure(figsize=(WIDTH / 3, 2.6), dpi=DPI, layout="constrained", facecolor="white")
    axes = figure.subplots()
    axes.plot(np.arange(1, len(cmc) + 1), cmc, color=_PALETTE[0], linewidth=1.6)
    ranks = [k for k in (1, 5, 10) if k <= len(cmc)]
    axes.plot(ranks, cmc[np.array(ranks) - 1], "o", color=_PALETTE[0], markersize=3.5)
    axes.set_xlim(1 - 0.03 * len(cmc), 1 + 1.03 * max(len(cmc) - 1, 1))
    axes.set_xticks([*ranks, *range(20, len(cmc) + 1, 10)])
    _shares(axes)
    _name(axes, "Queries found within a rank")
    _plain(axes, "Rank")
    return figure


def roc_figure(fpr: np.ndarray, tpr: np.ndarray, auc: float) -> Figure:
    """Draw a receiver operating characteristic against the logarithm of the false positive rate.

    Args:
        fpr: float (U,), false positive rates in [0, 1], ascending.
        tpr: float (U,), the true positive rates there, ascending.
        auc: area under the curve, in [0, 1].

    Returns:
        A figure of one axes, from 1e-4 to 1, with points at 1e-4, 1e-3, 1e-2 and 1e-1.

    Raises:
        ValueError: the rates are not ascending, or their numbers differ or are zero.
    """
    fpr, tpr = np.asarray(fpr, float), np.asarray(tpr, float)
    if fpr.shape != tpr.shape or fpr.ndim != 1 or not len(fpr) or np.diff(fpr).min(initial=0) < 0:
        raise ValueError(f"fpr and tpr must be ascending rates (U,), got {fpr} and {tpr}")
    figure = Figure(figsize=(WIDTH / 3, 2.6), dpi=DPI, layout="constrained", facecolor="white")
    axes = figure.subplots()
    # A thousand points look like the curve, which may have a hundred thousand.
    marks = np.array([1e-4, 1e-3, 1e-2, 1e-1])
    for rates, style in ((np.geomspace(1e-4, 1, 1001), "-"), (marks, "o")):
        reached = np.append(0, tpr)[np.searchsorted(fpr, rates, "right")]
        axes.plot(
            rates, reached, style, color=BLUE, linewidth=1.6, markersize=3.5, drawstyle="steps-post"
        )
    axes.set_xscale("log")
    axes.set_xlim(0.8e-4, 1.25)
    _shares(axes)
    _name(axes, f"True positive rate, AUC {auc:.1%}")
    _plain(axes, "False positive rate")
    axes.minorticks_off()
    return figure


def distances_figure(
    edges: np.ndarray,
    positive: np.ndarray,
    negative: np.ndarray,
    threshold: tuple[str, float] | None = None,
) -> Figure:
    """Draw the distances of pairs of one person and of pairs of different people.

    Args:
        edges: float (B + 1,), bounds of bins of one width.
        positive: int (B,), pairs of one person in each bin.
        negative: int (B,), pairs of different people.
        threshold: name and distance of a line to draw; None draws none.

    Returns:
        A figure of one axes: the share of each kind of pairs by distance.

    Raises:
        ValueError: the numbers of bins differ, or one kind of pair is missing.
    """
    edges, counts = np.asarray(edges), np.array([positive, negative])
    if counts.ndim != 2 or len(edges) != counts.shape[1] + 1 or not counts.sum(axis=1).all():
        raise ValueError(
            f"there must be pairs of both kinds in the {len(edges) - 1} bins, got {counts}"
        )
    occupied = np.flatnonzero(counts.sum(axis=0))
    width = -(-(occupied[-1] + 1 - occupied[0]) // 60)
    starts = np.arange(occupied[0], occupied[-1] + 1, width)
    shares = np.add.reduceat(counts, starts, axis=1) / counts.sum(axis=1)[:, None]
    bounds = np.append(edges[starts], edges[min(starts[-1] + width, len(edges) - 1)])
    figure = Figure(figsize=(WIDTH / 3, 2.6), dpi=DPI, layout="constrained", facecolor="white")
    axes = figure.subplots()
    for row, color, label in zip(
        shares, _PALETTE, ("one person", "different people"), strict=False
    ):
        axes.stairs(row, bounds, fill=True, color=color, alpha=0.3)
        axes.stairs(row, bounds, color=color, linewidth=1.4, label=label)
    if threshold is not None:
        name, distance = threshold
        ends = [0, 1.05 * shares.max()]
        axes.plot([distance] * 2, ends, color=INK, linewidth=1, linestyle="--", label=name)
    axes.set_ylim(0, 1.4 * shares.max())  # The legend is above the curves.
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    _name(axes, "Pairs by distance")
    _plain(axes, "Distance")
    _legend(axes, "upper right")
    return figure


def comparison_figure(panels: Mapping[str, Mapping[str, _Curve]], metric: str) -> Figure:
    """Draw one retrieval score of many runs against the epoch, in one axes per group of runs.

    Args:
        panels: maps the title of each axes to its curves, by name. A curve is epochs (n,) and
            shares (n,) in [0, 1], with n at least 1.
        metric: name of the score.

    Returns:
        A figure whose axes share one scale. Legends list the last value of each curve, best first.

    Raises:
        ValueError: if there is no curve.
    """
    panels = {title: curves for title, curves in panels.items() if curves}
    if not panels:
        raise ValueError("there is no curve to draw")
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    # In inches: the height of the curves, and of the longest legend above them.
    below, above = 2.0, 0.2 + 0.15 * max(map(len, panels.values()))
    figure = Figure(
        figsize=(WIDTH * columns / 3, (below + above + 0.8) * rows),
        dpi=DPI,
        layout="constrained",
        facecolor="white",
    )
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    highest = max(np.max(shares) for curves in panels.values() for _, shares in curves.values())
    highest = 1.03 * max(highest, 0.01)
    top = highest * (below + above) / below  # The legend is above the highest curve.
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for axes, (title, curves) in zip(grid.flat, panels.items(), strict=False):
        best_first = sorted(curves.items(), key=lambda curve: -curve[1][1][-1])
        for place, (name, (epochs, shares)) in enumerate(best_first):
            axes.plot(
                epochs,
                shares,
                color=_PALETTE[place % len(_PALETTE)],
                linestyle=_STYLES[place // len(_PALETTE) % len(_STYLES)],
                linewidth=1.4,
                label=f"{shares[-1]:.1%}  {name}",
                **_dots(epochs),
            )
        axes.set_ylim(0, top)
        axes.set_yticks([tick for tick in axes.get_yticks() if tick <= min(highest, 1.0)])
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        _name(axes, f"{title}, {metric}")
        _plain(axes, "Epoch")
        _legend(axes, "upper left")
    return figure


def _shares(axes: Axes) -> None:
    """Label the vertical axis from 0 to 100 %. It ends above, so that no line there is clipped."""
    axes.set_ylim(0, 1.03)
    axes.set_yticks(np.linspace(0, 1, 6))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))


def _plain(axes: Axes, label: str) -> None:
    """Label the horizontal axis, and keep little besides horizontal lines."""
    axes.set_xlabel(label, fontsize=8, color=GREY)
    axes.tick_params(labelsize=7.5, colors=GREY, length=0)
    axes.grid(axis="y", color=GRID, linewidth=0.7)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(AXIS)


def _draw_losses(axes: Axes, series: Mapping[str, _Curve]) -> None:
    """Draw the total loss, and under it each loss, with a colour per stage and a style per kind."""
    parts = [name.removeprefix("loss/").rpartition("_") for name in series if name != "loss"]
    kinds = list(dict.fromkeys(kind or stage for kind, _, stage in parts))
    stages = list(dict.fromkeys(stage if kind else "" for kind, _, stage in parts))
    for name, (steps, values) in series.items():
        if name == "loss":
            style: dict[str, Any] = {"color": INK, "linewidth": 1.6, "label": "total"}
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
    """Draw the learning rate as steps: each value holds from the previously logged step on."""
    ((steps, values),) = series.values()
    axes.plot(steps, values, color=INK, linewidth=1.6, drawstyle="steps-pre", **_dots(steps))
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(lambda rate, _: _scientific(rate))
    _name(axes, "Learning rate")


def _draw_scores(axes: Axes, series: Mapping[str, _Curve]) -> None:
    """Draw retrieval scores, with the last value of each in the legend."""
    for color, (name, (steps, values)) in zip(_PALETTE, series.items(), strict=False):
        label = f"{name}  {values[-1]:.1%}"
        axes.plot(steps, values, color=color, linewidth=1.6, marker="o", markersize=3, label=label)
    _shares(axes)
    _name(axes, "Retrieval")
    _legend(axes, "best")


def _series(records: Sequence[Mapping[str, object]]) -> dict[str, _Curve]:
    """Return the ascending steps and the values of each numeric key, both float64."""
    points: dict[str, dict[int, float]] = {}
    for record in records:
        if str(record.get("kind")).startswith("eval/"):  # For another dataset than the first.
            continue
        for key, value in record.items():
            step = record.get("step")
            if isinstance(step, int) and isinstance(value, numbers.Real):
                points.setdefault(key, {})[step] = float(value)
    series = {}
    for key, values in points.items():
        steps, ordinates = np.array(sorted(values.items()), float).T
        series[key] = steps, ordinates
    return series


def _dots(steps: Sequence[float] | np.ndarray) -> dict[str, Any]:
    """Return the style that makes a single point visible."""
    return {"marker": "o", "markersize": 3} if len(steps) == 1 else {}


def _scientific(rate: float) -> str:
    """Format as 2e-4: neither 0.0002, nor 2 with a power of ten far away above the axis."""
    rate = float(f"{rate:.3g}")
    return np.format_float_scientific(rate, trim="-", exp_digits=1) if rate else "0"


def _name(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize=9.5, color=INK, loc="left", fontweight="bold", pad=8)


def _legend(axes: Axes, loc: Any, ncols: int = 1) -> None:
    axes.legend(
        loc=loc,
        fontsize=7,
        ncols=ncols,
        frameon=False,
        labelcolor=INK,
        handlelength=1.8,
        columnspacing=1,
    )
