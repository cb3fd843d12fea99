"""Evaluation of a run with the protocols of eval.py."""

import copy
import functools
import io
import json
import os
import pathlib
import re
import shutil
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reid_jax import models, visualize
from reid_jax.data import layouts, synthetic
from reid_jax.data.augment import normalize
from reid_jax.data.loaders import open_images
from reid_jax.evaluation import evaluator
from reid_jax.evaluation.descriptor_sets import Descriptors
from reid_jax.evaluation.ranking import evaluate_ranking, nearest
from reid_jax.evaluation.reranking import k_reciprocal
from reid_jax.evaluation.verification import evaluate_verification
from reid_jax.programs import evaluate
from reid_jax.report import present
from reid_jax.runs.checkpoints import Checkpoints
from reid_jax.runs.workdir import CHECKPOINTS, write_run
from reid_jax.training.state import TrainState
from tests import reference
from tests.data.synthetic import market
from tests.report_page import Page
from tests.test_configs import load


class Workdir:
    """A run of a tiny baseline with random variables, and the descriptors of all images."""

    def __init__(self, folder):
        self.root, self.path, self.extra = folder / "data", folder / "run", folder / "extra"
        synthetic.write_market1501(
            self.root,
            synthetic.Contents(
                seed=0,
                train_identities=2,
                test_identities=4,
                train_cameras=2,
                test_cameras=3,
                multi_query_images=2,
            ),
            None,
        )
        (self.extra / "more").mkdir(parents=True)
        # Training images serve as new ones, because the network is not trained.
        for i, path in enumerate(sorted((self.root / "bounding_box_train").iterdir())[:7]):
            shutil.copy(path, self.extra / ("more" if i % 2 else ".") / f"{i}.jpg")

        self.config = load("baseline_synthetic", "small")
        self.config.devices = 1
        self.config.data.layout, self.config.data.root = "market1501", str(self.root)
        self.config.data.loader = "memory"
        network = models.create(self.config.model, num_classes=2)
        size = self.config.data.image_size
        shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, *size, 3)))
        variables = reference.random_variables(dict(shapes), np.random.default_rng(0))
        self.path.mkdir()
        write_run(self.path, self.config, 2)
        with Checkpoints(self.path / CHECKPOINTS) as checkpoints:
            checkpoints.save(
                TrainState(jnp.int32(0), **variables, opt_state=(), seed=0), {"mAP": 0.0}
            )

        dataset = layouts.read("market1501", self.root)
        apply = jax.jit(lambda images: network.apply(variables, normalize(images)))

        def describe(split, mirrored=False):
            (pixels,) = open_images(split.paths, size, "memory").batches([np.arange(len(split))])
            pixels = pixels[:, :, ::-1] if mirrored else pixels
            return np.asarray(apply(pixels), np.float64)

        self.query, self.gallery = dataset.query, dataset.gallery
        self.boxes, self.more = layouts.read_multi_query(dataset), layouts.read_extra(self.extra)
        self.features = {
            name: describe(getattr(self, name)) for name in ("query", "gallery", "boxes", "more")
        }
        self.mirrored = {
            name: describe(getattr(self, name), mirrored=True) for name in ("query", "gallery")
        }

    def evaluate(self, output, overrides=(), *, figures=0, report=False, **protocol):
        self.config.eval.flip = self.config.eval.normalize = False
        self.config.eval.update(dict(overrides))
        run = evaluate.evaluate_run(
            self.config,
            str(self.path),
            checkpoint="latest",
            output=str(output),
            protocol=evaluate.Protocol(**protocol),
            figures=figures,
        )
        present(run, str(output), report=report)
        return run.evaluation.result, json.loads((output / "results.json").read_text())


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    with jax.numpy_dtype_promotion("standard"):
        return Workdir(tmp_path_factory.mktemp("evaluation"))


@pytest.fixture
def output(tmp_path, standard_promotion):
    return tmp_path / "out"


def descriptors(features, split):
    return Descriptors(features.astype(np.float32), split.pids, split.camids)


def assert_same(result, expected):
    np.testing.assert_allclose(result.mAP, expected.mAP, atol=1e-6)
    np.testing.assert_allclose(result.cmc, expected.cmc, atol=1e-6)


