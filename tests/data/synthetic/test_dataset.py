import json
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from reid_jax.data import identities, layouts, synthetic
from reid_jax.data.synthetic import dataset
from reid_jax.runtime.messages import say_to_stderr
from tests.data.synthetic.market import TINY, digests, write

FOLDERS = ("bounding_box_train", "query", "bounding_box_test")


MARKET = re.compile(r"^(-1|\d{4})_c(\d)s(\d+)_(\d{6})_(\d{2})\.jpg$")


def test_layout_is_market1501(tiny):
    assert sorted(p.name for p in tiny.iterdir()) == sorted([*FOLDERS, "synthetic.json"])
    for path in tiny.rglob("*.jpg"):
        assert MARKET.match(path.name), path.name
        with Image.open(path) as image:
            assert image.size == (64, 128)
            assert image.mode == "RGB"
    record = json.loads((tiny / "synthetic.json").read_text())
    assert record["version"] == synthetic.VERSION
    assert {name: record[name] for name in TINY} == TINY
    assert record["images"] == {f: len(list((tiny / f).iterdir())) for f in FOLDERS}


def parsed(root, folder):
    names = [MARKET.match(p.name) for p in (root / folder).iterdir()]
    return [(int(m[1]), int(m[2])) for m in names]


def test_identities_and_queries_are_as_in_market1501(tiny):
    train, query, gallery = (parsed(tiny, f) for f in FOLDERS)
    assert {p for p, _ in train} == {1, 3, 5}
    assert {p for p, _ in query} == {2, 4, 6}
    assert {p for p, _ in gallery} == {-1, 0, 2, 4, 6}
    assert len(query) == len(set(query))  # one for each identity and camera
    assert set(query) == {(p, c) for p, c in gallery if p > 0}
    for pid in (1, 3, 5):
        assert len({c for p, c in train if p == pid}) >= 2
    assert [p for p, _ in gallery].count(0) == 4
    assert [p for p, _ in gallery].count(-1) == 3


@pytest.mark.parametrize(("train_cameras", "test_cameras"), [(2, 2), (3, 3), (2, 4), (4, 2)])
def test_splits_share_neither_identities_nor_cameras(train_cameras, test_cameras):
    many = {**TINY, "train_identities": 40, "test_identities": 40}
    many |= {"train_cameras": train_cameras, "test_cameras": test_cameras}
    boxes = dataset.planned(synthetic.Contents(**many))
    train = [box for box in boxes if box.path.startswith(dataset.TRAIN)]
    test = [box for box in boxes if not box.path.startswith(dataset.TRAIN)]
    assert not {box.pid for box in train} & {box.pid for box in test}
    assert {box.camid for box in train} == set(range(1, train_cameras + 1))
    test_camids = {train_cameras + c for c in range(1, test_cameras + 1)}
    assert {box.camid for box in test} == test_camids
    for pid in (identities.DISTRACTOR, identities.JUNK):
        assert {box.camid for box in test if box.pid == pid} <= test_camids


def test_every_query_has_a_match_under_another_camera(tiny):
    gallery = set(parsed(tiny, "bounding_box_test"))
    for pid, camid in parsed(tiny, "query"):
        assert any(p == pid and c != camid for p, c in gallery)


def test_defaults_have_the_size_of_a_small_benchmark():
    boxes = dataset.planned(synthetic.Contents())
    train, query, gallery = (sum(b.path.startswith(f"{f}/") for b in boxes) for f in FOLDERS)
    assert 950 <= train <= 1100
    assert 75 <= query <= 100
    assert 350 <= gallery <= 480


def test_files_hold_what_draw_draws(tiny):
    boxes = dataset.planned(synthetic.Contents(**TINY))
    for box in boxes[::9]:
        with Image.open(tiny / box.path) as image:
            seen = np.asarray(image, np.float64)
        drawn = synthetic.draw(0, box.pid, box.camid, box.number)
        assert np.abs(seen - drawn).mean() < 6  # JPEG


