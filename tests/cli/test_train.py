"""`reid-jax train`: how it passes on its arguments."""

import pytest

from reid_jax.cli import train
from reid_jax.programs import train as program
from tests.test_configs import load


@pytest.fixture
def calls(monkeypatch):
    calls = []
    monkeypatch.setattr(program, "train", lambda *arguments: calls.append(arguments))
    return calls


def test_recipe_and_leaves_arrive(calls):
    train.main(["--workdir=run"])
    train.main(["--config=bdb_market:small", "--workdir=run", "--config.seed=3"])
    (default, first), (config, second) = calls
    assert default.to_dict() == load("pmm_synthetic").to_dict()
    assert config.seed == 3
    config.seed = 0
    assert config.to_dict() == load("bdb_market", "small").to_dict()
    assert first == second == "run"


def test_mistakes_end_the_program_before_it_starts(calls):
    with pytest.raises(SystemExit, match="epoch is not a leaf of this recipe; did you mean epochs"):
        train.main(["--workdir=run", "--config.epoch=3"])
    assert not calls
