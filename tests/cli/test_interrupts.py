"""Ctrl-C in the commands that have no state to save: one line and exit code 130."""

import pytest

from reid_jax.cli import commands
from reid_jax.export import exporter
from reid_jax.programs import evaluate, pack
from reid_jax.runs.workdir import write_run
from reid_jax.search import searching
from reid_jax.weights import conversion
from tests.test_configs import load


def interrupt(*unused_arguments, **unused_options):
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("module", "name", "arguments"),
    [
        (evaluate, "evaluate_run", ["eval", "--workdir=run"]),
        (evaluate, "evaluate_run", ["eval", "--workdir=run", "--traceback"]),
        (searching, "search", ["search", "--workdir=run", "--gallery=g", "--query=q"]),
        (exporter, "export_run", ["export", "--workdir=run", "out"]),
        (pack, "pack_run", ["pack", "run", "out.safetensors"]),
        (conversion, "read", ["weights", "file", "out"]),
    ],
)
def test_ctrl_c_ends_a_command_with_one_line(
    module, name, arguments, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, name, interrupt)
    (tmp_path / "run").mkdir()
    write_run("run", load("baseline_synthetic", "small"), 2)
    with pytest.raises(SystemExit) as stop:
        commands.main(arguments)
    assert stop.value.code == 130
    assert capsys.readouterr().err == "stopped by Ctrl-C\n"
