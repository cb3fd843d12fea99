import os

import pytest

from reid_jax.programs import train
from reid_jax.programs.evaluate import evaluate_run
from reid_jax.runs.symlinks import check_symlinks
from reid_jax.runs.workdir import read_run, write_run
from tests.test_configs import load


@pytest.fixture
def workdir(tmp_path):
    folder = tmp_path / "run"
    for name in ("checkpoints/5/model", "tensorboard", "eval", "mine"):
        (folder / name).mkdir(parents=True)
    (folder / "metrics.jsonl").touch()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_text("precious")
    return folder


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("run.json.tmp", "outside/file"),
        ("curves.png", "outside/nothing_yet"),
        ("checkpoints/7", "outside"),
        ("checkpoints/5/model/d", "../outside"),
        ("tensorboard/events", "outside/file"),
        ("eval/results.json.tmp", "outside/file"),
    ],
)
def test_a_link_out_of_the_workdir_is_named(name, target, workdir, tmp_path):
    (workdir / name).symlink_to(tmp_path / target)
    with pytest.raises(ValueError, match=rf"{name}' is a link to '.*outside.*out of the workdir"):
        check_symlinks(workdir)
    with pytest.raises(ValueError, match="out of the workdir"):
        check_symlinks(os.path.relpath(workdir))


@pytest.mark.parametrize("name", ["checkpoints", "tensorboard", "eval"])
def test_a_folder_that_is_a_link_is_named(name, tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).symlink_to("../outside")
    with pytest.raises(ValueError, match=f"{name}' is a link"):
        check_symlinks(tmp_path / "run")


def test_folders_of_the_same_beginning_are_outside(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "curves.png").symlink_to(tmp_path / "run2")
    with pytest.raises(ValueError, match="run2"):
        check_symlinks(tmp_path / "run")


def test_harmless_links(workdir, tmp_path):
    (workdir / "last.jsonl").symlink_to("metrics.jsonl")
    (workdir / "checkpoints" / "newest").symlink_to(workdir / "checkpoints" / "5")
    (workdir / "mine" / "file").symlink_to(tmp_path / "outside" / "file")
    (workdir / "data").symlink_to(tmp_path / "outside")  # No program writes there.
    (tmp_path / "link").symlink_to(workdir)
    check_symlinks(workdir)
    check_symlinks(tmp_path / "link")
    check_symlinks(tmp_path / "not_there")


def test_neither_program_writes_through_one(workdir, tmp_path):
    config = load("baseline_synthetic", "small")
    config.devices = 1
    config.data.root = str(tmp_path / "pedestrians")
    write_run(workdir, config, 8)
    link = workdir / "metrics.jsonl.tmp"
    link.symlink_to(tmp_path / "outside" / "file")
    with pytest.raises(ValueError, match=r"metrics\.jsonl\.tmp' is a link"):
        train.train(config, str(workdir))
    config, _ = read_run(workdir)
    with pytest.raises(ValueError, match=r"metrics\.jsonl\.tmp' is a link"):
        evaluate_run(config, str(workdir), checkpoint="latest", output=str(workdir / "eval"))
    assert (tmp_path / "outside" / "file").read_text() == "precious"
    assert not (tmp_path / "pedestrians").exists()
