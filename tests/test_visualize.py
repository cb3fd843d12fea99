import itertools
import re
import subprocess
import sys
import xml.etree.ElementTree

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from PIL import Image

from reid_jax import visualize

pytestmark = pytest.mark.filterwarnings("error")

INFINITY = np.inf


@pytest.fixture(autouse=True)
def same_settings():
    """No drawing changes matplotlib's global settings."""
    before = dict(mpl.rcParams)
    yield
    assert dict(mpl.rcParams) == before


def random_images(rng, *shape):
    return rng.integers(0, 256, (*shape, 48, 16, 3), dtype=np.uint8)


def pixels(figure):
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3] / 255


def box(figure, axes):
    """Pixel rows and columns of an axes: top, bottom, left, right."""
    canvas = pixels(figure)
    extent = axes.get_window_extent()
    return (
        canvas,
        round(canvas.shape[0] - extent.y1),
        round(canvas.shape[0] - extent.y0),
        round(extent.x0),
        round(extent.x1),
    )


def check_layout(figure):
    """All is inside, no panel or text overlaps another, and panels have the images' shape."""
    width, height = figure.get_size_inches()
    assert width <= 9 + 1e-9
    panels = [axes.get_position() for axes in figure.axes]
    for panel in panels:
        assert (panel.height * height) / (panel.width * width) == pytest.approx(48 / 16)
    pixels(figure)  # Texts have extents once they are drawn.
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


# Overlay ------------------------------------------------------------------------------------------


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
    # A map from 0 to 1 over two rows: halfway between their centres it is half as active. There the
    # colour map is read at 0.5.
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


# Grad-CAM figure ----------------------------------------------------------------------------------


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


# Class activation figure --------------------------------------------------------------------------

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
    # An image's rows are one below the other, its columns from left to right.
    assert np.all(y0[:, 0] > y0[:, 1])
    assert np.all(np.diff(x0, axis=2) > 0)
    np.testing.assert_allclose(x0[:, 0], x0[:, 1])
    np.testing.assert_allclose(np.ptp(y0, axis=2), 0, atol=1e-12)
    # Three people in a line, and their rows are level.
    line = np.arange(count) // 3
    np.testing.assert_allclose(y0, y0[3 * line], atol=1e-12)
    assert len(np.unique(y0[:, 0, 0].round(6))) == line[-1] + 1

    # The first line has the names of columns, each line those of its rows, on their left.
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
    cams[..., 0, 0] = 0  # Both then scale a map by its maximum alone.
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


# Ranked lists -------------------------------------------------------------------------------------


def ranked_lists(rng, **changes):
    given = {
        "query_images": random_images(rng, 2),
        "gallery_images": random_images(rng, 2, 3),
        "correct": np.array([[True, False, True], [False, True, False]]),
        "query_pids": np.array([7, 8]),
        "query_camids": np.array([1, 2]),
        "pids": np.array([[7, 0, 7], [9, 8, -1]]),
        "camids": np.array([[2, 3, 4], [5, 6, 1]]),
        "distances": np.array([[0.5, 1.0, 2.25], [3.0, 4.0, INFINITY]]),
    } | changes
    return given, visualize.ranked_list_figure(**given)


