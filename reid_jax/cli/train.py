"""`reid-jax train`: trains a network by a recipe."""

import sys

from absl import flags

from reid_jax.cli import recipe_flags, recipes
from reid_jax.cli.flag_programs import (
    asks_for_help,
    define_host_flags,
    describe,
    new_flags,
    parse,
    started,
)
from reid_jax.cli.leaf_help import describe as describe_leaves
from reid_jax.cli.leaf_help import wrapped
from reid_jax.runtime.messages import clear_errors, say, shown

#: The recipe of a command line without `--config`.
DEFAULT = "pmm_synthetic"


def main(arguments: list[str] | None = None, prog: str = "reid-jax train") -> None:
    """Train as the command line requests.

    Args:
        arguments: those after the program's name; None means `sys.argv[1:]`.
        prog: the program's name, for its help.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    values = _flags()
    with clear_errors("--traceback" in arguments):
        if asks_for_help(arguments):
            say(_help(prog, arguments, values))
            return
        recipe = parse_run([prog, *arguments], values)
    with started(values, f"train {recipe.value} in {shown(values.workdir)}"):
        from reid_jax.programs.train import train  # After parsing, because JAX takes seconds.

        train(values.config, values.workdir)


def parse_run(argv: list[str], values: flags.FlagValues) -> recipes.Recipe:
    """Parse the arguments of a run, the program's name first, and return the recipe they name.

    Raises:
        FileNotFoundError, ValueError: there is no such recipe, leaf or flag, or a value is of
            another type.
    """
    argv, recipe = recipe_flags.read_recipe(argv, DEFAULT)
    recipe_flags.define(recipe.config, argv, values)
    parse(values, argv)
    return recipe


def _flags() -> flags.FlagValues:
    values = new_flags()
    define_host_flags(values)
    return values


def _help(prog: str, arguments: list[str], values: flags.FlagValues) -> str:
    _, recipe = recipe_flags.read_recipe([prog, *arguments], DEFAULT)
    return "\n".join(
        [
            f"usage: {prog} [--config=RECIPE[:STRINGS]] --workdir=FOLDER [--config.LEAF=VALUE ...]",
            "",
            "Trains a network. Run the same command again to continue a run that was stopped. With",
            "several hosts, start it on each with --coordinator.",
            "",
            "flags:",
            f"  --config=RECIPE\n{wrapped(f'{recipe_flags.HELP} Default: {DEFAULT}.', 6)}",
            describe(values),
            "",
            "recipes:",
            wrapped(", ".join(recipes.installed()), 2),
            "",
            f"the recipe {recipe.name}:",
            *(f"  {line}".rstrip() for line in recipe.description.splitlines()),
            "",
            f"Below, each leaf has the value of the recipe {recipe.name} as its default.",
            "",
            describe_leaves(recipe.config),
        ]
    )
