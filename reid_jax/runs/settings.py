"""Checks of a recipe: each leaf by itself, and leaves that contradict each other.

`leaves` holds the allowed values. All problems are reported at once, before any work starts.
Conditions that depend on the data are checked with the data.
"""

import difflib
from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from reid_jax import choices
from reid_jax.recipe import AugmentConfig, DataConfig, OptimConfig, RecipeConfig, typed
from reid_jax.runs import leaves
from reid_jax.runs.leaf_kinds import ANYTHING, Leaf


def check(config: ConfigDict | RecipeConfig) -> None:
    """Check that a run can use the recipe `config`, as far as this is possible without data.

    Raises:
        ValueError: lists each leaf that is missing, unknown or has a bad value; if there is no such
            leaf, all contradictions.
    """
    check_leaves(config)
    _raise(list(_contradictions(typed(config))))


def check_leaves(config: ConfigDict | RecipeConfig, source: str = "") -> None:
    """Check each leaf by itself, for callers that use a part of a recipe.

    Args:
        config: a whole recipe.
        source: the file that it is from, for error messages.

    Raises:
        ValueError: as `check`.
    """
    if not isinstance(config, ConfigDict):
        raise ValueError(f"{source or 'the recipe'} holds no ConfigDict but {_show(config)}")
    _raise(list(_wrong_leaves(config, config, _table(config))), source)


def leaves_of(config: ConfigDict | RecipeConfig) -> dict[str, Leaf]:
    """The leaves that a recipe with this network and this schedule has, by dotted name."""
    return dict(_flat(_table(config)))


def unknown_leaf(name: str, config: RecipeConfig) -> str:
    """The message that a recipe has no leaf with a dotted name, with a suggestion."""
    section, _, last = name.rpartition(".")
    known = [leaf.rpartition(".") for leaf in leaves_of(config)]
    beside = [other for place, _, other in known if place == section]
    meant = [f"{section}.{x}" for x in difflib.get_close_matches(last, beside, n=1)]
    meant += [f"{place}.{other}" for place, _, other in known if other == last]
    said = f"{name} is not a leaf of this recipe"
    if last == "batch_size":
        return f"{said}; a batch is data.identities_per_batch x data.images_per_identity images"
    if meant:
        return f"{said}; did you mean {meant[0].removeprefix('.')}?"
    if not beside:
        return f"{said}; there is no section {section}"
    return f"{said}; {section or 'beside sections it'} has {', '.join(beside)}"


def _raise(problems: list[str], source: str = "") -> None:
    where = f"{source}: " if source else ""
    if len(problems) == 1:
        raise ValueError(where + problems[0])
    if problems:
        raise ValueError("\n  ".join([f"{where}{len(problems)} settings are wrong:", *problems]))


def _show(value: Any) -> str:
    shown = "a section of leaves" if isinstance(value, ConfigDict) else repr(value)
    return shown if len(shown) < 80 else shown[:76] + " ..."


def _table(config: ConfigDict | RecipeConfig) -> dict[str, Any]:
    """The leaves of a recipe with this network and this schedule."""
    return leaves.LEAVES | {
        "optim": _with_chosen(leaves.OPTIM, config.get("optim"), "schedule", leaves.SCHEDULES),
        "model": _with_chosen(leaves.MODEL, config.get("model"), "name", leaves.NETWORKS),
    }


def _with_chosen(common: dict, section: Any, leaf: str, tables: dict[str, dict]) -> dict:
    """`common` and the table that a leaf selects; only `common` if the leaf selects none."""
    name = section.get(leaf) if isinstance(section, ConfigDict) else None
    if name is not None and common[leaf].holds(name):
        return common | tables[name]
    others = section if isinstance(section, ConfigDict) else ()
    return {other: ANYTHING for other in others} | common


def _flat(table: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Leaf]]:
    """The leaves of a table by their dotted names."""
    for name, leaf in table.items():
        if isinstance(leaf, dict):
            yield from _flat(leaf, f"{prefix}{name}.")
        else:
            yield prefix + name, leaf


