"""Checkpoints of a run: written while training continues; the newest and the best are kept.

A thin layer over Orbax. A folder holds one subfolder a step, and each of those up to four items:

    model/        params and batch_stats, which evaluation needs
    optimizer/    opt_state and step, which resuming needs in addition
    evaluation/   the metrics of the evaluation made at that step, as JSON, if there was one
    interval/     sums for the next line of training metrics, as JSON, see `interval.Interval`

A checkpoint of converted weights has only `model/`: it can be evaluated, but not resumed.
"""

import contextlib
import dataclasses
import logging
import numbers
import os
import pathlib
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import orbax.checkpoint as ocp

from reid_jax.runs.checkpoint_items import (
    DamagedCheckpointError,
    PyTree,
    as_item,
    can_be_resumed,
    check_items,
    model_of,
    optimizer_of,
    read_items,
    read_metric,
    reason,
    set_aside,
    trees_of,
)
from reid_jax.runs.interval import ITEM, Interval
from reid_jax.runs.plain_path import plain_path
from reid_jax.runs.preservation import NewestAndBest, best_step

# In names of folders that are not checkpoints yet (Orbax's) or not any more (ours).
_NO_CHECKPOINT = ".orbax-checkpoint-tmp"


class CheckpointWriteError(OSError):
    """A checkpoint could not be written; earlier ones are unchanged."""


