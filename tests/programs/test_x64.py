"""With JAX_ENABLE_X64 all arrays are those of float32, bit for bit."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import reid_jax
from reid_jax import models
from reid_jax.data import synthetic
from reid_jax.programs import train
from reid_jax.programs.evaluate import evaluate_run
from reid_jax.report import present
from tests import random_runs
from tests.programs.test_train import arrays, tiny
from tests.test_configs import load

pytestmark = pytest.mark.usefixtures("standard_promotion")


@pytest.fixture
def x64():
    """Called with True or False, for the whole process as JAX_ENABLE_X64 is."""
    yield lambda enabled: jax.config.update("jax_enable_x64", enabled)
    jax.config.update("jax_enable_x64", False)


@pytest.mark.parametrize("name", ["baseline", "strong", "pmm", "hbfp", "bdb"])
def test_networks_have_float32_variables(name, x64):
    x64(True)
    config = load(f"{name}_synthetic", "small")
    config.model.trunk.ibn = True
    if name in ("baseline", "strong"):
        config.model.cosine_scale = 16.0
    network = models.create(config.model, 4)
    image = jnp.zeros((1, *config.data.image_size, 3), jnp.float32)
    variables = jax.eval_shape(network.init, jax.random.key(0), image)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype(np.float32)}


def test_descriptors_of_a_checkpoint_are_the_same(x64, tmp_path):
    random_runs.write(tmp_path / "run", "pmm_synthetic")
    crops = np.random.default_rng(0).integers(0, 256, (3, 64, 32, 3), np.uint8)
    described = []
    for enabled in (False, True):
        x64(enabled)
        described.append(reid_jax.load(tmp_path / "run").embed(crops))
    assert described[1].dtype == np.float32
    np.testing.assert_array_equal(*described)


@pytest.mark.slow
def test_training_and_evaluation_are_the_same(x64, tmp_path):
    root = tmp_path / "pedestrians"
    synthetic.write_market1501(root, synthetic.Contents(**tiny("").data.synthetic), None)
    states, results = [], []
    for enabled in (False, True):
        x64(enabled)
        workdir, output = tmp_path / str(enabled), tmp_path / f"eval {enabled}"
        config = tiny(root)
        train.train(config, str(workdir))
        states.append(arrays(workdir / "checkpoints" / "2"))
        run = evaluate_run(config, str(workdir), checkpoint="latest", output=str(output), figures=1)
        present(run, str(output), report=True)
        results.append(json.loads((output / "results.json").read_text()) | {"workdir": ""})
    assert states[0].keys() == states[1].keys()
    for name, array in states[0].items():
        assert array.dtype == states[1][name].dtype
        np.testing.assert_array_equal(array, states[1][name], err_msg=name)
    assert results[0] == results[1]