def unit(features):
    return features / np.linalg.norm(features, axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("leaf", "value", "message"),
    [
        ("eval.batch_size", 0, r"eval\.batch_size is 0; it must be"),
        ("data.image_size", (8, 64), r"data\.image_size is \(8, 64\); both sides must be at least"),
    ],
)
def test_settings_of_no_evaluation_are_named(leaf, value, message, workdir, output):
    config = copy.deepcopy(workdir.config)
    config.update_from_flattened_dict({leaf: value})
    with pytest.raises(ValueError, match=f"^{message}"):
        evaluate.evaluate_run(config, str(workdir.path), checkpoint="latest", output=str(output))
    assert not output.exists()


def test_a_size_that_cutout_does_not_fit_can_be_evaluated(workdir, output):
    config = copy.deepcopy(workdir.config)
    config.data.image_size, config.augment.cutout_probability = (16, 16), 0.5
    config.augment.cutout_size = 17
    evaluate.evaluate_run(config, str(workdir.path), checkpoint="latest", output=str(output))


def test_flip_and_unit_length(workdir, output):
    result, report = workdir.evaluate(output, {"flip": True, "normalize": True})
    query, gallery = (
        descriptors(unit(workdir.features[name] + workdir.mirrored[name]), getattr(workdir, name))
        for name in ("query", "gallery")
    )
    assert_same(result, evaluate_ranking(query, gallery))
    plain, _ = workdir.evaluate(output)
    assert plain.mAP != result.mAP
    assert report["protocol"] == {
        "without_cameras": False,
        "multi_query": None, "rerank": False, "flip": True, "normalize": True, "gallery_extra": 0,
    }  # fmt: skip


def without_cameras(workdir, folder):
    """The same images in a folder for each person; one of them is in query and gallery."""
    for name in ("query", "gallery"):
        split = getattr(workdir, name)
        for path, pid in zip(split.paths, split.pids, strict=True):
            place = folder / name / f"person {pid}"
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, place)
    first = sorted((folder / "query").rglob("*.jpg"))[0]
    (folder / "gallery" / first.parent.name / "0 again.jpg").symlink_to(first)


def test_without_cameras_only_the_own_file_is_ignored(workdir, tmp_path, output, capsys):
    without_cameras(workdir, tmp_path / "people")
    config = copy.deepcopy(workdir.config)
    config.data.layout, config.data.root = "people", str(tmp_path / "people")
    run = evaluate.evaluate_run(
        config, str(workdir.path), checkpoint="latest", output=str(output), figures=2
    )
    present(run, str(output))
    query, gallery = run.evaluation.query, run.evaluation.gallery
    dataset = run.evaluation.evaluator.dataset
    precisions, pairs = [], 0
    for feature, pid, path in zip(query.features, query.pids, dataset.query.paths, strict=True):
        distances = np.linalg.norm(gallery.features - feature, axis=1)
        others = [os.path.realpath(path) != os.path.realpath(g) for g in dataset.gallery.paths]
        right = (gallery.pids == pid)[others][np.argsort(distances[others], kind="stable")]
        precisions.append(np.mean((np.cumsum(right) / np.arange(1, len(right) + 1))[right]))
        pairs += right.sum()
    report = json.loads((output / "results.json").read_text())
    assert report["protocol"]["without_cameras"] is True
    assert report["mAP"] == pytest.approx(np.mean(precisions), abs=1e-6)
    assert report["verification"]["positive_pairs"] == pairs
    # The query and its link are one file, so one pair is ignored.
    same = query.pids[:, None] == gallery.pids
    assert pairs == same.sum() - 1
    said = capsys.readouterr().out
    assert "gallery images; without cameras, only a query's own file is ignored\n" in said
    assert "people', without_cameras:\n" in said


