"""Files from before the package was divided into layers can still be read.

`before_layers.zip` holds a workdir of two steps, made by commit 9972a5a on the images of
`pictures`, a gallery of the same network, and the values that that commit computed from both.
"""

import hashlib
import json
import pathlib
import zipfile

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from PIL import Image

import reid_jax
from reid_jax import models
from reid_jax.programs.evaluate import evaluate_run
from reid_jax.programs.train import train
from reid_jax.runs.checkpoints import Checkpoints
from reid_jax.runs.metrics import read_metrics
from reid_jax.runs.record import Record
from reid_jax.runs.workdir import CHECKPOINTS, read_run
from reid_jax.schedules import create_schedule
from reid_jax.training.optimizer import create_optimizer
from reid_jax.training.state import create_state

ARCHIVE = pathlib.Path(__file__).parent / "before_layers.zip"

pytestmark = pytest.mark.usefixtures("standard_promotion")


def pictures(root):
    """A few stripes in the layout `folder`: bitmaps, which all versions of Pillow write alike."""
    for folder, pids, cameras, count in (
        ("train", range(1, 5), (1, 2), 2),
        ("query", range(5, 7), (1,), 1),
        ("gallery", range(5, 7), (2, 3), 1),
    ):
        (root / folder).mkdir(parents=True)
        for pid, camera, n in ((p, c, n) for p in pids for c in cameras for n in range(count)):
            y, x, c = np.ogrid[:64, :32, :3]
            grey = pid * (3 * y + 7 * x + 40 * c) + 11 * camera * y + 5 * n * x
            image = Image.fromarray((grey % 251).astype(np.uint8))
            image.save(root / folder / f"{pid}_c{camera}_{n}.png", "BMP")


@pytest.fixture
def old(tmp_path):
    """The folder of `workdir`, `old.gallery` and `images`."""
    with zipfile.ZipFile(ARCHIVE) as archive:
        archive.extractall(tmp_path)
    pictures(tmp_path / "images")
    return tmp_path


def expected(old):
    return json.loads((old / "expected.json").read_text())


def recipe(old):
    config, num_classes = read_run(old / "workdir")
    config.data.root = str(old / "images")
    return config, num_classes


def digest(trees):
    """SHA-256 over the leaves of trees by their names, computed in the same way as for the
    files."""
    arrays = {}
    for tree in trees:
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            arrays[jax.tree_util.keystr(path, simple=True, separator="/")] = np.asarray(leaf)
    sha256 = hashlib.sha256()
    for name in sorted(arrays):
        leaf = arrays[name]
        shape = f"{name} {leaf.dtype} {list(leaf.shape)}"
        sha256.update(shape.encode() + np.ascontiguousarray(leaf).tobytes())
    return len(arrays), sha256.hexdigest()


def test_a_state_is_restored_bit_for_bit(old):
    config, num_classes = recipe(old)
    optimizer = create_optimizer(config.optim, create_schedule(config.optim, 2))
    network = models.create(config.model, num_classes)
    state = create_state(network, optimizer, config.data.image_size, seed=7)
    with Record(old / "workdir", keep=1) as record:
        restored = record.restore(state)
    assert restored.step == 2
    items = [
        {"params": restored.params, "batch_stats": restored.batch_stats},
        {"opt_state": restored.opt_state, "step": restored.step},
    ]
    want = expected(old)
    assert digest(items) == (want["leaves"], want["sha256"])
    assert digest(items[:1]) != (want["leaves"], want["sha256"])


def test_it_is_loaded_and_evaluated(old):
    model = reid_jax.load(old / "workdir", "best")
    assert model.step == 2
    paths = sorted((old / "images" / "gallery").iterdir())
    descriptors = model.embed(paths)
    np.testing.assert_allclose(descriptors, expected(old)["descriptors"], rtol=1e-4, atol=1e-6)
    gallery = reid_jax.Gallery.load(old / "old.gallery")
    assert gallery.origin == "before the layers"
    assert gallery.names == tuple(path.name for path in paths)
    assert (gallery.pids.tolist(), gallery.camids.tolist()) == ([5, 5, 6, 6], [2, 3, 2, 3])
    assert gallery.features.tolist() == expected(old)["descriptors"]

    config, _ = recipe(old)
    run = evaluate_run(config, str(old / "workdir"), checkpoint="2", output=str(old / "eval"))
    assert run.evaluation.result.mAP == pytest.approx(expected(old)["mAP"])
    assert json.loads((old / "eval" / "results.json").read_text())["step"] == 2


def test_it_goes_on(old):
    config, _ = recipe(old)
    config.max_steps = 4
    train(config, str(old / "workdir"))
    losses = [[r["step"], r["loss"]] for r in read_metrics(old / "workdir") if "loss" in r]
    np.testing.assert_allclose(losses, expected(old)["losses"], rtol=1e-3)
    with Checkpoints(old / "workdir" / CHECKPOINTS) as checkpoints:
        assert checkpoints.latest_step == 4
        ocp.StandardCheckpointer().restore(checkpoints.path(4) / "model")
