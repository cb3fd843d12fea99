"""The rooms of the package, and which may import which. `docs/architecture.md` shows the order."""

import ast
import pathlib
import shutil
import subprocess
import sys

import pytest

PACKAGE = pathlib.Path(__file__).parents[1] / "reid_jax"

# From the top floor down. A room imports only from rooms on lower floors; rooms on one floor do not
# import each other. Files of a room may import each other, but not in a circle. A room with several
# names consists of several files or folders; `__main__` is any file of that name, a command line.
FLOORS = (
    (("cli", "__main__", "pretrained"),),
    (("configs",),),
    (("reproduce",), ("report",)),
    (("search",), ("export",)),
    (("",),),  # `reid_jax` itself, which offers what is on the next floor
    (
        ("inference", "network_on_devices"),
        (
            *("gallery", "gallery_images", "gallery_rows", "gallery_hits", "gallery_file"),
            *("gallery_milvus", "gallery_milvus_images"),
            *("gallery_milvus_store", "gallery_milvus_connection"),
        ),
    ),
    (("programs",),),
    (("weights",),),
    (("evaluation",), ("training",)),
    (("runs",),),
    (("models",), ("data",)),
    (("gradcam", "mixing", "losses", "rectangles", "schedules"),),  # formulas
    (("visualize",), ("choices",), ("recipe",)),
    (("runtime",),),
)
_FLOOR = {name: i for i, floor in enumerate(FLOORS) for room in floor for name in room}
_ROOM = {name: room for floor in FLOORS for room in floor for name in room}


def name_of(module):
    """The name in `FLOORS` of a module, given by its parts below the package."""
    return "__main__" if module[-1:] == ("__main__",) else module[0] if module else ""


def modules(package):
    """The files of the package, by the parts of their names below it."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        found[parts[:-1] if parts[-1] == "__init__" else parts] = path
    # The recipes are in a folder beside the package, but are its modules.
    for path in sorted((package.parent / "configs").glob("[!_]*.py")):
        found["configs", path.stem] = path
    return found


def imports(path, module, known):
    """The modules of the package that a file imports anywhere, each with the number of its line."""
    package = module if path.name == "__init__.py" else module[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [(tuple(alias.name.split(".")), ()) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            source = tuple(node.module.split(".")) if node.module else ()
            if node.level:
                source = ("reid_jax", *package[: len(package) - node.level + 1], *source)
            names = [(source, (alias.name,)) for alias in node.names]
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "import_module":
            named = [a.value for a in node.args[:1] if isinstance(a, ast.Constant)]
            names = [(tuple(name.split(".")), ()) for name in named]
        for source, name in names:
            if source[:1] == ("reid_jax",):
                full = (*source[1:], *name)
                yield full if full in known else source[1:], node.lineno


def faults(package):
    """The forbidden imports of a package, one text for each."""
    known = modules(package)
    edges = {}
    for module, path in known.items():
        name = name_of(module)
        if name not in _ROOM:
            yield f"{path}: reid_jax.{name} is in no room of tests/test_layers.py"
            continue
        for target, line in imports(path, module, known):
            other = name_of(target)
            if other in _ROOM and _ROOM[other] == _ROOM[name]:
                edges.setdefault(module, set()).add(target)
            elif other not in _FLOOR or _FLOOR[other] <= _FLOOR[name]:
                yield f"{path}:{line}: {name or 'reid_jax'} may not import {other or 'reid_jax'}"
    if circle := find_circle(edges):
        yield "a circle of files: " + " -> ".join(".".join(module) for module in circle)


def find_circle(edges):
    """Modules that import each other in a circle, the first once more at the end; or None."""
    done = set()

    def visit(module, trail):
        if module in trail:
            return [*trail[trail.index(module) :], module]
        if module in done:
            return None
        for target in sorted(edges.get(module, ())):
            if circle := visit(target, [*trail, module]):
                return circle
        done.add(module)
        return None

    return next(filter(None, (visit(module, []) for module in sorted(edges))), None)


def test_imports_go_down():
    assert list(faults(PACKAGE)) == []


def test_the_package_itself_imports_nothing_of_its_own_at_once():
    """Importing a lower room does therefore not import the higher ones."""
    program = "import sys, reid_jax; print(*(n for n in sys.modules if n.startswith('reid_jax.')))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []


@pytest.mark.parametrize(
    ("file", "line", "fault"),
    [
        ("losses.py", "from reid_jax.training import step", "losses may not import training"),
        ("losses.py", "def f():\n    import reid_jax.models.heads", "losses may not import models"),
        (
            "data/sampler.py",
            "import typing\nif typing.TYPE_CHECKING:\n    from ..evaluation import ranking",
            "data may not import evaluation",
        ),
        ("evaluation/ranking.py", "from reid_jax.training import loop", "import training"),
        ("training/loop.py", "from reid_jax import evaluation", "import evaluation"),
        ("runtime/files.py", "import reid_jax", "runtime may not import reid_jax"),
        (
            "runs/record.py",
            "import importlib\nimportlib.import_module('reid_jax.programs.train')",
            "runs may not import programs",
        ),
        ("data/decoding.py", "from reid_jax.data import loaders", "a circle of files: data.decod"),
        ("new.py", "", "reid_jax.new is in no room"),
        (
            "../configs/common.py",
            "from reid_jax.cli import recipes",
            "configs may not import cli",
        ),
    ],
)
def test_a_planted_import_is_found(file, line, fault, tmp_path):
    package = tmp_path / "reid_jax"
    for folder in (PACKAGE, PACKAGE.parent / "configs"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(folder, tmp_path / folder.name, ignore=ignored)
    with (package / file).open("a", encoding="utf-8") as target:
        target.write(f"\n{line}\n")
    found = list(faults(package))
    assert len(found) == 1
    assert fault in found[0]


def test_the_document_shows_this_order():
    text = (PACKAGE.parent / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = text.partition("```")[2].partition("```")[0]
    shown = [line.split()[0].rstrip("/") for line in table.splitlines() if line[:1].strip()]
    names = [name for floor in FLOORS for room in floor for name in room]
    assert [name for name in shown if name in names] == [name for name in names if name in shown], (
        "the rooms stand in another order"
    )
    rooms = {room for floor in FLOORS for room in floor}
    assert {_ROOM[name] for name in shown if name in names} == rooms - {("",)}
