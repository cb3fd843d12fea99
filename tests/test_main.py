"""The packages that are programs: `python -m` runs the command of the same name."""

import runpy
import sys

import pytest

import reid_jax
from reid_jax.cli import commands


@pytest.mark.parametrize(
    ("module", "command"),
    [
        ("reid_jax.search", "search"),
        ("reid_jax.export", "export"),
        ("reid_jax.weights", "weights"),
        ("reid_jax.pretrained", "weights"),
        ("reid_jax.reproduce", "reproduce"),
    ],
)
def test_a_package_is_its_command(module, command, monkeypatch, capsys):
    def help_of(run):
        with pytest.raises(SystemExit) as stop:
            run()
        assert stop.value.code == 0
        return capsys.readouterr().out

    # runpy warns of a module that is imported already.
    for name in (f"{module}.__main__", "reid_jax.pretrained"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(sys, "argv", ["program", "--help"])
    shown = help_of(lambda: runpy.run_module(module, run_name="__main__"))
    wanted = help_of(lambda: commands.main([command, "--help"]))

    def unnamed(text):
        # The usage breaks lines where the program's name ends.
        text = " ".join(text.split())
        return text.replace(f"python -m {module}", "X").replace(f"reid-jax {command}", "X")

    assert f"python -m {module}" in shown
    assert unnamed(shown) == unnamed(wanted)


def test_the_package_is_all_commands(monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, "reid_jax.__main__", raising=False)
    monkeypatch.setattr(sys, "argv", ["program", "--version"])
    runpy.run_module("reid_jax", run_name="__main__")
    assert capsys.readouterr().out == f"reid-jax {reid_jax.__version__}\n"
