import io
import os
import pathlib
import re

import numpy as np
import pytest
from PIL import Image

from reid_jax.evaluation.evaluator import scores
from reid_jax.evaluation.ranking import evaluate_ranking, nearest
from reid_jax.report import content, html_report, page, thumbnails
from tests.report_page import Blind, Evaluation, Page


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


def test_a_first_match_beyond_the_list_is_on_the_page(tmp_path, rng):
    """With its thumbnail, and in the order of the re-ranked list."""
    evaluation = Evaluation()
    offsets = rng.normal(size=(24, 40)) * 20
    evaluation.rescore = lambda i: (0.5, offsets[i])
    evaluation.result = evaluate_ranking(
        evaluation.query, evaluation.gallery, rescore=evaluation.rescore
    )
    written = Page(evaluation.write(tmp_path, length=2))
    data = written.data
    order, values = nearest(evaluation.query, evaluation.gallery, 40, rescore=evaluation.rescore)
    late = 0
    for q, ranks in enumerate(evaluation.result.ranks):
        if len(ranks) == 0 or ranks[0] <= 2:
            assert data["missed"][q] == -1
            continue
        late += 1
        place = q, ranks[0] - 1
        path = evaluation.gallery_paths[order[place]]
        (name,) = content.names([path], evaluation.dataset.root)
        assert data["gallery"]["names"][data["missed"][q]] == name
        assert data["missed_distances"][q] == values[place]
    assert 0 < late < 23
    assert len(written.thumbnails) == 24 + len(data["gallery"]["names"])


def test_thumbnails_are_those_of_queries_and_listed_images(evaluation, written):
    """Compare mean colours: queries first."""
    means = []
    for file in written.thumbnails:
        with Image.open(io.BytesIO(file)) as image:
            assert image.size == (24, 48)
            means.append(np.asarray(image.convert("RGB"), float).mean(axis=(0, 1)))
    found, _ = nearest(evaluation.query, evaluation.gallery, 10)
    shown = [*evaluation.pixels["query"], *evaluation.pixels["gallery"][np.unique(found)]]
    np.testing.assert_allclose(means, [image.mean(axis=(0, 1)) for image in shown], atol=6)


def test_verification_is_shown(evaluation, written, tmp_path, monkeypatch):
    result = evaluation.verification
    tpr, threshold = result.at(1e-3)
    scores = f"AUC {result.AUC:.1%}, EER {result.EER:.1%}, true positive rate {tpr:.1%} at false "
    scores += "positive rate 0.001" + (f" (distance {threshold:.4f})" if threshold else "")
    assert f"<dt>Verification</dt><dd>{scores}</dd>" in written.text
    labels = [a["aria-label"] for _, a in written.elements if a.get("role") == "img"]
    headings = ["CMC curve", f"Distances. {scores}", f"ROC. {scores}"]
    headings += ["Training: Loss", "Training: Retrieval"]
    assert labels == headings
    # An evaluation may have no negative pair.
    monkeypatch.setattr(evaluation, "verification", None)
    without = Page(evaluation.write(tmp_path))
    assert "Verification" not in without.text
    assert [a["aria-label"] for _, a in without.elements if a.get("role") == "img"] == headings[:1]


def test_each_dataset_has_a_row_of_scores(evaluation, written, tmp_path):
    assert not [a for tag, a in written.elements if tag == "th" and a["scope"] == "row"]
    other = Evaluation(seed=1).result
    rows = {"market1501": evaluation.result, "people <b>": other}
    page = Page(evaluation.write(tmp_path, rows=rows)).text
    table = page.partition('<table class="scores">')[2].partition("</table>")[0]
    names, *lines = re.findall("<tr>(.*?)</tr>", table)
    assert names.startswith('<td></td><th scope="col">Rank-1</th>')
    for line, name, result in zip(
        lines, ("market1501", "people &lt;b&gt;"), rows.values(), strict=True
    ):
        assert line.startswith(f'<th scope="row">{name}</th>')
        values = [float(value) for value in re.findall(r"<td>([\d.]+)<", line)]
        assert values == [round(value, 1) for value in scores(result).values()]


def test_a_list_may_be_short(tmp_path):
    evaluation = Evaluation(gallery=8)
    written = Page(evaluation.write(tmp_path))
    found, distances = nearest(evaluation.query, evaluation.gallery, 10)
    assert written.data["found"].reshape(-1, 10).min(axis=1).tolist() == [-1] * 24
    assert written.data["distances"].tolist() == distances.ravel().tolist()
    assert ((found < 0) == (written.data["found"].reshape(-1, 10) < 0)).all()


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

    # The images of another evaluation get another name, and the first ones are removed. Files that
    # are not the report's stay.
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


def test_a_failed_report_leaves_no_images(evaluation, tmp_path, monkeypatch):
    def full(path, data):
        raise OSError("No space left on device")

    monkeypatch.setattr(pathlib.Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        evaluation.write(tmp_path, page_bytes=1000)
    assert os.listdir(tmp_path / "report_images") == []
    monkeypatch.undo()
    left = tmp_path / "report_images" / f".{'0a' * 16}.part"  # by a kill
    left.mkdir()
    evaluation.write(tmp_path, page_bytes=1000)
    assert not left.exists()
