"""`reid-jax search` over synthetic pedestrians, with random weights."""

import copy
import functools
import io
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import types

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from reid_jax import inference, visualize
from reid_jax.cli import search as command
from reid_jax.data import image_files, layouts
from reid_jax.data.synthetic.dataset import Contents, write_market1501
from reid_jax.gallery import Gallery
from reid_jax.gallery_milvus import MilvusGallery
from reid_jax.runtime.messages import shown
from reid_jax.search import searching
from tests import random_runs
from tests.test_untrusted import NAME

ROOT = pathlib.Path(__file__).parents[2]

pytestmark = pytest.mark.usefixtures("standard_promotion")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a run and pedestrians."""
    folder = tmp_path_factory.mktemp("search")
    random_runs.write(folder / "run", "baseline_synthetic", steps=(1, 2))
    write_market1501(
        folder / "pedestrians",
        Contents(
            train_identities=2,
            test_identities=4,
            train_cameras=2,
            test_cameras=3,
            images_per_camera=2,
            distractors=6,
            junk=2,
        ),
        None,
    )
    return folder


@pytest.fixture(scope="module")
def load():
    """`inference.load`, called once for each model."""
    real = inference.load
    return functools.cache(lambda workdir, checkpoint="latest": real(workdir, checkpoint))


@pytest.fixture
def here(place, tmp_path, monkeypatch, load):
    """Another, current folder to write into."""
    monkeypatch.setattr(inference, "load", load)
    for name in ("run", "pedestrians"):
        (tmp_path / name).symlink_to(place / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def drawn(monkeypatch):
    """The arguments with which pictures are drawn."""
    asked = []
    figure = visualize.ranked_list_figure

    def kept(*args, **kwargs):
        asked.append((args, kwargs))
        return figure(*args, **kwargs)

    monkeypatch.setattr(visualize, "ranked_list_figure", kept)
    return asked


QUERY = "pedestrians/query"
GALLERY = "pedestrians/bounding_box_test"
# The largest distance of two descriptors of one image: those of different calls may be rounded
# differently.
NEAR = 0.001


def run(*arguments):
    given = ["--workdir", "run", *map(str, arguments)]
    if "--gallery" not in given:
        given += ["--gallery", GALLERY]
    return searching.search(command.parser().parse_args(given))


def queries():
    return sorted(map(str, pathlib.Path(QUERY).glob("*.jpg")))


def described(paths):
    return inference.load("run").embed(paths)


def rows(said):
    """The cells of the tables' lines, query by query."""
    tables = re.split(r"\n\n", said)[1:-1]
    return [[re.split(r"  +", line.strip()) for line in t.splitlines()[2:]] for t in tables]


def test_unknown_people_are_found_printed_and_drawn(here, capsys, drawn):
    paths = image_files.find_images(GALLERY, "")
    asked = [paths[7], queries()[0]]
    hits = run("--query", *asked, "-k", 3)
    distances = np.linalg.norm(
        described(asked)[:, None].astype(np.float64) - described(paths)[None], axis=-1
    )
    nearest = np.argsort(distances, axis=1, kind="stable")[:, :3]
    np.testing.assert_array_equal(hits.indices, nearest)
    assert hits.indices[0, 0] == 7
    assert hits.distances[0, 0] < NEAR
    said = capsys.readouterr().out
    assert "baseline, step 2 of 'run'\n" in said
    assert f"describing {len(paths)} images in {GALLERY!r}\nread {len(paths)} of" in said
    assert said.endswith("\ndrew the nearest 3 into 'search.png'\n")
    assert [line for line in said.splitlines() if line in map(repr, asked)] == list(
        map(repr, asked)
    )
    expected = [
        [[str(r + 1), f"{distances[q, i]:.4f}", repr(paths[i])] for r, i in enumerate(nearest[q])]
        for q in range(2)
    ]
    assert rows(said) == expected
    ((images, listed, _), options) = drawn[0]
    assert not options["known"].any()
    assert options["captions"].query_names == [os.path.basename(path) for path in asked]
    assert options["captions"].names[1] == [os.path.basename(paths[i]) for i in nearest[1]]
    np.testing.assert_array_equal(listed[0, 0], images[0])
    with Image.open(paths[nearest[1, 2]]) as image:
        pixels = np.asarray(image.resize((64, 96), 2))
    assert np.abs(listed[1, 2].astype(int) - pixels).mean() < 2
    with Image.open("search.png") as image:
        assert image.size[0] > 400


