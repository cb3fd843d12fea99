import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from reid_jax.configs import common
from reid_jax.schedules import create_schedule

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
    schedule = create_schedule(ConfigDict(PAPER), steps_per_epoch)
    for epoch in range(1, 401):
        for step in ((epoch - 1) * steps_per_epoch, epoch * steps_per_epoch - 1):
            np.testing.assert_allclose(schedule(step), rate_of_the_authors(epoch), rtol=1e-5)


def test_no_warmup():
    schedule = create_schedule(ConfigDict({**PAPER, "warmup_epochs": 0}), 3)
    np.testing.assert_allclose(schedule(0), 1e-3, rtol=1e-6)


def test_exponential_is_hbfps_rule():
    """2e-4 for 200 epochs, then down to a thousandth of it at 500, and no further."""
    steps_per_epoch = 47
    schedule = create_schedule(ConfigDict(HBFP), steps_per_epoch)
    for step in range(0, 600 * steps_per_epoch, 13):
        epoch = min(max(step / steps_per_epoch, 200), 500)
        want = 2e-4 * 10 ** (-3 * (epoch - 200) / 300)
        np.testing.assert_allclose(schedule(jnp.int32(step)), want, rtol=1e-4)
    assert schedule(jnp.int32(0)).dtype == jnp.float32
    np.testing.assert_allclose(schedule(jnp.int32(350 * 47)), 2e-4 * 10**-1.5, rtol=1e-5)


def test_schedules_go_by_name():
    for leaves, rate in ((PAPER, 1e-4), (HBFP, 2e-4)):
        np.testing.assert_allclose(
            create_schedule(ConfigDict(leaves), 47)(jnp.int32(0)), rate, rtol=1e-6
        )
