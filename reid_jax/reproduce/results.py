"""The output files of a table: JSON, Markdown and a picture of its curves."""

import json
import pathlib
import re
import statistics
from collections.abc import Sequence
from typing import Any

from reid_jax.reproduce.curves import draw
from reid_jax.reproduce.plan import Settings, finished, make_run
from reid_jax.reproduce.tables import DATASETS, TABLES, Row, Table
from reid_jax.runs.symlinks import check_symlinks
from reid_jax.runtime.files import write_text_atomically
from reid_jax.runtime.messages import counted


def write(name: str, settings: Settings, absent: dict[str, str]) -> str:
    """Write the current results of a table to `NAME.json`, `NAME.md` and `NAME.png`.

    Args:
        name: key of `TABLES`.
        settings: how the table is run; the files are in its workdir.
        absent: from `left_out`.

    Returns:
        The Markdown.

    Raises:
        ValueError: a link leads out of the workdir; see `check_symlinks`.
    """
    content = summary(name, settings, absent)
    markdown = as_markdown(content)
    settings.workdir.mkdir(parents=True, exist_ok=True)
    check_symlinks(settings.workdir)
    as_json = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    write_text_atomically(settings.workdir / f"{name}.json", as_json + "\n")
    write_text_atomically(settings.workdir / f"{name}.md", markdown)
    draw(TABLES[name], settings, settings.workdir / f"{name}.png")
    return markdown


def summary(name: str, settings: Settings, absent: dict[str, str]) -> dict[str, Any]:
    """The current results of a table, for JSON. All figures are in per cent.

    Args:
        name: key of `TABLES`.
        settings: how the table is run.
        absent: from `left_out`.

    Returns:
        The table's source, its settings, and `rows`. Each row and dataset has the published
        figures, mean and spread of the finished runs (None without such runs), and all runs with
        their commands (`metrics` is None for unfinished runs).
    """
    table = TABLES[name]
    return {
        "table": name,
        "source": table.source,
        "note": table.note,
        "metrics": list(table.metrics),
        "settings": {
            "seeds": settings.seeds,
            "small": settings.small,
            "steps": settings.steps,
            "overrides": list(settings.overrides),
        },
        "left_out": {DATASETS[key].title: reason for key, reason in absent.items()},
        "rows": [
            _summarize_row(table, row, dataset, settings)
            for row in table.rows
            for dataset in table.datasets
        ],
    }


def _summarize_row(table: Table, row: Row, dataset: str, settings: Settings) -> dict[str, Any]:
    runs: list[dict[str, Any]] = []
    for seed in range(settings.seeds):
        run = make_run(row, dataset, seed, settings)
        left = finished(run) or {"metrics": None, "seconds": None, "resumed": None}
        runs.append({"seed": seed, "command": run.command} | left)
    measured = [run["metrics"] for run in runs if run["metrics"] is not None]
    columns = {name: [metrics[name] for metrics in measured] for name in table.metrics}
    published = row.published[table.datasets.index(dataset)] if row.published else None
    return {
        "row": row.name,
        "dataset": DATASETS[dataset].title,
        "published": dict(zip(table.metrics, published, strict=True)) if published else None,
        "mean": {k: statistics.fmean(v) for k, v in columns.items()} if measured else None,
        "spread": (
            {k: statistics.stdev(v) for k, v in columns.items()} if len(measured) > 1 else None
        ),
        "command": make_run(row, dataset, "SEED", settings).command,
        "runs": runs,
    }


def as_markdown(content: dict[str, Any]) -> str:
    """Format the result of `summary` as Markdown."""
    metrics = " / ".join(content["metrics"])
    published = _is_published(content)
    head = [
        *("row", "dataset"),
        *([f"published {metrics}"] if published else []),
        *(f"measured {metrics}", "runs", "minutes a run", "command"),
    ]
    lines = [
        f"# {content['table']}",
        "",
        f"{content['source']}. {_explanation(content)}",
        "",
        _line(head),
        _line(["---"] * len(head)),
        *(_line(_cells(row, content["metrics"], published)) for row in content["rows"]),
    ]
    for title, reason in content["left_out"].items():
        lines += ["", f"Left out: {title}, {reason}."]
    return "\n".join(lines) + "\n"


def _explanation(content: dict[str, Any]) -> str:
    """The caption that defines the figures of a table."""
    settings = content["settings"]
    sentences = [
        "In per cent; mean ± sample standard deviation over the runs, which differ by their seed "
        f"(SEED counts from 0 to {settings['seeds'] - 1}); one run has no spread."
    ]
    if content["note"]:
        sentences.append(content["note"])
    if _is_published(content):
        sentences.append("The published networks start from ImageNet weights.")
    weights = [leaf.partition("=")[2] for leaf in settings["overrides"] if _names_weights(leaf)]
    named = _code(pathlib.PurePath(weights[-1]).name) if weights and weights[-1] else ""
    start = f"the weights {named}" if named else "random weights"
    sentences.append(f"These networks start from {start}.")
    changed = [
        *(
            ["`small`, a narrow network on small images, no cutout or erasing"]
            if settings["small"]
            else []
        ),
        *([f"at most {counted(settings['steps'], 'step')} a run"] if settings["steps"] else []),
        *(_code(leaf) for leaf in settings["overrides"] if not _names_weights(leaf)),
    ]
    if changed:
        sentences.append(
            f"**Not the recipes' own settings, so no reproduction: {'; '.join(changed)}.**"
        )
    return " ".join(sentences)


def _names_weights(leaf: str) -> bool:
    return leaf.startswith("model.pretrained=")


def _is_published(content: dict[str, Any]) -> bool:
    return any(row["published"] for row in content["rows"])


def _cells(row: dict[str, Any], metrics: Sequence[str], published: bool) -> list[str]:
    done = [run for run in row["runs"] if run["metrics"] is not None]
    seconds = [run["seconds"] for run in done if not run["resumed"]]
    spread = row["spread"] or {}
    return [
        _escaped(row["row"]).replace("*", r"\*"),
        row["dataset"],
        *([_figures(row["published"], {}, metrics)] if published else []),
        _figures(row["mean"], spread, metrics),
        str(len(done)),
        f"{statistics.fmean(seconds) / 60:.1f}" if seconds else "—",
        _escaped(_code(row["command"])),
    ]


def _figures(
    values: dict[str, float] | None, spread: dict[str, float], metrics: Sequence[str]
) -> str:
    """Format figures as `94.1 ± 0.3 / 85.2 ± 0.5`."""
    if values is None:
        return "—"
    return " / ".join(
        f"{values[name]:.1f}" + (f" ± {spread[name]:.1f}" if name in spread else "")
        for name in metrics
    )


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _code(text: str) -> str:
    """Format as code on one line, in which no character of a folder's name acts as markup."""
    text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    space = " " if "`" in text else ""
    return f"{fence}{space}{text}{space}{fence}"


def _escaped(text: str) -> str:
    """Escape bars, which end a cell even inside code."""
    return text.replace("|", r"\|")
