"""Checkpoints of a run: written while training goes on, the newest and the best both kept.

A thin layer over Orbax. A folder holds one subfolder a step, and each of those up to three items:

    model/        params and batch_stats: all that evaluation needs
    optimizer/    opt_state and step: what resuming needs on top
    evaluation/   the metrics of the evaluation made at that step, as JSON, if there was one

A checkpoint that was made of others' weights has `model/` alone: it can be evaluated, not resumed.

Arrays are stored under the names of their leaves (`params/stem/kernel`), so that a checkpoint of
another network is recognised, and told leaf by leaf, before a single array is read.
"""

import contextlib
import dataclasses
import itertools
import json
import logging
import math
import os
import pathlib
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import jax
import orbax.checkpoint as ocp
import tensorstore
from flax import traverse_util

PyTree = Any

# What Orbax's names of folders hold that are no checkpoints yet. Ours, of those no longer, too.
_NO_CHECKPOINT = ".orbax-checkpoint-tmp"


class DamagedCheckpointError(OSError):
    """A checkpoint whose files are missing, cut short or unreadable."""


class CheckpointWriteError(OSError):
    """A checkpoint that could not be written; those before it are as they were."""


class Checkpoints:
    """The checkpoints in one folder. A context manager: leaving it waits for the last write.

    The newest `keep` checkpoints stay, and beside them the best, however old it is. Opening a
    folder changes nothing in it, so a run can be evaluated while it trains. A checkpoint whose
    writing was cut off by a kill does not count as one. Where several processes train, one of
    them alone has the folder.
    """

    def __init__(self, folder: str | os.PathLike[str], *, keep: int = 2, best_by: str = "mAP"):
        """Opens a folder, which need not exist before the first `save`.

        Args:
            folder: where the checkpoints are; relative paths are fine.
            keep: how many of the newest checkpoints stay, at least 1.
            best_by: the metric of `save` whose largest value marks the best checkpoint.

        Raises:
            ValueError: `keep` is below 1.
        """
        if keep < 1:
            raise ValueError(f"keep is {keep}, and at least the newest checkpoint has to stay")
        logging.getLogger("absl").addFilter(_is_not_orbax_chatter)
        # Orbax refuses relative paths, but only once it saves.
        self.folder = pathlib.Path(os.path.abspath(folder))
        self._best_by = best_by
        self._scores: dict[int, float] = {}  # By step, of the checkpoints that were evaluated.
        self._writing = None  # The step of the checkpoint being written.
        self._has_failed = False
        this_process = jax.process_index()
        self._manager = ocp.CheckpointManager(
            self.folder,
            options=ocp.CheckpointManagerOptions(
                create=False,
                preservation_policy=_NewestAndBest(keep, self._scores),
                # Renamed, then deleted by `_tidy`: a kill leaves no half of a checkpoint.
                todelete_subdir=f"deleted{_NO_CHECKPOINT}",
                # Orbax would wait for the other processes at every step of its own.
                multiprocessing_options=ocp.options.MultiprocessingOptions(
                    primary_host=this_process, active_processes={this_process}
                ),
            ),
        )
        for step in self._manager.all_steps():
            self._read_score(step)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *unused_exception) -> None:
        self.close()

    def close(self) -> None:
        """Waits for the checkpoint being written.

        Raises:
            CheckpointWriteError: it failed, and nobody was told yet.
        """
        with self._clear_write_errors():
            self._manager.close()
        if self._writing is not None:
            self._tidy()

    def check(self) -> None:
        """Waits for nothing.

        Raises:
            CheckpointWriteError: the checkpoint being written has failed.
        """
        with self._clear_write_errors():
            if not self._manager.is_saving_in_progress():
                self._manager.wait_until_finished()

    @contextlib.contextmanager
    def _clear_write_errors(self) -> Iterator[None]:
        """Around calls that raise what went wrong while a checkpoint was written."""
        try:
            yield
        except Exception as error:  # See `_read`.
            if self._has_failed:
                return  # Orbax says it again when it closes.
            self._has_failed = True
            self._tidy()  # The disk may be full of it.
            left = [int(path.name) for path in self.folder.glob("*") if path.name.isdigit()]
            good = f"The last good one is {self.path(max(left))}" if left else "There is no other"
            raise CheckpointWriteError(
                f"the checkpoint {self.path(self._writing)} could not be written "
                f"({_reason(error)}). {good}"
            ) from error

    @property
    def latest_step(self) -> int | None:
        """The step of the newest checkpoint, None where there is none."""
        return max(self._manager.all_steps(), default=None)

    @property
    def best_step(self) -> int | None:
        """The step of the checkpoint with the best metric, None where none was evaluated.

        The newest of equals. A metric that is not a number never counts as best.
        """
        return _best_step(self._manager.all_steps(), self._scores)

    def path(self, step: int) -> pathlib.Path:
        """The folder of the checkpoint of one step."""
        return self.folder / str(step)

    def save(self, state: PyTree, metrics: Mapping[str, float] | None = None) -> bool:
        """Starts to write a checkpoint, and returns once the state may be donated.

        The arrays have been copied to the host by then, and a thread writes the copy. What fails
        there is raised by the next `save` or by `close`.

        Args:
            state: has `step`, `params`, `batch_stats` and `opt_state`.
            metrics: the evaluation of this very state; with `best_by` among them.

        Returns:
            Whether it is written: not if this step, or a later one, has its checkpoint already,
            which is what a run resumed from it comes by.

        Raises:
            CheckpointWriteError: this checkpoint, or the one before it, could not be written.
            ValueError: `metrics` lacks `best_by`.
        """
        step = int(state.step)
        if not self._manager.should_save(step):
            return False
        state = jax.device_get(state)
        items = {
            "model": ocp.args.StandardSave(_as_nested_names(_model(state))),
            "optimizer": ocp.args.StandardSave(_as_nested_names(_optimizer(state))),
        }
        if metrics is not None:
            if self._best_by not in metrics:
                raise ValueError(
                    f"the best checkpoint goes by {self._best_by!r}, which is not among the "
                    f"metrics given: {sorted(metrics)}"
                )
            values = {name: float(value) for name, value in metrics.items()}
            items["evaluation"] = ocp.args.JsonSave(values)
            self._scores[step] = values[self._best_by]  # The save asks which one is best.
        return self._save(step, items)

    def save_model(self, variables: PyTree, step: int = 0) -> None:
        """Writes weights alone, which no run here made; returns once they are written.

        Args:
            variables: {"params", "batch_stats"} of the network.
            step: under which they are found.

        Raises:
            CheckpointWriteError: they could not be written.
        """
        variables = jax.device_get(variables)
        self._save(step, {"model": ocp.args.StandardSave(_as_nested_names(variables))})
        with self._clear_write_errors():
            self._manager.wait_until_finished()

    def _save(self, step: int, items: Mapping[str, Any]) -> bool:
        """Starts to write the items of a step, after the checkpoint before it is written."""
        with self._clear_write_errors():
            self._manager.wait_until_finished()
        self._tidy()
        self._writing, self._has_failed = step, False
        with self._clear_write_errors():
            # A workdir that went away does not come back as one that lacks all but this.
            self.folder.mkdir(parents=not self._manager.all_steps(), exist_ok=True)
            return self._manager.save(step, args=ocp.args.Composite(**items))

    def restore(self, state_like: PyTree) -> PyTree:
        """The state of the newest checkpoint that can be read, bit for bit, to go on from.

        Damaged newer ones are named in a warning and set aside as `<step>.damaged`, so that the
        run can write these steps again.

        Args:
            state_like: a state of the same network and optimizer, of arrays or, as of
                `jax.eval_shape`, of shapes. Arrays come back on the devices of its arrays, and on
                the default device where it has shapes. The number of devices that wrote the
                checkpoint does not matter.

        Returns:
            `state_like` with the arrays of the checkpoint.

        Raises:
            FileNotFoundError: the folder holds no checkpoint.
            DamagedCheckpointError: no checkpoint in it can be read.
            ValueError: it is of another network or optimizer; names the first leaf that differs. Or
                it holds weights alone.
        """
        can_be_resumed(self.folder)
        damaged = []
        for step in sorted(self._all_steps(), reverse=True):
            like = {"model": _model(state_like), "optimizer": _optimizer(state_like)}
            try:
                restored = self._read(step, like)
            except DamagedCheckpointError as error:
                damaged.append((step, error))
                continue
            for damaged_step, error in damaged:
                aside = _set_aside(self.path(damaged_step))
                warnings.warn(
                    f"{error}. It is now {aside.name}, and {self.path(step)} is used instead",
                    stacklevel=2,
                )
            if damaged:
                self._manager.reload()
            return dataclasses.replace(state_like, **restored["model"], **restored["optimizer"])
        raise damaged[0][1]

    def restore_model(
        self, model_like: PyTree, step: int | Literal["best", "latest"] = "best"
    ) -> PyTree:
        """The weights of one checkpoint, whatever optimizer made them.

        Args:
            model_like: {"params", "batch_stats"} of the network, arrays or shapes as in `restore`.
            step: which checkpoint; see `resolve`.

        Returns:
            `model_like` with the arrays of the checkpoint.

        Raises:
            FileNotFoundError: the folder holds no checkpoint, or not the one asked for.
            DamagedCheckpointError: it cannot be read. No other is taken in its place.
            ValueError: it is of another network; names the first leaf that differs.
        """
        return self._read(self.resolve(step), {"model": model_like})["model"]

    def resolve(self, step: int | Literal["best", "latest"]) -> int:
        """The step that "best" or "latest" stands for, or the given one if it has a checkpoint.

        "best" is the newest as long as none was evaluated.

        Raises:
            FileNotFoundError: there is no such checkpoint; names those that there are.
            ValueError: `step` is another string.
        """
        steps = sorted(self._all_steps())
        if step == "latest":
            return steps[-1]
        if step == "best":
            return steps[-1] if self.best_step is None else self.best_step
        if isinstance(step, str):
            raise ValueError(f"checkpoint {step!r}: say 'best', 'latest' or a step, of {steps}")
        if step not in steps:
            raise FileNotFoundError(f"no checkpoint of step {step} in {self.folder}, only {steps}")
        return step

    def _all_steps(self) -> Sequence[int]:
        steps = self._manager.all_steps()
        if not steps:
            raise FileNotFoundError(f"no checkpoint in {self.folder}")
        return steps

    def _tidy(self) -> None:
        """Deletes old checkpoints, and what kills and failures left of new ones."""
        for path in self.folder.glob(f"*{_NO_CHECKPOINT}*"):
            shutil.rmtree(path, ignore_errors=True)

    def _read_score(self, step: int) -> None:
        """Looks up the metric that the checkpoint of a step is ranked by, if it has one."""
        if not (self.path(step) / "evaluation").exists():
            return
        try:
            args = ocp.args.Composite(evaluation=ocp.args.JsonRestore())
            metrics = self._manager.restore(step, args=args)["evaluation"]
            self._scores[step] = metrics[self._best_by]
        except Exception as error:  # See `_read`.
            warnings.warn(f"{_damaged(self.path(step), error)}. Its metrics are lost", stacklevel=3)

    def _read(self, step: int, like: dict[str, PyTree]) -> dict[str, PyTree]:
        """Reads the items that `like` names, onto the devices of its leaves."""
        path = self.path(step)
        args = {}
        for item, tree in like.items():
            _check_same_leaves(path / item, self._saved_leaves(step, item), _by_name(tree))
            args[item] = ocp.args.StandardRestore(_as_nested_names(jax.tree.map(_target, tree)))
        try:
            restored = self._manager.restore(step, args=ocp.args.Composite(**args))
        except jax.errors.JaxRuntimeError:  # No fault of the files: out of device memory.
            raise
        except Exception as error:  # Whatever type TensorStore finds for a file that is no use.
            raise _damaged(path, error) from error
        leaves = {item: traverse_util.flatten_dict(restored[item], sep="/") for item in like}
        return {
            item: jax.tree.unflatten(
                jax.tree.structure(tree), map(leaves[item].get, _by_name(tree))
            )
            for item, tree in like.items()
        }

    def _saved_leaves(self, step: int, item: str) -> dict[str, Any]:
        """Names of the leaves of a stored item, with their shapes and dtypes."""
        path = self.path(step) / item
        try:
            _read_every_byte(path)
            tree = ocp.StandardCheckpointHandler().metadata(path).tree
            return traverse_util.flatten_dict(tree, sep="/")
        except Exception as error:  # See `_read`.
            raise _damaged(self.path(step), error) from error