@pytest.mark.parametrize("normalize", [False, True])
def test_verification_is_of_the_descriptors_that_are_ranked(normalize, workdir, output, capsys):
    _, report = workdir.evaluate(output, {"normalize": normalize})
    query, gallery = (
        unit(workdir.features[name]) if normalize else workdir.features[name]
        for name in ("query", "gallery")
    )
    expected = evaluate_verification(
        descriptors(query, workdir.query), descriptors(gallery, workdir.gallery)
    ).summary()
    verification = report["verification"]
    assert verification["image_size"] == list(workdir.config.data.image_size)
    for name in ("positive_pairs", "negative_pairs"):
        assert verification[name] == expected[name] > 0
    for name in ("AUC", "EER"):
        assert verification[name] == pytest.approx(expected[name], abs=1e-3)
    for name in ("EER", "0.1"):
        threshold = verification["thresholds"][name]
        assert threshold == pytest.approx(expected["thresholds"][name], rel=1e-4)
    said = capsys.readouterr().out
    assert f"\nverification, {expected['positive_pairs']} positive and " in said
    assert re.search(
        r"^TPR at FPR \(distance\): [\d.]+ at 0\.1 \(\d+\.\d{4}\), ", said, re.MULTILINE
    )


def test_verification_follows_the_protocol(workdir, output, monkeypatch):
    """Multi-query, more distractors and re-ranking at once."""
    given = {}
    rank = evaluator.Evaluator.rank

    def record(self, *descriptors):
        given["descriptors"] = descriptors
        return rank(self, *descriptors)

    monkeypatch.setattr(evaluator.Evaluator, "rank", record)
    options = {"gallery_extra": str(workdir.extra), "multi_query": "average"}
    _, report = workdir.evaluate(output, {"flip": True}, **options)
    negatives = report["verification"]["negative_pairs"]
    assert len(given["descriptors"][1].pids) == len(workdir.gallery) + 7
    for rerank in (False, True):
        _, report = workdir.evaluate(output, {"flip": True}, rerank=rerank, **options)
        query, gallery, rescore = given["descriptors"]
        assert (rescore is not None) == rerank
        expected = evaluate_verification(query, gallery, rescore=rescore)
        assert report["verification"].items() >= expected.summary().items()
    _, report = workdir.evaluate(output, multi_query="average")
    assert report["verification"]["negative_pairs"] == negatives - 7 * len(workdir.query)


def test_verification_without_a_negative_pair_is_left_out(workdir, output, tmp_path, capsys):
    market.write(tmp_path / "one", test_identities=1, distractors=0)
    config = copy.deepcopy(workdir.config)
    config.data.root = str(tmp_path / "one")
    evaluate.evaluate_run(config, str(workdir.path), checkpoint="latest", output=str(output))
    results = json.loads((output / "results.json").read_text())
    assert results["mAP"] == 1
    assert "verification" not in results
    assert "\nverification is left out: no negative pair, and" in capsys.readouterr().out


@pytest.mark.parametrize("how", ["average", "max"])
def test_multi_query(how, workdir, output):
    result, report = workdir.evaluate(output, {"normalize": True}, multi_query=how)
    boxes = unit(workdir.features["boxes"])
    pooled = []
    for pid, camid in zip(workdir.query.pids, workdir.query.camids, strict=True):
        own = boxes[(workdir.boxes.pids == pid) & (workdir.boxes.camids == camid)]
        assert len(own) == 2
        pooled.append(own.mean(axis=0) if how == "average" else own.max(axis=0))
    query = descriptors(unit(np.array(pooled)), workdir.query)
    gallery = descriptors(unit(workdir.features["gallery"]), workdir.gallery)
    assert_same(result, evaluate_ranking(query, gallery))
    assert report["protocol"]["multi_query"] == how


def test_extra_gallery_and_reranking(workdir, output, capsys, monkeypatch):
    """Both at once, with their pictures."""
    drawn = {}
    draw = visualize.ranked_list_figure

    def record(*arguments, **options):
        drawn.update(options)
        return draw(*arguments, **options)

    monkeypatch.setattr(visualize, "ranked_list_figure", record)
    result, report = workdir.evaluate(
        output, gallery_extra=str(workdir.extra), rerank=True, figures=2
    )
    query = descriptors(workdir.features["query"], workdir.query)
    both = np.concatenate([workdir.features["gallery"], workdir.features["more"]])
    gallery = Descriptors(
        both.astype(np.float32),
        np.concatenate([workdir.gallery.pids, np.zeros(7, np.int32)]),
        np.concatenate([workdir.gallery.camids, np.zeros(7, np.int32)]),
    )
    rescore = k_reciprocal(query, gallery)
    assert_same(result, evaluate_ranking(query, gallery, rescore=rescore))
    # The first and the last query are drawn, with the distances that order their lists.
    _, distances = nearest(query, gallery, 10, rescore=rescore)
    np.testing.assert_allclose(drawn["distances"], distances[[0, -1]], atol=1e-5)
    assert (output / "ranked_lists.png").stat().st_size > 0
    plain, _ = workdir.evaluate(output)
    assert plain.mAP != result.mAP
    assert report["protocol"]["gallery_extra"] == 7
    assert report["protocol"]["rerank"]
    assert "rerank, gallery_extra 7:" in capsys.readouterr().out


