"""What benchmarks share: the record of where and how something was measured, and a table."""

import argparse
import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import sys
from collections.abc import Collection, Iterable

import jax


def say(text: str) -> None:
    """Progress: tables alone go to the standard output."""
    print(text, file=sys.stderr, flush=True)


def words(
    options: argparse.Namespace,
    name: str,
    known: Collection[str],
    default: Iterable[str] | None = None,
) -> list[str]:
    """The comma-separated words of an option; where it was not given, `default` or all known ones.

    Raises:
        ValueError: a word that is not known.
    """
    text = getattr(options, name)
    chosen = list(known if default is None else default) if text is None else text.split(",")
    for word in chosen:
        if word not in known:
            raise ValueError(f"unknown {word!r} in --{name}: there are {list(known)}")
    return chosen


def record(script: str, settings: dict, device: jax.Device, results: list[dict]) -> dict:
    """What a benchmark writes: its results with all that is needed to measure them again.

    Args:
        script: path in the repository, `benchmarks/networks.py`.
        settings: value by option of the script, none left to a default that depends on the machine.
        device: that was measured.
        results: of the script's own schema.

    Returns:
        `command`, which has every setting; `date`, UTC in ISO 8601; `device`, its kind; `platform`
        and `cores` of the host, which matter where the device is a CPU; `versions`; `settings` and
        `results`.
    """
    packages = ("jax", "jaxlib", "flax", "optax", "numpy")
    return {
        "command": " ".join(["python", script, *_options(settings)]),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device": device.device_kind,
        "platform": device.platform,
        "cores": os.cpu_count(),
        "versions": {
            "python": platform.python_version(),
            **{package: importlib.metadata.version(package) for package in packages},
        },
        "settings": settings,
        "results": results,
    }


def _options(settings: dict) -> list[str]:
    options = []
    for name, value in settings.items():
        if isinstance(value, bool):
            options += [f"--{name}"] if value else []
        else:
            text = ",".join(value) if isinstance(value, list) else value
            options.append(f"--{name}={text}")
    return options


def write(content: dict, path: str) -> None:
    """Writes JSON; folders are made. A number that is not finite is a ValueError."""
    text = json.dumps(content, indent=2, allow_nan=False)
    pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
    pathlib.Path(path).write_text(text + "\n")


def table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Lines of columns: the first flush left, the others flush right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in (header, *rows)
    )