def test_same_arguments_give_the_same_bytes_in_any_number_of_processes(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(dataset, "_processors", lambda: 2)
    monkeypatch.setattr(dataset, "_BOXES_A_PROCESS", 1)
    write(tmp_path / "again")
    assert digests(tmp_path / "again") == digests(tiny)


def test_an_image_does_not_depend_on_the_number_of_others():
    few = dataset.planned(synthetic.Contents(**TINY))
    more = {**TINY, "train_identities": 9, "test_identities": 8, "distractors": 30, "junk": 9}
    assert set(few) < set(dataset.planned(synthetic.Contents(**more)))


def test_names_are_unique_in_a_large_dataset():
    large = {**TINY, "train_identities": 300, "test_cameras": 4, "distractors": 500, "junk": 200}
    paths = [box.path for box in dataset.planned(synthetic.Contents(**large))]
    assert len(set(paths)) == len(paths)


def test_boxes_for_multi_query_are_more_pictures_of_each_query(tiny, tmp_path):
    write(tmp_path / "more", multi_query_images=2)
    before, after = digests(tiny), digests(tmp_path / "more")
    del before["synthetic.json"], after["synthetic.json"]
    assert {path: after[path] for path in before} == before
    new = after.keys() - before.keys()
    assert {path.split("/")[0] for path in new} == {"gt_bbox"}
    assert sorted(parsed(tmp_path / "more", "gt_bbox")) == sorted(2 * parsed(tiny, "query"))
    assert not {after[path] for path in new} & set(before.values())
    boxes = layouts.read_multi_query(layouts.read("market1501", tmp_path / "more"))
    assert len(boxes) == len(new)
    with pytest.raises(FileExistsError, match="multi_query_images 2 instead of 1"):
        write(tmp_path / "more", multi_query_images=1)
    (tmp_path / "more" / min(new)).unlink()
    with pytest.raises(FileExistsError, match="files were lost"):
        write(tmp_path / "more", multi_query_images=2)


def test_the_seed_changes_the_images(tiny, tmp_path):
    write(tmp_path / "other", seed=1)
    assert not set(digests(tmp_path / "other").values()) & set(digests(tiny).values())


def test_a_finished_dataset_is_not_drawn_again(tiny, monkeypatch):
    monkeypatch.setattr(dataset, "draw", lambda *_: pytest.fail("drawn again"))
    before = digests(tiny)
    write(tiny)
    assert digests(tiny) == before


@pytest.mark.parametrize("other", [{"seed": 1}, {"test_identities": 4}, {"junk": 0}])
def test_other_arguments_are_refused(tiny, other):
    (name, value), before = *other.items(), digests(tiny)
    with pytest.raises(FileExistsError, match=rf"{tiny} .*{name} \d+ instead of {value}"):
        write(tiny, **other)
    assert digests(tiny) == before


def test_another_version_is_refused(tiny, monkeypatch):
    monkeypatch.setattr(dataset, "VERSION", synthetic.VERSION + 1)
    with pytest.raises(FileExistsError, match=f"{tiny} .*version {synthetic.VERSION} instead of"):
        write(tiny)


def test_a_run_that_dies_leaves_nothing(tmp_path, monkeypatch):
    left = iter(range(5))

    def dies(*box):
        if next(left) == 4:
            raise KeyboardInterrupt
        return synthetic.draw(*box)

    with monkeypatch.context() as patch:
        patch.setattr(dataset, "draw", dies)
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path / "market")
    assert list(tmp_path.iterdir()) == []
    write(tmp_path / "market", test_identities=1)
    assert [p.name for p in tmp_path.iterdir()] == ["market"]


def test_a_helper_process_that_fails_fails_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(dataset, "_processors", lambda: 2)
    monkeypatch.setattr(dataset, "_BOXES_A_PROCESS", 1)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match=f"draws into {tmp_path}"):
        write(tmp_path / "market")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["bounding_box_train/0001_c1s1_000001_01.jpg", "notes.txt"])
def test_a_folder_that_is_no_finished_dataset_is_refused(tmp_path, content):
    path = tmp_path / "market" / content
    path.parent.mkdir(parents=True)
    path.touch()
    """The error advises deletion only of what this package drew."""
    with pytest.raises(
        FileExistsError, match=f"{tmp_path / 'market'} .*no synthetic.json.*data.layout"
    ) as error:
        write(tmp_path / "market")
    assert "delete" not in str(error.value)
    assert path.exists()


def test_a_record_that_is_not_an_object_is_refused(tmp_path):
    (tmp_path / "synthetic.json").write_text("[1]")
    with pytest.raises(FileExistsError, match=r"no readable synthetic\.json"):
        write(tmp_path)


def test_lost_files_are_noticed(tmp_path):
    root = tmp_path / "market"
    write(root, train_identities=2, test_identities=1)
    next((root / "query").iterdir()).unlink()
    with pytest.raises(FileExistsError, match=f"{root} .*files were lost"):
        write(root, train_identities=2, test_identities=1)


def test_an_empty_folder_is_filled(tmp_path):
    write(tmp_path / "market", train_identities=2, test_identities=1)
    (tmp_path / "empty").mkdir()
    write(tmp_path / "empty", train_identities=2, test_identities=1)
    assert digests(tmp_path / "empty") == digests(tmp_path / "market")


@pytest.mark.parametrize(
    ("name", "value", "bound"),
    [
        ("seed", -1, "at least 0"),
        ("train_identities", 1, "at least 2"),
        ("test_identities", 0, "at least 1"),
        ("train_cameras", 1, "at least 2"),
        ("test_cameras", 1, "at least 2"),
        ("images_per_camera", 1, "at least 2"),
        ("distractors", -1, "at least 0"),
        ("junk", -3, "at least 0"),
        ("multi_query_images", -1, "at least 0"),
    ],
)
def test_arguments_out_of_range_are_named(tmp_path, name, value, bound):
    with pytest.raises(ValueError, match=f"{name} is {value}; it must be {bound}"):
        write(tmp_path / "market", **{name: value})
    assert list(tmp_path.iterdir()) == []


def test_more_cameras_than_there_are_places_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"train_cameras \+ test_cameras is 13; .* at most 12"):
        write(tmp_path / "market", train_cameras=8, test_cameras=5)
    assert list(tmp_path.iterdir()) == []


def test_progress_goes_to_stderr_or_nowhere(tmp_path, capsys):
    small = dict(train_identities=2, test_identities=1, distractors=0, junk=0)
    write(tmp_path / "quiet", **small)
    assert capsys.readouterr() == ("", "")
    write(tmp_path / "loud", say_to_stderr, **small)
    out, err = capsys.readouterr()
    assert out == ""
    drawing, drew = err.splitlines()
    count = re.fullmatch(r"drew (\d+) of \1 pictures  ETA 0:00:00", drew)[1]
    assert drawing == f"drawing {count} pictures of synthetic pedestrians into '{tmp_path}/loud'"


@pytest.mark.parametrize("ignored", [False, True])
def test_ctrl_c_ends_helpers_without_a_message_unless_it_is_ignored(ignored):
    program = f"{dataset._QUIETLY}; import os; os.kill(os.getpid(), SIGINT)"
    before = signal.signal(signal.SIGINT, signal.SIG_IGN if ignored else signal.SIG_DFL)
    try:
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=False
        )
    finally:
        signal.signal(signal.SIGINT, before)
    assert (done.returncode, done.stderr) == (0 if ignored else -signal.SIGINT, "")
