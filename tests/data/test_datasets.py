import shutil

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


@pytest.fixture
def shop(root, draw):
    """Another dataset, of PNG files without cameras, as an entry of `data.also`."""
    folder = root / "shop"
    for split, people in (("train", "abc"), ("query", "xy"), ("gallery", "xy")):
        for person in people:
            (folder / split / person).mkdir(parents=True)
            draw(6, 4).save(folder / split / person / "1.png")
            draw(6, 4).save(folder / split / person / f"{split}.png")
    return f"people:{folder}"


def also(root, *entries, **leaves):
    return recipe(root, **{"also": entries, "on_bad_image": "error"} | leaves)


def test_several_datasets_are_those_read_by_themselves(root, shop):
    market, people = datasets.load_all(also(root, shop))
    alone = layouts.read("market1501", root), layouts.read("people", root / "shop")
    for found, expected in zip((market, people), alone, strict=True):
        for field in ("train", "query", "gallery"):
            split, wanted = getattr(found, field), getattr(expected, field)
            assert split.paths == wanted.paths
            assert split.pids.tolist() == wanted.pids.tolist()
            assert split.camids.tolist() == wanted.camids.tolist()
    assert (market.has_cameras, people.has_cameras) == (True, False)
    assert [x.name for x in datasets.load_all(also(root))] == ["market1501"]
    # An evaluation needs no training images.
    shutil.rmtree(root / "shop" / "train")
    _, people = datasets.load_all(also(root, shop), to_train=False)
    assert (len(people.train), len(people.query)) == (0, 4)


def test_bad_images_of_each_dataset_are_skipped(root, shop):
    bad = root / "shop" / "train" / "a" / "1.png"
    bad.write_bytes(b"")
    _, people = datasets.load_all(also(root, shop, on_bad_image="skip"))
    assert people.skipped == ((str(bad), "is empty"),)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("people:{root}/nowhere", "there is no folder '.*/nowhere': correct the entry, or leave"),
        ("csv:{root}/shop", "there is no file '.*/shop'"),
        ("csv:{root}/list.csv", "list.csv' has no line with the split 'query'$"),
        ("peeple:{root}/shop", "data.also holds 'peeple:.*; it must be LAYOUT:ROOT, of market1501"),
        ("{root}/shop", "it must be LAYOUT:ROOT"),
        ("market1501:{root}", "the same folder as data.root: name each dataset once"),
        ("people:{root}/link", "the same folder as 'people:.*shop' before it: name each"),
        ("people:{root}/empty", "no image .* in or below .*empty/train.*apply to data.root only"),
        ("cuhk03:{root}/copy", "no folder 'bounding_box_train' .*, which holds 'gallery', 'query'"),
        ("folder:{root}/copy", "no identity and camera in the name of '.*png'"),
        ("people:gs://bucket", "data.also is 'gs://bucket', a URL"),
    ],
)
def test_errors_name_the_entry(entry, message, root, shop):
    (root / "link").symlink_to("shop")
    shutil.copytree(root / "shop", root / "copy")
    for split in ("train", "query", "gallery"):
        (root / "empty" / split).mkdir(parents=True)
    (root / "list.csv").write_text("path,identity,split\nshop/train/a/1.png,a,train\n")
    entry = entry.format(root=root)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        datasets.load_all(also(root, shop, entry))
    assert "data.also" in str(caught.value)
    assert entry.rpartition(":")[2] in str(caught.value)


def test_all_datasets_are_listed_before_images_are_decoded(root, shop):
    shutil.rmtree(root / "shop" / "query")
    lines = []
    with pytest.raises(FileNotFoundError, match="no folder 'query'"):
        datasets.load_all(also(root, shop, on_bad_image="skip"), lines.append)
    assert lines == []


@pytest.mark.parametrize("split", ["train", "query"])
def test_a_dataset_without_a_split_is_named(split, root, shop):
    shutil.rmtree(root / "shop" / split)
    with pytest.raises(FileNotFoundError, match=f"^data.also names '{shop}': no folder '{split}'"):
        datasets.load_all(also(root, shop))


def test_the_fingerprint_is_of_all_datasets(root, shop):
    def fingerprint(*entries):
        return datasets.fingerprint(*datasets.load_all(also(root, *entries)))

    alone, before = fingerprint(), fingerprint(shop)
    assert alone == datasets.fingerprint(layouts.read("market1501", root))
    assert before["count"] == alone["count"] + 6
    moved = (root / "shop").rename(root / "moved")
    assert fingerprint(f"people:{moved}") == before

    seen = [alone["sha256"], before["sha256"]]
    (moved / "train" / "a" / "1.png").rename(moved / "train" / "a" / "2.png")
    seen.append(fingerprint(f"people:{moved}")["sha256"])
    (moved / "train" / "a").rename(moved / "train" / "d")
    seen.append(fingerprint(f"people:{moved}")["sha256"])
    with open(moved / "train" / "d" / "2.png", "ab") as file:
        file.write(b"longer")
    seen.append(fingerprint(f"people:{moved}")["sha256"])
    assert len(set(seen)) == 5
