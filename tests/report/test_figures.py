"""Pictures of an evaluation, of each kind of network."""

import dataclasses
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reid_jax import models, visualize
from reid_jax.data import datasets, synthetic
from reid_jax.data.augment import normalize
from reid_jax.evaluation.descriptor_sets import Descriptors
from reid_jax.evaluation.descriptors import pmap_face
from reid_jax.evaluation.evaluator import Evaluation, Evaluator
from reid_jax.programs.evaluate import choose_queries, evaluate_run
from reid_jax.report import figures, present
from reid_jax.report.figures import write_figures
from reid_jax.runs.checkpoints import Checkpoints
from reid_jax.runs.workdir import CHECKPOINTS, write_run
from reid_jax.training.state import TrainState
from tests import reference
from tests.report_page import CALLED
from tests.report_page import Evaluation as Evaluated
from tests.test_configs import load

pytestmark = pytest.mark.usefixtures("standard_promotion")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A few synthetic pedestrians."""
    root = tmp_path_factory.mktemp("data") / "pedestrians"
    synthetic.write_market1501(
        root,
        synthetic.Contents(
            seed=0, train_identities=2, test_identities=3, train_cameras=2, test_cameras=3
        ),
        None,
    )
    return root


def recipe(name, root, devices=1):
    """The recipe of a tiny network, `configs/NAME.py:STRING`, on that dataset."""
    name, _, string = name.partition(":")
    config = load(name, string)
    if name.startswith("strong"):
        config.model.stripes = 2
    config.devices = devices
    config.data.layout = "market1501"
    config.data.root = str(root)
    config.data.loader = "memory"
    return config


def random_variables(rng, network, image_size):
    """Random variables, drawn directly, because `network.init` takes seconds to compile."""
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, *image_size, 3)))
    return reference.random_variables(dict(shapes), rng)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "pictures"),
    [
        ("hbfp_synthetic:small", ["gradcam.png", "activations.png", "ranked_lists.png"]),
        ("baseline_synthetic:triplet,small", ["ranked_lists.png"]),
    ],
)
def test_evaluation_says_what_it_drew(name, pictures, data, tmp_path, rng, capsys):
    config = recipe(name, data)
    network = models.create(config.model, num_classes=2)
    variables = random_variables(rng, network, config.data.image_size)
    workdir, output = tmp_path / "run", tmp_path / "out"
    workdir.mkdir()
    write_run(workdir, config, 2)
    with Checkpoints(workdir / CHECKPOINTS) as checkpoints:
        checkpoints.save(TrainState(jnp.int32(0), **variables, opt_state=(), seed=0), {"mAP": 0.0})
    run = evaluate_run(config, str(workdir), checkpoint="latest", output=str(output), figures=2)
    present(run, str(output))
    assert {path.name for path in output.iterdir()} == {*pictures, "results.json"}
    said = capsys.readouterr().out.splitlines()[-1]
    assert said == "drew " + ", ".join(str(output / picture) for picture in pictures)


class Drawn:
    """The result of `write_figures` for random variables and random descriptors.

    `figures` are by file name; `images` are the shown queries.
    """

    def __init__(self, config, folder, rng, count):
        devices = jax.devices()[: config.devices]
        self.network = models.create(config.model, num_classes=2)
        self.variables = random_variables(rng, self.network, config.data.image_size)
        dataset = datasets.load(config.data)
        evaluator = Evaluator(self.network, dataset, config, devices)
        query, gallery = (
            Descriptors(rng.random((len(x), 8), np.float32), x.pids, x.camids)
            for x in (dataset.query, dataset.gallery)
        )
        shown = choose_queries(count, dataset.query.paths)
        self.figures = {}
        save = visualize.save

        def record(figure, path):
            self.figures[path.name] = figure
            save(figure, path)

        with pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.setattr(visualize, "save", record)
            result = evaluator.rank(query, gallery)
            evaluation = Evaluation(evaluator, self.variables, query, gallery, result)
            self.paths = write_figures(folder, evaluation, shown=shown)
        self.images = evaluator.query_pixels(shown)
        self.captions = [f"id {query.pids[i]}, cam {query.camids[i]}" for i in shown]


@pytest.fixture(scope="module")
def hbfp(data, tmp_path_factory):
    """Three queries, a number that is not a multiple of the four devices."""
    with jax.numpy_dtype_promotion("standard"):
        config = recipe("hbfp_synthetic:small", data, devices=4)
        return Drawn(config, tmp_path_factory.mktemp("drawn"), np.random.default_rng(0), 3)


def test_pictures_call_people_by_their_names(tmp_path, monkeypatch):
    evaluation, asked = Evaluated(**CALLED), {}
    for name in ("gradcam_figure", "ranked_list_figure"):
        draw = getattr(visualize, name)

        def kept(*args, name=name, draw=draw, **options):
            asked[name] = options
            return draw(*args, **options)

        monkeypatch.setattr(visualize, name, kept)
    shown = np.array([int(np.argmax(evaluation.query.pids == pid)) for pid in (1, 2)])
    write_figures(tmp_path, evaluation, shown=shown)
    cameras = [{1: "lobby", 2: r"yard\n"}.get(c, str(c)) for c in evaluation.query.camids[shown]]
    people = [f"id {who}, cam {c}" for who, c in zip(("gina", "<b>hugo"), cameras, strict=True)]
    assert asked["gradcam_figure"]["titles"] == people
    captions = asked["ranked_list_figure"]["captions"]
    assert captions.query(0, 2.0).startswith("id gina\n")
    evaluation.dataset = dataclasses.replace(evaluation.dataset, has_cameras=False)
    write_figures(tmp_path, evaluation, shown=shown)
    assert asked["gradcam_figure"]["titles"] == ["id gina", "id <b>hugo"]
    assert asked["ranked_list_figure"]["captions"].query(0, 2.0) == "id gina"


def panels(figure, *shape):
    """The content of the axes, an object array of the given shape."""
    shown = np.empty(len(figure.axes), object)
    shown[:] = [np.asarray(axes.images[0].get_array()) for axes in figure.axes]
    return shown.reshape(shape)


def assert_same_picture(shown, expected):
    """Equal, except for float32 differences of another number of devices in 256 colours."""
    assert np.mean(np.abs(shown.astype(int) - expected)) < 0.5


def test_class_activations_are_over_their_images_in_their_rows_and_columns(hbfp):
    """The first row uses only the trunk's map, without BFP."""

    @jax.jit
    def run(variables, images):
        images = normalize(images)
        trunk_variables = {name: tree["trunk"] for name, tree in variables.items()}
        trunk = hbfp.network.trunk.apply(trunk_variables, images, train=False)
        _, informed = hbfp.network.apply(variables, images, train=False, method="perceived")
        logits = hbfp.network.apply(variables, images, method=logits_in_inference)
        return (
            (trunk.res4_1, trunk.res4, trunk.res5),
            (informed["low"], informed["middle"], informed["high"]),
        ), [output.argmax(axis=-1) for output in logits]

    def logits_in_inference(network, images):
        maps = network.maps(images, train=False)
        heads = zip(network.heads, maps, strict=True)
        return [head(features, train=False).logits for head, features in heads]

    rows, predicted = run(hbfp.variables, hbfp.images)
    figure = hbfp.figures["activations.png"]
    shown = panels(figure, 3, 2, 4)
    for n, row in np.ndindex(3, 2):
        np.testing.assert_array_equal(shown[n, row, 0], hbfp.images[n])
        for level, features in enumerate(rows[row]):
            kernel = hbfp.variables["params"][f"heads_{level}"]["classifier"]["kernel"]
            cam = np.float64(features[n]) @ np.float64(kernel[:, predicted[level][n]])
            cam = (cam - cam.min()) / np.ptp(cam)
            expected = visualize.overlay(hbfp.images[n], cam)
            assert_same_picture(shown[n, row, 1 + level], expected)
    assert [axes.get_title() for axes in figure.axes[:4]] == ["Image", "Low", "Middle", "High"]
    heights = {text.get_text(): text.get_position()[1] for text in figure.texts}
    assert list(heights) == ["without BFP", "with BFP", *hbfp.captions]
    assert heights["without BFP"] > heights["with BFP"]


