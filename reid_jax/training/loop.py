"""The loop over training steps: what happens between the first step of a start and the last."""

import dataclasses
import math
from collections.abc import Callable, Iterable
from typing import Any

import jax

from reid_jax.runs.record import Record
from reid_jax.runtime.messages import Preempted
from reid_jax.runtime.preemption import Preemption
from reid_jax.runtime.progress import TrainingProgress
from reid_jax.training.calendar import Calendar
from reid_jax.training.state import TrainState


@dataclasses.dataclass(frozen=True, eq=False)
class Loop:
    """What the steps of a run are made with, and where they are reported.

    Attributes:
        step: (state, batch) to (state, metrics), over all devices.
        evaluate: evaluates a state and writes its checkpoint.
        calendar: when to log, evaluate and write checkpoints.
        record: of the run.
        progress: of the run.
        preemption: asked after every step.
        wait: wait for each step before the next. Otherwise the host runs ahead of the devices.
    """

    step: Callable[[TrainState, dict[str, Any]], tuple[TrainState, dict[str, jax.Array]]]
    evaluate: Callable[[TrainState], object]
    calendar: Calendar
    record: Record
    progress: TrainingProgress
    preemption: Preemption
    wait: bool = False

    def run(self, state: TrainState, batches: Iterable[dict[str, Any]], start_step: int) -> None:
        """Makes the steps after `start_step`, one for each batch.

        Raises:
            FloatingPointError: the loss or its gradient is not finite; names the last good
                checkpoint.
            OSError: metrics or a checkpoint cannot be written.
            Preempted: SIGTERM or Ctrl-C came; the checkpoint of the last step is written.
        """
        for done, batch in enumerate(batches, start=start_step + 1):
            state, scalars = self.step(state, batch)
            self.preemption.begin()
            if self.wait:
                jax.block_until_ready(scalars)

            first, stop = done == start_step + 1, self.preemption.due(done)
            if not (first or stop or self.calendar.is_due(done, "log", "eval", "checkpoint")):
                continue  # Nothing is read from the devices: they run ahead.

            self.record.check()
            values = {name: float(x) for name, x in jax.device_get(scalars).items()}
            _check_finite(done, values, self.record)
            self._report(done, first, values)
            with self.progress.paused():
                if self.calendar.is_due(done, "eval"):
                    self.evaluate(state)
                elif stop or self.calendar.is_due(done, "checkpoint"):
                    self.record.save(state)
            if stop and done < self.calendar.total_steps:
                raise Preempted(
                    f"stopped by {self.preemption.cause} after step {done}, whose checkpoint is "
                    "written: run the same command again to resume"
                )

    def _report(self, done: int, first: bool, values: dict[str, float]) -> None:
        """Shows the progress after the first step and log steps, and records log steps."""
        logs = self.calendar.is_due(done, "log")
        if first or logs:
            epoch = self.calendar.epoch(done)
            rate = self.progress.report(done, epoch, values["loss"])
            if logs:
                speed = {} if rate is None else {"images_per_second": rate}
                self.record.write(done, "train", {"epoch": epoch, **values, **speed})


def _check_finite(step: int, values: dict[str, float], record: Record) -> None:
    """Raises FloatingPointError if a metric of the step, or the parameters it made, are not."""
    bad = {name: value for name, value in values.items() if not math.isfinite(value)}
    if bad:
        raise FloatingPointError(
            f"not finite at step {step}: {', '.join(f'{k} is {v}' for k, v in bad.items())}. The "
            f"last good checkpoint is {record.last_good}. A lower --config.optim.lr may help, in "
            "another --workdir"
        )
