import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from reid_jax.configs import common
from reid_jax.training import optimizer

pytestmark = pytest.mark.usefixtures("standard_promotion")

PAPER = common.pmm(top_k=3).optim.to_dict()


def test_adam_has_l2_in_the_gradient(rng):
    """Against Adam written out in float64, weight decay added before the moments."""
    weights = rng.normal(size=5)
    gradients = rng.normal(size=(4, 5))
    tx = optimizer.create_optimizer(ConfigDict(PAPER), lambda step: jnp.float32(0.01))
    params = jnp.array(weights, jnp.float32)
    state = tx.init(params)
    first, second = np.zeros(5), np.zeros(5)
    for t, gradient in enumerate(gradients, start=1):
        updates, state = tx.update(jnp.array(gradient, jnp.float32), state, params)
        params = params + updates
        g = gradient + 5e-4 * weights
        first, second = 0.9 * first + 0.1 * g, 0.999 * second + 0.001 * g**2
        weights = weights - 0.01 * (first / (1 - 0.9**t)) / (
            np.sqrt(second / (1 - 0.999**t)) + 1e-8
        )
    np.testing.assert_allclose(params, weights, rtol=1e-5)
