"""The learning curves behind a table, as one picture."""

import pathlib

from reid_jax.reproduce.plan import Run, Settings, make_run
from reid_jax.reproduce.tables import DATASETS, Table
from reid_jax.runs.metrics import read_metrics

METRIC = "mAP"

# What a panel is called.
_NETWORKS = {
    "baseline": "Baseline",
    "bdb": "BDB",
    "pmm": "PMM",
    "hbfp": "HBFP-Net",
    "strong": "Ours",
}


def draw(table: Table, settings: Settings, path: pathlib.Path) -> None:
    """Draws mAP by epoch of every row whose runs have been evaluated twice or more.

    Rows of one network share a panel; a curve is the mean over the seeds that have been evaluated
    at that epoch. While there is no curve there is no picture: an old one is removed.

    Args:
        table: of `TABLES`.
        settings: how it is run.
        path: of the picture, PNG.
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
    # matplotlib takes a second to import, and `--dry-run` draws nothing.
    from reid_jax import visualize

    visualize.save(visualize.comparison_figure(panels, METRIC), path)


def _mean_curve(runs: list[Run]) -> tuple[list[float], list[float]]:
    """Epochs, ascending, and the mean of `METRIC` over the runs evaluated at each."""
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
