"""Workdirs made of others' checkpoints."""

import json

import jax
import numpy as np
import pytest

from reid_jax import models
from reid_jax.runs.restoring import restore_variables
from reid_jax.runs.workdir import read_run
from reid_jax.weights import authors, write_workdir
from reid_jax.weights.files import read
from reid_jax.weights.tensors import variables
from tests.test_configs import load
from tests.weights import files


@pytest.fixture
def file(tmp_path):
    return read(files.write(tmp_path / "bdb.safetensors", files.arrays("bdb")))


def test_the_workdir_holds_the_checkpoint_s_weights_and_sizes(file, tmp_path):
    sizes, parameters = write_workdir(file, "bdb", load("bdb_market"), tmp_path / "run")
    config, num_classes = read_run(tmp_path / "run")
    assert num_classes == sizes.num_classes
    assert tuple(config.model.trunk.depths) == sizes.trunk.depths
    assert config.model.trunk.width == sizes.trunk.width
    network = models.create(config.model, num_classes)
    step, tree = restore_variables(network, config.data.image_size, tmp_path / "run")
    wanted = variables(file.arrays, authors.tensors("bdb", sizes), "BDB", file.path)
    assert step == 0
    jax.tree.map(np.testing.assert_array_equal, tree, wanted)
    assert parameters == sum(x.size for x in jax.tree.leaves(wanted["params"]))
    source = json.loads((tmp_path / "run" / "run.json").read_text())["source"]
    assert (source["program"], source["file"]) == ("bdb", "bdb.safetensors")
    assert source["sha256"] == file.sha256


def test_a_folder_that_holds_something_is_left_alone(file, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine").touch()
    with pytest.raises(OSError, match="run"):
        write_workdir(file, "bdb", load("bdb_market"), tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["mine"]


def test_tensors_that_do_not_fit_leave_no_folder(tmp_path):
    arrays = files.arrays("bdb")
    arrays.pop(next(name for name in arrays if name.endswith("running_var")))
    file = read(files.write(tmp_path / "bdb.safetensors", arrays))
    with pytest.raises(ValueError, match="1 missing: "):
        write_workdir(file, "bdb", load("bdb_market"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
