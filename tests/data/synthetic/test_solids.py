import numpy as np
import pytest

from reid_jax.data.synthetic.cloth import solid
from reid_jax.data.synthetic.solids import View, ellipsoid, loft, tube
from tests.data.synthetic.market import blank


@pytest.mark.parametrize("yaw", [0.0, 0.7, 2.5, -1.2])
@pytest.mark.parametrize("tilt", [0.0, 0.4])
def test_ellipsoid_is_its_points_projected(yaw, tilt):
    radii, centre, pitch = (0.2, 0.35, 0.3), np.array([0.1, 0.6, -0.1]), 0.2
    canvas, view = blank(), View(yaw, pitch, 100.0, 48.0, 110.0, near=0.5)
    ellipsoid(canvas, view, centre, radii, solid((1.0, 1.0, 1.0)), tilt)

    u, v = np.meshgrid(np.linspace(0, 2 * np.pi, 1200), np.linspace(0, np.pi, 600))
    unit = np.stack([np.sin(v) * np.sin(u), np.cos(v), np.sin(v) * np.cos(u)])
    left, up, forward = (unit * np.reshape(radii, (3, 1, 1))).reshape(3, -1)
    up, forward = (
        up * np.cos(tilt) + forward * np.sin(tilt),
        forward * np.cos(tilt) - up * np.sin(tilt),
    )
    left, up, forward = left + centre[0], up + centre[1], forward + centre[2]
    right = left * np.cos(yaw) + forward * np.sin(yaw)
    towards = forward * np.cos(yaw) - left * np.sin(yaw)
    column = 48 + 100 * right
    row = 110 - 100 * (up * np.cos(pitch) - towards * np.sin(pitch))
    depth = up * np.sin(pitch) + towards * np.cos(pitch) + 0.5

    covered = np.zeros((128, 96), bool)
    covered[row.astype(int), column.astype(int)] = True
    drawn = canvas.depth > -np.inf
    assert (drawn & ~covered).sum() == 0  # no pixel whose middle the ellipsoid misses
    assert (covered & ~drawn).sum() < 140  # pixels it only grazes: about the outline's length
    assert canvas.depth.max() == pytest.approx(depth.max(), abs=2e-3)
    assert canvas.rgb[drawn].min() == pytest.approx(1.0)


@pytest.mark.parametrize("yaw", [0.0, 0.6, 1.9, -2.2])
def test_loft_is_its_sections_projected(yaw):
    wide, deep = 0.3, 0.12
    profile = np.array([[0, wide, deep], [1, wide, deep]])
    seen = {}

    def paint(turn, along):
        seen.update(turn=turn, along=along)
        return np.ones((len(turn), 3), np.float32)

    canvas, view = blank(), View(yaw, 0.0, 100.0, 48.0, 110.0)
    loft(canvas, view, np.array([0, 0.9, 0]), np.array([0, 0.1, 0]), profile, paint)

    around = np.linspace(0, 2 * np.pi, 100_001)
    left, forward = wide * np.sin(around), deep * np.cos(around)
    right = left * np.cos(yaw) + forward * np.sin(yaw)
    towards = forward * np.cos(yaw) - left * np.sin(yaw)
    drawn = canvas.depth[70] > -np.inf
    middles = (np.arange(96) + 0.5 - 48) / 100
    np.testing.assert_array_equal(drawn, np.abs(middles) < right.max())
    for column in np.flatnonzero(drawn)[1:-1]:
        near = np.abs(right - middles[column]) < 2e-5
        point = np.flatnonzero(near)[towards[near].argmax()]
        assert canvas.depth[70, column] == pytest.approx(towards[point], abs=4e-3)
        turn = seen["turn"].reshape(-1, drawn.sum())[0][column - np.flatnonzero(drawn)[0]]
        assert np.cos(turn - around[point]) > 1 - 1e-3
    assert seen["along"].min() == pytest.approx(0.0, abs=0.01)
    assert seen["along"].max() == pytest.approx(0.8, abs=0.01)


def test_nearer_solids_hide_farther_ones_in_any_order():
    view = View(0.0, 0.0, 100.0, 48.0, 110.0)
    red, blue = solid((1.0, 0.0, 0.0)), solid((0.0, 0.0, 1.0))

    def ball(canvas, towards, paint):
        ellipsoid(canvas, view, np.array([0, 0.5, towards]), (0.2, 0.2, 0.2), paint)

    one, other = blank(), blank()
    ball(one, 0.3, red), ball(one, -0.3, blue)
    ball(other, -0.3, blue), ball(other, 0.3, red)
    np.testing.assert_array_equal(one.rgb, other.rgb)
    assert one.rgb[..., 2].max() == 0
    assert one.rgb[..., 0].max() == 1


def test_the_lit_side_is_lighter():
    canvas = blank(light=(1.0, 0.0, 0.0), ambient=0.3)
    view = View(0.5, 0.0, 100.0, 48.0, 110.0)
    tube(canvas, view, np.array([0, 0.9, 0]), np.array([0, 0.2, 0]), 0.3, 0.3, solid((1, 1, 1)))
    row = canvas.rgb[60, canvas.depth[60] > -np.inf, 0]
    assert (np.diff(row) >= 0).all()
    assert row[-1] > 2 * row[0]


@pytest.mark.parametrize("x", [-500.0, 0.0, 96.0, 500.0])
def test_what_lies_outside_the_canvas_is_cut(x):
    canvas, view = blank(), View(0.3, 0.1, 100.0, x, 128.0)
    white = solid((1.0, 1.0, 1.0))
    ellipsoid(canvas, view, np.array([0, 0.3, 0]), (0.2, 0.2, 0.2), white)
    tube(canvas, view, np.array([0, 2.9, 0]), np.array([0, 0.2, 0]), 0.1, 0.1, white)
    assert (canvas.depth > -np.inf).any() == (0 <= x <= 96)
