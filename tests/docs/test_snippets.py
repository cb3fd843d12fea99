"""Every block of Python and of commands on every page runs, in order, in one folder for each page.

A comment `<!-- skip: next "reason" -->` before a block leaves it out. `world.py` makes the folder.
"""

import importlib.util
import shutil
from unittest import SkipTest

import pytest

from tests.docs import world
from tests.docs.pages import NAMES, ROOT

pytest.importorskip("sybil", reason="the extra `docs` is not installed")
from sybil import Sybil
from sybil.parsers.markdown import (
    CodeBlockParser,
    PythonCodeBlockParser,
    SkipParser,
)

pytestmark = pytest.mark.extras

# Pages that begin without the runs of `world`, because they create their own.
FRESH = ("docs/quickstart.md", "docs/training.md")


def run_commands(example):
    """Run a block of commands."""
    world.shell(str(example.parsed), example.namespace["folder"])


SYBIL = Sybil(
    parsers=[
        PythonCodeBlockParser(),
        CodeBlockParser(language="bash", evaluator=run_commands),
        SkipParser(),
    ]
)


def examples(name):
    """The blocks of a page, and the directives that skip some."""
    return list(SYBIL.parse(ROOT / name).examples())


def to_run(name):
    """The number of blocks of a page that are not skipped, or only where an extra is absent."""
    parsed = [example.parsed for example in examples(name)]
    skips = [directive for directive in parsed if isinstance(directive, tuple)]
    return len(parsed) - 2 * len(skips) + sum(skip[1].startswith("if(") for skip in skips)


# `test_contributing.py` runs the page that is missing here.
PAGES = [name for name in NAMES if name != "docs/contributing.md" and to_run(name)]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    world.build(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", PAGES)
def test_blocks_of_a_page_run(name, built, tmp_path, monkeypatch, standard_promotion):
    folder = tmp_path / "page"
    shutil.copytree(built, folder)
    if name in FRESH:
        shutil.rmtree(folder / "runs")
        shutil.rmtree(folder / "data")
    monkeypatch.chdir(folder)
    ran = 0
    for example in examples(name):
        example.namespace["folder"] = folder
        example.namespace["milvus"] = importlib.util.find_spec("milvus_lite") is not None
        try:
            example.evaluate()
            ran += not isinstance(example.parsed, tuple)  # Directives are tuples.
        except SkipTest as skipped:
            ran += str(skipped).endswith("is not installed")
    assert ran == to_run(name)


def test_a_block_that_fails_is_reported(tmp_path):
    page = tmp_path / "page.md"
    page.write_text('```bash\nfalse\n```\n\n<!-- skip: next "why" -->\n\n```bash\nfalse\n```\n')
    first, directive, second = SYBIL.parse(page).examples()
    first.namespace["folder"] = tmp_path
    with pytest.raises(AssertionError, match="exit 1"):
        first.evaluate()
    directive.evaluate()
    with pytest.raises(SkipTest, match="why"):
        second.evaluate()


def test_every_skipped_block_has_a_reason():
    for name in PAGES:
        for example in examples(name):
            if isinstance(example.parsed, tuple):
                assert example.parsed[1], f"{name}, line {example.line}"
