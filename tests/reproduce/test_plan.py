"""Tables of the papers: their printed figures, runs, results, and kills in between."""

import dataclasses
import json
import pathlib
import threading

import pytest

from reid_jax.reproduce import execution, plan, results, runner
from reid_jax.reproduce.plan import Settings, make_run
from reid_jax.reproduce.tables import DATASETS, TABLES, Row
from tests.reproduce.stand_in import ended, read


def test_a_run_has_a_command_and_a_folder_of_its_own(tmp_path):
    row = Row("R", "pmm", words=("cutmix",), leaves=("model.stages=2",))
    settings = Settings(
        tmp_path,
        tmp_path / "runs",
        small=True,
        steps=9,
        folders={"cuhk03_detected": pathlib.Path("/elsewhere/cuhk03")},
        overrides=("data.folders=('a b', 'c')",),
    )
    run = make_run(row, "cuhk03_detected", 2, settings)
    folder = "pmm_cuhk03-detected-cutmix-small-max_steps=9-data.folders=_a_b_,_c_-model.stages=2"
    assert run.workdir == tmp_path / "runs" / folder / "seed2"
    assert run.command == (
        "python -m reid_jax train --config=pmm_cuhk03:detected,cutmix,small "
        f"--workdir=runs/{folder}/seed2 --config.seed=2 --config.data.root=/elsewhere/cuhk03 "
        "--config.max_steps=9 '--config.data.folders=('\"'\"'a b'\"'\"', '\"'\"'c'\"'\"')' "
        "--config.model.stages=2"
    )
    plain = make_run(Row("R", "bdb"), "market", 0, Settings(tmp_path, tmp_path / "runs"))
    assert plain.command == (
        "python -m reid_jax train --config=bdb_market --workdir=runs/bdb_market/seed0 "
        "--config.seed=0"
    )


def test_long_names_of_folders_are_shortened_and_differ(tmp_path):
    def folder(last):
        leaves = tuple(f"data.folders=('{'x' * 90}', '{name}')" for name in ("y" * 90, last))
        settings = Settings(tmp_path, tmp_path / "runs", overrides=leaves)
        return make_run(Row("R", "bdb"), "market", 0, settings).workdir.parent.name

    first, second = folder("a"), folder("b")
    assert first != second
    assert first.startswith("bdb_market-data.folders=")
    assert (len(first), first) == (200, folder("a"))


def test_what_is_made_is_not_made_again(settings):
    for name in ("duke", "market", "cuhk03_detected"):
        (settings.folder / DATASETS[name].root).mkdir(parents=True)
    one = Settings(settings.folder, settings.workdir, seeds=1)
    runner.reproduce("pmm-table2", one)
    assert len(ended(settings)) == 6
    runner.reproduce("pmm-table2", one)
    assert len(ended(settings)) == 6
    # PMM's three runs are finished; those with another budget are different runs.
    runner.reproduce("pmm-table3", one)
    assert len(ended(settings)) == 6 + 9
    assert "pmm_market/seed0" not in ended(settings)[6:]
    runner.reproduce("pmm-table2", Settings(settings.folder, settings.workdir, seeds=1, steps=5))
    assert len(ended(settings)) == 15 + 6
    runner.reproduce("pmm-table2", Settings(settings.folder, settings.workdir, seeds=2))
    assert all(call.endswith("/seed1") for call in ended(settings)[21:])
    assert len(ended(settings)) == 21 + 6
    assert read(settings, "pmm-table2")["rows"][0]["spread"] is not None


def test_a_finished_run_of_another_command_is_handed_to_train(settings):
    """`train` decides whether it can resume in the folder."""
    run = make_run(TABLES["synthetic"].rows[0], "synthetic", 0, settings)
    execution.carry_out(run, settings.folder)
    path = run.workdir / plan.NAME
    left = json.loads(path.read_text())
    assert left["command"] == run.command
    assert left["resumed"] is False
    path.write_text(json.dumps(left | {"command": "python train.py --config=other"}))
    (run.workdir / "checkpoints").mkdir()
    execution.carry_out(run, settings.folder)
    assert len(ended(settings)) == 2
    assert plan.finished(run)["resumed"] is True
    path.write_text("{")
    with pytest.raises(ValueError, match=r"reproduced\.json is damaged"):
        execution.carry_out(run, settings.folder)


def test_a_run_that_a_former_version_finished_is_not_made_again(settings):
    """Its command is spelt differently, with the same recipe and leaves."""
    (settings.folder / DATASETS["market"].root).mkdir(parents=True)
    row = Row("R", "pmm", words=("cutmix",))
    run = make_run(row, "market", 1, dataclasses.replace(settings, small=True, steps=3))
    execution.carry_out(run, settings.folder)
    path = run.workdir / plan.NAME
    left = json.loads(path.read_text())
    command = (
        f"python train.py --config=configs/pmm_market.py:cutmix,small --workdir={run.workdir} "
        "--config.seed=1 --config.max_steps=3"
    )
    path.write_text(json.dumps(left | {"command": command}))
    assert plan.finished(run)["metrics"] == left["metrics"]
    for other in (
        command.replace("cutmix,", ""),
        command.replace("pmm_market", "pmm_duke"),
        command.replace("seed=1", "seed=0"),
        f"{command} --config.optim.lr=1.0",
        f"{command} --config.data.root=elsewhere",
    ):
        path.write_text(json.dumps(left | {"command": other}))
        assert plan.finished(run) is None


