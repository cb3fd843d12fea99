"""`reid-jax weights`: the conversion that it chooses for a file and a recipe."""

import pytest

from reid_jax.cli import weights
from reid_jax.weights import conversion
from tests.test_configs import load


@pytest.fixture
def calls(monkeypatch):
    """Calls of the conversions; the name of a file decides whose weights it holds."""
    calls = []
    monkeypatch.setattr(conversion, "read", lambda path: path)
    monkeypatch.setattr(
        conversion, "program_of", lambda path: {"pmm.pth": "pmm", "bdb.pth": "bdb"}.get(path)
    )
    monkeypatch.setattr(conversion, "convert_trunk", lambda *arguments: calls.append(arguments))
    monkeypatch.setattr(conversion, "convert_program", lambda *arguments: calls.append(arguments))
    return calls


def test_a_trunk_takes_no_recipe(calls):
    weights.main(["resnet.pth", "out"])
    assert [str(argument) for argument in calls[0]] == ["resnet.pth", "out"]
    with pytest.raises(SystemExit, match="--config=pmm_market is for PMM and BDB"):
        weights.main(["resnet.pth", "out", "--config=pmm_market"])
    assert len(calls) == 1


def test_a_program_takes_its_recipe_for_market_or_another(calls):
    weights.main(["bdb.pth", "out"])
    weights.main(["pmm.pth", "out", "--config=pmm_duke:small", "--config.seed=3"])
    (_, first, default, _), (_, second, config, _) = calls
    assert (first, second) == ("bdb", "pmm")
    assert default.to_dict() == load("bdb_market").to_dict()
    assert config.seed == 3
    config.seed = 0
    assert config.to_dict() == load("pmm_duke", "small").to_dict()


def test_an_unknown_argument_is_refused(calls, capsys):
    with pytest.raises(SystemExit) as stop:
        weights.main(["pmm.pth", "out", "more"])
    assert stop.value.code == 2
    assert "unknown argument 'more'" in capsys.readouterr().err