def test_too_few_images_to_rerank(workdir, output, monkeypatch):
    """The advice is one that the program can follow."""
    monkeypatch.setattr(evaluate, "NEIGHBOURS", 1000)
    with pytest.raises(ValueError, match=r"--rerank needs .* 1001 .*: leave out --rerank$"):
        workdir.evaluate(output, rerank=True)


def test_query_and_gallery_are_enough(workdir, output, tmp_path):
    """A data root without a training folder scores as the same one with it."""
    root = tmp_path / "data"
    for folder in ("query", "bounding_box_test"):
        shutil.copytree(workdir.root / folder, root / folder)
    _, expected = workdir.evaluate(output)
    config = copy.deepcopy(workdir.config)
    config.data.root = str(root)
    run = evaluate.evaluate_run(
        config, str(workdir.path), checkpoint="latest", output=str(output / "other")
    )
    assert run.evaluation.result.mAP == expected["mAP"]


def test_the_queries_that_were_chosen_are_drawn(workdir, output, monkeypatch):
    """By their files, in the given order, in all pictures."""
    drawn = []
    for name in ("gradcam_figure", "ranked_list_figure"):

        def record(images, *arguments, draw, **options):
            drawn.append(images)
            return draw(images, *arguments, **options)

        draw = getattr(visualize, name)
        monkeypatch.setattr(visualize, name, functools.partial(record, draw=draw))
    paths = workdir.query.paths
    assert len(paths) > 4
    chosen = [paths[4], pathlib.Path(paths[1]).name]
    workdir.evaluate(output, figures=chosen)
    size = workdir.config.data.image_size
    (pixels,) = open_images(paths, size, "memory").batches([np.array([4, 1])])
    assert len(drawn) == 2
    for images in drawn:
        np.testing.assert_array_equal(images, pixels)


def test_a_file_that_is_not_a_query_is_named_before_the_evaluation(workdir, output):
    with pytest.raises(ValueError, match=r"no query matches 'gone\.jpg'"):
        workdir.evaluate(output, figures=["gone.jpg"])
    assert not output.exists()


def test_a_report_shows_what_the_protocol_orders_by(workdir, output, capsys):
    """All protocols at once; the results equal those without a report."""
    options = {"gallery_extra": str(workdir.extra), "rerank": True, "multi_query": "average"}
    overrides = {"flip": True, "normalize": True}
    _, plain = workdir.evaluate(output / "plain", overrides, **options)
    result, results = workdir.evaluate(output, overrides, report=True, **options)
    assert results == plain
    assert {path.name for path in output.iterdir()} == {"plain", "report.html", "results.json"}
    assert re.search(r"^wrote '.*/report.html', 0\.\d MB$", capsys.readouterr().out, re.MULTILINE)

    page = Page(output / "report.html")
    described = {}
    extract = evaluator.Evaluator.describe

    def describe(self, variables):
        described["both"] = extract(self, variables)
        return described["both"]

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(evaluator.Evaluator, "describe", describe)
        workdir.evaluate(output / "again", overrides, **options)
    query, gallery = described["both"]
    found, distances = nearest(query, gallery, 10, rescore=k_reciprocal(query, gallery))
    np.testing.assert_allclose(page.data["distances"], distances.ravel(), atol=1e-6)
    lists = page.data["found"].reshape(-1, 10)
    paths = np.array([*workdir.gallery.paths, *workdir.more.paths])
    below = [path.removeprefix(f"{workdir.root}/") for path in paths]
    names = np.array(page.data["gallery"]["names"])
    assert names[lists].tolist() == np.array(below)[found].tolist()
    # Beside the lists, the page shows the first match of a query whose list has none.
    missed = page.data["missed"]
    others = {below[int(i)] for i in np.unique(found)} | set(names[missed[missed >= 0]])
    assert set(names) == others
    assert page.data["gallery"]["pids"][lists].tolist() == gallery.pids[found].tolist()
    np.testing.assert_allclose(page.data["precision"], result.average_precision, atol=1e-6)
    assert page.data["map_size"] == [6, 4]
    assert len(page.data["maps"]) == len(workdir.query) * 6 * 4
    for fact in ("multi_query average", "rerank", "gallery_extra 7", "on data", "market1501"):
        assert fact in page.text
    # This run was not trained, so it has no training curves.
    assert "Training curves" not in page.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gallery_extra": "nowhere"}, r"nowhere.*--gallery-extra"),
        ({"multi_query": "average"}, r"no folder .*gt_bbox"),
    ],
)
def test_missing_folders_are_named(options, message, workdir, output, monkeypatch):
    monkeypatch.setattr(layouts, "_MULTI_QUERY", "gt_bbox_2")
    with pytest.raises(FileNotFoundError, match=message):
        workdir.evaluate(output, **options)
    assert not pathlib.Path(output).exists()


