import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from reid_jax.cli import reproduce as command
from reid_jax.reproduce import plan, runner
from reid_jax.reproduce.plan import Settings
from reid_jax.reproduce.tables import DATASETS
from reid_jax.runs.metrics import read_metrics
from reid_jax.runtime.messages import TRY_AGAIN, Preempted
from tests.reproduce.stand_in import ROOT, calls, ended, read

# Runs the command line in a separate process, in the folder of the first argument, with an extra
# table.
COMMAND_LINE = """
    import os, runpy, sys
    from reid_jax.reproduce.tables import TABLES, Row, Table
    os.chdir(sys.argv.pop(1))
    rows = (Row("B", "baseline", words=("triplet",)),)
    TABLES["test"] = Table("For tests", ("synthetic",), ("Rank-1", "mAP"), rows)
    runpy.run_module("reid_jax.reproduce", run_name="__main__")
"""


def start(folder, *arguments):
    program = [sys.executable, "-c", textwrap.dedent(COMMAND_LINE), str(folder), *arguments]
    return subprocess.Popen(
        program,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def wait_until(condition, process, seconds=300):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_dry_run_prints_the_commands_to_come(settings, capsys, monkeypatch):
    monkeypatch.chdir(settings.folder)
    (settings.folder / DATASETS["market"].root).mkdir(parents=True)
    options = ["--seeds=1", f"--workdir={settings.workdir}", "--steps=3"]
    command.main(["hbfp-table2", "--dry-run", *options, "--config.optim.lr=1e-3"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 11
    assert lines[0] == (
        "python -m reid_jax train --config=baseline_market:triplet "
        "--workdir=runs/baseline_market-triplet-max_steps=3-optim.lr=1e-3/seed0 --config.seed=0 "
        "--config.max_steps=3 --config.optim.lr=1e-3"
    )
    assert not settings.workdir.exists()
    assert calls(settings) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pmm-table1"], "invalid choice: 'pmm-table1'"),
        (["synthetic", "--seeds=0"], "'0' is not a whole number of at least 1"),
        (["synthetic", "--step=5"], "unknown argument '--step=5'"),
        (["synthetic", "--config.epochs", "5"], "--config.LEAF=VALUE"),
        (["synthetic", "--config.seed=5"], "--config.seed=5: name --seeds instead"),
        (["synthetic", "--config.data.root=x"], "name --market, --duke, "),
    ],
)
def test_mistakes_are_named(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        command.main(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_killed_alone_it_leaves_no_run_to_be_made_twice_at_once(settings, capfd):
    """The training that it leaves behind continues, and the next start waits for it."""
    hold = settings.folder / "wait"
    hold.write_text("bdb_synthetic/seed0")
    first = start(settings.folder, "synthetic", f"--workdir={settings.workdir}", "--seeds=1")
    wait_until(lambda: "start bdb_synthetic/seed0" in calls(settings), first)
    first.kill()
    first.wait()
    release = threading.Timer(0.3, hold.unlink)
    release.start()
    runner.reproduce("synthetic", Settings(settings.folder, settings.workdir, seeds=1))
    release.join()
    first.stdout.close()
    assert "waiting for another program that trains in" in capfd.readouterr().out
    twice = ["start bdb_synthetic/seed0", "end bdb_synthetic/seed0"] * 2
    assert calls(settings)[2:6] == twice
    # Finished runs are not repeated, and the rest follows.
    assert len(ended(settings)) == 1 + 2 + 6
    assert all(row["mean"] for row in read(settings, "synthetic")["rows"])


@pytest.mark.parametrize(
    ("number", "status", "last"),
    [
        (signal.SIGTERM, TRY_AGAIN, "stopped by SIGTERM: run the same command again to continue\n"),
        (signal.SIGINT, 130, "stopped by Ctrl-C: run the same command again to continue\n"),
    ],
)
def test_asked_to_end_it_takes_its_run_along(number, status, last, settings):
    (settings.folder / "wait").write_text("baseline_synthetic-triplet/seed0")
    first = start(settings.folder, "test", f"--workdir={settings.workdir}")
    wait_until(lambda: calls(settings), first)
    first.send_signal(number)
    # `communicate` ends when no process holds the other end of its output.
    printed, _ = first.communicate(timeout=30)
    assert first.returncode == status
    assert printed.endswith(last)
    assert "Traceback" not in printed
    assert ended(settings) == []


def test_asked_to_end_it_takes_all_runs_along(settings):
    (settings.folder / "wait").write_text("bdb_synthetic/seed0")
    first = start(settings.folder, "synthetic", "--jobs=2", f"--workdir={settings.workdir}")
    wait_until(lambda: len(ended(settings)) > 2, first)  # while one waits
    first.send_signal(signal.SIGTERM)
    printed, _ = first.communicate(timeout=30)
    assert first.returncode == TRY_AGAIN
    assert printed.endswith("stopped by SIGTERM: run the same command again to continue\n")
    assert "Traceback" not in printed
    assert "start bdb_synthetic/seed0" in calls(settings)
    assert "end bdb_synthetic/seed0" not in calls(settings)


def test_a_run_that_is_preempted_stops_the_table(settings):
    (settings.folder / "preempt").write_text("baseline_synthetic/seed0")
    with pytest.raises(Preempted, match="run the same command again to continue"):
        runner.reproduce("synthetic", settings)
    assert len(calls(settings)) == 1


@pytest.mark.slow
def test_killed_midway_it_goes_on_where_it_was(tmp_path, monkeypatch):
    """With the real training, all processes killed between its steps."""
    # A kill must not truncate files that other tests keep in the shared folder.
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "compiled"))
    workdir = tmp_path / "runs"
    arguments = (
        ROOT,
        "test",
        "--small",
        "--steps=24",
        "--seeds=1",
        f"--workdir={workdir}",
        f"--synthetic={tmp_path / 'pedestrians'}",
        "--config.data.loader=memory",
        "--config.checkpoint.every_epochs=2",  # of a step each
        "--config.devices=1",
    )
    first = start(*arguments)
    wait_until(lambda: list(workdir.glob("*/seed0/metrics.jsonl")), first)
    (folder,) = workdir.glob("*/seed0")
    wait_until(lambda: any(r["step"] >= 6 for r in read_metrics(folder)), first)
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    assert json.loads((workdir / "test.json").read_text())["rows"][0]["mean"] is None
    assert not (folder / plan.NAME).exists()

    second = start(*arguments)
    printed, _ = second.communicate(timeout=300)
    assert second.returncode == 0, printed
    assert 2 <= int(re.search(r"resuming from step (\d+)", printed).group(1)) < 24
    records = [record for record in read_metrics(folder) if record["kind"] == "eval"]
    assert [record["step"] for record in records] == [0, 16, 24]
    (row,) = json.loads((workdir / "test.json").read_text())["rows"]
    assert row["mean"] == pytest.approx(
        {name: 100 * records[-1][name] for name in ("Rank-1", "mAP")}
    )
    assert row["runs"][0]["resumed"]
    assert f"/ {row['mean']['mAP']:.1f} | 1 |" in printed


def test_it_starts_without_jax_and_tensorflow():
    program = (
        "import sys\n"
        "for name in ('jax', 'flax', 'tensorflow', 'matplotlib'): sys.modules[name] = None\n"
        "from reid_jax.cli.reproduce import main\n"
        "main(['synthetic', '--dry-run', '--seeds=1'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert len(done.stdout.splitlines()) == 8
