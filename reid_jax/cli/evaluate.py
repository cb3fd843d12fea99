"""`reid-jax eval`: evaluates a run."""

import os
import re
import sys

from absl import flags

from reid_jax.choices import QUERY_POOLINGS
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
from reid_jax.runs.packed_file import is_packed
from reid_jax.runs.workdir import read_run
from reid_jax.runtime.messages import clear_errors, say, shown

# Leaves that another evaluation may change.
_SECTIONS = ("devices", "data", "eval")
# The recipe in a help without a run.
_EXAMPLE = "pmm_synthetic"


def main(arguments: list[str] | None = None, prog: str = "reid-jax eval") -> None:
    """Evaluate the run that the command line names.

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
        _parse(prog, arguments, values)
    with started(values, f"evaluate {shown(values.workdir)}"):
        _evaluate(values)


def _parse(prog: str, arguments: list[str], values: flags.FlagValues) -> None:
    """Parse flags. The recipe in the workdir is the default that `--config.` flags override."""
    arguments = recipe_flags.with_flag_files(arguments)
    argv = [prog, *arguments]
    if any(re.match(r"--?config(=|$)", argument) for argument in arguments):
        raise ValueError(
            "eval uses the recipe of the run in --workdir; override its leaves with "
            "--config.LEAF=VALUE"
        )
    try:
        values(argv, known_only=True)
    except flags.Error as error:
        raise ValueError(str(error)) from error
    if values["figure-queries"].value == []:
        raise ValueError("--figure-queries names no query: give files, or use --queries=NUMBER")
    config, _ = read_run(values.workdir)
    if is_packed(values.workdir) and values.output is None:
        raise ValueError(
            f"--workdir {shown(values.workdir)} is a file, which has no folder for results: give "
            "--output=FOLDER"
        )
    overridden = recipe_flags.overridden(argv)
    if "data.also" not in overridden and {"data.root", "data.layout"} & set(overridden):
        config.data.also = ()  # Another dataset was named, so only that is evaluated.
    if recipe_flags.given("data.layout", argv) not in (None, config.data.layout):
        config.data.pattern, config.data.folders = "", ()  # They describe the run's own layout.
    recipe_flags.define(config, argv, values)
    others = [leaf for leaf in overridden if leaf.split(".")[0] not in _SECTIONS]
    if others:
        raise ValueError(
            f"eval cannot change {', '.join(others)}, which the run was trained with: "
            f"--config.LEAF=VALUE may name devices, and leaves of data and eval"
        )
    parse(values, argv)


def _evaluate(values: flags.FlagValues) -> None:
    # Import JAX after parsing the arguments, because it takes seconds.
    from reid_jax.programs.evaluate import Protocol, evaluate_run
    from reid_jax.report import present
    from reid_jax.runs.results import PAGE, PICTURES

    output = values.output
    if output is None:
        output = os.path.join(values.workdir, "eval")
    chosen = values["figure-queries"].value
    protocol = Protocol(values["multi-query"].value, values["gallery-extra"].value, values.rerank)
    figures = chosen or (values.queries if values.figures or values["queries"].present else 0)
    run = evaluate_run(
        values.config,
        values.workdir,
        checkpoint=values.checkpoint,
        output=output,
        protocol=protocol,
        figures=figures,
        beside=(*(PICTURES if figures else ()), *((PAGE,) if values.report else ())),
    )
    present(run, output, report=values.report)


def _flags() -> flags.FlagValues:
    values = new_flags()
    flags.DEFINE_string(
        "checkpoint", "latest", "latest, best, or the number of a step.", flag_values=values
    )
    flags.DEFINE_string(
        "output",
        None,
        "Folder of the results; WORKDIR/eval by default. A packed file needs it.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "figures",
        False,
        "Draw what the network looks at in some queries, and their ranked lists.",
        flag_values=values,
    )
    flags.DEFINE_integer("queries", 6, "Queries to draw.", lower_bound=1, flag_values=values)
    flags.DEFINE_list(
        "figure-queries",
        None,
        "Draw these queries, given by file, instead of --queries spread evenly.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "report",
        False,
        "Write report.html: all queries with their results and Grad-CAM, for a browser.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "multi-query",
        None,
        QUERY_POOLINGS,
        "Market-1501's multi-query protocol, from its folder gt_bbox.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "gallery-extra",
        None,
        "Folder of more gallery images, none of which is a match.",
        flag_values=values,
    )
    flags.DEFINE_bool("rerank", False, "Re-rank by k-reciprocal neighbours.", flag_values=values)
    define_host_flags(values)
    return values


def _help(prog: str, arguments: list[str], values: flags.FlagValues) -> str:
    named = flags.FlagValues()
    flags.DEFINE_string("workdir", None, "", flag_values=named)
    others = [argument for argument in arguments if not asks_for_help([argument])]
    named([prog, *others], known_only=True)
    if named.workdir:
        config, _ = read_run(named.workdir)
        default = f"the run in {named.workdir}"
    else:
        config = recipes.find(_EXAMPLE).config
        default = f"the recipe {_EXAMPLE}; with --workdir=FOLDER, this help shows those of its run"
    return "\n".join(
        [
            f"usage: {prog} --workdir=FOLDER [flags] [--config.LEAF=VALUE ...]",
            "",
            "Evaluates a run. Recipe, number of identities and weights come from the workdir.",
            "Override leaves of data and eval to evaluate on another dataset:",
            "--config.data.layout=folder --config.data.root=FOLDER. Only that dataset is then",
            "evaluated; --config.data.also adds others. With another layout, data.pattern and",
            "data.folders have their defaults.",
            "",
            "flags:",
            describe(values),
            "",
            f"Below, each leaf has as its default the value of {default}.",
            "",
            describe_leaves(config, _SECTIONS),
        ]
    )
