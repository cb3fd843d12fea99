"""Where the recipes and `train.py` are."""

import os
import pathlib


def find_checkout() -> pathlib.Path:
    """The folder of `train.py` and `configs/`: beside the package, or the current one.

    Raises:
        FileNotFoundError: it is neither.
    """
    candidates = [pathlib.Path(os.path.abspath(__file__)).parents[2], pathlib.Path.cwd()]
    for folder in candidates:
        if (folder / "train.py").is_file() and (folder / "configs").is_dir():
            return folder
    raise FileNotFoundError(
        f"no train.py and configs/ in {' or '.join(map(str, candidates))}; start this in a checkout"
    )
