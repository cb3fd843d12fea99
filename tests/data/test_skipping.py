import numpy as np
import pytest

from reid_jax.configs import common
from reid_jax.data import datasets, skipping
from reid_jax.data.loaders import open_images
from reid_jax.data.splits import Split
from reid_jax.runtime.messages import shown
from tests.data.market import FOLDERS, recipe, spoil


def test_an_error_is_the_default(root):
    config = common.recipe().data
    assert config.on_bad_image == "error"
    config.root = str(root)
    (path,) = spoil(root / FOLDERS[0], "0001_c1s1_000000")
    dataset = datasets.load(config, pytest.fail)  # No image is decoded twice.
    assert dataset.skipped == ()
    assert path in dataset.train.paths
    advice = r"1 of 16 files .*is empty.*on_bad_image=skip"
    with pytest.raises(ValueError, match=advice) as caught, skipping.advised():
        open_images(dataset.train.paths, (6, 4), "memory")
    with pytest.raises(ValueError, match=r"is empty\)\. Replace or delete them$"):
        open_images([path], (6, 4), "memory")  # No program that has the setting.
    assert shown(path) in str(caught.value)


def test_bad_images_are_left_out_of_every_split(root):
    whole = datasets.load(recipe(root))
    assert whole.skipped == ()
    # An identity that loses all its images, and a part of another.
    bad = spoil(root / FOLDERS[0], "0003") + spoil(root / FOLDERS[1], "0004_c1s1_000001")
    bad += spoil(root / FOLDERS[2], "0006_c2s1_000001")
    lines = []
    dataset = datasets.load(recipe(root), lines.append)
    assert dataset.skipped == tuple((path, "is empty") for path in bad)
    assert len(dataset.train.skipped) == 4
    for field in ("train", "query", "gallery"):
        before, after = getattr(whole, field), getattr(dataset, field)
        keep = ~np.isin(before.paths, bad)
        assert after.paths == tuple(np.array(before.paths)[keep])
        np.testing.assert_array_equal(after.pids, before.pids[keep])
        np.testing.assert_array_equal(after.camids, before.camids[keep])
    np.testing.assert_array_equal(dataset.train.labels, np.repeat([0, 1, 2], 4))
    assert dataset.train.num_identities == 3
    assert lines == [
        line
        for name in ("the training split", "the query", "the gallery")
        for line in (f"checking the images of {name}", "read 16 of 16 images")
    ]
    for split in (dataset.train, dataset.query, dataset.gallery):
        open_images(split.paths, (6, 4), "memory")  # All are good.


def test_more_than_the_limit_is_an_error(root):
    spoil(root / FOLDERS[2], "0004")
    assert len(datasets.load(recipe(root, skip_limit=0.25)).skipped) == 4
    with pytest.raises(
        ValueError,
        match=r"4 of 16 images of the gallery cannot be read, and data\.skip_limit is 0\.24 of "
        r"them: '.*0004_c1s1_000000_00\.jpg' \(is empty\); .*; .*; \.\.\.$",
    ):
        datasets.load(recipe(root, skip_limit=0.24))
    with pytest.raises(ValueError, match="4 of 16 images"):
        datasets.load(recipe(root, skip_limit=0.0))


def test_as_many_as_the_limit_may_be_bad(tmp_path, draw):
    bad, good = tmp_path / "bad.jpg", tmp_path / "good.png"
    bad.touch()
    draw(8, 4).save(good)
    zeros = np.zeros(100, np.int32)
    split = Split((str(bad),) * 29 + (str(good),) * 71, zeros, zeros)
    data = recipe(tmp_path, skip_limit=0.29)  # 0.29 * 100 is below 29 in floating point.
    assert len(skipping.skip_bad(split, data, "the gallery")) == 71
