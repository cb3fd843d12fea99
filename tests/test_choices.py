"""The words of `choices` and the code that each of them selects."""

import subprocess
import sys

from reid_jax import choices, models
from reid_jax.data import layouts
from reid_jax.models.resnet import BLOCKS
from reid_jax.schedules import create_schedule
from tests.test_configs import load


def test_each_word_selects_something():
    assert set(choices.BLOCKS) == set(BLOCKS)
    assert set(choices.NAMED_LAYOUTS) == set(layouts._LAYOUTS)
    for name in choices.NETWORKS:
        assert load(f"{name}_market").model.name == name
        assert models.create(load(f"{name}_market").model, num_classes=2)
    for recipe, schedule in zip(
        ("pmm_market", "hbfp_market", "strong_market"), choices.SCHEDULES, strict=True
    ):
        config = load(recipe).optim
        assert config.schedule == schedule
        assert create_schedule(config, steps_per_epoch=10)(0) >= 0
    for pair, levels in choices.PAIRS.items():
        assert pair == "&".join(levels)
        assert set(levels) <= set(choices.LEVELS)


def test_they_need_no_jax():
    program = "import sys; sys.modules['jax'] = None; import reid_jax.choices"
    subprocess.run([sys.executable, "-c", program], check=True)
