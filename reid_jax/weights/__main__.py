"""Command line: python -m reid_jax.weights FILE OUT."""

import argparse
import pathlib

from absl import flags

from reid_jax import recipe_flags
from reid_jax.runtime.checkout import find_checkout
from reid_jax.runtime.messages import clear_errors, say, shown
from reid_jax.weights import authors, trunks
from reid_jax.weights.files import WeightsFile, read
from reid_jax.weights.workdirs import write_workdir

# The programs' own data set.
_RECIPES = {"pmm": "pmm_market.py", "bdb": "bdb_market.py"}


def main(arguments: list[str] | None = None) -> None:
    """Converts the file that the command line names."""
    parser = _parser()
    options, others = parser.parse_known_args(arguments)
    unknown = [argument for argument in others if not argument.startswith("--config")]
    if unknown:
        parser.error(f"unknown argument {unknown[0]!r}; a recipe is --config=FILE")
    with clear_errors(options.traceback):
        file = read(options.file)
        program = None if trunks.is_own(file) else authors.recognise(file.arrays)
        if program:
            _convert_program(file, program, options.out, others)
        elif others:
            raise ValueError(f"{others[0]} is for PMM and BDB; {shown(options.file)} is neither")
        else:
            _convert_trunk(file, options.out)


def _convert_trunk(file: WeightsFile, out: pathlib.Path) -> None:
    if trunks.is_own(file):
        raise ValueError(
            f"{shown(file.path)} is converted already: train.py takes it as it is, by "
            "--config.model.pretrained"
        )
    trunk = trunks.from_file(file)
    trunks.write_trunk(trunk, out)
    left_out = f"; left out: {', '.join(trunk.left_out)}" if trunk.left_out else ""
    say(
        f"{trunk.structure.title}: {trunk.num_tensors} tensors, "
        f"{trunk.num_parameters:,} parameters{left_out}"
    )
    use = f"--config.model.pretrained={out} {trunks.flags(trunk.structure)}"
    say(f"train.py takes it by {use.strip()}")
    if trunk.structure.stride_in_1x1 is None:
        say(trunks.STRIDE_UNKNOWN)


def _convert_program(
    file: WeightsFile, program: str, out: pathlib.Path, arguments: list[str]
) -> None:
    values = flags.FlagValues()
    arguments = ["", *arguments]
    default = "" if _names_a_recipe(arguments) else find_checkout() / "configs" / _RECIPES[program]
    arguments = recipe_flags.define_from_file(arguments, str(default), values)
    try:
        values(arguments)
    except flags.Error as error:
        raise ValueError(str(error)) from error
    sizes, parameters = write_workdir(file, program, values["config"].value, out)
    epoch = "" if file.epoch is None else f" of epoch {file.epoch}"
    say(
        f"{program.upper()}{epoch}: {len(file.arrays)} tensors, {parameters:,} parameters; "
        f"{sizes.trunk.title}, embeddings of {', '.join(map(str, sizes.dims))} numbers, "
        f"{sizes.num_classes} identities"
    )
    say(f"python eval.py --workdir={out} --config.data.root=FOLDER evaluates it")


def _names_a_recipe(arguments: list[str]) -> bool:
    return any(argument.split("=")[0] == "--config" for argument in arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m reid_jax.weights",
        usage="%(prog)s FILE OUT [--config=RECIPE] [--config.LEAF=VALUE ...]",
        description="Converts weights of others. Of an ImageNet ResNet in torchvision's or timm's "
        "names, or of Caffe, OUT is a file for --config.model.pretrained. Of a checkpoint of the "
        "authors' PMM or of BDB, OUT is a workdir for eval.py.",
        epilog="--config names the recipe that a PMM or BDB was trained by, of which eval.py takes "
        "data set and image size; by default the one for Market-1501. Trunk, dimensions and number "
        "of identities are read from FILE.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "file",
        metavar="FILE",
        type=pathlib.Path,
        help=".safetensors, .caffemodel, or .pth (needs PyTorch)",
    )
    parser.add_argument("out", metavar="OUT", type=pathlib.Path, help="must not exist")
    parser.add_argument("--traceback", action="store_true", help="show where an error came from")
    return parser


if __name__ == "__main__":
    main()
