"""`reid-jax train`: how it passes on its arguments."""

import subprocess
import sys

import pytest

from reid_jax.cli import train
from reid_jax.programs import train as program
from tests.test_configs import load

# The program on a machine where the import of JAX fails.
BLOCKED = """
import importlib.abc, sys
from reid_jax.cli import train

class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "jax":
            raise RuntimeError("JAX is imported")

sys.meta_path.insert(0, Blocked())
train.main()
"""


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


def test_the_first_line_is_printed_before_jax_is_imported(tmp_path):
    """Seconds pass before the next line: JAX and TensorFlow are imported."""
    settings = ["--config=pmm_synthetic:small", f"--workdir={tmp_path / 'run'}"]
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED, *settings], capture_output=True, text=True, check=False
    )
    assert "JAX is imported" in done.stderr
    assert done.stdout == (
        f"loading JAX and TensorFlow to train pmm_synthetic:small in '{tmp_path / 'run'}' on "
        "synthetic data in 'data/synthetic-pedestrians-small'\n"
    )
