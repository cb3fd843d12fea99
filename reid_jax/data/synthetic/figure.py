"""Draws a person in a view and a phase of the gait.

Lengths are shares of the body's height, from anthropometric tables: a head is 1 / 7.5 of it.
"""

from typing import NamedTuple

import numpy as np

from reid_jax.data.synthetic import cloth
from reid_jax.data.synthetic.looks import Bag, Person
from reid_jax.data.synthetic.solids import Canvas, View, ellipsoid, loft, tube

_HIP, _KNEE, _ANKLE = 0.5, 0.265, 0.045
_SHOULDER, _NECK, _HEAD = 0.778, 0.845, 0.93
_THIGH, _SHANK = _HIP - _KNEE, _KNEE - _ANKLE
_UPPER_ARM, _FOREARM = 0.165, 0.145


class Gait(NamedTuple):
    """A moment of a walk.

    Attributes:
        phase: radians; the left leg is foremost at pi / 2.
        vigour: 1 walks, 0 stands.
        reach: radians that the right and the left forearm are raised beyond the swing (a phone, a
            bag held before the body).
    """

    phase: float
    vigour: float
    reach: tuple[float, float] = (0.0, 0.0)


class Pose(NamedTuple):
    """Joints, each (3,) metres in body axes (left, up, forward); pairs are (left, right)."""

    hips: np.ndarray
    neck: np.ndarray
    head: np.ndarray
    knees: tuple[np.ndarray, np.ndarray]
    ankles: tuple[np.ndarray, np.ndarray]
    foot_tilts: tuple[float, float]
    shoulders: tuple[np.ndarray, np.ndarray]
    elbows: tuple[np.ndarray, np.ndarray]
    wrists: tuple[np.ndarray, np.ndarray]


def posed(person: Person, gait: Gait) -> Pose:
    """The joints of a person at a moment of the walk, the lower foot on the ground."""
    h = person.height
    swing = person.stride * gait.vigour
    knees, ankles, tilts, shoulders, elbows, wrists = [], [], [], [], [], []
    lean = 0.03 * gait.vigour
    for side, phase in ((1, gait.phase), (-1, gait.phase + np.pi)):
        hip = np.array([side * 0.052 * person.girth, _HIP, 0])
        thigh = swing * np.sin(phase) + 0.04
        knee_bend = 0.06 + 1.7 * swing * max(0.0, np.cos(phase)) ** 1.5
        knee = hip + _THIGH * _hanging(thigh)
        knees.append(knee)
        ankles.append(knee + _SHANK * _hanging(thigh - knee_bend))
        tilts.append(0.8 * (thigh - knee_bend) + 0.06)
        shoulder = np.array([side * 0.11 * person.shoulders, _SHOULDER, lean])
        arm = -0.85 * swing * np.sin(phase) - 0.03
        bend = person.elbow + 0.5 * max(0.0, arm) + gait.reach[0 if side < 0 else 1]
        elbow = shoulder + _UPPER_ARM * _hanging(arm, side * 0.17 * person.girth)
        shoulders.append(shoulder)
        elbows.append(elbow)
        wrists.append(elbow + _FOREARM * _hanging(arm + bend, side * 0.02))
    drop = np.array([0, min(a[1] for a in ankles) - _ANKLE, 0])

    def grounded(points):
        return tuple((p - drop) * h for p in points)

    hips, neck, head = grounded(
        np.array(p) for p in ([0, _HIP, 0], [0, _NECK, lean], [0, _HEAD, lean * 1.4 + 0.006])
    )
    return Pose(
        hips, neck, head, grounded(knees), grounded(ankles), tuple(tilts),
        grounded(shoulders), grounded(elbows), grounded(wrists),
    )  # fmt: skip


def draw_person(canvas: Canvas, view: View, person: Person, gait: Gait) -> None:
    """Draw a person, clothed and carrying what belongs to the identity, on the canvas.

    Args:
        canvas: drawn on in place; nearer parts stay in front.
        view: the position and direction of the person.
        person: the identity.
        gait: the moment of the walk.
    """
    pose = posed(person, gait)
    for index, side in ((0, 1), (1, -1)):
        _leg(canvas, view, person, pose, index, side)
        _arm(canvas, view, person, pose, index)
    _hips(canvas, view, person, pose)
    _torso(canvas, view, person, pose)
    _head(canvas, view, person, pose)
    for bag in person.bags:
        _bag(canvas, view, person, pose, bag)


