import re

import pytest

from reid_jax.reproduce.plan import Settings, make_run
from reid_jax.reproduce.tables import DATASETS, TABLES
from reid_jax.runs.settings import check
from tests.reproduce.stand_in import ROOT
from tests.test_configs import load

CELLS = [
    pytest.param(row, dataset, id=f"{name}-{row.name}-{dataset}")
    for name, table in TABLES.items()
    for row in table.rows
    for dataset in table.datasets
]


@pytest.mark.parametrize(("row", "dataset"), CELLS)
@pytest.mark.parametrize("small", [False, True])
def test_every_row_is_a_recipe_that_can_be_run(row, dataset, small):
    run = make_run(row, dataset, 0, Settings(ROOT, ROOT / "runs", small=small, steps=7))
    name, string = re.fullmatch(r"--config=(\w+):?(.*)", run.arguments[0]).groups()
    config = load(name, string)
    leaves = [argument.removeprefix("--config.") for argument in run.arguments[2:]]
    assert leaves[:2] == ["seed=0", "max_steps=7"]
    flat = dict(leaf.split("=") for leaf in leaves)
    config.update_from_flattened_dict(
        {key: int(value) if value.isdigit() else value for key, value in flat.items()}
    )
    check(config)
    assert config.model.name == row.network
    if DATASETS[dataset].root is not None:
        assert config.data.root == DATASETS[dataset].root


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_rows_have_a_figure_for_each_column(table):
    for row in table.rows:
        if table is not TABLES["synthetic"]:
            assert len(row.published) == len(table.datasets)
        for figures in row.published:
            figures = dict(zip(table.metrics, figures, strict=True))
            assert 50 < figures["mAP"] < figures["Rank-1"] < figures.get("Rank-5", 100)


def test_tables_agree_on_what_they_share(tmp_path):
    """The same network is one run, for which the papers print the same figures."""
    published, rows = {}, {}
    for name in ("pmm-table2", "pmm-table3", "hbfp-table1", "hbfp-table2", "hbfp-table3"):
        table = TABLES[name]
        for row in table.rows:
            for dataset, figures in zip(table.datasets, row.published, strict=True):
                run = make_run(row, dataset, 0, Settings(tmp_path, tmp_path))
                rows.setdefault(run.workdir, []).append((name, row.name))
                if row.network != "bdb":  # One is cited, one trained again.
                    figures = dict(zip(table.metrics, figures, strict=True))
                    before = published.setdefault(run.workdir, figures)
                    assert all(before.get(metric, x) == x for metric, x in figures.items())
    assert [("pmm-table2", "Ours"), ("pmm-table3", "A-Hard-Mix")] in rows.values()
    assert [("pmm-table2", "BDB*"), ("hbfp-table1", "BDB+Cut")] in rows.values()
    assert [("hbfp-table2", "HBFP"), ("hbfp-table3", "λ=0")] in rows.values()
    whole = [("hbfp-table1", "HBFP-Net"), ("hbfp-table2", "HBFP+GeP")]
    assert [*whole, ("hbfp-table3", "+ (λ=1.0)")] in rows.values()
