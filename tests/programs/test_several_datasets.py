"""Runs on several datasets: what they write, how they resume, and what is evaluated."""

import functools
import json
import re
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

from reid_jax.cli import commands
from reid_jax.data import synthetic
from reid_jax.programs import train
from reid_jax.programs.evaluate import evaluate_run
from reid_jax.report import present
from reid_jax.runs.checkpoints import Checkpoints
from reid_jax.runs.metrics import read_metrics
from reid_jax.runs.workdir import CHECKPOINTS, read_run
from reid_jax.runtime.messages import Preempted
from tests.events import shown
from tests.programs.test_train import arrays, simplest, traced_step
from tests.programs.test_trajectories import assert_same_trajectory
from tests.runtime.test_hosts import finish, free_port, start_two

pytestmark = pytest.mark.usefixtures("standard_promotion")

STEPS = 4


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    """Two folders of pedestrians, and the second one's in folders of people."""
    folder = tmp_path_factory.mktemp("sets")
    for name, seed, people in (("one", 0, 5), ("two", 7, 6)):
        contents = synthetic.Contents(
            seed=seed, train_identities=people, test_identities=3, distractors=4, junk=3
        )
        synthetic.write_market1501(folder / name, contents, None)
    for source, split in (
        ("bounding_box_train", "train"),
        ("query", "query"),
        ("bounding_box_test", "gallery"),
    ):
        for path in (folder / "two" / source).iterdir():
            person = path.name.split("_")[0]
            if int(person) > 0:
                (folder / "people" / split / person).mkdir(parents=True, exist_ok=True)
                # The datasets differ in the type and the size of their files.
                with Image.open(path) as image:
                    smaller = image.resize((50, 110))
                smaller.save(folder / "people" / split / person / f"{path.stem}.png")
    return folder


def recipe(roots, *also, **leaves):
    """Four steps of a batch of four identities, on `one` and others."""
    leaves = {
        "data__layout": "market1501",
        "data__identities_per_batch": 4,
        "data__also": also,
        "epochs": 99,
        "max_steps": STEPS,
        "log__every_steps": 1,
        "eval__every_epochs": 99,
        **leaves,
    }
    return simplest(roots / "one", **leaves)


def both(roots, **leaves):
    return recipe(roots, f"people:{roots / 'people'}", **leaves)


@pytest.fixture(scope="module")
def run(roots, tmp_path_factory):
    """A run on two datasets."""
    workdir = tmp_path_factory.mktemp("several") / "run"
    with jax.numpy_dtype_promotion("standard"):
        return workdir, train.train(both(roots), str(workdir))


def evaluate(config, workdir, output, **options):
    done = evaluate_run(config, str(workdir), checkpoint="latest", output=str(output), **options)
    return done, json.loads((output / "results.json").read_text())


