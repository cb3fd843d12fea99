"""The record of a run in its workdir. With several hosts, only the first reads and writes there."""

import contextlib
import os
import pathlib
import warnings
from collections.abc import Mapping
from typing import Any, TypeVar

from reid_jax.recipe import RecipeConfig
from reid_jax.runs.checkpoints import Checkpoints
from reid_jax.runs.interval import Interval
from reid_jax.runs.lock import locked
from reid_jax.runs.metrics import MetricsWriter, read_metrics
from reid_jax.runs.workdir import CHECKPOINTS, CURVES, METRICS, write_run
from reid_jax.runtime import hosts
from reid_jax.runtime.messages import Preempted, shown, warn

State = TypeVar("State")  # `training.state.TrainState`


class Record:
    """Checkpoints, metrics and curves of one run.

    A context manager: leaving it ends writing. All hosts make the same calls. On all but the first
    they do nothing, unless stated otherwise.

    Attributes:
        interval: of the training metrics, which the loop adds to and checkpoints hold. After
            `restore`, the first host, which writes the metrics, continues from the checkpoint's.
    """

    def __init__(self, workdir: str | os.PathLike[str], *, keep: int):
        """Open and lock a workdir, which `check_workdir` has accepted.

        Args:
            workdir: the run's folder.
            keep: how many of the newest checkpoints to keep.

        Raises:
            BlockingIOError: another program trains there.
        """
        self._workdir = pathlib.Path(workdir)
        self._metrics: MetricsWriter | None = None
        self.interval = Interval()
        self._verified = False
        self._lock = contextlib.ExitStack()

        def open_checkpoints() -> Checkpoints | None:
            if not hosts.is_first():
                return None
            # First the lock: opening changes the folder.
            self._lock.enter_context(locked(self._workdir))
            return Checkpoints(self._workdir / CHECKPOINTS, keep=keep)

        self._checkpoints: Checkpoints | None = hosts.together(open_checkpoints)

    def __enter__(self) -> "Record":
        return self

    def __exit__(self, unused_type, exception: BaseException | None, unused_traceback) -> None:
        # After preemption, all must be saved. After other exceptions, errors below matter less.
        ends_well = exception is None or isinstance(exception, Preempted)
        try:
            if self._metrics is not None:
                self._metrics.close()
            if self._checkpoints is not None:
                self._checkpoints.close()
            if ends_well:
                self._check_workdir()
        except OSError as error:
            if ends_well:
                raise
            warnings.warn(str(error), stacklevel=2)
        finally:
            self._lock.close()

    def check(self) -> None:
        """Check for errors without waiting.

        Raises:
            CheckpointWriteError: the checkpoint being written has failed.
            FileNotFoundError: the workdir was removed.
        """
        if self._checkpoints is not None:
            self._checkpoints.check()
        self._check_workdir()

    def _check_workdir(self) -> None:
        # Orbax creates missing folders, and open files can be written to after their removal.
        if self._metrics is not None and not (self._workdir / METRICS).exists():
            raise FileNotFoundError(
                f"{self._workdir / METRICS} is gone: was the workdir removed while the run trained?"
            )

    def restore(self, state: State) -> State:
        """On every host, the state of the newest checkpoint that can be read, or `state` itself.

        Args:
            state: step 0 of the same network and optimizer.

        Raises:
            FileNotFoundError: there are metrics of later steps, but no checkpoint.
            OSError, ValueError: see `Checkpoints.restore`.
        """
        checkpoints = self._checkpoints
        exists = hosts.from_first(lambda: checkpoints and checkpoints.latest_step is not None)
        if not exists:
            hosts.together(self._check_not_lost)
            return state

        def read():
            if checkpoints is None:
                return state
            restored = checkpoints.restore(state)
            self.interval = Interval.read(checkpoints.path(int(restored.step)))
            return restored

        return hosts.tree_from_first(hosts.together(read))

    def _check_not_lost(self) -> None:
        """Check that a start at step 0 replaces no metrics of a run that lost its checkpoints."""
        if self._checkpoints is None or not (self._workdir / METRICS).exists():
            return
        # Step 0 has a checkpoint before the next step is recorded.
        last = max((record["step"] for record in read_metrics(self._workdir)), default=0)
        if last > 0:
            raise FileNotFoundError(
                f"no checkpoint in {self._workdir / CHECKPOINTS}, but {METRICS} holds step {last}: "
                f"put the checkpoints back, or, to start again from step 0, choose another "
                f"--workdir or move {self._workdir / METRICS}"
            )

    def begin(
        self, config: RecipeConfig, num_classes: int, train_images: Mapping[str, Any], step: int
    ) -> None:
        """Write `run.json`, see `write_run`, and open the metrics after a step."""
        if self._checkpoints is not None:
            write_run(self._workdir, config, num_classes, train_images)
            self._metrics = MetricsWriter(self._workdir, step)

    def write(self, step: int, kind: str, scalars: Mapping[str, Any]) -> None:
        """Write metrics of a step, see `MetricsWriter.write`."""
        if self._metrics is not None:
            self._metrics.write(step, kind, scalars)

    def save(self, state: Any, evaluation: Mapping[str, float] | None = None) -> None:
        """Write a checkpoint, see `Checkpoints.save`; read the first one of a start back."""
        if self._checkpoints is None:
            return
        if not self._checkpoints.save(state, evaluation, self.interval):
            return
        if not self._verified:
            self._checkpoints.verify(state)
            self._verified = True

    def draw(self) -> None:
        """Draw the curves of all metrics so far. A picture that cannot be written is a warning."""
        if self._checkpoints is not None:
            from reid_jax import visualize  # Here, because Matplotlib would delay the first step.

            curves = visualize.curves_figure(read_metrics(self._workdir))
            try:
                visualize.save(curves, self._workdir / CURVES)
            except OSError as error:  # The metrics, from which it can be drawn again, are written.
                warn(f"cannot write {shown(self._workdir / CURVES)}: {error.strerror or error}")

    @property
    def last_good(self) -> pathlib.Path:
        """The folder of the newest checkpoint; on the other hosts, the folder of all
        checkpoints."""
        newest = self._checkpoints and self._checkpoints.latest_step
        folder = self._workdir / CHECKPOINTS
        return folder if newest is None else folder / str(newest)
