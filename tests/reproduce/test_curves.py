"""The picture of a table's curves, from metrics written by hand."""

import json

import numpy as np
import pytest

from reid_jax import visualize
from reid_jax.reproduce import curves
from reid_jax.reproduce.plan import Settings, make_run
from reid_jax.reproduce.tables import TABLES

TABLE = TABLES["cuhk03-half40"]
DATASET = "cuhk03_detected"


def write(settings, row, seed, shares):
    run = make_run(row, DATASET, seed, settings)
    run.workdir.mkdir(parents=True)
    records = [
        {"step": 10 * epoch, "kind": "eval", "epoch": float(epoch), "mAP": share}
        for epoch, share in shares.items()
    ]
    records.insert(1, {"step": 5, "kind": "train", "epoch": 0.5, "loss": 1.0})
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (run.workdir / "metrics.jsonl").write_text(lines)


@pytest.fixture
def drawn(monkeypatch):
    """The arguments that `draw` passes to the figure."""
    calls = []
    whole = visualize.comparison_figure

    def record(panels, metric):
        calls.append((panels, metric))
        return whole(panels, metric)

    monkeypatch.setattr(visualize, "comparison_figure", record)
    return calls


def test_rows_of_one_network_share_a_panel_and_seeds_a_mean(tmp_path, drawn):
    settings = Settings(tmp_path, tmp_path, seeds=2)
    baseline, _, plain, mixed, *_ = TABLE.rows
    write(settings, baseline, 0, {0: 0.0, 5: 0.1})
    write(settings, plain, 0, {0: 0.0, 5: 0.2, 10: 0.4})
    write(settings, plain, 1, {0: 0.1, 5: 0.4})
    write(settings, mixed, 1, {0: 0.0})  # A single evaluation is not a curve.
    picture = tmp_path / "table.png"
    curves.draw(TABLE, settings, picture)
    ((panels, metric),) = drawn
    assert metric == "mAP"
    assert {title: list(rows) for title, rows in panels.items()} == {
        "Baseline": [baseline.name],
        "PMM": [plain.name],
    }
    epochs, shares = panels["PMM"][plain.name]
    assert epochs == [0, 5, 10]
    np.testing.assert_allclose(shares, [0.05, 0.3, 0.4])
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_without_a_curve_there_is_no_picture(tmp_path, drawn):
    picture = tmp_path / "table.png"
    picture.write_bytes(b"old")
    curves.draw(TABLE, Settings(tmp_path, tmp_path), picture)
    assert not drawn
    assert not picture.exists()
