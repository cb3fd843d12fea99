import logging

import numpy as np
import pytest

from reid_jax.data import image_files, layouts
from reid_jax.data.decoding import SUFFIXES

MARKET = {
    "bounding_box_train": [
        "0007_c3s3_000001_01.jpg",
        "0002_c1s1_000451_03.jpg",
        "0007_c1s1_2_1.jpg",
    ],
    "query": ["0001_c1s1_001051_00.jpg", "0005_c2s1_001051_00.jpg"],
    "bounding_box_test": [
        "0001_c2s1_000001_00.jpg",
        "-1_c1s1_000401_03.jpg",
        "0000_c4s2_000001_02.jpg",
        "0005_c2s1_000002_00.jpg",
    ],
}
DUKE = {
    "bounding_box_train": ["0001_c2_f0046182.jpg", "0004_c8_f0000001.jpg"],
    "query": ["0005_c2_f0046985.jpg"],
    "bounding_box_test": ["0005_c5_f0051781.jpg"],
}
CUHK = {
    "bounding_box_train": ["0001_c1_1.png", "0003_c2_10.PNG", "0003_c1_2.jpg"],
    "query": ["0002_c1_4.png"],
    "bounding_box_test": ["0002_c2_7.png", "0002_c1_5.jpeg"],
}
OWN = {
    "train": ["bob_c1_1.jpg", "anna_c2_1.jpg", "anna_c10_2.jpg"],
    "query": ["zoe_c1_1.jpg"],
    "gallery": ["zoe_c2_1.jpg", "carl_c1_1.jpg"],
}


@pytest.fixture
def tree(tmp_path):
    """A function that creates empty files, because only names are read."""

    def make(folders):
        for folder, names in folders.items():
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
            for name in names:
                (tmp_path / folder / name).touch()
        return tmp_path

    return make


def names(split):
    return [path.rsplit("/", 1)[1] for path in split.paths]


def test_market1501(tree):
    root = tree(MARKET)
    dataset = layouts.read("market1501", root)
    assert (dataset.name, dataset.root) == ("market1501", str(root))
    assert dataset.train.paths == tuple(
        str(root / "bounding_box_train" / name) for name in sorted(MARKET["bounding_box_train"])
    )
    np.testing.assert_array_equal(dataset.train.pids, [2, 7, 7])
    np.testing.assert_array_equal(dataset.train.camids, [1, 1, 3])
    np.testing.assert_array_equal(dataset.train.labels, [0, 1, 1])
    assert dataset.train.num_identities == 2
    assert {
        array.dtype for s in (dataset.train, dataset.gallery) for array in (s.pids, s.camids)
    } == {np.dtype(np.int32)}
    assert dataset.train.labels.dtype == np.int32
    # The junk box is gone, the distractor is there.
    assert len(dataset.gallery) == 3
    np.testing.assert_array_equal(dataset.gallery.pids, [0, 1, 5])
    np.testing.assert_array_equal(dataset.gallery.camids, [4, 2, 2])


def test_no_distractor_or_junk_in_training(tree):
    extra = [*MARKET["bounding_box_train"], "0000_c1s1_000001_00.jpg", "-1_c1s1_000001_00.jpg"]
    dataset = layouts.read("market1501", tree(MARKET | {"bounding_box_train": extra}))
    np.testing.assert_array_equal(dataset.train.pids, [2, 7, 7])


def test_what_a_market_split_leaves_out_is_counted(tree, caplog):
    """People counted from 0 under Market-1501's names: each one left out is counted."""
    extra = {
        "bounding_box_train": [f"0000_c{camera}s1_000001_00.jpg" for camera in (1, 2)],
        "query": ["0000_c1s1_000001_00.jpg", "-1_c1s1_000001_00.jpg"],
    }
    root = tree({folder: [*names, *extra.get(folder, [])] for folder, names in MARKET.items()})
    with caplog.at_level(logging.WARNING, logger="absl"):
        dataset = layouts.read("market1501", root)
    np.testing.assert_array_equal(dataset.query.pids, [0, 1, 5])
    train, query, gallery = caplog.messages
    assert train == (
        f"not trained on: 2 images of identity 0 in '{root}/bounding_box_train'. In layout "
        "market1501, 0 are distractors and -1 is junk; in layout folder they are people"
    )
    assert "in no score: 1 image of identity -1 and 1 image of identity 0 in" in query
    assert "in no score as matches: 1 image of identity -1 and 1 image of identity 0 in" in gallery


