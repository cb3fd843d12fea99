"""Checkpoints of the authors' PMM and of BDB: after conversion the descriptors are the original's.

Numbers that PyTorch computed are stored in reference.json. If PyTorch is installed, it computes
more.
"""

import hashlib
import json
import pathlib
import re
import subprocess
import sys

import jax
import numpy as np
import pytest

from reid_jax import models
from reid_jax.cli.weights import main
from reid_jax.configs import pmm_synthetic
from reid_jax.data import synthetic
from reid_jax.programs import train
from reid_jax.programs.evaluate import evaluate_run
from reid_jax.runs.restoring import restore_variables
from reid_jax.runs.workdir import read_run
from reid_jax.weights import read_trunk
from tests.weights import formula, make_reference
from tests.weights.files import REFERENCE, arrays, assert_near, write

ROOT = pathlib.Path(__file__).parents[2]
IMAGES = formula.images(*make_reference.SIZE)


def descriptors(workdir, images=IMAGES):
    config, num_classes = read_run(workdir)
    network = models.create(config.model, num_classes)
    step, variables = restore_variables(network, config.data.image_size, workdir)
    assert step == 0
    return np.asarray(jax.jit(network.apply)(variables, images))


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """Folders of the two programs' narrow networks, converted, and of their checkpoints."""
    folder = tmp_path_factory.mktemp("converted")
    for name in ("pmm", "bdb"):
        source = write(folder / f"{name}.safetensors", arrays(name))
        main([str(source), str(folder / name)])
    return folder


@pytest.mark.parametrize("name", ["pmm", "bdb"])
def test_descriptors_are_the_original_programs(name, converted):
    """Within 1e-4 of the largest number."""
    got = descriptors(converted / name)
    (wanted,) = REFERENCE[name]["outputs"]
    assert list(got.shape) == wanted["shape"]
    summary = make_reference.summary(got)
    assert_near(np.array(summary["values"]), np.array(wanted["values"]))
    assert summary["sum"] == pytest.approx(wanted["sum"], rel=1e-4)


@pytest.mark.parametrize(
    ("kind", "settings", "shape"),
    [
        ("PMM", {"width": 8, "dim": 16, "classes": 7}, (2, 48)),
        ("BDB", {"depths": (1, 1, 1, 2), "width": 8, "dims": (8, 24), "classes": 7}, (2, 32)),
        ("BDB", {"depths": (1, 1, 1, 1), "width": 4, "dims": (8, 8), "conv": True}, (2, 16)),
    ],
)
def test_descriptors_are_pytorchs(kind, settings, shape, torch, tmp_path):
    """From .pth files as the programs save them; PMM at ResNet-50's depths."""
    from tests.weights import in_torch

    module = in_torch.by_formula(getattr(in_torch, kind)(**settings))
    state = {f"module.{name}": x for name, x in module.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 400}, tmp_path / "best.pth.tar")
    main([str(tmp_path / "best.pth.tar"), str(tmp_path / "run")])
    wanted = in_torch.apply(module, IMAGES)
    assert wanted.shape == shape
    assert_near(descriptors(tmp_path / "run"), wanted)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["source"]["epoch"] == 400


def test_what_a_conversion_leaves_and_says(converted, tmp_path, capsys):
    source = converted / "pmm.safetensors"
    main([str(source), str(tmp_path / "run")])
    said = capsys.readouterr().out.splitlines()
    count, shapes = len(arrays("pmm")), {n: x for n, x in arrays("pmm").items() if x.ndim}
    parameters = sum(x.size for n, x in shapes.items() if not re.search(r"\.running_", n))
    assert said == [
        f"PMM: {count} tensors, {parameters:,} parameters; ResNet of bottleneck blocks "
        "(1, 1, 2, 1) of width 4, embeddings of 8, 8, 8 numbers, 5 identities",
        f"evaluate it: reid-jax eval --workdir={tmp_path / 'run'} --config.data.root=FOLDER",
    ]
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["checkpoints", "run.json"]
    (step,) = (tmp_path / "run" / "checkpoints").iterdir()
    assert step.name == "0"
    assert {path.name for path in step.iterdir() if path.is_dir()} == {"model"}
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert run["source"] == {
        "program": "pmm",
        "file": "pmm.safetensors",
        "sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
        "epoch": None,
    }
    config, classes = read_run(tmp_path / "run")
    assert classes == 5
    assert (config.data.layout, config.model.pretrained) == ("market1501", "")
    assert config.model.trunk.depths == (1, 1, 2, 1)
    assert (config.model.trunk.width, config.model.embedding_dim) == (4, 8)
    config, _ = read_run(converted / "bdb")
    assert (config.model.global_dim, config.model.part_dim) == (8, 12)
    assert {path.name for path in converted.iterdir()} == {
        *("pmm", "pmm.safetensors", "bdb", "bdb.safetensors")
    }


