"""`reid-jax split FOLDER OUT`: makes train, query and gallery from photographs."""

import argparse
import os
import shlex

from reid_jax.cli import recipes
from reid_jax.cli.arguments import whole
from reid_jax.runtime.messages import clear_errors, say, shown

# The recipe of the command to use next.
_RECIPE = "strong_market"


def main(arguments: list[str] | None = None, prog: str = "reid-jax split") -> None:
    """Split the folder that the command line names.

    Args:
        arguments: the arguments after the program's name; None means `sys.argv[1:]`.
        prog: the program's name, for its help.
    """
    options = _parser(prog).parse_args(arguments)
    with clear_errors(options.traceback):
        from reid_jax.data import splitting  # After parsing, because JAX takes seconds.

        photographs = splitting.read(options.folder, options.pattern)
        splits = splitting.divide(
            photographs.people, train=options.train, queries=options.queries, seed=options.seed
        )
        linked = splitting.write(photographs, splits, options.out)
        how = "links to the files" if linked else "copies, because links cannot be made there"
        say(splitting.described(photographs, splits))
        say(f"wrote {shown(options.out)} with {how}; to train on it:")
        say(_command(options, photographs.layout, splitting.identities(photographs, splits)))


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Makes the folders train, query and gallery of a dataset from photographs. "
        "People to train on and people to search for are different.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "folder",
        metavar="FOLDER",
        help="photographs: a folder for each person, or files with names such as anna_c2_0001.jpg, "
        "identity and camera",
    )
    parser.add_argument("out", metavar="OUT", help="the folder to make, new or empty")
    for option, kind, default, what in (
        ("--train", _share, 0.5, "share of the identities to train on"),
        ("--queries", whole(1), 1, "query images of each identity, and of each of its cameras"),
        ("--seed", whole(0), 0, "chooses people and queries"),
    ):
        parser.add_argument(
            option, type=kind, default=default, help=f"{what}; default: %(default)s"
        )
    parser.add_argument(
        "--pattern",
        help="regular expression of file names, as data.pattern, with the groups pid and, if "
        "cameras are known, camid",
    )
    parser.add_argument("--traceback", action="store_true", help="show where an error came from")
    return parser


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share above 0 and below 1")
    return value


def _command(options: argparse.Namespace, layout: str, identities: int) -> str:
    """The command that trains on the new dataset."""
    name = os.path.basename(os.path.abspath(options.out))
    arguments = [
        f"--config={_RECIPE}",
        f"--workdir={os.path.join('runs', name)}",
        f"--config.data.layout={layout}",
        f"--config.data.root={options.out}",
    ]
    if options.pattern:
        arguments.append(f"--config.data.pattern={options.pattern}")
    if identities < recipes.find(_RECIPE).config.data.identities_per_batch:
        arguments.append(f"--config.data.identities_per_batch={identities}")
    return " ".join(["  reid-jax train", *map(shlex.quote, arguments)])
