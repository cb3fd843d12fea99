"""The file `run.json` of a workdir: the config, and the data that the run was trained on.

Evaluation needs only this file to rebuild the network. Training rejects a workdir that holds
another run before it starts.
"""

import importlib.metadata
import json
import os
import pathlib
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from reid_jax.recipe import RecipeConfig, typed
from reid_jax.runs import packed_file
from reid_jax.runs.leaf_kinds import whole
from reid_jax.runs.own_files import check_own, is_own
from reid_jax.runs.settings import check_leaves
from reid_jax.runtime.files import local_path, write_text_atomically
from reid_jax.runtime.messages import counted, shown

NAME = "run.json"
CHECKPOINTS = "checkpoints"  # the folder beside it
METRICS = "metrics.jsonl"
CURVES = "curves.png"
SKIPPED = "skipped_images.json"  # beside the results of training or of an evaluation
SKIPPED_KEY = "skipped"  # the list in it

# Errors from reading a file that `write_run` did not write.
_DAMAGE = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)

# Leaves that were added later, with values that describe the former behaviour: they are added to a
# run that lacks them. First those of all recipes, then those of one network or one schedule.
_LATER_LEAVES = {
    "data": {"on_bad_image": "error", "skip_limit": 0.01, "also": (), "balanced": False},
    "augment": {"crop_padding": 0, "brightness": 0.0, "contrast": 0.0, "saturation": 0.0},
    "loss": {"triplet_weight": 1.0, "metric": "euclidean", "id_margin": 0.0},
    "optim": {"trunk_lr": 1.0, "frozen_epochs": 0},
    "eval": {"flip": False, "normalize": False},
    "model": {
        "trunk": {
            "block": "bottleneck",
            "ibn": False,
            "stem_width": 0,
            "base_width": 64,
            "stride_in_1x1": False,
        },
        "pretrained": "",
    },
}
_LATER_LEAVES_BY_CHOICE = (
    (
        "model",
        "name",
        {
            "baseline": {
                "classifier_std": 1e-3,
                "cosine_scale": 0.0,
                "pooling": "average",
                "neck": "none",
                "stripes": 0,
                "whole_dim": 0,
                "stripe_dim": 0,
            },
            "hbfp": {"classifier_std": 1e-3, "reduction": "sum", "neck": "none"},
        },
    ),
    ("optim", "schedule", {"exponential": {"warmup_epochs": 0}}),
)

# Leaves with the places of the training images and of skipped ones: runs over the same images may
# differ in them.
_OF_THE_IMAGES = ("data.root", "data.also", "data.on_bad_image", "data.skip_limit")

# Leaves that change the descriptors which an evaluation compares.
_OF_THE_SCORES = ("eval.flip", "eval.normalize")


def write_run(
    workdir: str | os.PathLike[str],
    config: RecipeConfig | Mapping[str, Any],
    num_classes: int,
    train_images: Mapping[str, int | str] | None = None,
    source: Mapping[str, int | str | None] | None = None,
) -> None:
    """Write `run.json` into a workdir, completely or not at all.

    Args:
        workdir: an existing folder.
        config: nested; its leaves are None, booleans, numbers, strings and tuples of these.
        num_classes: number of training identities, the width of the ID classifiers.
        train_images: from `datasets.fingerprint`, or None to omit them.
        source: the source of the weights, if no run made them.

    Raises:
        TypeError: a leaf is of another type. The message names it.
    """
    nested = _as_dict(config)
    for name, value in _leaves(nested):
        _check_leaf(name, value)
    run = {"reid_jax": version(), "num_classes": int(num_classes)}
    if train_images is not None:
        run["train_images"] = dict(train_images)
    if source is not None:
        run["source"] = dict(source)
    run["config"] = nested
    write_text_atomically(pathlib.Path(workdir) / NAME, json.dumps(run, indent=2) + "\n")


def read_run(workdir: str | os.PathLike[str]) -> tuple[RecipeConfig, int]:
    """Read the config and the number of training identities that `write_run` recorded.

    JSON has one kind of sequence: all are returned as tuples, which a config should use.

    Args:
        workdir: folder of a run, or a file of `reid-jax pack`.

    Returns:
        The config, locked against unknown leaves, and the number of training identities.

    Raises:
        FileNotFoundError: there is no `run.json`.
        ValueError: it is damaged, or a leaf is not what `settings.check_leaves` wants.
    """
    config, num_classes, _ = _read(workdir)
    return config, num_classes


