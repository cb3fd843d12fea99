"""A recipe's leaves as `--help` shows them."""

from ml_collections import ConfigDict

from reid_jax.cli.leaf_help import describe, wrapped
from tests.test_configs import load


def test_a_default_can_be_typed_as_it_is_shown():
    shown = describe(load("pmm_market"))
    assert '\n  --config.data.image_size="(384, 128)"\n' in shown
    assert '\n  --config.data.pattern=""\n' in shown
    assert "\n  --config.model.mixing=hardmix\n" in shown


def test_leaves_are_in_groups_with_titles():
    shown = describe(load("pmm_market"))
    assert shown.startswith("the run:\n  --config.seed=0\n      Seed of everything random")
    groups = [group.splitlines()[0] for group in shown.split("\n\n")]
    assert "optimizer and learning rate:" in groups
    assert len(set(groups)) == len(groups)


def test_some_sections_can_be_shown():
    shown = describe(load("pmm_market"), ("eval",))
    names = [line for line in shown.splitlines() if line.startswith("  --config.")]
    assert names
    assert all(name.startswith("  --config.eval.") for name in names)


def test_a_recipe_s_own_values_are_the_defaults():
    config = ConfigDict(load("pmm_market"))
    config.eval.batch_size = 17
    assert "\n  --config.eval.batch_size=17\n" in describe(config, ("eval",))


def test_lines_are_wrapped_and_indented():
    lines = wrapped("word " * 50, 6).splitlines()
    assert len(lines) > 1
    assert all(len(line) <= 100 and line.startswith("      word") for line in lines)