def test_images_beyond_the_distance_are_left_out(here, capsys, drawn):
    paths = image_files.find_images(GALLERY, "")
    asked = [paths[7], queries()[0]]
    whole = run("--query", *asked, "-k", 5)
    capsys.readouterr()
    limit = whole.distances[0, 2]
    hits = run("--query", *asked, "-k", 5, "--max-distance", repr(float(limit)))
    assert hits.indices[0].tolist() == [*whole.indices[0, :3], -1, -1]
    assert (hits.indices >= 0).sum() == (whole.distances <= limit).sum()
    assert rows(capsys.readouterr().out)[0][0][2] == repr(paths[7])
    # The second query finds no image so near, and the first finds itself.
    hits = run("--query", *asked, "-k", 5, "--max-distance", NEAR)
    assert (hits.indices >= 0).sum(axis=1).tolist() == [1, 0]
    said = capsys.readouterr().out
    assert f"\n{asked[1]!r}\n  nobody within distance {NEAR:.4f}\n" in said
    assert said.count("nobody") == 1
    assert drawn[-1][1]["empty"] == "nobody"
    assert np.isinf(drawn[-1][1]["distances"][1]).all()
    run("--query", asked[1], "--max-distance", NEAR, "--output", "nobody.png")
    assert pathlib.Path("nobody.png").is_file()


def test_matches_are_written_before_they_are_printed(here, monkeypatch):
    asked = queries()[:2]
    (here / "own").mkdir()
    for path, name in zip(queries(), ("anna-3-1.jpg", "bert-4-1.jpg"), strict=False):
        shutil.copy(path, here / "own" / name)
    hits = run("--query", *asked, "-k", 3, "--hits", "new/hits.JSON")
    assert json.loads(pathlib.Path("new/hits.JSON").read_text()) == hits.rows(asked)
    named = ["--pattern", "(?P<pid>[^-]+)-(?P<camid>[^-]+)-", "--gallery", "own"]

    def fail(text):
        if "rank" in text:
            raise KeyboardInterrupt

    monkeypatch.setattr(searching, "say", fail)
    with pytest.raises(KeyboardInterrupt):
        run("--query", asked[0], *named, "--hits", "hits.csv", "--max-distance", NEAR)
    head, row = pathlib.Path("hits.csv").read_text().splitlines()
    assert head == "query,rank,name,pid,camid,distance"
    *cells, distance = row.split(",")
    assert cells == [asked[0], "1", "own/anna-3-1.jpg", "anna", "3"]
    assert float(distance) < NEAR


@pytest.mark.slow
def test_reranked_images_are_in_another_order(here, capsys, drawn):
    plain, hits = (run("--query", *queries(), "-k", 20, *more) for more in ([], ["--rerank"]))
    gallery = Gallery()
    paths = image_files.find_images(GALLERY, "")
    gallery.add(described(paths), names=paths)
    assert len(gallery) < 20  # All are found.
    expected = gallery.search(described(queries()), len(gallery), rerank=True)
    assert hits.names == expected.names
    assert hits.names != plain.names


def test_the_threshold_of_a_false_positive_rate(here, capsys, monkeypatch):
    asked = []

    def threshold(self, fpr):
        asked.append(fpr)
        return NEAR

    monkeypatch.setattr(inference.Model, "threshold", threshold)
    hits = run("--query", *image_files.find_images(GALLERY, "")[:2], "--fpr", "1e-3")
    assert asked == [1e-3]
    assert (hits.indices >= 0).sum(axis=1).tolist() == [1, 1]
    assert "\nfalse positive rate 0.001: images within distance 0.0010\n" in capsys.readouterr().out


