"""A video of people who walk past each other."""

import numpy as np
import pytest

from reid_jax.data.synthetic.clip import draw_clip

PIDS = (2, 4, 6)


@pytest.fixture(scope="module")
def clip():
    return draw_clip(0, 8, PIDS, count=12)


def test_it_is_a_function_of_its_arguments(clip):
    again = draw_clip(0, 8, PIDS, count=12)
    for one, other in zip((clip.frames, *clip.boxes), (again.frames, *again.boxes), strict=True):
        np.testing.assert_array_equal(one, other)
    assert (draw_clip(0, 8, (2, 4, 8), count=1).frames[0] != clip.frames[0]).any()


def test_shapes_and_dtypes(clip):
    assert (clip.frames.shape, clip.frames.dtype) == ((12, 320, 576, 3), np.uint8)
    assert len(clip.boxes) == len(clip.pids) == 12
    for boxes, pids in zip(clip.boxes, clip.pids, strict=True):
        assert (boxes.shape, boxes.dtype) == ((len(pids), 4), np.float32)
        assert pids.dtype == np.int64
        assert set(pids.tolist()) <= set(PIDS)
        assert (boxes[:, :2] < boxes[:, 2:]).all()


def test_people_cross_the_frame_from_both_sides(clip):
    """And each box holds its person: there the frame differs from one without people."""
    empty = draw_clip(0, 8, (), count=1).frames[0].astype(int)
    for pid, direction in zip(PIDS, (1, -1, 1), strict=True):
        found = [
            (i, boxes[pids == pid][0])
            for i, (boxes, pids) in enumerate(zip(clip.boxes, clip.pids, strict=True))
            if pid in pids
        ]
        middles = np.array([box[[0, 2]].mean() for _, box in found])
        assert (np.diff(middles) * direction > 0).all()
        assert np.ptp(middles) > 250
        for i, box in found:
            x1, y1, x2, y2 = box.clip(0).astype(int)
            changed = np.abs(clip.frames[i] - empty).max(axis=2) > 60
            inside = changed[y1:y2, x1:x2].mean()
            assert inside > 0.05 > 3 * changed.mean()


def test_a_hidden_person_has_no_box():
    """The nearest person always has one, and at times all five have."""
    clip = draw_clip(0, 8, (2, 4, 6, 8, 10))
    counts = np.array([len(pids) for pids in clip.pids])
    assert counts.max() == 5
    assert counts.min() < 5
    hidden = [i for i in range(8, 32) if counts[i] < 5]  # All are inside the frame then.
    assert hidden
    assert all(2 in clip.pids[i] for i in hidden)


def test_a_camera_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="camid is 99"):
        draw_clip(0, 99, PIDS)


@pytest.mark.parametrize(
    "change", [{"seed": -1}, {"pids": (2, 0)}, {"count": 0}], ids=["seed", "pid", "count"]
)
def test_numbers_out_of_range_are_an_error(change):
    with pytest.raises(ValueError, match=r"draw_clip needs seed >= 0, pids >= 1 and count >= 1"):
        draw_clip(**({"seed": 0, "camid": 8, "pids": PIDS, "count": 1} | change))