def _hanging(angle: float, outwards: float = 0.0) -> np.ndarray:
    """Unit vector down, swung forward by an angle and outwards by another."""
    across = np.cos(outwards)
    return np.array([np.sin(outwards), -np.cos(angle) * across, np.sin(angle) * across])


def _leg(canvas, view, person, pose, index, side):
    h, lower = person.height, person.lower
    hip = pose.hips + np.array([side * 0.052 * person.girth * h, 0, 0])
    knee, ankle = pose.knees[index], pose.ankles[index]
    skin = cloth.solid(lower.tights or person.skin)
    bulk = h * (0.6 + 0.4 * person.girth)
    trousers = lower.kind == "trousers"
    covers_knee = trousers and lower.hem < 0.2
    thigh, shank = (
        cloth.leg_paint(person, True, side, side),
        cloth.leg_paint(person, False, side, side),
    )
    if trousers:
        wide = bulk * min(lower.loose, 1.3)
        tube(canvas, view, hip, knee, 0.055 * wide, 0.041 * wide, thigh, open_end=not covers_knee)
    if covers_knee:
        wide = bulk * lower.loose
        ends = knee + (ankle - knee) * (1.02 if person.boots == 0 else 0.85)
        tube(canvas, view, knee, ends, 0.041 * wide, 0.032 * wide, shank, open_end=True)
    else:
        tube(canvas, view, hip, knee, 0.052 * bulk, 0.036 * bulk, skin)
        profile = np.array([[-0.08, 0.024, 0.024], [0, 0.034, 0.035], [0.3, 0.035, 0.038],
                            [0.7, 0.024, 0.026], [1.05, 0.018, 0.021]])  # fmt: skip
        profile[:, 1:] *= bulk
        loft(canvas, view, knee, ankle, profile, skin)
    if person.boots:
        top = ankle + (knee - ankle) * person.boots / _SHANK
        tube(canvas, view, top, ankle, 0.033 * h, 0.027 * h, cloth.solid(person.shoes))
    _shoe(canvas, view, person, ankle, pose.foot_tilts[index])


def _shoe(canvas, view, person, ankle, tilt):
    h = person.height

    def paint(left, up, forward):
        return np.where((up < -0.45)[:, None], np.float32(person.sole), np.float32(person.shoes))

    ahead = np.array([0, -np.cos(tilt) * 0.021 + np.sin(tilt) * 0.035, 0.032 * np.cos(tilt)]) * h
    ellipsoid(canvas, view, ankle + ahead, (0.027 * h, 0.024 * h, 0.069 * h), paint, tilt)


def _hips(canvas, view, person, pose):
    h, girth, lower = person.height, person.girth, person.lower
    top = pose.hips + np.array([0, 0.11 * h, 0])
    paint = cloth.leg_paint(person, True, 1, 0.5)
    if lower.kind == "skirt":
        hem = np.array([0, lower.hem * h, 0])
        stride = max(abs(k[2]) for k in pose.knees) + 0.075 * h
        flare = 0.115 * girth + 0.05 * (lower.loose - 1)
        profile = np.array([[0, 0.09 * girth, 0.065 * girth], [0.3, 0.11 * girth, 0.085 * girth],
                            [1, flare, 0.075]]) * [1, h, h]  # fmt: skip
        profile[2, 2] = max(profile[2, 2], stride)
        loft(canvas, view, top, hem, profile, paint)
    else:
        crotch = pose.hips - np.array([0, 0.045 * h, 0])
        profile = np.array([[0, 0.086, 0.066], [0.5, 0.1, 0.075], [0.8, 0.095, 0.072],
                            [1, 0.04, 0.05]]) * [1, h * girth, h * girth]  # fmt: skip
        loft(canvas, view, top, crotch, profile, paint)


