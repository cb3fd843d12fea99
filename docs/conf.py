"""Sphinx: `sphinx-build -W --keep-going docs build/site`."""

import inspect
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

project = "reid_jax"
author = "The reid_jax developers"
copyright = author
extensions = [
    "myst_nb",
    "sphinx_external_toc",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
exclude_patterns = ["images", "conf.py", "pictures.py"]
external_toc_path = "_toc.yml"

# Pages are plain Markdown; links and anchors work as on code hosts.
myst_heading_anchors = 4
myst_enable_extensions = ["smartquotes"]

# Notebooks are plain files and are executed by every build.
nb_custom_formats = {".py": ["jupytext.reads", {"fmt": "py:percent"}]}
nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_merge_streams = True

html_theme = "furo"
html_title = "reid_jax"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False

# The API reference: docstrings are in Google's style, with single backticks around code.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_default_options = {"members": True}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
add_module_names = False
python_use_unqualified_type_names = True
nitpicky = False

_SECTIONS = re.compile(r"(Args|Attributes|Returns|Raises|Yields):$")


def as_restructured_text(app, what, name, obj, options, lines):
    """Mark the indented code of docstrings as code, which Sphinx expects."""
    marked, section = [], False
    for i, line in enumerate(lines):
        indented = line.startswith("    ")
        if line and not indented:
            section = bool(_SECTIONS.match(line))
        begins = indented and not section and i > 0 and not lines[i - 1].strip()
        if begins and not (marked and _in_code(marked)):
            marked += ["::", ""]
        if line.startswith("Attributes, "):
            line, section = "Attributes:", True
        if section or not indented:
            # Escape stars and the underscore of `name_`, which are markup otherwise.
            line = re.sub(r"(?<![`*\\])\*(?=\w)", r"\\*", line)
        marked.append(line)
    lines[:] = marked


def _in_code(marked):
    """Whether the last text above is indented, so that a literal block is still open."""
    above = next((line for line in reversed(marked) if line.strip()), "")
    return above.startswith("    ") or above == "::"


def skip(app, what, name, obj, skipped, options):
    """Leave out the members that Linen adds to every module."""
    if name in ("setup", "name", "parent", "scope"):
        return True
    if inspect.isfunction(obj) and obj.__module__.startswith("flax"):
        return True
    return None


def link_files(app, docname, source):
    """Turn links to files outside `docs` into downloads; code hosts show these in the
    repository."""
    source[0] = re.sub(r"\]\((\.\./[^)#]+)\)", r"](path:\1)", source[0])


def setup(app):
    """Connect the functions above, `as_restructured_text` before `napoleon`."""
    app.connect("source-read", link_files)
    app.connect("autodoc-process-docstring", as_restructured_text, priority=100)
    app.connect("autodoc-skip-member", skip)