def test_gradcams_are_over_their_images(hbfp):
    cams = np.asarray(
        pmap_face(hbfp.network, jax.devices()[:1], "gradcams")(hbfp.variables, hbfp.images)
    )
    figure = hbfp.figures["gradcam.png"]
    shown = panels(figure, 3, 4)
    for n in range(3):
        np.testing.assert_array_equal(shown[n, 0], hbfp.images[n])
        for level in range(3):
            expected = visualize.overlay(hbfp.images[n], cams[n, level])
            assert_same_picture(shown[n, 1 + level], expected)
    assert [text.get_text() for text in figure.texts] == hbfp.captions


@pytest.mark.parametrize(
    ("name", "pictures", "names"),
    [
        ("pmm_synthetic:small", ["gradcam.png"], ["Stage I", "Stage II", "Stage III"]),
        (
            "hbfp_synthetic:middle+high,small",
            ["gradcam.png", "activations.png"],
            ["Middle", "High"],
        ),
        ("baseline_synthetic:small", ["gradcam.png"], ["res5"]),
        ("baseline_synthetic:triplet,small", [], None),
        ("strong_synthetic:small", ["gradcam.png"], ["res5", "Stripe 1", "Stripe 2"]),
    ],
)
def test_a_network_gets_the_pictures_it_allows(name, pictures, names, data, tmp_path, rng):
    drawn = Drawn(recipe(name, data), tmp_path / "new", rng, 1)
    assert drawn.paths == [tmp_path / "new" / file for file in (*pictures, "ranked_lists.png")]
    assert {*(tmp_path / "new").iterdir()} == {*drawn.paths}
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in drawn.paths)
    for file in pictures:
        titles = [axes.get_title() for axes in drawn.figures[file].axes]
        assert titles[: 1 + len(names)] == ["Image", *names]


