"""Solids on a canvas with a depth buffer: the part nearest to the camera is visible.

All figures and obstacles consist of two solids. An *ellipsoid* is exact; a *loft* is a stack of
elliptical sections along an axis (a torso, a sleeve, a pole). Both are drawn in closed form in an
orthographic view, so the body coordinates of a surface point are known. Paint is a function of
these coordinates: a logo on the chest turns out of sight when the person turns.

Body axes are (left, up, forward) in metres; the screen has x to the right, y down, in pixels.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

Paint = Callable[..., np.ndarray]
_CURVE = np.linspace(0, np.pi / 2, 5)  # of a round cap
_SECTIONS = 128  # the number of sections of a loft
_STEEPEST = 3.0  # the slope of a loft's side beyond which shading no longer changes


class Canvas(NamedTuple):
    """A picture while it is drawn.

    Attributes:
        rgb: (H, W, 3) float32 in [0, 1].
        depth: (H, W) float32, metres towards the camera, -inf for pixels that are still empty.
        light: (3,) float32 unit vector towards the light, (right, up, towards the camera).
        ambient: share of the light that comes from all directions, in [0, 1].
    """

    rgb: np.ndarray
    depth: np.ndarray
    light: np.ndarray
    ambient: float


class View(NamedTuple):
    """An orthographic view of a body that stands on the ground.

    Attributes:
        yaw: radians the body is turned: 0 faces the camera, pi shows the back, pi / 2 walks to
            the right of the picture.
        pitch: radians the camera looks down.
        scale: pixels per metre.
        x: column of the body's origin, the ground point between the feet.
        y: row of the same point.
        near: metres by which the body is in front of (+) or behind (-) the picture's main person.
    """

    yaw: float
    pitch: float
    scale: float
    x: float
    y: float
    near: float = 0.0

    def project(self, point: np.ndarray) -> tuple[float, float, float]:
        """Column, row and depth (metres) of a body point (3,)."""
        # Python floats: NumPy's own would widen float32 arrays to float64.
        right, up, towards = (_rotation(self.yaw, self.pitch) @ point).tolist()
        return self.x + self.scale * right, self.y - self.scale * up, towards + self.near


@functools.lru_cache(maxsize=64)
def _rotation(yaw: float, pitch: float) -> np.ndarray:
    """(3, 3) from (left, up, forward) to (right, up, towards the camera)."""
    c, s = math.cos(yaw), math.sin(yaw)
    cp, sp = math.cos(pitch), math.sin(pitch)
    turn = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    return np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]]) @ turn


def ellipsoid(
    canvas: Canvas,
    view: View,
    centre: np.ndarray,
    radii: tuple[float, float, float],
    paint: Paint,
    tilt: float = 0.0,
    keep: Callable[..., np.ndarray] | None = None,
) -> None:
    """Draw an ellipsoid.

    Args:
        canvas: drawn on in place.
        view: the view of the body that the ellipsoid belongs to.
        centre: (3,) body coordinates, metres.
        radii: along left, up and forward, metres.
        paint: (left, up, forward), each (N,) on the unit sphere, to colours (N, 3).
        tilt: radians the front is raised.
        keep: maps the same arguments to a mask (N,); parts that are False are cut away.
    """
    c, s = math.cos(tilt), math.sin(tilt)
    axes = _rotation(view.yaw, view.pitch) @ np.array([[1, 0, 0], [0, c, s], [0, -s, c]])
    to_unit = (axes / np.asarray(radii)).T  # screen metres to the unit sphere
    (xx, xy, xz), (_, yy, yz), (_, _, zz) = (to_unit.T @ to_unit).tolist()
    column, row, depth = view.project(centre)
    reach = np.sqrt(axes**2 @ np.square(radii)) * view.scale
    x, y, place = _window(
        canvas, column - reach[0], column + reach[0], row - reach[1], row + reach[1]
    )
    if not place.size:
        return
    x, y = np.broadcast_arrays((x - column) / view.scale, (row - y[:, None]) / view.scale)
    b = xz * x + yz * y
    root = b * b - zz * (xx * x * x + 2 * xy * x * y + yy * y * y - 1)
    seen = np.flatnonzero(root > 0)
    z = (np.sqrt(root.ravel().take(seen)) - b.ravel().take(seen)) / zz
    nearer = z + depth > canvas.depth.ravel().take(place.take(seen))
    seen, z = seen[nearer], z[nearer]
    screen = np.stack([x.ravel().take(seen), y.ravel().take(seen), z])
    unit = to_unit.astype(np.float32) @ screen
    if keep is not None:
        kept = np.flatnonzero(keep(*unit))
        seen, z, unit = seen.take(kept), z.take(kept), unit.take(kept, axis=1)
    normal = to_unit.T.astype(np.float32) @ unit
    _put(canvas, place.take(seen), z + depth, normal, paint(*unit))


def loft(
    canvas: Canvas, view: View, a: np.ndarray, b: np.ndarray, profile: np.ndarray, paint: Paint
) -> None:
    """Draw elliptical sections stacked along the axis from a to b.

    The axis should be nearer to vertical than to horizontal, because sections are taken as
    horizontal.

    Args:
        canvas: drawn on in place.
        view: the view of the body that the loft belongs to.
        a: (3,) start of the axis, body coordinates, metres.
        b: (3,) its end.
        profile: (S, 3) rows (t, half-width, half-depth), t ascending, 0 at a and 1 at b, metres.
        paint: (turn, along), each (N,), to colours (N, 3). turn is the angle around the body, 0 in
            front and pi / 2 at the left side; along is metres from a.
    """
    ax, ay, az = view.project(a)
    bx, by, bz = view.project(b)
    length = max(math.hypot(bx - ax, by - ay), 1e-3)
    dx, dy = (bx - ax) / length, (by - ay) / length
    ex, ey = (dy, -dx) if dy >= 0 else (-dy, dx)  # across the axis, to the right
    low, high = profile[0, 0], profile[-1, 0]
    table = _sections(profile, view.yaw, length / view.scale)
    widest = float(table[0].max())
    ends = np.array([low, high, low, high]) * length
    sides = np.array([1, 1, -1, -1]) * widest * view.scale
    xs, ys = ax + dx * ends + ex * sides, ay + dy * ends + ey * sides
    x, y, place = _window(canvas, xs.min(), xs.max(), ys.min(), ys.max())
    x, y = x - ax, y[:, None] - ay
    t = ((dx / length) * x + (dy / length) * y).ravel()
    across = ((ex / view.scale) * x + (ey / view.scale) * y).ravel()
    at = np.flatnonzero((t >= low) & (t <= high) & (np.abs(across) < widest))
    t = t.take(at)
    section = ((t - low) * ((_SECTIONS - 1) / (high - low))).astype(np.intp)
    s = across.take(at) / table[0].take(section)
    inside = np.flatnonzero(np.abs(s) < 1)
    at, t, section, s = (v.take(inside) for v in (at, t, section, s))
    width, skew, bulge, *_ = table
    skew, bulge = skew.take(section), bulge.take(section)
    front = np.sqrt(1 - s * s)
    z = t.clip(0, 1) * (bz - az) + az + skew * s + bulge * front
    at = place.take(at)
    nearer = np.flatnonzero(z > canvas.depth.ravel().take(at))
    at, t, section, s, skew, bulge, front, z = (
        v.take(nearer) for v in (at, t, section, s, skew, bulge, front, z)
    )
    left_share, forward_share, slope = (v.take(section) for v in table[3:])
    left = s * left_share - front * forward_share  # on the section's unit circle
    forward = s * forward_share + front * left_share
    right, towards = bulge * s - skew * front, width.take(section) * front
    size = np.sqrt(right * right + towards * towards)
    right /= size
    towards /= size
    normal = np.stack([ex * right - dx * slope, dy * slope - ey * right, towards])
    _put(canvas, at, z, normal, paint(np.arctan2(left, forward), t * math.dist(a, b)))


def _sections(profile: np.ndarray, yaw: float, length: float) -> np.ndarray:
    """The appearance of a loft from the camera, at evenly spaced sections.

    An ellipse with half-axes (wide, deep), turned by yaw, covers the columns -width to width. Let s
    in [-1, 1] be the column divided by the width, and c = sqrt(1 - s^2). The near side is then at
    the depth skew * s + bulge * c and at the point s * (l, f) + c * (-f, l) of its own unit circle.

    Returns:
        (6, _SECTIONS) float32: width, skew, bulge, l, f, and the width's slope along the axis.
    """
    cos, sin = math.cos(yaw), math.sin(yaw)
    t = np.linspace(profile[0, 0], profile[-1, 0], _SECTIONS)
    wide = np.interp(t, profile[:, 0], profile[:, 1]) + 1e-6
    deep = np.interp(t, profile[:, 0], profile[:, 2]) + 1e-6
    width = np.hypot(wide * cos, deep * sin)
    slope = np.zeros_like(width)
    slope[1:-1] = (width[2:] - width[:-2]) / (2 * (t[1] - t[0]) * length)
    slope[[0, -1]] = slope[[1, -2]]
    skew = (deep * deep - wide * wide) * (sin * cos) / width
    table = (
        width, skew, wide * deep / width, wide * cos / width, deep * sin / width,
        slope.clip(-_STEEPEST, _STEEPEST),
    )  # fmt: skip
    return np.stack(table).astype(np.float32)


def tube(
    canvas: Canvas,
    view: View,
    a: np.ndarray,
    b: np.ndarray,
    radius_a: float,
    radius_b: float,
    paint: Paint,
    open_end: bool = False,
) -> None:
    """Draw a limb: a round loft with a round cap at a, and at b unless open_end (a hem)."""
    ax, ay, _ = view.project(a)
    bx, by, _ = view.project(b)
    length = max(math.hypot(bx - ax, by - ay), 1e-3) / view.scale
    stations = np.concatenate([-np.cos(_CURVE) * radius_a / length, [1.0]])
    radii = np.concatenate([np.sin(_CURVE) * radius_a, [radius_b]])
    if not open_end:
        stations = np.concatenate([stations, 1 + np.sin(_CURVE[1:]) * radius_b / length])
        radii = np.concatenate([radii, np.cos(_CURVE[1:]) * radius_b])
    loft(canvas, view, a, b, np.stack([stations, radii, radii], axis=1), paint)


def _window(canvas: Canvas, left: float, right: float, top: float, bottom: float):
    """The part of the canvas within bounds.

    Returns:
        Columns (w,) and rows (h,) of its pixels' centres, and the pixels' places (h * w,) in the
        flattened canvas. Empty where the bounds lie outside.
    """
    height, width = canvas.depth.shape
    columns = np.arange(max(int(left), 0), min(int(right) + 2, width))
    rows = np.arange(max(int(top), 0), min(int(bottom) + 2, height))
    place = (rows[:, None] * width + columns).ravel()
    return columns.astype(np.float32) + 0.5, rows.astype(np.float32) + 0.5, place


def _put(canvas: Canvas, at: np.ndarray, depth, normal, colours) -> None:
    """Write lit surface points at places (N,): depths, normals (3, N) of any length, colours."""
    lit = canvas.light @ normal / np.sqrt(np.einsum("in,in->n", normal, normal))
    lit = canvas.ambient + (1 - canvas.ambient) * (0.3 + 0.7 * lit).clip(0)
    canvas.depth.reshape(-1)[at] = depth
    canvas.rgb.reshape(-1, 3)[at] = colours * lit[:, None]
