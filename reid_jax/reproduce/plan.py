"""The runs behind a table: one command of `reid-jax train` for each row, dataset and seed.

The name of a run's folder depends on the run and not on the table, so that tables can share runs.
After a kill, run the same command again: finished runs have a `reproduced.json`, and `reid-jax
train` resumes an unfinished one.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
import re
import shlex
from typing import Any

from reid_jax.reproduce.tables import DATASETS, Row, Table

NAME = "reproduced.json"

# The program that carries out a run, of this installation and not of a `python` on the PATH.
TRAIN = ("-m", "reid_jax", "train")

# Bytes of a folder's name. File systems take 255.
_LONGEST_NAME = 200


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a table is run.

    Attributes:
        folder: the folder in which commands run; the recipes' data folders are relative to it.
        workdir: folder of the tables and their runs.
        seeds: number of runs of each row on each dataset; their seeds count from 0.
        small: whether to use the recipes' small networks, for a CPU.
        steps: the largest number of steps per run; None for the recipe's own number.
        folders: folders of datasets, by key, that replace those of the recipes.
        overrides: `LEAF=VALUE` for every run.
    """

    folder: pathlib.Path
    workdir: pathlib.Path
    seeds: int = 3
    small: bool = False
    steps: int | None = None
    folders: dict[str, pathlib.Path] = dataclasses.field(default_factory=dict)
    overrides: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Run:
    """A run of a row on a dataset.

    Attributes:
        row: the row of the table.
        dataset: key of `DATASETS`.
        seed: the seed of the run, or a word, to show one command for all seeds.
        workdir: the run's folder.
        arguments: arguments of `reid-jax train`.
    """

    row: Row
    dataset: str
    seed: int | str
    workdir: pathlib.Path
    arguments: tuple[str, ...]

    @property
    def command(self) -> str:
        """The command line."""
        return shlex.join(["python", *TRAIN, *self.arguments])


def left_out(table: Table, settings: Settings) -> dict[str, str]:
    """The missing datasets of a table, by key, each with advice.

    Raises:
        FileNotFoundError: a folder that the settings name does not exist, or no dataset of the
            table is available.
    """
    reasons = {}
    for key in table.datasets:
        default = DATASETS[key].root
        folder = settings.folders.get(key, default)
        if default is None or folder is None or (settings.folder / folder).is_dir():
            continue
        if key in settings.folders:
            raise FileNotFoundError(f"--{key}={folder}: there is no such folder")
        reasons[key] = f"no folder {folder}; set --{key}=FOLDER"
    if len(reasons) == len(table.datasets):
        listed = "; ".join(f"{DATASETS[key].title}: {why}" for key, why in reasons.items())
        raise FileNotFoundError(
            f"no dataset of this table is available in {settings.folder}. {listed}. The table "
            "`synthetic` needs no dataset"
        )
    return reasons


def plan(table: Table, settings: Settings) -> list[Run]:
    """Plan all runs of a table: the first seed of every row, then the second of every row, ...

    Raises:
        ValueError: `settings.small` is set, but the table's rows define their own size.
    """
    if settings.small and table.sized:
        raise ValueError("--small: the rows of this table define their own size; omit --small")
    return [
        make_run(row, dataset, seed, settings)
        for seed in range(settings.seeds)
        for row in table.rows
        for dataset in table.datasets
    ]


def make_run(row: Row, dataset: str, seed: int | str, settings: Settings) -> Run:
    """Create the run of a row on a dataset, for a seed or for a word that represents all seeds."""
    recipe = f"{row.network}_{DATASETS[dataset].recipes}"
    words = [*DATASETS[dataset].words, *row.words, *(["small"] if settings.small else [])]
    leaves = [
        *([f"max_steps={settings.steps}"] if settings.steps else []),
        *settings.overrides,
        *row.leaves,  # Last, so that they cannot be overridden.
    ]
    folder = "-".join([recipe, *words, *map(_without_folders, leaves)])
    # Values of leaves may contain characters that do not belong in a folder's name.
    folder = _shortened(re.sub(r"[^\w.,+=-]+", "_", folder))
    workdir = settings.workdir / folder / f"seed{seed}"
    config = recipe + (f":{','.join(words)}" if words else "")
    arguments = [
        f"--config={config}",
        f"--workdir={_seen_from(settings.folder, workdir)}",
        f"--config.seed={seed}",
    ]
    if dataset in settings.folders:
        root = _seen_from(settings.folder, settings.folders[dataset])
        arguments.append(f"--config.data.root={root}")
    arguments += [f"--config.{leaf}" for leaf in leaves]
    return Run(row, dataset, seed, workdir, tuple(arguments))


def _shortened(name: str) -> str:
    """A name that file systems take: a long one ends in its digest."""
    if len(name.encode()) <= _LONGEST_NAME:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:16]
    start = name.encode()[: _LONGEST_NAME - len(digest) - 1].decode(errors="ignore")
    return f"{start}-{digest}"


def _without_folders(leaf: str) -> str:
    """A leaf for the name of a run's folder, without the folder of its weights file."""
    name, _, value = leaf.partition("=")
    return f"{name}={pathlib.PurePath(value).name}" if name == "model.pretrained" else leaf


def finished(run: Run) -> dict[str, Any] | None:
    """The results of a finished run; None if it is unfinished or its command was different.

    Returns:
        `command`; `metrics`, by name in per cent; `seconds`; and `resumed`, whether the run was
        resumed, in which case `seconds` covers only its last part.

    Raises:
        ValueError: the file is damaged.
    """
    path = run.workdir / NAME
    try:
        left = json.loads(path.read_text(encoding="utf-8"))
        return left if _essence(left["command"]) == _essence(run.command) else None
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged: {error!r}. Remove it to run it again") from error


def _essence(command: str) -> tuple[str, list[str]]:
    """The recipe and leaves of a command, without the workdir, in a form that spelling does not
    affect.

    `python train.py --config=configs/pmm_market.py:small ...`, as former versions wrote it, equals
    `python -m reid_jax train --config=pmm_market:small ...`.
    """
    config, leaves = "", []
    for argument in shlex.split(command):
        name, _, value = argument.partition("=")
        if name == "--config":
            path, colon, words = value.partition(":")
            config = pathlib.PurePath(path).stem + colon + words
        elif name == "--config.data.root":
            leaves.append(f"{name}={os.path.abspath(value)}")
        elif name.startswith("--config."):
            leaves.append(argument)
    return config, leaves


def _seen_from(folder: pathlib.Path, path: pathlib.Path) -> pathlib.Path:
    """A path as seen by a program that runs in a folder, as short as possible."""
    path = pathlib.Path(os.path.abspath(path))
    return path.relative_to(folder) if path.is_relative_to(folder) else path
