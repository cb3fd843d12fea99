"""Home folders, URLs and empty paths, wherever the package takes a path."""

import pathlib

import numpy as np
import pytest
from matplotlib.figure import Figure

import reid_jax
from reid_jax import visualize
from reid_jax.cli import search as search_command
from reid_jax.cli.export import main as export
from reid_jax.cli.reproduce import main as reproduce
from reid_jax.cli.weights import main as weights
from reid_jax.data import datasets, layouts, synthetic
from reid_jax.programs.evaluate import Protocol, evaluate_run
from reid_jax.programs.train import train
from reid_jax.report.html_report import write_report
from reid_jax.runs.workdir import read_run, write_run
from reid_jax.search.searching import search
from reid_jax.weights.initial import initial_trunk
from reid_jax.weights.trunks import read_trunk
from tests import random_runs
from tests.test_configs import load


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home folder with a run; the current folder is another."""
    folder = tmp_path / "home"
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(folder))
    folder.mkdir()
    return folder


def recipe(**leaves):
    config = load("baseline_synthetic", "small")
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in leaves.items()})
    return config


def searching(**options):
    given = {"workdir": "run", "gallery": "gallery", "query": "who.jpg"} | options
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
    return search(search_command.parser().parse_args(arguments))


def evaluated(workdir="run", output="out", data_root="data", **protocol):
    config = recipe(data__root=data_root, data__layout="market1501")
    pathlib.Path("run").mkdir(exist_ok=True)
    write_run("run", recipe(), 2)
    evaluate_run(config, workdir, checkpoint="latest", output=output, protocol=Protocol(**protocol))


TAKERS = {
    "train": lambda path: train(recipe(), path),
    "model.pretrained": lambda path: initial_trunk(recipe(model__pretrained=path).model, "run"),
    "data.root": lambda path: datasets.load(recipe(data__root=path).data),
    "layouts": lambda path: layouts.read("market1501", path),
    "synthetic": lambda path: synthetic.write_market1501(path),
    "read_run": read_run,
    "load": reid_jax.load,
    "eval": evaluated,
    "eval --output": lambda path: evaluated(output=path),
    "eval data.root": lambda path: evaluated(data_root=path),
    "search": lambda path: searching(workdir=path),
    "search --gallery": lambda path: searching(gallery=path),
    "search --query": lambda path: searching(query=path),
    "search --output": lambda path: searching(output=path),
    "search --save-gallery": lambda path: searching(save_gallery=path),
    "weights": read_trunk,
    "report": lambda path: write_report(path, None, facts={}, curves={}),
    "Gallery.save": lambda path: reid_jax.Gallery().save(path),
    "Hits.save": lambda path: reid_jax.Gallery().search([1.0]).save(path),
    "Gallery.load": reid_jax.Gallery.load,
    "picture": lambda path: visualize.save(Figure(), path),
    "extra": lambda path: layouts.read_extra(path),
}


@pytest.mark.parametrize("take", TAKERS.values(), ids=TAKERS)
@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("", "is empty"),
        ("gs://bucket/runs", "a URL"),
        ("s3://bucket/runs", "a URL"),
        ("file:///runs", "a URL"),
        ("gs:/bucket/runs", "a URL"),  # As pathlib makes of it.
        ("~nobody-of-this-name/runs", "no user of this name"),
    ],
)
def test_what_is_no_local_path_is_refused_in_one_line(take, path, message, home):
    if take is TAKERS["model.pretrained"] and not path:
        pytest.skip("means random weights")
    with pytest.raises(ValueError, match=message) as error:
        take(path)
    assert len(str(error.value).splitlines()) == 1
    assert not {".", "gs:", "s3:", "file:", "~nobody-of-this-name"} & {
        path.name for path in pathlib.Path().iterdir()
    }


@pytest.mark.parametrize(
    "call",
    [
        lambda path: export([path, "--workdir=run"]),
        lambda path: export(["out", f"--workdir={path}"]),
        lambda path: weights([path, "out"]),
        lambda path: reproduce(["synthetic", f"--workdir={path}"]),
        lambda path: reproduce(["pmm-table2", f"--market={path}"]),
    ],
)
@pytest.mark.parametrize("path", ["", "gs://bucket/runs"])
def test_commands_end_with_one_line(call, path, home):
    with pytest.raises(SystemExit, match=r"ValueError: .*(is empty|a URL)"):
        call(path)


def test_home_folders_are_expanded(home, standard_promotion):
    random_runs.write(home / "run", "baseline_synthetic")
    gallery = reid_jax.Gallery()
    model = reid_jax.load("~/run")
    gallery.add(model.embed(np.zeros((2, 8, 4, 3), np.uint8)))
    gallery.save("~/galleries/two")
    assert len(reid_jax.Gallery.load(pathlib.Path("~/galleries/two"))) == 2
    visualize.save(Figure(), "~/empty.png")
    contents = synthetic.Contents(train_identities=2, test_identities=2, distractors=0, junk=0)
    synthetic.write_market1501("~/data", contents, None)
    dataset = datasets.load(recipe(data__layout="market1501", data__root="~/data").data)
    assert dataset.root == str(home / "data")
    export(["~/exported", "--workdir=~/run", "--formats=stablehlo"])
    assert {path.name for path in home.iterdir()} == {
        *("run", "galleries", "empty.png", "data", "exported")
    }
    assert not list(pathlib.Path().iterdir())


def test_a_run_remembers_where_home_was(home):
    write_run(home, recipe(data__root="~/data", model__pretrained="~/trunk"), 2)
    config, _ = read_run("~")
    assert config.data.root == str(home / "data")
    assert config.model.pretrained == str(home / "trunk")


def test_a_folder_may_be_called_like_a_home(home):
    write_run(home, recipe(), 2)
    pathlib.Path("~").symlink_to(home)
    assert read_run("./~")[1] == 2
