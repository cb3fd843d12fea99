"""`reid-jax pack RUN OUT`: packs a run into one file."""

import argparse

from reid_jax.runtime.messages import clear_errors


def main(arguments: list[str] | None = None, prog: str = "reid-jax pack") -> None:
    """Pack the run that the command line names.

    Args:
        arguments: the arguments after the program's name; None means `sys.argv[1:]`.
        prog: the program's name, for its help.
    """
    options = _parser(prog).parse_args(arguments)
    with clear_errors(options.traceback):
        from reid_jax.programs.pack import pack_run  # Imported late, because JAX takes seconds.

        pack_run(options.run, options.out, options.checkpoint)


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Packs weights, recipe and results of a run into one safetensors file, which "
        "reid_jax.load and --workdir of eval, search and export take, with a model card beside it.",
        epilog="Results are those of RUN/eval/results.json, if they are of the same step.",
        allow_abbrev=False,
    )
    parser.add_argument("run", metavar="RUN", help="folder of the run")
    parser.add_argument(
        "out",
        metavar="OUT",
        help="the file to write, NAME.safetensors, with NAME.md beside it; if one of them exists "
        "with another content, it is kept and pack stops",
    )
    parser.add_argument(
        "--checkpoint",
        default="latest",
        help="latest, best, or the number of a step; default: %(default)s",
    )
    parser.add_argument("--traceback", action="store_true", help="show where an error came from")
    return parser
