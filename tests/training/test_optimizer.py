import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import common
from reid_jax.training import optimizer

pytestmark = pytest.mark.usefixtures("standard_promotion")

PAPER = common.pmm(top_k=3).optim.to_dict()


def rate_of_the_authors(epoch):
    """The rule in the program's own terms, by 1-based epoch."""
    if epoch < 50:
        return 1e-4 * (epoch // 5 + 1)
    if epoch < 200:
        return 1e-3
    return 1e-4 if epoch < 300 else 1e-5


def test_staircase_is_pmms_rule():
    steps_per_epoch = 47
    schedule = optimizer.staircase(ConfigDict(PAPER), steps_per_epoch)
    for epoch in range(1, 401):
        for step in ((epoch - 1) * steps_per_epoch, epoch * steps_per_epoch - 1):
            np.testing.assert_allclose(schedule(step), rate_of_the_authors(epoch), rtol=1e-5)


def test_no_warmup():
    schedule = optimizer.staircase(ConfigDict({**PAPER, "warmup_epochs": 0}), 3)
    np.testing.assert_allclose(schedule(0), 1e-3, rtol=1e-6)


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


@pytest.mark.parametrize(
    ("leaf", "value"),
    [
        ("lr", 0.0),
        ("lr", float("nan")),
        ("weight_decay", -1.0),
        ("warmup_every", 0),
        ("warmup_epochs", 51),
        ("decay", 0.0),
    ],
)
def test_check_names_the_leaf(leaf, value):
    optimizer.check(ConfigDict(PAPER))
    with pytest.raises(ValueError, match=rf"^optim\.{leaf} is"):
        optimizer.check(ConfigDict({**PAPER, leaf: value}))
