"""No function, class or file of the package grows too large for a reader."""

import ast
import pathlib

ROOT = pathlib.Path(__file__).parents[1]
FILE_LINES, CLASS_LINES, FUNCTION_LINES, PARAMETERS = 400, 200, 60, 8

# Users call it, so its signature is fixed.
PUBLIC = {"Gallery.search", "MilvusGallery.search"}


def length(function):
    """The number of lines of a function without its docstring."""
    lines = function.end_lineno - function.lineno + 1
    if ast.get_docstring(function, clean=False) is not None:
        first = function.body[0]
        lines -= first.end_lineno - first.lineno + 1
    return lines


def parameters(function):
    """The number of parameters of a function, except `self` and `cls`."""
    arguments = function.args
    names = [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    return len(names) - (names[:1] in (["self"], ["cls"]))


def excesses(source):
    """The functions and classes in a source text that are too large."""
    lines = len(source.splitlines())
    if lines >= FILE_LINES:
        yield f"{lines} lines"

    def visit(node, prefix):
        for child in ast.iter_child_nodes(node):
            name = f"{prefix}{getattr(child, 'name', '')}"
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                if length(child) > FUNCTION_LINES:
                    yield f"{name} has {length(child)} lines"
                if parameters(child) > PARAMETERS and name not in PUBLIC:
                    yield f"{name} has {parameters(child)} parameters"
                yield from visit(child, f"{name}.")
            elif isinstance(child, ast.ClassDef):
                if child.end_lineno - child.lineno + 1 > CLASS_LINES:
                    yield f"{name} has {child.end_lineno - child.lineno + 1} lines"
                yield from visit(child, f"{name}.")
            else:
                yield from visit(child, prefix)

    yield from visit(ast.parse(source), "")


def test_nothing_is_too_large():
    found = [
        f"{path.relative_to(ROOT)}: {excess}"
        for folder in ("reid_jax", "configs")
        for path in sorted((ROOT / folder).rglob("*.py"))
        for excess in excesses(path.read_text(encoding="utf-8"))
    ]
    assert found == []


def test_what_is_too_large_is_found():
    names = ", ".join(f"a{i}" for i in range(9))
    body = "\n".join(["        x = 1"] * 60)
    source = (
        f'class C:\n    def f(self, {names}):\n        """Text.\n\n        More.\n        """\n'
    )
    assert list(excesses(source + body[:-14])) == ["C.f has 9 parameters"]
    assert list(excesses(source + body)) == ["C.f has 61 lines", "C.f has 9 parameters"]
    assert list(excesses("class C:\n" + "    x = 1\n" * 200)) == ["C has 201 lines"]
    assert list(excesses("x = 1\n" * 400)) == ["400 lines"]
