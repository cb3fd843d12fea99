"""A small, quick evaluation with hostile names, and a parser of its report."""

import base64
import html.parser
import itertools
import json
import os

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from reid_jax.data.splits import Dataset, Split
from reid_jax.evaluation.descriptor_sets import Descriptors
from reid_jax.evaluation.ranking import evaluate_ranking
from reid_jax.evaluation.verification import evaluate_verification
from reid_jax.report import write_report

# Parts of file names with a meaning in HTML, scripts, JSON, terminals or UTF-8.
NAMES = (
    "<script>hacked=1</script>.jpg",
    "</script><img src=x onerror=hacked=1>.jpg",
    "\"quoted\" 'twice' `${hacked=1}` &amp; {{js}}.jpg",
    "line\nend \x1b[31m \u2028 \u202e.jpg",
    os.fsdecode(b"no text \xff\xed\xa0\x80.jpg"),
    "Ærlig 女 ✓.jpg",
)
ROOT = "/data/<b>&'\"people"
SIZE = (48, 24)
DTYPES = {"pids": "<i4", "camids": "<i4", "found": "<i4", "distances": "<f4", "precision": "<f4"}
DTYPES |= {"ranks": "<i4", "rank_starts": "<i4", "hardest": "<i4", "maps": "u1", "palette": "u1"}
DTYPES |= {"starts": "<i4", "missed": "<i4", "missed_distances": "<f4"}


class Looks(nn.Module):
    """Two stages: one looks at red, the other at blue."""

    classifies = True
    stage_names = ("Stage I", "Stage II")

    def gradcams(self, images: jax.Array) -> jax.Array:
        cells = images.reshape(-1, 6, 8, 3, 8, 3).mean(axis=(2, 4))
        return jnp.maximum(jnp.moveaxis(cells[..., ::2], -1, 1), 0.0)


class Blind(nn.Module):
    """A network without Grad-CAM."""

    classifies = False
    stage_names = ()


# What people and cameras may be called, by pid and camid.
CALLED = {
    "identity_names": {1: "gina", 2: "<b>hugo", 4: "0007"},
    "camera_names": {1: "lobby", 2: "yard\n"},
}


class Evaluation:
    """An evaluation for `write_report`. Query 3 has no match; gallery image 2 is a distractor.

    It is its own `evaluator`, with the attributes of `Evaluator` that reports use.
    """

    variables, rescore = {}, None
    batch_size, block_size = 12, 64  # 10 images, rounded up for four devices

    def __init__(self, queries=24, gallery=40, seed=0, **called):
        self.evaluator, self.network, self.devices = self, Looks(), jax.devices()[:4]
        rng = np.random.default_rng(seed)
        self.query, paths = self._descriptors(rng, queries, "query")
        self.query.pids[3] = 99
        self.gallery, self.gallery_paths = self._descriptors(rng, gallery, "gallery")
        self.gallery.pids[2] = 0
        query_split = Split(tuple(paths), self.query.pids, self.query.camids)
        nobody = Split((), self.query.pids[:0], self.query.camids[:0])
        self.dataset = Dataset(
            nobody, query_split, nobody, "folder", ROOT, ("t", "q", "g"), **called
        )
        self.pixels = {
            "query": rng.integers(0, 256, (queries, *SIZE, 3), np.uint8),
            "gallery": rng.integers(0, 256, (gallery, *SIZE, 3), np.uint8),
        }
        self.pixels["query"][..., 1] = 40
        self.result = evaluate_ranking(self.query, self.gallery)
        self.verification = evaluate_verification(self.query, self.gallery)
        self.read = []  # the number of images in each read

    @staticmethod
    def _descriptors(rng, count, folder):
        pids, camids = rng.integers(1, 7, count), rng.integers(1, 4, count)
        centres = np.random.default_rng(7).normal(size=(100, 8))
        features = centres[pids] + rng.normal(scale=1.1, size=(count, 8))
        names = [
            NAMES[i] if i < len(NAMES) else f"{pids[i]}_c{camids[i]}.jpg" for i in range(count)
        ]
        paths = [f"{ROOT}/{folder}/{i}_{name}" for i, name in enumerate(names)]
        return Descriptors(features.astype(np.float32), pids, camids), paths

    def query_pixels(self, indices):
        self.read.append(len(indices))
        return self.pixels["query"][indices]

    def gallery_pixels(self, indices):
        self.read.append(len(indices))
        return self.pixels["gallery"][indices]

    def round_up(self, count):
        return -(-count // 4) * 4

    def write(self, folder, network=None, *, facts=None, said=None, **options):
        """Write a report of it, by default with Grad-CAM over four devices."""
        self.network = network or Looks()
        return write_report(
            folder,
            self,
            **({"facts": facts or {"Run": "<i>run</i>"}, "curves": {}} | options),
            progress=None if said is None else said.append,
        )


class Page(html.parser.HTMLParser):
    """A page taken apart: its elements, its scripts, and the arrays in its data."""

    def __init__(self, path):
        super().__init__()
        self.text = path.read_text(encoding="utf-8")
        self.elements, self.inside = [], {}
        self._open = None
        self.feed(self.text)
        self.close()
        self.data = self._arrays(json.loads(self.inside["data"]))
        self.thumbnails = []
        if self.data["starts"] is not None:
            starts = self.data["starts"]
            encoded = [self.inside["thumbnails"][a:b] for a, b in itertools.pairwise(starts)]
            self.thumbnails = [base64.b64decode(text) for text in encoded]

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag in ("script", "style", "title"):
            self._open = dict(attributes).get("id", tag)
            self.inside[self._open] = ""

    def handle_endtag(self, tag):
        self._open = None

    def handle_data(self, data):
        if self._open:
            self.inside[self._open] += data

    def _arrays(self, value):
        return {
            key: self._arrays(item)
            if isinstance(item, dict)
            else np.frombuffer(base64.b64decode(item), DTYPES[key])
            if key in DTYPES and item is not None
            else item
            for key, item in value.items()
        }