def _torso(canvas, view, person, pose):
    h, upper = person.height, person.upper
    rises = pose.hips[1] / h - _HIP
    bottom = np.array([0, (upper.hem + rises) * h, 0])
    reach = _NECK - upper.hem
    wide = person.shoulders * (0.5 + 0.5 * upper.loose)
    soft = person.girth * upper.loose
    coat = 0.02 if upper.hem < 0.4 else 0.0
    profile = np.array([
        [_NECK, 0.033, 0.036], [0.835, 0.05 * wide, 0.044], [0.82, 0.088 * wide, 0.055],
        [0.795, 0.113 * wide, 0.066], [0.74, 0.116 * wide, 0.078 * soft],
        [0.69, 0.11 * wide * (0.5 + 0.5 * soft), 0.08 * soft],
        [0.61, 0.099 * soft, 0.077 * soft], [0.53, 0.106 * soft, 0.084 * soft],
        [upper.hem, (0.108 + coat) * soft, (0.086 + 2 * coat) * soft],
    ])  # fmt: skip
    profile = profile[profile[:, 0] >= upper.hem]
    profile[:, 0] = (_NECK - profile[:, 0]) / reach
    profile[:, 1:] *= h
    loft(canvas, view, pose.neck, bottom, profile, cloth.torso_paint(person))
    tube(
        canvas, view, pose.head - np.array([0, 0.03 * h, 0.008 * h]),
        pose.neck - np.array([0, 0.01 * h, 0]), 0.03 * h, 0.034 * h, cloth.solid(person.skin),
    )  # fmt: skip
    if upper.hood:
        hood = cloth.solid(tuple(0.85 * c for c in upper.fabric.base))
        centre = pose.neck + np.array([0, -0.012 * h, -0.035 * h])
        ellipsoid(canvas, view, centre, (0.062 * h, 0.035 * h, 0.04 * h), hood)


def _arm(canvas, view, person, pose, index):
    h, upper = person.height, person.upper
    shoulder, elbow, wrist = pose.shoulders[index], pose.elbows[index], pose.wrists[index]
    skin = cloth.solid(person.skin)
    bulk = h * (0.55 + 0.45 * person.girth)
    wide = bulk * upper.loose
    if upper.sleeve < 1:
        tube(canvas, view, shoulder, elbow, 0.03 * bulk, 0.026 * bulk, skin)
        tube(canvas, view, elbow, wrist, 0.025 * bulk, 0.017 * bulk, skin)
    along = (wrist - elbow) / np.linalg.norm(wrist - elbow)
    ellipsoid(canvas, view, wrist + 0.03 * h * along, (0.015 * h, 0.034 * h, 0.022 * h), skin)
    if upper.sleeve > 0:
        end = shoulder + (elbow - shoulder) * min(2 * upper.sleeve, 1)
        paint = cloth.sleeve_paint(person, 0.02)
        short = upper.sleeve < 1
        tube(canvas, view, shoulder, end, 0.034 * wide, 0.036 * wide, paint, open_end=short)
        if not short:
            paint = cloth.sleeve_paint(person, 0.02 + _UPPER_ARM * h)
            tube(canvas, view, elbow, wrist, 0.034 * wide, 0.026 * wide, paint, open_end=True)


def _head(canvas, view, person, pose):
    h = person.height
    radii = (0.048 * h, 0.069 * h, 0.058 * h)
    hair = np.float32(person.hair_colour)

    def face(left, up, forward):
        colours = np.tile(np.float32(person.skin), (len(left), 1))
        ahead = forward > 0
        colours[ahead & (np.abs(up - 0.02) < 0.09) & (np.abs(np.abs(left) - 0.38) < 0.17)] *= 0.45
        colours[ahead & (np.abs(up + 0.5) < 0.06) & (np.abs(left) < 0.26)] *= 0.68
        colours[ahead & (np.abs(up + 0.2) < 0.14) & (np.abs(left) < 0.12)] *= 1.08
        colours[ahead & (np.abs(up - 0.2) < 0.05) & (np.abs(np.abs(left) - 0.4) < 0.2)] *= 0.6
        if person.glasses:
            colours[(np.abs(up - 0.04) < 0.1) & (forward > -0.1) & (np.abs(left) > 0.15)] *= 0.5
        if person.beard:
            beard = (forward > -0.05) & (up < -0.3) & ~((np.abs(up + 0.5) < 0.08) & ahead)
            colours[beard] = 0.35 * colours[beard] + 0.65 * hair
        return colours

    ellipsoid(canvas, view, pose.head, radii, face)
    if person.hair != "bald":
        _hair(canvas, view, person, pose.head, radii)
    if person.hat != "none":
        _hat(canvas, view, person, pose.head, radii)