class Checkpoints:
    """The checkpoints in one folder. A context manager: leaving it waits for the last write.

    The newest `keep` checkpoints are kept, and in addition the best one, however old it is. Opening
    a folder does not change it, so a run can be evaluated while it trains. A checkpoint whose
    writing was interrupted by a kill does not count. If several processes train, only one of them
    opens the folder.
    """

    def __init__(self, folder: str | os.PathLike[str], *, keep: int = 2, best_by: str = "mAP"):
        """Open a folder, which may not exist before the first `save`.

        Args:
            folder: where the checkpoints are; relative paths are fine.
            keep: how many of the newest checkpoints to keep, at least 1.
            best_by: the metric of `save` whose largest value marks the best checkpoint.

        Raises:
            ValueError: `keep` is below 1.
            OSError: metrics, in a file that it names, cannot be read now.
        """
        if keep < 1:
            raise ValueError(
                f"keep is {keep}; it must be at least 1, to keep the newest checkpoint"
            )
        logging.getLogger("absl").addFilter(_is_not_orbax_chatter)
        # Orbax rejects relative paths, but only when it saves.
        self.folder = pathlib.Path(os.path.abspath(folder))
        self._best_by = best_by
        self._scores: dict[int, float] = {}  # By step, of the evaluated checkpoints.
        self._writer = _Writer(self.folder, keep, self._scores)
        self._manager = self._writer.manager
        self._scores.update(_read_scores(self._manager, self.folder, best_by))

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *unused_exception) -> None:
        self.close()

    def close(self) -> None:
        """Wait for the last write; raise CheckpointWriteError if it failed."""
        self._writer.close()

    def check(self) -> None:
        """Raise CheckpointWriteError if the last write has failed, without waiting for it."""
        self._writer.check()

    @property
    def latest_step(self) -> int | None:
        """The step of the newest checkpoint; None if there is no checkpoint."""
        return max(self._manager.all_steps(), default=None)

    @property
    def best_step(self) -> int | None:
        """The step of the checkpoint with the best metric; None if no checkpoint was evaluated.

        Among equals it is the newest. NaN is never the best.
        """
        return best_step(self._manager.all_steps(), self._scores)

    def path(self, step: int) -> pathlib.Path:
        """The folder of the checkpoint of one step."""
        return self.folder / str(step)

    def save(
        self,
        state: PyTree,
        metrics: Mapping[str, float] | None = None,
        interval: Interval | None = None,
    ) -> bool:
        """Start to write a checkpoint, and return once the state may be donated.

        A thread writes a copy on the host. Its errors are raised by the next `save` or by `close`.

        Args:
            state: has `step`, `params`, `batch_stats` and `opt_state`.
            metrics: the evaluation of this state, including `best_by`.
            interval: sums to continue from.

        Returns:
            Whether it is written. False if this step or a later one already has a checkpoint.

        Raises:
            CheckpointWriteError: this checkpoint, or the one before it, could not be written.
            ValueError: `metrics` lacks `best_by`.
        """
        step = int(state.step)
        if not self._manager.should_save(step):
            return False
        items = {item: as_item(tree) for item, tree in trees_of(state).items()}
        if interval is not None and interval.steps:
            items[ITEM] = ocp.args.JsonSave(interval.saved())
        if metrics is not None:
            values = _checked(metrics, self._best_by)
            items["evaluation"] = ocp.args.JsonSave(values)
            self._scores[step] = values[self._best_by]  # Saving needs it to find the best one.
        return self._writer.start(step, items)

    def verify(self, state: PyTree) -> None:
        """Raise CheckpointWriteError if the checkpoint of this state cannot be read back."""
        self._writer.verify(state)

    def save_model(self, variables: PyTree, step: int = 0) -> None:
        """Write only weights, converted from elsewhere; return once they are written.

        Args:
            variables: {"params", "batch_stats"} of the network.
            step: the step under which they are stored.

        Raises:
            CheckpointWriteError: they could not be written.
        """
        self._writer.start(step, {"model": as_item(variables)})
        self._writer.wait()

    def restore(self, state_like: PyTree) -> PyTree:
        """Restore the state of the newest undamaged checkpoint, bit for bit, to resume from it.

        Damaged newer ones are reported in a warning and set aside as `<step>.damaged`, so that the
        run can write these steps again.

        Args:
            state_like: a state of the same network and optimizer, of arrays or of shapes. Arrays
                are restored onto the devices of its arrays, or onto the default device for shapes.
                The checkpoint may have been written with another number of devices.

        Returns:
            `state_like` with the arrays of the checkpoint.

        Raises:
            FileNotFoundError: the folder holds no checkpoint.
            DamagedCheckpointError: all checkpoints in it are damaged.
            OSError: a file, which it names, cannot be read now. Checkpoints keep their names.
            ValueError: it is of another network or optimizer (the message names the first different
                leaf), or it holds only weights.
        """
        can_be_resumed(self.folder)
        damaged = []
        for step in sorted(self._all_steps(), reverse=True):
            try:
                restored = read_items(self._manager, self.path(step), trees_of(state_like))
            except DamagedCheckpointError as error:
                damaged.append((step, error))
                continue
            for damaged_step, damage in damaged:
                aside = set_aside(self.path(damaged_step))
                warnings.warn(
                    f"{damage}. It is now {aside.name}, and {self.path(step)} is used instead",
                    stacklevel=2,
                )
            if damaged:
                self._manager.reload()
            return dataclasses.replace(state_like, **restored["model"], **restored["optimizer"])
        raise damaged[0][1]

    def restore_model(self, model_like: PyTree, step: int | str = "best") -> PyTree:
        """Restore the weights of one checkpoint, for any optimizer.

        Args:
            model_like: {"params", "batch_stats"} of the network, arrays or shapes as in `restore`.
            step: which checkpoint; see `resolve`.

        Returns:
            `model_like` with the arrays of the checkpoint.

        Raises:
            FileNotFoundError: the folder holds no checkpoint, or not the requested one.
            DamagedCheckpointError: it is damaged. No other checkpoint replaces it.
            OSError: as `restore`.
            ValueError: it is of another network. The message names the first different leaf.
        """
        path = self.path(self.resolve(step))
        return read_items(self._manager, path, {"model": model_like})["model"]

    def resolve(self, step: int | str) -> int:
        """The step that "best" or "latest" stands for, or the given one if it has a checkpoint.

        "best" is the newest if no checkpoint was evaluated.

        Raises:
            FileNotFoundError: there is no such checkpoint. The message lists the existing ones.
            ValueError: `step` is another string, or no whole number.
        """
        steps = sorted(self._all_steps())
        if step == "latest":
            return steps[-1]
        if step == "best":
            return steps[-1] if self.best_step is None else self.best_step
        if isinstance(step, bool) or not isinstance(step, numbers.Integral):
            raise ValueError(f"checkpoint {step!r}: say 'best', 'latest' or a step, of {steps}")
        if step not in steps:
            raise FileNotFoundError(f"no checkpoint of step {step} in {self.folder}, only {steps}")
        return step

    def _all_steps(self) -> Sequence[int]:
        steps = self._manager.all_steps()
        if not steps:
            raise FileNotFoundError(f"no checkpoint in {self.folder}")
        return steps


def _checked(metrics: Mapping[str, float], best_by: str) -> dict[str, float]:
    """Metrics as Python floats; raises ValueError if `best_by` is not among them."""
    if best_by not in metrics:
        raise ValueError(
            f"{best_by!r} selects the best checkpoint, but is not among the metrics: "
            f"{sorted(metrics)}"
        )
    return {name: float(value) for name, value in metrics.items()}


