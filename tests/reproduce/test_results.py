import pytest

from reid_jax.reproduce import results, runner
from reid_jax.reproduce.tables import DATASETS
from tests.reproduce.stand_in import ended, read


def test_a_table_of_three_seeds(settings):
    for key in ("duke", "market"):
        (settings.folder / DATASETS[key].root).mkdir(parents=True)
    runner.reproduce("pmm-table3", settings)
    # Every row once before any row twice. The folder of CUHK03 is missing.
    networks = ("bdb_{}", "pmm_{}-cutout", "pmm_{}-cutmix", "pmm_{}-attentive_cutmix", "pmm_{}")
    once = [name.format(data) for name in networks for data in ("market", "duke")]
    assert ended(settings) == [f"{name}/seed{seed}" for seed in range(3) for name in once]

    content = read(settings, "pmm-table3")
    assert list(content["left_out"]) == ["CUHK03-NP detected"]
    assert "--cuhk03_detected=FOLDER" in content["left_out"]["CUHK03-NP detected"]
    assert len(content["rows"]) == 15
    first = content["rows"][0]
    assert (first["row"], first["dataset"]) == ("CutOut (BDB*)", "Market-1501")
    assert first["published"] == {"Rank-1": 94.1, "mAP": 84.7}
    # The measurements are 50, 75, 25 and 10, 20, 60.
    assert first["mean"] == pytest.approx({"Rank-1": 50, "mAP": 30})
    assert first["spread"] == pytest.approx({"Rank-1": 25, "mAP": 700**0.5})
    assert [run["seed"] for run in first["runs"]] == [0, 1, 2]
    assert first["runs"][2]["metrics"] == pytest.approx(
        {"mINP": 5, "Rank-1": 25, "Rank-5": 87.5, "mAP": 60}
    )
    assert first["runs"][2]["command"].endswith("/bdb_market/seed2 --config.seed=2")
    absent = content["rows"][2]
    assert absent["dataset"] == "CUHK03-NP detected"
    assert absent["mean"] is absent["spread"] is absent["runs"][0]["metrics"] is None

    markdown = (settings.workdir / "pmm-table3.md").read_text()
    shown = "--workdir=runs/bdb_market/seedSEED --config.seed=SEED"
    assert (
        r"| CutOut (BDB\*) | Market-1501 | 94.1 / 84.7 | 50.0 ± 25.0 / 30.0 ± 26.5 | 3 | 0.0 | "
        f"`python -m reid_jax train --config=bdb_market {shown}` |" in markdown
    )
    assert r"| CutOut (BDB\*) | CUHK03-NP detected | 73.5 / 69.8 | — | 0 | — | `python" in markdown
    # This row is in no paper.
    assert "| Ranked blocks set to 0 (not in the paper) | Market-1501 | — | 50.0" in markdown
    assert "Left out: CUHK03-NP detected, no folder data/cuhk03-np/detected; " in markdown


def test_the_markdown_says_what_it_is_not():
    settings = {"seeds": 1, "small": True, "steps": 9, "overrides": ["optim.lr=0.1"]}
    row = {
        "row": "BDB*|x",
        "dataset": "D",
        "published": {"mAP": 84.95, "Rank-1": 94.0},
        "mean": {"mAP": 1.25, "Rank-1": 2.0},
        "spread": None,
        "command": "python train.py 'a|b'",
        "runs": [{"metrics": {"mAP": 1.25, "Rank-1": 2.0}, "seconds": 90.0, "resumed": False}],
    }
    content = {
        "table": "t",
        "source": "Paper, table 7",
        "note": "A note.",
        "metrics": ["mAP", "Rank-1"],
        "settings": settings,
        "left_out": {"E": "no folder e"},
        "rows": [row],
    }
    assert results.as_markdown(content) == (
        "# t\n\n"
        "Paper, table 7. In per cent; mean ± sample standard deviation over the runs, which differ "
        "by their seed (SEED counts from 0 to 0); one run has no spread. A note. The published "
        "networks start from ImageNet weights. These networks start from random weights. **Not "
        "the recipes' own "
        "settings, so no reproduction: `small`, a narrow network on small images, no cutout or "
        "erasing; at most 9 steps a run; `optim.lr=0.1`.**\n\n"
        "| row | dataset | published mAP / Rank-1 | measured mAP / Rank-1 | runs | minutes a run "
        "| command |\n"
        "| --- | --- | --- | --- | --- | --- | --- |\n"
        r"| BDB\*\|x | D | 85.0 / 94.0 | 1.2 / 2.0 | 1 | 1.5 | `python train.py 'a\|b'` |"
        "\n\nLeft out: E, no folder e.\n"
    )
    # The time of a resumed run covers only its last part.
    row["runs"][0]["resumed"] = True
    assert "| 1 | — | `python" in results.as_markdown(content)
    row["published"] = None
    content["settings"] = settings | {"small": False, "steps": None, "overrides": []}
    markdown = results.as_markdown(content)
    assert "| row | dataset | measured mAP / Rank-1 | runs |" in markdown
    assert r"| BDB\*\|x | D | 1.2 / 2.0 | 1 |" in markdown
    assert "ImageNet" not in markdown
    assert "**" not in markdown
    # Recipes have no weights by default: setting them does not change the recipe's own settings.
    content["settings"] |= {"overrides": ["model.pretrained=/home/me/a b.caffemodel"]}
    markdown = results.as_markdown(content)
    assert "A note. These networks start from the weights `a b.caffemodel`.\n" in markdown
    content["settings"] |= {"overrides": ["model.pretrained=", "epochs=3"]}
    markdown = results.as_markdown(content)
    assert "These networks start from random weights. **Not the recipes' own settings" in markdown
    assert "no reproduction: `epochs=3`.**" in markdown


def test_commands_are_code_whatever_folders_are_called():
    row = {"row": "R", "dataset": "D", "published": None, "mean": None, "spread": None, "runs": []}
    settings = {"seeds": 1, "small": False, "steps": None, "overrides": ["data.pattern=``x`"]}
    content = {
        **{"table": "t", "source": "S", "note": "", "metrics": ["mAP"], "settings": settings},
        **{"left_out": {}, "rows": [row | {"command": "a`<b>\n|\x1b\udcff"}]},
    }
    markdown = results.as_markdown(content)
    assert r"`` a`<b>\n\|\x1b\udcff `` |" in markdown
    assert "``` data.pattern=``x` ```" in markdown