def test_bad_images_are_an_error_or_skipped_and_listed(workdir, output, tmp_path, monkeypatch):
    root, extra = tmp_path / "data", tmp_path / "extra"
    shutil.copytree(workdir.root, root)
    shutil.copytree(workdir.extra, extra)
    # Other identities. A query that is left out needs no box.
    places = {"query": -1, "bounding_box_test": -1, "gt_bbox": 0}
    bad = [sorted((root / folder).iterdir())[place] for folder, place in places.items()]
    bad.append(extra / "0.jpg")
    whole, _ = workdir.evaluate(output, gallery_extra=str(extra), multi_query="max")
    for path in bad:
        path.write_bytes(path.read_bytes()[:-100])
    # No training happens here.
    sorted((root / "bounding_box_train").iterdir())[0].write_bytes(b"")

    monkeypatch.setattr(workdir, "config", workdir.config.copy_and_resolve_references())
    workdir.config.data.root = str(root)
    options = {"gallery_extra": str(extra), "multi_query": "max"}
    with pytest.raises(ValueError, match=r"1 of .* files cannot be read.*on_bad_image=skip"):
        workdir.evaluate(output, **options)
    assert not (output / "skipped_images.json").exists()

    workdir.config.data.on_bad_image, workdir.config.data.skip_limit = "skip", 0.2
    result, report = workdir.evaluate(output, **options)
    listed = json.loads((output / "skipped_images.json").read_text())["skipped"]
    assert [entry["path"] for entry in listed] == [str(path) for path in bad]
    assert report["dataset"]["skipped"] == 4
    assert report["protocol"]["gallery_extra"] == len(workdir.more) - 1
    assert result.num_queries == whole.num_queries - 1

    # Without the other protocols their images are not read, and the report covers the rest.
    workdir.evaluate(output)
    listed = json.loads((output / "skipped_images.json").read_text())["skipped"]
    assert [entry["path"] for entry in listed] == [str(path) for path in bad[:2]]


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_terminal_of_few_characters_costs_no_result(workdir, tmp_path, monkeypatch, encoding):
    """Folders may have names that standard output cannot encode."""
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding))
    moved = tmp_path / "实验"
    moved.mkdir()
    for name, path in (("run", workdir.path), ("data", workdir.root)):
        (moved / name).symlink_to(path)
    monkeypatch.setitem(vars(workdir), "path", moved / "run")
    monkeypatch.setitem(workdir.config.data, "root", str(moved / "data"))
    with jax.numpy_dtype_promotion("standard"):
        _, written = workdir.evaluate(moved / "out", figures=1)
    assert written["workdir"] == str(moved / "run")
    assert rb"\u5b9e\u9a8c" in sys.stdout.buffer.getvalue()


def test_results_are_written_before_they_are_printed(workdir, output, monkeypatch):
    def fail(text):
        if "mAP" in text:
            raise KeyboardInterrupt

    monkeypatch.setattr(evaluate, "say", fail)
    with pytest.raises(KeyboardInterrupt):
        workdir.evaluate(output)
    assert (output / "results.json").exists()


