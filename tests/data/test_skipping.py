import numpy as np
import pytest

from configs import common
from reid_jax.data import datasets, layouts
from reid_jax.data.loaders import open_images
from reid_jax.runtime.messages import shown

FOLDERS = ("bounding_box_train", "query", "bounding_box_test")


def recipe(root, **leaves):
    config = common.recipe().data
    config.root, config.on_bad_image, config.skip_limit = str(root), "skip", 0.3
    config.update(leaves)
    return config


@pytest.fixture
def root(tmp_path, draw):
    """Four identities to train on, four of two cameras to find; four images of each there."""
    for folder, pids, camids in zip(FOLDERS, ((1, 3, 5, 7), *2 * [(2, 4, 6, 8)]), (
        (1, 2), (1,), (1, 2)
    ), strict=True):  # fmt: skip
        (tmp_path / folder).mkdir()
        for pid in pids:
            for camid in camids:
                for i in range(4 // len(camids)):
                    draw(6, 4).save(tmp_path / folder / f"{pid:04}_c{camid}s1_{i:06}_00.jpg")
    return tmp_path


def spoil(folder, start):
    """Empties the images whose names start so; their paths."""
    paths = sorted(path for path in folder.iterdir() if path.name.startswith(start))
    for path in paths:
        path.write_bytes(b"")
    return [str(path) for path in paths]


def test_an_error_is_the_default(root):
    config = common.recipe().data
    assert config.on_bad_image == "error"
    config.root = str(root)
    (path,) = spoil(root / FOLDERS[0], "0001_c1s1_000000")
    dataset = datasets.load(config, pytest.fail)  # Nothing is decoded twice.
    assert dataset.skipped == ()
    assert path in dataset.train.paths
    with pytest.raises(ValueError, match=r"1 of 16 files .*is empty.*on_bad_image=skip") as caught:
        open_images(dataset.train.paths, (6, 4), "memory")
    assert shown(path) in str(caught.value)


def test_bad_images_are_left_out_of_every_split(root):
    whole = datasets.load(recipe(root))
    assert whole.skipped == ()
    # An identity that goes with all its images, and a part of another.
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
        match=r"4 of the 16 images of the gallery are bad, and data\.skip_limit is 0\.24 of them: "
        r"'.*0004_c1s1_000000_00\.jpg' \(is empty\); .*; .*; \.\.\.$",
    ):
        datasets.load(recipe(root, skip_limit=0.24))
    with pytest.raises(ValueError, match="4 of the 16 images"):
        datasets.load(recipe(root, skip_limit=0.0))


def test_training_images_are_left_alone_where_nobody_trains(root):
    spoil(root / FOLDERS[0], "0")
    bad = spoil(root / FOLDERS[1], "0002_c1s1_000000")
    dataset = datasets.load(recipe(root), to_train=False)
    assert [path for path, _ in dataset.skipped] == bad
    assert len(dataset.train) == 16


def test_what_is_left_must_do_for_training_and_evaluation(root):
    for pid in ("0003", "0005", "0007"):
        spoil(root / FOLDERS[0], pid)
    with pytest.raises(ValueError, match="fewer than two identities to train on"):
        datasets.load(recipe(root, skip_limit=0.9))
    spoil(root / FOLDERS[2], "000")
    for path in (root / FOLDERS[2]).glob("*_c1*"):
        path.write_bytes(next((root / FOLDERS[0]).glob("0001*")).read_bytes())
    with pytest.raises(ValueError, match=r"no query in .* has a match under another camera"):
        datasets.load(recipe(root, skip_limit=0.9), to_train=False)


@pytest.fixture
def boxes(root, draw):
    """Two boxes for each query's identity under its camera."""
    (root / "gt_bbox").mkdir()
    for pid in (2, 4, 6, 8):
        for i in range(2):
            draw(6, 4).save(root / "gt_bbox" / f"{pid:04}_c1s1_{i:06}_00.jpg")
    return root / "gt_bbox"


def test_boxes_of_multi_query(root, boxes):
    config = recipe(root)
    dataset = datasets.load(config)
    bad = spoil(boxes, "0004_c1s1_000001")
    split = datasets.load_multi_query(dataset, config)
    assert split.skipped == ((bad[0], "is empty"),)
    assert len(split) == 7
    assert bad[0] not in split.paths
    config.on_bad_image = "error"
    assert len(datasets.load_multi_query(dataset, config)) == 8
    config.on_bad_image = "skip"
    spoil(boxes, "0004")
    with pytest.raises(ValueError, match=r"4 of 16 queries have no image .*gt_bbox.*0004_c1s1"):
        datasets.load_multi_query(dataset, config)


def test_extra_images(root):
    config = recipe(root)
    bad = spoil(root / FOLDERS[0], "0001_c1s1_000001")
    lines = []
    split = datasets.load_extra(root / FOLDERS[0], config, lines.append)
    assert split.skipped == ((bad[0], "is empty"),)
    assert len(split) == len(split.pids) == len(split.camids) == 15
    assert lines[0] == "checking the images of --gallery-extra"
    config.on_bad_image = "error"
    assert datasets.load_extra(root / FOLDERS[0], config).skipped == ()


def test_fingerprint_is_of_the_training_images_wherever_they_are(root):
    def fingerprint():
        return datasets.fingerprint(layouts.read("market1501", root))

    before = fingerprint()
    assert before["count"] == 16
    # What is not trained on does not matter.
    spoil(root / FOLDERS[1], "0002")
    assert fingerprint() == before
    moved = root.rename(root.with_name("moved"))
    assert datasets.fingerprint(layouts.read("market1501", moved)) == before
    moved.rename(root)

    seen = [before["sha256"]]
    first = sorted((root / FOLDERS[0]).iterdir())[0]
    renamed = first.rename(first.with_name("0001_c1s1_000009_00.jpg"))
    seen.append(fingerprint()["sha256"])
    renamed = renamed.rename(first.with_name("0003_c1s1_000009_00.jpg"))  # another identity
    seen.append(fingerprint()["sha256"])
    with open(renamed, "ab") as file:
        file.write(b"longer")
    seen.append(fingerprint()["sha256"])
    renamed.unlink()
    assert fingerprint()["count"] == 15
    seen.append(fingerprint()["sha256"])
    assert len(set(seen)) == 5
    # A file that is not there is found when images are read.
    renamed.symlink_to("nowhere")
    assert fingerprint()["count"] == 16