def test_the_usual_distractors_and_junk_of_a_gallery_are_no_news(tree, caplog):
    with caplog.at_level(logging.WARNING, logger="absl"):
        layouts.read("market1501", tree(MARKET))
    assert not caplog.text


@pytest.mark.parametrize(
    ("layout", "form"),
    [("dukemtmc", "{}_c{}_f1.jpg"), ("cuhk03", "{}_c{}_1.png"), ("folder", "{}_c{}_1.jpg")],
)
def test_zero_is_a_person_elsewhere(tree, caplog, layout, form):
    folders = ("bounding_box_train", "query", "bounding_box_test")
    root = tree(
        {
            folder: [form.format(pid, camera) for pid, camera in whom]
            for folder, whom in zip(
                folders, ([("0000", 1), ("0003", 1)], [("0000", 1)], [("0000", 2)]), strict=True
            )
        }
    )
    with caplog.at_level(logging.WARNING, logger="absl"):
        dataset = layouts.read(layout, root, folders=folders)
    # Pids above 0, which ranking takes for people.
    assert dataset.train.pids.min() == 1
    np.testing.assert_array_equal(dataset.query.pids, [1])
    np.testing.assert_array_equal(dataset.gallery.pids, [1])
    assert int(dataset.identity(1)) == 0
    assert f"people in layout {layout}: 3 images of identity 0" in caplog.messages[0]


def test_market_folders_renamed_are_read_by_their_own_layout(tree, caplog):
    renamed = dict(zip(("train", "query", "gallery"), MARKET.values(), strict=True))
    with caplog.at_level(logging.WARNING, logger="absl"):
        layouts.read("folder", tree(renamed))
    assert caplog.messages == [
        "people in layout folder: 1 image of identity -1 and 1 image of identity 0000 in "
        f"'{tree({})}'. In layout market1501, which takes data.folders too, 0 are distractors and "
        "-1 is junk"
    ]
    dataset = layouts.read("market1501", tree({}), folders=("train", "query", "gallery"))
    np.testing.assert_array_equal(dataset.gallery.pids, [0, 1, 5])


@pytest.mark.parametrize("layout", ["market1501", "dukemtmc", "cuhk03"])
def test_folders_of_other_names(tree, layout):
    folders = {"market1501": MARKET, "dukemtmc": DUKE, "cuhk03": CUHK}[layout]
    others = ("my/train", "q", "g")
    root = tree(dict(zip(others, folders.values(), strict=True)))
    dataset = layouts.read(layout, root, folders=others)
    assert len(dataset.train) == len(folders["bounding_box_train"])
    assert dataset.sources == others


def test_query_and_gallery_without_a_training_split(tree, caplog):
    folders = {folder: OWN[folder] for folder in ("query", "gallery")}
    with caplog.at_level(logging.WARNING, logger="absl"):
        dataset = layouts.read("folder", tree(folders), to_train=False)
    assert (len(dataset.train), len(dataset.query), len(dataset.gallery)) == (0, 1, 2)
    assert not caplog.text
    with pytest.raises(FileNotFoundError, match=r"no folder 'train' .*: data\.folders names"):
        layouts.read("folder", tree({}))


def test_a_training_split_that_is_not_needed_may_hold_anything(tree):
    root = tree(OWN | {"train": ["portrait.jpg"]})
    assert len(layouts.read("folder", root, to_train=False).query) == 1


