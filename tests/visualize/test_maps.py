import re

import matplotlib as mpl
import numpy as np
import pytest

from reid_jax import visualize
from tests.visualize.drawing import check_layout, random_images, texts

pytestmark = pytest.mark.filterwarnings("error")


def test_overlay_of_zeros_is_the_grey_image(rng):
    image = random_images(rng, 1)[0]
    result = visualize.overlay(image, np.zeros((6, 2), np.float32))
    assert result.shape == image.shape
    assert result.dtype == np.uint8
    luma = image @ np.array([0.299, 0.587, 0.114])
    assert np.ptp(result, axis=-1).max() == 0
    np.testing.assert_allclose(result[..., 0], 255 * 0.25 + 0.75 * luma, atol=1.5)


def test_overlay_is_hot_where_the_map_is_and_ignores_its_scale():
    image = np.full((48, 16, 3), 128, np.uint8)
    cam = np.zeros((6, 2))
    cam[1, 0] = 1
    result = visualize.overlay(image, cam)
    red_over_blue = result[..., 0].astype(int) - result[..., 2]
    row, column = np.unravel_index(red_over_blue.argmax(), red_over_blue.shape)
    assert 8 <= row < 16
    assert column < 8
    np.testing.assert_array_equal(result[24:], visualize.overlay(image, 0 * cam)[24:])
    np.testing.assert_array_equal(visualize.overlay(image, 1e-20 * cam), result)
    np.testing.assert_array_equal(visualize.overlay(image, 1e20 * cam), result)


def test_overlay_is_bilinear():
    # A map from 0 to 1 over two rows: halfway between their centres its value is 0.5, at which the
    # colour map is read.
    cam = np.array([[0.0], [1.0]])
    result = visualize.overlay(np.zeros((4 * 8 + 2, 4, 3), np.uint8), cam)
    values = np.clip((np.arange(34) + 0.5) / 17 - 0.5, 0, 1)
    opacity = 0.75 * np.sqrt(values)[:, None]
    expected = (1 - opacity) * 0.25 + opacity * mpl.colormaps["turbo"](values)[:, :3]
    # Two steps of the 256-colour map are allowed for rounding.
    np.testing.assert_allclose(result[:, 0] / 255, expected, atol=0.02)


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0])
def test_overlay_refuses_what_is_no_activation(value):
    cam = np.ones((6, 2))
    cam[3, 1] = value
    with pytest.raises(ValueError, match="NaN, infinite or negative"):
        visualize.overlay(np.zeros((48, 16, 3), np.uint8), cam)


def test_each_map_is_scaled_by_its_minimum_and_maximum(rng):
    maps = rng.normal(size=(2, 3, 6, 2))
    maps[1, 2] = -5
    want = np.zeros_like(maps)
    for index in np.ndindex(2, 3):
        low, high = maps[index].min(), maps[index].max()
        if high > low:
            want[index] = (maps[index] - low) / (high - low)
    got = visualize.scaled(maps)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, want, atol=1e-6)
    assert set(got.max(axis=(2, 3)).ravel()) == {0, 1}
    for value in (np.nan, np.inf, -np.inf):
        maps[0, 1, 2, 0] = value
        with pytest.raises(ValueError, match="NaN or infinite"):
            visualize.scaled(maps)


@pytest.mark.parametrize("count", [1, 5])
def test_gradcam_figure_shows_every_image_and_stage(rng, count):
    images, cams = random_images(rng, count), rng.random((count, 3, 6, 2))
    cams[-1, 2] = 0
    figure = visualize.gradcam_figure(images, cams, titles=[f"person {n}" for n in range(count)])
    axes = figure.axes
    assert len(axes) == 4 * count
    assert [a.get_title() for a in axes[:4]] == ["Image", "Stage I", "Stage II", "Stage III"]
    for n in range(count):
        shown = [a.images[0].get_array() for a in axes[4 * n : 4 * n + 4]]
        np.testing.assert_array_equal(shown[0], images[n])
        for stage in range(3):
            expected = visualize.overlay(images[n], cams[n, stage])
            np.testing.assert_array_equal(shown[1 + stage], expected)
    assert texts(figure) == [f"person {n}" for n in range(count)]
    check_layout(figure)


def test_titles_are_fitted(rng):
    """Characters that the font lacks would give a warning, long titles would overlap."""
    titles = ["id 李小龙, cam 1", 50 * "W"]
    figure = visualize.gradcam_figure(
        random_images(rng, 2), rng.random((2, 2, 6, 2)), titles=titles
    )
    check_layout(figure)
    short, long = texts(figure)
    assert short == "id □□□, cam 1"
    assert re.fullmatch("W+…W+", long)


def test_gradcam_figure_of_other_levels(rng):
    figure = visualize.gradcam_figure(
        random_images(rng, 2), rng.random((2, 2, 3, 3)), names=("low", "high")
    )
    assert [a.get_title() for a in figure.axes[:3]] == ["Image", "low", "high"]


def test_gradcam_figure_bad_input(rng):
    images, cams = random_images(rng, 2), rng.random((2, 3, 6, 2))
    cases = [
        ((images / 255.0, cams), {}, "images must be uint8"),
        ((images[:0], cams[:0]), {}, "not empty"),
        ((images, cams[:1]), {}, r"cams must be \(2, stages, h, w\)"),
        ((images, cams[:, :0]), {}, r"cams must be \(2, stages, h, w\)"),
        ((images, cams[:, :, :0]), {}, r"cams must be \(2, stages, h, w\)"),
        ((images, cams), {"names": ("low",)}, "names must hold 3 texts, got 1"),
        ((images, cams), {"titles": ("one",)}, "titles must hold 2 texts, got 1"),
        ((images, cams * np.nan), {}, "NaN"),
    ]
    for args, kwargs, message in cases:
        with pytest.raises(ValueError, match=message):
            visualize.gradcam_figure(*args, **kwargs)


