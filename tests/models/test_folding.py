"""Networks without their batch norms describe images as before."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from reid_jax import models
from reid_jax.models import folding
from reid_jax.models.normalization import BatchNorm
from tests import reference
from tests.slow import quick_only
from tests.test_configs import load


def network_of(name, change=lambda settings: None, string="small"):
    config = load(name, string)
    with config.unlocked():
        change(config.model)
    network = models.create(config.model, 4)
    images = jnp.zeros((1, 96, 64, 3))
    shapes = dict(jax.eval_shape(network.init, jax.random.key(0), images))
    return network, reference.random_variables(shapes, np.random.default_rng(0))


def trunk(**settings):
    return lambda model: model.trunk.update(settings)


NETWORKS = {
    "baseline": ("baseline_synthetic",),
    "strong": ("strong_synthetic",),
    "neck after pooling": ("strong_synthetic", lambda model: model.update(whole_dim=0)),
    "bdb": ("bdb_synthetic",),
    "pmm": ("pmm_synthetic",),
    "hbfp": ("hbfp_synthetic",),
    "basic blocks": ("pmm_synthetic", trunk(block="basic")),
    "ibn": ("pmm_synthetic", trunk(ibn=True)),
    "ibn of an odd width": ("baseline_synthetic", trunk(ibn=True, width=5)),
    "strides of v1": ("baseline_synthetic", trunk(stride_in_1x1=True, strides=(1, 2, 2, 2))),
}


@pytest.mark.parametrize("case", quick_only(NETWORKS, "strong", "pmm", "ibn", "strides of v1"))
def test_descriptors_stay_and_norms_go(case):
    network, variables = network_of(*NETWORKS[case])
    images = np.random.default_rng(1).normal(size=(2, 96, 64, 3)).astype(np.float32)
    want = np.asarray(jax.jit(network.apply)(variables, images))
    norms = []

    def count(call, arguments, options, context):
        if isinstance(context.module, BatchNorm) and context.module.has_variable(
            "batch_stats", "mean"
        ):
            norms.append(context.module.name)
        return call(*arguments, **options)

    weights = folding.fold(variables)
    with nn.intercept_methods(count), nn.intercept_methods(folding.skip_folded):
        got = np.asarray(jax.jit(network.apply)(weights, images))
    # A neck directly after pooling has no layer that could take its factor.
    assert norms == (["neck"] if case == "neck after pooling" else [])
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * np.abs(want).max())
    assert np.abs(want).max() > 0


def test_the_variables_that_were_given_stay():
    _, variables = network_of("pmm_synthetic")
    before = {name: leaf.copy() for name, leaf in flatten_dict(variables).items()}
    folding.fold(variables)
    for name, leaf in flatten_dict(variables).items():
        np.testing.assert_array_equal(leaf, before[name])
