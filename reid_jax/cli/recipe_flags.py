"""Recipes on the command line: `--config=RECIPE:STRINGS` and, for a leaf, `--config.LEAF=VALUE`.

ml_collections parses the values with the types of the leaves, and absl reports values of other
types. This module reports leaves that do not exist.
"""

import itertools
import re
from collections.abc import Sequence
from typing import Any, cast

from absl import flags
from ml_collections import ConfigDict, config_flags

from reid_jax.cli import recipes
from reid_jax.recipe import RecipeConfig
from reid_jax.runs.leaves import OPTIM, SCHEDULES
from reid_jax.runs.schedule_leaves import leaves_of
from reid_jax.runs.settings import unknown_leaf

HELP = (
    "Recipe by name or path, with its strings after a colon: pmm_market, "
    "pmm_cuhk03:detected,small or configs/pmm_market.py:small."
)


def with_flag_files(arguments: Sequence[str]) -> list[str]:
    """The arguments, with the contents of the files that `--flagfile` names in place of it.

    Raises:
        ValueError: a file cannot be read.
    """
    try:
        return flags.FlagValues().read_flags_from_files(arguments, force_gnu=False)
    except flags.Error as error:
        raise ValueError(str(error)) from error


def read_recipe(argv: Sequence[str], default: str) -> tuple[list[str], recipes.Recipe]:
    """Find the recipe that `--config` names.

    Args:
        argv: the program's arguments, beginning with the program's name.
        default: the recipe for arguments without `--config`.

    Returns:
        The arguments without `--config`, and the recipe.

    Raises:
        FileNotFoundError, ValueError: as `recipes.find`; or `--config` is given twice.
    """
    named = flags.FlagValues()
    flags.DEFINE_string("config", default, HELP, flag_values=named)
    argv = [argv[0], *with_flag_files(argv[1:])]
    if sum(bool(re.fullmatch(r"--?config(=.*)?", argument, re.DOTALL)) for argument in argv) > 1:
        raise ValueError("--config is given twice; pass one recipe")
    try:
        argv = named(argv, known_only=True)
    except flags.Error as error:
        raise ValueError(str(error)) from error
    return list(argv), recipes.find(str(named["config"].value))


def define_from_recipe(
    argv: Sequence[str], default: str, flag_values: flags.FlagValues
) -> list[str]:
    """Call `define` for the recipe that `--config` names.

    Args:
        argv: the program's arguments, beginning with the program's name.
        default: the recipe for arguments without `--config`.
        flag_values: where to define the flag.

    Returns:
        The arguments without `--config`.

    Raises:
        FileNotFoundError, ValueError: as `read_recipe` and `define`.
    """
    argv, recipe = read_recipe(argv, default)
    define(recipe.config, argv, flag_values)
    return argv


def define(config: RecipeConfig, argv: Sequence[str], flag_values: flags.FlagValues) -> None:
    """Define the flag `config`, a recipe whose leaves the arguments override.

    With another `optim.schedule`, the recipe first gets the leaves of that schedule.

    Raises:
        ValueError: arguments name leaves that the recipe does not have, or override each other.
    """
    _change_schedule(config, argv)
    unknown = [name for name in overridden(argv) if not _has(config, name)]
    if unknown:
        raise ValueError("; ".join(unknown_leaf(name, config) for name in unknown))
    try:
        config_flags.DEFINE_config_dict("config", config, HELP, flag_values, sys_argv=list(argv))
    except flags.Error as error:
        raise ValueError(str(error)) from error


def overridden(argv: Sequence[str]) -> list[str]:
    """The leaves that arguments name, each once; the program's name is the first argument."""
    names = [re.match(r"--?(?:no)?config\.([^=]*)", argument) for argument in argv[1:]]
    return list(dict.fromkeys(match[1] for match in names if match))


def _change_schedule(config: RecipeConfig, argv: Sequence[str]) -> None:
    """Give `optim` the leaves of the schedule that the arguments choose, if it is another one.

    A schedule that does not exist, and a recipe that lacks leaves, are left to the check of all
    settings.
    """
    schedule = given("optim.schedule", argv)
    old, epochs = config.get("optim"), config.get("epochs")
    if schedule not in SCHEDULES or not isinstance(old, ConfigDict):
        return
    if old.get("schedule") in (None, schedule):
        return
    warmup_epochs = old.get("warmup_epochs")
    if type(warmup_epochs) is not int or type(epochs) is not int:
        return
    text = given("epochs", argv) or ""
    known = OPTIM.keys() | SCHEDULES[schedule].keys()
    optim = {name: leaf for name, leaf in old.items() if name in known} | {"schedule": schedule}
    optim |= leaves_of(
        schedule, int(text) if re.fullmatch("[1-9][0-9]*", text) else epochs, warmup_epochs
    )
    cast(ConfigDict, config).optim = ConfigDict(optim)


def given(name: str, argv: Sequence[str]) -> str | None:
    """The text that the arguments give a leaf: the last one, or None."""
    found = None
    for argument, following in itertools.pairwise([*argv, ""]):
        if match := re.fullmatch(rf"--?config\.{re.escape(name)}(=(.*))?", argument, re.DOTALL):
            found = match[2] if match[1] else following
    return found


def _has(config: RecipeConfig, name: str) -> bool:
    section: Any = config
    for part in name.split("."):
        if not isinstance(section, ConfigDict) or part not in section:
            return False
        section = section[part]
    return True
