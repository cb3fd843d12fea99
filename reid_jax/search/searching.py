"""The search itself: describes images, finds the nearest, prints and draws them."""

import argparse
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from reid_jax import inference, visualize
from reid_jax.data import decoding, layouts
from reid_jax.data.identities import DISTRACTOR, JUNK
from reid_jax.gallery import Gallery, Hits
from reid_jax.runtime.messages import printable, say, shown

# What the picture shows at most: a page or two that can be read.
_DRAWN_QUERIES = 20
_DRAWN_HITS = 10

# Colour of images that are no longer there.
_MISSING = 225

# The number of an identity that the gallery does not have: no image's.
_ABSENT = -2


class Labels:
    """Which identities and cameras file names show, and the numbers a gallery has for them.

    Attributes:
        texts: (identity, camera) of each gallery image.
        pids: int64 (N,), numbers of the gallery's identities.
        camids: int64 (N,), of its cameras.
    """

    def __init__(self, paths: Sequence[str], read: Callable[[Sequence[str]], list], least: int):
        """Numbers what the names of gallery images show.

        Args:
            paths: N of them.
            read: from paths to (identity, camera) texts, None where a name shows none.
            least: number of an identity or a camera; where texts are such numbers they stay, others
                are counted from 1.

        Raises:
            ValueError: a name shows none.
        """
        self._read = read
        self.texts = read(paths)
        for path, who in zip(paths, self.texts, strict=True):
            if who is None:
                raise ValueError(
                    f"no identity and camera in the name of {shown(path)}: is --layout or "
                    "--pattern another?"
                )
        self._numbers = [_numbering({who[field] for who in self.texts}, least) for field in (0, 1)]
        self.pids, self.camids = self._numbered(self.texts)

    def of(self, paths: Sequence[str]) -> tuple[list, np.ndarray, np.ndarray]:
        """The same of queries: texts or None, and numbers, 0 where the name shows none."""
        texts = self._read(paths)
        return texts, *self._numbered(texts)

    def number(self, text: str, field: int, option: str) -> int:
        """Of an identity (field 0) or a camera (1) that an option names.

        Raises:
            ValueError: no image of the gallery has it.
        """
        known = self._numbers[field]
        key = text if text in known else text.lstrip("0")  # As 0002 in names of Market-1501.
        if key not in known:
            few = ", ".join(map(repr, sorted(known, key=known.__getitem__)[:10]))
            more = ", ..." if len(known) > 10 else ""
            raise ValueError(f"{option} {text!r}: the gallery has none; it has {few}{more}")
        return known[key]

    def _numbered(self, texts) -> tuple[np.ndarray, np.ndarray]:
        pids, camids = (
            np.array([numbers.get(who[field], _ABSENT) if who else 0 for who in texts], np.int64)
            for field, numbers in enumerate(self._numbers)
        )
        return pids, camids


def _numbering(texts: set[str], least: int) -> dict[str, int]:
    """Numbers of texts: their own where all are numbers from `least` on, else from 1 on."""
    if all(re.fullmatch(r"-?[0-9]{1,9}", text) for text in texts):
        numbers = {text: int(text) for text in texts}
        if all(str(n) == text and n >= least for text, n in numbers.items()):
            return numbers
    return {text: number for number, text in enumerate(sorted(texts), start=1)}


def search(options: argparse.Namespace) -> Hits:
    """Carries out a command line, see `reid_jax.cli.search`.

    Raises:
        FileNotFoundError, OSError, ValueError: a run, folder, file or image is missing or damaged,
            or options do not go together; named.
    """
    read = _reader(options)
    _check_writable(options)
    model = inference.load(options.workdir, options.checkpoint)
    say(f"{model.config.model.name}, step {model.step} of {shown(options.workdir)}")
    limit = _limit(options, model)
    queries = model.embed(options.query)
    gallery = _gallery(options, model)
    labels = None
    if read:
        numbered = options.layout not in (None, "folder")
        labels = Labels(gallery.names, read, JUNK if numbered else 1)
        gallery.label(pids=labels.pids, camids=labels.camids)
    if options.save_gallery:
        gallery.save(options.save_gallery)
        say(f"saved the gallery as {shown(options.save_gallery)}")
    filters, (whom, pids) = _filters(options, labels)
    hits = gallery.search(queries, options.top, **filters)
    if limit is not None:
        hits = hits.within(limit)
    for query, who, *found in zip(
        options.query, whom, hits.indices, hits.distances, hits.names, strict=True
    ):
        say(f"\n{shown(query)}{_described(who)}\n{_table(labels, limit, *found)}")
    _draw(options, model.config.data.image_size, pids, hits)
    return hits


