import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from reid_jax.configs import common
from reid_jax.schedules import create_schedule, warmed_up

PAPER = common.pmm(top_k=3).optim.to_dict()
HBFP = common.hbfp().optim.to_dict()


def rate_of_the_authors(epoch):
    """The rule as in the authors' program, by 1-based epoch."""
    if epoch < 50:
        return 1e-4 * (epoch // 5 + 1)
    if epoch < 200:
        return 1e-3
    return 1e-4 if epoch < 300 else 1e-5


def test_staircase_is_pmms_rule():
    steps_per_epoch = 47
    schedule = create_schedule(ConfigDict(PAPER), steps_per_epoch)
    for epoch in range(1, 401):
        for step in ((epoch - 1) * steps_per_epoch, epoch * steps_per_epoch - 1):
            np.testing.assert_allclose(schedule(step), rate_of_the_authors(epoch), rtol=1e-5)


def test_no_warmup():
    schedule = create_schedule(ConfigDict({**PAPER, "warmup_epochs": 0}), 3)
    np.testing.assert_allclose(schedule(0), 1e-3, rtol=1e-6)


def test_exponential_is_hbfps_rule():
    """2e-4 for 200 epochs, then down to a thousandth of it at epoch 500, and constant
    afterwards."""
    steps_per_epoch = 47
    schedule = create_schedule(ConfigDict(HBFP), steps_per_epoch)
    for step in range(0, 600 * steps_per_epoch, 13):
        epoch = min(max(step / steps_per_epoch, 200), 500)
        want = 2e-4 * 10 ** (-3 * (epoch - 200) / 300)
        np.testing.assert_allclose(schedule(jnp.int32(step)), want, rtol=1e-4)
    assert schedule(jnp.int32(0)).dtype == jnp.float32
    np.testing.assert_allclose(schedule(jnp.int32(350 * 47)), 2e-4 * 10**-1.5, rtol=1e-5)


COSINE = {
    "schedule": "cosine",
    "lr": 3e-4,
    "warmup_epochs": 4,
    "decay_from": 6,
    "decay_until": 26,
    "final": 0.01,
}


def cosine_in_float64(leaves, step, steps_per_epoch):
    """The rate by the number of finished epochs, written out."""
    epoch = step / steps_per_epoch
    if epoch <= leaves["decay_from"]:
        share = 1.0
    elif epoch >= leaves["decay_until"]:
        share = leaves["final"]
    else:
        x = (epoch - leaves["decay_from"]) / (leaves["decay_until"] - leaves["decay_from"])
        share = leaves["final"] + (1 - leaves["final"]) * (1 + math.cos(math.pi * x)) / 2
    rising = steps_per_epoch * leaves["warmup_epochs"]
    return leaves["lr"] * share * (min((step + 1) / rising, 1.0) if rising else 1.0)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"warmup_epochs": 0},
        {"warmup_epochs": 10},  # into the decay
        {"decay_from": 0, "final": 0.0},
        {"final": 1.0},
    ],
)
def test_cosine_equals_float64(change):
    leaves = {**COSINE, **change}
    schedule = jax.jit(create_schedule(ConfigDict(leaves), 9))
    for step in range(0, 30 * 9):
        want = cosine_in_float64(leaves, step, 9)
        got = schedule(jnp.int32(step))
        assert got.dtype == jnp.float32
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6 * leaves["lr"])


def test_cosine_by_hand():
    """The full rate, the mean of both ends half way, and the end."""
    schedule = create_schedule(ConfigDict(COSINE), 10)
    for epoch, want in ((4, 3e-4), (6, 3e-4), (16, 1.515e-4), (26, 3e-6), (500, 3e-6)):
        np.testing.assert_allclose(schedule(jnp.int32(10 * epoch)), want, rtol=1e-5)


def test_the_warm_up_rises_linearly_from_a_rate_above_0():
    for leaves in (COSINE, {**HBFP, "warmup_epochs": 4}):
        schedule = create_schedule(ConfigDict(leaves), 5)
        for step in range(30):
            want = leaves["lr"] * min((step + 1) / 20, 1)
            np.testing.assert_allclose(schedule(jnp.int32(step)), want, rtol=1e-6)


def test_the_exponential_decay_is_the_same_after_a_warm_up():
    plain = create_schedule(ConfigDict(HBFP), 3)
    warm = create_schedule(ConfigDict({**HBFP, "warmup_epochs": 10}), 3)
    for step in range(29, 1600, 7):
        np.testing.assert_array_equal(warm(jnp.int32(step)), plain(jnp.int32(step)))
    assert warm(jnp.int32(28)) < plain(jnp.int32(28))


def test_no_warm_up_is_the_schedule_itself():
    def rate(step):
        return jnp.float32(0.1)

    assert warmed_up(rate, 0) is rate


def test_schedules_go_by_name():
    for leaves, rate in ((PAPER, 1e-4), (HBFP, 2e-4), ({**COSINE, "warmup_epochs": 0}, 3e-4)):
        np.testing.assert_allclose(
            create_schedule(ConfigDict(leaves), 47)(jnp.int32(0)), rate, rtol=1e-6
        )


@pytest.mark.parametrize("warmup", [0, 2**30])
@pytest.mark.parametrize("schedule", ["exponential", "cosine"])
def test_numbers_of_steps_may_be_larger_than_an_int32(schedule, warmup):
    config = ConfigDict({**COSINE, "schedule": schedule, "warmup_epochs": warmup})
    config.decay_from, config.decay_until = 2**30, 2**31 - 1
    rate = jax.jit(create_schedule(config, 5000))(jnp.int32(7))
    np.testing.assert_allclose(rate, 3e-4 * (8 / (2**30 * 5000) if warmup else 1), rtol=1e-5)
