import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg


def random_images(rng, *shape):
    return rng.integers(0, 256, (*shape, 48, 16, 3), dtype=np.uint8)


def pixels(figure):
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3] / 255


def check_layout(figure):
    """No part is outside, no panel or text overlaps another, and panels have the images' shape."""
    width, height = figure.get_size_inches()
    assert width <= 9 + 1e-9
    panels = [axes.get_position() for axes in figure.axes]
    for panel in panels:
        assert (panel.height * height) / (panel.width * width) == pytest.approx(48 / 16)
    pixels(figure)  # Texts have extents only after drawing.
    written = [*figure.texts, *(axes.title for axes in figure.axes if axes.get_title())]
    to_figure = figure.transFigure.inverted()
    boxes = panels + [text.get_window_extent().transformed(to_figure) for text in written]
    for i, a in enumerate(boxes):
        assert a.x0 >= 0
        assert a.y0 >= 0
        assert a.x1 <= 1
        assert a.y1 <= 1
        assert not any(a.overlaps(b) for b in boxes[:i])


def texts(figure):
    return [t.get_text() for t in figure.texts]


def training_records():
    records = [{"step": 0, "kind": "eval", "epoch": 0, "mAP": 0.1, "Rank-1": 0.2, "mINP": 0.05}]
    for step in (30, 10, 20):
        losses = {f"loss/{k}_{s}": s / step for k in ("id", "triplet") for s in (1, 2)}
        records.append({"step": step, "kind": "train", "loss": 60 / step, "lr": 1e-4, **losses})
    records.append({"step": 30, "kind": "eval", "mAP": 0.5, "Rank-1": 0.75, "mINP": 0.25})
    return records