def test_a_folder_holds_one_evaluation(workdir, output, capsys):
    workdir.evaluate(output, figures=1, report=True)
    pictures = {path.name for path in output.iterdir()}
    assert {"report.html", "ranked_lists.png"} <= pictures
    workdir.evaluate(output)  # The same once more.
    assert {path.name for path in output.iterdir()} == pictures
    capsys.readouterr()
    workdir.evaluate(output, gallery_extra=str(workdir.extra))
    assert {path.name for path in output.iterdir()} == {"results.json"}
    assert "removed pictures and report of another evaluation" in capsys.readouterr().out


def test_what_is_evaluated_is_printed_first(workdir, output, capsys, monkeypatch):
    """Absolute, because a copied workdir still names the images of the original."""
    monkeypatch.chdir(workdir.root.parent)
    monkeypatch.setitem(workdir.config.data, "root", workdir.root.name)
    _, written = workdir.evaluate(output)
    line = next(s for s in capsys.readouterr().out.splitlines() if s.startswith("evaluating"))
    assert line == (
        f"evaluating step 0 of '{workdir.path}' on market1501 in '{workdir.root}': "
        f"{len(workdir.query)} queries, {len(workdir.gallery)} gallery images"
    )
    assert written["dataset"]["root"] == str(workdir.root)
    assert written["workdir"] == str(workdir.path)


def test_a_mistyped_folder_gets_no_new_dataset(workdir, output, monkeypatch):
    monkeypatch.setitem(workdir.config.data, "layout", "synthetic")
    monkeypatch.setitem(workdir.config.data, "root", str(output.parent / "pedestriens"))
    with pytest.raises(FileNotFoundError, match=r"pedestriens'.*draws none.*--seed=0 --test"):
        workdir.evaluate(output)
    assert not list(output.parent.iterdir())


def test_an_unusable_output_folder_is_reported_before_evaluating(workdir, output, monkeypatch):
    monkeypatch.setattr(evaluator, "open_images", None)
    output.write_text("a file")
    with pytest.raises(OSError, match=r"cannot write to '.*out/eval', the folder of the results"):
        workdir.evaluate(output / "eval")
    with pytest.raises(OSError, match=r"cannot write to '.*out', the folder of the results"):
        workdir.evaluate(output)


def test_results_of_another_program_are_reported_before_evaluating(workdir, output, monkeypatch):
    monkeypatch.setattr(evaluator, "open_images", None)
    output.mkdir()
    (output / "results.json").write_text('{"accuracy": 0.5}')
    (output / "report.html").write_text("theirs")
    with pytest.raises(FileExistsError, match=r"out/results\.json' is a file of another program"):
        workdir.evaluate(output)
    assert (output / "report.html").read_text() == "theirs"


def test_an_evaluation_into_a_workdir_keeps_the_list_of_training(workdir, output):
    """The results of an evaluation there do not make the list that of an evaluation."""
    output.mkdir()
    (output / "run.json").touch()
    (output / "skipped_images.json").write_text('{"skipped": []}')
    workdir.evaluate(output)
    assert (output / "skipped_images.json").read_text() == '{"skipped": []}'


def test_results_that_cannot_be_written_are_printed(workdir, output, monkeypatch, capsys):
    def full(*arguments):
        raise OSError("No space left on device")

    monkeypatch.setattr(evaluate, "write_results", full)
    with pytest.raises(OSError, match="No space left"):
        workdir.evaluate(output)
    assert "mAP" in capsys.readouterr().out


def test_a_bad_image_in_the_second_dataset_is_reported_before_evaluating(
    workdir, output, tmp_path, monkeypatch, capsys
):
    shutil.copytree(workdir.root, tmp_path / "data")
    bad = sorted((tmp_path / "data" / "query").iterdir())[0]
    bad.write_bytes(b"no image")
    monkeypatch.setattr(workdir, "config", workdir.config.copy_and_resolve_references())
    workdir.config.data.also = (f"market1501:{tmp_path / 'data'}",)
    with pytest.raises(ValueError, match=r"1 of .* cannot be read"):
        workdir.evaluate(output)
    assert "evaluating" not in capsys.readouterr().out