def test_a_failure_stops_with_its_command_and_keeps_the_tables(settings, capfd):
    (settings.folder / "fail").write_text("pmm_synthetic-cutmix/seed0")
    with pytest.raises(
        OSError, match=r"exit status 3 of python -m reid_jax train .*:cutmix .*seed=0"
    ):
        runner.reproduce("synthetic", settings)
    assert len(ended(settings)) == 4
    rows = read(settings, "synthetic")["rows"]
    assert [row["mean"] is not None for row in rows] == [True] * 4 + [False] * 4
    assert rows[0]["spread"] is None  # only one run
    markdown = (settings.workdir / "synthetic.md").read_text()
    assert "| Baseline | synthetic pedestrians | 50.0 / 87.5 / 10.0 | 1 |" in markdown

    (settings.folder / "fail").unlink()
    capfd.readouterr()
    runner.reproduce("synthetic", settings)
    assert len(ended(settings)) == len(set(ended(settings))) == 24
    printed = capfd.readouterr().out
    assert (
        "\n[5/24] PMM, CutMix, synthetic pedestrians, seed 0\npython -m reid_jax train" in printed
    )
    assert "| HBFP-Net | synthetic pedestrians | 50.0 ± 25.0 / 87.5 ± 0.0 /" in printed


def test_a_failure_beside_other_runs_stops_them_and_names_its_log(settings):
    (settings.folder / "fail").write_text("pmm_synthetic-cutmix/seed0")
    (settings.folder / "wait").write_text("bdb_synthetic/seed0")
    run = plan.plan(TABLES["synthetic"], settings)[4]
    with pytest.raises(OSError, match="exit status 3") as error:
        runner.reproduce("synthetic", settings, jobs=2)
    assert f"The error is at the end of {run.workdir / execution.LOG}" in str(error.value)
    assert "bdb_synthetic/seed0" not in ended(settings)  # It would wait for forty seconds.
    for name in ("fail", "wait"):
        (settings.folder / name).unlink()
    runner.reproduce("synthetic", settings, jobs=4)
    assert len(ended(settings)) == len(set(ended(settings))) == 24
    assert all(row["spread"] for row in read(settings, "synthetic")["rows"])


def test_runs_beside_others_leave_memory_to_them(settings, monkeypatch):
    monkeypatch.delenv("XLA_PYTHON_CLIENT_PREALLOCATE", raising=False)
    program = settings.folder / "reid_jax" / "__main__.py"
    program.write_text("import os\nprint(os.environ['XLA_PYTHON_CLIENT_PREALLOCATE'])\nexit(3)\n")
    run = plan.plan(TABLES["synthetic"], settings)[0]
    with pytest.raises(OSError, match="exit status 3"):
        execution.carry_out(run, settings.folder, threading.Event())
    assert (run.workdir / execution.LOG).read_text() == "false\n"


def test_data_that_is_not_at_hand_is_named(settings, tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        runner.reproduce("hbfp-table1", settings)
    for key in TABLES["hbfp-table1"].datasets:
        assert f"no folder {DATASETS[key].root}; set --{key}=FOLDER" in str(error.value)
    assert "`synthetic`" in str(error.value)
    assert not settings.workdir.exists()

    folder = tmp_path / "labeled"
    folder.mkdir()
    named = Settings(settings.folder, settings.workdir, 1, folders={"cuhk03_labeled": folder})
    runner.reproduce("hbfp-table1", named)
    assert ended(settings) == ["bdb_cuhk03-labeled/seed0", "hbfp_cuhk03-labeled/seed0"]
    assert f"--config.data.root={folder}" in read(settings, "hbfp-table1")["rows"][2]["command"]
    # A folder that the command line names must exist.
    typo = Settings(settings.folder, settings.workdir, folders={"duke": tmp_path / "typo"})
    with pytest.raises(FileNotFoundError, match=r"--duke=.*typo: there is no such folder"):
        runner.reproduce("hbfp-table1", typo)


def test_nothing_is_written_through_links(settings, tmp_path):
    """In a table's folder and in a run's, which may come from others."""
    outside = tmp_path / "outside"
    outside.write_text("precious")
    run = plan.plan(TABLES["synthetic"], settings)[0]
    run.workdir.mkdir(parents=True)
    for link, write in (
        (run.workdir / "lock", lambda: execution.carry_out(run, settings.folder)),
        (settings.workdir / "synthetic.md.tmp", lambda: results.write("synthetic", settings, {})),
    ):
        link.symlink_to(outside)
        with pytest.raises(ValueError, match=f"{link.name}' is a link"):
            write()
    assert outside.read_text() == "precious"
