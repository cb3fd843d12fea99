"""The search: describes images, finds the nearest, prints and draws them."""

import argparse
import hashlib
import json
import os
import pathlib
import re
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from reid_jax import inference, visualize
from reid_jax.data import decoding, image_files, layouts
from reid_jax.data.identities import DISTRACTOR, JUNK
from reid_jax.gallery import Gallery, Hits
from reid_jax.gallery_hits import write_rows
from reid_jax.runtime.files import local_path
from reid_jax.runtime.messages import counted, printable, say, shown

# Limits of the picture: a page or two that can be read.
_DRAWN_QUERIES = 20
_DRAWN_HITS = 10

# Colour of images that no longer exist.
_MISSING = 225

# The number of an identity that the gallery does not have; no image has this number.
_ABSENT = -2


class Labels:
    """Identities and cameras in file names, and their numbers in a gallery.

    Attributes:
        texts: (identity, camera) of each gallery image.
        pids: int64 (N,), numbers of the gallery's identities.
        camids: int64 (N,), numbers of the gallery's cameras.
    """

    def __init__(self, paths: Sequence[str], read: Callable[[Sequence[str]], list], least: int):
        """Number the identities and cameras in the names of gallery images.

        Args:
            paths: N paths.
            read: from paths to (identity, camera) texts, None for names without them.
            least: smallest number of an identity or a camera. If all texts are such numbers, they
                are kept; otherwise they are counted from 1.

        Raises:
            ValueError: a name shows no identity and camera.
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
        """The same for queries: texts or None, and numbers, 0 for names without them."""
        texts = self._read(paths)
        return texts, *self._numbered(texts)

    def number(self, text: str, field: int, option: str) -> int:
        """The number of an identity (field 0) or a camera (1) that an option names.

        Raises:
            ValueError: no image of the gallery has it.
        """
        known = self._numbers[field]
        key = text if text in known else text.lstrip("0")  # For 0002 in names of Market-1501.
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
    """Numbers of texts: their own if all are numbers of at least `least`, otherwise from 1 on."""
    if all(re.fullmatch(r"-?[0-9]{1,9}", text) for text in texts):
        numbers = {text: int(text) for text in texts}
        if all(str(n) == text and n >= least for text, n in numbers.items()):
            return numbers
    return {text: number for number, text in enumerate(sorted(texts), start=1)}


def search(options: argparse.Namespace) -> Hits:
    """Run a command line, see `reid_jax.cli.search`.

    Raises:
        FileNotFoundError, OSError, ValueError: a run, folder, file or image is missing or damaged,
            or options contradict each other. The message names it.
    """
    options = _with_local_paths(options)
    read = _reader(options)
    _check_there(options)
    _check_writable(options)
    model = inference.load(options.workdir, options.checkpoint)
    say(f"{model.config.model.name}, step {model.step} of {shown(options.workdir)}")
    limit = _limit(options, model)
    queries = model.embed(options.query)
    gallery = _gallery(options, model)
    labels = None
    if read:
        labels = Labels(gallery.names, read, layouts.least_identity(options.layout))
        gallery.label(pids=labels.pids, camids=labels.camids)
    if options.save_gallery is not None:
        gallery.save(options.save_gallery)
        say(f"saved the gallery as {shown(options.save_gallery)}")
    filters, (whom, pids) = _filters(options, labels)
    hits = gallery.search(queries, options.top, rerank=options.rerank, **filters)
    if limit is not None:
        hits = hits.within(limit)
    drawn = _draw(options, model.config.data.image_size, pids, hits)
    if options.hits is not None:
        write_rows(options.hits, _rows(options, labels, hits))
        drawn += f"\nsaved the matches as {shown(options.hits)}"
    for query, who, *found in zip(
        options.query, whom, hits.indices, hits.distances, hits.names, strict=True
    ):
        say(f"\n{shown(query)}{_described(who)}\n{_table(labels, limit, *found)}")
    say(f"\n{drawn}")
    return hits


def _limit(options: argparse.Namespace, model: inference.Model) -> float | None:
    """The distance of --max-distance or --fpr, beyond which images are left out; None without."""
    if options.fpr is None:
        return options.max_distance
    limit = model.threshold(options.fpr)
    say(f"false positive rate {options.fpr:g}: images within distance {limit:.4f}")
    return limit


def _with_local_paths(options: argparse.Namespace) -> argparse.Namespace:
    """The options with paths as `local_path` gives them; raises ValueError likewise."""
    paths: dict[str, Any] = {"query": [local_path(query, "--query") for query in options.query]}
    for option in ("workdir", "gallery", "output", "save_gallery", "hits"):
        if getattr(options, option) is not None:
            label = f"--{option.replace('_', '-')}"
            paths[option] = local_path(getattr(options, option), label)
    return argparse.Namespace(**vars(options) | paths)


def _reader(options: argparse.Namespace) -> Callable[[Sequence[str]], list] | None:
    """A function from paths to identities and cameras, by --layout or --pattern; otherwise None."""
    if options.layout is None and options.pattern is None:
        asked = ("camera", "not_camera", "identity", "other_cameras")
        for option in asked:
            if getattr(options, option):
                raise ValueError(
                    f"--{option.replace('_', '-')} needs --layout or --pattern, which define how "
                    "file names show identities and cameras"
                )
        return None

    def read(paths: Sequence[str]) -> list:
        return layouts.read_names(paths, options.layout, options.pattern, "--pattern")

    read([])  # Report a bad pattern at once.
    return read


def _check_there(options: argparse.Namespace) -> None:
    """Raise one FileNotFoundError for all files and folders that are missing."""
    named = [(options.gallery, "folder or file", "--gallery")]
    named += [(query, "file", "--query") for query in options.query]
    missing = [item for item in named if not os.path.lexists(item[0])]
    if missing:
        few = [f"no {what} {shown(path)} ({option})" for path, what, option in missing[:4]]
        raise FileNotFoundError("; ".join(few) + ("; ..." if len(missing) > 4 else ""))


def _check_writable(options: argparse.Namespace) -> None:
    """Raise OSError if the results cannot be written, before images are described."""
    for option in ("output", "save_gallery", "hits"):
        if getattr(options, option) is None:
            continue
        path = pathlib.Path(getattr(options, option))
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
    """The gallery of a file, or of a folder's images, which are described now."""
    origin = _origin(model)
    path = options.gallery
    if os.path.isfile(path):
        gallery = Gallery.load(path)
        if gallery.origin not in ("", origin) or (len(gallery) and gallery.dim != model.dim):
            raise ValueError(
                f"the descriptors in {shown(path)} are of another network ({gallery.origin!r}, "
                f"{counted(gallery.dim, 'number')}) than that of {shown(options.workdir)} "
                f"({origin!r}, {counted(model.dim, 'number')}): name the folder of its images, to "
                "describe them again"
            )
        say(f"{counted(len(gallery), 'image')} in {shown(path)}")
        return gallery
    paths = image_files.find_images(path, "--gallery")
    say(f"describing {counted(len(paths), 'image')} in {shown(path)}")
    gallery = Gallery(origin)
    gallery.add(model.embed(paths, say), names=paths)
    return gallery


