import json

import pytest

from benchmarks import start
from tests.benchmarks import schema

SETTINGS = {"rounds": {int}, "small": bool}
ROW = {"start": str, "seconds": {float}, "least_seconds": {float}}


@pytest.mark.slow
def test_what_is_written_and_printed(tmp_path, capsys):
    path = tmp_path / "start.json"
    start.main(["--rounds=1", "--small", f"--output={path}"])
    content = json.loads(path.read_text())
    schema.check_record(content, SETTINGS, ROW)
    seconds = {row["start"]: row["seconds"] for row in content["results"]}
    assert list(seconds) == ["import", "embed, small", "first line", "first step"]
    assert seconds["import"] < seconds["embed, small"]
    assert seconds["first line"] < seconds["first step"]
    assert len(capsys.readouterr().out.splitlines()) == 1 + len(seconds)


def test_a_start_that_fails_shows_its_error(tmp_path):
    with pytest.raises(ChildProcessError, match="no such thing"):
        start.run(["-c", "raise SystemExit('no such thing')"], tmp_path)
    with pytest.raises(ChildProcessError, match="train --config=nothing"):
        start.train("nothing", tmp_path / "run", tmp_path)