def _wrong_leaves(config, section, table: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Problems of the leaves of a section of `config`, in the order of its table."""
    for name, leaf in table.items():
        path = prefix + name
        if name not in section:
            yield f"{path} is missing"
            continue
        value = section[name]
        if isinstance(leaf, Leaf):
            if not leaf.holds(value):
                yield f"{path} is {_show(value)}; it must be {leaf.words}"
        elif isinstance(value, ConfigDict):
            yield from _wrong_leaves(config, value, leaf, f"{path}.")
        else:
            yield f"{path} is {_show(value)}; it must be a section of leaves: {', '.join(leaf)}"
    for name in section:
        if name not in table:
            yield unknown_leaf(f"{prefix}{name}", config)


def _contradictions(config: RecipeConfig) -> Iterator[str]:
    """Contradictions between leaves that are valid by themselves."""
    yield from _of_data(config.data)
    height, width = config.data.image_size
    size = height, width
    yield from _of_augmentation(config.augment, size)
    yield from _of_schedule(config.optim)
    yield from _of_losses(config)
    from reid_jax import models  # Here, because JAX takes seconds to import, unlike `--help`.

    try:
        models.create(config.model, num_classes=2).check(size)
    except ValueError as error:
        yield str(error)


def _of_augmentation(augment: AugmentConfig, size: tuple[int, int]) -> Iterator[str]:
    smaller = f"the smaller side of data.image_size, {size}"
    if augment.cutout_probability and augment.cutout_size > min(size):
        yield f"augment.cutout_size is {augment.cutout_size} pixels; it must be at most {smaller}"
    if augment.crop_padding >= min(size):
        yield f"augment.crop_padding is {augment.crop_padding} pixels; it must be below {smaller}"


def _of_data(data: DataConfig) -> Iterator[str]:
    if data.pattern and data.layout != "folder":
        yield (
            f"data.pattern is {_show(data.pattern)}, but data.layout {data.layout!r} takes none: "
            "it is for the layout 'folder'"
        )
    if data.folders and data.layout == "csv":
        yield (
            f"data.folders is {_show(data.folders)}, but data.layout 'csv' names each file: leave "
            "it empty"
        )
    if data.folders and data.layout == "synthetic":
        yield (
            f"data.folders is {_show(data.folders)}, but data.layout 'synthetic' draws into "
            "folders of its own: leave it empty"
        )
    sets = 1 + len(data.also)
    if data.balanced and sets == 1:
        yield "data.balanced is True, but data.also names no other dataset: leave it False"
    elif data.balanced and data.identities_per_batch < sets:
        yield (
            f"data.identities_per_batch is {data.identities_per_batch}; with data.balanced, it "
            f"must be at least the number of datasets, {sets}"
        )
    cameras = data.synthetic.train_cameras + data.synthetic.test_cameras
    if cameras > choices.MAX_CAMERAS:
        yield (
            "data.synthetic.train_cameras + data.synthetic.test_cameras is "
            f"{cameras}; it must be at most {choices.MAX_CAMERAS}"
        )


def _of_losses(config: RecipeConfig) -> Iterator[str]:
    if not config.model.get("classifier", True):
        why = "because model.classifier is False"
        if config.loss.id_margin:
            yield f"loss.id_margin is {config.loss.id_margin}; it must be 0, {why}"
        if not config.loss.triplet_weight:
            yield f"loss.triplet_weight is 0; it must be above 0, {why}"


def _of_schedule(optim: OptimConfig) -> Iterator[str]:
    if optim.schedule in ("exponential", "cosine"):
        if optim.decay_until <= optim.decay_from:
            yield (
                f"optim.decay_until is {optim.decay_until}; it must be above optim.decay_from, "
                f"{optim.decay_from}"
            )
        return
    if optim.warmup_epochs % optim.warmup_every:
        yield (
            f"optim.warmup_epochs is {optim.warmup_epochs}; it must be a multiple of "
            f"optim.warmup_every, {optim.warmup_every}"
        )
    if optim.milestones and optim.milestones[0] < optim.warmup_epochs:
        yield (
            f"optim.milestones is {tuple(optim.milestones)}; the first must not be before the end "
            f"of the warm-up, optim.warmup_epochs {optim.warmup_epochs}"
        )
