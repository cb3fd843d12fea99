import numpy as np
import pytest

from reid_jax import visualize
from tests.visualize.drawing import pixels, training_records

pytestmark = pytest.mark.filterwarnings("error")


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
    # Colours are for stages, line styles for kinds of losses.
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


def test_curves_are_those_of_the_first_dataset():
    records = [
        {"step": 1, "kind": "eval/cuhk03", "mAP": 0.9},
        {"step": 1, "kind": "eval", "mAP": 0.1},
        {"step": 1, "kind": "eval/people", "mAP": 0.8},
    ]
    (axes,) = visualize.curves_figure(records).axes
    (line,) = axes.lines
    assert line.get_ydata().tolist() == [0.1]


def test_the_learning_rate_falls_in_steps():
    """A staircase schedule is not drawn as a slope between two logged steps."""
    records = [{"step": step, "lr": lr} for step, lr in ((10, 1.0), (20, 1.0), (30, 0.1))]
    (axes,) = visualize.curves_figure(records).axes
    (line,) = axes.lines
    assert line.get_drawstyle() == "steps-pre"
    np.testing.assert_array_equal(line.get_xydata(), [[10, 1], [20, 1], [30, 0.1]])


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
    # A single point is visible.
    assert all(line.get_marker() == "o" for axes in figure.axes for line in axes.lines)
    pixels(figure)


@pytest.mark.parametrize("name", ["loss/$\\frac{$", "loss/\x1b[31m", "loss/a\nb", "loss/\ud800"])
def test_names_of_losses_are_no_formulas(name):
    """In a workdir from others, a name may be any text."""
    named = {"step": 1, "loss": 2.0, "loss/id_1": 2.0}
    plain = visualize.curves_figure([named])
    np.testing.assert_array_equal(
        pixels(visualize.curves_figure([named | {name: 5.0}])), pixels(plain)
    )


@pytest.mark.parametrize("records", [[], [{"step": 3, "epoch": 1.0}], [{"loss": 2.0}]])
def test_curves_figure_of_nothing(records):
    with pytest.raises(ValueError, match="nothing to draw"):
        visualize.curves_figure(records)


def runs(rng, count, last=0.4):
    """Curves by name, with a different share in the last epoch."""
    epochs = np.arange(0, 17, 2.0)
    shares = last * rng.permutation(np.linspace(1, 0.5, count))
    return {
        f"Run {name}": (epochs, share * np.minimum(epochs / 8, 1))
        for name, share in zip("ABCDEFGHIJKLMN"[:count], shares, strict=True)
    }


@pytest.mark.parametrize("counts", [(1,), (3, 1), (2, 14, 1, 4, 1)])
def test_comparisons_are_drawn_by_group_best_first(rng, counts):
    panels = {f"Group {i}": runs(rng, count) for i, count in enumerate(counts)}
    figure = visualize.comparison_figure(panels | {"empty": {}}, "mAP")
    pixels(figure)
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert len(shown) == len(counts)
    for axes, (title, curves) in zip(shown, panels.items(), strict=True):
        assert axes.get_title(loc="left") == f"{title}, mAP"
        lasts = [line.get_ydata()[-1] for line in axes.lines]
        assert lasts == sorted(lasts, reverse=True)
        labels = [text.get_text() for text in axes.get_legend().get_texts()]
        for line, label, last in zip(axes.lines, labels, lasts, strict=True):
            share, name = label.split("  ")
            np.testing.assert_array_equal(line.get_xydata(), np.transpose(curves[name]))
            assert share == f"{last:.1%}"
        styles = {(line.get_color(), line.get_linestyle()) for line in axes.lines}
        assert len(styles) == len(curves)
    assert len({axes.get_ylim() for axes in shown}) == 1


