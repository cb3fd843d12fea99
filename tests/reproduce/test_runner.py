"""A table from its plan to its files, with simulated runs."""

import pytest

from reid_jax.reproduce import results, runner
from reid_jax.reproduce.plan import Settings


@pytest.fixture
def settings(tmp_path):
    (tmp_path / "market").mkdir()
    return Settings(
        folder=tmp_path,
        workdir=tmp_path / "runs",
        seeds=2,
        small=False,
        steps=None,
        folders={"market": tmp_path / "market"},
        overrides=(),
    )


@pytest.fixture
def made(monkeypatch):
    """The runs that were carried out, and how often the table was written."""
    made = {"runs": [], "tables": 0}
    monkeypatch.setattr(runner, "finished", lambda run: run if run in made["runs"] else None)
    monkeypatch.setattr(runner, "carry_out", lambda run, *rest: made["runs"].append(run))

    def write(name, settings, absent):
        made["tables"] += 1
        return "| the table |"

    monkeypatch.setattr(results, "write", write)
    return made


def test_runs_that_are_due_are_carried_out_and_the_table_follows(settings, made, capsys):
    runner.reproduce("hbfp-table1", settings)
    assert [(run.row.name, run.seed) for run in made["runs"]] == [
        ("BDB+Cut", 0),
        ("HBFP-Net", 0),
        ("BDB+Cut", 1),
        ("HBFP-Net", 1),
    ]
    assert made["tables"] == 5  # Before the first run and after each.
    printed = capsys.readouterr().out
    assert "# left out: DukeMTMC-reID" in printed
    assert "[4/4] HBFP-Net, Market-1501, seed 1" in printed
    assert "| the table |" in printed
    runner.reproduce("hbfp-table1", settings)
    assert len(made["runs"]) == 4
    assert made["tables"] == 6


def test_several_runs_at_once_make_the_same_table(settings, made, capsys):
    runner.reproduce("hbfp-table1", settings, jobs=3)
    assert sorted((run.row.name, run.seed) for run in made["runs"]) == [
        *(("BDB+Cut", 0), ("BDB+Cut", 1), ("HBFP-Net", 0), ("HBFP-Net", 1))
    ]
    assert made["tables"] == 5
    assert "[4/4] HBFP-Net, Market-1501, seed 1: finished" in capsys.readouterr().out


def test_a_dry_run_prints_commands_only(settings, made, capsys):
    runner.reproduce("hbfp-table1", settings, dry_run=True)
    commands = [line for line in capsys.readouterr().out.splitlines() if " train " in line]
    assert len(commands) == 4
    assert all("--config.data.root=" in command for command in commands)
    assert (made["runs"], made["tables"]) == ([], 0)


def test_without_any_dataset_it_stops(settings, made):
    (settings.folder / "market").rmdir()
    with pytest.raises(FileNotFoundError):
        runner.reproduce("hbfp-table1", settings)
