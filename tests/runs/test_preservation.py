"""Which checkpoints of a run are kept."""

import math
from types import SimpleNamespace

import pytest

from reid_jax.runs.preservation import NewestAndBest, best_step


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ({}, None),
        ({1: 0.5, 2: 0.5}, 2),
        ({1: 0.5, 3: 0.4}, 1),
        ({1: math.nan, 2: 0.1}, 2),
        ({7: 1.0}, None),
    ],
)
def test_the_best_step_is_the_newest_of_equals(scores, best):
    assert best_step([1, 2, 3], scores) == best


def test_the_newest_and_the_best_stay():
    policy = NewestAndBest(keep=2, scores={1: 0.9, 2: 0.1})
    checkpoints = [SimpleNamespace(step=step) for step in (1, 2, 3, 4)]
    assert policy.should_preserve(checkpoints, context=None) == [True, False, True, True]
