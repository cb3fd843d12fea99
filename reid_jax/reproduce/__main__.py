"""Command line: python -m reid_jax.reproduce TABLE --small --steps=500 ..."""

import argparse
import pathlib
import signal
import sys

from reid_jax.reproduce import results
from reid_jax.reproduce.plan import Settings, carry_out, finished, left_out, plan
from reid_jax.reproduce.tables import DATASETS, TABLES
from reid_jax.runtime.checkout import find_checkout
from reid_jax.runtime.messages import Preempted, clear_errors, say

# What has an option of its own here.
_OPTIONS = {
    "seed": "--seeds",
    "max_steps": "--steps",
    "data.root": ", ".join(f"--{key}" for key in DATASETS),
}


def main(arguments: list[str] | None = None) -> None:
    """Runs the table that the command line asks for, or goes on with it."""
    parser = _parser()
    options, others = parser.parse_known_args(arguments)
    overrides = tuple(_override(parser, argument) for argument in others)
    folders = {key: getattr(options, key) for key in DATASETS}
    with clear_errors(options.traceback):
        settings = Settings(
            checkout=find_checkout(),
            workdir=options.workdir.absolute(),
            seeds=options.seeds,
            small=options.small,
            steps=options.steps,
            folders={key: folder.absolute() for key, folder in folders.items() if folder},
            overrides=overrides,
        )
        try:
            reproduce(options.table, settings, dry_run=options.dry_run)
        except KeyboardInterrupt:
            sys.exit("stopped; the same command goes on here")


def reproduce(name: str, settings: Settings, dry_run: bool = False) -> None:
    """Makes the runs of a table that are not made yet, and keeps its two files up to date.

    Args:
        name: key of `TABLES`.
        settings: how it is run.
        dry_run: only print the commands of these runs.

    Raises:
        FileNotFoundError: no dataset of the table is at hand.
        OSError: a run failed; names its command.
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
        carry_out(run, settings.checkout)
        table = results.write(name, settings, absent)
    say(f"\n{table}\n{settings.workdir / name}.md, .json and .png hold this table")


def _stop(*unused_signal) -> None:
    """So that a training run is asked to end with this program, and does not outlive it."""
    raise Preempted("stopped by SIGTERM: the same command goes on here")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m reid_jax.reproduce",
        usage="%(prog)s TABLE [options] [--config.LEAF=VALUE ...]",
        description="Runs the rows of a paper's table that the data at hand allows, and writes "
        "what is published and what was measured to WORKDIR/TABLE.md and .json. Started again, it "
        "goes on where it stopped.",
        epilog="Further leaves, --config.LEAF=VALUE, are overridden in every run.",
        allow_abbrev=False,
    )
    parser.add_argument("table", metavar="TABLE", choices=TABLES, help=", ".join(TABLES))
    parser.add_argument(
        "--workdir",
        type=pathlib.Path,
        default=pathlib.Path("runs/reproduce"),
        help="folder of the tables and their runs; default: %(default)s",
    )
    parser.add_argument(
        "--seeds", type=_positive, default=3, help="runs of each row; default: %(default)s"
    )
    parser.add_argument("--small", action="store_true", help="small networks, for a CPU")
    parser.add_argument("--steps", type=_positive, help="end each run at this step at the latest")
    for key, dataset in DATASETS.items():
        parser.add_argument(
            f"--{key}",
            type=pathlib.Path,
            metavar="FOLDER",
            help=f"of {dataset.title}; default: "
            + (dataset.root or "the recipes' own, drawn on first use"),
        )
    parser.add_argument("--dry-run", action="store_true", help="only print the commands to come")
    parser.add_argument("--traceback", action="store_true", help="show where an error came from")
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is below 1")
    return value


def _override(parser: argparse.ArgumentParser, argument: str) -> str:
    """`optim.lr=1e-3` of `--config.optim.lr=1e-3`."""
    leaf, equals, _ = argument.removeprefix("--config.").partition("=")
    if not argument.startswith("--config.") or not equals:
        parser.error(f"unknown argument {argument!r}; leaves are --config.LEAF=VALUE")
    if leaf in _OPTIONS:
        parser.error(f"{argument}: name {_OPTIONS[leaf]} instead")
    return argument.removeprefix("--config.")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _stop)
    main()
