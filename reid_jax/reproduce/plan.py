"""The runs behind a table: one command of `train.py` for each row, dataset and seed.

A run has a folder named for what it is and not for a table, so that tables share it. Whatever was
killed, and wherever, the same command goes on: a finished run left `reproduced.json` behind, and an
unfinished one is `train.py`'s to continue.
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


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a table is run.

    Attributes:
        checkout: folder of `train.py` and `configs/`, where the commands run.
        workdir: folder of the tables and their runs.
        seeds: number of runs of each row on each dataset; their seeds count from 0.
        small: the recipes' small networks, for a CPU.
        steps: at most so many a run; None for as many as the recipe has.
        folders: of datasets, by key, where they are not those of the recipes.
        overrides: `LEAF=VALUE` for every run.
    """

    checkout: pathlib.Path
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
        arguments: what `train.py` gets.
    """

    row: Row
    dataset: str
    seed: int | str
    workdir: pathlib.Path
    arguments: tuple[str, ...]

    @property
    def command(self) -> str:
        """The command line, to be typed in a checkout."""
        return shlex.join(["python", "train.py", *self.arguments])


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
        if default is None or folder is None or (settings.checkout / folder).is_dir():
            continue
        if key in settings.folders:
            raise FileNotFoundError(f"--{key}={folder}: there is no such folder")
        reasons[key] = f"no folder {folder}; --{key}=FOLDER names another"
    if len(reasons) == len(table.datasets):
        listed = "; ".join(f"{DATASETS[key].title}: {why}" for key, why in reasons.items())
        raise FileNotFoundError(
            f"no dataset of this table is at hand in {settings.checkout}. {listed}. The table "
            "`synthetic` draws its own"
        )
    return reasons


def plan(table: Table, settings: Settings) -> list[Run]:
    """All runs of a table, the first seed of every row before the second of any."""
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
    folder = "-".join([recipe, *words, *leaves])
    # Values of leaves may hold what no folder's name should.
    workdir = settings.workdir / re.sub(r"[^\w.,+=-]+", "_", folder) / f"seed{seed}"
    config = f"configs/{recipe}.py" + (f":{','.join(words)}" if words else "")
    arguments = [
        f"--config={config}",
        f"--workdir={_seen_from(settings.checkout, workdir)}",
        f"--config.seed={seed}",
    ]
    if dataset in settings.folders:
        root = _seen_from(settings.checkout, settings.folders[dataset])
        arguments.append(f"--config.data.root={root}")
    arguments += [f"--config.{leaf}" for leaf in leaves]
    return Run(row, dataset, seed, workdir, tuple(arguments))


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
        return left if left["command"] == run.command else None
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged: {error!r}. Remove it to run it again") from error


def carry_out(run: Run, checkout: pathlib.Path) -> None:
    """Starts `train.py`, waits for it, and notes what it measured; a finished run is left alone.

    Args:
        run: to make, or to go on with.
        checkout: folder of `train.py`.

    Raises:
        OSError: `train.py` failed; names the command.
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
        program = [sys.executable, "train.py", *run.arguments]
        with subprocess.Popen(program, cwd=checkout, pass_fds=[lock]) as training:
            try:
                status = training.wait()
            except BaseException:
                training.terminate()  # And wait for its checkpoint.
                raise
        if status == TRY_AGAIN:
            raise Preempted("the same command goes on here")
        if status != 0:
            raise ChildProcessError(
                f"exit status {status} of {run.command}\nWhat went wrong stands above. Started "
                "again, this goes on here"
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
    """Holds the lock of a run's folder; yields its file, which `train.py` is to inherit.

    So the lock is held as long as either lives: where this program alone is killed, the next one
    waits for the `train.py` that it left behind, and two tables at once do not make a run twice.
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


def _seen_from(checkout: pathlib.Path, path: pathlib.Path) -> pathlib.Path:
    """A path for a program that runs in the checkout; as short as it can be."""
    path = pathlib.Path(os.path.abspath(path))
    return path.relative_to(checkout) if path.is_relative_to(checkout) else path
