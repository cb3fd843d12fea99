"""Common parts of benchmarks: the record of device and settings, and a table."""

import argparse
import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess
import sys
from collections.abc import Collection, Iterable

import jax

ROOT = pathlib.Path(__file__).resolve().parents[1]


def say(text: str) -> None:
    """Print progress to the standard error; only tables go to the standard output."""
    print(text, file=sys.stderr, flush=True)


def words(
    options: argparse.Namespace,
    name: str,
    known: Collection[str],
    default: Iterable[str] | None = None,
) -> list[str]:
    """The comma-separated words of an option; `default` or all known words if it is not given.

    Raises:
        ValueError: a word is unknown.
    """
    text = getattr(options, name)
    chosen = list(known if default is None else default) if text is None else text.split(",")
    for word in chosen:
        if word not in known:
            raise ValueError(f"unknown {word!r} in --{name}: choose from {list(known)}")
    return chosen


def record(
    script: str,
    settings: dict,
    device: jax.Device,
    results: list[dict],
    others: Iterable[str] = (),
) -> dict:
    """The JSON of a benchmark: its results, with all that is needed to measure them again.

    Args:
        script: path in the repository, `benchmarks/networks.py`.
        settings: value of each option of the script, with defaults that depend on the machine
            filled in.
        device: the device that was measured.
        results: in the script's own schema.
        others: packages of the other programs that are compared, of which the installed ones are
            among the versions.

    Returns:
        `command`, which has every setting; `date`, UTC in ISO 8601; `commit`, the one checked out,
        or None outside a clone; `device`, its kind; `platform` and `cores` of the host, which
        matter if the device is a CPU; `versions`; `settings` and `results`.
    """
    packages = ("jax", "jaxlib", "flax", "optax", "numpy")
    return {
        "command": " ".join(["python", script, *options(settings)]),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": git("rev-parse", "HEAD"),
        "device": device.device_kind,
        "platform": device.platform,
        "cores": os.cpu_count(),
        "versions": {
            "python": platform.python_version(),
            **{package: importlib.metadata.version(package) for package in packages},
            **{package: importlib.metadata.version(package) for package in filter(_has, others)},
        },
        "settings": settings,
        "results": results,
    }


def _has(package: str) -> bool:
    try:
        return bool(importlib.metadata.version(package))
    except importlib.metadata.PackageNotFoundError:
        return False


def git(*arguments: str) -> str | None:
    """What git prints in this clone; None if it fails, or there is no git."""
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def options(settings: dict) -> list[str]:
    """The settings as options of a command line."""
    found = []
    for name, value in settings.items():
        if isinstance(value, bool):
            found += [f"--{name}"] if value else []
        else:
            text = ",".join(value) if isinstance(value, list) else value
            found.append(f"--{name}={text}")
    return found


def write(content: dict, path: str) -> None:
    """Write JSON and create its folder. A number that is not finite is a ValueError."""
    text = json.dumps(content, indent=2, allow_nan=False)
    pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
    pathlib.Path(path).write_text(text + "\n")


def table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Format lines of columns: the first aligned left, the others aligned right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in (header, *rows)
    )
