"""The two programs as a user starts them, including mistakes of users."""

import json
import pathlib
import shutil
import subprocess
import sys

import pytest

from reid_jax.runs.workdir import write_run
from tests.test_configs import load

ROOT = pathlib.Path(__file__).parents[2]
SMALL = ["--config=configs/pmm_synthetic.py:small"]


@pytest.mark.parametrize(
    ("program", "arguments", "message"),
    [
        ("train.py", ["--config=configs/pmm_cuhk03.py:tiny"], "unknown config string 'tiny'"),
        ("train.py", ["--config.data.batch_size=64"], "data.images_per_identity images"),
        ("train.py", ["--config.optim.lr=abc"], "flag --config.optim.lr=abc: could not convert"),
        ("train.py", ["--config.data.image_size=64"], "data.image_size is (64,); it must be"),
        ("train.py", ["--config.data.layout=market1501", "--config.data.root=nowhere"], "nowhere"),
        ("eval.py", [], "run.json is missing"),
    ],
)
def test_mistakes_are_named_at_once(program, arguments, message, tmp_path):
    workdir = tmp_path / "run"
    assert message in fail(program, f"--workdir={workdir}", *arguments)
    assert not workdir.exists()


def test_eval_knows_the_leaves_of_a_run(tmp_path):
    write_run(tmp_path, load("bdb_synthetic", "small"), 8)
    said = fail("eval.py", f"--workdir={tmp_path}", "--config.eval.blocksize=3")
    assert "eval.blocksize is not a leaf of this recipe; did you mean eval.block_size?" in said


def test_eval_refuses_what_a_run_was_trained_with(tmp_path):
    write_run(tmp_path, load("bdb_synthetic", "small"), 8)
    leaves = ["--config.model.dtype=bfloat16", "--config.eval.flip=True", "--config.seed", "3"]
    said = fail("eval.py", f"--workdir={tmp_path}", *leaves)
    assert "eval cannot change model.dtype, seed, which the run was trained with: " in said
    assert "devices, and leaves of data and eval" in said


def fail(program, *arguments):
    """Run a program that fails. It prints one line on the error and one on how to find out more."""
    done = subprocess.run(
        [sys.executable, program, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 2
    return done.stderr


@pytest.mark.slow
def test_train_then_evaluate_on_files_of_ones_own(tmp_path):
    """The steps of the README: a run, evaluation of its workdir, then folders with other names."""
    workdir, pedestrians, own = tmp_path / "run", tmp_path / "pedestrians", tmp_path / "own"
    data = [f"--config.data.root={pedestrians}", "--config.data.synthetic.test_identities=3"]
    start("train.py", f"--workdir={workdir}", *SMALL, *data, "--config.epochs=1")
    folders = {"a": "bounding_box_train", "b": "query", "c": "bounding_box_test"}
    for split, folder in folders.items():
        (own / split).mkdir(parents=True)
        for path in (pedestrians / folder).iterdir():
            pid, camera, *rest = path.stem.split("_")
            if pid not in ("0000", "-1"):
                name = f"{camera[:2]}-p{pid}-{'-'.join(rest)}.jpg"
                shutil.copy(path, own / split / name)

    queries = sorted((pedestrians / "query").iterdir())
    # One box per query, the query itself: multi-query changes no result.
    shutil.copytree(pedestrians / "query", pedestrians / "gt_bbox")
    start(
        "eval.py",
        f"--workdir={workdir}",
        f"--output={tmp_path / 'first'}",
        "--config.data.layout=market1501",
        "--multi-query=max",
        "--figure-queries=" + ",".join(path.name for path in queries[:2]),
    )
    start(
        "eval.py",
        f"--workdir={workdir}",
        f"--output={tmp_path / 'second'}",
        "--checkpoint=best",
        "--rerank",
        f"--gallery-extra={pedestrians / 'bounding_box_train'}",
        "--figures",
        "--queries=2",
        "--config.data.layout=folder",
        f"--config.data.root={own}",
        "--config.data.folders=('a', 'b', 'c')",
        r"--config.data.pattern=(?P<camid>c\d)-(?P<pid>p\d+)-",
        "--config.eval.batch_size=16",
    )
    first, second = (
        json.loads((tmp_path / name / "results.json").read_text()) for name in ("first", "second")
    )
    metrics = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert first["mAP"] == pytest.approx(metrics[-1]["mAP"], abs=1e-6)
    assert first["protocol"]["multi_query"] == "max"
    assert second["protocol"]["rerank"]
    assert second["protocol"]["gallery_extra"] > 0
    assert second["dataset"]["layout"] == "folder"
    assert second["queries"] == first["queries"]
    assert 0 < second["mAP"] <= 1
    for name in ("first", "second"):
        assert (tmp_path / name / "gradcam.png").exists()
    said = fail("eval.py", f"--workdir={workdir}", f"--figure-queries={queries[0]},gone.jpg")
    assert "no query matches 'gone.jpg'" in said


def start(program, *arguments):
    done = subprocess.run(
        [sys.executable, program, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