def _limit(options: argparse.Namespace, model: inference.Model) -> float | None:
    """The distance beyond which images are left out, by --max-distance or --fpr, and reports it."""
    if options.fpr is None:
        return options.max_distance
    limit = model.threshold(options.fpr)
    say(f"false positive rate {options.fpr:g}: images within distance {limit:.4f}")
    return limit


def _reader(options: argparse.Namespace) -> Callable[[Sequence[str]], list] | None:
    """From paths to what their names show, by --layout or --pattern; None without either."""
    if options.layout is None and options.pattern is None:
        asked = ("camera", "not_camera", "identity", "other_cameras")
        for option in asked:
            if getattr(options, option):
                raise ValueError(
                    f"--{option.replace('_', '-')} needs --layout or --pattern, by which file "
                    "names show identities and cameras"
                )
        return None

    def read(paths: Sequence[str]) -> list:
        return layouts.read_names(paths, options.layout, options.pattern, "--pattern")

    read([])  # A bad pattern is told at once.
    return read


def _check_writable(options: argparse.Namespace) -> None:
    """Raises OSError where what is to be written cannot be, before images are described."""
    for option in ("output", "save_gallery"):
        path = getattr(options, option)
        if path is None:
            continue
        label = f"--{option.replace('_', '-')}"
        if path.is_dir():
            raise IsADirectoryError(f"{label} {shown(path)} is a folder: name a file in it")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path.parent):
                pass
        except OSError as error:
            raise OSError(f"cannot write {label} {shown(path)}: {error.strerror}") from error


def _gallery(options: argparse.Namespace, model: inference.Model) -> Gallery:
    """The gallery of a file, or of a folder's images, described now."""
    origin = _origin(model)
    path = options.gallery
    if os.path.isfile(path):
        gallery = Gallery.load(path)
        if gallery.origin not in ("", origin) or (len(gallery) and gallery.dim != model.dim):
            raise ValueError(
                f"the descriptors in {shown(path)} are of another network ({gallery.origin!r}, "
                f"{gallery.dim} numbers) than that of {shown(options.workdir)} ({origin!r}, "
                f"{model.dim} numbers): name the folder of its images, to describe them again"
            )
        say(f"{len(gallery):,} images in {shown(path)}")
        return gallery
    paths = layouts.find_images(path, "--gallery")
    say(f"describing {len(paths):,} images in {shown(path)}")
    gallery = Gallery(origin)
    gallery.add(model.embed(paths, say), names=paths)
    return gallery


def _origin(model: inference.Model) -> str:
    """What tells a network's descriptors from another's."""
    config = model.config
    recipe = {name: leaf for name, leaf in config.model.items() if name != "pretrained"}
    recipe |= {"image_size": list(config.data.image_size)}
    recipe |= {"flip": config.eval.flip, "normalize": config.eval.normalize}
    digest = hashlib.sha256(json.dumps(recipe, sort_keys=True, default=str).encode())
    for path, leaf in jax.tree_util.tree_leaves_with_path(model.variables):
        leaf = np.asarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {leaf.dtype} {leaf.shape}".encode())
        digest.update(np.ascontiguousarray(leaf).data)
    return f"{config.model.name}, step {model.step}, sha256 {digest.hexdigest()}"