def test_names_that_show_identities_filter_and_tell_right_from_wrong(here, capsys, drawn):
    paths = image_files.find_images(GALLERY, "")
    who = np.array([re.match(r"(-?\d+)_c(\d+)", os.path.basename(p)).groups() for p in paths], int)
    asked = queries()[:2]
    whose = [re.match(r"(\d+)_c(\d+)", os.path.basename(path)).groups() for path in asked]
    (pid, camera), (_, other) = np.array(whose, int)
    shutil.copy(asked[0], "somebody.jpg")
    named = ["--layout", "market1501", "-k", 50, "--query", *asked]

    hits = run(*named, "somebody.jpg")
    assert set(hits.indices[0][hits.indices[0] >= 0]) == set(np.flatnonzero(who[:, 0] != -1))
    said = capsys.readouterr().out
    assert f"\n{asked[0]!r}, identity {pid}, camera {camera}\n" in said
    assert "\n'somebody.jpg'\n" in said
    for q, table in enumerate(rows(said)):
        for (_, _, *labels, path), i in zip(table, hits.indices[q], strict=False):
            assert (path, labels) == (repr(paths[i]), list(map(str, who[i])))
    (_, _, correct), options = drawn[0]
    assert correct.shape == (3, 10)
    np.testing.assert_array_equal(correct[0], who[hits.indices[0, :10], 0] == pid)
    assert options["known"].all(axis=1).tolist() == [True, True, False]
    assert not options["known"][2].any()

    def found(*options):
        hits = run(*named, *options)
        return [who[row[row >= 0]] for row in hits.indices]

    for first in found("--camera", other, "--identity", f"{pid:04d}"):
        assert first.tolist() == [[pid, other]] * len(first)
        assert len(first) == np.count_nonzero((who == [pid, other]).all(axis=1)) > 0
    cameras = [set(first[:, 1]) for first in found("--not-camera", other)]
    assert cameras == [set(who[:, 1]) - {other}] * 2
    assert [set(first[:, 1]) for first in found("--other-cameras")] == [
        set(who[:, 1]) - {int(c)} for _, c in whose
    ]
    capsys.readouterr()
    run(*named, "--identity", pid, "--not-camera", *sorted({*who[:, 1]}))
    assert "no image of the gallery is left to be found" in capsys.readouterr().out


def test_identities_and_cameras_may_be_any_text(here, capsys, drawn):
    folder = here / "own" / "below"
    folder.mkdir(parents=True)
    pictures = queries()
    evil = os.fsdecode(NAME)
    names = ["anna-lobby-1.jpg", "anna-door-1.jpg", f"bert-{evil}-1.jpg", "0-door-2.jpg"]
    for path, name in zip(pictures, names, strict=False):
        shutil.copy(path, folder / name.replace("/", "_"))
    shutil.copy(pictures[1], here / "anna-yard-7.jpg")
    shutil.copy(pictures[1], here / "carl-door-7.jpg")
    options = ["--gallery", "own", "--pattern", "(?P<pid>[^-]+)-(?P<camid>[^-]+)-", "-k", 4]
    hits = run(*options, "--query", "anna-yard-7.jpg", "carl-door-7.jpg")
    (_, _, correct), given = drawn[0]
    assert given["known"].all()
    for n, person in enumerate(("anna", "carl")):
        right = [name.startswith(person) for name in given["captions"].names[n]]
        np.testing.assert_array_equal(correct[n], right)
    assert sum(correct[0]) == 2
    said = capsys.readouterr().out
    assert "\x1b" not in said
    assert evil not in said
    assert shown(evil.replace("/", "_"))[1:-1] in said
    assert [len(table) for table in rows(said)] == [4, 4]
    hits = run(*options, "--query", "carl-door-7.jpg", "--camera", "lobby")
    assert hits.indices[0, 1] == -1
    assert hits.names[0][0].endswith("anna-lobby-1.jpg")
    hits = run(*options, "--query", "carl-door-7.jpg", "--other-cameras")
    assert not any("-door-" in name for name in hits.names[0])


def test_a_number_is_an_identity_like_any_text(here, drawn):
    """In other layouts' file names, 0 and -1 mean neither distractor nor junk."""
    (here / "own").mkdir()
    for path, pid in zip(queries(), (0, -1, 5), strict=False):
        shutil.copy(path, here / "own" / f"{pid}_c0_1.jpg")
    shutil.copy(queries()[0], "0_c0_7.jpg")
    options = ["--pattern", r"(?P<pid>-?\d+)_c(?P<camid>\d+)", "--query", "0_c0_7.jpg"]
    hits = run("--gallery", "own", *options, "-k", 3)
    assert hits.names[0][0] == "own/0_c0_1.jpg"
    assert (hits.indices >= 0).all()
    (_, _, correct), given = drawn[0]
    assert correct.tolist() == [[True, False, False]]
    assert given["known"].all()


