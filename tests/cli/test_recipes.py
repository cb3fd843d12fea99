"""Recipes by name and by path."""

import pathlib

import pytest

from reid_jax.cli import recipes

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"


def test_every_recipe_is_installed():
    files = {path.stem for path in CONFIGS.glob("*.py")} - {"__init__", "common", "sizes"}
    assert recipes.installed() == sorted(files)
    for name in files:
        assert recipes.find(name).description


def test_a_name_and_a_path_find_the_same_recipe():
    named = recipes.find("pmm_cuhk03:labeled,small")
    by_path = recipes.find(f"{CONFIGS}/pmm_cuhk03.py:labeled,small")
    assert named.name == "pmm_cuhk03"
    assert (named.config, named.description) == (by_path.config, by_path.description)
    assert named.value == "pmm_cuhk03:labeled,small"
    assert named.config != recipes.find("pmm_cuhk03").config


def test_a_recipe_loads_from_any_folder(tmp_path, monkeypatch):
    """A recipe loaded by path finds the common parts of recipes in the installed package."""
    (tmp_path / "own.py").write_text((CONFIGS / "pmm_cuhk03.py").read_text())
    monkeypatch.chdir(tmp_path)
    assert recipes.find("own.py:labeled").config == recipes.find("pmm_cuhk03:labeled").config


@pytest.mark.parametrize("text", ["", "get_config = None", "def get_config(): return {}"])
def test_a_file_that_is_no_recipe_is_refused(text, tmp_path):
    path = tmp_path / "own.py"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"own\.py is not a recipe: it has no get_config"):
        recipes.find(str(path))


def test_strings_that_a_recipe_does_not_take_are_named(tmp_path):
    path = tmp_path / "own.py"
    path.write_text("def get_config(): pass")
    with pytest.raises(ValueError, match=r"own\.py:small: get_config of .* too many"):
        recipes.find(f"{path}:small")


def test_a_file_that_is_not_python_is_refused(tmp_path):
    path = tmp_path / "run.json"
    path.write_text("{}")
    with pytest.raises(ValueError, match=r"run\.json is not a recipe: recipes are Python files"):
        recipes.find(str(path))


def test_a_frozen_recipe_is_thawed(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(
        "from ml_collections import FrozenConfigDict\n"
        "def get_config(): return FrozenConfigDict({'seed': 3})"
    )
    config = recipes.find(str(path)).config
    config.seed = 4
    assert config.seed == 4
