"""Checks for TensorFlow, which only the extra `tfdata` installs."""

import importlib.util

NO_TENSORFLOW = (
    "data.loader='tfdata' needs TensorFlow, which cannot be imported here: use "
    "--config.data.loader=memory, or install the extra tfdata, python -m pip install "
    "'reid_jax[tfdata]' or, in a checkout, -e '.[tfdata]'"
)


def check_loader(loader: str) -> None:
    """Check, without importing TensorFlow, that a loader can be used.

    Raises:
        ImportError: it is `tfdata` and TensorFlow is not installed. The message has a solution.
    """
    if loader == "tfdata" and importlib.util.find_spec("tensorflow") is None:
        raise ImportError(NO_TENSORFLOW)