def test_all_suffixes_and_folders_below_count(tree, caplog):
    train = [f"anna_c1_{i}{suffix}" for i, suffix in enumerate(SUFFIXES)]
    train += [name.upper().replace("ANNA_C", "anna_c") for name in train]
    root = tree(
        OWN
        | {
            "train": train,
            "train/more/still": ["bob_c1_1.webp"],
            "query": [*OWN["query"], "zoe_c1.heic", "notes.txt", "Thumbs.db", "desktop.ini"],
            "query/.ipynb_checkpoints": OWN["query"],
        }
    )
    with caplog.at_level(logging.WARNING, logger="absl"):
        dataset = layouts.read("folder", root)
    assert len(dataset.train) == 2 * len(SUFFIXES) + 1
    assert dataset.train.num_identities == 2
    assert len(dataset.query) == 1
    assert caplog.messages == [
        f"not used: 2 files in '{root}/query' without the suffix of an image: "
        f"'{root}/query/notes.txt', '{root}/query/zoe_c1.heic'; supported: {' '.join(SUFFIXES)}"
    ]


def test_a_split_below_another_is_no_part_of_it(tree):
    root = tree({"": OWN["train"], "test/query": OWN["query"], "test/gallery": OWN["gallery"]})
    dataset = layouts.read("folder", root, folders=("", "test/query", "test/gallery"))
    assert len(dataset.train) == len(OWN["train"])


def test_folders_called_by_people(tree):
    pattern = r"(?P<pid>[^/]+)/c(?P<camid>\d+)_"
    folders = {
        "train/gina": ["c1_1.jpg"], "train/hugo": ["c1_1.jpg"],
        "query/ida": ["c1_1.jpg"], "gallery/ida": ["c2_1.jpg"], "gallery": ["c3_1.jpg"],
    }  # fmt: skip
    root = tree({name: files for name, files in folders.items() if name != "gallery"})
    dataset = layouts.read("folder", root, pattern=pattern)
    assert [dataset.identity(pid) for pid in dataset.train.pids] == ["gina", "hugo"]
    assert dataset.identity(dataset.query.pids[0]) == "ida"
    paths = [*dataset.query.paths, "elsewhere/ida/c7_1.jpg", "c7_1.jpg"]
    assert layouts.read_names(paths, pattern=pattern) == [("ida", "1"), ("ida", "7"), None]
    # The name of the split's folder is no person.
    (root / "gallery" / "c3_1.jpg").touch()
    with pytest.raises(ValueError, match=r"no identity and camera in .*gallery/c3_1\.jpg"):
        layouts.read("folder", root, pattern=pattern)


def test_dukemtmc(tree):
    dataset = layouts.read("dukemtmc", tree(DUKE))
    np.testing.assert_array_equal(dataset.train.pids, [1, 4])
    np.testing.assert_array_equal(dataset.train.camids, [2, 8])
    np.testing.assert_array_equal(dataset.gallery.camids, [5])


def test_cuhk03(tree):
    dataset = layouts.read("cuhk03", tree(CUHK))
    assert names(dataset.train) == ["0001_c1_1.png", "0003_c1_2.jpg", "0003_c2_10.PNG"]
    np.testing.assert_array_equal(dataset.train.camids, [1, 1, 2])
    np.testing.assert_array_equal(dataset.gallery.pids, [2, 2])


def test_folder_numbers_text_over_all_splits(tree):
    dataset = layouts.read("folder", tree(OWN))
    assert names(dataset.train) == ["anna_c10_2.jpg", "anna_c2_1.jpg", "bob_c1_1.jpg"]
    # anna, bob, carl, zoe; cameras "1", "10", "2". From 1, because ranking treats 0 as a
    # distractor.
    np.testing.assert_array_equal(dataset.train.pids, [1, 1, 2])
    np.testing.assert_array_equal(dataset.train.camids, [2, 3, 1])
    np.testing.assert_array_equal(dataset.query.pids, [4])
    np.testing.assert_array_equal(dataset.gallery.pids, [3, 4])
    np.testing.assert_array_equal(dataset.gallery.camids, [1, 3])
    np.testing.assert_array_equal(dataset.gallery.labels, [0, 1])
    assert [dataset.identity(pid) for pid in range(1, 5)] == ["anna", "bob", "carl", "zoe"]
    assert [dataset.camera(camid) for camid in range(1, 4)] == ["1", "10", "2"]


