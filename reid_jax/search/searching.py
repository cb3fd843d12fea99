"""The search: describes images, finds the nearest, prints and draws them."""

import argparse
import hashlib
import json
import os
import pathlib
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
from reid_jax.gallery_milvus import MilvusGallery
from reid_jax.gallery_milvus_connection import without_password
from reid_jax.runtime.files import local_path
from reid_jax.runtime.messages import counted, printable, say, shown
from reid_jax.search.labels import Labels, StoredLabels

# Limits of the picture: a page or two that can be read.
_DRAWN_QUERIES = 20
_DRAWN_HITS = 10

# Options that name files to write.
_RESULTS = ("output", "save_gallery", "hits")

# What --gallery begins with for a Milvus database, and separates its address from the collection.
_MILVUS, _COLLECTION = "milvus:", "#"

# Colour of images that no longer exist.
_MISSING = 225


def search(options: argparse.Namespace) -> Hits:
    """Run a command line, see `reid_jax.cli.search`.

    Raises:
        FileNotFoundError, OSError, ValueError: a run, folder, file or image is missing or damaged,
            or options contradict each other. The message names it.
    """
    options = _with_local_paths(options)
    read = _reader(options)
    if _milvus(options) and options.save_gallery is not None:
        raise ValueError(
            "--save-gallery saves the descriptors of a folder, and --gallery is a Milvus database"
        )
    _check_there(options)
    _check_replaced(options, options.query, "a query")
    _check_writable(options)
    model = inference.load(options.workdir, options.checkpoint)
    say(f"{model.config.model.name}, step {model.step} of {shown(options.workdir)}")
    limit = _limit(options, model)
    gallery, paths = _gallery(options, model)
    if isinstance(gallery, Gallery):
        _check_replaced(options, paths or gallery.names, "an image of the gallery")
    # Names and options are checked before images are described, which may take hours.
    labels: Labels | StoredLabels | None = None
    if isinstance(gallery, MilvusGallery):
        labels = StoredLabels(read)
    elif read:
        labels = Labels(paths or gallery.names, read, options.layout)
    filters, (whom, pids) = _filters(options, labels)
    queries = model.embed(options.query)
    if paths:
        say(f"describing {counted(len(paths), 'image')} in {shown(options.gallery)}")
        gallery.add(model.embed(paths, say), names=paths)
    if isinstance(labels, Labels):
        gallery.label(pids=labels.pids, camids=labels.camids)
    if options.save_gallery is not None and isinstance(gallery, Gallery):
        gallery.save(options.save_gallery)
        say(f"saved the gallery as {shown(options.save_gallery)}")
    top = max(1, min(options.top, len(gallery)))  # `Gallery.search` fills rows up to any length.
    hits = gallery.search(queries, top, rerank=options.rerank, **filters)
    if limit is not None:
        hits = hits.within(limit)
    if isinstance(labels, StoredLabels):
        labels.keep(hits)
    if isinstance(gallery, MilvusGallery):
        gallery.close()
    try:
        drawn = _draw(options, model.config.data.image_size, pids, hits)
        if options.hits is not None:
            write_rows(options.hits, _rows(options, labels, hits))
            drawn += f"\nsaved the matches as {shown(options.hits)}"
    finally:  # A full disk must not cost the result.
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
    for option in ("workdir", "gallery", *_RESULTS):
        if getattr(options, option) is not None and not (option == "gallery" and _milvus(options)):
            label = f"--{option.replace('_', '-')}"
            paths[option] = local_path(getattr(options, option), label)
    return argparse.Namespace(**vars(options) | paths)


def _milvus(options: argparse.Namespace) -> bool:
    """Whether --gallery names a Milvus database."""
    return options.gallery.startswith(_MILVUS)


def _reader(options: argparse.Namespace) -> Callable[[Sequence[str]], list] | None:
    """A function from paths to identities and cameras, by --layout or --pattern; otherwise None."""
    if options.layout is None and options.pattern is None:
        # A Milvus gallery has identities and cameras of its own, but its queries do not.
        own = () if _milvus(options) else ("camera", "not_camera", "identity")
        for option in (*own, "other_cameras"):
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
    named = [] if _milvus(options) else [(options.gallery, "folder or file", "--gallery")]
    named += [(query, "file", "--query") for query in options.query]
    missing = [item for item in named if not os.path.lexists(item[0])]
    if missing:
        few = [f"no {what} {shown(path)} ({option})" for path, what, option in missing[:4]]
        raise FileNotFoundError("; ".join(few) + ("; ..." if len(missing) > 4 else ""))


