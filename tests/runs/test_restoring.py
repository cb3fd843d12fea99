"""The weights of a run's checkpoint for a network that exists."""

import jax
import numpy as np
import pytest

from reid_jax.runs.restoring import restore_variables
from tests import random_runs


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with checkpoints at steps 0 and 3, the first of which is the best."""
    workdir = tmp_path_factory.mktemp("runs") / "run"
    config, network, variables = random_runs.write(workdir, "bdb_synthetic", steps=(0, 3))
    return workdir, network, config.data.image_size, variables


def test_the_latest_checkpoint_is_the_default(run):
    workdir, network, size, wanted = run
    step, variables = restore_variables(network, size, workdir)
    assert step == 3
    jax.tree.map(np.testing.assert_array_equal, variables, dict(wanted))


def test_the_best_or_a_step_can_be_named(run):
    workdir, network, size, _ = run
    best, variables = restore_variables(network, size, str(workdir), "best")
    assert best == 0
    for step in (0, "0"):
        number, others = restore_variables(network, size, workdir, step)
        assert number == 0
        jax.tree.map(np.testing.assert_array_equal, variables, others)


def test_a_step_that_is_not_there_is_named(run):
    workdir, network, size, _ = run
    with pytest.raises(FileNotFoundError, match="7"):
        restore_variables(network, size, workdir, 7)
    for step in ("²", 3.0):
        with pytest.raises(ValueError, match=rf"checkpoint {step!r}: say .* of \[0, 3\]"):
            restore_variables(network, size, workdir, step)
