import dataclasses
import hashlib
import json
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from reid_jax.data import identities, layouts, synthetic
from reid_jax.data.synthetic import __main__ as command
from reid_jax.data.synthetic import capture, dataset
from reid_jax.data.synthetic.cameras import camera
from reid_jax.data.synthetic.cloth import dyed, solid
from reid_jax.data.synthetic.figure import Gait, draw_person, posed
from reid_jax.data.synthetic.looks import Bag, Fabric, Print
from reid_jax.data.synthetic.people import person
from reid_jax.data.synthetic.scenes import placed, scene
from reid_jax.data.synthetic.solids import Canvas, View, ellipsoid, loft, tube
from reid_jax.data.synthetic.streams import noise, noise_tile, stream
from reid_jax.runtime.messages import say_to_stderr

FOLDERS = ("bounding_box_train", "query", "bounding_box_test")
MARKET = re.compile(r"^(-1|\d{4})_c(\d)s(\d+)_(\d{6})_(\d{2})\.jpg$")
TINY = dict(
    train_identities=3,
    test_identities=3,
    train_cameras=2,
    test_cameras=3,
    images_per_camera=3,
    distractors=4,
    junk=3,
)
FRONT, BACK, RIGHTWARDS, LEFTWARDS = 0.0, np.pi, np.pi / 2, -np.pi / 2


def write(root, progress=None, **arguments):
    synthetic.write_market1501(root, synthetic.Contents(**{**TINY, **arguments}), progress)


def digests(root):
    return {
        str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(root.rglob("*"))
        if p.is_file()
    }


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    root = tmp_path_factory.mktemp("synthetic") / "market"
    write(root)
    return root


def blank(light=(0.0, 0.0, 1.0), ambient=1.0, shape=(128, 96)):
    return Canvas(
        np.zeros((*shape, 3), np.float32),
        np.full(shape, -np.inf, np.float32),
        np.float32(light),
        ambient,
    )


def figure(who, yaw, phase=0.8):
    """The person alone, in even light: (128, 96, 3)."""
    canvas = blank()
    view = View(yaw=yaw, pitch=0.0, scale=118 / who.height, x=48.0, y=124.0)
    draw_person(canvas, view, who, Gait(phase, 1.0))
    return canvas.rgb


def changed(a, b):
    return int((np.abs(a - b).max(axis=2) > 0.05).sum())


# Streams.


def test_streams_are_functions_of_their_arguments():
    assert stream(3, "a", 1, 2).random() == stream(3, "a", 1, 2).random()
    others = [stream(4, "a", 1, 2), stream(3, "b", 1, 2), stream(3, "a", 2, 1), stream(3, "a", 1)]
    assert len({g.random() for g in [stream(3, "a", 1, 2), *others]}) == 5


def test_noise_tiles_without_a_seam():
    tile = noise_tile()
    inner = np.abs(np.diff(tile, axis=1)).max()
    assert np.abs(tile[:, 0] - tile[:, -1]).max() <= 1.05 * inner
    u, v = np.float32([0.1, 0.7]), np.float32([0.3, 0.9])
    np.testing.assert_array_equal(noise(u, v), noise(u + 2, v - 3))


# Solids, against brute force.


