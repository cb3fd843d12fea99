import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import common
from reid_jax.training import optimizer

pytestmark = pytest.mark.usefixtures("standard_promotion")

PAPER = common.pmm(top_k=3).optim.to_dict()
HBFP = common.hbfp().optim.to_dict()


def rate_of_the_authors(epoch):
    """The rule in the program's own terms, by 1-based epoch."""
    if epoch < 50:
        return 1e-4 * (epoch // 5 + 1)
    if epoch < 200:
        return 1e-3
    return 1e-4 if epoch < 300 else 1e-5


def test_staircase_is_pmms_rule():
    steps_per_epoch = 47
    schedule = optimizer.create_schedule(ConfigDict(PAPER), steps_per_epoch)
    for epoch in range(1, 401):
        for step in ((epoch - 1) * steps_per_epoch, epoch * steps_per_epoch - 1):
            np.testing.assert_allclose(schedule(step), rate_of_the_authors(epoch), rtol=1e-5)


def test_no_warmup():
    schedule = optimizer.create_schedule(ConfigDict({**PAPER, "warmup_epochs": 0}), 3)
    np.testing.assert_allclose(schedule(0), 1e-3, rtol=1e-6)


def test_exponential_is_hbfps_rule():
    """2e-4 for 200 epochs, then down to a thousandth of it at 500, and no further."""
    steps_per_epoch = 47
    schedule = optimizer.create_schedule(ConfigDict(HBFP), steps_per_epoch)
    for step in range(0, 600 * steps_per_epoch, 13):
        epoch = min(max(step / steps_per_epoch, 200), 500)
        want = 2e-4 * 10 ** (-3 * (epoch - 200) / 300)
        np.testing.assert_allclose(schedule(jnp.int32(step)), want, rtol=1e-4)
    assert schedule(jnp.int32(0)).dtype == jnp.float32
    np.testing.assert_allclose(schedule(jnp.int32(350 * 47)), 2e-4 * 10**-1.5, rtol=1e-5)


def test_schedules_go_by_name():
    for settings, rate in ((PAPER, 1e-4), (HBFP, 2e-4)):
        np.testing.assert_allclose(
            optimizer.create_schedule(ConfigDict(settings), 47)(jnp.int32(0)), rate, rtol=1e-6
        )


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