def read_content(workdir: str | os.PathLike[str]) -> tuple[dict[str, Any], pathlib.Path]:
    """Read `run.json`, or what a packed file holds of it, and its path. Does not check leaves.

    Raises:
        FileNotFoundError, ValueError: as in `read_run`.
    """
    if packed_file.is_packed(workdir):
        return packed_file.read(workdir).run, pathlib.Path(local_path(workdir, "workdir"))
    path = pathlib.Path(local_path(workdir, "workdir")) / NAME
    try:
        return json.loads(path.read_text(encoding="utf-8")), path
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(
            f"{path} is missing: is {workdir} the --workdir of a training run?"
        ) from error
    except _DAMAGE as error:
        raise ValueError(f"{path} is damaged: {error!r}") from error


def _read(workdir: str | os.PathLike[str]) -> tuple[RecipeConfig, int, dict[str, Any] | None]:
    """Like `read_run`, with `train_images`: None if the run does not have it, like old ones."""
    run, path = read_content(workdir)
    try:
        config = _with_tuples(run["config"])
        _add_missing(config, _LATER_LEAVES)
        for section, choice, leaves in _LATER_LEAVES_BY_CHOICE:
            chosen = config[section].get(choice) if isinstance(config.get(section), dict) else None
            if isinstance(chosen, str):
                _add_missing(config[section], leaves.get(chosen, {}))
        config, num_classes = typed(ConfigDict(config).lock()), run["num_classes"]
        train_images = run.get("train_images")
        if train_images is not None:
            train_images = {"count": int(train_images["count"]), "sha256": train_images["sha256"]}
    except _DAMAGE as error:
        raise ValueError(f"{path} is damaged: {error!r}") from error
    check_leaves(config, source=str(path))
    classes = whole(2)
    if not classes.holds(num_classes):
        raise ValueError(f"{path}: num_classes is {num_classes!r}; it must be {classes.words}")
    return config, num_classes, train_images


def check_workdir(
    workdir: str | os.PathLike[str],
    config: RecipeConfig | Mapping[str, Any],
    num_classes: int,
    may_change: tuple[str, ...] = (),
    train_images: Mapping[str, int | str] | None = None,
) -> None:
    """Create a workdir if necessary, and check that this run may write and resume there.

    Args:
        workdir: folder for the run.
        config: the config of the run about to start.
        num_classes: its number of training identities.
        may_change: config leaves, or whole sections, that may differ from those of the run that
            the workdir holds: `("epochs", "eval")`.
        train_images: from `datasets.fingerprint`, or None not to compare them. If they equal those
            of the run in the workdir, `data.root`, `data.also`, `data.on_bad_image` and
            `data.skip_limit` may differ too.

    Warns if a setting that scores depend on differs.

    Raises:
        OSError: the workdir cannot be created or written to.
        FileExistsError: it holds `metrics.jsonl` or `curves.png` and no `run.json`, so they are of
            another program.
        ValueError: it holds a run with another config, number of identities or training images (the
            message names the leaves with both values), or a damaged `run.json`.
    """
    workdir = pathlib.Path(local_path(workdir, "workdir"))
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        # Permissions do not reveal a read-only file system or a full disk, nor apply to root.
        with tempfile.TemporaryFile(dir=workdir) as probe:
            probe.write(b"probe")
    except OSError as error:
        raise OSError(
            f"cannot write to the workdir {workdir}: {error.strerror}. Choose another --workdir"
        ) from error
    if not (workdir / NAME).exists():  # It is written before the others.
        for path in (workdir / METRICS, workdir / CURVES):
            if path.exists():
                raise FileExistsError(
                    f"{shown(path)} would be replaced, and the folder holds no run, because "
                    f"{NAME} is missing. Move the file, or choose another --workdir"
                )
        return
    old_config, old_num_classes, old_images = _read(workdir)
    old = {"number of identities": old_num_classes, **dict(_leaves(_as_dict(old_config)))}
    new = {"number of identities": num_classes, **dict(_leaves(_with_tuples(_as_dict(config))))}
    if old_images is not None and old_images == train_images:
        may_change = (*may_change, *_OF_THE_IMAGES)
    differences = [
        f"{name} is {_show(old, name)} there and {_show(new, name)} here"
        for name in dict.fromkeys([*old, *new])
        if _show(old, name) != _show(new, name) and not _is_among(name, may_change)
    ]
    if old_images is not None and train_images is not None and old_images != train_images:
        differences.append(_compare(int(old_images["count"]), int(train_images["count"])))
    if differences:
        raise ValueError(
            f"the workdir {workdir} holds another run: {'; '.join(differences)}. "
            "Choose another --workdir"
        )
    for name in _OF_THE_SCORES:
        if _show(old, name) != _show(new, name):
            warnings.warn(
                f"{name} was {_show(old, name)} in {shown(workdir)} and is {_show(new, name)} now: "
                "scores before and after are not comparable, nor is the choice of the best "
                "checkpoint",
                stacklevel=2,
            )


