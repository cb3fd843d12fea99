import hashlib

import numpy as np

from reid_jax.data import synthetic
from reid_jax.data.synthetic.solids import Canvas

TINY = dict(
    train_identities=3,
    test_identities=3,
    train_cameras=2,
    test_cameras=3,
    images_per_camera=3,
    distractors=4,
    junk=3,
)


def write(root, progress=None, **arguments):
    synthetic.write_market1501(root, synthetic.Contents(**{**TINY, **arguments}), progress)


def digests(root):
    return {
        str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(root.rglob("*"))
        if p.is_file()
    }


def blank(light=(0.0, 0.0, 1.0), ambient=1.0, shape=(128, 96)):
    return Canvas(
        np.zeros((*shape, 3), np.float32),
        np.full(shape, -np.inf, np.float32),
        np.float32(light),
        ambient,
    )
