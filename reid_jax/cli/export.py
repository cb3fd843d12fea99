"""`reid-jax export`: writes a trained network as StableHLO and ONNX."""

import argparse

from reid_jax.runtime.messages import clear_errors


def main(arguments: list[str] | None = None, prog: str = "reid-jax export") -> None:
    """Export the run that the command line names.

    Args:
        arguments: those after the program's name; None means `sys.argv[1:]`.
        prog: the program's name, for its help.
    """
    options = _parser(prog).parse_args(arguments)
    with clear_errors(options.traceback):
        from reid_jax.export.exporter import export_run  # After parsing, because JAX takes seconds.

        formats = None if options.formats is None else options.formats.split(",")
        export_run(options.workdir, options.out, options.checkpoint, formats)


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Writes the descriptor network of a run, with its weights, as "
        "OUT/descriptor.stablehlo and OUT/descriptor.onnx, and describes their inputs and outputs "
        "in OUT/descriptor.json.",
        allow_abbrev=False,
    )
    parser.add_argument("out", metavar="OUT", help="the folder to make")
    parser.add_argument(
        "--workdir", required=True, metavar="RUN", help="folder of the run, or a packed file"
    )
    parser.add_argument(
        "--checkpoint",
        default="latest",
        help="latest, best, or the number of a step; default: %(default)s",
    )
    parser.add_argument(
        "--formats",
        metavar="FORMAT,FORMAT",
        help="stablehlo, onnx, or both with a comma; default: both, if jax2onnx is installed",
    )
    parser.add_argument("--traceback", action="store_true", help="show where an error came from")
    return parser
