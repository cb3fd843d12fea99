"""The runs behind a table: one command of `reid-jax train` for each row, dataset and seed.

A run has a folder named for what it is and not for a table, so that tables share it. After a kill,
the same command continues: a finished run left `reproduced.json` behind, and `reid-jax train`
continues an unfinished one.
"""

import contextlib
import dataclasses
import fcntl
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

from reid_jax.reproduce.tables import DATASETS, Row, Table
from reid_jax.runs.metrics import read_metrics
from reid_jax.runs.symlinks import check_symlinks
from reid_jax.runs.workdir import CHECKPOINTS
from reid_jax.runtime.files import write_text_atomically
from reid_jax.runtime.messages import TRY_AGAIN, Preempted, say

NAME = "reproduced.json"

# The program that carries out a run; of this installation, whatever `python` on the PATH has.
_TRAIN = ("-m", "reid_jax", "train")


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a table is run.

    Attributes:
        folder: where the commands run; the recipes' data folders are relative to it.
        workdir: folder of the tables and their runs.
        seeds: number of runs of each row on each dataset; their seeds count from 0.
        small: the recipes' small networks, for a CPU.
        steps: at most so many a run; None for as many as the recipe has.
        folders: of datasets, by key, where they are not those of the recipes.
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
        row: of the table.
        dataset: key of `DATASETS`.
        seed: of the run; a word where the command is to be shown for all of them.
        workdir: the run's folder.
        arguments: of `reid-jax train`.
    """

    row: Row
    dataset: str
    seed: int | str
    workdir: pathlib.Path
    arguments: tuple[str, ...]

    @property
    def command(self) -> str:
        """The command line."""
        return shlex.join(["python", *_TRAIN, *self.arguments])


def left_out(table: Table, settings: Settings) -> dict[str, str]:
    """The datasets of a table that are not at hand, by key, with what to do about it.

    Raises:
        FileNotFoundError: a folder that the settings name does not exist, or none of the table's
            datasets is at hand.
    """
    reasons = {}
    for key in table.datasets:
        default = DATASETS[key].root
        folder = settings.folders.get(key, default)
        if default is None or folder is None or (settings.folder / folder).is_dir():
            continue
        if key in settings.folders:
            raise FileNotFoundError(f"--{key}={folder}: there is no such folder")
        reasons[key] = f"no folder {folder}; --{key}=FOLDER names another"
    if len(reasons) == len(table.datasets):
        listed = "; ".join(f"{DATASETS[key].title}: {why}" for key, why in reasons.items())
        raise FileNotFoundError(
            f"no dataset of this table is at hand in {settings.folder}. {listed}. The table "
            "`synthetic` draws its own"
        )
    return reasons


def plan(table: Table, settings: Settings) -> list[Run]:
    """All runs of a table, the first seed of every row before the second of any.

    Raises:
        ValueError: `settings.small` is on, and the table's rows have a size of their own.
    """
    if settings.small and table.sized:
        raise ValueError("--small: the rows of this table have a size of their own, leave it out")
    return [
        make_run(row, dataset, seed, settings)
        for seed in range(settings.seeds)
        for row in table.rows
        for dataset in table.datasets
    ]


def make_run(row: Row, dataset: str, seed: int | str, settings: Settings) -> Run:
    """The run of a row on a dataset, for a seed or for a word that stands for any."""
    recipe = f"{row.network}_{DATASETS[dataset].recipes}"
    words = [*DATASETS[dataset].words, *row.words, *(["small"] if settings.small else [])]
    leaves = [
        *([f"max_steps={settings.steps}"] if settings.steps else []),
        *settings.overrides,
        *row.leaves,  # Last, and so not to be overridden.
    ]
    folder = "-".join([recipe, *words, *map(_without_folders, leaves)])
    # Values of leaves may hold what no folder's name should.
    workdir = settings.workdir / re.sub(r"[^\w.,+=-]+", "_", folder) / f"seed{seed}"
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


def _without_folders(leaf: str) -> str:
    """A leaf as it names a run's folder, which does not depend on where weights lie."""
    name, _, value = leaf.partition("=")
    return f"{name}={pathlib.PurePath(value).name}" if name == "model.pretrained" else leaf


def finished(run: Run) -> dict[str, Any] | None:
    """What a finished run left, None where it is not finished or was another command.

    Returns:
        `command`; `metrics`, by name in per cent; `seconds` and whether these are of a run
        `resumed`, and so of its last part alone.

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
    """What a command trains, however it is spelt: recipe and leaves, without the workdir.

    `python train.py --config=configs/pmm_market.py:small ...`, as former versions wrote it, is the
    same as `python -m reid_jax train --config=pmm_market:small ...`.
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


def carry_out(run: Run, folder: pathlib.Path) -> None:
    """Trains, and notes what was measured; a finished run is left alone.

    Args:
        run: to make, or to continue.
        folder: where the command runs.

    Raises:
        OSError: the training failed; names the command.
        ValueError: a link leads out of the run's folder; see `check_symlinks`.
        Preempted: SIGTERM has stopped it.
    """
    run.workdir.mkdir(parents=True, exist_ok=True)
    check_symlinks(run.workdir)
    with _alone_in(run.workdir) as lock:
        if finished(run) is not None:
            return
        resumed = (run.workdir / CHECKPOINTS).exists()
        start = time.monotonic()
        program = [sys.executable, *_TRAIN, *run.arguments]
        with subprocess.Popen(program, cwd=folder, pass_fds=[lock]) as training:
            try:
                status = training.wait()
            except BaseException:
                training.terminate()
                training.wait()  # For its checkpoint.
                raise
        if status == TRY_AGAIN:
            raise Preempted("run the same command again to continue")
        if status != 0:
            raise ChildProcessError(
                f"exit status {status} of {run.command}\nThe error is printed above. Run "
                "the same command again to continue"
            )
        evaluations = [record for record in read_metrics(run.workdir) if record["kind"] == "eval"]
        left = {
            "command": run.command,
            "metrics": _in_per_cent(evaluations[-1]),
            "seconds": round(time.monotonic() - start, 1),
            "resumed": resumed,
        }
        write_text_atomically(run.workdir / NAME, json.dumps(left, indent=2) + "\n")


@contextlib.contextmanager
def _alone_in(workdir: pathlib.Path) -> Iterator[int]:
    """Holds the lock of a run's folder; yields its file, which the training program inherits.

    So the lock is held as long as either lives: if only this program is killed, the next one waits
    for the training that it left behind, and two tables at once do not make a run twice.
    """
    with (workdir / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for the program that trains in {workdir}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()


def _in_per_cent(evaluation: dict[str, Any]) -> dict[str, float]:
    return {
        name: 100 * value
        for name, value in evaluation.items()
        if name in ("mAP", "mINP") or name.startswith("Rank-")
    }


def _seen_from(folder: pathlib.Path, path: pathlib.Path) -> pathlib.Path:
    """A path for a program that runs in a folder; as short as it can be."""
    path = pathlib.Path(os.path.abspath(path))
    return path.relative_to(folder) if path.is_relative_to(folder) else path
