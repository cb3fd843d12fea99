"""The place a camera watches: a ground and a wall in perspective, drawn once for each camera."""

import functools
import math

import numpy as np
from PIL import Image

from reid_jax.data.synthetic.cameras import Camera, camera
from reid_jax.data.synthetic.streams import noise, stream

WIDTH, HEIGHT = 1152, 640
_AIM = 8.5  # metres ahead of the camera, where its axis meets a person's waist


@functools.lru_cache(maxsize=32)
def scene(seed: int, camid: int) -> Image.Image:
    """The empty place that a camera watches, RGB, WIDTH x HEIGHT."""
    cam = camera(seed, camid)
    rng = stream(seed, "scene", camid)
    x = (np.arange(WIDTH, dtype=np.float32) + 0.5 - WIDTH / 2) / cam.focal
    y = (np.arange(HEIGHT, dtype=np.float32)[:, None] + 0.5 - HEIGHT / 2) / cam.focal
    tilt = _tilt(cam)
    down = y * math.cos(tilt) + math.sin(tilt) + 0 * x  # of the ray through each pixel
    ahead = math.cos(tilt) - y * math.sin(tilt) + 0 * x
    x = x + 0 * y
    turn_cos, turn_sin = math.cos(cam.wall_turn), math.sin(cam.wall_turn)
    to_wall = cam.wall_distance * turn_cos / (ahead * turn_cos + x * turn_sin)
    to_ground = np.where(down > 1e-3, cam.height / np.maximum(down, 1e-3), np.inf)
    grounded = to_ground < to_wall
    rgb = np.empty((HEIGHT, WIDTH, 3), np.float32)
    far = to_ground[grounded]
    rgb[grounded] = _ground(cam.ground, x[grounded] * far, ahead[grounded] * far, rng)
    far = to_wall[~grounded]
    along = (x[~grounded] * turn_cos - ahead[~grounded] * turn_sin) * far
    rgb[~grounded] = _wall(cam.wall, along, cam.height - down[~grounded] * far, rng)
    rgb *= (0.62 + 0.38 * (1 - cam.ambient) + 0.1 * x)[..., None]
    return Image.fromarray((rgb.clip(0, 1) * 255).astype(np.uint8))


def placed(cam: Camera, across: float, away: float) -> tuple[float, float, float]:
    """The position of a ground point in the scene.

    Args:
        cam: the camera.
        across: metres to the right of the camera's axis.
        away: metres ahead of the camera.

    Returns:
        Column, row, and pixels per metre there.
    """
    tilt = _tilt(cam)
    depth = away * math.cos(tilt) + cam.height * math.sin(tilt)
    drop = cam.height * math.cos(tilt) - away * math.sin(tilt)
    scale = cam.focal / depth
    return WIDTH / 2 + across * scale, HEIGHT / 2 + drop * scale, scale


def _tilt(cam: Camera) -> float:
    return math.atan2(cam.height - 0.9, _AIM)


def _cells(u: np.ndarray, v: np.ndarray, rng: np.random.Generator, offset: float = 0.0):
    """Cells of a unit grid, every other row moved by offset: a random value per cell, and a joint
    mask (distance to the nearest edge, 0 to 0.5)."""
    row = np.floor(v)
    u = u + offset * (row % 2)
    column = np.floor(u)
    tones = rng.random((64, 64)).astype(np.float32)
    tone = tones[row.astype(int) % 64, column.astype(int) % 64]
    return tone, np.minimum(u - column, 1 - u + column), np.minimum(v - row, 1 - v + row)


def _jointed(u, v, wide, tall, joint, offset, rng):
    """Tone in about [0.9, 1.1] of laid stones, darker in the joints. All in metres."""
    tone, from_side, from_end = _cells(u / wide, v / tall, rng, offset)
    gap = (from_side * wide < joint) | (from_end * tall < joint)
    return (0.9 + 0.2 * tone) * np.where(gap, 0.68, 1.0)


