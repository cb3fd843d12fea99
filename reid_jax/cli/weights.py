"""`reid-jax weights FILE OUT`: converts weights of other programs."""

import argparse

from absl import flags
from ml_collections import ConfigDict

from reid_jax.cli import recipe_flags
from reid_jax.runtime.messages import clear_errors, shown

# Default recipes, for the dataset that the authors' programs train on.
_RECIPES = {"pmm": "pmm_market", "bdb": "bdb_market"}


def main(arguments: list[str] | None = None, prog: str = "reid-jax weights") -> None:
    """Convert the file that the command line names.

    Args:
        arguments: those after the program's name; None means `sys.argv[1:]`.
        prog: the program's name, for its help.
    """
    parser = _parser(prog)
    options, others = parser.parse_known_args(arguments)
    unknown = [argument for argument in others if not argument.startswith("--config")]
    if unknown:
        parser.error(f"unknown argument {unknown[0]!r}; a recipe is --config=RECIPE")
    with clear_errors(options.traceback):
        from reid_jax.weights import conversion  # After parsing, because JAX takes seconds.

        file = conversion.read(options.file)
        program = conversion.program_of(file)
        if program:
            config = _config([prog, *others], _RECIPES[program])
            conversion.convert_program(file, program, config, options.out)
        elif others:
            raise ValueError(f"{others[0]} is for PMM and BDB; {shown(options.file)} is neither")
        else:
            conversion.convert_trunk(file, options.out)


def _config(argv: list[str], default: str) -> ConfigDict:
    """The recipe of a command line, with its overrides."""
    values = flags.FlagValues()
    argv = recipe_flags.define_from_recipe(argv, default, values)
    try:
        values(argv)
    except flags.Error as error:
        raise ValueError(str(error)) from error
    return values.config


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog,
        usage="%(prog)s FILE OUT [--config=RECIPE] [--config.LEAF=VALUE ...]",
        description="Converts weights of other programs. For an ImageNet ResNet in torchvision's "
        "or timm's names, or of Caffe, OUT is a file for --config.model.pretrained. For a "
        "checkpoint of the authors' PMM or of BDB, OUT is a workdir for reid-jax eval.",
        epilog="--config names the recipe that a PMM or BDB was trained with; the evaluation uses "
        "its dataset and image size. Default: the recipe for Market-1501. Trunk, dimensions "
        "and number of identities are read from FILE.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "file",
        metavar="FILE",
        help=".safetensors, .caffemodel, or .pth (needs PyTorch)",
    )
    parser.add_argument("out", metavar="OUT", help="must not exist")
    parser.add_argument("--traceback", action="store_true", help="show where an error came from")
    return parser