def test_another_recipe_may_be_named(converted, tmp_path):
    source = str(converted / "pmm.safetensors")
    recipe = f"--config={ROOT / 'configs' / 'pmm_cuhk03.py'}:labeled"
    main([source, str(tmp_path / "run"), recipe, "--config.eval.normalize=True"])
    config, _ = read_run(tmp_path / "run")
    assert (config.data.layout, config.model.top_k) == ("cuhk03", 8)
    assert config.eval.normalize
    (tmp_path / "file").touch()
    bdb = f"--config={ROOT / 'configs' / 'bdb_market.py'}"
    for out, argument, message in (
        ("new", bdb, "is a checkpoint of PMM, but the recipe's model.name is 'bdb'"),
        ("new", "--config=none.py", "FileNotFoundError: no file 'none.py'"),
        ("new", "--config.eval.flop=True", r"eval.flop is not a leaf .*eval.flip"),
        ("new", "--config.eval.flip=maybe", "maybe"),
        ("new", "--config.data.image_size=(8,8)", r"data\.image_size is \(8, 8\)"),
        ("run", recipe, r"FileExistsError: '.*run' exists and is no empty folder"),
        ("file", recipe, r"FileExistsError: '.*file' exists and is no empty folder"),
    ):
        with pytest.raises(SystemExit, match=message):
            main([source, str(tmp_path / out), argument])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "run"]
    (tmp_path / "empty").mkdir()
    main([source, str(tmp_path / "empty")])
    np.testing.assert_array_equal(descriptors(tmp_path / "empty"), descriptors(tmp_path / "run"))


def test_every_tensor_is_accounted_for(tmp_path):
    weights = arrays("bdb")
    del weights["backbone.5.0.conv2.weight"], weights["reduction.1.running_var"]
    weights["res_part2.downsample.0.weight"] = weights["softmax.weight"]
    weights["global_softmax.bias"] = weights["global_softmax.bias"][:3]
    weights["reduction.0.weight"] = weights["reduction.0.weight"][:, :50]
    source = write(tmp_path / "weights.safetensors", weights)
    with pytest.raises(SystemExit) as caught:
        main([str(source), str(tmp_path / "run")])
    first, *lines, _ = str(caught.value).split("\n")
    assert first.endswith(
        "weights.safetensors' does not fit the authors' BDB over a ResNet of bottleneck blocks "
        "(1, 1, 2, 1) of width 4:"
    )
    assert lines == [
        "  2 missing: backbone.5.0.conv2.weight, reduction.1.running_var",
        "  1 unexpected: res_part2.downsample.0.weight",
        "  2 of another shape: global_softmax.bias (3,), not (5,), reduction.0.weight (12, 50), "
        "not (12, 128, 1, 1) or (12, 128)",
    ]
    assert not (tmp_path / "run").exists()
    # A whole stage of PMM's is missing.
    weights = {n: x for n, x in arrays("pmm").items() if not re.match(r"(reduction|softmax)2", n)}
    source = write(tmp_path / "weights.safetensors", weights)
    with pytest.raises(SystemExit, match=r"authors' PMM .*:\n  8 missing: reduction2\.0\.weight"):
        main([str(source), str(tmp_path / "run")])
    weights = arrays("pmm")
    for name in [name for name in weights if "softmax" in name]:
        weights[name] = weights[name][:1]
    source = write(tmp_path / "weights.safetensors", weights)
    with pytest.raises(SystemExit, match="has a classifier of only one identity"):
        main([str(source), str(tmp_path / "run")])


def test_a_whole_network_is_no_trunk(converted):
    """The error names the heads, which would be dropped, and the command that keeps them."""
    with pytest.raises(ValueError, match=r"a whole network, PMM.*`reid-jax weights FILE OUT`"):
        read_trunk(converted / "pmm.safetensors")


@pytest.fixture(scope="module")
def pedestrians(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "pedestrians"
    config = pmm_synthetic.get_config("small")
    synthetic.write_market1501(root, synthetic.Contents(**config.data.synthetic), None)
    return root


def test_eval_evaluates_it_and_train_leaves_it_alone(pedestrians, tmp_path, standard_promotion):
    source = write(tmp_path / "pmm.safetensors", arrays("pmm") | classes(8))
    config = pmm_synthetic.get_config("small")
    config.data.root, config.data.loader, config.devices = str(pedestrians), "memory", 1
    recipe = f"--config={ROOT / 'configs' / 'pmm_synthetic.py'}:small"
    leaves = [f"--config.{n}={config.data[n[5:]]}" for n in ("data.root", "data.loader")]
    run = tmp_path / "run"
    main([str(source), str(run), recipe, "--config.devices=1", *leaves])
    config, _ = read_run(run)
    evaluated = evaluate_run(config, str(run), checkpoint="latest", output=str(tmp_path / "out"))
    result = evaluated.evaluation.result
    assert 0 < result.mAP < 1
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    for goes_on in (config, pmm_synthetic.get_config("small")):
        with pytest.raises(ValueError, match=r"/0 holds only weights, which reid-jax eval"):
            train.train(goes_on, str(run))
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def classes(count):
    """Classifiers of so many identities, as the synthetic recipe has them."""
    names = ("global_softmax", "softmax1", "softmax2")
    shapes = {f"{n}.{part}": shape for n in names for part, shape in
              (("weight", (count, 8)), ("bias", (count,)))}  # fmt: skip
    return {name: formula.tensor(name, shape) for name, shape in shapes.items()}


def test_the_command_line_program(tmp_path):
    """As it is typed, in a separate process; an error is one line."""
    source = write(tmp_path / "source.safetensors", arrays("bdb"))
    done = subprocess.run(
        [sys.executable, "-m", "reid_jax.weights", str(source), str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert re.fullmatch(
        r"FileExistsError: .* is no empty folder: choose .*\n\(--traceback .*\)\n", done.stderr
    )
