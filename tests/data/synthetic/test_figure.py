import dataclasses

import numpy as np
import pytest

from reid_jax.data.synthetic.figure import Gait, draw_person, posed
from reid_jax.data.synthetic.looks import Bag, Fabric, Print
from reid_jax.data.synthetic.people import person
from reid_jax.data.synthetic.solids import View
from tests.data.synthetic.market import blank

FRONT, BACK, RIGHTWARDS, LEFTWARDS = 0.0, np.pi, np.pi / 2, -np.pi / 2


def figure(who, yaw, phase=0.8):
    """The person without surroundings, in even light: (128, 96, 3)."""
    canvas = blank()
    view = View(yaw=yaw, pitch=0.0, scale=118 / who.height, x=48.0, y=124.0)
    draw_person(canvas, view, who, Gait(phase, 1.0))
    return canvas.rgb


def changed(a, b):
    return int((np.abs(a - b).max(axis=2) > 0.05).sum())


@pytest.mark.parametrize("phase", np.linspace(0, 2 * np.pi, 7))
def test_bones_keep_their_lengths_and_a_foot_is_on_the_ground(phase):
    who = person(0, "person", 1)
    pose = posed(who, Gait(phase, 1.0))
    for knee, ankle in zip(pose.knees, pose.ankles, strict=True):
        assert np.linalg.norm(knee - ankle) == pytest.approx(0.22 * who.height)
    for elbow, wrist in zip(pose.elbows, pose.wrists, strict=True):
        assert np.linalg.norm(elbow - wrist) == pytest.approx(0.145 * who.height)
    assert min(a[1] for a in pose.ankles) == pytest.approx(0.045 * who.height)
    assert pose.head[1] > pose.neck[1] > pose.hips[1] > max(k[1] for k in pose.knees)


def test_legs_and_arms_swing_in_opposition():
    pose = posed(person(0, "person", 1), Gait(np.pi / 2, 1.0))
    assert pose.ankles[0][2] > 0 > pose.ankles[1][2]
    assert pose.wrists[0][2] < pose.wrists[1][2]


@pytest.mark.parametrize("number", range(1, 9))
@pytest.mark.parametrize("yaw", [FRONT, BACK, RIGHTWARDS])
def test_figures_fill_their_height_and_stand_upright(number, yaw):
    rows, columns = np.nonzero(figure(person(0, "person", number), yaw).max(axis=2) > 0)
    assert 3 <= rows.min() <= 14
    assert 119 <= rows.max() <= 127
    assert 20 <= np.ptp(columns) <= 80


def plain(number=3):
    """A person without bags and prints, in a closed grey tee."""
    who = person(0, "person", number)
    fabric = Fabric((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    upper = dataclasses.replace(who.upper, fabric=fabric, prints=(), front="closed", hood=False)
    return dataclasses.replace(who, bags=(), upper=upper, hair="short", elbow=0.1)


def test_a_print_is_seen_from_its_side_only():
    without = plain()
    cells = ((True,) * 6,) * 5
    for side, seen, hidden in (("front", FRONT, BACK), ("back", BACK, FRONT)):
        logo = Print(side, cells, (0.9, 0.1, 0.1), left=0.0, down=0.12, cell=0.04)
        upper = dataclasses.replace(without.upper, prints=(logo,))
        with_print = dataclasses.replace(without, upper=upper)
        assert changed(figure(with_print, seen), figure(without, seen)) > 120
        assert changed(figure(with_print, hidden), figure(without, hidden)) == 0


def test_a_backpack_is_seen_from_behind_and_its_straps_from_before():
    without = plain()
    bag = Bag("backpack", 0, (0.9, 0.1, 0.1), (0.1, 0.1, 0.9), 1.0)
    with_bag = dataclasses.replace(without, bags=(bag,))
    from_behind = changed(figure(with_bag, BACK), figure(without, BACK))
    from_before = changed(figure(with_bag, FRONT), figure(without, FRONT))
    assert from_behind > 400
    assert 0 < from_before < from_behind / 2


@pytest.mark.parametrize(
    ("side", "seen", "hidden"), [(1, LEFTWARDS, RIGHTWARDS), (-1, RIGHTWARDS, LEFTWARDS)]
)
def test_a_shoulder_bag_is_seen_from_its_side(side, seen, hidden):
    # A person walking to the left of the picture shows the left side.
    without = plain()
    bag = Bag("shoulder", side, (0.9, 0.1, 0.1), (0.1, 0.1, 0.9), 1.0)
    with_bag = dataclasses.replace(without, bags=(bag,))
    near = changed(figure(with_bag, seen), figure(without, seen))
    far = changed(figure(with_bag, hidden), figure(without, hidden))
    assert near > 2 * far + 100


def test_the_face_is_seen_from_before_and_hair_from_behind():
    who = dataclasses.replace(
        plain(), skin=(0.9, 0.7, 0.6), hair_colour=(0.1, 0.05, 0.05), hat="none"
    )
    front, back = figure(who, FRONT)[:20], figure(who, BACK)[:20]

    def skin(image):
        return int((np.abs(image - np.float32(who.skin)).max(axis=2) < 0.1).sum())

    assert skin(front) > 3 * skin(back) + 20