def test_folder_with_its_own_pattern_and_folders(tree):
    root = tree(
        {
            "a": ["lobby-x9-0.jpg", "hall-x8-0.jpg"],
            "b": ["lobby-y1-0.jpg"],
            "c/d": ["hall-y1-3.jpg"],
        }
    )
    pattern = r"(?P<camid>[a-z]+)-(?P<pid>\w+)-\d+\.jpg$"
    dataset = layouts.read("folder", root, pattern=pattern, folders=("a", "b", "c/d"))
    np.testing.assert_array_equal(dataset.train.pids, [1, 2])  # x8, x9, y1
    np.testing.assert_array_equal(dataset.train.camids, [1, 2])  # hall, lobby
    np.testing.assert_array_equal(dataset.query.pids, dataset.gallery.pids)


def test_files_that_are_no_images_are_ignored(tree):
    clutter = ["Thumbs.db", ".DS_Store", "readme.txt", "._0001_c2_f0046182.jpg", ".hidden.jpg"]
    root = tree(DUKE | {"query": DUKE["query"] + clutter})
    (root / "query" / "thumbs").mkdir()
    assert names(layouts.read("dukemtmc", root).query) == DUKE["query"]


PEOPLE = {
    "train/anna": ["1.jpg", "2.jpg"],
    "train/Zoë Æ": ["1.jpg"],
    "query/carl": ["a.jpg"],
    "gallery/carl/2020/may": ["b.jpg"],
    "gallery/dora": ["1.jpg"],
}


def test_a_folder_for_each_person(tree):
    root = tree(PEOPLE)
    dataset = layouts.read("people", root)
    assert [dataset.identity(pid) for pid in dataset.train.pids] == ["Zoë Æ", "anna", "anna"]
    assert [dataset.identity(pid) for pid in dataset.gallery.pids] == ["carl", "dora"]
    assert dataset.query.pids[0] == dataset.gallery.pids[0]
    assert (dataset.has_cameras, dataset.camera(1)) == (False, "")
    # Each file is a camera of its own.
    assert len({*dataset.query.camids, *dataset.gallery.camids}) == 3
    assert len(layouts.read("people", tree({}), to_train=False).train) == 0


def test_people_in_folders_of_other_names_and_places(tree):
    folders = {name.replace("query", "test/q"): files for name, files in PEOPLE.items()}
    folders = {name.replace("gallery", "test/g"): files for name, files in folders.items()}
    root = tree({name.removeprefix("train/"): files for name, files in folders.items()})
    dataset = layouts.read("people", root, folders=("", "test/q", "test/g"))
    assert (len(dataset.train), len(dataset.query), len(dataset.gallery)) == (3, 1, 2)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"query": ["x.jpg"]}, r"query/x\.jpg' is in no person's folder: .*query/anna/x\.jpg'$"),
        ({"gallery/bert": []}, r"no image in the folder '.*gallery/bert' of a person: add"),
        ({"train/bert": ["bert.heic"]}, r"no image in the folder '.*train/bert' of a person"),
        ({"train/Zoë Æ/.trash": ["x.jpg"], "train/.trash": ["x.jpg"]}, None),
    ],
)
def test_bad_folders_of_people(tree, more, message):
    root = tree(PEOPLE | more)
    if message is None:
        assert len(layouts.read("people", root).train) == 3
        return
    with pytest.raises(ValueError, match=message):
        layouts.read("people", root)


def test_a_link_to_itself_is_no_person(tree):
    root = tree(PEOPLE)
    (root / "train" / "loop").symlink_to("loop")
    assert len(layouts.read("people", root).train) == 3


def test_people_need_a_match(tree):
    root = tree(PEOPLE)
    (root / "query/carl").rename(root / "query/erik")
    with pytest.raises(ValueError, match=r"no query in '.*query' has a match in '.*gallery': eva"):
        layouts.read("people", root)


