"""The page of a report, parsed in Python."""

import base64
import hashlib
import json
import re

import numpy as np
import pytest

from reid_jax.report import content, page
from tests.report_page import CALLED, Blind, Evaluation, Page


def test_names_of_others_are_text(written):
    """They create no elements or attributes, and JSON returns them unchanged."""
    tags = [tag for tag, _ in written.elements]
    assert tags.count("script") == 3  # data, thumbnails, and the page's own script
    assert "img" not in tags
    assert "i" not in tags
    assert "b" not in tags
    for _, attributes in written.elements:
        assert not any(name.startswith("on") for name in attributes)
    for block in ("data", "thumbnails"):
        assert not re.search("[<>&]", written.inside[block])
        assert written.inside[block].isascii()
    assert "&lt;script&gt;hacked=1&lt;/script&gt;" in written.text
    # Placeholders in names are not replaced.
    assert written.data["query"]["names"][2].endswith("&amp; {{js}}.jpg")
    assert written.inside["title"].startswith("Looks on ")


def test_people_and_cameras_keep_their_names(tmp_path):
    evaluation = Evaluation(**CALLED)
    evaluation.write(tmp_path, Blind())
    data = Page(tmp_path / "report.html").data
    assert data["identities"] == {"1": "gina", "2": "<b>hugo", "4": "0007"}
    assert data["cameras"] == {"1": "lobby", "2": r"yard\n"}


def test_the_page_asks_for_nothing(written):
    """A policy allows only the digests of its own script and style, and the page has no address."""
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
    # The policy forbids attributes of style, so there must be none.
    assert not any("style" in attributes for _, attributes in written.elements)
    for tag, attributes in written.elements:
        assert attributes.get("href", "#").startswith("#"), tag
        assert "src" not in attributes, tag
    # The name of SVG's elements, an address that is never fetched.
    assert set(re.findall(r"\w+://[^\s\"'<]*", written.text)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"@import|@font-face|fetch\(|innerHTML|XMLHttp", written.text)
    assert "url(" not in written.inside["style"]


def test_ids_are_unique(written):
    ids = [attributes["id"] for _, attributes in written.elements if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_images_and_thumbnails_must_go_together(evaluation, written):
    images = content.Images(["a"], np.ones(1, int), np.ones(1, int))
    lists = content.Lists(
        images, images, np.zeros((1, 1), np.int32), np.zeros((1, 1), np.float32),
        np.ones(1), [np.ones(1, int)], [], np.zeros((1, 0, 1, 1), np.uint8),
        -np.ones(1, np.int32), np.full(1, np.inf, np.float32),
    )  # fmt: skip
    summary = content.Summary("", [], {}, [])
    with pytest.raises(ValueError, match="3 thumbnails do not match 2 images"):
        page.build(summary, lists, [b""] * 3, ratio=0.5, gallery_size=1)


def test_json_gives_back_what_went_in():
    text = page._json({"<&>": "</script>\u2028\udcff\"'"})
    assert json.loads(text) == {"<&>": "</script>\u2028\udcff\"'"}
    assert text.isascii()
