"""Command line: python -m reid_jax.data.synthetic OUT --seed=0 ..."""

import argparse
import dataclasses

from reid_jax.data.synthetic.dataset import Contents, write_market1501
from reid_jax.runtime.messages import clear_errors


def main(arguments: list[str] | None = None) -> None:
    """Write the dataset that the command line requests."""
    parser = argparse.ArgumentParser(
        prog="python -m reid_jax.data.synthetic",
        description="Draws synthetic pedestrians as a folder in the layout of Market-1501.",
    )
    parser.add_argument("root", metavar="OUT", help="the folder to write")
    for number in dataclasses.fields(Contents):
        parser.add_argument(
            f"--{number.name}", type=int, default=number.default, help="default: %(default)s"
        )
    options = vars(parser.parse_args(arguments))
    try:
        root = options.pop("root")
        with clear_errors(traceback=True):  # Ctrl-C
            write_market1501(root, Contents(**options))
    except (ValueError, OSError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
