import numpy as np
import pytest

from reid_jax.data import synthetic
from reid_jax.data.synthetic.cameras import camera
from reid_jax.data.synthetic.scenes import placed, scene


def test_few_places_are_alike():
    cameras = [camera(0, camid) for camid in range(1, synthetic.MAX_CAMERAS + 1)]
    assert len({(cam.ground, cam.wall) for cam in cameras}) == len(cameras) - 1


def test_a_ground_point_is_where_the_perspective_puts_it():
    cam = camera(0, 1)
    column, row, scale = placed(cam, 1.5, 9.0)
    tilt = np.arctan2(cam.height - 0.9, 8.5)
    depth = 9.0 * np.cos(tilt) + cam.height * np.sin(tilt)
    down = cam.height * np.cos(tilt) - 9.0 * np.sin(tilt)
    width, height = scene(0, 1).size
    expected = (width / 2 + 1.5 * cam.focal / depth, height / 2 + down * cam.focal / depth)
    assert (column, row) == pytest.approx(expected)
    assert scale == pytest.approx(cam.focal / depth)
