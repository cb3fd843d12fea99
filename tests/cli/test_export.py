"""`reid-jax export`: how it passes on its arguments."""

import pytest

from reid_jax.cli import export
from reid_jax.export import exporter


@pytest.fixture
def calls(monkeypatch):
    calls = []
    monkeypatch.setattr(exporter, "export_run", lambda *arguments: calls.append(arguments))
    return calls


def test_arguments_become_those_of_export_run(calls):
    export.main(["out", "--workdir=run"])
    export.main(["out", "--workdir=run", "--checkpoint=best", "--formats=onnx,stablehlo"])
    assert calls == [
        ("run", "out", "latest", None),
        ("run", "out", "best", ["onnx", "stablehlo"]),
    ]


@pytest.mark.parametrize("arguments", [["out"], ["--workdir=run"], ["out", "--workdir=r", "more"]])
def test_what_is_missing_or_too_much_is_refused(arguments, calls, capsys):
    with pytest.raises(SystemExit) as stop:
        export.main(arguments)
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith("usage: reid-jax export")
    assert not calls
