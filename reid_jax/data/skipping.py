"""Bad images left out of a split, up to a limit, if the recipe asks for it."""

import contextlib
import dataclasses
from collections.abc import Iterator

import numpy as np

from reid_jax.data import decoding
from reid_jax.data.splits import Split
from reid_jax.recipe import DataConfig
from reid_jax.runtime import hosts
from reid_jax.runtime.messages import counted
from reid_jax.runtime.progress import Progress


@contextlib.contextmanager
def advised() -> Iterator[None]:
    """Add the advice to skip bad images to errors that loaders raise in this context."""
    try:
        yield
    except decoding.BadFilesError as error:
        message = f"{error}, or leave them out with --config.data.on_bad_image=skip"
        raise decoding.BadFilesError(message) from None


def skip_bad(split: Split, config: DataConfig, name: str, progress: Progress = None) -> Split:
    """The split without its bad images, if the policy is `skip`.

    Every image is then decoded in parallel, and each of several hosts decodes its part. With the
    policy `error` no image is read and the split is returned unchanged: the loader reports bad
    images.

    Args:
        split: a split of a dataset.
        config: a recipe's `data`.
        name: the name of the split, for messages.
        progress: called with progress messages; None disables them.

    Returns:
        The split, in its order; `skipped` lists what was removed and the reasons.

    Raises:
        ValueError: more are bad than `data.skip_limit` allows. The message names a few.
    """
    if config.on_bad_image == "error":
        return split
    if progress:
        progress(f"checking the images of {name}")
    problems = decoding.visit(split.paths, lambda i, data, image: None, progress, hosts.EVERYBODY)
    bad = [(split.paths[i], problem) for i, problem in problems]
    if len(bad) / len(split) > config.skip_limit:
        raise ValueError(
            f"{len(bad):,} of {counted(len(split), 'image')} of {name} cannot be read, and "
            f"data.skip_limit is {config.skip_limit:g} of them: {decoding.first_few(bad)}"
        )
    keep = np.ones(len(split), bool)
    keep[[i for i, _ in problems]] = False
    return dataclasses.replace(split.take(keep), skipped=tuple(bad))