def test_each_dataset_has_a_row(run, roots, tmp_path, capsys):
    """In metrics, TensorBoard, results and table, equal to an evaluation of it by itself."""
    workdir, result = run
    config, num_classes = read_run(workdir)
    assert num_classes == 5 + 6
    done, together = evaluate(config, workdir, tmp_path / "together")
    printed = capsys.readouterr().out
    present(done, str(tmp_path / "together"), report=True)
    alone = []
    for layout, root in (("market1501", "one"), ("people", "people")):
        config.data.also, config.data.layout, config.data.root = (), layout, str(roots / root)
        alone.append(evaluate(config, workdir, tmp_path / root)[1])
        assert "also" not in alone[-1]

    (row,) = together.pop("also")
    assert row.pop("name") == "people"
    assert together == alone[0]
    assert {"workdir": alone[1]["workdir"], "step": STEPS, **row} == alone[1]
    assert row["protocol"]["without_cameras"] is True
    assert alone[0]["mAP"] != alone[1]["mAP"]

    records = [record for record in read_metrics(workdir) if record["step"] == STEPS]
    kinds = {record["kind"]: record for record in records}
    points = dict(((tag, step), value) for tag, step, value in shown(workdir / "tensorboard"))
    for kind, report in (("eval", alone[0]), ("eval/people", alone[1])):
        for name in ("mAP", "mINP", "Rank-1", "Rank-5", "Rank-10"):
            assert kinds[kind][name] == pytest.approx(report[name], abs=1e-6)
            assert points[f"{kind}/{name}", STEPS] == pytest.approx(report[name], abs=1e-6)
    assert [r["kind"] for r in read_metrics(workdir)].count("eval/people") == 2

    names, *rows = printed.split(":\n", 1)[1].splitlines()[:3]
    assert names.split() == ["Rank-1", "Rank-5", "Rank-10", "mAP", "mINP"]
    for line, name, report in zip(
        rows, ("market1501", "people, without_cameras"), alone, strict=True
    ):
        assert line.startswith(name)
        assert f"{100 * report['mAP']:9.1f}{100 * report['mINP']:9.1f}" in line
    assert re.search(r"^people: verification, \d+ positive", printed, re.MULTILINE)

    page = (tmp_path / "together" / "report.html").read_text()
    assert f"<dt>Also evaluated on</dt><dd>people, {roots / 'people'}</dd>" in page
    for title, report in (("market1501", alone[0]), ("people, without_cameras", alone[1])):
        assert f'<th scope="row">{title}</th><td>{100 * report["Rank-1"]:.1f}<small>' in page

    # The first dataset decides.
    assert result.mAP == pytest.approx(alone[0]["mAP"], abs=1e-6)
    with Checkpoints(workdir / CHECKPOINTS) as checkpoints:
        folder = checkpoints.path(STEPS)
    saved = json.loads((folder / "evaluation" / "metadata").read_text())
    assert saved["mAP"] == result.mAP


def test_the_first_line_counts_each_dataset(roots, tmp_path, capsys):
    train.train(both(roots, max_steps=1), str(tmp_path / "run"))
    images = [
        len(list((roots / x).rglob("*.*g"))) for x in ("one/bounding_box_train", "people/train")
    ]
    assert (
        f"; {sum(images)} images of 11 identities in 2 datasets (market1501: {images[0]} images "
        f"of 5 identities; people: {images[1]} images of 6 identities, without cameras); 1 step of "
    ) in capsys.readouterr().out


def test_a_stopped_run_ends_as_the_unbroken_one(run, roots, tmp_path, monkeypatch):
    """Bit for bit, with other loaders, and if the second dataset has moved."""
    expected, _ = run
    workdir = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(train.Preemption, "due", lambda self, step: step == 2)
        with pytest.raises(Preempted, match="after step 2"):
            train.train(both(roots, data__loader="device"), str(workdir))
    shutil.copytree(roots / "people", tmp_path / "moved")
    config = recipe(roots, f"people:{tmp_path / 'moved'}", data__loader="tfdata")
    train.train(config, str(workdir))
    states = []
    for folder in (expected, workdir):
        with Checkpoints(folder / CHECKPOINTS) as checkpoints:
            states.append(arrays(checkpoints.path(STEPS)))
    assert states[0].keys() == states[1].keys()
    for name, array in states[0].items():
        np.testing.assert_array_equal(array, states[1][name], err_msg=name)
    records = [
        [{k: v for k, v in r.items() if k != "images_per_second"} for r in read_metrics(folder)]
        for folder in (expected, workdir)
    ]
    assert records[0] == records[1]


def test_another_second_dataset_is_refused(run, roots, tmp_path):
    workdir, _ = run
    count = json.loads((workdir / "run.json").read_text())["train_images"]["count"]
    shutil.copytree(roots / "people", tmp_path / "changed")
    path = min((tmp_path / "changed" / "train").rglob("*.*g"))
    path.write_bytes(path.read_bytes() + b" ")
    entry = f"people:{tmp_path / 'changed'}"
    others = f"training images are {count} there and here, but others"
    with pytest.raises(ValueError, match=rf"data\.also is \('people:.*{others}"):
        train.train(recipe(roots, entry), str(workdir))
    with pytest.raises(ValueError, match="number of identities is 11 there and 5 here"):
        train.train(recipe(roots), str(workdir))
    with pytest.raises(ValueError, match=r"data\.balanced is False there and True here"):
        train.train(both(roots, data__balanced=True), str(workdir))