def report_skipped(
    folder: str | os.PathLike[str],
    skipped: Sequence[tuple[str, str]],
    say: Callable[[str], object],
    name: str = SKIPPED,
) -> None:
    """Write the skipped images and the reasons into `skipped_images.json`, and report it.

    If no image was skipped, the report of an earlier run is removed.

    Args:
        folder: an existing folder.
        skipped: paths and reasons, as `splits.Split.skipped`.
        say: called with a message if images were skipped.
        name: of the file.

    Raises:
        FileExistsError: images were skipped, and the file is of another program.
    """
    path = pathlib.Path(folder) / name
    if not skipped:
        if is_own(path, SKIPPED_KEY):
            path.unlink()
        return
    check_own(path, SKIPPED_KEY)
    listed = [{"path": name, "reason": reason} for name, reason in skipped]
    # JSON's ASCII form supports names with any bytes.
    write_text_atomically(path, json.dumps({SKIPPED_KEY: listed}, indent=2) + "\n")
    say(f"skipped {counted(len(skipped), 'bad image')}, listed in {shown(path)}")


def version() -> str:
    """The version of this package; `unknown` for a checkout that is not installed."""
    try:
        return importlib.metadata.version("reid_jax")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _as_dict(config: RecipeConfig | Mapping[str, Any]) -> dict[str, Any]:
    """The config, with paths that do not depend on the current folder."""
    nested = ConfigDict(config).to_dict()
    for section, leaf in (("data", "root"), ("model", "pretrained")):
        if nested.get(section, {}).get(leaf):
            path = local_path(nested[section][leaf], f"{section}.{leaf}")
            nested[section][leaf] = os.path.abspath(path)
    if nested.get("data", {}).get("also"):
        nested["data"]["also"] = tuple(map(_with_absolute_root, nested["data"]["also"]))
    return nested


def _with_absolute_root(entry: str) -> str:
    """An entry of `data.also`, with a path that does not depend on the current folder."""
    layout, _, root = entry.partition(":")
    return f"{layout}:{os.path.abspath(local_path(root, 'data.also'))}"


def _leaves(nested: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names and values: `("optim.lr", 1e-3)`."""
    for key, value in nested.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _check_leaf(name: str, value: Any) -> None:
    if isinstance(value, tuple | list):
        for element in value:
            _check_leaf(name, element)
    elif not isinstance(value, bool | int | float | str | None):
        raise TypeError(
            f"config.{name} holds {value!r} of type {type(value).__name__}: a config leaf is "
            "None, a boolean, a number, a string or a tuple of these"
        )


def _with_tuples(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _with_tuples(element) for key, element in value.items()}
    if isinstance(value, tuple | list):
        return tuple(_with_tuples(element) for element in value)
    return value


def _add_missing(section: dict[str, Any], leaves: Mapping[str, Any]) -> None:
    """Add missing leaves to a section and its sections; a missing section is not added."""
    for name, value in leaves.items():
        if not isinstance(value, Mapping):
            section.setdefault(name, value)
        elif isinstance(section.get(name), dict):
            _add_missing(section[name], value)


def _show(leaves: Mapping[str, Any], name: str) -> str:
    return repr(leaves[name]) if name in leaves else "absent"


def _compare(there: int, here: int) -> str:
    if there != here:
        return f"training images are {there:,} there and {here:,} here"
    return f"training images are {there:,} there and here, but others: names, sizes or identities"


def _is_among(name: str, may_change: tuple[str, ...]) -> bool:
    return any(name == other or name.startswith(other + ".") for other in may_change)