def can_be_resumed(folder: str | os.PathLike[str]) -> bool:
    """Whether there is a checkpoint in a folder for a run to go on from. Reads no arrays.

    Raises:
        ValueError: the newest holds weights alone, on purpose.
    """
    steps = [path for path in pathlib.Path(folder).glob("*") if path.name.isdigit()]
    if not steps:
        return False
    newest = max(steps, key=lambda path: int(path.name))
    if _saved_items(newest) == {"model"}:
        raise ValueError(
            f"the checkpoint {newest} holds weights alone, which eval.py evaluates; there is no "
            "optimizer for a run to go on with. Choose another --workdir"
        )
    return True


def _saved_items(path: pathlib.Path) -> set[str] | None:
    """The items that a checkpoint was written with, whatever is left of them; None: unknown."""
    try:
        metadata = json.loads((path / "_CHECKPOINT_METADATA").read_text(encoding="utf-8"))
        return set(metadata["item_handlers"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


@dataclasses.dataclass(frozen=True)
class _NewestAndBest:
    """Which checkpoints stay when a new one has been written: Orbax's preservation policy.

    Not Orbax's own `max_to_keep` with `best_fn`, which keeps the best and deletes the newest.
    """

    keep: int
    scores: Mapping[int, float]

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        del context
        steps = sorted(checkpoint.step for checkpoint in checkpoints)
        stay = {*steps[-self.keep :], _best_step(steps, self.scores)}
        return [checkpoint.step in stay for checkpoint in checkpoints]


def _best_step(steps: Sequence[int], scores: Mapping[int, float]) -> int | None:
    scored = [step for step in steps if not math.isnan(scores.get(step, math.nan))]
    return max(scored, key=lambda step: (scores[step], step), default=None)


def _is_not_orbax_chatter(record: logging.LogRecord) -> bool:
    """A log filter: Orbax reports dozens of lines a save at INFO, and logs errors that it raises.

    Its warnings stay.
    """
    if "orbax" not in pathlib.Path(record.pathname).parts:
        return True
    return record.levelno >= logging.WARNING and not record.exc_info


def _model(state: PyTree) -> PyTree:
    return {"params": state.params, "batch_stats": state.batch_stats}


def _optimizer(state: PyTree) -> PyTree:
    return {"opt_state": state.opt_state, "step": state.step}


def _by_name(tree: PyTree) -> dict[str, Any]:
    """The leaves by name, `params/stem/kernel`, in the order of `jax.tree.leaves`."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _as_nested_names(tree: PyTree) -> dict[str, Any]:
    """Dictionaries in place of tuples and dataclasses, nodes without leaves dropped."""
    return traverse_util.unflatten_dict(_by_name(tree), sep="/")


def _target(leaf: Any) -> jax.ShapeDtypeStruct:
    """What to restore for a leaf, and onto which device."""
    sharding = getattr(leaf, "sharding", None)
    if sharding is None:
        sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _check_same_leaves(path: pathlib.Path, saved: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Raises ValueError for the first leaf whose presence, shape or dtype differs."""
    for name in dict.fromkeys([*wanted, *saved]):
        in_checkpoint = _describe(saved.get(name))
        in_run = _describe(wanted.get(name))
        if in_checkpoint != in_run:
            raise ValueError(
                f"the checkpoint {path} is of another network or optimizer than this run's: "
                f"{name} is {in_checkpoint} in the checkpoint and {in_run} in this run"
            )


def _describe(leaf: Any) -> str:
    return "absent" if leaf is None else f"{leaf.dtype}{list(leaf.shape)}"


def _damaged(path: pathlib.Path, error: Exception) -> DamagedCheckpointError:
    return DamagedCheckpointError(f"the checkpoint {path} is damaged ({_reason(error)})")


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"


def _read_every_byte(item: pathlib.Path) -> None:
    """Raises what is wrong with the files of an item; they carry checksums.

    Orbax would find it as well, in one of many threads, and print the stack of each.
    """
    base = {"driver": "file", "path": f"{item}/"}
    store = tensorstore.KvStore.open({"driver": "ocdbt", "base": base}).result()
    keys = store.list().result()
    if not keys:
        raise FileNotFoundError(f"{item.name}/ holds no array")
    for key in keys:
        store.read(key).result()


def _set_aside(path: pathlib.Path) -> pathlib.Path:
    """Renames a damaged checkpoint, so that its step can be written again."""
    names = (path.with_name(f"{path.name}.damaged{n or ''}") for n in itertools.count())
    return path.rename(next(name for name in names if not name.exists()))
