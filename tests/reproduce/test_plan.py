"""Tables of the papers: what is printed, what is run, what is written, and kills in between."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from reid_jax.reproduce import __main__ as command
from reid_jax.reproduce import plan, results
from reid_jax.reproduce.plan import Settings, make_run
from reid_jax.reproduce.tables import DATASETS, TABLES, Row
from reid_jax.runs.metrics import read_metrics
from reid_jax.runs.settings import check
from reid_jax.runtime.messages import TRY_AGAIN, Preempted
from tests.test_configs import load

ROOT = pathlib.Path(__file__).parents[2]
CELLS = [
    pytest.param(row, dataset, id=f"{name}-{row.name}-{dataset}")
    for name, table in TABLES.items()
    for row in table.rows
    for dataset in table.datasets
]

# Stands for train.py: notes its start and its end, waits (not for ever), fails or is preempted
# where a file `wait`, `fail` or `preempt` holds its folder's name, and measures what its seed says.
FAKE_TRAIN = """
    import json, pathlib, sys, time
    leaves = dict(argument.removeprefix("--").split("=", 1) for argument in sys.argv[1:])
    seed = int(leaves["config.seed"])
    workdir = pathlib.Path(leaves["workdir"])
    name = f"{workdir.parent.name}/{workdir.name}"

    def note(what):
        with open("calls", "a") as file:
            file.write(f"{what} {name}\\n")

    def is_to(what):
        return pathlib.Path(what).exists() and pathlib.Path(what).read_text() == name

    note("start")
    for _ in range(4000):
        if is_to("wait"):
            time.sleep(0.01)
    if is_to("fail"):
        sys.exit(3)
    if is_to("preempt"):
        sys.exit(75)
    final = {"Rank-1": (0.5, 0.75, 0.25)[seed], "Rank-5": 0.875, "mAP": (0.1, 0.2, 0.6)[seed]}
    with (workdir / "metrics.jsonl").open("w") as file:
        for step, values in enumerate([dict.fromkeys(final, 0.01), final]):
            line = {"step": step, "kind": "eval", "epoch": 1.0, "mINP": 0.05, "queries": 8}
            file.write(json.dumps(line | values) + "\\n")
        file.write(json.dumps({"step": 2, "kind": "train", "mAP": 0.0}) + "\\n")
    note("end")
"""

# Starts the command line in a process of its own, on the checkout named first, with a table more.
COMMAND_LINE = """
    import pathlib, runpy, sys
    from reid_jax.reproduce.tables import TABLES, Row, Table
    from reid_jax.runtime import checkout
    folder = pathlib.Path(sys.argv.pop(1))
    checkout.find_checkout = lambda: folder
    rows = (Row("B", "baseline", words=("triplet",)),)
    TABLES["test"] = Table("For tests", ("synthetic",), ("Rank-1", "mAP"), rows)
    runpy.run_module("reid_jax.reproduce", run_name="__main__")
