"""The recipes, which are in `configs/` at the top of a checkout.

This file is only for checkouts: it finds `reid_jax.configs` there. In an installed package, the
recipes themselves replace it, see `package-dir` in `pyproject.toml`.
"""

import pathlib

__path__ = [str(pathlib.Path(__file__).parents[2] / "configs")]
