"""The training loop of one start of a run, from its first step to its last."""

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
    """The parts of a run that the loop needs: the step, its calendar, and its reports.

    Attributes:
        step: (state, batch) to (state, metrics), over all devices.
        evaluate: evaluates a state and writes its checkpoint.
        calendar: when to log, evaluate and write checkpoints.
        record: the record of the run.
        progress: the progress reports of the run.
        preemption: checked after every step.
        wait: whether to wait for each step before the next. If not, the host runs ahead of the
            devices.
    """

    step: Callable[[TrainState, dict[str, Any]], tuple[TrainState, dict[str, jax.Array]]]
    evaluate: Callable[[TrainState], object]
    calendar: Calendar
    record: Record
    progress: TrainingProgress
    preemption: Preemption
    wait: bool = False

    def run(self, state: TrainState, batches: Iterable[dict[str, Any]], start_step: int) -> None:
        """Run the steps after `start_step`, one for each batch.

        Raises:
            FloatingPointError: the loss or its gradient is not finite. The message names the last
                good checkpoint.
            OSError: metrics or a checkpoint cannot be written.
            Preempted: SIGTERM or Ctrl-C was received. The checkpoint of the last step is already
                written.
        """
        waiting = []  # Metrics of the steps since the last look at them, on the devices.
        for done, batch in enumerate(batches, start=start_step + 1):
            state, scalars = self.step(state, batch)
            waiting.append(scalars)
            self.preemption.begin()
            if self.wait:
                jax.block_until_ready(scalars)

            first, stop = done == start_step + 1, self.preemption.due(done)
            if not (first or stop or self.calendar.is_due(done, "log", "eval", "checkpoint")):
                continue  # Values are read only at log steps, so that the host can run ahead.

            self.record.check()
            values = self._sum_up(waiting)
            waiting.clear()
            _check_finite(done, values, self.record)
            self._report(done, first, values)
            with self.progress.paused():
                if self.calendar.is_due(done, "eval"):
                    self.evaluate(state)
                elif stop or self.calendar.is_due(done, "checkpoint"):
                    self.record.save(state)
            if stop and done < self.calendar.total_steps:
                raise Preempted(
                    f"stopped by {self.preemption.cause} after step {done}; its checkpoint is "
                    "written. Run the same command again to continue"
                )

    def _sum_up(self, waiting: list[dict[str, jax.Array]]) -> dict[str, float]:
        """Add metrics to the interval; return its means and the other metrics' last values."""
        for scalars in jax.device_get(waiting):
            values = {name: float(x) for name, x in scalars.items()}
            self.record.interval.add(values)
        return values | self.record.interval.means()

    def _report(self, done: int, first: bool, values: dict[str, float]) -> None:
        """Show the progress after the first step and log steps, and record log steps."""
        logs = self.calendar.is_due(done, "log")
        if first or logs:
            epoch = self.calendar.epoch(done)
            rate = self.progress.report(done, epoch, values["loss"], values["lr"])
            if logs:
                speed = {} if rate is None else {"images_per_second": rate}
                self.record.write(done, "train", {"epoch": epoch, **values, **speed})
                self.record.interval.restart()


def _check_finite(step: int, values: dict[str, float], record: Record) -> None:
    """Raise FloatingPointError if a metric of the step, or a parameter after it, is not finite."""
    bad = {name: value for name, value in values.items() if not math.isfinite(value)}
    if bad:
        raise FloatingPointError(
            f"not finite at step {step}: {', '.join(f'{k} is {v}' for k, v in bad.items())}. The "
            f"last good checkpoint is {record.last_good}. Try a lower --config.optim.lr, with "
            "another --workdir"
        )
