"""Typical calls of the package, for the type checker; the file is never run.

If a type of the public interface is lost, the type checker reports an error at `assert_type` in CI.
"""

from typing import assert_type

import numpy as np

import reid_jax
from reid_jax.gallery import Hits


def embed_and_search(paths: list[str], crop: np.ndarray) -> None:
    model = reid_jax.load("runs/pmm", "best", batch_size=8)
    assert_type(model, reid_jax.Model)
    assert_type(model.embed(paths), np.ndarray)
    assert_type(model.gradcam(crop), np.ndarray)

    gallery = reid_jax.Gallery()
    gallery.add(model.embed(paths), names=paths, pids=np.array([1, 2]), camids=[1, 2])
    gallery.add([0.5, 0.25], pids=3)
    hits = gallery.search(model.embed(crop), k=5, identities={1, 2}, cameras=range(3))
    assert_type(hits, Hits)
    assert_type(gallery.search(model.embed(crop), rerank=True, candidates=50), Hits)
    gallery.update(model.embed(paths), names=paths, camids=3)
    assert_type(gallery.remove(names=paths, not_cameras={1, 2}), int)
    hits.save("hits.csv", queries=paths)
    assert_type(hits.names, tuple[tuple[str, ...], ...])
    assert_type(reid_jax.Gallery.load("people.gallery"), reid_jax.Gallery)
    assert_type(reid_jax.__version__, str)