@pytest.mark.parametrize("people", [("1", "10", "2", "anna"), ("1", "10", "2")])
def test_a_column_of_the_matches_has_one_type(here, people):
    (here / "own").mkdir()
    for path, pid in zip(queries(), people, strict=False):
        shutil.copy(path, here / "own" / f"{pid}_c3_1.jpg")
    query = "own/1_c3_1.jpg"
    run("--gallery", "own", "--layout", "folder", "--query", query, "--hits", "hits.json")
    rows = json.loads(pathlib.Path("hits.json").read_text())
    expected = people if "anna" in people else tuple(map(int, people))
    assert {row["name"]: row["pid"] for row in rows} == {
        f"own/{pid}_c3_1.jpg": value for pid, value in zip(people, expected, strict=True)
    }
    assert {row["camid"] for row in rows} == {3}


def test_a_zero_is_a_distractor_only_under_market1501(here, drawn):
    (here / "own").mkdir()
    for path, name in zip(queries(), ("0000_c1s1_f1_1.jpg", "0001_c2s1_f2_1.jpg"), strict=False):
        shutil.copy(path, here / "own" / name)
    query = "own/0000_c1s1_f1_1.jpg"
    shutil.copytree("own", "own2")
    for path in (here / "own2").iterdir():
        path.rename(path.with_name(path.name.replace("s1", "")))
    for layout, folder, known in (("market1501", "own", False), ("dukemtmc", "own2", True)):
        query = str(next(pathlib.Path(folder).glob("0000*")))
        run("--gallery", folder, "--layout", layout, "--query", query)
        (_, _, correct), given = drawn[-1]
        assert correct[0, :2].tolist() == [True, False]
        assert given["known"].all() == known


def test_a_gallery_holds_images_of_all_suffixes(here):
    (here / "own" / "below").mkdir(parents=True)
    names = ("a.BMP", "below/b.webp", "c.tiff", "d.JFIF", "e.gif")
    for path, name in zip(queries(), names, strict=False):
        with Image.open(path) as image:
            image.save(here / "own" / name)
    hits = run("--gallery", "own", "--query", "own/c.tiff", "-k", 5)
    assert sorted(hits.names[0]) == sorted(f"own/{name}" for name in names)
    assert hits.distances[0, 0] < NEAR


def test_a_saved_gallery_is_searched_without_its_images(here, capsys, monkeypatch, drawn):
    shutil.copytree(GALLERY, "copy")
    asked = queries()[:1]
    first = run("--query", *asked, "--gallery", "copy", "--save-gallery", "kept/a.gallery")
    assert "saved the gallery as 'kept/a.gallery'" in capsys.readouterr().out
    shutil.rmtree("copy")
    embed, embedded = inference.Model.embed, []

    def counted(self, images, progress=None):
        embedded.append(images)
        return embed(self, images, progress)

    monkeypatch.setattr(inference.Model, "embed", counted)
    again = run("--query", *asked, "--gallery", "kept/a.gallery", "--output", "again.png")
    assert embedded == [asked]
    np.testing.assert_array_equal(again.indices, first.indices)
    np.testing.assert_array_equal(again.distances, first.distances)
    said = capsys.readouterr().out
    assert "10 images cannot be drawn: 'copy/" in said
    assert said.endswith("drew the nearest 10 into 'again.png'\n")
    assert np.ptp(drawn[1][0][1]) == 0
    # The identities come from the names, even if the gallery was described earlier.
    hits = run("--query", *asked, "--gallery", "kept/a.gallery", "--layout", "market1501")
    assert set(hits.pids[0]) > {0}


