"""The dataset that a recipe names."""

import dataclasses
import hashlib
import os

from reid_jax.data import layouts, skipping, splits, synthetic
from reid_jax.recipe import DataConfig
from reid_jax.runtime import hosts
from reid_jax.runtime.files import local_path
from reid_jax.runtime.progress import Progress


def load(config: DataConfig, progress: Progress = None, *, to_train: bool = True) -> splits.Dataset:
    """List the images of `config`, a recipe's `data`; draw synthetic pedestrians on first use.

    If `on_bad_image` is `skip`, bad images are omitted, and so are identities without good images.

    Args:
        config: a recipe's `data`.
        progress: called with progress messages; None disables them.
        to_train: whether training images will be used. If not, the training split is empty and need
            not exist.

    Raises:
        FileNotFoundError, ValueError: as `layouts.read` and `skipping.skip_bad`, and if
          `data.root` is not set or is no local path.
    """
    if not config.root:
        raise ValueError("data.root is empty: set the dataset's folder, --config.data.root=FOLDER")
    root = local_path(config.root, "data.root")
    if config.layout == "synthetic":
        hosts.from_first(lambda: _draw(config, root))
        # For hosts that do not see the first one's files.
        hosts.together(lambda: _draw(config, root))
    dataset = hosts.together(lambda: _read(config, root, to_train))
    every = [dataset.train, dataset.query, dataset.gallery]
    hosts.check_same("number of images", [len(split) for split in every])
    names = {"train": "the training split", "query": "the query", "gallery": "the gallery"}
    splits = {
        field: skipping.skip_bad(getattr(dataset, field), config, name, progress)
        for field, name in names.items()
        if len(getattr(dataset, field))
    }
    dataset = dataclasses.replace(dataset, **splits)
    if dataset.skipped:
        layouts.check(dataset, to_train=to_train)
    return dataset


def _draw(config: DataConfig, root: str) -> None:
    synthetic.write_market1501(root, synthetic.Contents(**config.synthetic))


def _read(config: DataConfig, root: str, to_train: bool) -> splits.Dataset:
    layout = "market1501" if config.layout == "synthetic" else config.layout
    pattern, folders = config.pattern or None, config.folders or None
    return layouts.read(layout, root, pattern=pattern, folders=folders, to_train=to_train)


def load_multi_query(
    dataset: splits.Dataset, config: DataConfig, progress: Progress = None
) -> splits.Split:
    """As `layouts.read_multi_query`, without bad images if `config`, a `data`, skips them."""
    boxes = hosts.together(lambda: layouts.read_multi_query(dataset))
    boxes = skipping.skip_bad(boxes, config, "the boxes of --multi-query", progress)
    layouts.check_multi_query(dataset, boxes)
    return boxes


def load_extra(
    folder: str | os.PathLike, config: DataConfig, progress: Progress = None
) -> splits.Split:
    """As `layouts.read_extra`, without bad images if `config`, a `data`, skips them."""
    extra = hosts.together(lambda: layouts.read_extra(folder))
    return skipping.skip_bad(extra, config, "--gallery-extra", progress)


def fingerprint(dataset: splits.Dataset) -> dict[str, int | str]:
    """A fingerprint of the training images, computed without reading them.

    Returns:
        `count`, N, and `sha256` of the files' names below `Dataset.folder`, sizes and labels, in
        order. It does not depend on the place of that folder.
    """
    digest = hashlib.sha256()
    for path, label in zip(dataset.train.paths, dataset.train.labels, strict=True):
        name = os.fsencode(os.path.relpath(path, dataset.folder or "."))
        digest.update(b"%b\0%d\0%d\0" % (name, _size(path), label))
    return {"count": len(dataset.train), "sha256": digest.hexdigest()}


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:  # The loader reports unreadable files.
        return -1
