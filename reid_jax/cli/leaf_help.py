"""Formats the leaves of a recipe for `--help`."""

import textwrap
from collections.abc import Container
from typing import Any

from reid_jax.recipe import RecipeConfig
from reid_jax.runs.settings import leaves_of

WIDTH = 100

_TITLES = {
    "": "the run",
    "data": "data and batches",
    "data.synthetic": "synthetic pedestrians, for data.layout=synthetic",
    "augment": "augmentation",
    "loss": "losses",
    "optim": "optimizer and learning rate",
    "model": "network",
    "model.trunk": "the network's trunk",
    "eval": "evaluation",
    "log": "metrics",
    "checkpoint": "checkpoints",
}


def describe(config: RecipeConfig, sections: Container[str] | None = None) -> str:
    """Format each leaf with its default, its meaning and its allowed values, in groups.

    Args:
        config: a recipe; its values are the defaults.
        sections: show only leaves of these top-level sections; None means all.
    """
    groups: dict[str, list[str]] = {}
    for name, leaf in leaves_of(config).items():
        section = name.rpartition(".")[0]
        if sections is not None and name.partition(".")[0] not in sections:
            continue
        entry = f"  --config.{name}={_shown(_value(config, name))}"
        text = f"{leaf.meaning} {leaf.words[0].upper()}{leaf.words[1:]}."
        groups.setdefault(section, []).append(entry + "\n" + wrapped(text, 6))
    return "\n\n".join(
        "\n".join([f"{_TITLES.get(section, section)}:", *entries])
        for section, entries in groups.items()
    )


def wrapped(text: str, indent: int) -> str:
    """Format a text in lines of at most `WIDTH`, indented by `indent` spaces."""
    space = " " * indent
    return textwrap.fill(
        text, WIDTH, initial_indent=space, subsequent_indent=space, break_on_hyphens=False
    )


def _value(config: RecipeConfig, name: str) -> Any:
    value: Any = config
    for part in name.split("."):
        value = value[part]
    return value


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return value or '""'
    shown = repr(tuple(value)) if isinstance(value, tuple | list) else repr(value)
    return f'"{shown}"' if "(" in shown else shown
