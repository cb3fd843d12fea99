"""`reid-jax search`: finds the images of a gallery that look like a query."""

import argparse

from reid_jax.choices import NAMED_LAYOUTS
from reid_jax.runtime.messages import clear_errors


def main(arguments: list[str] | None = None, prog: str = "reid-jax search") -> None:
    """Run the search of a command line.

    Args:
        arguments: those after the program's name; None means `sys.argv[1:]`.
        prog: the program's name, for its help.
    """
    options = parser(prog).parse_args(arguments)
    # Import JAX after parsing the arguments, because it takes seconds.
    from reid_jax.runtime.allocator import keep_freed_memory
    from reid_jax.runtime.compilation_cache import keep_compiled
    from reid_jax.search.searching import search

    keep_freed_memory()
    keep_compiled()
    with clear_errors(options.traceback):
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
        help="a folder with images in it or below, or a file of --save-gallery",
    )
    parser.add_argument(
        "--query", required=True, nargs="+", metavar="IMAGE", help="images of the people to find"
    )
    parser.add_argument(
        "-k", "--top", type=_positive, default=10, help="matches per query; default: %(default)s"
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
    parser.add_argument(
        "--save-gallery",
        metavar="FILE",
        help="save the descriptors of the gallery, for --gallery",
    )
    parser.add_argument(
        "--output",
        default="search.png",
        metavar="FILE",
        help="file of the picture; default: %(default)s",
    )
    parser.add_argument("--traceback", action="store_true", help="show where an error came from")
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is below 1")
    return value
