"""Command line: python -m reid_jax.data.synthetic OUT --seed=0 ..."""

import argparse
import inspect

from reid_jax.data.synthetic.dataset import write_market1501


def main(arguments: list[str] | None = None) -> None:
    """Writes the data set that the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="python -m reid_jax.data.synthetic",
        description="Draws synthetic pedestrians as a folder in the layout of Market-1501.",
    )
    parser.add_argument("root", metavar="OUT", help="the folder to write")
    for name, parameter in inspect.signature(write_market1501).parameters.items():
        if isinstance(parameter.default, int) and not isinstance(parameter.default, bool):
            parser.add_argument(
                f"--{name}", type=int, default=parameter.default, help="default: %(default)s"
            )
    options = parser.parse_args(arguments)
    try:
        write_market1501(**vars(options))
    except (ValueError, OSError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
