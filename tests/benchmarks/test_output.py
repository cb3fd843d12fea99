import json

import jax
import pytest

from benchmarks import output


def test_a_record_has_the_command_that_repeats_it(tmp_path):
    settings = {"networks": ["pmm", "hbfp"], "batch": 8, "small": True, "other": False}
    record = output.record("benchmarks/x.py", settings, jax.devices()[0], [{"a": 1.5}])
    assert record["command"] == "python benchmarks/x.py --networks=pmm,hbfp --batch=8 --small"
    assert record["commit"] == output.git("rev-parse", "HEAD")
    output.write(record, tmp_path / "folder" / "x.json")
    assert json.loads((tmp_path / "folder" / "x.json").read_text()) == record


def test_a_failing_git_is_none(monkeypatch):
    assert output.git("log", "0" * 40) is None
    monkeypatch.setenv("PATH", "")
    assert output.git("rev-parse", "HEAD") is None


def test_numbers_that_are_not_finite_are_not_written(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        output.write({"a": float("nan")}, tmp_path / "x.json")
    assert not (tmp_path / "x.json").exists()


def test_table():
    text = output.table(("name", "ms"), [("a", "10.5"), ("longer", "2")])
    assert text == "name      ms\na       10.5\nlonger     2"
