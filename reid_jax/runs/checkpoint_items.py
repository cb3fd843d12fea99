"""The content of one checkpoint: items of arrays under the names of their leaves.

Arrays are stored under names such as `params/stem/kernel`, so that a checkpoint of another network
is recognised, and its first different leaf named, before any array is read.
"""

import contextlib
import errno
import itertools
import json
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp
import tensorstore
from flax import traverse_util

from reid_jax.runs.plain_path import plain_path

PyTree = Any

_METADATA = "_CHECKPOINT_METADATA"  # Orbax's file beside the items.
# The `errno` of OSErrors that mean damage: missing files, files of another kind, libraries' errors.
_DAMAGE = (errno.ENOENT, errno.EISDIR, errno.ENOTDIR, None)


class DamagedCheckpointError(OSError):
    """A checkpoint whose files are missing, truncated or changed."""


def can_be_resumed(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder has a checkpoint from which a run can resume. Reads no arrays.

    Raises:
        ValueError: the newest checkpoint holds only weights, on purpose.
    """
    steps = [path for path in pathlib.Path(folder).glob("*") if path.name.isdecimal()]
    if not steps:
        return False
    newest = max(steps, key=lambda path: int(path.name))
    if _saved_items(newest) == {"model"}:
        raise ValueError(
            f"the checkpoint {newest} holds only weights, which reid-jax eval evaluates; a run "
            "cannot resume without the optimizer's state. Choose another --workdir"
        )
    return True


def _saved_items(path: pathlib.Path) -> set[str] | None:
    """The items that a checkpoint was written with, even if files are lost; None if unknown."""
    try:
        metadata = json.loads((path / _METADATA).read_text(encoding="utf-8"))
        return set(metadata["item_handlers"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def read_metric(manager: ocp.CheckpointManager, path: pathlib.Path, name: str) -> float:
    """A metric of the evaluation in a checkpoint's folder.

    Raises:
        DamagedCheckpointError: it is damaged.
        OSError: as `check_items`.
    """
    args = ocp.args.Composite(evaluation=ocp.args.JsonRestore())
    with _damage_of(path):
        _check_readable(path / "evaluation")
        return manager.restore(int(path.name), args=args)["evaluation"][name]


def read_items(
    manager: ocp.CheckpointManager, path: pathlib.Path, like: Mapping[str, PyTree]
) -> dict[str, PyTree]:
    """Read items of a checkpoint onto the devices of the leaves of `like`.

    Args:
        manager: the manager of the checkpoints.
        path: the checkpoint's folder, whose name is its step.
        like: trees of arrays or shapes, by the names of the items.

    Returns:
        `like` with the arrays of the checkpoint.

    Raises:
        DamagedCheckpointError: it is damaged.
        OSError: as `check_items`.
        ValueError: it is of another network or optimizer. The message names the first different
            leaf.
    """
    check_items(path, like)
    args = {
        item: ocp.args.StandardRestore(as_nested_names(jax.tree.map(_target, tree)))
        for item, tree in like.items()
    }
    with _damage_of(path):
        restored = manager.restore(int(path.name), args=ocp.args.Composite(**args))
    leaves = {item: traverse_util.flatten_dict(restored[item], sep="/") for item in like}
    return {
        item: jax.tree.unflatten(jax.tree.structure(tree), map(leaves[item].get, _by_name(tree)))
        for item, tree in like.items()
    }


def check_items(path: pathlib.Path, like: Mapping[str, PyTree]) -> None:
    """Read every byte of items, and check that they have the leaves of `like`.

    Raises:
        OSError: a file cannot be read now, for example because of its permissions or too many open
            files; this is no sign of damage. The message names the file.
        DamagedCheckpointError, ValueError: as `read_items`.
    """
    with _damage_of(path):
        for name in (_METADATA, *like):
            _check_readable(path / name)
    for item, tree in like.items():
        _check_same_leaves(path / item, _saved_leaves(path, item), _by_name(tree))


def _saved_leaves(path: pathlib.Path, item: str) -> dict[str, Any]:
    """Names of the leaves of a stored item, with their shapes and dtypes."""
    with _damage_of(path), plain_path(path / item) as folder:
        _read_every_byte(folder)
        tree = ocp.StandardCheckpointHandler().metadata(folder).tree
        return traverse_util.flatten_dict(tree, sep="/")


def model_of(state: PyTree) -> PyTree:
    """The part of a training state that evaluation needs."""
    return {"params": state.params, "batch_stats": state.batch_stats}


def optimizer_of(state: PyTree) -> PyTree:
    """The part of a training state that resuming needs in addition to `model_of`."""
    return {"opt_state": state.opt_state, "step": state.step}


def trees_of(state: PyTree) -> dict[str, PyTree]:
    """What is saved of a training state, by item."""
    return {"model": model_of(state), "optimizer": optimizer_of(state)}


def as_item(tree: PyTree) -> ocp.args.StandardSave:
    """An item to save, of a copy on the host."""
    return ocp.args.StandardSave(as_nested_names(jax.device_get(tree)))


def _by_name(tree: PyTree) -> dict[str, Any]:
    """The leaves by name, `params/stem/kernel`, in the order of `jax.tree.leaves`."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def as_nested_names(tree: PyTree) -> dict[str, Any]:
    """Convert tuples and dataclasses to dictionaries, and drop nodes without leaves."""
    return traverse_util.unflatten_dict(_by_name(tree), sep="/")


def _target(leaf: Any) -> jax.ShapeDtypeStruct:
    """The array to restore for a leaf, and its device."""
    sharding = getattr(leaf, "sharding", None)
    if sharding is None:
        sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _check_same_leaves(path: pathlib.Path, saved: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Raise ValueError for the first leaf whose presence, shape or dtype differs."""
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


@contextlib.contextmanager
def _damage_of(path: pathlib.Path) -> Iterator[None]:
    """Raise DamagedCheckpointError for errors of a bad file, of which TensorStore has many types.

    Other errors pass: device memory is full, or the system does not give the file at the moment.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno not in _DAMAGE:
            raise
        raise DamagedCheckpointError(
            f"the checkpoint {path} is damaged ({reason(error)})"
        ) from error


def reason(error: Exception) -> str:
    """The type of an error and the first line of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"


def _check_readable(path: pathlib.Path) -> None:
    """Raise an OSError that names the file if one at or below a path cannot be read now.

    TensorStore and Orbax would report it like damage.
    """
    try:
        if path.is_dir():
            for child in path.iterdir():
                _check_readable(child)
        elif path.is_file():
            with path.open("rb") as file:
                while file.read(2**20):
                    pass
    except OSError as error:
        if error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error


def _read_every_byte(item: pathlib.Path) -> None:
    """Raise an error if the files of an item are damaged; they carry checksums.

    Orbax would find the damage too, but in one of many threads, and would print the stack of each.
    """
    base = {"driver": "file", "path": f"{item}/"}
    store = tensorstore.KvStore.open({"driver": "ocdbt", "base": base}).result()
    keys = store.list().result()
    if not keys:
        raise FileNotFoundError("it holds no array")
    for key in keys:
        store.read(key).result()


def set_aside(path: pathlib.Path) -> pathlib.Path:
    """Rename a damaged checkpoint, so that its step can be written again."""
    names = (path.with_name(f"{path.name}.damaged{n or ''}") for n in itertools.count())
    return path.rename(next(name for name in names if not name.exists()))