@pytest.mark.filterwarnings("ignore")  # grpc and pandas raise some.
def test_a_gallery_in_milvus(database, here, capsys, drawn):
    paths = image_files.find_images(GALLERY, "")
    asked = queries()[:2]
    labels = layouts.read_names(paths, "market1501", None, "")
    pids, camids = np.array(labels, int).T
    origin = searching._origin(inference.load("run"))
    stored, named = MilvusGallery(database, origin=origin), f"milvus:{database}"
    stored.add(described(paths), names=paths, pids=pids, camids=camids)
    stored.close()
    given = ["--query", *asked, "--layout", "market1501", "-k", 4]
    for options in (
        ["--other-cameras"],
        ["--camera", camids[0]],
        ["--identity", pids.max()],
        ["--rerank"],
    ):
        said = []
        for gallery in (named, GALLERY):
            found = run(*given, *options, "--gallery", gallery, "--hits", "hits.csv")
            said.append((rows(capsys.readouterr().out), pathlib.Path("hits.csv").read_text()))
        assert said[0] == said[1]
        np.testing.assert_array_equal(drawn[-1][0][2], drawn[-2][0][2])
        assert (found.indices >= 0).any()
    run("--query", *asked, "--gallery", named, "--not-camera", 4, 5)
    assert {row[3] for table in rows(capsys.readouterr().out) for row in table} == {"3"}
    for options, message in (
        (["--gallery", "milvus:nowhere.db"], "no Milvus database 'nowhere.db' .--gallery"),
        (["--gallery", f"{named}#x"], "'milvus:.*#x' names no collection of images"),
        (["--gallery", named, "--camera", "door"], "--camera 'door': .* are numbers"),
        (["--gallery", named, "--other-cameras"], "needs --layout or --pattern"),
        (["--gallery", named, "--checkpoint", 1], "are of another network"),
        (["--gallery", named, "--save-gallery", "a"], "--gallery is a Milvus data"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            run("--query", *asked, *options)
    assert not pathlib.Path("nowhere.db").exists()


def test_a_gallery_of_another_network_is_refused(here, capsys):
    asked = ["--query", queries()[0]]
    run(*asked, "--save-gallery", "of_step_2")
    with pytest.raises(ValueError, match=r"'of_step_2' are of another network \('baseline, step 2"):
        run(*asked, "--gallery", "of_step_2", "--checkpoint", 1)
    gallery = Gallery.load("of_step_2")
    gallery.origin = ""  # unknown
    gallery.save("of_somebody")
    run(*asked, "--gallery", "of_somebody", "--checkpoint", 1)
    gallery = Gallery()
    gallery.add(np.zeros((2, 3)))
    gallery.save("of_three")
    with pytest.raises(ValueError, match=r"'of_three' are of another network \('', 3 numbers"):
        run(*asked, "--gallery", "of_three")
    # Images without names are found, too.
    gallery = Gallery()
    gallery.add(described(queries()[:2]))
    gallery.save("nameless")
    capsys.readouterr()
    hits = run(*asked, "--gallery", "nameless", "-k", 10**12)
    assert hits.indices.tolist() == [[0, 1]]  # A row of the length of k does not fit into memory.
    said = capsys.readouterr().out
    assert "2 images cannot be drawn" in said
    assert said.endswith("\ndrew the nearest 2 into 'search.png'\n")
    Gallery().save("empty.gallery")
    assert run(*asked, "--gallery", "empty.gallery").indices.tolist() == [[-1]]
    assert "no image of the gallery is left to be found" in capsys.readouterr().out


def test_what_makes_descriptors_others_makes_another_origin(here):
    model = copy.copy(inference.load("run"))
    model.config = ConfigDict(model.config)
    origins = [searching._origin(model), searching._origin(inference.load("run", 1))]
    for leaf, value in (("flip", True), ("normalize", True)):
        model.config.eval[leaf] = value
        origins.append(searching._origin(model))
    for size in ((80, 64), (80, 72)):
        model.config.data.image_size = size
        origins.append(searching._origin(model))
    model.variables = jax.tree.map(lambda x: x + 1e-3, model.variables)
    origins.append(searching._origin(model))
    assert len(set(origins)) == 7
    assert searching._origin(inference.load("run")) == origins[0]
    assert re.fullmatch("baseline, step 2, sha256 [0-9a-f]{64}", origins[0])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (["--query", "pedestrians"], ValueError, "'pedestrians' .is a folder"),
        (["--query", "nobody.jpg"], FileNotFoundError, "^no file 'nobody.jpg' .--query.$"),
        (["--gallery", "nowhere"], FileNotFoundError, "no folder or file 'nowhere' .--gallery"),
        (
            ["--query", "nobody.jpg", "--gallery", "nowhere"],
            FileNotFoundError,
            r"^no folder or file 'nowhere' \(--gallery\); no file 'nobody.jpg' \(--query\)$",
        ),
        # The search has no setting that skips bad images.
        (["--gallery", "bad"], ValueError, "1 of 2 files .*'bad/bad.jpg'.*or delete them$"),
        (["--gallery", "bad/bad.jpg"], ValueError, "bad.jpg' is not a file of Gallery.save"),
        (["--gallery", "empty"], ValueError, "no image .* in or below 'empty' .--gallery"),
        (["--workdir", "empty"], FileNotFoundError, r"empty/run\.json is missing"),
        (["--checkpoint", 7], FileNotFoundError, "no checkpoint of step 7"),
        (["--fpr", 0.1], FileNotFoundError, "no threshold: .*eval.* is missing; measure it with"),
        (["--camera", 1], ValueError, "--camera needs --layout or --pattern"),
        (["--other-cameras"], ValueError, "--other-cameras needs --layout or --pattern"),
        (["--layout", "market1501", "--camera", 99], ValueError, "--camera '99': the gallery has"),
        (["--layout", "market1501", "--not-camera", "x"], ValueError, "--not-camera 'x'"),
        (["--layout", "market1501", "--identity", 99], ValueError, "--identity '99'"),
        (["--layout", "market1501", "--other-cameras"], ValueError, "'good.jpg' shows no camera"),
        (["--layout", "dukemtmc"], ValueError, "no identity and camera in the name of 'pedes"),
        (["--pattern", "("], ValueError, r"--pattern '\(' is no regular expression"),
        (["--pattern", "a"], ValueError, "--pattern 'a' lacks the groups"),
        (["--output", "empty"], IsADirectoryError, "--output 'empty' is a folder"),
        (["--output", "hits.pdf"], ValueError, "--output 'hits.pdf' must end in .png"),
        (["--save-gallery", "empty"], IsADirectoryError, "--save-gallery 'empty' is a folder"),
        (["--output", "good.jpg/x.png"], OSError, "cannot write --output 'good.jpg/x.png'"),
    ],
)
def test_mistakes_are_named(here, options, error, message):
    for name in ("empty", "bad"):
        (here / name).mkdir()
    shutil.copy(queries()[0], "good.jpg")
    shutil.copy("good.jpg", "bad/good.jpg")
    (here / "bad" / "bad.jpg").write_bytes(b"no image")
    before = sorted(here.iterdir())
    query = [] if "--query" in options else ["--query", "good.jpg"]
    with pytest.raises(error, match=message):
        run(*query, *options)
    assert sorted(here.iterdir()) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--query", "link.png", "--output", "who.png"], "--output 'who.png' is a query"),
        (["--output", "linked.png"], "--output 'linked.png' is an image of the gallery"),
        (["--gallery", "kept", "--output", "own/one.png"], "'own/one.png' is an image of the gal"),
        (["--output", "own/one.png"], "--output 'own/one.png' is in the folder 'own' of"),
        (["--output", "below/new.png"], "--output 'below/new.png' is in the folder 'own' of"),
        (["--gallery", "."], "--output 'search.png' is in the folder '.' of --gallery"),
        (["--save-gallery", "own/x.jpg"], "--save-gallery 'own/x.jpg' is in the folder 'own'"),
        (
            ["--save-gallery", "new/a.csv", "--hits", "new/../new/a.csv"],
            "--hits 'new/../new/a.csv' is also the file of --save-gallery: name another",
        ),
        (["--gallery", "kept.csv", "--hits", "kept.csv"], "--hits 'kept.csv' is also the file of"),
    ],
)
def test_no_image_and_no_other_result_is_replaced(here, options, message):
    (here / "own" / "below").mkdir(parents=True)
    (here / "below").symlink_to("own/below")
    with Image.open(queries()[0]) as image:
        for name in ("own/one.png", "linked.png", "who.png"):
            image.save(name)
    (here / "own" / "link.png").symlink_to("../linked.png")
    (here / "link.png").symlink_to("who.png")
    gallery = Gallery()
    gallery.add(described(["own/one.png"]), names=["own/one.png"])
    for name in ("kept", "kept.csv"):
        gallery.save(name)
    before = {path: path.read_bytes() for path in here.rglob("*") if path.is_file()}
    given = ["--gallery", "own"] if "--gallery" not in options else []
    asked = ["--query", "who.png"] if "--query" not in options else []
    with pytest.raises(ValueError, match=re.escape(message)):
        run(*asked, *given, *options)
    assert {path: path.read_bytes() for path in here.rglob("*") if path.is_file()} == before
    assert not (here / "new").exists()


