"""The walk-through of `docs/contributing.md`: its changes, made in a copy of the project, work."""

import re
import shutil

import pytest

from tests.docs import world
from tests.docs.pages import ROOT

pytest.importorskip("sybil", reason="the extra `docs` is not installed")

pytestmark = pytest.mark.extras

_BLOCK = re.compile(r"^```(python|diff|bash)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def walk_through():
    """The language and text of each block below "Add a network"."""
    page = (ROOT / "docs" / "contributing.md").read_text(encoding="utf-8")
    section = page.partition("\n## Add a network\n")[2].partition("\n## ")[0]
    return _BLOCK.findall(section)


def apply(diff, folder):
    """Make a change: `# FILE`, then hunks below `@@ @@` whose old text is in the file once."""
    name, *hunks = diff.split("@@ @@\n")
    path = folder / name.strip().removeprefix("# ")
    text = path.read_text(encoding="utf-8")
    for hunk in hunks:
        lines = hunk.splitlines(keepends=True)
        old = "".join(line[1:] for line in lines if line[0] in " -")
        new = "".join(line[1:] for line in lines if line[0] in " +")
        assert text.count(old) == 1, f"{path.name} does not hold, once:\n{old}"
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("copy") / "project"
    folder.mkdir()
    for name in ("reid_jax", "configs", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("train.py", "eval.py", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    return folder


@pytest.mark.slow
def test_the_network_of_the_walk_through_trains(copy):
    ran = []
    for language, text in walk_through():
        if language == "python":
            name, _, source = text.partition("\n")
            path = copy / name.removeprefix("# ")
            assert not path.exists()
            path.write_text(source, encoding="utf-8")
        elif language == "diff":
            apply(text, copy)
        else:
            ran.append(world.shell(f"export PYTHONPATH={copy}\n{text}", copy))
    assert (copy / "runs" / "attentive" / "eval" / "gradcam.png").exists()
    assert "1 passed" in ran[0]


def test_it_takes_60_lines():
    """The new files and changed lines, without empty lines and the test."""
    count = 0
    for language, text in walk_through():
        lines = [line for line in text.splitlines() if line.strip()]
        if language == "python" and "tests/" not in lines[0]:
            count += len(lines) - 1
        if language == "diff":
            count += sum(line.startswith("+") for line in lines)
    assert 40 < count <= 60
