"""Obstacles in a camera's place, which hide a part of the people behind them."""

import numpy as np

from reid_jax.data.synthetic.cloth import solid
from reid_jax.data.synthetic.solids import Canvas, View, ellipsoid, loft, tube
from reid_jax.data.synthetic.streams import noise

_STEEL = solid((0.46, 0.47, 0.49))


def draw_obstacle(canvas: Canvas, view: View, kind: str, rng: np.random.Generator) -> None:
    """Draw an obstacle before a person.

    Args:
        canvas: drawn on in place.
        view: the view of the person.
        kind: pole, railing, planter, box or bench.
        rng: decides how far to the side it stands.
    """
    before = view._replace(
        yaw=0.0,
        near=1.5,
        x=view.x + rng.uniform(-0.4, 0.4) * view.scale,
        y=view.y + 0.1 * view.scale,
    )
    if kind == "pole":
        _column(canvas, before, 0.0, 3.0, 0.07, 0.07, _STEEL)
    elif kind == "railing":
        for left in np.arange(-1.05, 1.06, 0.3):
            foot = np.array([left, -0.1, 0])
            tube(canvas, before, foot, foot + np.array([0, 1.0, 0]), 0.018, 0.018, _STEEL)
        for up in (0.2, 0.9):
            ellipsoid(canvas, before, np.array([0, up, 0.02]), (2.5, 0.03, 0.03), _STEEL)
    elif kind == "planter":
        _column(canvas, before, -0.2, 0.35, 0.32, 0.32, solid((0.4, 0.33, 0.28)))
        _bush(canvas, before, rng.uniform(0, 1))
    elif kind == "box":
        _column(canvas, before, -0.2, 0.75, 0.3, 0.2, solid((0.3, 0.36, 0.33)))
    elif kind == "bench":
        _column(canvas, before, -0.2, 0.45, 0.8, 0.2, _planks)
    else:
        raise ValueError(f"no obstacle is called {kind!r}")


def _column(canvas, view, bottom, top, wide, deep, paint) -> None:
    profile = np.array([[0, wide, deep], [0.98, wide, deep], [1, 0.95 * wide, 0.95 * deep]])
    loft(canvas, view, np.array([0, bottom, 0]), np.array([0, top, 0]), profile, paint)


def _planks(turn, along):
    return (
        np.array((0.45, 0.34, 0.24), np.float32)
        * np.where((along % 0.12) < 0.02, 0.5, 1.0)[:, None]
    )


def _bush(canvas, view, spot: float) -> None:
    """Draw leaves with a ragged outline, selected by `spot`."""

    def leaves(left, up, forward):
        tone = 1 + 0.35 * noise(left + spot, up)
        return np.array((0.2, 0.33, 0.15), np.float32) * tone[:, None].clip(0.4, 1.7)

    def ragged(left, up, forward):
        return noise(left * 0.4 + spot, up * 0.4) > 2.2 * (np.hypot(left, up) - 0.9)

    ellipsoid(canvas, view, np.array([0, 0.62, 0]), (0.45, 0.42, 0.3), leaves, keep=ragged)