def test_maps_are_computed_in_batches_of_eval_batch_size(data, tmp_path, rng, monkeypatch):
    sizes = []

    def face(*arguments):
        real = pmap_face(*arguments)

        def counted(variables, images):
            sizes.append(len(images))
            return real(variables, images)

        return counted

    monkeypatch.setattr(figures, "pmap_face", face)
    config = recipe("baseline_synthetic:small", data)
    config.eval.batch_size = 2
    drawn = Drawn(config, tmp_path, rng, 5)
    assert sizes == [2, 2, 2]
    with jax.numpy_dtype_promotion("standard"):
        cams = pmap_face(drawn.network, jax.devices()[:1], "gradcams")(
            drawn.variables, drawn.images
        )
    assert len(drawn.figures["gradcam.png"].axes) >= 2 * len(cams)


def test_too_little_memory_names_the_leaf(data, tmp_path, rng, monkeypatch):
    def face(*arguments):
        def full(variables, images):
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")

        return full

    monkeypatch.setattr(figures, "pmap_face", face)
    with pytest.raises(MemoryError, match=r"lower eval\.batch_size"):
        Drawn(recipe("baseline_synthetic:small", data), tmp_path, rng, 1)


def test_a_distractor_is_never_marked_as_a_match(tmp_path, monkeypatch):
    marked = []
    monkeypatch.setattr(
        visualize, "ranked_list_figure", lambda images, listed, right, **more: marked.append(right)
    )
    monkeypatch.setattr(visualize, "save", lambda *arguments: None)
    evaluation = Evaluated()
    evaluation.query.pids[:2] = evaluation.gallery.pids[:] = 0
    write_figures(tmp_path, evaluation, shown=np.array([0, 1], np.int32))
    assert not marked[0].any()


PATHS = ("/data/query/a/1.jpg", "/data/query/b/1.jpg", "/data/query/b/2.jpg", "query/c/3,4.jpg")


@pytest.mark.parametrize(
    ("chosen", "indices"),
    [
        (1, [0]),
        (3, [0, 1, 3]),
        (9, [0, 1, 2, 3]),
        (["2.jpg"], [2]),
        (["3,4.jpg", "b/1.jpg", "./a/1.jpg", "/data/query/b/2.jpg"], [3, 1, 0, 2]),
        ([os.path.abspath("query/c/3,4.jpg"), "query/b/../c/3,4.jpg"], [3, 3]),
    ],
)
def test_queries_are_chosen_by_number_or_file(chosen, indices):
    got = choose_queries(chosen, PATHS)
    assert got.dtype == np.int32
    assert got.tolist() == indices


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (["2.jpg", "5.jpg"], r"^queries to draw: no query matches '5\.jpg'\. Give each"),
        (
            ["1.jpg"],
            r"2 queries match '1\.jpg', such as '/data/query/a/1\.jpg' and '/data/query/b",
        ),
        (["5.jpg", "1.jpg"], r"no query matches '5\.jpg'; 2 queries match '1\.jpg'"),
        ([""], "no query matches ''"),
        (["."], r"no query matches '\.'"),
        (["g"], "no query matches 'g'"),
        (["0"], "no query matches '0'"),
        (["5\n.jpg"], r"no query matches '5\\n\.jpg'"),
    ],
)
def test_files_that_are_not_one_query_are_named(chosen, message):
    with pytest.raises(ValueError, match=message) as error:
        choose_queries(chosen, PATHS)
    assert str(error.value).endswith("such as '/data/query/a/1.jpg'")
    assert "\n" not in str(error.value)
