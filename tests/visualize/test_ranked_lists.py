import dataclasses
import itertools
import re

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from reid_jax import visualize
from tests.visualize.drawing import check_layout, pixels, random_images, texts

pytestmark = pytest.mark.filterwarnings("error")

INFINITY = np.inf


def box(figure, axes):
    """Pixel rows and columns of axes: top, bottom, left, right."""
    canvas = pixels(figure)
    extent = axes.get_window_extent()
    return (
        canvas,
        round(canvas.shape[0] - extent.y1),
        round(canvas.shape[0] - extent.y0),
        round(extent.x0),
        round(extent.x1),
    )


NAMES = {"query_pids", "query_camids", "pids", "camids"}


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
    kind = visualize.Names if "names" in given else visualize.Identities
    captions = {
        field.name: given[field.name] for field in dataclasses.fields(kind) if field.name in given
    }
    drawn = {name: x for name, x in given.items() if name not in NAMES | captions.keys()}
    return given, visualize.ranked_list_figure(**drawn, captions=kind(**captions))


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


def test_digits_of_another_script_may_be_boxes(rng):
    _, figure = ranked_lists(rng, identity=lambda pid: chr(0xFF10 + pid))
    assert texts(figure)[0].startswith("id □")
    check_layout(figure)  # Without a warning.


def test_people_and_cameras_are_called_by_their_names(rng):
    people = {7: "gina", 8: "hugo of the very long name", 9: "0009"}
    _, figure = ranked_lists(
        rng,
        identity=lambda pid: people[pid],
        camera=lambda camid: {2: "lobby"}.get(camid, str(camid)),
    )
    first, second, distractor, *_, last = texts(figure)
    assert (first, second) == ("id gina\ncam 1", "id gina\ncam lobby · 0.500")
    assert distractor == "distractor\ncam 3 · 1.00"
    assert re.fullmatch(r"id hugo.*….*\ncam 6 · 4\.00", last)
    check_layout(figure)


def test_unknown_cameras_are_left_out(rng):
    _, figure = ranked_lists(rng, camera=lambda camid: "")
    query, first, distractor, *_ = texts(figure)
    assert (query, first, distractor) == ("id 7", "id 7\n0.500", "distractor\n1.00")


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
        ({"query_images": np.zeros((2, 8, 8, 3), np.uint8)}, "do not match gallery_images"),
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


def test_a_query_without_any_image_has_a_text_beside_it(rng):
    distances = np.array([[0.5, 1.0, 2.25], [INFINITY] * 3])
    _, plain = ranked_lists(rng, distances=distances)
    _, figure = ranked_lists(rng, distances=distances, empty="nobody")
    assert texts(figure) == [*texts(plain), "nobody"]
    canvas, top, bottom, left, right = box(figure, figure.axes[5])
    assert canvas[top:bottom, left:right].min() < 0.6
    canvas, top, bottom, left, right = box(plain, plain.axes[5])
    assert canvas[top:bottom, left:right].min() == 1