def test_the_same_file_is_no_match(tree):
    root = tree(PEOPLE)
    link = root / "gallery/carl/link.jpg"
    link.symlink_to("../../query/carl/a.jpg")
    dataset = layouts.read("people", root)
    own = dataset.gallery.camids[dataset.gallery.paths.index(str(link))]
    assert own == dataset.query.camids[0]
    (root / "gallery/carl/2020/may/b.jpg").unlink()
    with pytest.raises(ValueError, match=r"no query in .* has a match in "):
        layouts.read("people", root)


def test_a_pattern_without_cameras(tree):
    pattern = r"(?P<pid>[a-z]+)"
    dataset = layouts.read("folder", tree(OWN), pattern=pattern)
    assert not dataset.has_cameras
    assert [dataset.identity(pid) for pid in dataset.train.pids] == ["anna", "anna", "bob"]
    # A camera for some images only.
    with pytest.raises(ValueError, match=r"no identity and camera in .*/zoe-1\.jpg': names must"):
        layouts.read(
            "folder", tree({"query": ["zoe-1.jpg"]}), pattern=pattern + r"(_c(?P<camid>\d+))?"
        )


def test_c1_and_c01_are_one_camera(tree, caplog):
    gallery = ["zoe_c01_2.jpg", "carl_c1_1.jpg", "carl_c002_1.jpg"]
    root = tree(OWN | {"query": ["zoe_c1_1.jpg"], "gallery": gallery})
    with pytest.raises(ValueError, match=r"no query .* under another camera"):
        layouts.read("folder", root)
    (root / "gallery" / "zoe_c02_1.jpg").touch()
    with caplog.at_level(logging.WARNING, logger="absl"):
        dataset = layouts.read("folder", root)
    assert dataset.query.camids[0] == dataset.gallery.camids[2]  # zoe_c01_2.jpg
    assert [dataset.camera(camid) for camid in dataset.gallery.camids] == ["2", "1", "1", "2"]
    assert not caplog.text


@pytest.mark.parametrize(
    ("layout", "form"),
    [("market1501", "{}_c{}s1_1_1.jpg"), ("dukemtmc", "{}_c{}_f1.jpg"), ("cuhk03", "{}_c{}_1.png")],
)
def test_leading_zeros_mean_nothing_in_numbers(tree, layout, form):
    folders = {
        "bounding_box_train": [("1", "1"), ("2", "01")],
        "query": [("03", "1")],
        "bounding_box_test": [("3", "001"), ("0003", "2")],
    }
    root = tree({f: [form.format(*who) for who in names] for f, names in folders.items()})
    dataset = layouts.read(layout, root)
    assert sorted(zip(dataset.gallery.pids, dataset.gallery.camids, strict=True)) == [
        (3, 1),
        (3, 2),
    ]
    assert (dataset.query.pids[0], dataset.query.camids[0]) == (3, 1)


def test_names_that_differ_in_leading_zeros_are_counted(tree, caplog):
    pattern = r"(?P<pid>[^_]+)_(?P<camid>\w\d+)_"
    names = {"train": ["7_c1_1.jpg", "007_c1_1.jpg", "007_c2_1.jpg"], "query": ["a10_c01_1.jpg"]}
    root = tree(names | {"gallery": ["a10_c2_1.jpg", "a1_c2_1.jpg"]})
    with caplog.at_level(logging.WARNING, logger="absl"):
        dataset = layouts.read("folder", root, pattern=pattern)
    assert dataset.train.num_identities == 2
    end = " Give each {} one name if they are the same"
    assert caplog.messages == [
        "names that differ only in leading zeros are different identities: 007 (2 images) and 7 "
        "(1 image)." + end.format("identity"),
        "names that differ only in leading zeros are different cameras: c01 (1 image) and c1 (2 "
        "images)." + end.format("camera"),
    ]


@pytest.mark.parametrize("layout", ["market-1501", "", "FOLDER"])
def test_unknown_layout(tmp_path, layout):
    with pytest.raises(
        ValueError, match=r"data\.layout.*market1501, dukemtmc, cuhk03, folder, people, csv, msmt17"
    ):
        layouts.read(layout, tmp_path)