def _filters(options: argparse.Namespace, labels: Labels | None) -> tuple[dict, tuple]:
    """Arguments of `Gallery.search`; and texts and numbers of the queries' identities."""
    count = len(options.query)
    if labels is None:
        return {}, ([None] * count, np.zeros(count, np.int64))
    whom, pids, camids = labels.of(options.query)
    filters: dict[str, Any] = {}
    for option, field, name in (
        ("identity", 0, "identities"),
        ("camera", 1, "cameras"),
        ("not_camera", 1, "not_cameras"),
    ):
        given = getattr(options, option)
        if given:
            label = f"--{option.replace('_', '-')}"
            filters[name] = [labels.number(text, field, label) for text in given]
    if options.other_cameras:
        for path, who in zip(options.query, whom, strict=True):
            if who is None:
                raise ValueError(f"--other-cameras: the name of {shown(path)} shows no camera")
        filters |= {"camids": camids, "own_camera": False}
    return filters, (whom, pids)


def _described(who: tuple[str, str] | None) -> str:
    return "" if who is None else f", identity {printable(who[0])}, camera {printable(who[1])}"


def _table(
    labels: Labels | None,
    limit: float | None,
    indices: np.ndarray,
    distances: np.ndarray,
    names: Sequence[str],
) -> str:
    """One query's hits, a line each."""
    rows = [["rank", "distance", "identity", "camera", "image"]]
    for rank, (i, distance, name) in enumerate(zip(indices, distances, names, strict=True), 1):
        if i >= 0:
            who = ("", "") if labels is None else map(printable, labels.texts[i])
            rows.append([str(rank), f"{distance:.4f}", *who, shown(name)])
    if len(rows) == 1 and limit is not None:
        return f"  nobody within distance {limit:.4f}"
    if len(rows) == 1:
        return "  no image of the gallery is left to be found"
    if labels is None:
        rows = [[row[0], row[1], row[4]] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)][:-1]
    return "\n".join(
        "  ".join(["", *(f"{text:>{w}}" for text, w in zip(row, widths, strict=False)), row[-1]])
        for row in rows
    )


def _draw(
    options: argparse.Namespace,
    size: tuple[int, int],
    pids: np.ndarray,
    hits: Hits,
) -> None:
    """Writes the ranked lists of the first queries, whose identities are `pids`, and says where."""
    length = min(options.top, _DRAWN_HITS)
    queries, pids = options.query[:_DRAWN_QUERIES], pids[:_DRAWN_QUERIES]
    found, distances, whom = (
        a[:_DRAWN_QUERIES, :length] for a in (hits.indices, hits.distances, hits.pids)
    )
    names = np.array([row[:length] for row in hits.names[:_DRAWN_QUERIES]], object)
    there = found >= 0
    pixels = _pixels([*queries, *names[there]], size)
    gallery_images = np.zeros((*found.shape, *size, 3), np.uint8)
    gallery_images[there] = pixels[len(queries) :]
    # Distractors and junk are nobody whom a match could show.
    known = ~np.isin(pids, (DISTRACTOR, JUNK))
    figure = visualize.ranked_list_figure(
        pixels[: len(queries)],
        gallery_images,
        whom == pids[:, None],
        distances=distances,
        captions=visualize.Names(
            [os.path.basename(query) for query in queries],
            [[os.path.basename(name) for name in row] for row in names],
        ),
        known=np.broadcast_to(known[:, None], found.shape),
        empty="nobody",
    )
    visualize.save(figure, options.output)
    few = len(options.query) > len(queries)
    of = f" of the first {len(queries)} queries" if few else ""
    say(f"\ndrew the nearest {length}{of} into {shown(options.output)}")


def _pixels(paths: Sequence[str], size: tuple[int, int]) -> np.ndarray:
    """Images for the picture, uint8 (N, H, W, 3): grey where one cannot be read, which is told."""
    pixels = np.full((len(paths), *size, 3), _MISSING, np.uint8)

    def keep(i, data, image):
        pixels[i] = np.asarray(decoding.resize(image, size))

    bad = decoding.visit(paths, keep)
    if bad:
        problems = [(paths[i], problem) for i, problem in bad]
        say(f"\n{len(bad):,} images cannot be drawn: {decoding.first_few(problems)}")
    return pixels