"""


@pytest.fixture
def settings(tmp_path):
    """Of a checkout with a `train.py` that takes no time."""
    checkout = tmp_path / "checkout"
    (checkout / "configs").mkdir(parents=True)
    (checkout / "train.py").write_text(textwrap.dedent(FAKE_TRAIN))
    return Settings(checkout, checkout / "runs")


def calls(settings):
    path = settings.checkout / "calls"
    return path.read_text().splitlines() if path.exists() else []


def ended(settings):
    return [call.removeprefix("end ") for call in calls(settings) if call.startswith("end")]


def read(settings, name):
    return json.loads((settings.workdir / f"{name}.json").read_text())


def start(checkout, *arguments):
    program = [sys.executable, "-c", textwrap.dedent(COMMAND_LINE), str(checkout), *arguments]
    return subprocess.Popen(
        program,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def wait_until(condition, process, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(("row", "dataset"), CELLS)
@pytest.mark.parametrize("small", [False, True])
def test_every_row_is_a_recipe_that_can_be_run(row, dataset, small):
    run = make_run(row, dataset, 0, Settings(ROOT, ROOT / "runs", small=small, steps=7))
    name, string = re.fullmatch(r"--config=configs/(\w+)\.py:?(.*)", run.arguments[0]).groups()
    config = load(name, string)
    leaves = [argument.removeprefix("--config.") for argument in run.arguments[2:]]
    assert leaves[:2] == ["seed=0", "max_steps=7"]
    flat = dict(leaf.split("=") for leaf in leaves)
    config.update_from_flattened_dict(
        {key: int(value) if value.isdigit() else value for key, value in flat.items()}
    )
    check(config)
    assert config.model.name == row.network
    if DATASETS[dataset].root is not None:
        assert config.data.root == DATASETS[dataset].root


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_rows_have_a_figure_for_each_column(table):
    for row in table.rows:
        if table is not TABLES["synthetic"]:
            assert len(row.published) == len(table.datasets)
        for figures in row.published:
            figures = dict(zip(table.metrics, figures, strict=True))
            assert 50 < figures["mAP"] < figures["Rank-1"] < figures.get("Rank-5", 100)


def test_tables_agree_on_what_they_share(tmp_path):
    """The same network is one run, for which the papers print the same figures."""
    published, rows = {}, {}
    for name in ("pmm-table2", "pmm-table3", "hbfp-table1", "hbfp-table2", "hbfp-table3"):
        table = TABLES[name]
        for row in table.rows:
            for dataset, figures in zip(table.datasets, row.published, strict=True):
                run = make_run(row, dataset, 0, Settings(tmp_path, tmp_path))
                rows.setdefault(run.workdir, []).append((name, row.name))
                if row.network != "bdb":  # One is cited, one trained again.
                    figures = dict(zip(table.metrics, figures, strict=True))
                    before = published.setdefault(run.workdir, figures)
                    assert all(before.get(metric, x) == x for metric, x in figures.items())
    assert [("pmm-table2", "Ours"), ("pmm-table3", "A-Hard-Mix")] in rows.values()
    assert [("pmm-table2", "BDB*"), ("hbfp-table1", "BDB+Cut")] in rows.values()
    assert [("hbfp-table2", "HBFP"), ("hbfp-table3", "λ=0")] in rows.values()
    whole = [("hbfp-table1", "HBFP-Net"), ("hbfp-table2", "HBFP+GeP")]
    assert [*whole, ("hbfp-table3", "+ (λ=1.0)")] in rows.values()


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
        "python train.py --config=configs/pmm_cuhk03.py:detected,cutmix,small "
        f"--workdir=runs/{folder}/seed2 --config.seed=2 --config.data.root=/elsewhere/cuhk03 "
        "--config.max_steps=9 '--config.data.folders=('\"'\"'a b'\"'\"', '\"'\"'c'\"'\"')' "
        "--config.model.stages=2"
    )
    plain = make_run(Row("R", "bdb"), "market", 0, Settings(tmp_path, tmp_path / "runs"))
    assert plain.command == (
        "python train.py --config=configs/bdb_market.py --workdir=runs/bdb_market/seed0 "
        "--config.seed=0"
    )


def test_a_table_of_three_seeds(settings):
    for key in ("duke", "market"):
        (settings.checkout / DATASETS[key].root).mkdir(parents=True)
    command.reproduce("pmm-table3", settings)
    # Every row once before any row twice; the folder of CUHK03 is not there.
    words = ("-cutout", "-cutmix", "-attentive_cutmix", "")
    once = [f"pmm_{data}{word}" for word in words for data in ("market", "duke")]
    assert ended(settings) == [f"{name}/seed{seed}" for seed in range(3) for name in once]

    content = read(settings, "pmm-table3")
    assert list(content["left_out"]) == ["CUHK03-NP detected"]
    assert "--cuhk03_detected=FOLDER" in content["left_out"]["CUHK03-NP detected"]
    assert len(content["rows"]) == 12
    first = content["rows"][0]
    assert (first["row"], first["dataset"]) == ("CutOut", "Market-1501")
    assert first["published"] == {"Rank-1": 94.1, "mAP": 84.7}
    # Of 50, 75, 25 and of 10, 20, 60.
    assert first["mean"] == pytest.approx({"Rank-1": 50, "mAP": 30})
    assert first["spread"] == pytest.approx({"Rank-1": 25, "mAP": 700**0.5})
    assert [run["seed"] for run in first["runs"]] == [0, 1, 2]
    assert first["runs"][2]["metrics"] == pytest.approx(
        {"mINP": 5, "Rank-1": 25, "Rank-5": 87.5, "mAP": 60}
    )
    assert first["runs"][2]["command"].endswith("/pmm_market-cutout/seed2 --config.seed=2")
    absent = content["rows"][2]
    assert absent["dataset"] == "CUHK03-NP detected"
    assert absent["mean"] is absent["spread"] is absent["runs"][0]["metrics"] is None

    markdown = (settings.workdir / "pmm-table3.md").read_text()
    shown = "--workdir=runs/pmm_market-cutout/seedSEED --config.seed=SEED"
    assert (
        "| CutOut | Market-1501 | 94.1 / 84.7 | 50.0 ± 25.0 / 30.0 ± 26.5 | 3 | 0.0 | "
        f"`python train.py --config=configs/pmm_market.py:cutout {shown}` |" in markdown
    )
    assert "| CutOut | CUHK03-NP detected | 73.5 / 69.8 | — | 0 | — | `python" in markdown
    assert "Left out: CUHK03-NP detected, no folder data/cuhk03-np/detected; " in markdown


def test_what_is_made_is_not_made_again(settings):
    for name in ("duke", "market", "cuhk03_detected"):
        (settings.checkout / DATASETS[name].root).mkdir(parents=True)
    one = Settings(settings.checkout, settings.workdir, seeds=1)
    command.reproduce("pmm-table2", one)
    assert len(ended(settings)) == 6
    command.reproduce("pmm-table2", one)
    assert len(ended(settings)) == 6
    # PMM's three runs are made; those of another budget are others.
    command.reproduce("pmm-table3", one)
    assert len(ended(settings)) == 6 + 9
    assert "pmm_market/seed0" not in ended(settings)[6:]
    command.reproduce("pmm-table2", Settings(settings.checkout, settings.workdir, seeds=1, steps=5))
    assert len(ended(settings)) == 15 + 6
    command.reproduce("pmm-table2", Settings(settings.checkout, settings.workdir, seeds=2))
    assert all(call.endswith("/seed1") for call in ended(settings)[21:])
    assert len(ended(settings)) == 21 + 6
    assert read(settings, "pmm-table2")["rows"][0]["spread"] is not None


def test_a_finished_run_of_another_command_is_handed_to_train(settings):
    """Which knows whether it may go on with the folder."""
    run = make_run(TABLES["synthetic"].rows[0], "synthetic", 0, settings)
    plan.carry_out(run, settings.checkout)
    path = run.workdir / plan.NAME
    left = json.loads(path.read_text())
    assert left["command"] == run.command
    assert left["resumed"] is False
    path.write_text(json.dumps(left | {"command": "python train.py --config=other"}))
    (run.workdir / "checkpoints").mkdir()
    plan.carry_out(run, settings.checkout)
    assert len(ended(settings)) == 2
    assert plan.finished(run)["resumed"] is True
    path.write_text("{")
    with pytest.raises(ValueError, match=r"reproduced\.json is damaged"):
        plan.carry_out(run, settings.checkout)


def test_a_failure_stops_with_its_command_and_keeps_the_tables(settings, capfd):
    (settings.checkout / "fail").write_text("pmm_synthetic-cutmix/seed0")
    with pytest.raises(OSError, match=r"exit status 3 of python train\.py .*:cutmix .*seed=0"):
        command.reproduce("synthetic", settings)
    assert len(ended(settings)) == 4
    rows = read(settings, "synthetic")["rows"]
    assert [row["mean"] is not None for row in rows] == [True] * 4 + [False] * 4
    assert rows[0]["spread"] is None  # of one run
    markdown = (settings.workdir / "synthetic.md").read_text()
    assert "| Baseline | synthetic pedestrians | 50.0 / 87.5 / 10.0 | 1 |" in markdown

    (settings.checkout / "fail").unlink()
    capfd.readouterr()
    command.reproduce("synthetic", settings)
    assert len(ended(settings)) == len(set(ended(settings))) == 24
    printed = capfd.readouterr().out
    assert "\n[5/24] PMM, CutMix, synthetic pedestrians, seed 0\npython train.py" in printed
    assert "| HBFP-Net | synthetic pedestrians | 50.0 ± 25.0 / 87.5 ± 0.0 /" in printed


def test_data_that_is_not_at_hand_is_named(settings, tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        command.reproduce("hbfp-table1", settings)
    for key in TABLES["hbfp-table1"].datasets:
        assert f"no folder {DATASETS[key].root}; --{key}=FOLDER" in str(error.value)
    assert "`synthetic`" in str(error.value)
    assert not settings.workdir.exists()

    folder = tmp_path / "labeled"
    folder.mkdir()
    named = Settings(settings.checkout, settings.workdir, 1, folders={"cuhk03_labeled": folder})
    command.reproduce("hbfp-table1", named)
    assert ended(settings) == ["bdb_cuhk03-labeled/seed0", "hbfp_cuhk03-labeled/seed0"]
    assert f"--config.data.root={folder}" in read(settings, "hbfp-table1")["rows"][2]["command"]
    # A folder that is named has to be there.
    typo = Settings(settings.checkout, settings.workdir, folders={"duke": tmp_path / "typo"})
    with pytest.raises(FileNotFoundError, match=r"--duke=.*typo: there is no such folder"):
        command.reproduce("hbfp-table1", typo)


def test_the_markdown_says_what_it_is_not():
    settings = {"seeds": 1, "small": True, "steps": 9, "overrides": ["optim.lr=0.1"]}
    row = {
        "row": "BDB*|x",
        "dataset": "D",
        "published": {"mAP": 84.95, "Rank-1": 94.0},
        "mean": {"mAP": 1.25, "Rank-1": 2.0},
        "spread": None,
        "command": "python train.py 'a|b'",
        "runs": [{"metrics": {"mAP": 1.25, "Rank-1": 2.0}, "seconds": 90.0, "resumed": False}],
    }
    content = {
        "table": "t",
        "source": "Paper, table 7",
        "note": "A note.",
        "metrics": ["mAP", "Rank-1"],
        "settings": settings,
        "left_out": {"E": "no folder e"},
        "rows": [row],
    }
    assert results.as_markdown(content) == (
        "# t\n\n"
        "Paper, table 7. In per cent; mean ± sample standard deviation over the runs, which differ "
        "by their seed (SEED counts from 0 to 0); one run has no spread. A note. The published "
        "networks start from ImageNet weights, these from scratch. **Not the recipes' own "
        "settings, so no reproduction: `small`, a narrow network on small images, no cutout or "
        "erasing; at most 9 steps a run; `optim.lr=0.1`.**\n\n"
        "| row | dataset | published mAP / Rank-1 | measured mAP / Rank-1 | runs | minutes a run "
        "| command |\n"
        "| --- | --- | --- | --- | --- | --- | --- |\n"
        r"| BDB\*\|x | D | 85.0 / 94.0 | 1.2 / 2.0 | 1 | 1.5 | `python train.py 'a\|b'` |"
        "\n\nLeft out: E, no folder e.\n"
    )
    # The time of a run that went on is of its last part alone.
    row["runs"][0]["resumed"] = True
    assert "| 1 | — | `python" in results.as_markdown(content)
    row["published"] = None
    content["settings"] = settings | {"small": False, "steps": None, "overrides": []}
    markdown = results.as_markdown(content)
    assert "| row | dataset | measured mAP / Rank-1 | runs |" in markdown
    assert r"| BDB\*\|x | D | 1.2 / 2.0 | 1 |" in markdown
    assert "ImageNet" not in markdown
    assert "**" not in markdown


def test_nothing_is_written_through_links(settings, tmp_path):
    """In a table's folder and a run's, which may be another's."""
    outside = tmp_path / "outside"
    outside.write_text("precious")
    run = plan.plan(TABLES["synthetic"], settings)[0]
    run.workdir.mkdir(parents=True)
    for link, write in (
        (run.workdir / "lock", lambda: plan.carry_out(run, settings.checkout)),
        (settings.workdir / "synthetic.md.tmp", lambda: results.write("synthetic", settings, {})),
    ):
        link.symlink_to(outside)
        with pytest.raises(ValueError, match=f"{link.name}' is a link"):
            write()
    assert outside.read_text() == "precious"


