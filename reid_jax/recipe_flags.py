"""Recipes on the command line: `--config=FILE.py:STRINGS` and, for a leaf, `--config.LEAF=VALUE`.

ml_collections reads the values, each as the type that the leaf has, and absl names those that are
not of it. A leaf that does not exist is named here.
"""

import os
import re
import runpy
from collections.abc import Sequence

from absl import flags
from ml_collections import ConfigDict, config_flags

from reid_jax.runs.settings import unknown_leaf

HELP = "The recipe, with its strings after a colon: configs/pmm_cuhk03.py:detected,small."


def define_from_file(
    argv: Sequence[str], default: str, flag_values: flags.FlagValues = flags.FLAGS
) -> list[str]:
    """`define` for the recipe that `--config` names.

    Args:
        argv: the program's arguments, the program's name first.
        default: the recipe of those that name none.
        flag_values: where to define the flag.

    Returns:
        The arguments without `--config`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no recipe, it knows no such strings, or as `define`.
    """
    named = flags.FlagValues()
    flags.DEFINE_string("config", default, HELP, flag_values=named)
    argv = named(argv, known_only=True)
    path, *strings = str(named["config"].value).split(":", 1)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"no file {path!r} (--config)")
    get_config = runpy.run_path(path).get("get_config")
    config = get_config(*strings) if get_config else None
    if not isinstance(config, ConfigDict):
        raise ValueError(f"{path} is no recipe: it has no get_config that returns a ConfigDict")
    define(config, argv, flag_values)
    return argv


def define(
    config: ConfigDict, argv: Sequence[str], flag_values: flags.FlagValues = flags.FLAGS
) -> None:
    """Defines the flag `config`, a recipe whose leaves arguments override.

    Raises:
        ValueError: arguments name leaves that the recipe does not have, or override each other.
    """
    names = [re.match(r"--?(?:no)?config\.([^=]*)", argument) for argument in argv[1:]]
    unknown = [match[1] for match in names if match and not _has(config, match[1])]
    if unknown:
        raise ValueError("; ".join(unknown_leaf(name, config) for name in dict.fromkeys(unknown)))
    try:
        config_flags.DEFINE_config_dict("config", config, HELP, flag_values, sys_argv=list(argv))
    except flags.Error as error:
        raise ValueError(str(error)) from error


def _has(config: ConfigDict, name: str) -> bool:
    for part in name.split("."):
        if not isinstance(config, ConfigDict) or part not in config:
            return False
        config = config[part]
    return True
