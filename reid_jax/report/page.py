"""The page of a report: one HTML file that a browser opens from disk and that fetches nothing.

File and folder names come from others, so they enter as text: escaped in the markup, and in JSON
without `<`, `>` or `&`, from which the page's script makes text and attributes, never markup. A
policy in the page forbids network access, and all scripts and styles except the page's own.
"""

import base64
import hashlib
import html
import importlib.resources
import json
import re
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np

from reid_jax.report.content import Images, Lists, Summary, hardest_first

# Little-endian, as the page's script expects.
_INT, _FLOAT = np.dtype("<i4"), np.dtype("<f4")


def build(
    summary: Summary,
    lists: Lists,
    thumbnails: Sequence[bytes] | str,
    *,
    ratio: float,
    gallery_size: int,
) -> str:
    """Build the page.

    Args:
        summary: the head of the page.
        lists: Q queries and T gallery images.
        thumbnails: WebP files of the Q queries and then the T gallery images, to embed in the page;
            or the folder that holds them at the paths of `image_path`, relative to the page.
        ratio: width divided by height of an image as it is shown.
        gallery_size: number of images in the whole gallery.

    Returns:
        The text of the HTML file.

    Raises:
        ValueError: the numbers of thumbnails and images differ.
    """
    embedded = not isinstance(thumbnails, str)
    images = len(lists.query.names) + len(lists.gallery.names)
    if embedded and len(thumbnails) != images:
        raise ValueError(f"{len(thumbnails)} thumbnails do not match {images} images")
    texts = [] if isinstance(thumbnails, str) else [_base64(file) for file in thumbnails]
    data = {
        "ratio": ratio,
        "gallery_size": gallery_size,
        "query": _images(lists.query),
        "gallery": _images(lists.gallery),
        "identities": dict(lists.identities),
        "cameras": dict(lists.cameras),
        "length": lists.found.shape[1],
        "found": _array(lists.found, _INT),
        "distances": _array(lists.distances, _FLOAT),
        "missed": _array(lists.missed, _INT),
        "missed_distances": _array(lists.missed_distances, _FLOAT),
        "precision": _array(lists.average_precision, _FLOAT),
        "ranks": _array(np.concatenate(lists.ranks), _INT),
        "rank_starts": _array(_starts(lists.ranks), _INT),
        "hardest": _array(hardest_first(lists.average_precision), _INT),
        "stages": list(lists.stages),
        "map_size": lists.maps.shape[2:],
        "maps": _array(lists.maps, np.dtype(np.uint8)),
        "palette": _array(_palette(), np.dtype(np.uint8)),
        "starts": _array(_starts(texts), _INT) if embedded else None,
        "folder": None if embedded else thumbnails,
    }
    css, script = _file("page.css"), _file("page.js")
    parts = {
        "policy": _policy(css, script, embedded),
        "title": html.escape(summary.title),
        "css": css,
        "facts": "".join(
            f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(text)}</dd></div>"
            for name, text in summary.facts
        ),
        "scores": _score_table(summary.scores),
        "charts": "".join(_chart(*chart) for chart in summary.charts),
        "data": _json(data),
        "thumbnails": "".join(texts),
        "js": script,
    }
    # In one pass, so that inserted texts are not searched for places again.
    return re.sub(r"\{\{(\w+)\}\}", lambda place: parts[place[1]], _file("page.html"))


def image_path(i: int) -> str:
    """The path of the i-th thumbnail below its folder, with a thousand files per subfolder."""
    return f"{i // 1000}/{i}.webp"


def _score_table(scores: Mapping[str, Mapping[str, float]]) -> str:
    """The head and the rows of the table of scores."""
    names = "".join(
        f'<th scope="col">{html.escape(name)}</th>' for name in next(iter(scores.values()), {})
    )
    rows = ""
    for dataset, values in scores.items():
        title = f'<th scope="row">{html.escape(dataset)}</th>' if len(scores) > 1 else ""
        cells = "".join(f"<td>{value:.1f}<small>%</small></td>" for value in values.values())
        rows += f"<tr>{title}{cells}</tr>"
    corner = "<td></td>" if len(scores) > 1 else ""
    return f"<thead><tr>{corner}{names}</tr></thead>\n    <tbody>{rows}</tbody>"


def _chart(heading: str, svg: str) -> str:
    label = html.escape(heading)
    return f'<figure class="chart" role="img" aria-label="{label}">{svg}</figure>'


def _policy(css: str, script: str, embedded: bool) -> str:
    """Content-Security-Policy that allows only this page's own style, script and images."""
    images = "data:" if embedded else "'self' file:"
    return "; ".join(
        [
            "default-src 'none'",
            f"img-src {images}",
            f"style-src '{_digest(css)}'",
            f"script-src '{_digest(script)}'",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )


def _digest(text: str) -> str:
    return "sha256-" + _base64(hashlib.sha256(text.encode()).digest())


def _json(value: object) -> str:
    """ASCII JSON that cannot begin or end an element, a comment or an entity."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _images(images: Images) -> dict[str, object]:
    return {
        "names": list(images.names),
        "pids": _array(images.pids, _INT),
        "camids": _array(images.camids, _INT),
    }


def _array(values: np.ndarray, dtype: np.dtype) -> str:
    return _base64(np.ascontiguousarray(values, dtype).tobytes())


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _starts(items: Sequence) -> np.ndarray:
    """The start of each item in their concatenation, and the end of the last one."""
    return np.concatenate([[0], np.cumsum([len(item) for item in items], dtype=np.int64)])


def _palette() -> np.ndarray:
    """The 256 colours of maps, uint8 (256, 3), as in `visualize.overlay`."""
    return np.round(255 * mpl.colormaps["turbo"](np.arange(256))[:, :3]).astype(np.uint8)


def _file(name: str) -> str:
    return importlib.resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
