"""The page of a report, as Python reads it."""

import base64
import hashlib
import io
import json
import os
import re

import numpy as np
import pytest
from PIL import Image

from reid_jax import visualize
from reid_jax.evaluation.ranking import nearest
from reid_jax.report import content, html_report, page, thumbnails
from tests.report_page import Blind, Evaluation, Page


@pytest.fixture(scope="module")
def evaluation():
    return Evaluation()


@pytest.fixture(scope="module")
def written(evaluation, tmp_path_factory):
    """A page with everything in it."""
    records = [{"step": step, "loss": 2.0 - step, "mAP": step / 2} for step in (0, 1)]
    return Page(
        evaluation.write(
            tmp_path_factory.mktemp("report"),
            facts={"Run": "</script><script>hacked=1</script>"},
            curves=visualize.curves_figure(records),
        )
    )


def test_lists_are_those_of_the_ranking(evaluation, written):
    found, distances = nearest(evaluation.query, evaluation.gallery, 10)
    data, gallery = written.data, written.data["gallery"]
    lists = data["found"].reshape(-1, data["length"])
    assert (found >= 0).all()
    assert [[gallery["names"][g] for g in row] for row in lists] == [
        content.names([evaluation.gallery_paths[g] for g in row], evaluation.dataset.root)
        for row in found
    ]
    assert gallery["pids"][lists].tolist() == evaluation.gallery.pids[found].tolist()
    assert gallery["camids"][lists].tolist() == evaluation.gallery.camids[found].tolist()
    assert data["distances"].tolist() == distances.ravel().tolist()
    assert data["query"]["pids"].tolist() == evaluation.query.pids.tolist()
    assert data["query"]["camids"].tolist() == evaluation.query.camids.tolist()

    precision = evaluation.result.average_precision
    np.testing.assert_array_equal(data["precision"], precision.astype(np.float32))
    assert data["hardest"][-1] == 3  # It has no match.
    assert (np.diff(precision[data["hardest"][:-1]]) >= 0).all()
    ranks = np.split(data["ranks"], data["rank_starts"][1:-1])
    assert list(map(list, ranks)) == [list(r) for r in evaluation.result.ranks]


def test_thumbnails_are_those_of_queries_and_listed_images(evaluation, written):
    """By their mean colours: queries first."""
    means = []
    for file in written.thumbnails:
        with Image.open(io.BytesIO(file)) as image:
            assert image.size == (24, 48)
            means.append(np.asarray(image.convert("RGB"), float).mean(axis=(0, 1)))
    found, _ = nearest(evaluation.query, evaluation.gallery, 10)
    shown = [*evaluation.pixels["query"], *evaluation.pixels["gallery"][np.unique(found)]]
    np.testing.assert_allclose(means, [image.mean(axis=(0, 1)) for image in shown], atol=6)


def test_a_list_may_be_short(tmp_path):
    evaluation = Evaluation(gallery=8)
    written = Page(evaluation.write(tmp_path))
    found, distances = nearest(evaluation.query, evaluation.gallery, 10)
    assert written.data["found"].reshape(-1, 10).min(axis=1).tolist() == [-1] * 24
    assert written.data["distances"].tolist() == distances.ravel().tolist()
    assert ((found < 0) == (written.data["found"].reshape(-1, 10) < 0)).all()


def test_names_of_others_are_text(written):
    """Neither elements nor attributes come of them, and JSON gives them back."""
    tags = [tag for tag, _ in written.elements]
    assert tags.count("script") == 3  # Data, thumbnails, and the page's own.
    assert "img" not in tags
    assert "i" not in tags
    assert "b" not in tags
    for _, attributes in written.elements:
        assert not any(name.startswith("on") for name in attributes)
    for block in ("data", "thumbnails"):
        assert not re.search("[<>&]", written.inside[block])
        assert written.inside[block].isascii()
    assert "&lt;script&gt;hacked=1&lt;/script&gt;" in written.text
    # A place to fill in is none where it came from a name.
    assert written.data["query"]["names"][2].endswith("&amp; {{js}}.jpg")
    assert written.inside["title"].startswith("Looks on ")