def test_commands_are_code_whatever_folders_are_called():
    row = {"row": "R", "dataset": "D", "published": None, "mean": None, "spread": None, "runs": []}
    settings = {"seeds": 1, "small": False, "steps": None, "overrides": ["data.pattern=``x`"]}
    content = {
        **{"table": "t", "source": "S", "note": "", "metrics": ["mAP"], "settings": settings},
        **{"left_out": {}, "rows": [row | {"command": "a`<b>\n|\x1b\udcff"}]},
    }
    markdown = results.as_markdown(content)
    assert r"`` a`<b>\n\|\x1b\udcff `` |" in markdown
    assert "``` data.pattern=``x` ```" in markdown


def test_a_dry_run_prints_the_commands_to_come(settings, capsys, monkeypatch):
    monkeypatch.setattr(command, "find_checkout", lambda: settings.checkout)
    (settings.checkout / DATASETS["market"].root).mkdir(parents=True)
    options = ["--seeds=1", f"--workdir={settings.workdir}", "--steps=3"]
    command.main(["hbfp-table2", "--dry-run", *options, "--config.optim.lr=1e-3"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 11
    assert lines[0] == (
        "python train.py --config=configs/baseline_market.py:triplet "
        "--workdir=runs/baseline_market-triplet-max_steps=3-optim.lr=1e-3/seed0 --config.seed=0 "
        "--config.max_steps=3 --config.optim.lr=1e-3"
    )
    assert not settings.workdir.exists()
    assert calls(settings) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pmm-table1"], "invalid choice: 'pmm-table1'"),
        (["synthetic", "--seeds=0"], "0 is below 1"),
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
    """The `train.py` that it leaves behind goes on, and the next start waits for it."""
    hold = settings.checkout / "wait"
    hold.write_text("bdb_synthetic/seed0")
    first = start(settings.checkout, "synthetic", f"--workdir={settings.workdir}", "--seeds=1")
    wait_until(lambda: "start bdb_synthetic/seed0" in calls(settings), first)
    first.kill()
    first.wait()
    release = threading.Timer(0.3, hold.unlink)
    release.start()
    command.reproduce("synthetic", Settings(settings.checkout, settings.workdir, seeds=1))
    release.join()
    first.stdout.close()
    assert "waiting for the program that trains in" in capfd.readouterr().out
    twice = ["start bdb_synthetic/seed0", "end bdb_synthetic/seed0"] * 2
    assert calls(settings)[2:6] == twice
    # What was finished is not made again, and the rest follows.
    assert len(ended(settings)) == 1 + 2 + 6
    assert all(row["mean"] for row in read(settings, "synthetic")["rows"])


def test_asked_to_end_it_takes_its_run_along(settings):
    (settings.checkout / "wait").write_text("baseline_synthetic-triplet/seed0")
    first = start(settings.checkout, "test", f"--workdir={settings.workdir}")
    wait_until(lambda: calls(settings), first)
    first.terminate()
    # Ends once nobody holds the other end of its output.
    printed, _ = first.communicate(timeout=30)
    assert first.returncode == TRY_AGAIN
    assert printed.endswith("stopped by SIGTERM: the same command goes on here\n")
    assert ended(settings) == []


def test_a_run_that_is_preempted_stops_the_table(settings):
    (settings.checkout / "preempt").write_text("baseline_synthetic/seed0")
    with pytest.raises(Preempted, match="the same command goes on here"):
        command.reproduce("synthetic", settings)
    assert len(calls(settings)) == 1


@pytest.mark.slow
def test_killed_midway_it_goes_on_where_it_was(tmp_path):
    """With the real `train.py`, all processes killed between its steps."""
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
    printed, _ = second.communicate(timeout=100)
    assert second.returncode == 0, printed
    assert 2 <= int(re.search(r"going on from step (\d+)", printed).group(1)) < 24
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
        "from reid_jax.reproduce.__main__ import main\n"
        "main(['synthetic', '--dry-run', '--seeds=1'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert len(done.stdout.splitlines()) == 8
