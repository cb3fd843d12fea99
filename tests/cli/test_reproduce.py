"""`reid-jax reproduce`: how it passes on its arguments."""

import pathlib

import pytest

from reid_jax.cli import reproduce
from reid_jax.reproduce import runner


@pytest.fixture
def calls(monkeypatch):
    calls = []

    def stand_in(table, settings, dry_run, jobs):
        calls.append((table, settings, dry_run, jobs))

    monkeypatch.setattr(runner, "reproduce", stand_in)
    return calls


def test_arguments_become_settings(calls, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    reproduce.main(["pmm-table2"])
    reproduce.main(
        [
            *("cuhk03-half", "--seeds=1", "--small", "--steps=5", "--workdir=there", "--dry-run"),
            *("--cuhk03_detected=data/cuhk03", "--config.eval.flip=True", "--jobs=4"),
        ]
    )
    (table, settings, *rest), (second_table, second, *second_rest) = calls
    assert (table, rest) == ("pmm-table2", [False, 1])
    assert (second_table, second_rest) == ("cuhk03-half", [True, 4])
    assert settings.folder == pathlib.Path.cwd()
    assert settings.workdir == tmp_path / "runs" / "reproduce"
    assert (settings.seeds, settings.small, settings.steps) == (3, False, None)
    assert (second.seeds, second.small, second.steps) == (1, True, 5)
    assert second.workdir == tmp_path / "there"
    assert second.folders["cuhk03_detected"] == tmp_path / "data" / "cuhk03"
    assert second.overrides == ("eval.flip=True",)


def test_ctrl_c_is_one_line(monkeypatch, capsys):
    def stopped(*arguments, **others):
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "reproduce", stopped)
    with pytest.raises(SystemExit) as stop:
        reproduce.main(["pmm-table2"])
    assert stop.value.code == 130
    said = capsys.readouterr().err
    assert said == "stopped by Ctrl-C: run the same command again to continue\n"


@pytest.mark.parametrize(
    "argument", ["--config.seed=3", "--config.max_steps=3", "--config.data.root=x", "more"]
)
def test_leaves_with_an_option_of_their_own_are_refused(argument, calls, capsys):
    with pytest.raises(SystemExit) as stop:
        reproduce.main(["pmm-table2", argument])
    assert stop.value.code == 2
    assert argument.partition("=")[0].removeprefix("--config.") in capsys.readouterr().err
    assert not calls


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--market=data", "--market: the table synthetic has no Market-1501"),
        ("--jobs=0", "argument --jobs: '0' is not a whole number of at least 1"),
        ("--seeds=x", "argument --seeds: 'x' is not a whole number"),
        ("--steps=0", "argument --steps: '0' is not a whole number of at least 1"),
    ],
)
def test_invalid_arguments_are_reported(argument, message, calls, capsys):
    with pytest.raises(SystemExit) as stop:
        reproduce.main(["synthetic", argument])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
    assert not calls


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--config.no_such_leaf=1", r"^ValueError: .*: no_such_leaf is not a leaf of this recipe"),
        ("--config.epochs=many", r"epochs"),
        ("--config.epochs=0", r"epochs is 0; it must be a whole number, at least 1"),
    ],
)
@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_leaves_that_a_run_would_refuse_are_refused_before_the_first_run(
    argument, message, dry, calls, tmp_path
):
    with pytest.raises(SystemExit, match=message):
        reproduce.main(["synthetic", f"--workdir={tmp_path}", argument, *dry])
    assert not calls