def _hair(canvas, view, person, head, radii):
    h, style = person.height, person.hair
    colour = np.float32(person.hair_colour)
    fall = {"bob": -0.85, "long": -0.9}.get(style, -0.3)  # how low it reaches beside the face

    def strands(left, up, forward):
        gloss = 0.85 + 0.5 * np.clip(up, 0, 1) * (0.5 + 0.5 * np.sin(left * 25 + forward * 9))
        return colour * gloss[:, None]

    def cap(left, up, forward):
        low = fall - 0.35 * (forward < -0.45)
        return (up > 0.45 + 0.1 * np.sin(5 * left)) | ((forward < 0.22) & (up > low))

    puff = {"tousled": 1.2, "bob": 1.2, "long": 1.16, "bun": 1.06, "ponytail": 1.07}.get(style, 1.1)
    lift = np.array([0, 0.006, -0.006]) * h
    ellipsoid(canvas, view, head + lift, tuple(puff * r for r in radii), strands, keep=cap)
    if style == "long":
        profile = np.array([[0, 0.046, 0.03], [0.4, 0.056, 0.034], [0.8, 0.055, 0.028],
                            [1, 0.03, 0.012]]) * [1, h, h]  # fmt: skip
        top = head + np.array([0, 0.0, -0.035]) * h
        loft(
            canvas, view, top, top + np.array([0, -0.19, -0.022]) * h, profile,
            lambda turn, along: strands(np.sin(turn), 0 * turn, np.cos(turn)),
        )  # fmt: skip
    if style == "ponytail":
        tail = head + np.array([0, 0.02, -0.075]) * h
        ellipsoid(canvas, view, tail, (0.02 * h, 0.02 * h, 0.025 * h), strands)
        tail = head + np.array([0, -0.045, -0.082]) * h
        ellipsoid(canvas, view, tail, (0.02 * h, 0.07 * h, 0.018 * h), strands)
    if style == "bun":
        bun = head + np.array([0, 0.062, -0.045]) * h
        ellipsoid(canvas, view, bun, (0.028 * h, 0.028 * h, 0.028 * h), strands)


def _hat(canvas, view, person, head, radii):
    h = person.height
    paint = cloth.solid(person.hat_colour)
    edge = 0.3 if person.hat == "cap" else 0.15
    grown = tuple(1.2 * r for r in radii)
    ellipsoid(canvas, view, head, grown, paint, keep=lambda left, up, forward: up > edge)
    if person.hat == "cap":
        brim = head + np.array([0, 0.026, 0.07]) * h
        ellipsoid(canvas, view, brim, (0.042 * h, 0.008 * h, 0.045 * h), paint, tilt=-0.15)


def _bag(canvas, view, person, pose, bag: Bag):
    h, size = person.height, bag.size
    second = np.array(bag.second, np.float32)
    colour = np.array(bag.colour, np.float32)

    def panels(turn, along):
        """A lighter lid, a pocket in the second colour, on the side away from the body."""
        colours = np.tile(colour, (len(turn), 1))
        away = np.cos(turn) * (-1 if bag.kind == "backpack" else 1)
        low = along > 0.55 * 0.27 * h * size
        if bag.kind == "backpack":
            pocket = (away > 0.3) & low & (np.abs(np.sin(turn)) < 0.62)
            colours[pocket] = 0.75 * colours[pocket] + 0.25 * second
            label = (away > 0.5) & (np.abs(np.sin(turn)) < 0.25)
            colours[label & (np.abs(along - 0.12 * h * size) < 0.018 * h)] = second
        elif bag.kind == "hand":
            colours[np.abs(along - 0.06 * h) < 0.012 * h] = second
        colours[along < 0.06 * h] *= 1.25
        return cloth.folded(colours, turn * 0.1, along, 0.08)

    def box(top, tall, wide, deep):
        profile = np.array([[0, 0.6, 0.5], [0.06, 0.85, 0.8], [0.2, 1, 1], [0.85, 1.02, 1.05],
                            [0.97, 0.95, 0.9], [1, 0.8, 0.7]])  # fmt: skip
        bottom = top - np.array([0, tall * h * size, 0])
        profile = profile * [1, wide * h * size, deep * h * size]
        loft(canvas, view, top, bottom, profile, panels)

    if bag.kind == "backpack":
        back = np.array([0, -0.045, -0.085 - 0.02 * size]) * h
        box(pose.neck + back, 0.27, 0.088, 0.055)
    elif bag.kind == "shoulder":
        hip = pose.hips + np.array([bag.side * 0.125 * person.girth, 0.1, -0.01]) * h
        box(hip, 0.15, 0.035, 0.085)
    else:
        wrist = pose.wrists[0 if bag.side > 0 else 1]
        hand = wrist - np.array([0, 0.055 * h, 0])
        tube(canvas, view, hand, hand - np.array([0, 0.06 * h, 0]), 0.012 * h, 0.03 * h,
             cloth.solid(bag.colour), open_end=True)  # fmt: skip
        box(hand - np.array([0, 0.05 * h, 0]), 0.16, 0.03, 0.085)
