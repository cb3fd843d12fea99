"""`reid-jax pack`: how it passes on its arguments."""

import pytest

from reid_jax.cli import pack
from reid_jax.programs import pack as program


@pytest.fixture
def calls(monkeypatch):
    calls = []
    monkeypatch.setattr(program, "pack_run", lambda *arguments: calls.append(arguments))
    return calls


def test_arguments_become_those_of_pack_run(calls):
    pack.main(["run", "out.safetensors"])
    pack.main(["run", "out.safetensors", "--checkpoint=best"])
    assert calls == [("run", "out.safetensors", "latest"), ("run", "out.safetensors", "best")]


@pytest.mark.parametrize("arguments", [[], ["run"], ["run", "out", "more"]])
def test_what_is_missing_or_too_much_is_refused(arguments, calls, capsys):
    with pytest.raises(SystemExit) as stop:
        pack.main(arguments)
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith("usage: reid-jax pack")
    assert not calls


def test_a_bad_run_is_one_line(tmp_path):
    with pytest.raises(SystemExit, match=r"^FileNotFoundError: .*run\.json is missing"):
        pack.main([str(tmp_path), str(tmp_path / "out.safetensors")])