def test_missing_root(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere.*data\.root"):
        layouts.read("market1501", tmp_path / "nowhere")


def test_missing_folder_says_what_there_is(tree):
    root = tree({"detected/query": [], "labeled/query": []})
    with pytest.raises(
        FileNotFoundError, match=r"'bounding_box_train'.*holds 'detected', 'labeled'"
    ):
        layouts.read("cuhk03", root)


def test_all_missing_folders_are_named(tree):
    with pytest.raises(FileNotFoundError, match="no folder 'query' and no folder 'gallery' in "):
        layouts.read("folder", tree({"train": OWN["train"]}))


@pytest.mark.parametrize("folder", ["train", "query", "gallery"])
def test_folder_without_images(tree, folder):
    with pytest.raises(ValueError, match=f"no image.*{folder}"):
        layouts.read("folder", tree(OWN | {folder: ["Thumbs.db"]}))


@pytest.mark.parametrize(
    ("layout", "folders", "name"),
    [
        ("market1501", MARKET, "portrait.jpg"),
        ("market1501", MARKET, "0002_c1.jpg"),
        ("market1501", MARKET, "-2_c1s1_000001_00.jpg"),
        ("dukemtmc", DUKE, "-1_c2_f0046182.jpg"),
        ("dukemtmc", DUKE, "0002_c1s1_000451_03.jpg"),
        ("cuhk03", CUHK, "0002_1.png"),
        ("market1501", MARKET, "99999999999999_c1s1_000001_00.jpg"),
        ("dukemtmc", DUKE, "0001_c99999999999999_f0046182.jpg"),
        ("cuhk03", CUHK, "9999999999_c1_1.png"),
    ],
)
@pytest.mark.parametrize("split", [0, 2])
def test_name_without_identity_or_camera(tree, layout, folders, name, split):
    folder = list(folders)[split]
    root = tree(folders | {folder: [*folders[folder], name]})
    with pytest.raises(ValueError, match="no identity and camera") as caught:
        layouts.read(layout, root)
    assert str(root / folder / name) in str(caught.value)


@pytest.mark.parametrize("name", ["anna.jpg", "_c1_1.jpg", "anna_cx_1.jpg"])
def test_own_name_without_identity_or_camera(tree, name):
    with pytest.raises(ValueError, match=f"no identity and camera.*{name}"):
        layouts.read("folder", tree(OWN | {"query": [name]}))


def test_empty_group_is_no_identity(tree):
    with pytest.raises(ValueError, match=r"no identity and camera.*_c1_1\.jpg"):
        layouts.read(
            "folder",
            tree(OWN | {"train": ["_c1_1.jpg", "b_c1_1.jpg"]}),
            pattern=r"(?P<pid>[a-z]*)_c(?P<camid>\d)",
        )


def test_wrong_patterns(tree):
    root = tree(OWN)
    for pattern in ("(", r"(?P<pid>\w{9999999999})"):
        with pytest.raises(ValueError, match=r"data\.pattern.*no regular expression"):
            layouts.read("folder", root, pattern=pattern)
    with pytest.raises(ValueError, match=r"data\.pattern.*lacks the groups \(\?P<pid>\.\.\.\)$"):
        layouts.read("folder", root, pattern=r"(?P<camid>\w+)")
    with pytest.raises(ValueError, match="'folder'"):
        layouts.read("market1501", root, pattern=layouts.PATTERN)
    with pytest.raises(ValueError, match="train, query and gallery"):
        layouts.read("folder", root, folders=("train", "query"))


@pytest.mark.parametrize(
    "train", [["0002_c1s1_1_1.jpg"], ["0000_c1s1_1_1.jpg", "0002_c1s1_1_1.jpg"]]
)
def test_fewer_than_two_training_identities(tree, train):
    root = tree(MARKET | {"bounding_box_train": train})
    with pytest.raises(ValueError, match=r"fewer than two identities.*bounding_box_train"):
        layouts.read("market1501", root)


@pytest.mark.parametrize(
    "gallery", [["zoe_c1_2.jpg", "carl_c2_1.jpg"], ["carl_c1_1.jpg", "carl_c2_1.jpg"]]
)
def test_no_query_has_a_match_under_another_camera(tree, gallery):
    root = tree(OWN | {"gallery": gallery})
    with pytest.raises(ValueError, match=r"no query in '.*query' has a match.*gallery'"):
        layouts.read("folder", root)


def test_one_query_with_a_match_is_enough(tree):
    assert (
        len(layouts.read("folder", tree(OWN | {"query": ["zoe_c1_1.jpg", "ida_c1_1.jpg"]})).query)
        == 2
    )


def test_shared_identities_are_reported(tree, caplog):
    with caplog.at_level(logging.WARNING, logger="absl"):
        layouts.read("folder", tree(OWN | {"train": [*OWN["train"], "zoe_c3_1.jpg"]}))
    assert "1 identity of" in caplog.text


def test_disjoint_identities_are_silent(tree, caplog):
    with caplog.at_level(logging.WARNING, logger="absl"):
        layouts.read("folder", tree(OWN))
    assert not caplog.text


BOXES = [
    "0005_c2s1_000900_00.jpg",
    "0001_c1s1_001051_00.jpg",
    "0001_c1s2_000001_00.jpg",
    "0001_c2s1_000001_00.jpg",  # a query's identity under another camera
    "0002_c1s1_000451_00.jpg",  # to train on
    "0005_c1s1_000451_00.jpg",
]


def test_multi_query_is_of_the_identity_and_camera_of_queries(tree):
    root = tree(MARKET | {"gt_bbox": [*BOXES, "Thumbs.db"]})
    boxes = layouts.read_multi_query(layouts.read("market1501", root))
    wanted = ["0001_c1s1_001051_00.jpg", "0001_c1s2_000001_00.jpg", "0005_c2s1_000900_00.jpg"]
    assert boxes.paths == tuple(str(root / "gt_bbox" / name) for name in wanted)
    np.testing.assert_array_equal(boxes.pids, [1, 1, 5])
    np.testing.assert_array_equal(boxes.camids, [1, 1, 2])
    assert boxes.pids.dtype == boxes.camids.dtype == np.int32


def test_multi_query_is_market1501s(tree):
    with pytest.raises(ValueError, match=r"--multi-query .* Market-1501, not .*'dukemtmc'"):
        layouts.read_multi_query(layouts.read("dukemtmc", tree(DUKE | {"gt_bbox": BOXES})))


def test_multi_query_needs_its_folder(tree):
    with pytest.raises(FileNotFoundError, match=r"gt_bbox'.*--multi-query .*hand-drawn"):
        layouts.read_multi_query(layouts.read("market1501", tree(MARKET)))


def test_multi_query_names_what_shows_no_identity(tree):
    root = tree(MARKET | {"gt_bbox": [*BOXES, "portrait.jpg"]})
    with pytest.raises(ValueError, match=r"no identity and camera.*gt_bbox/portrait\.jpg"):
        layouts.read_multi_query(layouts.read("market1501", root))


def test_every_query_needs_a_box(tree):
    root = tree(MARKET | {"gt_bbox": BOXES[3:]})
    with pytest.raises(
        ValueError, match=r"gt_bbox.* for 2 of 2 queries, .*0001_c1s1_001051_00\.jpg"
    ):
        layouts.read_multi_query(layouts.read("market1501", root))


def test_extra_images_are_distractors_whatever_their_names(tree):
    root = tree(
        {
            "distractors_500k": ["0_c1s1.jpg", "10.JPEG", "2.png", "._2.png", "readme.txt"],
            "distractors_500k/more/still": ["0001_c1s1_000001_00.jpg"],
            "distractors_500k/empty": [],
            "distractors_500k/more.jpg": ["a.jpg"],
        }
    )
    extra = layouts.read_extra(root / "distractors_500k")
    # As Python sorts text, folders among files.
    wanted = ["0_c1s1.jpg", "10.JPEG", "2.png", "more.jpg/a.jpg"]
    wanted.append("more/still/0001_c1s1_000001_00.jpg")
    assert extra.paths == tuple(str(root / "distractors_500k" / name) for name in wanted)
    for numbers in (extra.pids, extra.camids):
        assert numbers.dtype == np.int32
        np.testing.assert_array_equal(numbers, [0] * 5)


def test_extra_images_have_one_order(tree, monkeypatch):
    root = tree({"b": ["1.jpg", "2.jpg"], "a": ["3.jpg"]})
    paths = layouts.read_extra(root).paths
    listed = image_files.os.scandir

    class Backwards:
        def __init__(self, path):
            self.entries = sorted(listed(path), key=lambda entry: entry.name, reverse=True)

        def __enter__(self):
            return iter(self.entries)

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(image_files.os, "scandir", Backwards)
    assert (
        layouts.read_extra(root).paths
        == paths
        == tuple(str(root / name) for name in ("a/3.jpg", "b/1.jpg", "b/2.jpg"))
    )


def test_extra_images_behind_links_are_there_once(tree):
    root = tree({"extra/a": ["1.jpg"], "extra/b": ["2.jpg"], "elsewhere": ["3.jpg"]})
    extra = root / "extra"
    for link, target in {
        "a/circle": "..", "b/to a": "../a", "out": "../elsewhere", "again": "../elsewhere",
        "itself": "itself", "dangling.jpg": "nowhere", "file.jpg": "a/1.jpg",
    }.items():  # fmt: skip
        (extra / link).symlink_to(target)
    # A dangling link is reported when images are read.
    wanted = ["a/1.jpg", "again/3.jpg", "b/2.jpg", "dangling.jpg", "file.jpg"]
    assert layouts.read_extra(extra).paths == tuple(str(extra / name) for name in wanted)


def test_extra_images_that_are_not_there(tree, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere.*--gallery-extra"):
        layouts.read_extra(tmp_path / "nowhere")
    root = tree({"empty": ["readme.txt"]})
    with pytest.raises(ValueError, match=f"no image.*{root}.*--gallery-extra"):
        layouts.read_extra(root)


# Only names ---------------------------------------------------------------------------------------


def test_names_tell_wherever_files_are():
    names = ["a/0002_c1s1_000451_03.jpg", "-1_c3s2_1_1.jpg", "b.c/0000_c10s1_1_00.jpg"]
    assert layouts.read_names(names, "market1501") == [("2", "1"), ("-1", "3"), ("0", "10")]
    assert layouts.read_names(["x/0007_c02_f1.jpg"], "dukemtmc") == [("7", "2")]
    assert layouts.read_names(["0007_c2_1.png", "me.png"], "cuhk03") == [("7", "2"), None]
    assert layouts.read_names(["0007_c02_1.png"], "folder") == [("0007", "2")]
    pattern = "(?P<camid>[a-z]+)-(?P<pid>.*)-"
    assert layouts.read_names(["c/d-\udcff-1.jpg", "d--1.jpg"], pattern=pattern) == [
        ("\udcff", "d"),
        None,
    ]
    for layout in layouts.NAMED_LAYOUTS:
        assert layouts.read_names([], layout) == []
    for layout in (None, "msmt17"):
        with pytest.raises(ValueError, match=r"unknown layout .*supported layouts: market1501, "):
            layouts.read_names([], layout)
    with pytest.raises(ValueError, match=r"--names .* lacks the groups \(.*pid.*camid"):
        layouts.read_names([], pattern="(?P<pid>.)", option="--names")
    with pytest.raises(ValueError, match=r"--names '\[' is no regular expression"):
        layouts.read_names([], pattern="[", option="--names")


def test_a_distractor_does_not_count_as_a_match(tree):
    root = tree(
        {
            "query": ["0000_c1s1_000001_00.jpg", "0003_c1s1_000001_00.jpg"],
            "bounding_box_test": ["0000_c2s1_000001_00.jpg", "0004_c2s1_000001_00.jpg"],
        }
    )
    with pytest.raises(ValueError, match=r"no query in '.*query' has a match under another camera"):
        layouts.read("market1501", root, to_train=False)