def _read_scores(
    manager: ocp.CheckpointManager, folder: pathlib.Path, best_by: str
) -> dict[int, float]:
    """The metric that ranks checkpoints, by step, for all evaluated ones."""
    scores = {}
    for step in manager.all_steps():
        if (folder / str(step) / "evaluation").exists():
            try:
                scores[step] = read_metric(manager, folder / str(step), best_by)
            except DamagedCheckpointError as error:
                warnings.warn(f"{error}. Its metrics are lost", stacklevel=3)
    return scores


class _Writer:
    """Write one checkpoint at a time, in a thread of Orbax's `manager`, which it opens."""

    def __init__(self, folder: pathlib.Path, keep: int, scores: Mapping[int, float]):
        self._folder, self._link = folder, contextlib.ExitStack()
        self.manager = _open(self._link.enter_context(plain_path(folder)), keep, scores)
        self._writing: int | None = None  # The step of the checkpoint being written.
        self._has_failed = False

    def start(self, step: int, items: Mapping[str, Any]) -> bool:
        """Start to write the items of a step, once the previous checkpoint is written."""
        self.wait()
        self._tidy()
        self._writing, self._has_failed = step, False
        with self._clear_errors():
            # If the workdir has disappeared, do not recreate it with only this checkpoint.
            self._folder.mkdir(parents=not self.manager.all_steps(), exist_ok=True)
            return self.manager.save(step, args=ocp.args.Composite(**items))

    def wait(self) -> None:
        """Wait for the checkpoint being written; raise CheckpointWriteError if it failed."""
        with self._clear_errors():
            self.manager.wait_until_finished()

    def check(self) -> None:
        """Like `wait`, if the writing has ended; otherwise return at once."""
        with self._clear_errors():
            if not self.manager.is_saving_in_progress():
                self.manager.wait_until_finished()

    def verify(self, state: PyTree) -> None:
        """Like `wait`, and read every byte of the state's checkpoint."""
        self.wait()
        items = {"model": model_of(state), "optimizer": optimizer_of(state)}
        try:
            check_items(self._folder / str(int(state.step)), items)
        except (OSError, ValueError) as error:
            raise CheckpointWriteError(
                f"a checkpoint cannot be read back: {error}. Choose a --workdir on another disk"
            ) from error

    def close(self) -> None:
        """Like `wait`, and close the manager."""
        with self._link, self._clear_errors():
            self.manager.close()
        if self._writing is not None:
            self._tidy()

    @contextlib.contextmanager
    def _clear_errors(self) -> Iterator[None]:
        """A context for calls that raise errors of writing a checkpoint."""
        try:
            yield
        except Exception as error:  # TensorStore and Orbax raise many types.
            if self._has_failed:
                return  # Orbax raises it again when it closes.
            self._has_failed = True
            self._tidy()  # The failed checkpoint may fill the disk.
            left = [int(path.name) for path in self._folder.glob("*") if path.name.isdecimal()]
            newest = left and self._folder / str(max(left))
            good = f"The last good one is {newest}" if newest else "There is no other"
            raise CheckpointWriteError(
                f"the checkpoint {self._folder / str(self._writing)} could not be written "
                f"({reason(error)}). {good}"
            ) from error

    def _tidy(self) -> None:
        """Delete old checkpoints, and remains of new ones after kills and failures."""
        for path in self._folder.glob(f"*{_NO_CHECKPOINT}*"):
            shutil.rmtree(path, ignore_errors=True)


def _open(folder: pathlib.Path, keep: int, scores: Mapping[int, float]) -> ocp.CheckpointManager:
    """Orbax's manager of a folder that only this process uses."""
    this_process = jax.process_index()
    return ocp.CheckpointManager(
        folder,
        options=ocp.CheckpointManagerOptions(
            create=False,
            preservation_policy=NewestAndBest(keep, scores),
            # Checkpoints are renamed, then deleted by `_Writer`, so a kill leaves none half
            # deleted.
            todelete_subdir=f"deleted{_NO_CHECKPOINT}",
            # Otherwise Orbax would wait for the other processes at every step.
            multiprocessing_options=ocp.options.MultiprocessingOptions(
                primary_host=this_process, active_processes={this_process}
            ),
        ),
    )


def _is_not_orbax_chatter(record: logging.LogRecord) -> bool:
    """A log filter: Orbax logs dozens of lines per save at INFO, and the errors that it raises.

    Its warnings stay.
    """
    if "orbax" not in pathlib.Path(record.pathname).parts:
        return True
    return record.levelno >= logging.WARNING and not record.exc_info
