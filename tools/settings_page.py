"""Writes `docs/config.md`: every setting of a recipe with its type, default and meaning.

    python tools/settings_page.py

A test compares the page with the tables that it is made from.
"""

import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from reid_jax.configs import common
from reid_jax.runs import leaves
from reid_jax.runs.leaf_kinds import Leaf

PAGE = pathlib.Path(__file__).resolve().parents[1] / "docs" / "config.md"

_INTRODUCTION = """\
<!-- Written by tools/settings_page.py; do not edit. -->

# Settings

Every setting ("leaf") of a recipe. Override one on the command line by its name, such as
`--config.optim.lr=1e-3`; a tuple needs quotes, such as `--config.model.lambdas="(0.0, 0.5)"`. A
value out of range, or a name that does not exist, is an error before a run starts. Whole numbers
are below 2^31.

Defaults are those of the recipes for Market-1501 at full size, but each recipe names its own
`data.root`. Recipes for other datasets also differ in `data.layout` and `model.top_k`; a word such
as `small` changes more. If networks differ, the default of each is given by the first half of the
recipe's name.
"""

# Recipes at full size, by the first half of their names.
RECIPES = {
    "pmm": lambda: common.pmm(top_k=3),
    "bdb": common.bdb,
    "hbfp": common.hbfp,
    "baseline": common.baseline,
    "strong": common.strong,
}


class Section(NamedTuple):
    """A table of the page. `only` is the one network or schedule that it belongs to, if any."""

    title: str
    prefix: str
    table: dict[str, Any]
    only: str = ""


_SECTIONS = (
    Section("A run", "", {name: x for name, x in leaves.LEAVES.items() if isinstance(x, Leaf)}),
    Section("Data", "data.", leaves.LEAVES["data"]),
    Section("Augmentation", "augment.", leaves.LEAVES["augment"]),
    Section("Losses", "loss.", leaves.LEAVES["loss"]),
    Section("Optimization", "optim.", leaves.OPTIM),
    *(Section(f"Schedule `{x}`", "optim.", table, x) for x, table in leaves.SCHEDULES.items()),
    Section("Network", "model.", leaves.MODEL),
    *(Section(f"Network `{x}`", "model.", table, x) for x, table in leaves.NETWORKS.items()),
    Section("Evaluation", "eval.", leaves.LEAVES["eval"]),
    Section("Log", "log.", leaves.LEAVES["log"]),
    Section("Checkpoints", "checkpoint.", leaves.LEAVES["checkpoint"]),
)


def page() -> str:
    """The text of `docs/config.md`."""
    recipes = {name: recipe() for name, recipe in RECIPES.items()}
    text = [_INTRODUCTION]
    for section in _SECTIONS:
        chosen = {
            name: config
            for name, config in recipes.items()
            if section.only in ("", config.model.name, config.optim.schedule)
        }
        text += [f"## {section.title}", ""]
        text += ["| setting | type and range | default | meaning |", "|---|---|---|---|"]
        for name, leaf in _flat(section.table, section.prefix):
            words = leaf.words.replace(" and below 2^31", "")
            cells = (f"`{name}`", words, _defaults(name, chosen), leaf.meaning)
            text.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        text.append("")
    return "\n".join(text).rstrip() + "\n"


def all_leaves() -> Iterator[tuple[str, Leaf]]:
    """Every leaf on the page by its dotted name, in the page's order."""
    for section in _SECTIONS:
        yield from _flat(section.table, section.prefix)


def _flat(table: dict[str, Any], prefix: str) -> Iterator[tuple[str, Leaf]]:
    for name, leaf in table.items():
        if isinstance(leaf, Leaf):
            yield prefix + name, leaf
        else:
            yield from _flat(leaf, f"{prefix}{name}.")


def _defaults(name: str, recipes: dict[str, ConfigDict]) -> str:
    """Format defaults as `1`, or `1` (pmm, bdb), `2` (hbfp), for every recipe that has the leaf."""
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
