"""Runs a table: from its plan to its files."""

from reid_jax.reproduce import results
from reid_jax.reproduce.plan import Settings, carry_out, finished, left_out, plan
from reid_jax.reproduce.tables import DATASETS, TABLES
from reid_jax.runtime.messages import say


def reproduce(name: str, settings: Settings, dry_run: bool = False) -> None:
    """Run the unfinished runs of a table, and keep the table's files up to date.

    Args:
        name: key of `TABLES`.
        settings: how the table is run.
        dry_run: only print the commands of these runs.

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
    table = results.write(name, settings, absent)
    for number, run in enumerate(due, start=len(runs) - len(due) + 1):
        title = DATASETS[run.dataset].title
        say(f"\n[{number}/{len(runs)}] {run.row.name}, {title}, seed {run.seed}\n{run.command}")
        carry_out(run, settings.folder)
        table = results.write(name, settings, absent)
    say(f"\n{table}\nThis table is in {settings.workdir / name}.md, .json and .png")
