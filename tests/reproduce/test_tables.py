import re

import pytest
from absl.flags import FlagValues

from reid_jax.cli import recipe_flags
from reid_jax.reproduce.plan import Settings, make_run, plan
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


def recipe_of(run):
    """The recipe of a run, with the leaves of its command."""
    name, string = re.fullmatch(r"--config=(\w+):?(.*)", run.arguments[0]).groups()
    config, flags = load(name, string), FlagValues()
    command = ["reproduce", *run.arguments[2:]]
    recipe_flags.define(config, command, flags)
    flags(command)
    return config


@pytest.mark.parametrize(("row", "dataset"), CELLS)
@pytest.mark.parametrize("small", [False, True])
def test_every_row_is_a_recipe_that_can_be_run(row, dataset, small):
    if small and any(word and word.startswith("half") for word in row.words):
        pytest.skip("the row has a size of its own")
    run = make_run(row, dataset, 0, Settings(ROOT, ROOT / "runs", small=small, steps=7))
    assert run.arguments[2:4] == ("--config.seed=0", "--config.max_steps=7")
    config = recipe_of(run)
    check(config)
    assert config.model.name == ("baseline" if row.network == "strong" else row.network)
    if DATASETS[dataset].root is not None:
        assert config.data.root == DATASETS[dataset].root


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_rows_have_a_figure_for_each_column(table):
    for row in table.rows:
        if table.source.startswith(("PMM", "HBFP")) and "not in the paper" not in row.name:
            assert len(row.published) == len(table.datasets)
        for figures in row.published:
            figures = dict(zip(table.metrics, figures, strict=True))
            assert 50 < figures["mAP"] < figures["Rank-1"] < figures.get("Rank-5", 100)


def test_tables_agree_on_what_they_share(tmp_path):
    """The same network is one run, with the same published figures in all papers."""
    published, rows = {}, {}
    for name in ("pmm-table2", "pmm-table3", "hbfp-table1", "hbfp-table2", "hbfp-table3"):
        table = TABLES[name]
        for row in table.rows:
            for dataset, figures in zip(table.datasets, row.published, strict=bool(row.published)):
                run = make_run(row, dataset, 0, Settings(tmp_path, tmp_path))
                rows.setdefault(run.workdir, []).append((name, row.name))
                if row.network != "bdb":  # One table cites it, the other one has it trained again.
                    figures = dict(zip(table.metrics, figures, strict=True))
                    before = published.setdefault(run.workdir, figures)
                    assert all(before.get(metric, x) == x for metric, x in figures.items())
    assert [("pmm-table2", "Ours"), ("pmm-table3", "A-Hard-Mix")] in rows.values()
    bdb = [("pmm-table2", "BDB*"), ("pmm-table3", "CutOut (BDB*)"), ("hbfp-table1", "BDB+Cut")]
    assert bdb in rows.values()
    assert [("hbfp-table2", "HBFP"), ("hbfp-table3", "λ=0")] in rows.values()
    whole = [("hbfp-table1", "HBFP-Net"), ("hbfp-table2", "HBFP+GeP")]
    assert [*whole, ("hbfp-table3", "+ (λ=1.0)")] in rows.values()


@pytest.mark.parametrize("name", [name for name in TABLES if name.startswith("cuhk03-")])
def test_rows_with_a_size_of_their_own_are_not_small(name, tmp_path):
    table = TABLES[name]
    assert all(row.words[-1].startswith("half") for row in table.rows)
    assert len(plan(table, Settings(tmp_path, tmp_path, seeds=2))) == 2 * len(table.rows)
    with pytest.raises(ValueError, match="--small: the rows of this table define their own size"):
        plan(table, Settings(tmp_path, tmp_path, small=True))


@pytest.mark.parametrize("name", ["cuhk03-half384", "cuhk03-resnet50"])
def test_large_rows_are_those_of_half_with_the_papers_images(name, tmp_path):
    """What `half` reduces is as in the recipes of full size; the trunk is, in one of the tables."""
    pairs = zip(TABLES["cuhk03-half"].rows, TABLES[name].rows, strict=True)
    names = []
    for small, large in pairs:
        settings = Settings(tmp_path, tmp_path)
        half, found = (
            recipe_of(make_run(row, "cuhk03_detected", 0, settings)) for row in (small, large)
        )
        words = [word for word in large.words if not word.startswith("half")]
        full = load(f"{large.network}_cuhk03", ",".join(["detected", *words]))
        names += [(small.name, large.name)] * (small.name != large.name)
        assert found.data.image_size == (384, 128)
        assert found.augment.to_dict() == full.augment.to_dict()
        trunk = (full if name == "cuhk03-resnet50" else half).model.trunk
        assert found.model.trunk.to_dict() == trunk.to_dict()
        assert found.epochs == (40 if name == "cuhk03-resnet50" else 16)
        kept = found.model.to_dict() | {"trunk": None}
        if large.network == "pmm":
            assert kept["top_k"] == 4 * half.model.top_k
            kept["top_k"] = half.model.top_k
        assert kept == half.model.to_dict() | {"trunk": None}
    mixed = "PMM, A-Hard-Mix, K ="
    assert names == [(f"{mixed} {k} of 8", f"{mixed} {4 * k} of 32") for k in (1, 2, 3)]


def test_every_other_table_can_be_small(tmp_path):
    for name, table in TABLES.items():
        if not table.sized:
            assert not any((word or "").startswith("half") for r in table.rows for word in r.words)
            assert plan(table, Settings(tmp_path, tmp_path, small=True)), name


def test_a_folder_does_not_depend_on_where_weights_lie(tmp_path):
    def run(file):
        settings = Settings(tmp_path, tmp_path, overrides=(f"model.pretrained={file}",))
        return make_run(TABLES["cuhk03-half"].rows[0], "cuhk03_detected", 0, settings)

    assert run("half.caffemodel").workdir == run("/elsewhere/half.caffemodel").workdir
    assert run("half.caffemodel").workdir != run("other.caffemodel").workdir
    assert run("a/half.caffemodel").arguments[-1] == "--config.model.pretrained=a/half.caffemodel"
