"""The table of leaves: it describes exactly the leaves that recipes have."""

import pytest

from reid_jax.cli import recipes
from reid_jax.runs.leaf_kinds import Leaf
from reid_jax.runs.leaves import LEAVES
from reid_jax.runs.settings import leaves_of


def described(table, prefix=""):
    for name, leaf in table.items():
        if isinstance(leaf, Leaf):
            yield f"{prefix}{name}", leaf
        else:
            yield from described(leaf, f"{prefix}{name}.")


def test_every_leaf_has_a_meaning_of_one_sentence():
    for name, leaf in described(LEAVES):
        assert leaf.meaning.endswith("."), name
        assert leaf.meaning[0].isupper(), name
        assert leaf.words, name


@pytest.mark.parametrize("name", recipes.installed())
def test_a_recipe_s_values_are_allowed_and_all_described(name):
    config = recipes.find(name).config
    leaves = leaves_of(config)
    for leaf, kind in leaves.items():
        value = config
        for part in leaf.split("."):
            value = value[part]
        assert kind.holds(value), leaf
        assert kind.meaning, leaf
    flat = {".".join(path) for path in paths(config)}
    assert set(leaves) == flat


def paths(config, prefix=()):
    for name in config:
        if hasattr(config[name], "items"):
            yield from paths(config[name], (*prefix, name))
        else:
            yield (*prefix, name)
