"""Files of other programs, converted; what was read and how to use it is printed."""

import os

from ml_collections import ConfigDict

from reid_jax.runtime.devices import all_devices
from reid_jax.runtime.messages import say, shown
from reid_jax.weights import authors, trunks
from reid_jax.weights.files import WeightsFile, read
from reid_jax.weights.workdirs import write_workdir

__all__ = ["convert_program", "convert_trunk", "program_of", "read"]


def program_of(file: WeightsFile) -> str | None:
    """`pmm` or `bdb` for a checkpoint of its authors' program, else None.

    Raises:
        ValueError: as `authors.recognise`.
    """
    return None if trunks.is_own(file) else authors.recognise(file.arrays)


def convert_trunk(file: WeightsFile, out: str | os.PathLike[str]) -> None:
    """Writes an ImageNet ResNet as a file for `model.pretrained`.

    Raises:
        ValueError: it is converted already, or is no such network.
        OSError: `out` cannot be written.
    """
    if trunks.is_own(file):
        raise ValueError(
            f"{shown(file.path)} is converted already: reid-jax train takes it as it is, by "
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
    say(f"reid-jax train takes it by {use.strip()}")
    if trunk.structure.stride_in_1x1 is None:
        say(trunks.STRIDE_UNKNOWN)


def convert_program(
    file: WeightsFile, program: str, config: ConfigDict, out: str | os.PathLike[str]
) -> None:
    """Writes a checkpoint of PMM's or BDB's authors as a workdir.

    Args:
        file: the checkpoint.
        program: from `program_of`.
        config: the recipe that it was trained by.
        out: the workdir to make.

    Raises:
        ValueError, OSError: as `write_workdir`.
    """
    all_devices()
    sizes, parameters = write_workdir(file, program, config, out)
    epoch = "" if file.epoch is None else f" of epoch {file.epoch}"
    say(
        f"{program.upper()}{epoch}: {len(file.arrays)} tensors, {parameters:,} parameters; "
        f"{sizes.trunk.title}, embeddings of {', '.join(map(str, sizes.dims))} numbers, "
        f"{sizes.num_classes} identities"
    )
    say(f"reid-jax eval --workdir={out} --config.data.root=FOLDER evaluates it")