def _check_replaced(options: argparse.Namespace, images: Sequence[str], what: str) -> None:
    """Raise ValueError if a result would replace an image or another file of the search.

    Args:
        options: see `search`.
        images: paths of images; some may not exist.
        what: one of them, for the error.
    """
    results: dict[str, str] = {}
    if os.path.isfile(options.gallery):
        results[os.path.realpath(options.gallery)] = "--gallery"
    for option in _RESULTS:
        path, label = getattr(options, option), f"--{option.replace('_', '-')}"
        if path is None:
            continue
        real, suffix = os.path.realpath(path), os.path.splitext(path)[1].lower()
        other = results.setdefault(real, label)
        # A gallery may be saved into its own file, which then has the labels too.
        if other != label and (option, other) != ("save_gallery", "--gallery"):
            raise ValueError(f"{label} {shown(path)} is also the file of {other}: name another")
        # Reading links takes long for many images, and few have the suffix of a result.
        alike = (name for name in images if name.lower().endswith(suffix))
        if os.path.exists(path) and any(
            os.path.exists(name) and os.path.realpath(name) == real for name in alike
        ):
            raise ValueError(f"{label} {shown(path)} is {what}: name another file")
        if image_files.is_found(path, options.gallery):
            raise ValueError(
                f"{label} {shown(path)} is in the folder {shown(options.gallery)} of --gallery, "
                "where the next search would find it: name a file in another folder"
            )


def _check_writable(options: argparse.Namespace) -> None:
    """Raise OSError if the results cannot be written, before images are described."""
    for option in _RESULTS:
        if getattr(options, option) is None:
            continue
        path = pathlib.Path(getattr(options, option))
        label = f"--{option.replace('_', '-')}"
        if path.is_dir():
            raise IsADirectoryError(f"{label} {shown(path)} is a folder: name a file in it")
        if option == "output" and path.suffix.lower() != ".png":
            raise ValueError(f"{label} {shown(path)} must end in .png")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path.parent):
                pass
        except OSError as error:
            raise OSError(f"cannot write {label} {shown(path)}: {error.strerror}") from error


def _gallery(
    options: argparse.Namespace, model: inference.Model
) -> tuple[Gallery | MilvusGallery, list[str]]:
    """The gallery of a file or a database; or an empty one, and the images of a folder for it."""
    origin = _origin(model)
    path = options.gallery
    if _milvus(options) or os.path.isfile(path):
        gallery, named = _opened(path), shown(without_password(path))
        if gallery.origin not in ("", origin) or (len(gallery) and gallery.dim != model.dim):
            raise ValueError(
                f"the descriptors in {named} are of another network ({gallery.origin!r}, "
                f"{counted(gallery.dim, 'number')}) than that of {shown(options.workdir)} "
                f"({origin!r}, {counted(model.dim, 'number')}): name the folder of its images, to "
                "describe them again"
            )
        say(f"{counted(len(gallery), 'image')} in {named}")
        return gallery, []
    return Gallery(origin), image_files.find_images(path, "--gallery")


def _opened(path: str) -> Gallery | MilvusGallery:
    """The gallery of a file, or of a Milvus database."""
    if not path.startswith(_MILVUS):
        return Gallery.load(path)
    uri, _, collection = path.removeprefix(_MILVUS).partition(_COLLECTION)
    if "://" not in uri and not os.path.exists(os.path.expanduser(uri)):
        raise FileNotFoundError(f"no Milvus database {shown(uri)} (--gallery)")
    gallery = MilvusGallery(uri, *([collection] if collection else []))
    if not gallery.dim:
        gallery.close()
        named = shown(without_password(path))
        raise ValueError(f"--gallery {named} names no collection of images: write #NAME")
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


def _filters(
    options: argparse.Namespace, labels: Labels | StoredLabels | None
) -> tuple[dict, tuple]:
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


def _rows(
    options: argparse.Namespace, labels: Labels | StoredLabels | None, hits: Hits
) -> list[dict[str, Any]]:
    """The rows of --hits, with identities and cameras as file names show them.

    Identities are numbers if all of the gallery's can be, and otherwise texts; likewise cameras.
    """
    rows = hits.rows(options.query)
    if labels is not None:
        for row, i in zip(rows, hits.indices[hits.indices >= 0].tolist(), strict=True):
            for field, name in enumerate(("pid", "camid")):
                if labels.counted[field]:
                    row[name] = labels.texts[i][field]
    return rows


def _described(who: tuple[str, str] | None) -> str:
    return "" if who is None else f", identity {printable(who[0])}, camera {printable(who[1])}"


def _table(
    labels: Labels | StoredLabels | None,
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
    length = min(hits.indices.shape[1], _DRAWN_HITS)
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