def test_ranked_list_figure_marks_right_and_wrong_by_colour_and_symbol(rng):
    given, figure = ranked_lists(rng)
    assert len(figure.axes) == 2 * (1 + 3)
    for n in range(2):
        query, *found = figure.axes[4 * n : 4 * n + 4]
        assert query.get_title() == "Query"
        np.testing.assert_array_equal(query.images[0].get_array(), given["query_images"][n])
        for r, axes in enumerate(found):
            if np.isinf(given["distances"][n, r]):
                assert not axes.images
                assert axes.get_title() == ""
                canvas, top, bottom, left, right = box(figure, axes)
                assert np.all(canvas[top:bottom, left:right] == 1)
                continue
            right_match = given["correct"][n, r]
            assert axes.get_title() == f"{r + 1} {'✓' if right_match else '✗'}"
            shown = axes.images[0].get_array()
            np.testing.assert_array_equal(shown, given["gallery_images"][n, r])
            canvas, top, bottom, left, right = box(figure, axes)
            color = to_rgb(visualize.RIGHT if right_match else visualize.WRONG)
            middle = (top + bottom) // 2, (left + right) // 2
            frame = [canvas[top, middle[1]], canvas[bottom, middle[1]], canvas[middle[0], left]]
            np.testing.assert_allclose(frame, [color] * 3, atol=0.02)
    assert to_rgb(visualize.RIGHT)[1] > 0.5 > to_rgb(visualize.RIGHT)[0]
    assert to_rgb(visualize.WRONG)[0] > 0.5 > to_rgb(visualize.WRONG)[1]
    assert texts(figure) == [
        "id 7\ncam 1",
        "id 7\ncam 2 · 0.500",
        "distractor\ncam 3 · 1.00",
        "id 7\ncam 4 · 2.25",
        "id 8\ncam 2",
        "id 9\ncam 5 · 3.00",
        "id 8\ncam 6 · 4.00",
    ]


def test_ranked_list_figure_of_unknown_people_is_grey_and_has_names(rng):
    names = [
        ["short.png", "a name that is much too long_0001.png", "$x_{1}^2$.png"],
        ["line\nend\x1b.png", "\udcff人é\u202e.png", "never shown.png"],
    ]
    _, figure = ranked_lists(
        rng,
        known=np.array([[True, False, False], [True, False, False]]),
        query_names=["q.png", "another query of a long name.png"],
        names=names,
        **dict.fromkeys(("query_pids", "query_camids", "pids", "camids")),
    )
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["Query", "1 ✓", "2", "3", "Query", "1 ✗", "2", ""]
    for panel, color in ((1, visualize.RIGHT), (2, "#6B6B6B"), (5, visualize.WRONG)):
        canvas, top, bottom, left, _ = box(figure, figure.axes[panel])
        np.testing.assert_allclose(canvas[(top + bottom) // 2, left], to_rgb(color), atol=0.02)
    query, short, long, formula, another, odd, letters = texts(figure)
    assert (query, short) == ("q.png", "short.png\n0.500")
    assert re.fullmatch(r"a name.*….*1\.png\n1\.00", long)
    assert formula == "$x_{1}^2$.png\n2.25"
    assert not any(text.get_parse_math() for text in figure.texts)
    assert re.fullmatch(r"another.*….*me\.png", another)
    assert odd == "line□end□.png\n3.00"
    assert letters == "□□é□.png\n4.00"
    check_layout(figure)


def test_ranked_list_figure_is_no_wider_than_a_readme(rng):
    k = 20
    shape = {"correct": np.ones((1, k), bool), "distances": np.ones((1, k))}
    _, figure = ranked_lists(
        rng,
        query_images=random_images(rng, 1),
        gallery_images=random_images(rng, 1, k),
        query_pids=np.array([1]),
        query_camids=np.array([1]),
        pids=np.ones((1, k), int),
        camids=np.ones((1, k), int),
        **shape,
    )
    assert figure.get_size_inches()[0] <= 9 + 1e-9
    positions = [axes.get_position() for axes in figure.axes]
    assert max(p.x1 for p in positions) < 1
    assert all(a.x1 < b.x0 for a, b in itertools.pairwise(positions))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"correct": np.ones((2, 2), bool)}, r"correct must be of shape \(2, 3\)"),
        ({"query_pids": np.ones(3, int)}, r"query_pids must be of shape \(2,\)"),
        ({"query_images": np.zeros((2, 8, 8, 3), np.uint8)}, "do not go with gallery_images"),
        ({"gallery_images": np.zeros((2, 3, 8, 8, 3))}, r"gallery_images must be uint8 \(N, k,"),
        ({"distances": np.full((2, 3), np.nan)}, "distances hold NaN"),
        ({"known": np.ones((2, 2), bool)}, r"known must be of shape \(2, 3\)"),
        ({"names": ["abc", "ab"], "query_names": "ab"}, "names must hold 3 texts, got 2"),
        ({"names": ["abc", "abc"], "query_names": "a"}, "query_names must hold 2 texts, got 1"),
        ({"pids": None}, r"pids must be of shape \(2, 3\)"),
    ],
)
def test_ranked_list_figure_bad_input(rng, changes, message):
    with pytest.raises(ValueError, match=message):
        ranked_lists(rng, **changes)


