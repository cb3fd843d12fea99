import pytest

from reid_jax.training.calendar import Calendar
from tests.test_configs import load


def calendar(**leaves):
    config = load("pmm_synthetic", "small")
    config.epochs = 5
    config.eval.every_epochs, config.checkpoint.every_epochs, config.log.every_steps = 2, 1, 4
    config.update(leaves)
    return Calendar.from_recipe(config, 3)


def test_steps_are_counted_in_epochs():
    assert calendar().total_steps == 15
    assert [calendar().epoch(step) for step in (0, 3, 4)] == [0, 1, pytest.approx(4 / 3)]


@pytest.mark.parametrize(
    ("kind", "due"),
    [("log", [4, 8, 12, 15]), ("checkpoint", [3, 6, 9, 12, 15]), ("eval", [6, 12, 15])],
)
def test_everything_is_due_in_its_period_and_at_the_end(kind, due):
    assert [step for step in range(1, 16) if calendar().is_due(step, kind)] == due


def test_one_of_several_is_enough():
    due = [step for step in range(1, 16) if calendar().is_due(step, "log", "eval")]
    assert due == [4, 6, 8, 12, 15]


@pytest.mark.parametrize(
    ("max_steps", "total", "length"),
    [(7, 7, "max_steps is 7"), (15, 15, "epochs is 5, 15 steps"), (0, 15, "epochs is 5, 15 steps")],
)
def test_a_budget_ends_a_run_early(max_steps, total, length):
    got = calendar(max_steps=max_steps)
    assert (got.total_steps, got.length) == (total, length)
    assert got.is_due(total, "eval")