def _ground(kind: str, x: np.ndarray, z: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Colours (N, 3) of ground points x to the right, z ahead, metres."""
    stains = 1 + 0.06 * noise(x * 0.07, z * 0.07) + 0.05 * noise(x * 0.7, z * 0.7)
    grain = 1 + 0.05 * rng.standard_normal(len(x))
    turn = rng.uniform(-0.5, 0.5)
    u, v = x * math.cos(turn) + z * math.sin(turn), z * math.cos(turn) - x * math.sin(turn)
    if kind == "slabs":
        colour, tone = (0.6, 0.58, 0.55), _jointed(u, v, 0.6, 0.6, 0.012, 0.5, rng)
    elif kind == "bricks":
        colour, tone = (0.58, 0.47, 0.41), _jointed(u, v, 0.4, 0.2, 0.012, 0.5, rng)
    elif kind == "tiles":
        colour, tone = (0.7, 0.69, 0.66), _jointed(u, v, 0.9, 0.9, 0.01, 0.0, rng)
        stains = 1 + 0.35 * (stains - 1)
        grain = 1 + 0.3 * (grain - 1)
    elif kind == "asphalt":
        colour, tone = (0.4, 0.4, 0.41), 1 + 0.08 * noise(x * 2, z * 2)
        line = (np.abs(z - 11.2 - 0.1 * x) < 0.07) | ((np.abs(u - 1.5) < 0.06) & (v % 3 < 1.6))
        tone = np.where(line, 1.9, tone)
    else:  # grass, with a path across
        blades = 1 + 0.22 * noise(x * 3, z * 1.5)
        path = np.abs(z - 8.3 - 0.2 * noise(x * 0.05, 0 * x)) < 1.9
        colours = np.where(path[:, None], np.array((0.62, 0.58, 0.5), np.float32), (0.3, 0.4, 0.2))
        return colours * (np.where(path, 1.0, blades) * stains * grain)[:, None]
    return np.array(colour, np.float32) * (tone * stains * grain)[:, None]


def _wall(kind: str, x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Colours (N, 3) of wall points x to the right, y above the ground, metres."""
    x = x + 50
    dirt = 1 - 0.2 * np.exp(-np.maximum(y, 0) * 3) + 0.05 * noise(x * 0.1, y * 0.1)
    if kind == "bricks":
        tone = _jointed(x, y, 0.24, 0.08, 0.008, 0.5, rng)
        colours = np.array((0.55, 0.36, 0.29), np.float32) * tone[:, None]
        colours = _windows(colours, x, y, (3.2, 1.3, 1.0, 2.6), (0.25, 0.29, 0.33), rng)
    elif kind == "panels":
        colours = (
            np.array((0.66, 0.67, 0.67), np.float32)
            * _jointed(x, y, 1.5, 2.6, 0.02, 0, rng)[:, None]
        )
        colours = _windows(colours, x, y, (4.5, 1.1, -1.0, 2.2), (0.35, 0.22, 0.17), rng)  # doors
        band = (y > 1.0) & (y < 1.12)
        colours[band] = (0.3, 0.33, 0.38)
    elif kind == "shop":
        colours = np.tile(np.array((0.36, 0.34, 0.33), np.float32), (len(x), 1))
        glow = 0.55 + 0.3 * noise(x * 0.12, y * 0.3)
        shelves = 0.8 + 0.35 * (noise(np.floor(x * 5) * 0.13, np.floor(y * 2.5) * 0.17) > 0)
        goods = np.stack([glow * shelves, glow * 0.93 * shelves, glow * 0.82], axis=1)
        pane = ((x % 2.4) > 0.12) & (y > 0.45) & (y < 2.5)
        colours[pane] = goods[pane].clip(0, 1)
        door = ((x % 7.2) > 4.9) & ((x % 7.2) < 6.0) & (y < 2.2)
        colours[door] = 0.4 * colours[door] + np.array((0.12, 0.13, 0.14), np.float32)
        sign = (y > 2.7) & (y < 3.4)
        signs = rng.uniform(0.15, 0.75, (16, 3)).astype(np.float32)
        colours[sign] = signs[(x[sign] / 7.2).astype(int) % 16]
    elif kind == "glass":
        sky = (0.42 + 0.08 * y + 0.1 * noise(x * 0.06, y * 0.1))[:, None]
        colours = sky * np.array((0.9, 1.0, 1.08), np.float32)
        frame = ((x % 1.5) < 0.07) | ((y % 1.25) < 0.06)
        colours[frame] = (0.25, 0.26, 0.27)
    else:  # hedge, or trees with trunks and gaps of light
        leaves = noise(x * 0.35, y * 0.35) + 0.8 * noise(x * 1.3, y * 1.3)
        colours = (
            np.array((0.2, 0.3, 0.14), np.float32) * (1 + 0.28 * leaves).clip(0.35, 1.8)[:, None]
        )
        if kind == "trees":
            gap = noise(x * 0.12, y * 0.14) > 0.75
            colours[gap & (y > 1)] = (0.72, 0.76, 0.78)
            trunk = (np.abs(x % 2.9 - 1.2 - 0.05 * noise(y * 0.1, 0 * y)) < 0.16) & (y < 4)
            colours[trunk] = np.array((0.33, 0.27, 0.22), np.float32) * dirt[trunk][:, None]
        else:
            colours[y > 1.9] = (0.66, 0.68, 0.7)
    return colours * dirt[:, None].clip(0, 1.2)


def _windows(colours, x, y, place, pane, rng):
    """Put framed panes into a wall; some have their blinds down.

    `place` is the distance between panes, their width, and the heights of their lower and upper
    edges, all in metres.
    """
    pitch, wide, low, high = place
    inside = ((x % pitch) < wide) & (y > low) & (y < high)
    edge = inside & (((x % pitch) < 0.07) | ((x % pitch) > wide - 0.07) | (y > high - 0.07))
    tones = rng.uniform(0.7, 1.7, 32)[(x / pitch).astype(int) % 32]
    colours[inside] = np.float32(pane) * tones[inside][:, None]
    colours[edge] = (0.78, 0.78, 0.76)
    return colours
