"""Runs a table: from its plan to its files."""

import concurrent.futures
import functools
import pathlib
import threading
from collections.abc import Callable, Iterator

from reid_jax.reproduce import results
from reid_jax.reproduce.execution import LOG, carry_out
from reid_jax.reproduce.plan import Run, Settings, finished, left_out, plan
from reid_jax.reproduce.tables import DATASETS, TABLES
from reid_jax.runtime.messages import say


def reproduce(name: str, settings: Settings, dry_run: bool = False, jobs: int = 1) -> None:
    """Run the unfinished runs of a table, and keep the table's files up to date.

    Args:
        name: key of `TABLES`.
        settings: how the table is run.
        dry_run: only print the commands of these runs.
        jobs: the number of runs at the same time. Several print into files in their folders.

    Raises:
        FileNotFoundError: no dataset of the table is available.
        OSError: a run failed. The message names its command.
    """
    absent = left_out(TABLES[name], settings)
    for key, reason in absent.items():
        say(f"# left out: {DATASETS[key].title}, {reason}")
    runs = [run for run in plan(TABLES[name], settings) if run.dataset not in absent]
    due = [run for run in runs if finished(run) is None]
    if dry_run:
        for run in due:
            say(run.command)
        return

    def title(run: Run) -> str:
        place = f"[{len(runs) - len(due) + 1 + due.index(run)}/{len(runs)}]"
        return f"{place} {run.row.name}, {DATASETS[run.dataset].title}, seed {run.seed}"

    carried_out = _one_by_one if jobs == 1 else functools.partial(_at_once, jobs=jobs)
    table = results.write(name, settings, absent)
    for _ in carried_out(due, settings.folder, title):
        table = results.write(name, settings, absent)
    say(f"\n{table}\nThis table is in {settings.workdir / name}.md, .json and .png")


def _one_by_one(due: list[Run], folder: pathlib.Path, title: Callable[[Run], str]) -> Iterator[Run]:
    """Carry out runs; yield each when it is finished."""
    for run in due:
        say(f"\n{title(run)}\n{run.command}")
        carry_out(run, folder)
        yield run


def _at_once(
    due: list[Run], folder: pathlib.Path, title: Callable[[Run], str], jobs: int
) -> Iterator[Run]:
    """Carry out several runs at a time; yield each when it is finished.

    If one fails, or the caller does, the others are stopped.
    """
    stop = threading.Event()

    def make(run: Run) -> None:
        if not stop.is_set():
            say(f"\n{title(run)}\n{run.command}\nprints into {run.workdir / LOG}")
            carry_out(run, folder, stop)

    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        made = {pool.submit(make, run): run for run in due}
        try:
            for future in concurrent.futures.as_completed(made):
                future.result()
                say(f"\n{title(made[future])}: finished")
                yield made[future]
        except BaseException:
            stop.set()  # Leaving the pool waits until all runs have written their checkpoints.
            raise