@pytest.mark.parametrize("balanced", [False, True])
def test_batches_are_of_all_datasets(balanced, roots, tmp_path, monkeypatch):
    """The labels that reach the step; balanced, two identities of each dataset."""
    seen = []

    def watched_step(step, devices):
        traced = traced_step(step, devices)

        def call(state, batch):
            seen.append(np.asarray(batch["label"]).ravel())
            return traced(state, batch)

        return call

    monkeypatch.setattr(train, "pmap_step", watched_step)
    config = both(roots, max_steps=30, data__balanced=balanced, checkpoint__every_epochs=99)
    train.train(config, str(tmp_path / "run"))
    shares = [tuple(np.bincount(labels[::4] >= 5, minlength=2)) for labels in seen]
    assert len(shares) == 30
    assert all(len(set(labels)) == 4 for labels in seen)
    assert set(np.concatenate(seen)) == set(range(11))
    if balanced:
        assert set(shares) == {(2, 2)}
    else:
        assert len(set(shares)) > 2


def test_another_dataset_is_evaluated_alone_if_its_root_is_named(run, roots, tmp_path, capsys):
    """Also beside a dataset of the run that is gone."""
    workdir, _ = run
    shutil.copytree(workdir, tmp_path / "run")
    command = ["eval", f"--workdir={tmp_path / 'run'}", f"--output={tmp_path / 'out'}"]

    def rows(*more):
        commands.main([*command, *more])
        report = json.loads((tmp_path / "out" / "results.json").read_text())
        return [report["dataset"]["root"], *(x["dataset"]["root"] for x in report.get("also", []))]

    one, two, people = (str(roots / name) for name in ("one", "two", "people"))
    assert rows() == [one, people]
    assert f"on market1501 data in '{one}' and 1 more dataset\n" in capsys.readouterr().out
    assert rows(f"--config.data.root={two}") == [two]
    assert rows(f"--config.data.root={people}", "--config.data.layout=people") == [people]
    assert rows(f"--config.data.also=market1501:{two}") == [one, two]
    assert rows("--config.data.also=()") == [one]
    changed = json.loads((tmp_path / "run" / "run.json").read_text())
    changed["config"]["data"]["also"] = ["people:/gone"]
    (tmp_path / "run" / "run.json").write_text(json.dumps(changed))
    assert rows(f"--config.data.root={two}") == [two]
    with pytest.raises(
        SystemExit, match=r"data\.also names 'people:/gone', but there is no folder"
    ):
        rows()


@pytest.mark.slow
def test_two_hosts_do_what_one_does(roots, tmp_path):
    """Both evaluate their parts of each dataset. The second host's data lie elsewhere."""
    shutil.copytree(roots / "people", tmp_path / "elsewhere")
    leaves = {"data__balanced": True, "max_steps": 2}
    train.train(both(roots, **leaves), str(tmp_path / "one"))
    config = both(roots, **leaves)
    coordinator = [f"--coordinator=127.0.0.1:{free_port()}", "--processes=2"]

    def command(index):
        people = [roots / "people", tmp_path / "elsewhere"][index]
        names = ("data.layout", "data.root", "data.loader", "data.identities_per_batch")
        names += ("data.balanced", "epochs", "max_steps", "log.every_steps", "eval.every_epochs")
        overrides = config.to_dict()
        values = {
            name: functools.reduce(lambda section, key: section[key], name.split("."), overrides)
            for name in names
        }
        return [
            *("train.py", "--config=configs/baseline_synthetic.py:triplet,small"),
            *(f"--workdir={tmp_path / 'two'}", *coordinator, f"--process={index}"),
            *(f"--config.{name}={value}" for name, value in values.items()),
            f"--config.data.also=people:{people}",
        ]

    finish(start_two(2, command))
    records, expected = (read_metrics(tmp_path / name) for name in ("two", "one"))
    assert [r["kind"] for r in records].count("eval/people") == 2
    assert_same_trajectory(records, expected)