def test_a_gallery_is_saved_into_its_own_folder_and_file(here):
    (here / "own").mkdir()
    shutil.copy(queries()[0], "own/0001_c1s1_f1_1.jpg")
    options = ["--query", "own/0001_c1s1_f1_1.jpg", "--output", "own/.search.png"]
    run(*options, "--gallery", "own", "--save-gallery", "own/a.gallery")
    kept = ["--gallery", "own/a.gallery", "--save-gallery", "own/a.gallery"]
    run(*options, *kept, "--layout", "market1501")
    assert Gallery.load("own/a.gallery").pids.tolist() == [1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--layout", "dukemtmc"], "no identity and camera in the name of"),
        (["--layout", "market1501", "--identity", 99], "--identity '99'"),
    ],
)
def test_names_are_checked_before_images_are_described(here, monkeypatch, options, message):
    def embed(*arguments):
        raise AssertionError("images are described")

    monkeypatch.setattr(inference.Model, "embed", embed)
    with pytest.raises(ValueError, match=message):
        run("--query", queries()[0], *options)


def test_the_program(here):
    def start(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "reid_jax.search", *arguments],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )

    query = queries()[0]
    done = start("--workdir=run", f"--gallery={QUERY}", "--query", query, "--top=2")
    assert done.returncode == 0, done.stderr
    assert f"     1    0.0000  {query!r}\n" in done.stdout
    assert (here / "search.png").is_file()
    done = start("--workdir=run", "--gallery=nowhere", "--query", query)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "FileNotFoundError: no folder or file 'nowhere' (--gallery)",
        "(--traceback shows where)",
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--pattern=a", "--layout=cuhk03"], "not allowed with"),
        (["--top=0"], "'0' is not a whole number of at least 1"),
    ],
)
def test_options_that_cannot_be(options, message, capsys):
    with pytest.raises(SystemExit):
        command.main(["--workdir=run", "--gallery=a", "--query=b", *options])
    assert message in capsys.readouterr().err


