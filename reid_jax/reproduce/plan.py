"""The runs behind a table: one command of `reid-jax train` for each row, dataset and seed.

The name of a run's folder depends on the run and not on the table, so that tables can share runs.
After a kill, run the same command again: finished runs have a `reproduced.json`, and `reid-jax
train` resumes an unfinished one.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
import threading
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
# What a run beside others prints, in its folder.
LOG = "train.log"

# The program that carries out a run, of this installation and not of a `python` on the PATH.
_TRAIN = ("-m", "reid_jax", "train")

_CONTINUE = "run the same command again to continue"
_PAUSE = 0.2  # seconds between looks at what is waited for

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
        return shlex.join(["python", *_TRAIN, *self.arguments])


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


def carry_out(run: Run, folder: pathlib.Path, stop: threading.Event | None = None) -> None:
    """Train, and record the measurements. A finished run is skipped.

    Args:
        run: the run to start or to resume.
        folder: the folder in which the command runs.
        stop: for a run beside others, in a thread: ends it when it is set. Such a run prints into
            `LOG` in its folder.

    Raises:
        OSError: the training failed. The message names the command.
        ValueError: a link leads out of the run's folder; see `check_symlinks`.
        Preempted: SIGTERM or `stop` ended it.
    """
    run.workdir.mkdir(parents=True, exist_ok=True)
    check_symlinks(run.workdir)
    with _alone_in(run.workdir, stop) as lock:
        if finished(run) is not None:
            return
        resumed = (run.workdir / CHECKPOINTS).exists()
        start = time.monotonic()
        status = _train(run, folder, lock, stop)
        if status == TRY_AGAIN:
            raise Preempted(_CONTINUE)
        if status != 0:
            where = "printed above" if stop is None else f"at the end of {run.workdir / LOG}"
            raise ChildProcessError(
                f"exit status {status} of {run.command}\nThe error is {where}. Run "
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


def _train(run: Run, folder: pathlib.Path, lock: int, stop: threading.Event | None) -> int:
    """Run the training program to its end, and return its exit status."""
    program = [sys.executable, *_TRAIN, *run.arguments]
    with contextlib.ExitStack() as stack:
        options: dict[str, Any] = {}
        if stop is not None:
            log = stack.enter_context((run.workdir / LOG).open("a"))
            # The first program would otherwise reserve most of a GPU's memory.
            environment = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", **os.environ}
            options = {"stdout": log, "stderr": subprocess.STDOUT, "env": environment}
        training = stack.enter_context(
            subprocess.Popen(program, cwd=folder, pass_fds=[lock], **options)
        )
        try:
            while stop is not None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    return training.wait(_PAUSE)
                if stop.is_set():
                    raise Preempted(_CONTINUE)
            return training.wait()
        except BaseException:
            training.terminate()
            training.wait()  # The run writes its checkpoint.
            raise


@contextlib.contextmanager
def _alone_in(workdir: pathlib.Path, stop: threading.Event | None) -> Iterator[int]:
    """Hold the lock of a run's folder; yield the lock file, which the training program inherits.

    The lock is held as long as either program lives. If only this program is killed, the next one
    waits for the training that was left behind, and two simultaneous tables do not make a run
    twice.
    """
    with (workdir / "lock").open("w") as file:
        waiting = False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not waiting:
                    say(f"waiting for another program that trains in {workdir}")
                waiting = True
                if stop is not None and stop.is_set():
                    raise Preempted(_CONTINUE) from None
                time.sleep(_PAUSE)
        yield file.fileno()


def _in_per_cent(evaluation: dict[str, Any]) -> dict[str, float]:
    return {
        name: 100 * value
        for name, value in evaluation.items()
        if name in ("mAP", "mINP") or name.startswith("Rank-")
    }


def _seen_from(folder: pathlib.Path, path: pathlib.Path) -> pathlib.Path:
    """A path as seen by a program that runs in a folder, as short as possible."""
    path = pathlib.Path(os.path.abspath(path))
    return path.relative_to(folder) if path.is_relative_to(folder) else path
