"""Crops of a frame by boxes, such as those of a detector or a tracker."""

from typing import Any

import ml_dtypes
import numpy as np


def cut(frame: Any, boxes: Any, *, bgr: bool = False) -> tuple[list[np.ndarray], np.ndarray]:
    """Cut boxes out of a frame.

    Coordinates are clipped to the frame and rounded to the nearest edge between pixels, halves up:
    (x1, y1, x2, y2) is `frame[y1:y2, x1:x2]` after rounding.

    Args:
        frame: uint8 (H, W, 3), RGB.
        boxes: numbers (N, 4), pixels: x1, y1, x2, y2.
        bgr: whether the frame is BGR, as of OpenCV.

    Returns:
        M views of the frame, uint8 (h, w, 3), RGB; and bool (N,): the M boxes that have pixels. The
        others are empty after clipping and rounding, or have a coordinate that is NaN.

    Raises:
        ValueError: `frame` or `boxes` have another shape or dtype.
    """
    frame, boxes = np.asarray(frame), _array(boxes)
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or 0 in frame.shape:
        raise ValueError(
            f"frame is {frame.dtype} {frame.shape}; it must be uint8 (H, W, 3), with pixels"
        )
    height, width, _ = frame.shape
    boxes = np.where(np.isnan(boxes).any(axis=1, keepdims=True), 0, boxes)  # Empty.
    edges = np.floor(np.clip(boxes, 0, [width, height, width, height]) + 0.5).astype(np.int64)
    kept = (edges[:, :2] < edges[:, 2:]).all(axis=1)
    crops = [frame[y1:y2, x1:x2] for x1, y1, x2, y2 in edges[kept].tolist()]
    return [crop[:, :, ::-1] for crop in crops] if bgr else crops, kept


def _array(boxes: Any) -> np.ndarray:
    """Boxes as float64 (N, 4)."""
    try:
        array = np.asarray(boxes)
    except ValueError as error:  # Rows of several lengths.
        raise ValueError(f"boxes are not an array (N, 4) of x1, y1, x2, y2: {error}") from None
    if array.dtype == ml_dtypes.bfloat16:  # No number to NumPy.
        array = array.astype(np.float32)
    if array.shape == (0,):
        array = array.reshape(0, 4)
    if array.ndim != 2 or array.shape[1] != 4 or array.dtype.kind not in "iuf":
        raise ValueError(
            f"boxes are {array.dtype} {array.shape}; they must be numbers (N, 4): x1, y1, x2, y2"
        )
    return array.astype(np.float64)
