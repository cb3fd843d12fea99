import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from reid_jax.configs import common
from reid_jax.training import optimizer

pytestmark = pytest.mark.usefixtures("standard_promotion")

PAPER = common.pmm(top_k=3).optim.to_dict()


def adam(weights, gradients, rates, weight_decay=5e-4):
    """Weights after each step of Adam in float64, weight decay added before the moments."""
    weights, found = np.float64(weights), []
    first, second = np.zeros_like(weights), np.zeros_like(weights)
    for t, (gradient, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
        g = gradient + weight_decay * weights
        first, second = 0.9 * first + 0.1 * g, 0.999 * second + 0.001 * g**2
        weights = weights - rate * (first / (1 - 0.9**t)) / (
            np.sqrt(second / (1 - 0.999**t)) + 1e-8
        )
        found.append(weights)
    return found


def test_adam_has_l2_in_the_gradient(rng):
    weights = rng.normal(size=5)
    gradients = rng.normal(size=(4, 5))
    tx = optimizer.create_optimizer(ConfigDict(PAPER), lambda step: jnp.float32(0.01))
    params = jnp.array(weights, jnp.float32)
    state = tx.init(params)
    for gradient in gradients:
        updates, state = tx.update(jnp.array(gradient, jnp.float32), state, params)
        params = params + updates
    want = adam(weights, gradients, rates=[0.01] * 4)[-1]
    np.testing.assert_allclose(params, want, rtol=1e-5)


def run(leaves, gradients, weights, steps_per_epoch, schedule):
    """Parameters after each step of a network with a trunk and two heads."""
    tx = optimizer.create_optimizer(ConfigDict({**PAPER, **leaves}), schedule, steps_per_epoch)

    @jax.jit
    def step(params, state, gradient):
        updates, state = tx.update(gradient, state, params)
        return jax.tree.map(jnp.add, params, updates), state

    def tree(x):
        return {
            "trunk": {"conv1": {"kernel": x[:3]}, "trunk_2": {"bias": x[3:4]}},
            "heads_0": {"trunk": {"kernel": x[4:6]}},
            "second_trunk": x[6:],
        }

    params = tree(jnp.asarray(weights, jnp.float32))
    state, found = tx.init(params), []
    for gradient in gradients:
        params, state = step(params, state, tree(jnp.asarray(gradient, jnp.float32)))
        found.append(params)
    return found


def schedule(step):
    """A different rate for each step."""
    return jnp.float32(0.01) / (1.0 + jnp.asarray(step, jnp.float32))


@pytest.mark.parametrize(
    ("leaves", "frozen_steps", "share"),
    [
        ({}, 0, 1.0),
        ({"frozen_epochs": 2}, 6, 1.0),
        ({"trunk_lr": 0.1}, 0, 0.1),
        ({"trunk_lr": 0.25, "frozen_epochs": 1}, 3, 0.25),
    ],
)
def test_the_trunk_has_a_rate_and_a_start_of_its_own(rng, leaves, frozen_steps, share):
    """For the trunk's parameters only; moments accumulate from the first step, even if frozen."""
    weights, gradients = rng.normal(size=8), rng.normal(size=(8, 8))
    found = run(leaves, gradients, weights, 3, schedule)
    rates = 0.01 / (1 + np.arange(8))
    heads = adam(weights[4:], gradients[:, 4:], rates)
    shares = np.where(np.arange(8) < frozen_steps, 0.0, share)
    trunk = adam(weights[:4], gradients[:, :4], rates * shares)
    for step, params in enumerate(found):
        got = np.concatenate([params["heads_0"]["trunk"]["kernel"], params["second_trunk"]])
        np.testing.assert_allclose(got, heads[step], rtol=1e-5)
        moved = params["trunk"]
        got = np.concatenate([moved["conv1"]["kernel"], moved["trunk_2"]["bias"]])
        np.testing.assert_allclose(got, trunk[step], rtol=1e-5)
        if step < frozen_steps:  # not even by weight decay
            np.testing.assert_array_equal(got, np.float32(weights[:4]))
        else:
            assert np.all(got != np.float32(weights[:4]))


def test_the_papers_optimizer_has_no_state_for_the_trunk():
    """Checkpoints from before these leaves have this state."""
    tx = optimizer.create_optimizer(ConfigDict(PAPER), schedule, 3)
    state = tx.init({"trunk": jnp.zeros(2)})
    assert [type(part).__name__ for part in state] == [
        "EmptyState",
        "ScaleByAdamState",
        "ScaleByScheduleState",
    ]


def test_a_trunk_may_be_frozen_for_more_steps_than_an_int32_holds():
    config = ConfigDict({**PAPER, "frozen_epochs": 2**30})
    transform = optimizer.create_optimizer(config, lambda step: jnp.float32(1.0), 5000)
    params = {"trunk": {"w": jnp.ones(2)}, "head": {"w": jnp.ones(2)}}
    updates, _ = transform.update(params, transform.init(params), params)
    assert not updates["trunk"]["w"].any()
    assert updates["head"]["w"].all()
