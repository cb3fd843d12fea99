"""`reid-jax reproduce TABLE`: runs the rows of a paper's table."""

import argparse
import contextlib
import dataclasses
import pathlib
import signal
import threading
from collections.abc import Iterator

from reid_jax.cli.arguments import whole
from reid_jax.reproduce.plan import Settings, plan
from reid_jax.reproduce.tables import DATASETS, TABLES
from reid_jax.runtime.files import local_path
from reid_jax.runtime.messages import Preempted, clear_errors

# Leaves that have their own options here.
_OPTIONS = {
    "seed": "--seeds",
    "max_steps": "--steps",
    "data.root": ", ".join(f"--{key}" for key in DATASETS),
}


def main(arguments: list[str] | None = None, prog: str = "reid-jax reproduce") -> None:
    """Run the table that the command line names, or continue it.

    Args:
        arguments: those after the program's name; None means `sys.argv[1:]`.
        prog: the program's name, for its help.
    """
    parser = _parser(prog)
    options, others = parser.parse_known_args(arguments)
    overrides = tuple(_override(parser, argument) for argument in others)
    folders = {key: getattr(options, key) for key in DATASETS}
    for key, folder in folders.items():
        if folder is not None and key not in TABLES[options.table].datasets:
            parser.error(f"--{key}: the table {options.table} has no {DATASETS[key].title}")
    with clear_errors(options.traceback), _stoppable():
        from reid_jax.reproduce.runner import reproduce  # After parsing: then `--help` is fast.

        settings = Settings(
            folder=pathlib.Path.cwd(),
            workdir=pathlib.Path(local_path(options.workdir, "--workdir")).absolute(),
            seeds=options.seeds,
            small=options.small,
            steps=options.steps,
            folders={
                key: pathlib.Path(local_path(folder, f"--{key}")).absolute()
                for key, folder in folders.items()
                if folder is not None
            },
            overrides=overrides,
        )
        _check_overrides(options.table, settings)
        try:
            reproduce(options.table, settings, dry_run=options.dry_run, jobs=options.jobs)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("run the same command again to continue") from None


def _check_overrides(table: str, settings: Settings) -> None:
    """Raise ValueError if the recipe of a run does not allow a leaf of `settings.overrides`."""
    if not settings.overrides:
        return
    from reid_jax.cli.flag_programs import new_flags  # Here, so that `--help` is fast.
    from reid_jax.cli.train import parse_run
    from reid_jax.runs.settings import check_leaves

    # Small recipes have the same leaves.
    for run in plan(TABLES[table], dataclasses.replace(settings, seeds=1, small=False)):
        values = new_flags()
        try:
            parse_run(["reid-jax train", *run.arguments], values)
            check_leaves(values.config)
        except ValueError as error:
            raise ValueError(f"{run.row.name}, {DATASETS[run.dataset].title}: {error}") from error


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """On SIGTERM, end the training run with this program, so that it does not outlive it."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Only the main thread can handle signals.
        return
    before = signal.signal(signal.SIGTERM, _stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _stop(*unused_signal) -> None:
    raise Preempted("stopped by SIGTERM: run the same command again to continue")


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog,
        usage="%(prog)s TABLE [options] [--config.LEAF=VALUE ...]",
        description="Runs the rows of a paper's table for all available datasets, and writes "
        "the published and the measured figures to WORKDIR/TABLE.md and .json. Run the same "
        "command again to continue.",
        epilog="Further leaves, --config.LEAF=VALUE, are overridden in every run.",
        allow_abbrev=False,
    )
    parser.add_argument("table", metavar="TABLE", choices=TABLES, help=", ".join(TABLES))
    parser.add_argument(
        "--workdir",
        default="runs/reproduce",
        help="folder of the tables and their runs; default: %(default)s",
    )
    parser.add_argument(
        "--seeds", type=whole(1), default=3, help="runs of each row; default: %(default)s"
    )
    parser.add_argument(
        "--jobs", type=whole(1), default=1, help="runs at the same time; default: %(default)s"
    )
    parser.add_argument("--small", action="store_true", help="small networks, for a CPU")
    parser.add_argument("--steps", type=whole(1), help="end each run at this step at the latest")
    for key, dataset in DATASETS.items():
        parser.add_argument(
            f"--{key}",
            metavar="FOLDER",
            help=f"of {dataset.title}; default: "
            + (dataset.root or "the recipes' own, drawn on first use"),
        )
    parser.add_argument("--dry-run", action="store_true", help="only print the remaining commands")
    parser.add_argument("--traceback", action="store_true", help="show where an error came from")
    return parser


def _override(parser: argparse.ArgumentParser, argument: str) -> str:
    """Return `optim.lr=1e-3` for `--config.optim.lr=1e-3`."""
    leaf, equals, _ = argument.removeprefix("--config.").partition("=")
    if not argument.startswith("--config.") or not equals:
        parser.error(f"unknown argument {argument!r}; set leaves with --config.LEAF=VALUE")
    if leaf in _OPTIONS:
        parser.error(f"{argument}: name {_OPTIONS[leaf]} instead")
    return argument.removeprefix("--config.")
