"""The prose checker: examples of the style guide, places in files, and the project itself."""

import json
import pathlib

import pytest

from tests.docs.pages import ROOT
from tools import prose

# From the style guide: sentences to avoid, and how to write them.
BAD = (
    "There is no switch for it, where none is installed.",
    "No row is sorted. Of a checkpoint that is damaged a warning tells.",
    "Nobody need be known.",
    "To search alone.",
    "None is wherever it was.",
    "Who opens the images will say so.",
    "It is deleted, for it is old.",
    "A run goes on.",
    "The weights were not at hand.",
    "Where the file is missing, an error.",
    "Where there is none, all of them.",
)
GOOD = (
    "This cannot be disabled. To train on the CPU, set `JAX_PLATFORMS=cpu`.",
    "The triplet loss uses the identity with the larger share.",
    "The full distance matrix is never stored or sorted.",
    "After a kill, run the same command again: the result is bit-identical.",
    "A damaged checkpoint triggers a warning and the previous one is used.",
    "Above 1 GiB, the least recently used entries are removed at start-up.",
    "No identity labels are needed.",
    "`None` means everywhere.",
    "Silence JAX's message about a missing TPU.",
    "The loader reports unreadable files.",
    "Supported layouts:",
    "Called with progress messages; None disables them.",
    "The folder where the run writes. A stand-alone file.",
)


def found(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return prose.findings(path)


@pytest.mark.parametrize("sentence", BAD)
def test_what_the_style_guide_rejects_is_found(sentence, tmp_path):
    assert found(tmp_path, "page.md", sentence)


@pytest.mark.parametrize("sentence", GOOD)
def test_what_it_recommends_is_not(sentence, tmp_path):
    assert found(tmp_path, "page.md", sentence) == []


def test_code_and_comments_of_a_page_are_left_out(tmp_path):
    page = "`Nobody` <!-- nobody -->\n\n```\nnobody\n```\n\n[x](nobody.md)\n"
    page += "\n<!-- prose: off -->\nnobody\n"
    assert found(tmp_path, "page.md", page) == []


def test_places_in_a_page(tmp_path):
    page = "# Title\n\nA sentence.\nOf a run this is\ntrue.\n\n"
    page += "| a | Nobody |\n|---|---|\n| b | c |\n\n- Of one.\n"
    lines = [finding.line for finding in found(tmp_path, "page.md", page)]
    assert lines == [4, 7, 11]


def test_places_in_a_module(tmp_path):
    module = '''"""A module.

Of a file this is true.

    nobody = "an example"
"""

x = 1  # Nobody's.
# Of a run
# this is true.


def function(a):
    """Does something.

    Args:
        a: none is everything.
    """
    raise ValueError("nobody")
'''
    lines = [finding.line for finding in found(tmp_path, "module.py", module)]
    assert lines == [3, 8, 9, 17]


def test_the_project_has_no_more_findings_than_are_allowed():
    assert prose.check(prose.files()) == []


def test_more_and_fewer_findings_are_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(prose, "ROOT", tmp_path)
    monkeypatch.setattr(prose, "ALLOWED", tmp_path / "allowed.json")
    path = tmp_path / "module.py"
    path.write_text('"""Of a file this is true."""\n', encoding="utf-8")
    assert prose.check([path])[-1] == "module.py: 1 findings, 0 allowed"
    for limit, count in ((1, 0), (2, 1)):
        prose.ALLOWED.write_text(json.dumps({"module.py": limit}), encoding="utf-8")
        assert len(prose.check([path])) == count


def test_markdown_has_no_allowance():
    assert not [name for name in prose.allowed() if pathlib.PurePath(name).suffix != ".py"]
    assert all((ROOT / name).is_file() for name in prose.allowed())
