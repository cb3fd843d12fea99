"""Runs without training: a recipe, and random weights."""

import jax
import jax.numpy as jnp
import numpy as np

from reid_jax import models
from reid_jax.runs.checkpoints import Checkpoints
from reid_jax.runs.workdir import CHECKPOINTS, write_run
from reid_jax.training.state import TrainState
from tests import reference
from tests.test_configs import load


def write(workdir, name, string="small", num_classes=4, steps=(0,), change=lambda config: None):
    """Write a run into a new folder, with a checkpoint of other weights for each of `steps`.

    Returns:
        config, network, and the variables of the last step.
    """
    config = load(name, string)
    change(config)
    network = models.create(config.model, num_classes)
    image = jnp.zeros((1, *config.data.image_size, 3))
    shapes = jax.eval_shape(network.init, jax.random.key(0), image)
    workdir.mkdir(parents=True)
    write_run(workdir, config, num_classes)
    with Checkpoints(workdir / CHECKPOINTS, keep=len(steps)) as checkpoints:
        for step in steps:
            variables = reference.random_variables(dict(shapes), np.random.default_rng(step))
            state = TrainState(jnp.int32(step), **variables, opt_state=(), seed=0)
            checkpoints.save(state, {"mAP": 1 / (1 + step)})
    return config, network, variables
