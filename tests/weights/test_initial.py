"""Runs that start from a pretrained trunk: `model.pretrained`."""

import json
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from reid_jax import models, schedules
from reid_jax.data import synthetic
from reid_jax.programs import train
from reid_jax.programs.evaluate import evaluate_run
from reid_jax.runs.checkpoints import Checkpoints
from reid_jax.runs.restoring import restore_variables
from reid_jax.runs.workdir import CHECKPOINTS, read_run
from reid_jax.runtime import hosts
from reid_jax.training import optimizer as optimizers
from reid_jax.training.state import create_state
from reid_jax.weights import initial, read_trunk, resnet, write_trunk
from tests.test_configs import load
from tests.weights import formula
from tests.weights.files import arrays, write

pytestmark = pytest.mark.usefixtures("standard_promotion")


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A folder with narrow ResNets, two of them those of tests/weights.

    `bottleneck` has the depths of the tiny recipes, and is also there converted, as `trunk`.
    """
    folder = tmp_path_factory.mktemp("sources")
    for name in ("basic", "ibn"):
        write(folder / name, arrays(name))
    for name, depths in (("bottleneck", (1, 1, 1, 1)), ("deeper", (1, 1, 2, 1))):
        tensors = resnet.tensors(resnet.Structure(depths=depths, width=4))
        write(folder / name, {t.name: formula.tensor(t.name, t.shape) for t in tensors})
    write_trunk(read_trunk(folder / "bottleneck"), folder / "trunk")
    return folder


def recipe(name, pretrained):
    """The tiny recipe of a network."""
    config = load(f"{name}_synthetic", "small")
    config.model.pretrained = str(pretrained)
    return config


def state_of(config, trunk):
    network = models.create(config.model, 5)
    optimizer = optimizers.create_optimizer(
        config.optim, schedules.create_schedule(config.optim, 1)
    )
    return create_state(network, optimizer, config.data.image_size, 3, trunk)


def test_the_trunk_alone_is_pretrained(sources, tmp_path):
    """All other variables start as without a pretrained trunk."""
    config = recipe("baseline", sources / "trunk")
    trunk = initial.initial_trunk(config.model, tmp_path / "new")
    state, without = state_of(config, trunk), state_of(config, None)
    assert jax.tree.map(jnp.shape, state) == jax.tree.map(jnp.shape, without)
    assert state.step == 0
    for collection in ("params", "batch_stats"):
        got, fresh = dict(getattr(state, collection)), dict(getattr(without, collection))
        jax.tree.map(np.testing.assert_array_equal, got.pop("trunk"), trunk[collection])
        bn1 = trunk[collection]["bn1"], fresh.pop("trunk")["bn1"]
        assert not any(map(np.array_equal, *map(jax.tree.leaves, bn1)))
        jax.tree.map(np.testing.assert_array_equal, got, fresh)


def test_the_second_pass_of_hbfp_is_pretrained_too(sources, tmp_path):
    config = recipe("hbfp", sources / "deeper")
    trunk = initial.initial_trunk(config.model, tmp_path / "new")
    state = state_of(config, trunk)
    for collection in ("params", "batch_stats"):
        got = getattr(state, collection)
        jax.tree.map(np.testing.assert_array_equal, got["trunk"], trunk[collection])
        for part, block in (("second_res4_0", "layer3_1"), ("second_res5_0", "layer4_0")):
            jax.tree.map(np.testing.assert_array_equal, got[part], trunk[collection][block])


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("basic", r'basic blocks .*pass --config\.model\.trunk\.block=basic --config\.model\.trunk'
         r'\.depths="\(2, 1, 2, 1\)", or'),
        ("ibn", r"IBN-a of width 5, but model\.trunk is a ResNet .* of width 4: pass "),
    ],
)  # fmt: skip
def test_a_trunk_that_does_not_fit_is_told_before_images_are_read(file, message, sources, tmp_path):
    config = recipe("pmm", sources / file)
    config.data.layout, config.data.root = "market1501", "no folder"
    with pytest.raises(ValueError, match=message):
        train.train(config, str(tmp_path / "run"))
    config.model.pretrained = "no file"
    with pytest.raises(
        FileNotFoundError, match=r"^model\.pretrained is 'no file', but there is no"
    ):
        train.train(config, str(tmp_path / "run"))
    config.model.pretrained = ""
    with pytest.raises(FileNotFoundError, match="no folder"):
        train.train(config, str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()
    with config.model.ignore_type():
        config.model.pretrained = 3
    with pytest.raises(ValueError, match=r"model\.pretrained is 3; it must be text"):
        train.train(config, str(tmp_path / "run"))


@pytest.mark.slow
def test_a_run_goes_on_without_the_file(sources, tmp_path, monkeypatch, capsys):
    """It starts from a file, relative to the folder in which it started; then it has
    checkpoints."""
    config = recipe("baseline", "bottleneck")
    config.data.update({"root": str(tmp_path / "pedestrians"), "loader": "memory"})
    config.data.synthetic.update({"test_identities": 2, "train_cameras": 2, "test_cameras": 2})
    config.update({"devices": 1, "max_steps": 1})
    synthetic.write_market1501(config.data.root, synthetic.Contents(**config.data.synthetic), None)
    (tmp_path / "here").mkdir()
    shutil.copy(sources / "bottleneck", tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    workdir = str(tmp_path / "run")
    train.train(config, workdir)
    assert re.search(
        r"^the trunk starts from 'bottleneck': ResNet of bottleneck blocks \(1, 1, 1, 1\) of "
        r"width 4 of 'bottleneck', SHA-256 [0-9a-f]{12}$",
        capsys.readouterr().out,
        re.MULTILINE,
    )
    stored, classes = read_run(workdir)
    assert stored.model.pretrained == str(tmp_path / "here" / "bottleneck")
    network = models.create(stored.model, classes)
    _, variables = restore_variables(network, config.data.image_size, workdir, 0)
    trunk = read_trunk("bottleneck").variables
    for collection, tree in variables.items():
        jax.tree.map(np.testing.assert_array_equal, tree["trunk"], trunk[collection])

    # The file is removed; the leaf is unchanged.
    (tmp_path / "here" / "bottleneck").unlink()
    config.max_steps = 2
    train.train(config, workdir)
    said = capsys.readouterr().out
    assert "resuming from step 1" in said
    assert "the trunk starts" not in said
    with Checkpoints(tmp_path / "run" / CHECKPOINTS) as checkpoints:
        assert checkpoints.latest_step == 2
    evaluate_run(stored, workdir, checkpoint="latest", output=str(tmp_path / "out"))
    config.model.pretrained = "trunk"
    with pytest.raises(ValueError, match=r"holds another run: model\.pretrained is '.*bottleneck'"):
        train.train(config, workdir)
    # Without a checkpoint, the run has not begun, and needs the file.
    shutil.rmtree(tmp_path / "run" / CHECKPOINTS)
    config.model.pretrained = "bottleneck"
    with pytest.raises(FileNotFoundError, match="bottleneck"):
        train.train(config, workdir)


def test_a_run_from_before_the_leaf_goes_on(tmp_path):
    from reid_jax.runs.workdir import check_workdir, write_run

    config = load("pmm_market")
    write_run(tmp_path, config, 4)
    content = json.loads((tmp_path / "run.json").read_text())
    del content["config"]["model"]["pretrained"]
    (tmp_path / "run.json").write_text(json.dumps(content))
    assert read_run(tmp_path)[0].model.pretrained == ""
    check_workdir(tmp_path, config, 4)


def test_hosts_compare_the_numbers_and_not_the_files(sources, monkeypatch, tmp_path):
    """One host may have the source and another the converted file."""
    compared = []
    monkeypatch.setattr(hosts, "count", lambda: 2)
    monkeypatch.setattr(hosts, "check_same", lambda what, value: compared.append(value))
    config = recipe("baseline", "").model
    for file in ("trunk", "bottleneck"):
        config.pretrained = str(sources / file)
        initial.initial_trunk(config, tmp_path)
    weights = safetensors.numpy.load((sources / "bottleneck").read_bytes())
    weights["layer3.0.bn2.running_var"][3] += 1e-3
    config.pretrained = str(write(tmp_path / "another", weights))
    initial.initial_trunk(config, tmp_path)
    assert compared[0] == compared[1] != compared[2]


def test_a_folder_is_no_file_of_weights(tmp_path):
    message = f"model.pretrained is '{tmp_path}', but there is no such file"
    with pytest.raises(FileNotFoundError, match=re.escape(message)):
        initial.initial_trunk(recipe("pmm", tmp_path).model, tmp_path / "run")