# Curves -------------------------------------------------------------------------------------------


def training_records():
    records = [{"step": 0, "kind": "eval", "epoch": 0, "mAP": 0.1, "Rank-1": 0.2, "mINP": 0.05}]
    for step in (30, 10, 20):
        losses = {f"loss/{k}_{s}": s / step for k in ("id", "triplet") for s in (1, 2)}
        records.append({"step": step, "kind": "train", "loss": 60 / step, "lr": 1e-4, **losses})
    records.append({"step": 30, "kind": "eval", "mAP": 0.5, "Rank-1": 0.75, "mINP": 0.25})
    return records


def test_curves_figure_draws_what_was_logged():
    figure = visualize.curves_figure(training_records())
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "Loss",
        "Learning rate",
        "Retrieval",
    ]
    loss, rate, scores = figure.axes
    lines = {line.get_label(): line for line in loss.lines}
    assert list(lines) == ["total", "id 1", "id 2", "triplet 1", "triplet 2"]
    np.testing.assert_array_equal(lines["total"].get_xydata(), [[10, 6], [20, 3], [30, 2]])
    np.testing.assert_allclose(lines["id 2"].get_ydata(), [2 / 10, 2 / 20, 2 / 30])
    # A stage has a colour, a kind of loss has a style.
    assert lines["id 2"].get_color() == lines["triplet 2"].get_color() != lines["id 1"].get_color()
    assert lines["id 1"].get_linestyle() == lines["id 2"].get_linestyle()
    assert lines["id 1"].get_linestyle() != lines["triplet 1"].get_linestyle()
    np.testing.assert_array_equal(rate.lines[0].get_ydata(), [1e-4] * 3)
    assert [line.get_label() for line in scores.lines] == [
        "Rank-1  75.0%",
        "mAP  50.0%",
        "mINP  25.0%",
    ]
    np.testing.assert_array_equal(scores.lines[1].get_xydata(), [[0, 0.1], [30, 0.5]])
    assert len({axes.get_xlim() for axes in figure.axes}) == 1
    pixels(figure)
    labels = {tick.get_text() for tick in rate.get_yticklabels()}
    assert {"0", "1e-4", "6e-5"} <= labels


@pytest.mark.parametrize(
    ("records", "titles"),
    [
        ([{"step": 0, "mAP": 0.1, "Rank-1": 0.2, "queries": 3}], ["Retrieval"]),
        ([{"step": 1, "loss": float("nan"), "lr": 0.0}], ["Loss", "Learning rate"]),
        ([{"step": 5, "loss": 1.0, "kind": "train", "lr": None}, {"loss": 3.0}], ["Loss"]),
        ([{"step": 5, "loss/pair": 1.0, "loss/id_1": 2.0}], ["Loss"]),
    ],
)
def test_curves_figure_of_a_short_run(records, titles):
    figure = visualize.curves_figure(records)
    assert [axes.get_title(loc="left") for axes in figure.axes] == titles
    # A lone point is visible.
    assert all(line.get_marker() == "o" for axes in figure.axes for line in axes.lines)
    pixels(figure)


@pytest.mark.parametrize("name", ["loss/$\\frac{$", "loss/\x1b[31m", "loss/a\nb", "loss/\ud800"])
def test_names_of_losses_are_no_formulas(name):
    """In a workdir from others a name may be anything."""
    named = {"step": 1, "loss": 2.0, "loss/id_1": 2.0}
    plain = visualize.curves_figure([named])
    np.testing.assert_array_equal(
        pixels(visualize.curves_figure([named | {name: 5.0}])), pixels(plain)
    )


