"""What a recipe may say: type and range of every leaf, and leaves that contradict each other.

A new leaf is one line of a table here. All that is wrong is named at once, and before anything else
is done. What depends on the data is checked where the data is.
"""

import difflib
import operator
from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from reid_jax import models
from reid_jax.data.layouts import LAYOUTS
from reid_jax.data.loaders import LOADERS
from reid_jax.data.skipping import POLICIES
from reid_jax.data.synthetic import MAX_CAMERAS
from reid_jax.losses import METRICS
from reid_jax.models.hbfp import LEVELS, PAIRS
from reid_jax.models.heads import NECKS
from reid_jax.models.pmm import MIXINGS
from reid_jax.models.pooling import POOLINGS, REDUCTIONS
from reid_jax.models.resnet import BLOCKS
from reid_jax.runs.leaves import SWITCH, TEXT, Leaf, number, one_of, rising, several, some_of, whole
from reid_jax.schedules import SCHEDULES

_ANYTHING = Leaf("anything", lambda value: True)
_SHARE = number(least=0, most=1)
_COUNT = whole(1)

_LEAVES = {
    "seed": whole(0),
    "epochs": _COUNT,
    "max_steps": whole(0),
    "devices": whole(0),
    "data": {
        "layout": one_of(*LAYOUTS, "synthetic"),
        "root": TEXT,
        "pattern": TEXT,
        "folders": several(TEXT, 0, 3),
        "synthetic": {
            "seed": whole(0),
            "train_identities": whole(2),
            "test_identities": _COUNT,
            "train_cameras": whole(2),
            "test_cameras": whole(2),
        },
        "image_size": several(_COUNT, 2),
        "loader": one_of(*LOADERS),
        "on_bad_image": one_of(*POLICIES),
        "skip_limit": number(least=0, below=1),
        "identities_per_batch": whole(2, "the triplet loss needs negatives"),
        "images_per_identity": whole(2, "the triplet loss needs positives"),
    },
    "augment": {
        "flip": _SHARE,
        "crop_padding": whole(0),
        "brightness": _SHARE,
        "contrast": _SHARE,
        "saturation": _SHARE,
        "cutout_probability": _SHARE,
        "cutout_size": _COUNT,
        "erasing_probability": _SHARE,
        "erasing_area": rising(
            several(number(above=0, most=1), 2), operator.le, "the smaller first"
        ),
        "erasing_aspect": rising(several(number(above=0), 2), operator.le, "the smaller first"),
    },
    "loss": {
        "triplet_margin": number(least=0),
        "triplet_weight": number(least=0),
        "metric": one_of(*METRICS),
        "label_smoothing": number(least=0, below=1),
        "id_margin": number(least=0),
    },
    "eval": {
        "every_epochs": _COUNT,
        "batch_size": _COUNT,
        "flip": SWITCH,
        "normalize": SWITCH,
        "block_size": _COUNT,
    },
    "log": {"every_steps": _COUNT},
    "checkpoint": {"every_epochs": _COUNT, "keep": _COUNT},
}
# `optim` and `model` have those of all, and those of their schedule and network.
_OPTIM = {
    "schedule": one_of(*SCHEDULES),
    "lr": number(above=0),
    "weight_decay": number(least=0),
    "trunk_lr": number(above=0, most=1),
    "frozen_epochs": whole(0),
}
_DECAY = {"warmup_epochs": whole(0), "decay_from": whole(0), "decay_until": _COUNT}
_SCHEDULES = {
    "staircase": {
        "warmup_epochs": whole(0),
        "warmup_every": _COUNT,
        "milestones": rising(several(_COUNT), operator.lt, "each above the one before"),
        "decay": number(above=0, most=1),
    },
    "cosine": {**_DECAY, "final": number(least=0, most=1)},
    "exponential": {**_DECAY, "final": number(above=0, most=1)},
}
_MODEL = {
    "name": one_of(*models.NETWORKS),
    "trunk": {
        "depths": several(_COUNT, 4),
        "width": _COUNT,
        "stem_width": whole(0),
        "base_width": _COUNT,
        "strides": several(_COUNT, 4),
        "stride_in_1x1": SWITCH,
        "block": one_of(*BLOCKS),
        "ibn": SWITCH,
    },
    "pretrained": TEXT,
    "dtype": one_of(*models.DTYPES),
}
_NETWORKS = {
    "baseline": {
        "classifier": SWITCH,
        "classifier_std": number(above=0),
        "cosine_scale": number(least=0),
        "pooling": one_of(*POOLINGS, "gem"),
        "neck": one_of(*NECKS),
        "stripes": whole(0),
    },
    "bdb": {
        "global_dim": _COUNT,
        "part_dim": _COUNT,
        "drop_height": number(above=0, most=1),
        "drop_width": number(above=0, most=1),
    },
    "pmm": {
        "embedding_dim": _COUNT,
        "stages": Leaf("1, 2 or 3", lambda value: whole(1).holds(value) and value <= 3),
        "mixing": one_of(*MIXINGS),
        "block": several(_COUNT, 2),
        "top_k": _COUNT,
    },
    "hbfp": {
        "levels": some_of(*LEVELS, least=1),
        "pairs": some_of(*PAIRS),
        "hierarchy": SWITCH,
        "lambdas": several(_SHARE, least=1),
        "reduction": one_of(*REDUCTIONS),
        "neck": one_of(*NECKS),
        "classifier_std": number(above=0),
        "correlation_dim": _COUNT,
        "perception_dim": _COUNT,
    },
}


