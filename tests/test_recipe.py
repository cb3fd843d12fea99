"""The types of a recipe's leaves agree with the leaves that recipes have."""

import typing

import pytest

from reid_jax import recipe
from reid_jax.cli import recipes
from reid_jax.runs import leaves

# The leaves of `optim` depend on the schedule. Those of `model` that have types are common to all.
TABLES = leaves.LEAVES | {
    "optim": leaves.OPTIM | {k: v for table in leaves.SCHEDULES.values() for k, v in table.items()},
    "model": leaves.MODEL,
}


def declared(section):
    """The leaves and sections of a type, by name."""
    return typing.get_type_hints(section)


def is_section(kind):
    return getattr(kind, "__module__", "") == recipe.__name__


def sections(section=recipe.RecipeConfig, table=TABLES, path=""):
    """All sections with leaves of their own: path, type, table."""
    yield path, section, table
    for name, kind in declared(section).items():
        if is_section(kind) and declared(kind):
            yield from sections(kind, table[name], f"{path}{name}.")


@pytest.mark.parametrize(
    ("section", "table"),
    [pytest.param(section, table, id=path or "recipe") for path, section, table in sections()],
)
def test_types_have_all_leaves_and_no_other(section, table):
    assert set(declared(section)) == set(table)


def holds(kind, value):
    """Whether a value has a type; a whole number is a float too, as for type checkers."""
    if typing.get_origin(kind) is tuple:
        of = typing.get_args(kind)
        if of[1:] == (...,):
            of = of[:1] * len(value)
        return isinstance(value, tuple) and len(value) == len(of) and all(map(holds, of, value))
    return type(value) is kind or (kind is float and type(value) is int)


@pytest.mark.parametrize("name", recipes.installed())
def test_every_recipe_has_these_types(name):
    def check(kind, value, path):
        if is_section(kind):
            for leaf, of in declared(kind).items():
                if leaf in value:
                    check(of, value[leaf], f"{path}.{leaf}")
        else:
            assert holds(kind, value), f"{path} is {value!r}, and its type is {kind}"

    check(recipe.RecipeConfig, recipes.find(name).config, name)


def test_typed_changes_nothing():
    config = recipes.find("pmm_market").config
    assert recipe.typed(config) is config