def test_the_page_asks_for_nothing(written):
    """A policy says so, by digests of its own script and style, and there is no address."""
    (policy,) = (
        attributes["content"]
        for tag, attributes in written.elements
        if attributes.get("http-equiv") == "Content-Security-Policy"
    )
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    digests = {
        f"{kind}-src": base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for kind, text in (("script", written.inside["script"]), ("style", written.inside["style"]))
    }
    assert rules == {
        "default-src": "'none'",
        "img-src": "data:",
        **{name: f"'sha256-{digest}'" for name, digest in digests.items()},
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    # The policy forbids attributes of style, and so there are none.
    assert not any("style" in attributes for _, attributes in written.elements)
    for tag, attributes in written.elements:
        assert attributes.get("href", "#").startswith("#"), tag
        assert "src" not in attributes, tag
    # The name of SVG's elements, which nobody fetches.
    assert set(re.findall(r"\w+://[^\s\"'<]*", written.text)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"@import|@font-face|fetch\(|innerHTML|XMLHttp", written.text)
    assert "url(" not in written.inside["style"]


def test_ids_are_unique(written):
    ids = [attributes["id"] for _, attributes in written.elements if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_the_same_evaluation_is_the_same_file(evaluation, written, tmp_path):
    again = [Page(evaluation.write(tmp_path)).text for _ in range(2)]
    assert again[0] == again[1] != written.text


def test_a_network_without_gradcam(evaluation, tmp_path):
    written = Page(evaluation.write(tmp_path, Blind()))
    assert written.data["stages"] == []
    assert len(written.data["maps"]) == 0
    assert len(written.thumbnails) == len(Page(evaluation.write(tmp_path)).thumbnails)


def test_what_does_not_fit_lies_beside_the_page(evaluation, written, tmp_path):
    size = len(written.text)
    small = evaluation.write(tmp_path, page_bytes=size - 10_000)
    assert small.stat().st_size <= size - 10_000
    assert len(Page(small).thumbnails) == len(written.thumbnails)
    assert os.listdir(tmp_path) == ["report.html"]

    said = []
    beside = Page(evaluation.write(tmp_path, page_bytes=1000, said=said))
    count = len(written.thumbnails)
    assert f"thumbnails of {count} images in '{tmp_path}/report_images'" in said[-1]
    assert beside.thumbnails == []
    assert beside.data["starts"] is None
    images = tmp_path / beside.data["folder"]
    files = [(images / page.image_path(i)).read_bytes() for i in range(count)]
    assert files[:24] == thumbnails.encode(evaluation.pixels["query"], thumbnails.FREE)
    assert sum(len(names) for _, _, names in os.walk(images)) == count
    (policy,) = (a["content"] for _, a in beside.elements if "http-equiv" in a)
    assert "img-src 'self' file:;" in policy

    # Another evaluation's images come under another name, and then the first ones go. What is
    # not the report's stays.
    (tmp_path / "report_images" / "mine").mkdir()
    other = Page(Evaluation(seed=1).write(tmp_path, page_bytes=1000))
    assert other.data["folder"] != beside.data["folder"]
    names = {"mine", os.path.basename(other.data["folder"])}
    assert set(os.listdir(tmp_path / "report_images")) == names
    again = Page(Evaluation(seed=1).write(tmp_path, page_bytes=1000))
    assert again.data["folder"] == other.data["folder"]
    assert set(os.listdir(tmp_path / "report_images")) == names
    (tmp_path / "report_images" / "mine").rmdir()
    evaluation.write(tmp_path)
    assert os.listdir(tmp_path) == ["report.html"]


def test_a_failure_leaves_the_earlier_page(evaluation, tmp_path, monkeypatch):
    path = evaluation.write(tmp_path, page_bytes=1000)
    before = path.read_bytes()
    (folder,) = os.listdir(tmp_path / "report_images")

    def full(*arguments):
        raise OSError("No space left on device")

    monkeypatch.setattr(html_report, "write_text_atomically", full)
    with pytest.raises(OSError, match="No space"):
        Evaluation(seed=1).write(tmp_path, page_bytes=1000)
    assert path.read_bytes() == before
    assert folder in os.listdir(tmp_path / "report_images")


def test_images_and_thumbnails_must_go_together(evaluation, written):
    images = content.Images(["a"], np.ones(1, int), np.ones(1, int))
    lists = content.Lists(
        images, images, np.zeros((1, 1), np.int32), np.zeros((1, 1), np.float32),
        np.ones(1), [np.ones(1, int)], [], np.zeros((1, 0, 1, 1), np.uint8),
    )  # fmt: skip
    summary = content.Summary("", [], [], [])
    with pytest.raises(ValueError, match="3 thumbnails do not go with 2 images"):
        page.build(summary, lists, [b""] * 3, ratio=0.5, gallery_size=1)


def test_json_gives_back_what_went_in():
    text = page._json({"<&>": "</script>\u2028\udcff\"'"})
    assert json.loads(text) == {"<&>": "</script>\u2028\udcff\"'"}
    assert text.isascii()