@pytest.mark.parametrize("counts", [(1,), (1, 1, 14, 2)])
@pytest.mark.parametrize("last", [0.0, 0.4, 1.0])
def test_legends_of_comparisons_hide_no_curve(rng, counts, last):
    """They end above the highest curve, and inside the figure."""
    panels = {f"Group {i}": runs(rng, count, last) for i, count in enumerate(counts)}
    figure = visualize.comparison_figure(panels, "mAP")
    pixels(figure)
    height = figure.bbox.height
    for axes in figure.axes:
        if axes.get_visible():
            legend = axes.get_legend().get_window_extent()
            highest = axes.transData.transform((0, last))[1]
            assert legend.y0 > highest
            assert legend.y1 < height
            assert axes.get_window_extent().y0 > 0


def test_a_lone_evaluation_is_visible_and_nothing_is_an_error():
    figure = visualize.comparison_figure({"A": {"B": ([3.0], [0.25])}}, "Rank-1")
    (line,) = figure.axes[0].lines
    assert line.get_marker() == "o"
    assert figure.axes[0].get_title(loc="left") == "A, Rank-1"
    for panels in ({}, {"A": {}}):
        with pytest.raises(ValueError, match="no curve to draw"):
            visualize.comparison_figure(panels, "mAP")


def test_cmc_curve():
    cmc = np.linspace(0.3, 0.9, 50)
    figure = visualize.cmc_figure(cmc)
    (axes,) = figure.axes
    curve, points = axes.get_lines()
    np.testing.assert_allclose(curve.get_data(), [np.arange(1, 51), cmc])
    np.testing.assert_allclose(points.get_data(), [[1, 5, 10], cmc[[0, 4, 9]]])
    pixels(figure)
    pixels(visualize.cmc_figure([1.0]))


def test_curves_at_100_percent_are_drawn_whole():
    """A line and its points have as many pixels there as elsewhere: the axes do not clip them."""
    found = [{"step": step, "mAP": 1.0} for step in (0, 10)]
    figures = {
        level: (visualize.cmc_figure([level] * 50), visualize.roc_figure([0.0], [level], 0.5))
        for level in (0.5, 1.0)
    }
    for middle, top in zip(figures[0.5], figures[1.0], strict=True):
        (axes,), (above,) = middle.axes, top.axes
        assert [tick for tick in above.get_yticks()] == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
        assert axes.get_ylim() == above.get_ylim()
        blue = [
            np.sum((image[..., 2] > 0.6) & (image[..., 0] < 0.25))
            for image in map(pixels, (middle, top))
        ]
        assert blue[0] > 500
        assert blue[1] == pytest.approx(blue[0], rel=0.02)
    (axes,) = visualize.curves_figure(found).axes
    assert axes.get_ylim()[1] > 1


def test_each_group_alone_is_a_figure():
    figures = visualize.curve_figures(training_records())
    assert list(figures) == ["Loss", "Learning rate", "Retrieval"]
    together = visualize.curves_figure(training_records())
    for figure, axes in zip(figures.values(), together.axes, strict=True):
        (own,) = figure.axes
        for line, other in zip(own.lines, axes.lines, strict=True):
            np.testing.assert_array_equal(line.get_xydata(), other.get_xydata())
    assert visualize.curve_figures([{"step": 3, "epoch": 1.0}]) == {}


@pytest.mark.parametrize("cmc", [[], [[0.5]], [1.1], [-0.1], [np.nan]])
def test_a_cmc_curve_that_is_none(cmc):
    with pytest.raises(ValueError, match="cmc must hold shares"):
        visualize.cmc_figure(np.array(cmc))


def test_comparison_figure_has_a_panel_for_each_group_and_lists_the_best_first():
    steps = np.arange(3.0)
    panels = {
        "PMM": {"low": (steps, [0.0, 0.1, 0.2]), "high": (steps, [0.0, 0.2, 0.5])},
        "none": {},
        "BDB": {"only": (steps, [0.0, 0.3, 0.4])},
    }
    figure = visualize.comparison_figure(panels, "mAP")
    first, second = figure.axes
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["PMM, mAP", "BDB, mAP"]
    assert [line.get_label() for line in first.lines] == ["50.0%  high", "20.0%  low"]
    np.testing.assert_array_equal(first.lines[0].get_xydata(), [[0, 0], [1, 0.2], [2, 0.5]])
    assert first.lines[0].get_color() != first.lines[1].get_color()
    assert first.get_ylim() == second.get_ylim()
    pixels(figure)


