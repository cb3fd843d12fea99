"""The pictures of the documentation, drawn small from two runs with random weights."""

import json

import numpy as np
import pytest
from PIL import Image

from docs import pictures
from reid_jax.data import datasets
from tests import random_runs

pytest.importorskip("sybil", reason="the extra `docs` is not installed")

pytestmark = pytest.mark.extras


@pytest.fixture(scope="module")
def workdirs(tmp_path_factory):
    """Runs of PMM and of HBFP-Net on a few pedestrians, that of PMM with metrics."""
    folder = tmp_path_factory.mktemp("pictures")

    def change(config):
        config.data.root = str(folder / "pedestrians")
        config.data.loader = "memory"
        config.devices = 1

    for name in ("pmm", "hbfp"):
        config, *_ = random_runs.write(
            folder / name, f"{name}_synthetic", change=change, num_classes=8
        )
    datasets.load(config.data)
    records = [{"step": s, "loss": 3.0 - s, "lr": 0.1, "mAP": 0.1 * s} for s in (1, 2)]
    lines = [json.dumps(record) for record in records]
    (folder / "pmm" / "metrics.jsonl").write_text("\n".join(lines))
    return folder


@pytest.mark.slow
def test_every_picture_is_drawn(workdirs, tmp_path):
    written = pictures.draw(workdirs / "pmm", workdirs / "hbfp", tmp_path)
    names = {path.name for path in written}
    expected = {path.name for path in (pictures.ROOT / "docs" / "images").iterdir()}
    assert names == (expected if pictures.browser() else expected - {"report.jpg"})
    for path in written:
        with Image.open(path) as image:
            assert 600 < image.width <= 1350
            assert np.asarray(image.convert("L")).std() > 5  # The picture is not empty.


def test_queries_whose_stages_differ_are_chosen():
    cams = np.ones((5, 2, 2, 2), np.float32)
    cams[1] = [[[1, 0], [0, 0]], [[0, 0], [0, 1]]]  # no place in common
    cams[2] = [[[1, 1], [0, 0]], [[0, 1], [0, 0]]]  # one place in common
    cams[3] = cams[1]  # of the same identity as 1
    cams[4] = 0  # no evidence
    pids = np.array([7, 8, 9, 8, 10])
    np.testing.assert_array_equal(pictures.most_different(cams, pids, 2), [1, 2])
    np.testing.assert_array_equal(pictures.most_different(cams, pids, 3), [0, 1, 2])
