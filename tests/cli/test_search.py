"""`reid-jax search`: its options and their defaults."""

import pytest

from reid_jax.cli import search
from reid_jax.search import searching

LEAST = ["--workdir=run", "--gallery=people", "--query", "a.jpg"]


@pytest.fixture
def calls(monkeypatch):
    calls = []
    monkeypatch.setattr(searching, "search", calls.append)
    return calls


def test_defaults(calls):
    search.main(LEAST)
    (options,) = calls
    assert (options.workdir, options.gallery, options.query) == ("run", "people", ["a.jpg"])
    assert (options.checkpoint, options.top) == ("latest", 10)
    assert (options.layout, options.pattern, options.save_gallery) == (None, None, None)
    assert (options.identity, options.camera, options.not_camera) == (None, None, None)
    assert not options.other_cameras
    assert (options.max_distance, options.fpr) == (None, None)
    assert options.output == "search.png"
    assert (options.hits, options.rerank) == (None, False)


def test_options_take_several_values(calls):
    search.main([*LEAST, "b.jpg", "-k", "3", "--identity", "1", "2", "--not-camera", "c1"])
    (options,) = calls
    assert (options.query, options.top) == (["a.jpg", "b.jpg"], 3)
    assert (options.identity, options.not_camera) == (["1", "2"], ["c1"])


def test_limits_are_numbers(calls):
    search.main([*LEAST, "--max-distance=1.7"])
    search.main([*LEAST, "--fpr=1e-3"])
    first, second = calls
    assert (first.max_distance, second.fpr) == (1.7, 1e-3)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["-k", "0"], "'0' is not a whole number of at least 1"),
        (["--layout=msmt17"], "invalid choice: 'msmt17'"),
        (["--layout=cuhk03", "--pattern=x"], "not allowed with argument --layout"),
        (["--max-distance=1", "--fpr=0.1"], "not allowed with argument --max-distance"),
        (["--max-distance=-1"], "'-1' is not a distance, such as 1.7"),
        (["--max-distance=inf"], "'inf' is not a distance"),
        (["--hits=hits.txt"], "'hits.txt' must end in .json or .csv"),
        (["--fpr=few"], "'few' is not a rate below 1, such as 1e-3"),
        (["--fpr=1"], "'1' is not a rate below 1"),
        (["--fpr=nan"], "'nan' is not a rate below 1"),
    ],
)
def test_values_out_of_range_are_refused(more, message, calls, capsys):
    with pytest.raises(SystemExit) as stop:
        search.main([*LEAST, *more])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
    assert not calls