@pytest.mark.parametrize("yaw", [0.0, 0.7, 2.5, -1.2])
@pytest.mark.parametrize("tilt", [0.0, 0.4])
def test_ellipsoid_is_its_points_projected(yaw, tilt):
    radii, centre, pitch = (0.2, 0.35, 0.3), np.array([0.1, 0.6, -0.1]), 0.2
    canvas, view = blank(), View(yaw, pitch, 100.0, 48.0, 110.0, near=0.5)
    ellipsoid(canvas, view, centre, radii, solid((1.0, 1.0, 1.0)), tilt)

    u, v = np.meshgrid(np.linspace(0, 2 * np.pi, 1200), np.linspace(0, np.pi, 600))
    unit = np.stack([np.sin(v) * np.sin(u), np.cos(v), np.sin(v) * np.cos(u)])
    left, up, forward = (unit * np.reshape(radii, (3, 1, 1))).reshape(3, -1)
    up, forward = (
        up * np.cos(tilt) + forward * np.sin(tilt),
        forward * np.cos(tilt) - up * np.sin(tilt),
    )
    left, up, forward = left + centre[0], up + centre[1], forward + centre[2]
    right = left * np.cos(yaw) + forward * np.sin(yaw)
    towards = forward * np.cos(yaw) - left * np.sin(yaw)
    column = 48 + 100 * right
    row = 110 - 100 * (up * np.cos(pitch) - towards * np.sin(pitch))
    depth = up * np.sin(pitch) + towards * np.cos(pitch) + 0.5

    covered = np.zeros((128, 96), bool)
    covered[row.astype(int), column.astype(int)] = True
    drawn = canvas.depth > -np.inf
    assert (drawn & ~covered).sum() == 0  # no pixel whose middle the ellipsoid misses
    assert (covered & ~drawn).sum() < 140  # pixels it only grazes: about the outline's length
    assert canvas.depth.max() == pytest.approx(depth.max(), abs=2e-3)
    assert canvas.rgb[drawn].min() == pytest.approx(1.0)


@pytest.mark.parametrize("yaw", [0.0, 0.6, 1.9, -2.2])
def test_loft_is_its_sections_projected(yaw):
    wide, deep = 0.3, 0.12
    profile = np.array([[0, wide, deep], [1, wide, deep]])
    seen = {}

    def paint(turn, along):
        seen.update(turn=turn, along=along)
        return np.ones((len(turn), 3), np.float32)

    canvas, view = blank(), View(yaw, 0.0, 100.0, 48.0, 110.0)
    loft(canvas, view, np.array([0, 0.9, 0]), np.array([0, 0.1, 0]), profile, paint)

    around = np.linspace(0, 2 * np.pi, 100_001)
    left, forward = wide * np.sin(around), deep * np.cos(around)
    right = left * np.cos(yaw) + forward * np.sin(yaw)
    towards = forward * np.cos(yaw) - left * np.sin(yaw)
    drawn = canvas.depth[70] > -np.inf
    middles = (np.arange(96) + 0.5 - 48) / 100
    np.testing.assert_array_equal(drawn, np.abs(middles) < right.max())
    for column in np.flatnonzero(drawn)[1:-1]:
        near = np.abs(right - middles[column]) < 2e-5
        point = np.flatnonzero(near)[towards[near].argmax()]
        assert canvas.depth[70, column] == pytest.approx(towards[point], abs=4e-3)
        turn = seen["turn"].reshape(-1, drawn.sum())[0][column - np.flatnonzero(drawn)[0]]
        assert np.cos(turn - around[point]) > 1 - 1e-3
    assert seen["along"].min() == pytest.approx(0.0, abs=0.01)
    assert seen["along"].max() == pytest.approx(0.8, abs=0.01)


def test_nearer_solids_hide_farther_ones_in_any_order():
    view = View(0.0, 0.0, 100.0, 48.0, 110.0)
    red, blue = solid((1.0, 0.0, 0.0)), solid((0.0, 0.0, 1.0))

    def ball(canvas, towards, paint):
        ellipsoid(canvas, view, np.array([0, 0.5, towards]), (0.2, 0.2, 0.2), paint)

    one, other = blank(), blank()
    ball(one, 0.3, red), ball(one, -0.3, blue)
    ball(other, -0.3, blue), ball(other, 0.3, red)
    np.testing.assert_array_equal(one.rgb, other.rgb)
    assert one.rgb[..., 2].max() == 0
    assert one.rgb[..., 0].max() == 1


def test_the_lit_side_is_lighter():
    canvas = blank(light=(1.0, 0.0, 0.0), ambient=0.3)
    view = View(0.5, 0.0, 100.0, 48.0, 110.0)
    tube(canvas, view, np.array([0, 0.9, 0]), np.array([0, 0.2, 0]), 0.3, 0.3, solid((1, 1, 1)))
    row = canvas.rgb[60, canvas.depth[60] > -np.inf, 0]
    assert (np.diff(row) >= 0).all()
    assert row[-1] > 2 * row[0]


