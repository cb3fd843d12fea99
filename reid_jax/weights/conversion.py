"""Converts files of other programs, and prints what was read and how to use the result."""

import os
import shlex

from ml_collections import ConfigDict

from reid_jax.runtime.devices import all_devices
from reid_jax.runtime.messages import counted, say, shown
from reid_jax.weights import authors, trunks
from reid_jax.weights.files import WeightsFile, read
from reid_jax.weights.workdirs import write_workdir

__all__ = ["convert_program", "convert_trunk", "program_of", "read"]


def program_of(file: WeightsFile) -> str | None:
    """`pmm` or `bdb` for a checkpoint of the authors' program, otherwise None.

    Raises:
        ValueError: as `authors.recognise`.
    """
    return None if trunks.is_own(file) else authors.recognise(file.arrays)


def convert_trunk(file: WeightsFile, out: str | os.PathLike[str]) -> None:
    """Write an ImageNet ResNet as a file for `model.pretrained`.

    Raises:
        ValueError: the file is already converted, or holds something else, for example a packed
            run.
        OSError: `out` cannot be written.
    """
    if trunks.is_own(file):
        trunks.from_own(file)  # A packed run and a damaged file have their own errors.
        raise ValueError(
            f"{shown(file.path)} is already converted: pass it to reid-jax train with "
            "--config.model.pretrained"
        )
    trunk = trunks.from_file(file)
    trunks.write_trunk(trunk, out)
    left_out = f"; left out: {', '.join(trunk.left_out)}" if trunk.left_out else ""
    say(
        f"{trunk.structure.title}: {counted(trunk.num_tensors, 'tensor')}, "
        f"{counted(trunk.num_parameters, 'parameter')}{left_out}"
    )
    use = f"--config.model.pretrained={shlex.quote(os.fspath(out))} {trunks.flags(trunk.structure)}"
    say(f"use it in training: reid-jax train {use.strip()}")
    if trunk.structure.stride_in_1x1 is None:
        say(trunks.STRIDE_UNKNOWN)


def convert_program(
    file: WeightsFile, program: str, config: ConfigDict, out: str | os.PathLike[str]
) -> None:
    """Write a checkpoint of PMM's or BDB's authors as a workdir.

    Args:
        file: the checkpoint.
        program: from `program_of`.
        config: the recipe that it was trained with.
        out: the workdir to create.

    Raises:
        ValueError, OSError: as `write_workdir`.
    """
    all_devices()
    sizes, parameters = write_workdir(file, program, config, out)
    epoch = "" if file.epoch is None else f" of epoch {file.epoch}"
    say(
        f"{program.upper()}{epoch}: {counted(len(file.arrays), 'tensor')}, "
        f"{counted(parameters, 'parameter')}; "
        f"{sizes.trunk.title}, embeddings of {', '.join(map(str, sizes.dims))} numbers, "
        f"{counted(sizes.num_classes, 'identity', 'identities')}"
    )
    workdir = shlex.quote(os.fspath(out))
    say(f"evaluate it: reid-jax eval --workdir={workdir} --config.data.root=FOLDER")
