"""Links, anchors, and the names of files, tests and settings on the pages exist."""

import ast
import re
from fnmatch import fnmatch

import pytest

from tests.docs.pages import NAMES, ROOT, anchors, prose

_LINK = re.compile(r"\]\(([^()\s]+(?:\([^()\s]*\))?)\)")
_CODE = re.compile(r"`([^`\n]+)`")
_FILE = re.compile(r"(?:reid_jax|configs|tests|benchmarks|docs)/[\w/.-]+\.\w+")


def broken_links(page):
    """The relative links of a page whose target does not exist."""
    text = prose(page.read_text(encoding="utf-8"))
    for target in _LINK.findall(re.sub(r"`[^`\n]*`", "", text)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        known = anchors(file) if file.suffix == ".md" and file.exists() else {""}
        if not file.exists() or anchor not in known | {""}:
            yield target


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name):
    assert list(broken_links(ROOT / name)) == []


def test_a_link_that_leads_nowhere_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# A page: its *title*\n\n[1](page.md) [2](#a-page-its-title) [3](other.md)\n"
        "[4](#nowhere) [5](https://example.com/x) `[6](code.md)`\n\n```\n[7](block.md)\n```\n"
    )
    assert list(broken_links(page)) == ["other.md", "#nowhere"]


def found(file):
    """Whether there is such a file. `reliability.md` omits `tests/`."""
    return (ROOT / file).exists() or (ROOT / "tests" / file).exists()


@pytest.mark.parametrize("name", NAMES)
def test_files_that_a_page_names_exist(name):
    text = prose((ROOT / name).read_text(encoding="utf-8"))
    named = {m for code in _CODE.findall(text) for m in _FILE.findall(code)}
    assert [file for file in sorted(named) if not found(file)] == []


def has_test(path, pattern):
    """Whether a file has a function with such a name."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    return any(fnmatch(name, pattern) for name in names)


def test_tests_that_promises_name_exist():
    """In `docs/reliability.md`: `file.py`, `file.py::test`, or `::test` of the file before."""
    missing, path = [], None
    text = prose((ROOT / "docs" / "reliability.md").read_text(encoding="utf-8"))
    for code in _CODE.findall(text):
        file, _, test = code.partition("::")
        if file.endswith(".py") and " " not in file:
            path = ROOT / "tests" / file
        elif not code.startswith(("::test_", "test_")):
            continue
        else:
            test = code.removeprefix("::")
        if not (path and path.is_file() and has_test(path, test or "*")):
            missing.append(code)
    assert missing == []