def test_a_terminal_of_few_characters_shows_all_hits(here, monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), "ascii"))
    (here / "own").mkdir()
    shutil.copy(queries()[0], "own/实验.jpg")
    run("--query", "own/实验.jpg", "-k", 2, "--gallery", "own")
    printed = sys.stdout.buffer.getvalue().decode()
    assert re.search(r"1 {4}0\.0000  'own/\\u5b9e\\u9a8c\.jpg'", printed)
    assert pathlib.Path("search.png").exists()


def test_the_picture_is_drawn_before_hits_are_printed(here, monkeypatch):
    def fail(text):
        if "distance" in text:
            raise KeyboardInterrupt

    monkeypatch.setattr(searching, "say", fail)
    with pytest.raises(KeyboardInterrupt):
        run("--query", queries()[0])
    assert pathlib.Path("search.png").exists()


def test_hits_are_printed_also_if_the_picture_cannot_be_written(here, monkeypatch, capsys):
    def fail(*unused):
        raise OSError(28, "No space left on device", "search.png")

    monkeypatch.setattr(searching.visualize, "save", fail)
    with pytest.raises(OSError, match=r"No space left on device: 'search\.png'"):
        run("--query", queries()[0], "-k", 2)
    assert "rank  distance  image" in capsys.readouterr().out


def test_a_password_in_an_address_is_not_shown(monkeypatch):
    empty = types.SimpleNamespace(dim=0, close=lambda: None)
    monkeypatch.setattr(searching, "MilvusGallery", lambda *unused: empty)
    with pytest.raises(ValueError, match="'milvus:http://host:19530#x' names no collection"):
        searching._opened("milvus:http://me:secret@host:19530#x")


def test_a_password_in_the_address_of_a_gallery_is_not_printed(here, monkeypatch, capsys):
    other = types.SimpleNamespace(dim=3, origin="another", __len__=lambda: 1)
    monkeypatch.setattr(searching, "_opened", lambda path: other)
    address = "milvus:http://me:secret@host:19530"
    with pytest.raises(ValueError, match="are of another network") as error:
        run("--query", queries()[0], "--gallery", address)
    origin = searching._origin(inference.load("run"))
    same = Gallery(origin)
    same.add(described(queries()[:1]))
    monkeypatch.setattr(searching, "_opened", lambda path: same)
    run("--query", queries()[0], "--gallery", address)
    said = capsys.readouterr().out
    assert "1 image in 'milvus:http://host:19530'" in said
    assert "secret" not in said + str(error.value)