ROWS, COLUMNS = ("without BFP", "with BFP"), ("Low", "Middle", "High")


@pytest.mark.parametrize("titled", [False, True])
@pytest.mark.parametrize("count", [1, 2, 7])
def test_class_activation_figure_shows_every_image_row_and_column(rng, count, titled):
    images, maps = random_images(rng, count), rng.normal(size=(count, 2, 3, 6, 2))
    maps[-1, 1, 2] = 0
    low, spread = maps.min(axis=(3, 4)), np.ptp(maps, axis=(3, 4))
    colours = (maps - low[..., None, None]) / np.where(spread > 0, spread, 1)[..., None, None]
    titles = [f"person {n}" for n in range(count)] if titled else None
    figure = visualize.class_activation_figure(
        images, maps, rows=ROWS, columns=COLUMNS, titles=titles
    )
    check_layout(figure)
    axes = np.array(figure.axes).reshape(count, 2, 4)
    for n, row, p in np.ndindex(axes.shape):
        expected = images[n] if p == 0 else visualize.overlay(images[n], colours[n, row, p - 1])
        np.testing.assert_array_equal(axes[n, row, p].images[0].get_array(), expected)

    boxes = np.vectorize(lambda a: a.get_position(), otypes=[object])(axes)
    x0 = np.vectorize(lambda b: b.x0)(boxes)
    y0 = np.vectorize(lambda b: b.y0)(boxes)
    # The rows of an image are below each other, its columns from left to right.
    assert np.all(y0[:, 0] > y0[:, 1])
    assert np.all(np.diff(x0, axis=2) > 0)
    np.testing.assert_allclose(x0[:, 0], x0[:, 1])
    np.testing.assert_allclose(np.ptp(y0, axis=2), 0, atol=1e-12)
    # Three people side by side, with their rows at the same height.
    line = np.arange(count) // 3
    np.testing.assert_allclose(y0, y0[3 * line], atol=1e-12)
    assert len(np.unique(y0[:, 0, 0].round(6))) == line[-1] + 1

    # The first line has the names of columns; each line has its row's name on the left.
    for p, name in enumerate(("Image", *COLUMNS)):
        titles_at = [[a.get_title() for a in person] for person in axes[:, :, p]]
        assert titles_at == [[name if n < 3 else "", ""] for n in range(count)]
    labels = [text for text in figure.texts if text.get_text() in ROWS]
    assert [text.get_text() for text in labels] == [*ROWS] * (line[-1] + 1)
    for k, text in enumerate(labels):
        x, y = text.get_position()
        row = boxes[3 * (k // 2), k % 2, 0]
        assert x < row.x0
        assert y == pytest.approx((row.y0 + row.y1) / 2)
    captions = [text for text in figure.texts if text not in labels]
    assert [text.get_text() for text in captions] == (titles or [])
    for n, text in enumerate(captions):
        x, y = text.get_position()
        assert x == pytest.approx((boxes[n, 1, 0].x0 + boxes[n, 1, 3].x1) / 2)
        assert y < y0[n, 1, 0]


def test_gradcam_figure_is_the_case_of_one_row(rng):
    images, cams = random_images(rng, 5), rng.random((5, 3, 6, 2))
    cams[..., 0, 0] = 0  # Then both scale a map only by its maximum.
    one = visualize.gradcam_figure(images, cams, names=COLUMNS)
    two = visualize.class_activation_figure(images, cams[:, None], rows=ROWS[:1], columns=COLUMNS)
    assert len(one.axes) == len(two.axes)
    for a, b in zip(one.axes, two.axes, strict=True):
        np.testing.assert_array_equal(a.images[0].get_array(), b.images[0].get_array())
    assert texts(one) == []
    assert texts(two) == ["without BFP"] * 2


def test_class_activation_figure_bad_input(rng):
    images, maps = random_images(rng, 2), rng.random((2, 2, 3, 6, 2))
    cases = [
        ((images / 255.0, maps), {}, "images must be uint8"),
        ((images, maps[:1]), {}, r"cams must be \(2, rows, columns, h, w\), got \(1, 2, 3, 6, 2\)"),
        ((images, maps[:, 0]), {}, r"cams must be \(2, rows, columns, h, w\)"),
        ((images, maps[:, :0]), {"rows": ()}, r"cams must be \(2, rows, columns, h, w\)"),
        ((images, maps[..., :0]), {}, r"cams must be \(2, rows, columns, h, w\)"),
        ((images, maps), {"rows": ("one",)}, "rows must hold 2 texts, got 1"),
        ((images, maps), {"columns": ROWS}, "columns must hold 3 texts, got 2"),
        ((images, maps), {"titles": ("one",)}, "titles must hold 2 texts, got 1"),
        ((images, maps * np.nan), {}, "NaN"),
        ((images, maps * np.inf), {}, "infinite"),
    ]
    for args, kwargs, message in cases:
        with pytest.raises(ValueError, match=message):
            visualize.class_activation_figure(*args, **{"rows": ROWS, "columns": COLUMNS} | kwargs)
