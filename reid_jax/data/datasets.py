"""The datasets that a recipe names."""

import contextlib
import dataclasses
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from reid_jax.choices import LAYOUTS, parse_dataset
from reid_jax.data import layouts, skipping, splits, synthetic
from reid_jax.recipe import DataConfig
from reid_jax.runtime import hosts
from reid_jax.runtime.files import local_path
from reid_jax.runtime.progress import Progress


class _Source(NamedTuple):
    """The place of a dataset, and its form."""

    layout: str
    root: str
    pattern: str | None = None
    folders: Sequence[str] | None = None


def load(config: DataConfig, progress: Progress = None, *, to_train: bool = True) -> splits.Dataset:
    """List the images of `config`, a recipe's `data`; draw synthetic pedestrians on first use.

    If `on_bad_image` is `skip`, bad images are omitted, and so are identities without good images.
    Other datasets, which `also` names, are left out; see `load_all`.

    Args:
        config: a recipe's `data`.
        progress: called with progress messages; None disables them.
        to_train: whether training images will be used. If not, the training split is empty and need
            not exist.

    Raises:
        FileNotFoundError, ValueError: as `layouts.read` and `skipping.skip_bad`, and if
          `data.root` is not set or is no local path.
    """
    (dataset,) = _load({"": _first(config)}, config, progress, to_train)
    return dataset


def load_all(
    config: DataConfig, progress: Progress = None, *, to_train: bool = True
) -> list[splits.Dataset]:
    """As `load`, for the dataset of `data.root` and then those of `data.also`, in their order.

    Each keeps the numbers of its identities and cameras. `unions.join` sets them apart.

    Raises:
        FileNotFoundError, ValueError: as `load`; for a dataset of `data.also`, the message names
          its entry. Also if two of them have the same folder.
    """
    others = hosts.together(lambda: _others(config))
    hosts.check_same("data.also", [source.layout for source in others.values()])
    return _load({"": _first(config), **others}, config, progress, to_train)


def _load(
    sources: Mapping[str, _Source], config: DataConfig, progress: Progress, to_train: bool
) -> list[splits.Dataset]:
    """Load datasets by their entries in `data.also`, which is "" for the first one.

    All are listed before images are decoded, which may take minutes.
    """
    datasets = {}
    for entry, source in sources.items():
        with _naming(entry):
            datasets[entry] = _list(source, to_train)
    for entry, dataset in datasets.items():
        with _naming(entry):
            datasets[entry] = _without_bad(dataset, config, progress, to_train)
    return list(datasets.values())


def _list(source: _Source, to_train: bool) -> splits.Dataset:
    dataset = hosts.together(lambda: layouts.read(**source._asdict(), to_train=to_train))
    every = [dataset.train, dataset.query, dataset.gallery]
    hosts.check_same("number of images", [len(split) for split in every])
    return dataset


def _without_bad(
    dataset: splits.Dataset, config: DataConfig, progress: Progress, to_train: bool
) -> splits.Dataset:
    names = {"train": "the training split", "query": "the query", "gallery": "the gallery"}
    kept: dict[str, Any] = {
        field: skipping.skip_bad(getattr(dataset, field), config, name, progress)
        for field, name in names.items()
        if len(getattr(dataset, field))
    }
    dataset = dataclasses.replace(dataset, **kept)
    if dataset.skipped:
        layouts.check(dataset, to_train=to_train)
    return dataset


def _first(config: DataConfig) -> _Source:
    """The dataset of `data.root`. Synthetic pedestrians are drawn if they do not exist."""
    root = _root(config)
    if config.layout == "synthetic":
        hosts.from_first(lambda: _draw(config, root))
        # For hosts that do not see the first one's files.
        hosts.together(lambda: _draw(config, root))
    layout = "market1501" if config.layout == "synthetic" else config.layout
    return _Source(layout, root, config.pattern or None, config.folders or None)


def _root(config: DataConfig) -> str:
    if not config.root:
        raise ValueError("data.root is empty: set the dataset's folder, --config.data.root=FOLDER")
    return local_path(config.root, "data.root")


def _draw(config: DataConfig, root: str) -> None:
    synthetic.write_market1501(root, synthetic.Contents(**config.synthetic))


def _others(config: DataConfig) -> dict[str, _Source]:
    """The datasets of `data.also` by their entries. Checks that each is there, and named once."""
    seen = {os.path.realpath(_root(config)): "data.root"}
    found = {}
    for entry in config.also:
        named = parse_dataset(entry)
        if named is None:
            known = ", ".join(LAYOUTS)
            raise ValueError(f"data.also holds {entry!r}; it must be LAYOUT:ROOT, of {known}")
        layout, root = named[0], local_path(named[1], "data.also")
        is_there, what = (os.path.isfile, "file") if layout == "csv" else (os.path.isdir, "folder")
        if not is_there(root):
            raise FileNotFoundError(
                f"data.also names {entry!r}, but there is no {what} {root!r}: correct the entry, "
                "or leave it out (--config.data.also=() leaves out all)"
            )
        place = os.path.realpath(root)
        if place in seen:
            raise ValueError(
                f"data.also names {entry!r}, the same {what} as {seen[place]}: name each dataset "
                "once"
            )
        seen[place] = f"{entry!r} before it"
        found[entry] = _Source(layout, root)
    return found


@contextlib.contextmanager
def _naming(entry: str) -> Iterator[None]:
    """Name an entry of `data.also` in errors, if it is not empty."""
    try:
        yield
    except (FileNotFoundError, ValueError) as error:
        if not entry:
            raise
        kind = FileNotFoundError if isinstance(error, FileNotFoundError) else ValueError
        text = f"data.also names {entry!r}: {error}"
        if "data.folders" in text or "data.pattern" in text:
            text += "; data.folders and data.pattern apply to data.root only"
        raise kind(text) from None


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


def fingerprint(*datasets: splits.Dataset) -> dict[str, int | str]:
    """A fingerprint of the training images of one or several datasets, without reading them.

    Returns:
        `count`, N, and `sha256` of the files' names below `Dataset.folder`, sizes and labels, in
        order. It does not depend on the place of that folder.
    """
    digest = hashlib.sha256()
    for i, dataset in enumerate(datasets):
        if i:
            digest.update(b"\0\0")  # The next dataset begins.
        for path, label in zip(dataset.train.paths, dataset.train.labels, strict=True):
            name = os.fsencode(os.path.relpath(path, dataset.folder or "."))
            digest.update(b"%b\0%d\0%d\0" % (name, _size(path), label))
    count = sum(len(dataset.train) for dataset in datasets)
    return {"count": count, "sha256": digest.hexdigest()}


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:  # The loader reports unreadable files.
        return -1
