"""Bad images left out of a split, up to a limit, where the recipe says so."""

import dataclasses

import numpy as np

from reid_jax.data import decoding
from reid_jax.data.splits import Split
from reid_jax.runtime import hosts
from reid_jax.runtime.progress import Progress


def skip_bad(split: Split, config, name: str, progress: Progress = None) -> Split:
    """The split without its bad images, if those are to be skipped.

    Every image is then decoded in parallel, and each of several hosts decodes its part. Under the
    policy `error` nothing is read and the split comes back as it is: the loader finds the bad ones.

    Args:
        split: of a dataset.
        config: a recipe's `data`.
        name: of the split, for messages.
        progress: called with progress messages; None disables them.

    Returns:
        The split, in its order; `skipped` says what is left out and why.

    Raises:
        ValueError: more are bad than `data.skip_limit` allows; says how many and names a few.
    """
    if config.on_bad_image == "error":
        return split
    if progress:
        progress(f"checking the images of {name}")
    problems = decoding.visit(split.paths, lambda i, data, image: None, progress, hosts.EVERYBODY)
    bad = [(split.paths[i], problem) for i, problem in problems]
    if len(bad) > config.skip_limit * len(split):
        raise ValueError(
            f"{len(bad):,} of the {len(split):,} images of {name} are bad, and data.skip_limit is "
            f"{config.skip_limit:g} of them: {decoding.first_few(bad)}"
        )
    keep = np.ones(len(split), bool)
    keep[[i for i, _ in problems]] = False
    return dataclasses.replace(split.take(keep), skipped=tuple(bad))