@pytest.mark.parametrize("x", [-500.0, 0.0, 96.0, 500.0])
def test_what_lies_outside_the_canvas_is_cut(x):
    canvas, view = blank(), View(0.3, 0.1, 100.0, x, 128.0)
    white = solid((1.0, 1.0, 1.0))
    ellipsoid(canvas, view, np.array([0, 0.3, 0]), (0.2, 0.2, 0.2), white)
    tube(canvas, view, np.array([0, 2.9, 0]), np.array([0, 0.2, 0]), 0.1, 0.1, white)
    assert (canvas.depth > -np.inf).any() == (0 <= x <= 96)


# Cloth.


def test_patterns_have_their_period_and_share():
    down = np.linspace(0, 1, 10_001, dtype=np.float32)[:-1]
    fabric = Fabric((0, 0, 0), (1, 1, 1), "hoops", period=0.1, duty=0.3)
    hoops = dyed(fabric, 0 * down, down)[:, 0]
    assert hoops.mean() == pytest.approx(0.3, abs=0.01)
    np.testing.assert_allclose(hoops[:9000], hoops[1000:], atol=1)
    assert np.abs(hoops[:9000] - hoops[1000:]).mean() < 0.01
    yoke = dyed(dataclasses.replace(fabric, pattern="yoke", period=0.2), 0 * down, down)[:, 0]
    assert yoke[:1990].min() == 1
    assert yoke[2010:].max() == 0


def test_unknown_pattern_is_named():
    with pytest.raises(ValueError, match="'tartan'"):
        dyed(Fabric((0, 0, 0), (1, 1, 1), "tartan"), np.zeros(2), np.zeros(2))


# People and figures.


def test_people_are_functions_of_seed_and_number():
    assert person(0, "person", 7) == person(0, "person", 7)
    everybody = [person(s, k, n) for s in (0, 1) for k in ("person", "x") for n in range(30)]
    assert len(set(everybody)) == len(everybody)


def test_many_people_share_their_clothes_colours():
    """An identity cannot be told by the colours of its clothes alone."""
    everybody = [person(0, "person", n) for n in range(200)]

    def clothes(who):
        return np.array([who.upper.fabric.base, who.lower.fabric.base])

    alike = sum(
        any(np.abs(clothes(a) - clothes(b)).max() < 0.1 for b in everybody[:32] if b is not a)
        for a in everybody[:32]
    )
    assert 16 <= alike <= 31
    kinds = {b.kind for who in everybody for b in who.bags}
    assert kinds == {"backpack", "shoulder", "hand"}
    assert {who.lower.kind for who in everybody} == {"trousers", "skirt"}
    assert {p.side for who in everybody for p in who.upper.prints} == {"front", "back"}


@pytest.mark.parametrize("phase", np.linspace(0, 2 * np.pi, 7))
def test_bones_keep_their_lengths_and_a_foot_is_on_the_ground(phase):
    who = person(0, "person", 1)
    pose = posed(who, Gait(phase, 1.0))
    for knee, ankle in zip(pose.knees, pose.ankles, strict=True):
        assert np.linalg.norm(knee - ankle) == pytest.approx(0.22 * who.height)
    for elbow, wrist in zip(pose.elbows, pose.wrists, strict=True):
        assert np.linalg.norm(elbow - wrist) == pytest.approx(0.145 * who.height)
    assert min(a[1] for a in pose.ankles) == pytest.approx(0.045 * who.height)
    assert pose.head[1] > pose.neck[1] > pose.hips[1] > max(k[1] for k in pose.knees)


def test_legs_and_arms_swing_in_opposition():
    pose = posed(person(0, "person", 1), Gait(np.pi / 2, 1.0))
    assert pose.ankles[0][2] > 0 > pose.ankles[1][2]
    assert pose.wrists[0][2] < pose.wrists[1][2]


@pytest.mark.parametrize("number", range(1, 9))
@pytest.mark.parametrize("yaw", [FRONT, BACK, RIGHTWARDS])
def test_figures_fill_their_height_and_stand_upright(number, yaw):
    rows, columns = np.nonzero(figure(person(0, "person", number), yaw).max(axis=2) > 0)
    assert 3 <= rows.min() <= 14
    assert 119 <= rows.max() <= 127
    assert 20 <= np.ptp(columns) <= 80


