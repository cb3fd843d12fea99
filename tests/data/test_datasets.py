import pytest

from reid_jax.data import datasets, layouts
from tests.data.market import FOLDERS, recipe, spoil


def test_training_images_are_left_alone_where_nobody_trains(root):
    spoil(root / FOLDERS[0], "0")
    bad = spoil(root / FOLDERS[1], "0002_c1s1_000000")
    dataset = datasets.load(recipe(root), to_train=False)
    assert [path for path, _ in dataset.skipped] == bad
    assert len(dataset.train) == 0


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
    with pytest.raises(ValueError, match=r"no image .*gt_bbox.* for 4 of 16 queries, .*0004_c1s1"):
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
    # Checks of training data ignore the rest.
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
    # A missing file is found when images are read.
    renamed.symlink_to("nowhere")
    assert fingerprint()["count"] == 16
