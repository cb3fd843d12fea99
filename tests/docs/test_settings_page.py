"""`docs/config.md` is what `tools/settings_page.py` writes, and describes every leaf."""

from ml_collections import ConfigDict

from tools import settings_page


def test_the_page_is_that_of_the_code():
    written = settings_page.PAGE.read_text(encoding="utf-8")
    assert written == settings_page.page(), "run python tools/settings_page.py"


def test_every_leaf_of_every_recipe_is_on_it():
    names = {name for name, _ in settings_page.all_leaves()}

    def leaves(config, prefix=""):
        for name, value in config.items():
            if isinstance(value, ConfigDict):
                yield from leaves(value, f"{prefix}{name}.")
            else:
                yield prefix + name

    for recipe in settings_page.RECIPES.values():
        assert set(leaves(recipe())) <= names


def test_every_leaf_has_a_meaning():
    assert [name for name, leaf in settings_page.all_leaves() if not leaf.meaning.strip()] == []