def plain(number=3):
    """A person without bags and prints, in a closed grey tee."""
    who = person(0, "person", number)
    fabric = Fabric((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    upper = dataclasses.replace(who.upper, fabric=fabric, prints=(), front="closed", hood=False)
    return dataclasses.replace(who, bags=(), upper=upper, hair="short", elbow=0.1)


def test_a_print_is_seen_from_its_side_only():
    without = plain()
    cells = ((True,) * 6,) * 5
    for side, seen, hidden in (("front", FRONT, BACK), ("back", BACK, FRONT)):
        logo = Print(side, cells, (0.9, 0.1, 0.1), left=0.0, down=0.12, cell=0.04)
        upper = dataclasses.replace(without.upper, prints=(logo,))
        with_print = dataclasses.replace(without, upper=upper)
        assert changed(figure(with_print, seen), figure(without, seen)) > 120
        assert changed(figure(with_print, hidden), figure(without, hidden)) == 0


def test_a_backpack_is_seen_from_behind_and_its_straps_from_before():
    without = plain()
    bag = Bag("backpack", 0, (0.9, 0.1, 0.1), (0.1, 0.1, 0.9), 1.0)
    with_bag = dataclasses.replace(without, bags=(bag,))
    from_behind = changed(figure(with_bag, BACK), figure(without, BACK))
    from_before = changed(figure(with_bag, FRONT), figure(without, FRONT))
    assert from_behind > 400
    assert 0 < from_before < from_behind / 2


@pytest.mark.parametrize(
    ("side", "seen", "hidden"), [(1, LEFTWARDS, RIGHTWARDS), (-1, RIGHTWARDS, LEFTWARDS)]
)
def test_a_shoulder_bag_is_seen_from_its_side(side, seen, hidden):
    # Who walks to the left of the picture shows the left side.
    without = plain()
    bag = Bag("shoulder", side, (0.9, 0.1, 0.1), (0.1, 0.1, 0.9), 1.0)
    with_bag = dataclasses.replace(without, bags=(bag,))
    near = changed(figure(with_bag, seen), figure(without, seen))
    far = changed(figure(with_bag, hidden), figure(without, hidden))
    assert near > 2 * far + 100


def test_the_face_is_seen_from_before_and_hair_from_behind():
    who = dataclasses.replace(
        plain(), skin=(0.9, 0.7, 0.6), hair_colour=(0.1, 0.05, 0.05), hat="none"
    )
    front, back = figure(who, FRONT)[:20], figure(who, BACK)[:20]

    def skin(image):
        return int((np.abs(image - np.float32(who.skin)).max(axis=2) < 0.1).sum())

    assert skin(front) > 3 * skin(back) + 20


# Cameras and their places.


def test_cameras_differ_in_light_and_colour():
    means = np.array(
        [
            np.mean([synthetic.draw(0, pid, camid, 0) for pid in range(1, 7)], axis=(0, 1, 2))
            for camid in range(1, 5)
        ]
    )
    apart = np.abs(means[:, None] - means[None]).max(axis=-1)[np.triu_indices(4, 1)]
    assert apart.min() > 4
    assert apart.max() > 15


@pytest.mark.parametrize("camid", [0, synthetic.MAX_CAMERAS + 1])
def test_unknown_camera_is_named(camid):
    with pytest.raises(ValueError, match=f"camid is {camid}.*1 to 12"):
        synthetic.draw(0, 1, camid, 0)


def narrowest(yaws):
    """The least angle between any two of the directions, radians."""
    yaws = np.sort(np.mod(yaws, 2 * np.pi))
    return np.diff([*yaws, yaws[0] + 2 * np.pi]).min()


@pytest.mark.parametrize("camids", [(1, 2, 3), (7, 8, 9)])  # of the default splits
def test_cameras_of_a_split_mostly_show_different_views(camids, monkeypatch):
    """Matching across cameras crosses views, so that a clue seen by one is hidden from another."""
    yaws = []
    monkeypatch.setattr(
        capture, "draw_person", lambda canvas, view, who, gait: yaws.append(view.yaw)
    )
    mean_views = []
    for camid in camids:
        yaws.clear()
        for pid in range(1, 31):
            synthetic.draw(0, pid, camid, 0)
        mean_views.append(np.exp(1j * np.array(yaws)).mean())
    assert np.abs(mean_views).min() > 0.4
    assert narrowest(np.angle(mean_views)) > np.pi / 4


@pytest.mark.parametrize("first", range(1, synthetic.MAX_CAMERAS - 2))
def test_neighbouring_cameras_see_people_from_four_sides(first):
    assert narrowest([camera(0, camid).yaw for camid in range(first, first + 4)]) > np.pi / 3


def test_few_places_are_alike():
    cameras = [camera(0, camid) for camid in range(1, synthetic.MAX_CAMERAS + 1)]
    assert len({(cam.ground, cam.wall) for cam in cameras}) == len(cameras) - 1


def test_a_ground_point_is_where_the_perspective_puts_it():
    cam = camera(0, 1)
    column, row, scale = placed(cam, 1.5, 9.0)
    tilt = np.arctan2(cam.height - 0.9, 8.5)
    depth = 9.0 * np.cos(tilt) + cam.height * np.sin(tilt)
    down = cam.height * np.cos(tilt) - 9.0 * np.sin(tilt)
    width, height = scene(0, 1).size
    expected = (width / 2 + 1.5 * cam.focal / depth, height / 2 + down * cam.focal / depth)
    assert (column, row) == pytest.approx(expected)
    assert scale == pytest.approx(cam.focal / depth)


# Boxes.


def test_a_box_is_a_function_of_its_arguments():
    box = synthetic.draw(0, 5, 2, 1)
    assert box.shape == (128, 64, 3)
    assert box.dtype == np.uint8
    np.testing.assert_array_equal(box, synthetic.draw(0, 5, 2, 1))
    for other in [
        (1, 5, 2, 1),
        (0, 6, 2, 1),
        (0, 5, 3, 1),
        (0, 5, 2, 2),
        (0, 0, 2, 1),
        (0, -1, 2, 1),
    ]:
        assert (synthetic.draw(*other) != box).mean() > 0.3


def test_boxes_have_the_contrast_of_photographs():
    boxes = np.stack([synthetic.draw(0, pid, 1 + pid % 4, 0) for pid in range(1, 25)])
    grey = boxes.mean(axis=3)
    assert 60 < grey.mean() < 170
    assert grey.std(axis=(1, 2)).min() > 12
    assert (boxes == 255).mean() < 0.05
    assert (boxes == 0).mean() < 0.05


@pytest.mark.parametrize("arguments", [(-1, 1, 1, 0), (0, -2, 1, 0), (0, 1, 1, -1)])
def test_boxes_that_cannot_be_are_refused(arguments):
    with pytest.raises(ValueError, match="draw needs seed >= 0"):
        synthetic.draw(*arguments)


# The folder.


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
        drawn = synthetic.draw(0, box.pid, box.camid, box.index)
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


def test_names_are_unique_in_a_large_data_set():
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


def test_a_finished_data_set_is_not_drawn_again(tiny, monkeypatch):
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
def test_a_folder_that_is_no_finished_data_set_is_refused(tmp_path, content):
    path = tmp_path / "market" / content
    path.parent.mkdir(parents=True)
    path.touch()
    with pytest.raises(
        FileExistsError, match=f"{tmp_path / 'market'} .*no readable synthetic.json"
    ):
        write(tmp_path / "market")
    assert path.exists()


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
    assert re.fullmatch(r"drew (\d+) of \1 pictures  ETA 0:00:00\n", err)


def test_command_line(tiny, tmp_path, capsys):
    options = [f"--{name}={value}" for name, value in TINY.items()]
    command.main([str(tmp_path / "market"), *options])
    assert digests(tmp_path / "market") == digests(tiny)
    with pytest.raises(SystemExit) as stop:
        command.main([str(tmp_path / "market"), *options, "--test_cameras=11"])
    assert stop.value.code == 2
    assert "train_cameras + test_cameras is 13" in capsys.readouterr().err


def test_it_works_without_jax_and_tensorflow():
    program = (
        "import sys\n"
        "for name in ('jax', 'flax', 'tensorflow', 'matplotlib'): sys.modules[name] = None\n"
        "from reid_jax.data.synthetic import draw\n"
        "print(draw(0, 1, 1, 0).shape)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "(128, 64, 3)\n"