@pytest.mark.parametrize("records", [[], [{"step": 3, "epoch": 1.0}], [{"loss": 2.0}]])
def test_curves_figure_of_nothing(records):
    with pytest.raises(ValueError, match="nothing to draw"):
        visualize.curves_figure(records)


# Files --------------------------------------------------------------------------------------------


def test_save_writes_png_into_a_new_folder_and_replaces(rng, tmp_path):
    path = tmp_path / "new" / "folder" / "curves.png"
    for count in (1, 2):
        figure = visualize.gradcam_figure(random_images(rng, count), rng.random((count, 3, 6, 2)))
        visualize.save(figure, path)
        with Image.open(path) as image:
            assert image.format == "PNG"
            expected = figure.get_size_inches() * figure.dpi
            np.testing.assert_allclose(image.size, expected, atol=1)
        assert list(path.parent.iterdir()) == [path]
    before = path.read_bytes()
    visualize.save(figure, path)
    assert path.read_bytes() == before


def test_save_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "curves.png"
    path.write_bytes(b"old")
    figure = visualize.curves_figure(training_records())

    def savefig(part, **kwargs):
        with open(part, "wb") as file:
            file.write(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(figure, "savefig", savefig)
    with pytest.raises(OSError, match="no space left"):
        visualize.save(figure, path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_pyplot_is_never_imported(tmp_path):
    program = (
        "import sys; from reid_jax import visualize;"
        "visualize.save(visualize.curves_figure([{'step': 1, 'loss': 2.0}]), sys.argv[1]);"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "a.png")], check=True)


def test_cmc_curve():
    cmc = np.linspace(0.3, 0.9, 50)
    figure = visualize.cmc_figure(cmc)
    (axes,) = figure.axes
    curve, points = axes.get_lines()
    np.testing.assert_allclose(curve.get_data(), [np.arange(1, 51), cmc])
    np.testing.assert_allclose(points.get_data(), [[1, 5, 10], cmc[[0, 4, 9]]])
    assert axes.get_ylim() == (0, 1)
    pixels(figure)
    pixels(visualize.cmc_figure([1.0]))


@pytest.mark.parametrize("cmc", [[], [[0.5]], [1.1], [-0.1], [np.nan]])
def test_a_cmc_curve_that_is_none(cmc):
    with pytest.raises(ValueError, match="cmc must hold shares"):
        visualize.cmc_figure(np.array(cmc))


def test_svg_within_a_page_has_no_style_and_the_pages_colours():
    records = [{"step": step, "loss": 2.0 - step, "mAP": step / 2} for step in (0, 1)]
    svg = {
        name: visualize.inline_svg(figure, name)
        for name, figure in {
            "cmc": visualize.cmc_figure(np.array([0.5, 0.75])),
            "training": visualize.curves_figure(records),
        }.items()
    }
    ids = []
    for name, text in svg.items():
        root = xml.etree.ElementTree.fromstring(text)
        assert root.tag == "svg"
        assert list(root.attrib) == ["viewBox"]
        elements = list(root.iter())
        assert not any("style" in element.attrib or element.tag == "style" for element in elements)
        ids += [element.attrib["id"] for element in elements if "id" in element.attrib]
        used = {e.attrib["href"] for e in elements if "href" in e.attrib}
        used |= {f"#{place}" for place in re.findall(r"url\(#([^)]*)\)", text)}
        assert used
        assert used <= {f"#{own}" for own in ids if own.startswith(f"{name}-")}
        colors = {e.attrib[k] for e in elements for k in ("fill", "stroke") if k in e.attrib}
        assert {"var(--ink)", "var(--muted)", "var(--grid)", "var(--blue)"} <= colors
        assert "://" not in text
    assert len(ids) == len(set(ids))
    again = visualize.inline_svg(visualize.cmc_figure(np.array([0.5, 0.75])), "cmc")
    assert again == svg["cmc"]
