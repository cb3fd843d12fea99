"""Writes `docs/config.md`: every setting of a recipe with its type, default and meaning.

    python tools/settings_page.py

A test compares the page with the tables that it is made from.
"""

import pathlib
from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from configs import common
from reid_jax import settings

PAGE = pathlib.Path(__file__).resolve().parents[1] / "docs" / "config.md"

_INTRODUCTION = """\
<!-- Written by tools/settings_page.py; do not edit. -->

# Settings

Every setting ("leaf") of a recipe. Override one on the command line by its name, such as
`--config.optim.lr=1e-3`; a tuple needs quotes, such as `--config.model.lambdas="(0.0, 0.5)"`. A
value out of range, or a name that does not exist, is an error before a run starts.

Defaults are those at full size; a word such as `small` changes some. If recipes differ, the default
of each is given by the first half of its name.
"""

# Recipes at full size by their names' first half.
_RECIPES = {
    "pmm": lambda: common.pmm(top_k=3),
    "bdb": common.bdb,
    "hbfp": common.hbfp,
    "baseline": common.baseline,
    "strong": common.strong,
}
_TITLES = {
    "": "A run",
    "data": "Data",
    "data.synthetic": "Synthetic pedestrians",
    "augment": "Augmentation",
    "loss": "Losses",
    "optim": "Optimization",
    "model": "Network",
    "model.trunk": "Trunk",
    "eval": "Evaluation",
    "log": "Log",
    "checkpoint": "Checkpoints",
}


def page() -> str:
    """The text of `docs/config.md`."""
    recipes = {name: recipe() for name, recipe in _RECIPES.items()}
    sections: dict[str, list[str]] = {title: [] for title in _TITLES}
    for name, leaf in leaves():
        cells = (f"`{name}`", leaf.words, _defaults(name, recipes), leaf.meaning)
        row = " | ".join(cell.replace("|", "\\|") for cell in cells)
        sections[name.rpartition(".")[0]].append(f"| {row} |")
    text = [_INTRODUCTION]
    for section, rows in sections.items():
        text += [f"## {_TITLES[section]}", ""]
        text += ["| setting | type and range | default | meaning |", "|---|---|---|---|", *rows, ""]
    return "\n".join(text).rstrip() + "\n"


def leaves() -> Iterator[tuple[str, settings.Leaf]]:
    """Every leaf that any network or schedule has, by its dotted name, each once."""
    seen = {}
    for model in settings.NETWORKS:
        for schedule in settings.SCHEDULES:
            config = ConfigDict({"model": {"name": model}, "optim": {"schedule": schedule}})
            seen |= dict(_flat(settings.table(config)))
    yield from seen.items()


def _flat(table: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, settings.Leaf]]:
    for name, leaf in table.items():
        if isinstance(leaf, dict):
            yield from _flat(leaf, f"{prefix}{name}.")
        else:
            yield prefix + name, leaf


def _defaults(name: str, recipes: dict[str, ConfigDict]) -> str:
    """`1`, or `1` (pmm, bdb), `2` (hbfp): the value of every recipe that has the leaf."""
    values: dict[str, list[str]] = {}
    for recipe, config in recipes.items():
        value: Any = config
        for part in name.split("."):
            value = value.get(part) if isinstance(value, ConfigDict) else None
        if value is not None:
            values.setdefault(f"`{value!r}`", []).append(recipe)
    if len(values) == 1:
        return next(iter(values))
    return "; ".join(f"{value} ({', '.join(names)})" for value, names in values.items())


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
