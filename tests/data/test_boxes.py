"""Crops of a frame by boxes."""

import ml_dtypes
import numpy as np
import pytest

from reid_jax.data.boxes import cut

FRAME = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)  # 6 high, 8 wide


@pytest.mark.parametrize(
    ("box", "rows", "columns"),
    [
        ((1, 2, 4, 5), slice(2, 5), slice(1, 4)),
        ((0.5, 1.49, 3.5, 4.51), slice(1, 5), slice(1, 4)),  # Halves up.
        ((1.5, 2.5, 2.5, 3.5), slice(3, 4), slice(2, 3)),  # Also at odd numbers.
        ((-3, -0.6, 100, 2.4), slice(0, 2), slice(0, 8)),
        ((-np.inf, 4, np.inf, 1e300), slice(4, 6), slice(0, 8)),
    ],
)
def test_boxes_are_clipped_and_rounded(box, rows, columns):
    (crop,), kept = cut(FRAME, [box])
    np.testing.assert_array_equal(crop, FRAME[rows, columns])
    assert kept.tolist() == [True]
    (crop,), _ = cut(FRAME, [box], bgr=True)
    np.testing.assert_array_equal(crop, FRAME[rows, columns][:, :, ::-1])


@pytest.mark.parametrize(
    "box",
    [
        (3, 2, 3, 5),
        (5, 2, 4, 5),
        (8, 0, 12, 6),
        (-9, 0, -1, 6),
        (0, 6, 8, 9),
        (1.6, 0, 2.4, 6),
        (np.nan, 0, 8, 6),
        (0, 0, 8, np.nan),
        (np.nan,) * 4,
    ],
)
def test_boxes_without_pixels_are_left_out(box):
    crops, kept = cut(FRAME, np.array([box, (0, 0, 8, 6), box], np.float32))
    assert kept.tolist() == [False, True, False]
    np.testing.assert_array_equal(crops[0], FRAME)
    assert len(crops) == 1


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float16, ml_dtypes.bfloat16])
def test_boxes_of_any_numbers(dtype):
    (crop,), kept = cut(FRAME, np.array([(1, 2, 4, 5)], dtype))
    np.testing.assert_array_equal(crop, FRAME[2:5, 1:4])
    assert kept.tolist() == [True]


@pytest.mark.parametrize("boxes", [[], np.empty((0, 4)), np.empty((0, 4), np.int32)])
def test_no_boxes(boxes):
    crops, kept = cut(FRAME, boxes)
    assert (crops, kept.shape, kept.dtype) == ([], (0,), bool)


@pytest.mark.parametrize(
    ("frame", "boxes", "message"),
    [
        (FRAME / 255, [], r"frame is float64 \(6, 8, 3\); it must be uint8 \(H, W, 3\)"),
        (FRAME[0], [], r"frame is uint8 \(8, 3\)"),
        (FRAME[None], [], r"frame is uint8 \(1, 6, 8, 3\)"),
        (FRAME[:0], [], r"frame is uint8 \(0, 8, 3\)"),
        (None, [], r"frame is object \(\)"),  # What OpenCV returns after the last frame.
        (FRAME, (1, 2, 3, 4), r"boxes are int64 \(4,\); they must be numbers \(N, 4\)"),
        (FRAME, np.zeros((2, 5)), r"boxes are float64 \(2, 5\)"),
        (FRAME, np.zeros((0, 5)), r"boxes are float64 \(0, 5\)"),
        (FRAME, [["1", "2", "3", "4"]], r"boxes are <U1 \(1, 4\)"),
        (FRAME, [[1, 2, 3, 4], [1, 2]], r"boxes are not an array \(N, 4\)"),
    ],
)
def test_other_shapes_and_dtypes_are_named(frame, boxes, message):
    with pytest.raises(ValueError, match=message):
        cut(frame, boxes)
