"""A short video of synthetic pedestrians who walk past each other, with the boxes of a detector."""

import math
from typing import NamedTuple

import numpy as np
from PIL import Image

from reid_jax.data.synthetic.cameras import Camera, camera, exposed
from reid_jax.data.synthetic.capture import FILL, cast_shadow
from reid_jax.data.synthetic.figure import Gait, draw_person
from reid_jax.data.synthetic.looks import Person
from reid_jax.data.synthetic.people import person
from reid_jax.data.synthetic.scenes import HEIGHT, WIDTH, placed, scene
from reid_jax.data.synthetic.solids import Canvas, View
from reid_jax.data.synthetic.streams import stream

_FINE = 2  # canvas pixels per pixel of a frame
_NEAREST, _FARTHEST = 7.5, 10.5  # metres from the camera
_REACH = 4.2  # metres to each side, at which a walk starts and ends
_STEP = 2.2  # radians of the gait per 0.7 metres, as in `capture`
# A detector finds a person of whom it sees this share.
_SEEN = 0.5


class Clip(NamedTuple):
    """A video and what a detector finds in it.

    Attributes:
        frames: uint8 (T, 320, 576, 3), RGB.
        boxes: T arrays, float32 (N, 4), pixels: x1, y1, x2, y2. N differs between frames.
        pids: T arrays, int64 (N,): the identity in each box, to judge a tracker.
    """

    frames: np.ndarray
    boxes: list[np.ndarray]
    pids: list[np.ndarray]


def draw_clip(seed: int, camid: int, pids: tuple[int, ...], count: int = 40) -> Clip:
    """Draw people who cross a camera's place, each second one from the other side.

    They walk at different distances, so they hide each other. While a person is mostly hidden or
    outside the frame, there is no box. A pure function of its arguments.

    Args:
        seed: the dataset's seed, at least 0.
        camid: the camera, from 1 to MAX_CAMERAS.
        pids: the identities, from 1, the nearest to the camera first.
        count: T, the number of frames, at least 1.

    Raises:
        ValueError: seed, camid, a pid or count is out of range.
    """
    if seed < 0 or count < 1 or min(pids, default=1) < 1:
        raise ValueError(
            f"draw_clip needs seed >= 0, pids >= 1 and count >= 1, got {seed}, {pids} and {count}"
        )
    cam = camera(seed, camid)
    background = np.asarray(scene(seed, camid), np.float32) / 255
    people = [person(seed, "person", pid) for pid in pids]
    frames, all_boxes, all_pids = [], [], []
    for i in range(count):
        canvas = Canvas(
            rgb=background.copy(),
            depth=np.full((HEIGHT, WIDTH), -np.inf, np.float32),
            light=np.array(cam.light, np.float32),
            ambient=cam.ambient,
        )
        owner = np.full((HEIGHT, WIDTH), -1)
        whole, boxes = np.zeros(len(pids)), np.zeros((len(pids), 4), np.float32)
        for k in reversed(range(len(pids))):  # The farthest first.
            view, gait = _placed(cam, seed, pids[k], k / max(len(pids) - 1, 1), k % 2, i / count)
            boxes[k] = _box(view, people[k])
            whole[k] = _draw(canvas, owner, k, boxes[k], view, people[k], cam, gait)
        seen = np.bincount(owner[owner >= 0], minlength=len(pids))
        found = np.flatnonzero((whole > 0) & (seen >= _SEEN * whole))
        frames.append(_developed(canvas, cam, stream(seed, "frame", camid, i)))
        all_boxes.append(boxes[found] / _FINE)
        all_pids.append(np.array(pids, np.int64)[found])
    return Clip(np.stack(frames), all_boxes, all_pids)


def _placed(
    cam: Camera, seed: int, pid: int, depth: float, leftwards: int, time: float
) -> tuple[View, Gait]:
    """The view and the gait of a person at a time of the clip, in [0, 1)."""
    walk = stream(seed, "clip", pid)
    away = _NEAREST + depth * (_FARTHEST - _NEAREST)
    # Walks are as long as the frame is wide at their distance. Starts and speeds differ a little.
    reach = _REACH * away / _NEAREST
    passed = 2 * reach * (walk.uniform(0.8, 1.2) * time + walk.uniform(-0.1, 0.1))
    across = passed - reach
    across = -across if leftwards else across
    column, row, scale = placed(cam, across, away)
    yaw = (-1 if leftwards else 1) * math.pi / 2 + walk.normal(0, 0.25)
    pitch = math.atan2(cam.height - 0.9, away)
    view = View(float(yaw), pitch, float(scale), float(column), float(row), near=-away)
    return view, Gait(float(walk.uniform(0, 2 * np.pi) + _STEP * passed / 0.7), 1.0)


def _box(view: View, who: Person) -> tuple[float, float, float, float]:
    """The box of a person on the canvas, as well cut as in `capture`."""
    high = who.height * view.scale / FILL
    left, top = view.x - high / 4, view.y - 0.97 * high
    return left, top, left + high / 2, top + high


def _draw(
    canvas: Canvas,
    owner: np.ndarray,
    k: int,
    box: np.ndarray,
    view: View,
    who: Person,
    cam: Camera,
    gait: Gait,
) -> int:
    """Draw person k in the part of the canvas around the box, and note its pixels in `owner`.

    Returns:
        The number of pixels that it would have in front of all others, on a canvas without end.
    """
    x1, y1, x2, y2 = box.astype(int)
    wide, high = x2 - x1, y2 - y1
    rows = slice(max(y1 - high // 8, 0), max(y2 + high // 8, 0))
    columns = slice(max(x1 - wide, 0), max(x2 + wide, 0))
    # Copies, because solids need contiguous arrays.
    before = canvas.depth[rows, columns]
    part = canvas._replace(rgb=canvas.rgb[rows, columns].copy(), depth=before.copy())
    if 0 in before.shape:
        return 0
    view = view._replace(x=view.x - columns.start, y=view.y - rows.start)
    cast_shadow(part, view, who, cam, gait)
    draw_person(part, view, who, gait)
    drawn = part.depth != before
    canvas.rgb[rows, columns], canvas.depth[rows, columns] = part.rgb, part.depth
    owner[rows, columns][drawn] = k
    inside = np.clip([x1, x2], 0, canvas.depth.shape[1])
    return int(drawn.sum() * wide / max(inside[1] - inside[0], 1))


def _developed(canvas: Canvas, cam: Camera, rng: np.random.Generator) -> np.ndarray:
    """The sensor's picture of the canvas."""
    image = Image.fromarray((canvas.rgb.clip(0, 1) * 255).astype(np.uint8))
    image = image.resize((WIDTH // _FINE, HEIGHT // _FINE), Image.Resampling.BOX)
    return exposed(cam, np.asarray(image, np.float32) / 255, rng, 1.0)
