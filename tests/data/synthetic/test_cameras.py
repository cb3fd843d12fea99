import numpy as np
import pytest

from reid_jax.data import synthetic
from reid_jax.data.synthetic import capture
from reid_jax.data.synthetic.cameras import camera


def test_cameras_differ_in_light_and_colour():
    means = np.array(
        [
            np.mean([synthetic.draw(0, pid, camid, 0) for pid in range(1, 7)], axis=(0, 1, 2))
            for camid in range(1, 5)
        ]
    )
    apart = np.abs(means[:, None] - means[None]).max(axis=-1)[np.triu_indices(4, 1)]
    assert apart.min() > 4
    assert apart.max() > 15


@pytest.mark.parametrize("camid", [0, synthetic.MAX_CAMERAS + 1])
def test_unknown_camera_is_named(camid):
    with pytest.raises(ValueError, match=f"camid is {camid}.*1 to 12"):
        synthetic.draw(0, 1, camid, 0)


def narrowest(yaws):
    """The smallest angle between any two of the directions, radians."""
    yaws = np.sort(np.mod(yaws, 2 * np.pi))
    return np.diff([*yaws, yaws[0] + 2 * np.pi]).min()


@pytest.mark.parametrize("camids", [(1, 2, 3), (7, 8, 9)])  # of the default splits
def test_cameras_of_a_split_mostly_show_different_views(camids, monkeypatch):
    """Matching across cameras crosses views, so a clue seen by one camera is hidden from
    another."""
    yaws = []
    monkeypatch.setattr(
        capture, "draw_person", lambda canvas, view, who, gait: yaws.append(view.yaw)
    )
    mean_views = []
    for camid in camids:
        yaws.clear()
        for pid in range(1, 31):
            synthetic.draw(0, pid, camid, 0)
        mean_views.append(np.exp(1j * np.array(yaws)).mean())
    assert np.abs(mean_views).min() > 0.4
    assert narrowest(np.angle(mean_views)) > np.pi / 4


@pytest.mark.parametrize("first", range(1, synthetic.MAX_CAMERAS - 2))
def test_neighbouring_cameras_see_people_from_four_sides(first):
    assert narrowest([camera(0, camid).yaw for camid in range(first, first + 4)]) > np.pi / 3