def test_comparison_figure_of_runs_that_found_nothing_and_of_none():
    figure = visualize.comparison_figure({"a": {"b": ([0, 1], [0.0, 0.0])}}, "mAP")
    assert figure.axes[0].get_ylim()[1] > 0
    with pytest.raises(ValueError, match="no curve"):
        visualize.comparison_figure({"a": {}}, "mAP")


def test_roc_curve():
    fpr, tpr = np.array([0.0, 5e-4, 1e-2, 0.5]), np.array([0.25, 0.5, 0.75, 1.0])
    figure = visualize.roc_figure(fpr, tpr, 0.875)
    (axes,) = figure.axes
    curve, points = axes.get_lines()
    rates, reached = curve.get_data()
    assert (rates[0], rates[-1], axes.get_xscale()) == (1e-4, 1, "log")
    for rate, expected in ((1e-4, 0.25), (4e-4, 0.25), (6e-4, 0.5), (0.2, 0.75), (0.6, 1)):
        assert reached[np.searchsorted(rates, rate)] == expected
    np.testing.assert_allclose(
        points.get_data(), [[1e-4, 1e-3, 1e-2, 1e-1], [0.25, 0.5, 0.75, 0.75]]
    )
    assert axes.get_title(loc="left") == "True positive rate, AUC 87.5%"
    pixels(figure)
    # Before the first rate, no pair is accepted.
    (axes,) = visualize.roc_figure([0.5], [1.0], 0.5).axes
    assert axes.get_lines()[1].get_ydata().tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(("fpr", "tpr"), [([], []), ([0.1], [0.1, 0.2]), ([0.2, 0.1], [0.1, 0.2])])
def test_a_roc_curve_that_is_none(fpr, tpr):
    with pytest.raises(ValueError, match="must be ascending rates"):
        visualize.roc_figure(fpr, tpr, 0.5)


def test_distances_of_pairs():
    """Bins without pairs at both ends are left out, and bins are merged to at most 60."""
    edges = np.arange(1001) / 100
    positive, negative = np.zeros(1000, int), np.zeros(1000, int)
    positive[200:300], negative[250:401] = 2, 1
    figure = visualize.distances_figure(edges, positive, negative, ("limit", 2.5))
    (axes,) = figure.axes
    (line,) = axes.get_lines()
    assert list(line.get_xdata()) == [2.5, 2.5]
    for patch, low, high in ((axes.patches[0], 2.0, 3.0), (axes.patches[2], 2.5, 4.01)):
        shares, bounds, _ = patch.get_data()
        assert len(shares) == 51
        assert shares.sum() == pytest.approx(1)
        assert (bounds[0], bounds[-1]) == pytest.approx((2, 4.04))
        used = np.flatnonzero(shares)
        assert low - 0.04 < bounds[used[0]] <= low < high <= bounds[used[-1] + 1] < high + 0.04
    assert [t.get_text() for t in axes.get_legend().get_texts()] == [
        "one person", "different people", "limit",
    ]  # fmt: skip
    assert axes.get_ylim()[1] > 1.2 * max(patch.get_data()[0].max() for patch in axes.patches)
    pixels(figure)
    # All in the last bin, which cannot be merged with others.
    lone = np.arange(1000) == 999
    (axes,) = visualize.distances_figure(edges, lone, lone).axes
    assert not axes.get_lines()


@pytest.mark.parametrize(("positive", "negative"), [([1], [0]), ([0], [1]), ([1, 1], [1, 1])])
def test_distances_that_cannot_be_drawn(positive, negative):
    with pytest.raises(ValueError, match="pairs of both kinds in the 1 bins"):
        visualize.distances_figure([0.0, 1.0], np.array(positive), np.array(negative))
