"""Takes a picture: a person walks through a camera's place, and a detector cuts a box."""

import functools
import math

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from reid_jax.data.identities import DISTRACTOR, JUNK
from reid_jax.data.synthetic.cameras import Camera, camera, exposed
from reid_jax.data.synthetic.figure import Gait, draw_person
from reid_jax.data.synthetic.looks import Person
from reid_jax.data.synthetic.obstacles import draw_obstacle
from reid_jax.data.synthetic.people import person
from reid_jax.data.synthetic.scenes import placed, scene
from reid_jax.data.synthetic.solids import Canvas, View
from reid_jax.data.synthetic.streams import stream

WIDTH, HEIGHT = 64, 128
WALK_LENGTH = 3  # pictures of one walk through a camera's view
_FINE = 2  # canvas pixels per picture pixel
FILL = 0.92  # share of a well cut box's height that the person covers
_person = functools.lru_cache(maxsize=4096)(person)


def draw(seed: int, pid: int, camid: int, index: int) -> np.ndarray:
    """One detected box. A pure function of its arguments.

    Args:
        seed: the dataset's seed, at least 0.
        pid: the identity, from 1; 0 draws a distractor (a person outside the dataset, a part of
            one, or no person) and -1 a junk box (a badly placed one).
        camid: the camera, from 1 to MAX_CAMERAS.
        index: number of the picture of this identity under this camera, from 0. WALK_LENGTH
            consecutive pictures belong to one walk and show nearly the same view.

    Returns:
        (128, 64, 3) uint8, RGB.

    Raises:
        ValueError: seed, pid, camid or index is out of range.
    """
    if seed < 0 or pid < JUNK or index < 0:
        raise ValueError(
            f"draw needs seed >= 0, pid >= {JUNK} and index >= 0, got {seed}, {pid}, {index}"
        )
    cam = camera(seed, camid)
    walk = stream(seed, "walk", pid, camid, index // WALK_LENGTH if pid > 0 else index)
    now = stream(seed, "picture", pid, camid, index)
    stranger = f"stranger {pid}", camid * 100_000 + index
    who = _person(seed, "person", pid) if pid > 0 else _person(seed, *stranger)
    nobody = pid == DISTRACTOR and now.random() < 0.25
    view, background = _framed(cam, scene(seed, camid), who, walk, now, index, pid)
    canvas = Canvas(
        rgb=background,
        depth=np.full(background.shape[:2], -np.inf, np.float32),
        light=np.array(cam.light, np.float32),
        ambient=cam.ambient,
    )
    obstacle, crowd = walk.random(2) < (cam.obstacle_rate, cam.crowd_rate)
    beside = walk.choice([-1, 1]) * walk.uniform(0.3, 0.62)
    passerby = _person(seed, "passer-by", int(walk.integers(1 << 30)))
    if crowd:
        _passerby(canvas, view, passerby, beside, walk)
    if not nobody:
        gait = _gait(walk, now, index)
        cast_shadow(canvas, view, who, cam, gait)
        draw_person(canvas, view, who, gait)
    if obstacle:
        draw_obstacle(canvas, view, cam.obstacle, walk)
    return _developed(canvas, cam, walk, now)


def _framed(cam: Camera, place: Image.Image, who: Person, walk, now, index: int, pid: int):
    """The person's position in the box, and the background, cut from the scene.

    Returns:
        The View, and (H, W, 3) float32 of the background.
    """
    high, wide = HEIGHT * _FINE, WIDTH * _FINE
    yaw = cam.yaw + walk.normal(0, 0.3)
    if walk.random() < 0.25:  # against the stream of people, or across it
        yaw += walk.choice([np.pi, 0.5 * np.pi, -0.5 * np.pi])
    step = 0.7 * (index % WALK_LENGTH - 1)
    away = walk.uniform(6.5, 10.5) - math.cos(yaw) * step
    across = walk.uniform(-2.2, 2.2) + math.sin(yaw) * step
    yaw += now.normal(0, 0.1)
    shift_x, shift_y, zoom = now.normal(0, cam.sloppiness, 3)
    if now.random() < 0.08:  # the feet, or rarely the head, are outside the box
        zoom, shift_y = zoom + 0.12, shift_y + now.choice([0.14, -0.1], p=[0.8, 0.2])
    if pid == JUNK or (pid == DISTRACTOR and now.random() < 0.35):
        zoom += now.uniform(-0.3, 0.9)
        shift_x, shift_y = now.choice([-1, 1]) * now.uniform(0.2, 0.6), now.uniform(-0.5, 0.5)
    pitch = math.atan2(cam.height - 0.9, away)
    scale = high * FILL * math.exp(zoom) / who.height
    x, y = wide * (0.5 + shift_x), high * (0.97 + shift_y + 0.3 * zoom)
    view = View(float(yaw), pitch, float(scale), float(x), float(y))
    column, row, there = placed(cam, across, away)
    shrink = there / scale
    left = min(max(column - x * shrink, 0), place.width - wide * shrink)
    top = min(max(row - y * shrink, 0), place.height - high * shrink)
    box = (left, top, left + wide * shrink, top + high * shrink)
    cut = place.resize((wide, high), Image.Resampling.BILINEAR, box=box)
    return view, np.asarray(cut, np.float32) / 255


def _gait(walk, now, index: int) -> Gait:
    vigour = 0.12 if walk.random() < 0.12 else walk.uniform(0.75, 1.1)
    phase = walk.uniform(0, 2 * np.pi) + 2.2 * (index % WALK_LENGTH) + now.normal(0, 0.2)
    reach = (0.0, 0.0)
    if walk.random() < 0.18:  # looks at a phone
        reach = (1.5, 0.0) if walk.random() < 0.6 else (1.3, 1.3)
    return Gait(float(phase), float(vigour), reach)


def _passerby(canvas: Canvas, view: View, who: Person, beside: float, walk) -> None:
    """Draw another person, farther away or (one time in three) in front."""
    if walk.random() < 0.33:
        near, size = 0.8, 1.0
        beside *= 1.35  # covers a side of the main person, not the middle
    else:
        near, size = -3.0, walk.uniform(0.72, 0.95)
    other = View(
        yaw=float(view.yaw + walk.normal(0, 0.6)),
        pitch=view.pitch,
        scale=view.scale * size,
        x=view.x + beside * view.scale,
        y=view.y + near * math.sin(view.pitch) * view.scale * size,
        near=near,
    )
    draw_person(canvas, other, who, Gait(float(walk.uniform(0, 6.28)), 0.9))


def cast_shadow(canvas: Canvas, view: View, who: Person, cam: Camera, gait: Gait) -> None:
    """Darken the ground under the feet, and where the key light does not reach."""
    high, wide = canvas.depth.shape
    h = who.height * view.scale
    shade = Image.new("L", (wide, high))
    pen = ImageDraw.Draw(shade)
    away = -math.copysign(0.5, cam.light[0]) * (1 - cam.ambient)
    toe = view.y + 0.012 * h
    deep = int(255 * (0.25 + 0.55 * (1 - cam.ambient)))
    pen.polygon(
        [(view.x - 0.1 * h, toe), (view.x + 0.1 * h, toe),
         (view.x + (0.08 + away) * h, toe - 0.1 * h), (view.x + (away - 0.04) * h, toe - 0.1 * h)],
        fill=deep // 2,
    )  # fmt: skip
    spread = 0.1 + 0.14 * gait.vigour * abs(math.sin(view.yaw) * math.sin(gait.phase))
    pen.ellipse([view.x - spread * h, toe - 0.03 * h, view.x + spread * h, toe + 0.015 * h], deep)
    shade = shade.filter(ImageFilter.GaussianBlur(0.012 * h))
    light = 1 - np.asarray(shade, np.float32) / 255
    light[canvas.depth > -np.inf] = 1.0
    np.multiply(canvas.rgb, light[..., None], out=canvas.rgb)


def _developed(canvas: Canvas, cam: Camera, walk, now) -> np.ndarray:
    """The sensor's picture of the canvas, resized to the size of a box."""
    image = Image.fromarray((canvas.rgb.clip(0, 1) * 255).astype(np.uint8))
    rows = int(walk.integers(cam.resolution[0], cam.resolution[1] + 1))
    image = image.resize((rows // 2, rows), Image.Resampling.BOX)
    image = image.filter(ImageFilter.GaussianBlur(cam.blur + now.uniform(0, 0.2)))
    seen = exposed(cam, np.asarray(image, np.float32) / 255, now, walk.uniform(0.93, 1.07))
    image = Image.fromarray(seen).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    return np.asarray(image)