def check(config: ConfigDict) -> None:
    """Makes sure that a run can have the recipe `config`, as far as that shows without data.

    Raises:
        ValueError: names each leaf that is missing, unknown or not what it must be. Where there is
            none, all that contradict each other.
    """
    check_leaves(config)
    _raise(list(_contradictions(config)))


def check_leaves(config: ConfigDict, source: str = "") -> None:
    """`check` of each leaf by itself, for those who use part of a recipe.

    Args:
        config: a whole recipe.
        source: the file that it is from, for the error to name.

    Raises:
        ValueError: as `check`.
    """
    if not isinstance(config, ConfigDict):
        raise ValueError(f"{source or 'the recipe'} holds no ConfigDict but {_show(config)}")
    _raise(list(_wrong_leaves(config, config, _table(config))), source)


def unknown_leaf(name: str, config: ConfigDict) -> str:
    """Says that a recipe has no leaf of a dotted name, and which one may be meant."""
    section, _, last = name.rpartition(".")
    known = [leaf.rpartition(".") for leaf in _names(_table(config))]
    beside = [other for place, _, other in known if place == section]
    meant = [f"{section}.{x}" for x in difflib.get_close_matches(last, beside, n=1)]
    meant += [f"{place}.{other}" for place, _, other in known if other == last]
    said = f"{name} is no leaf of this recipe"
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


def _table(config) -> dict[str, Any]:
    """The leaves of a recipe with this network and this schedule."""
    return _LEAVES | {
        "optim": _with_chosen(_OPTIM, config.get("optim"), "schedule", _SCHEDULES),
        "model": _with_chosen(_MODEL, config.get("model"), "name", _NETWORKS),
    }


def _with_chosen(common: dict, section: Any, leaf: str, tables: dict[str, dict]) -> dict:
    """`common` and the table that a leaf names; where it names none, nothing else is judged."""
    name = section.get(leaf) if isinstance(section, ConfigDict) else None
    if common[leaf].holds(name):
        return common | tables[name]
    others = section if isinstance(section, ConfigDict) else ()
    return {other: _ANYTHING for other in others} | common


def _names(table: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """The dotted names of a table."""
    for name, leaf in table.items():
        if isinstance(leaf, dict):
            yield from _names(leaf, f"{prefix}{name}.")
        else:
            yield prefix + name


def _wrong_leaves(config, section, table: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """What is wrong with the leaves of a section of `config`, in the order of its table."""
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


def _contradictions(config) -> Iterator[str]:
    """What leaves that are right by themselves have against each other."""
    yield from _of_data(config.data)
    size = tuple(config.data.image_size)
    yield from _of_augmentation(config.augment, size)
    yield from _of_schedule(config.optim)
    yield from _of_losses(config)
    try:
        models.create(config.model, num_classes=2).check(size)
    except ValueError as error:
        yield str(error)


def _of_augmentation(augment, size: tuple[int, int]) -> Iterator[str]:
    smaller = f"the smaller side of data.image_size, {size}"
    if augment.cutout_probability and augment.cutout_size > min(size):
        yield f"augment.cutout_size is {augment.cutout_size} pixels; it must be at most {smaller}"
    if augment.crop_padding >= min(size):
        yield f"augment.crop_padding is {augment.crop_padding} pixels; it must be below {smaller}"


def _of_data(data) -> Iterator[str]:
    for leaf in ("pattern", "folders"):
        if data[leaf] and data.layout != "folder":
            yield (
                f"data.{leaf} is {_show(data[leaf])}, but data.layout {data.layout!r} has its own: "
                "it is for the layout 'folder'"
            )
    cameras = data.synthetic.train_cameras + data.synthetic.test_cameras
    if cameras > MAX_CAMERAS:
        yield (
            "data.synthetic.train_cameras + data.synthetic.test_cameras is "
            f"{cameras}; it must be at most {MAX_CAMERAS}"
        )


def _of_losses(config) -> Iterator[str]:
    if not config.model.get("classifier", True):
        why = "because model.classifier is False"
        if config.loss.id_margin:
            yield f"loss.id_margin is {config.loss.id_margin}; it must be 0, {why}"
        if not config.loss.triplet_weight:
            yield f"loss.triplet_weight is 0; it must be above 0, {why}"


def _of_schedule(optim) -> Iterator[str]:
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
