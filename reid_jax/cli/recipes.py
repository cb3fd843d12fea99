"""Recipes by name or by path."""

import difflib
import importlib
import inspect
import os
import pkgutil
import runpy
from typing import NamedTuple

from ml_collections import ConfigDict, FrozenConfigDict

import reid_jax.configs
from reid_jax.recipe import RecipeConfig, typed


class Recipe(NamedTuple):
    """A recipe that was found.

    Attributes:
        name: the requested name, without config strings.
        value: the requested name with its config strings.
        config: its leaves.
        description: the docstring of its file.
    """

    name: str
    value: str
    config: RecipeConfig
    description: str


def installed() -> list[str]:
    """The names of the recipes that come with the package."""
    found = {module.name for module in pkgutil.iter_modules(reid_jax.configs.__path__)}
    return sorted(found - {"common", "sizes"})


def find(value: str) -> Recipe:
    """Find the recipe that a value of `--config` names.

    Args:
        value: a name, `pmm_market`, or a path, `configs/pmm_market.py`; config strings follow a
            colon, `pmm_market:small`.

    Raises:
        FileNotFoundError: there is no file of this path.
        ValueError: there is no recipe of this name, the file is not a recipe, or the recipe does
            not support the strings. Errors that the file itself raises pass through.
    """
    name, *strings = value.split(":", 1)
    name = os.path.expanduser(name)
    if name in installed():
        members = vars(importlib.import_module(f"reid_jax.configs.{name}"))
    elif os.path.isfile(name):
        if not name.endswith(".py"):
            raise ValueError(f"{name} is not a recipe: recipes are Python files, *.py (--config)")
        members = runpy.run_path(name)
    elif name.endswith(".py") or os.path.dirname(name) or not name:
        raise FileNotFoundError(f"no file {name!r} (--config)")
    else:
        raise ValueError(f"no recipe {name!r} (--config); {_similar(name)}")
    get_config = members.get("get_config")
    config = None
    if get_config:
        try:
            inspect.signature(get_config).bind(*strings)
        except TypeError as error:
            raise ValueError(f"{value}: get_config of {name}: {error}") from error
        config = get_config(*strings)
    if isinstance(config, FrozenConfigDict):
        config = ConfigDict(config)
    if not isinstance(config, ConfigDict):
        raise ValueError(f"{name} is not a recipe: it has no get_config that returns a ConfigDict")
    return Recipe(name, value, typed(config), inspect.cleandoc(members.get("__doc__") or ""))


def _similar(name: str) -> str:
    close = difflib.get_close_matches(name, installed(), n=3)
    if close:
        return f"did you mean {' or '.join(close)}?"
    return f"the installed ones are {', '.join(installed())}"
