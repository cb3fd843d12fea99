"""The folder of an evaluation: scores, pictures and a page that belong together."""

import json
import pathlib
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from typing import Any

from reid_jax.runs.own_files import check_absent, check_own
from reid_jax.runs.workdir import CHECKPOINTS, NAME, SKIPPED, SKIPPED_KEY
from reid_jax.runtime.files import write_text_atomically
from reid_jax.runtime.messages import shown

RESULTS = "results.json"
#: The results of a run's evaluation, below its workdir, unless `--output` is set.
RUN_RESULTS = pathlib.Path("eval", RESULTS)
PICTURES = ("gradcam.png", "activations.png", "ranked_lists.png")
PAGE = "report.html"
IMAGES = "report_images"  # beside the page, if its images do not fit into it

# Some keys of `results.json`, which it has in all versions.
_KEYS = ("workdir", "step", "dataset", "cmc")

# Names of the folders in IMAGES: digests of their content, and drafts that a kill left behind.
_DIGEST = re.compile(r"[0-9a-f]{16}|\.[0-9a-f]{32}\.part", re.ASCII)


def check_writable(folder: pathlib.Path, name: str, beside: Iterable[str] = ()) -> None:
    """Check that results can be written to a folder.

    Args:
        folder: need not exist.
        name: of the folder, for errors.
        beside: names of the pictures and the page that will be written too. Ours lie beside
            results.

    Raises:
        FileExistsError: a file there would be replaced, and is of another program.
        OSError: the folder cannot be written to.
        ValueError: the folder is in the checkpoints of a run.
    """
    _check_not_of_checkpoints(folder, name)
    check_own(folder / RESULTS, *_KEYS)
    check_own(folder / skipped_name(folder), SKIPPED_KEY)
    if not (folder / RESULTS).exists():
        check_absent(folder / other for other in beside)
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise OSError(f"cannot write to {shown(folder)}, {name}: {error.strerror}") from error


def _check_not_of_checkpoints(folder: pathlib.Path, name: str) -> None:
    real = folder.resolve()
    for place in (real, *real.parents):
        if place.name == CHECKPOINTS and (place.parent / NAME).is_file():
            raise ValueError(
                f"{shown(folder)}, {name}, is in the checkpoints of the run in "
                f"{shown(place.parent)}: choose another folder"
            )


def skipped_name(folder: pathlib.Path) -> str:
    """The name of an evaluation's list of skipped images; in a workdir, training has its own."""
    return f"eval_{SKIPPED}" if (folder / NAME).exists() else SKIPPED


def write_results(folder: pathlib.Path, results: Mapping[str, Any]) -> bool:
    """Write `results.json`. If it replaces a different one, remove its pictures and its page first.

    Args:
        folder: created if it does not exist.
        results: values that JSON can hold.

    Returns:
        Whether pictures or a page of another evaluation were removed.

    Raises:
        OSError: the folder cannot be written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, text = folder / RESULTS, json.dumps(results, indent=2) + "\n"
    stale = []
    if path.exists() and path.read_bytes() != text.encode():
        stale = [folder / name for name in (*PICTURES, PAGE) if (folder / name).exists()]
        for other in stale:
            other.unlink()
        remove_images(folder)
    write_text_atomically(path, text)
    return bool(stale)


def remove_images(folder: pathlib.Path, but: str | None = None) -> None:
    """Remove the images of earlier pages beside a page, and their folder if it is then empty."""
    images = folder / IMAGES
    if not images.is_dir() or images.is_symlink():
        return
    for path in images.iterdir():
        if _DIGEST.fullmatch(path.name) and path.name != but:
            shutil.rmtree(path)
    if not any(images.iterdir()):
        images.rmdir()
