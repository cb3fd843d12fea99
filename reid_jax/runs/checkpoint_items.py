"""What one checkpoint holds: items of arrays under the names of their leaves.

Arrays are stored under names such as `params/stem/kernel`. So a checkpoint of another network is
recognised, and its first different leaf named, before a single array is read.
"""

import itertools
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp
import tensorstore
from flax import traverse_util

from reid_jax.runs.plain_path import plain_path

PyTree = Any


class DamagedCheckpointError(OSError):
    """A checkpoint whose files are missing, cut short or unreadable."""


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
            f"the checkpoint {newest} holds weights alone, which reid-jax eval evaluates; there is "
            "no optimizer for a run to go on with. Choose another --workdir"
        )
    return True


def _saved_items(path: pathlib.Path) -> set[str] | None:
    """The items that a checkpoint was written with, whatever is left of them; None: unknown."""
    try:
        metadata = json.loads((path / "_CHECKPOINT_METADATA").read_text(encoding="utf-8"))
        return set(metadata["item_handlers"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def read_metric(manager: ocp.CheckpointManager, path: pathlib.Path, name: str) -> float:
    """A metric of the evaluation that lies in a checkpoint's folder.

    Raises:
        DamagedCheckpointError: it cannot be read.
    """
    args = ocp.args.Composite(evaluation=ocp.args.JsonRestore())
    try:
        return manager.restore(int(path.name), args=args)["evaluation"][name]
    except Exception as error:  # See `read_items`.
        raise _damaged(path, error) from error


def read_items(
    manager: ocp.CheckpointManager, path: pathlib.Path, like: Mapping[str, PyTree]
) -> dict[str, PyTree]:
    """Reads items of a checkpoint onto the devices of the leaves of `like`.

    Args:
        manager: of the checkpoints.
        path: the checkpoint's folder, called by its step.
        like: by the names of the items, trees of arrays or shapes.

    Returns:
        `like` with the arrays of the checkpoint.

    Raises:
        DamagedCheckpointError: it cannot be read.
        ValueError: it is of another network or optimizer; names the first leaf that differs.
    """
    check_items(path, like)
    args = {
        item: ocp.args.StandardRestore(as_nested_names(jax.tree.map(_target, tree)))
        for item, tree in like.items()
    }
    try:
        restored = manager.restore(int(path.name), args=ocp.args.Composite(**args))
    except jax.errors.JaxRuntimeError:  # No fault of the files: out of device memory.
        raise
    except Exception as error:  # TensorStore raises many types for a bad file.
        raise _damaged(path, error) from error
    leaves = {item: traverse_util.flatten_dict(restored[item], sep="/") for item in like}
    return {
        item: jax.tree.unflatten(jax.tree.structure(tree), map(leaves[item].get, _by_name(tree)))
        for item, tree in like.items()
    }


def check_items(path: pathlib.Path, like: Mapping[str, PyTree]) -> None:
    """Reads every byte of items, and makes sure that they have the leaves of `like`.

    Raises:
        DamagedCheckpointError, ValueError: as `read_items`.
    """
    for item, tree in like.items():
        _check_same_leaves(path / item, _saved_leaves(path, item), _by_name(tree))


def _saved_leaves(path: pathlib.Path, item: str) -> dict[str, Any]:
    """Names of the leaves of a stored item, with their shapes and dtypes."""
    try:
        with plain_path(path / item) as folder:
            _read_every_byte(folder)
            tree = ocp.StandardCheckpointHandler().metadata(folder).tree
            return traverse_util.flatten_dict(tree, sep="/")
    except Exception as error:  # See `read_items`.
        raise _damaged(path, error) from error


def model_of(state: PyTree) -> PyTree:
    """What evaluation needs of a training state."""
    return {"params": state.params, "batch_stats": state.batch_stats}


def optimizer_of(state: PyTree) -> PyTree:
    """What resuming needs of a training state on top of `model_of`."""
    return {"opt_state": state.opt_state, "step": state.step}


def _by_name(tree: PyTree) -> dict[str, Any]:
    """The leaves by name, `params/stem/kernel`, in the order of `jax.tree.leaves`."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def as_nested_names(tree: PyTree) -> dict[str, Any]:
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
    return DamagedCheckpointError(f"the checkpoint {path} is damaged ({reason(error)})")


def reason(error: Exception) -> str:
    """The type of an error and the first line of its message."""
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
        raise FileNotFoundError("it holds no array")
    for key in keys:
        store.read(key).result()


def set_aside(path: pathlib.Path) -> pathlib.Path:
    """Renames a damaged checkpoint, so that its step can be written again."""
    names = (path.with_name(f"{path.name}.damaged{n or ''}") for n in itertools.count())
    return path.rename(next(name for name in names if not name.exists()))
