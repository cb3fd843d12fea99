"""What the loop does between steps, with a network that only counts. Whole runs: programs/."""

import types

import jax.numpy as jnp
import pytest

from reid_jax.runs.interval import Interval
from reid_jax.runtime.messages import Preempted
from reid_jax.training.calendar import Calendar
from reid_jax.training.loop import Loop


class Diary:
    """Record, progress and preemption in one object, which records its calls."""

    last_good = "checkpoints/4"
    cause = "Ctrl-C"

    def __init__(self, stop_at=None):
        self.events, self.stop_at = [], stop_at
        self.interval = Interval()

    def note(self, *event):
        self.events.append(event)

    def check(self):
        self.note("check")

    def write(self, step, kind, scalars):
        self.note("write", step, kind, scalars)

    def save(self, state):
        self.note("save", state)

    def report(self, step, epoch, loss, rate):
        self.note("report", step, epoch, loss, rate)
        return None if step == 1 else 50.0

    def paused(self):
        return self

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        pass

    def begin(self):
        pass

    def due(self, step):
        return step == self.stop_at


def run(diary, steps, start_step=0, losses=None, total_steps=8):
    calendar = Calendar(4, total_steps, "", {"log": 3, "eval": 4, "checkpoint": 2})

    def step(state, batch):
        loss = (losses or {}).get(state + 1, 0.5)
        return state + 1, {"loss": jnp.float32(loss), "lr": jnp.float32(0.25)}

    loop = Loop(
        step=step,
        evaluate=lambda state: diary.note("evaluate", state),
        calendar=calendar,
        record=diary,
        progress=diary,
        preemption=diary,
    )
    loop.run(start_step, [types.SimpleNamespace()] * steps, start_step)
    return [event for event in diary.events if event != ("check",)]


def test_each_thing_is_done_when_it_is_due():
    assert run(Diary(), 8) == [
        ("report", 1, 0.25, 0.5, 0.25),
        ("save", 2),
        ("report", 3, 0.75, 0.5, 0.25),
        ("write", 3, "train", {"epoch": 0.75, "loss": 0.5, "lr": 0.25, "images_per_second": 50.0}),
        ("evaluate", 4),
        ("report", 6, 1.5, 0.5, 0.25),
        ("write", 6, "train", {"epoch": 1.5, "loss": 0.5, "lr": 0.25, "images_per_second": 50.0}),
        ("save", 6),
        ("report", 8, 2.0, 0.5, 0.25),
        ("write", 8, "train", {"epoch": 2.0, "loss": 0.5, "lr": 0.25, "images_per_second": 50.0}),
        ("evaluate", 8),
    ]


def test_lines_hold_the_means_of_their_steps():
    diary = Diary()
    events = run(diary, 8, losses={step: float(step) for step in range(1, 9)})
    assert [(e[1], e[3]["loss"]) for e in events if e[0] == "write"] == [
        (3, 2.0),
        (6, 5.0),
        (8, 7.5),
    ]
    assert [(e[1], e[3]) for e in events if e[0] == "report"] == [
        (1, 1.0), (3, 2.0), (6, 5.0), (8, 7.5),
    ]  # fmt: skip
    assert diary.interval.steps == 0


def test_a_resumed_run_counts_on():
    events = run(Diary(), 3, start_step=5)
    assert [event[:2] for event in events if event[0] != "write"] == [
        ("report", 6), ("save", 6), ("report", 8), ("evaluate", 8),
    ]  # fmt: skip


def test_nothing_is_checked_where_nothing_is_due():
    diary = Diary()
    run(diary, 8)
    assert diary.events.count(("check",)) == 6  # after steps 1, 2, 3, 4, 6 and 8


def test_a_stop_is_saved_and_raised():
    diary = Diary(stop_at=5)
    with pytest.raises(Preempted, match=r"^stopped by Ctrl-C after step 5; "):
        run(diary, 8)
    assert diary.events[-1] == ("save", 5)
    assert run(Diary(stop_at=8), 8)[-1] == ("evaluate", 8)  # The run has already ended.


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_stop_before_anything_is_written(loss):
    diary = Diary()
    message = r"^not finite at step 6: loss is (nan|inf)\. The last good checkpoint is .*points/4\."
    with pytest.raises(FloatingPointError, match=message):
        run(diary, 8, losses={6: loss})
    assert diary.events[-1] == ("check",)
    assert ("save", 6) not in diary.events
