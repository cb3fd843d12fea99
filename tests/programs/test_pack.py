"""A packed run: one file that is used like the run's folder."""

import json
import os
import re
import shutil

import numpy as np
import pytest

import reid_jax
from reid_jax.cli import commands
from reid_jax.data import datasets
from reid_jax.programs import pack
from reid_jax.programs.pack import pack_run
from reid_jax.runs import packed_file
from reid_jax.runs.workdir import read_run
from tests import random_runs

pytestmark = pytest.mark.usefixtures("standard_promotion")

RESULTS = {
    "workdir": "/home/anna/runs/market",
    "step": 2,
    "dataset": {"layout": "market1501", "root": "/home/anna/Market|1501`", "query": 3368},
    "protocol": {"multi_query": None, "rerank": True, "gallery_extra": 7},
    "mAP": 0.51234,
    "Rank-1": 0.75,
    "verification": {"AUC": 0.987, "thresholds": {"0.001": 3.25, "EER": None}, "roc": [1, 2]},
    "unmatched_queries": ["/home/anna/Market/query/0001_c1.jpg"],
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with the steps 1 and 2, and results of step 2."""
    folder = tmp_path_factory.mktemp("pack")

    def change(config):
        config.data.root = str(folder / "pedestrians")
        config.data.loader = "memory"
        config.devices = 1
        config.model.update({"pooling": "gem"})  # Its exponent is a variable without axes.

    config, *_ = random_runs.write(
        folder / "run", "strong_synthetic", steps=(1, 2), change=change, num_classes=8
    )
    datasets.load(config.data)
    (folder / "run" / "eval").mkdir()
    (folder / "run" / "eval" / "results.json").write_text(json.dumps(RESULTS))
    return folder / "run"


@pytest.fixture(scope="module")
def packed(run):
    """The run in one file, far from its folder."""
    path = run.parent / "elsewhere" / "reid.safetensors"
    pack_run(run, path)
    return path


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (5, 96, 64, 3), np.uint8)


def test_descriptors_are_the_runs_bit_for_bit(run, packed, images):
    of_run, of_file = reid_jax.load(run), reid_jax.load(packed)
    assert (of_file.step, of_file.dim, of_file.stage_names) == (2, of_run.dim, of_run.stage_names)
    assert of_run.embed(images).tobytes() == of_file.embed(images).tobytes()


def test_the_file_holds_recipe_results_and_data_without_folders(run, packed):
    recipe, identities = read_run(packed)
    of_run, _ = read_run(run)
    assert recipe.data.root == "pedestrians"
    recipe.data.root = of_run.data.root
    assert (recipe.to_dict(), identities) == (of_run.to_dict(), 8)
    content = packed_file.read(packed)
    assert content.trained_on == {
        **{"layout": "synthetic", "folder": "pedestrians", "identities": 8, "images": None}
    }
    assert content.results == RESULTS | {
        "workdir": "market",
        "dataset": {"layout": "market1501", "root": "Market|1501`", "query": 3368},
        "unmatched_queries": ["0001_c1.jpg"],
    }
    for path in (packed, packed.with_suffix(".md")):
        assert b"/home/anna" not in path.read_bytes()
        assert os.fsencode(run.parent) not in path.read_bytes()


def test_thresholds_are_those_of_the_packed_results(run, packed, tmp_path):
    with pytest.raises(ValueError, match=r"reid.safetensors' is damaged .*, then pack it$"):
        reid_jax.load(packed).threshold()  # Its protocol is incomplete.
    shutil.copytree(run, tmp_path / "run")
    results = tmp_path / "run" / "eval" / "results.json"
    config, _ = read_run(run)
    measured = RESULTS | {
        "protocol": {"multi_query": None, "rerank": False, **config.eval},
        "verification": {"thresholds": {"0.001": 3.25}, "image_size": config.data.image_size},
    }
    results.write_text(json.dumps(measured))
    pack_run(tmp_path / "run", tmp_path / "with.safetensors")
    assert reid_jax.load(tmp_path / "with.safetensors").threshold(fpr=1e-3) == 3.25
    results.unlink()
    pack_run(tmp_path / "run", tmp_path / "without.safetensors")
    with pytest.raises(ValueError, match=r"without\.safetensors' holds no verification; evaluate"):
        reid_jax.load(tmp_path / "without.safetensors").threshold()


def test_the_card_describes_the_run(packed):
    card = packed.with_suffix(".md").read_text()
    assert card.startswith("---\nlibrary_name: reid_jax\n")
    for line in (
        "# baseline, trained on pedestrians",
        "| network | baseline |",
        "| training data | synthetic, folder pedestrians: 8 identities |",
        "| training step | 2 |",
        "Measured on market1501, folder Market_1501_, 3,368 query images; protocol: rerank, "
        "gallery_extra 7. In per cent:",
        "| Rank-1 | 75.0 |",
        "| mAP | 51.2 |",
        "| AUC | 0.9870 |",
        "| thresholds, 0.001 | 3.2500 |",
        'model = reid_jax.load("reid.safetensors")',
    ):
        assert f"\n{line}\n" in card
    assert re.search(r"\| trunk \| ResNet.* \|", card)
    assert "roc" not in card
    assert "None" not in card


def test_an_equal_file_stays_and_another_is_kept(run, packed, tmp_path):
    out = tmp_path / "reid.safetensors"
    shutil.copy(packed, out)  # As a kill between the two files would leave it.
    before = out.stat()
    pack_run(run, out)
    assert out.stat().st_mtime_ns == before.st_mtime_ns
    assert sorted(path.name for path in tmp_path.iterdir()) == ["reid.md", out.name]
    for path in (out.with_suffix(".md"), out):
        content = path.read_bytes()
        path.write_text("mine")
        with pytest.raises(FileExistsError, match=rf"{path.name}' exists with another content"):
            pack_run(run, out)
        assert path.read_text() == "mine"
        path.write_bytes(content)
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(FileExistsError, match=r"folder\.safetensors' exists"):
        pack_run(run, tmp_path / "folder.safetensors")


def test_a_draft_of_another_program_is_no_obstacle(run, packed, tmp_path):
    out = tmp_path / f"{'x' * 243}.safetensors"
    (tmp_path / f"{'x' * 243}.md.tmp").mkdir()
    pack_run(run, out)
    assert out.read_bytes() == packed.read_bytes()


def test_a_failure_leaves_neither_file(run, tmp_path, monkeypatch):
    real = pack.packed_file.to_bytes
    monkeypatch.setattr(pack.packed_file, "to_bytes", lambda packed: str(real(packed)))
    with pytest.raises(TypeError):  # While the second file is written.
        pack_run(run, tmp_path / "reid.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_results_of_another_step_or_none_are_left_out(run, tmp_path, capsys):
    pack_run(run, tmp_path / "one.safetensors", 1)
    content = packed_file.read(tmp_path / "one.safetensors")
    assert (content.step, content.results) == (1, None)
    assert "is of step 2, and the packed checkpoint of step 1" in capsys.readouterr().out
    assert "\nNot measured.\n" in (tmp_path / "one.md").read_text()
    shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("eval"))
    pack_run(tmp_path / "run", tmp_path / "two.safetensors", "best")
    assert packed_file.read(tmp_path / "two.safetensors").step == 1
    assert "results.json' is missing; reid-jax eval writes it" in capsys.readouterr().out


@pytest.mark.parametrize(
    "text", ["", "[]", '{"mAP": 1}', '{"step": 2, "protocol": []}', "[" * 100_000]
)
def test_damaged_results_are_named(run, tmp_path, text):
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "eval" / "results.json").write_text(text)
    with pytest.raises(ValueError, match=r"results\.json' is damaged .*run reid-jax eval again"):
        pack_run(tmp_path / "run", tmp_path / "out.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_mistakes_are_named(run, packed, tmp_path):
    for source, out, message in (
        (run, "out.md", r"OUT is '.*out\.md'; it must end in \.safetensors"),
        (packed, "b.safetensors", "is a file; it must be the folder of a run"),
        (tmp_path, "b.safetensors", r"run\.json is missing"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            pack_run(source, tmp_path / out)
    assert list(tmp_path.iterdir()) == []
    for checkpoint in ("latest", "best", 2, "2"):
        assert reid_jax.load(packed, checkpoint).step == 2
    with pytest.raises(FileNotFoundError, match=r"no checkpoint '1' in .*holds only step 2"):
        reid_jax.load(packed, 1)


def test_paths_in_the_home_folder(run, packed, tmp_path, monkeypatch, images):
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copytree(run, tmp_path / "run")
    pack_run("~/run", "~/reid.safetensors")
    assert (tmp_path / "reid.safetensors").read_bytes() == packed.read_bytes()
    assert reid_jax.load("~/reid.safetensors").step == 2
    with pytest.raises(SystemExit, match="give --output=FOLDER"):
        commands.main(["eval", "--workdir=~/reid.safetensors"])


def test_weights_of_another_network_are_named(packed, tmp_path):
    content = packed_file.read(packed)
    name = next(iter(content.arrays))
    other = tmp_path / "other.safetensors"
    for arrays, message in (
        ({name: content.arrays[name][..., None]}, rf"{name} is float32\["),
        ({name: content.arrays[name].astype(np.float64)}, rf"{name} is float64\["),
        ({"params/more": np.zeros(2)}, r"params/more is float64\[2\] in the file and absent in"),
    ):
        content_of_other = content._replace(arrays=content.arrays | arrays)
        other.write_bytes(packed_file.to_bytes(content_of_other))
        with pytest.raises(ValueError, match=message):
            reid_jax.load(other)


@pytest.mark.slow
def test_eval_search_and_export_take_the_file(run, packed, tmp_path, capsys):
    workdir, root = f"--workdir={packed}", run.parent / "pedestrians"
    before = packed.read_bytes()
    with pytest.raises(SystemExit, match=r"ValueError: --workdir .* is a file.*give --output"):
        commands.main(["eval", workdir])
    outcomes = []
    for number, source in enumerate((workdir, f"--workdir={run}")):
        output = tmp_path / f"eval{number}"
        data = f"--config.data.root={root}"
        commands.main(["eval", source, data, f"--output={output}", "--report"])
        assert (output / "report.html").is_file()
        results = json.loads((output / "results.json").read_text())
        del results["workdir"]
        queries = [str(path) for path in sorted((root / "query").iterdir())[:2]]
        capsys.readouterr()
        commands.main(
            [
                *("search", source, f"--gallery={root / 'bounding_box_test'}", "--query", *queries),
                *(f"--output={output / 's.png'}", f"--save-gallery={output / 'gallery'}"),
            ]
        )
        said = capsys.readouterr().out
        outcomes.append((results, said[said.index("\n\n") : said.index("\ndrew")]))
    assert outcomes[0] == outcomes[1]
    first, second = (reid_jax.Gallery.load(tmp_path / f"eval{i}" / "gallery") for i in (0, 1))
    assert (first.origin, first.names) == (second.origin, second.names)
    assert first.features.tobytes() == second.features.tobytes()
    commands.main(["export", workdir, str(tmp_path / "exported"), "--formats=stablehlo"])
    assert (tmp_path / "exported" / "descriptor.stablehlo").is_file()
    with pytest.raises(SystemExit, match="OSError: cannot write to the workdir"):
        commands.main(["train", workdir, "--config=strong_synthetic:small", f"{data}"])
    assert packed.read_bytes() == before
    assert sorted(path.name for path in packed.parent.iterdir()) == ["reid.md", packed.name]


def test_all_training_data_is_named_and_all_results_are_on_the_card(run, tmp_path):
    """Without folders, as the first dataset."""
    shutil.copytree(run, tmp_path / "run")
    recipe = json.loads((run / "run.json").read_text())
    recipe["config"]["data"]["also"] = ["people:/home/anna/shop", "csv:/home/anna/my:list.csv"]
    (tmp_path / "run" / "run.json").write_text(json.dumps(recipe))
    row = {"name": "people", "dataset": {"layout": "people", "root": "/home/anna/shop"}}
    row |= {"mAP": 0.25, "protocol": {"without_cameras": True}}
    results = tmp_path / "run" / "eval" / "results.json"
    results.write_text(json.dumps(RESULTS | {"also": [row]}))
    path = tmp_path / "reid.safetensors"
    pack_run(tmp_path / "run", path)
    content = packed_file.read(path)
    assert content.trained_on["also"] == [
        {"layout": "people", "folder": "shop"},
        {"layout": "csv", "folder": "my:list.csv"},
    ]
    assert content.results["also"] == [row | {"dataset": {"layout": "people", "root": "shop"}}]
    config, _ = read_run(path)
    assert config.data.also == ("people:shop", "csv:my:list.csv")
    card = path.with_suffix(".md").read_text()
    for line in (
        "# baseline, trained on pedestrians and shop and my:list.csv",
        "| training data | synthetic, folder pedestrians and people, folder shop and csv, folder "
        "my:list.csv: 8 identities |",
        "Measured on people, folder shop; protocol: without_cameras. In per cent:",
        "| mAP | 51.2 |",
        "| mAP | 25.0 |",
    ):
        assert f"\n{line}\n" in card
    for file in (path, path.with_suffix(".md")):
        assert b"/home/anna" not in file.read_bytes()
    results.write_text(json.dumps(RESULTS | {"also": ["row"]}))
    with pytest.raises(ValueError, match=r"results\.json' is damaged"):
        pack_run(tmp_path / "run", tmp_path / "other.safetensors")


def test_the_card_of_an_oddly_named_file_has_a_placeholder(run, tmp_path):
    out = tmp_path / "my model (1).safetensors"
    pack_run(run, out)
    card = out.with_suffix(".md").read_text()
    assert 'model = reid_jax.load("FILE.safetensors")' in card
    pack_run(run, tmp_path / "ü 1.safetensors")
    assert "`--workdir='ü 1.safetensors'`" in (tmp_path / "ü 1.md").read_text(encoding="utf-8")
