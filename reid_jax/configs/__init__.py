"""The recipes, which lie in `configs/` at the top of a checkout.

This file serves checkouts only: it finds `reid_jax.configs` there. An installed package has the
recipes themselves in its place, see `package-dir` in `pyproject.toml`.
"""

import pathlib

__path__ = [str(pathlib.Path(__file__).parents[2] / "configs")]
