"""`reid-jax search`: finds the images of a gallery that look like a query."""

import argparse
import math

from reid_jax.choices import NAMED_LAYOUTS
from reid_jax.cli.arguments import whole
from reid_jax.runtime.messages import clear_errors


def main(arguments: list[str] | None = None, prog: str = "reid-jax search") -> None:
    """Run the search of a command line.

    Args:
        arguments: those after the program's name; None means `sys.argv[1:]`.
        prog: the program's name, for its help.
    """
    options = parser(prog).parse_args(arguments)
    with clear_errors(options.traceback):
        # Import JAX after parsing the arguments, because it takes seconds.
        from reid_jax.runtime.allocator import keep_freed_memory
        from reid_jax.runtime.compilation_cache import keep_compiled
        from reid_jax.search.searching import search

        keep_freed_memory()
        keep_compiled()
        search(options)


def parser(prog: str = "reid-jax search") -> argparse.ArgumentParser:
    """The options of a search."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Finds the images of a gallery that a run's network finds most similar to the "
        "query images, prints them with distances, and draws them.",
        allow_abbrev=False,
    )
    parser.add_argument("--workdir", required=True, help="folder of the run, or a packed file")
    parser.add_argument(
        "--checkpoint", default="latest", help="latest, best, or the number of a step"
    )
    parser.add_argument(
        "--gallery",
        required=True,
        metavar="FOLDER_OR_FILE",
        help="a folder with images in it or below, a file of --save-gallery, or a Milvus database: "
        "milvus:people.db or milvus:http://HOST:19530, with #NAME for another collection",
    )
    parser.add_argument(
        "--query", required=True, nargs="+", metavar="IMAGE", help="images of the people to find"
    )
    parser.add_argument(
        "-k", "--top", type=whole(1), default=10, help="matches per query; default: %(default)s"
    )
    parser.add_argument(
        "--rerank",
        action="store_true",
        help="order each query's 200 nearest images by k-reciprocal re-ranking",
    )
    _add_filters(parser)
    parser.add_argument(
        "--save-gallery",
        metavar="FILE",
        help="save the descriptors of the gallery, for --gallery",
    )
    parser.add_argument(
        "--output",
        default="search.png",
        metavar="FILE",
        help="file of the picture, a .png; default: %(default)s",
    )
    parser.add_argument(
        "--hits",
        type=_table,
        metavar="FILE",
        help="write the matches into this .json or .csv file too: query, rank, name, pid, camid "
        "and distance of each",
    )
    parser.add_argument("--traceback", action="store_true", help="show where an error came from")
    return parser


def _add_filters(parser: argparse.ArgumentParser) -> None:
    """Add the options that leave out images of the gallery."""
    limits = parser.add_mutually_exclusive_group()
    limits.add_argument(
        "--max-distance",
        type=_distance,
        metavar="DISTANCE",
        help="leave out images that are farther away; a query without any is reported as nobody",
    )
    limits.add_argument(
        "--fpr",
        type=_rate,
        metavar="RATE",
        help="the same, with the distance at which reid-jax eval measured this false positive "
        "rate, such as 1e-3",
    )
    names = parser.add_mutually_exclusive_group()
    names.add_argument(
        "--layout",
        choices=NAMED_LAYOUTS,
        help="file names show identity and camera as in this data.layout; default: unknown",
    )
    names.add_argument(
        "--pattern", help="the same by a regular expression with the groups pid and camid"
    )
    for option, what in (
        ("--identity", "find only these identities"),
        ("--camera", "find only images from these cameras"),
        ("--not-camera", "find no images from these cameras"),
    ):
        parser.add_argument(option, nargs="+", metavar="NAME", help=what)
    parser.add_argument(
        "--other-cameras",
        action="store_true",
        help="ignore images from the query's own camera",
    )


def _table(text: str) -> str:
    if not text.lower().endswith((".json", ".csv")):
        raise argparse.ArgumentTypeError(f"{text!r} must end in .json or .csv")
    return text


def _distance(text: str) -> float:
    return _number(text, math.inf, "a distance, such as 1.7")


def _rate(text: str) -> float:
    return _number(text, 1, "a rate below 1, such as 1e-3")


def _number(text: str, below: float, expected: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < below:
        raise argparse.ArgumentTypeError(f"{text!r} is not {expected}")
    return value
