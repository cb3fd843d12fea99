"""The learning curves behind a table, as one picture."""

import pathlib

from reid_jax.reproduce.plan import Run, Settings, make_run
from reid_jax.reproduce.tables import DATASETS, Table
from reid_jax.runs.metrics import read_metrics

METRIC = "mAP"

# Titles of the panels.
_NETWORKS = {
    "baseline": "Baseline",
    "bdb": "BDB",
    "pmm": "PMM",
    "hbfp": "HBFP-Net",
    "strong": "Ours",
}


def draw(table: Table, settings: Settings, path: pathlib.Path) -> None:
    """Draw mAP by epoch for every row whose runs were evaluated at least twice.

    Rows of one network share a panel. A curve is the mean over the seeds that were evaluated at
    that epoch. If there is no curve, no picture is drawn and an old one is removed.

    Args:
        table: one of `TABLES`.
        settings: how the table is run.
        path: the PNG file to write.
    """
    panels: dict[str, dict[str, tuple[list[float], list[float]]]] = {}
    for row in table.rows:
        for dataset in table.datasets:
            runs = [make_run(row, dataset, seed, settings) for seed in range(settings.seeds)]
            epochs, shares = _mean_curve(runs)
            if len(epochs) > 1:
                title = _NETWORKS[row.network]
                if len(table.datasets) > 1:
                    title += f" on {DATASETS[dataset].title}"
                panels.setdefault(title, {})[row.name] = epochs, shares
    if not panels:
        path.unlink(missing_ok=True)
        return
    # Import here: matplotlib takes a second to import, and `--dry-run` draws no picture.
    from reid_jax import visualize

    visualize.save(visualize.comparison_figure(panels, METRIC), path)


def _mean_curve(runs: list[Run]) -> tuple[list[float], list[float]]:
    """Ascending epochs, and the mean of `METRIC` over the runs that were evaluated at each."""
    values: dict[float, list[float]] = {}
    for run in runs:
        try:
            records = read_metrics(run.workdir)
        except FileNotFoundError:
            continue
        for record in records:
            if record["kind"] == "eval":
                values.setdefault(record["epoch"], []).append(record[METRIC])
    epochs = sorted(values)
    return epochs, [sum(values[epoch]) / len(values[epoch]) for epoch in epochs]
