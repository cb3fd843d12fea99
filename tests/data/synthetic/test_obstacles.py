"""Obstacles before a person."""

import numpy as np
import pytest

from reid_jax.data.synthetic.obstacles import draw_obstacle
from reid_jax.data.synthetic.solids import View
from tests.data.synthetic.market import blank

KINDS = ("pole", "railing", "planter", "box", "bench")
FEET = View(yaw=0.4, pitch=0.2, scale=60.0, x=48.0, y=110.0)


def drawn(kind, seed=0):
    canvas = blank()
    draw_obstacle(canvas, FEET, kind, np.random.default_rng(seed))
    return canvas


@pytest.mark.parametrize("kind", KINDS)
def test_an_obstacle_is_nearer_than_the_person_and_hides_a_part(kind):
    canvas = drawn(kind)
    hidden = canvas.depth > -np.inf
    assert 0.005 < hidden.mean() < 0.6
    assert canvas.depth[hidden].min() > 0.5
    assert ((canvas.rgb[hidden] >= 0) & (canvas.rgb[hidden] <= 1)).all()


def test_kinds_differ_and_the_place_is_random():
    shapes = [(drawn(kind).depth > -np.inf).tobytes() for kind in KINDS]
    assert len(set(shapes)) == len(KINDS)
    places = {(drawn("pole", seed).depth > -np.inf).tobytes() for seed in range(4)}
    assert len(places) > 1


def test_an_unknown_obstacle_is_refused():
    with pytest.raises(ValueError, match="no obstacle is called 'wall'"):
        drawn("wall")