def _origin(model: inference.Model) -> str:
    """A text that identifies the network of descriptors."""
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
    """Arguments of `Gallery.search`, and texts and numbers of the queries' identities."""
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


def _rows(options: argparse.Namespace, labels: Labels | None, hits: Hits) -> list[dict[str, Any]]:
    """The rows of --hits, with identities and cameras as file names show them."""
    rows = hits.rows(options.query)
    if labels is not None:
        for row, i in zip(rows, hits.indices[hits.indices >= 0].tolist(), strict=True):
            for field, text in zip(("pid", "camid"), labels.texts[i], strict=True):
                if str(row[field]) != text:  # The number was only counted.
                    row[field] = text
    return rows


def _described(who: tuple[str, str] | None) -> str:
    return "" if who is None else f", identity {printable(who[0])}, camera {printable(who[1])}"


def _table(
    labels: Labels | None,
    limit: float | None,
    indices: np.ndarray,
    distances: np.ndarray,
    names: Sequence[str],
) -> str:
    """One query's hits, one per line."""
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
) -> str:
    """Draw the ranked lists of the first queries, whose identities are `pids`; return a line."""
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
    # Distractors and junk are not people whom a match could show.
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
    return f"drew the nearest {length}{of} into {shown(options.output)}"


def _pixels(paths: Sequence[str], size: tuple[int, int]) -> np.ndarray:
    """Images for the picture, uint8 (N, H, W, 3); unreadable ones are grey and reported."""
    pixels = np.full((len(paths), *size, 3), _MISSING, np.uint8)

    def keep(i, data, image):
        pixels[i] = np.asarray(decoding.resize(image, size))

    bad = decoding.visit(paths, keep)
    if bad:
        problems = [(paths[i], problem) for i, problem in bad]
        say(f"\n{counted(len(bad), 'image')} cannot be drawn: {decoding.first_few(problems)}")
    return pixels
