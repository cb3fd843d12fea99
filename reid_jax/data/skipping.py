"""Removes bad images from a split, up to a limit, if the recipe requests it."""

import dataclasses

import numpy as np

from reid_jax.data import decoding
from reid_jax.data.splits import Split
from reid_jax.runtime import hosts
from reid_jax.runtime.progress import Progress


def skip_bad(split: Split, config, name: str, progress: Progress = None) -> Split:
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
    if len(bad) > config.skip_limit * len(split):
        raise ValueError(
            f"{len(bad):,} of the {len(split):,} images of {name} are bad, and data.skip_limit is "
            f"{config.skip_limit:g} of them: {decoding.first_few(bad)}"
        )
    keep = np.ones(len(split), bool)
    keep[[i for i, _ in problems]] = False
    return dataclasses.replace(split.take(keep), skipped=tuple(bad))
