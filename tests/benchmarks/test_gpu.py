import json
import subprocess
import sys
import textwrap

import pytest

from benchmarks import descriptors, gpu

_ROW = {"part": "some", "seconds": 1.0, "note": None, "record": None}


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Makes a benchmark of some lines of Python that find `path`, the JSON to write."""
    (tmp_path / "benchmarks").mkdir()
    monkeypatch.setattr(gpu, "ROOT", tmp_path)

    def make(lines):
        head = "import os, pathlib, sys, time\npath = pathlib.Path(sys.argv[-1].split('=')[1])\n"
        (tmp_path / "benchmarks" / "part.py").write_text(head + textwrap.dedent(lines))
        return gpu.Part("some", "part.py", ("--small",), {"SOME": "thing"})

    return make


def test_a_part_that_ends_well(program, tmp_path):
    part = program("path.write_text('{\"is\": \"' + os.environ['SOME'] + sys.argv[1] + '\"}')")
    row = gpu.run(part, tmp_path, seconds=60)
    assert row["part"] == "some"
    assert row["note"] is None
    assert row["record"] == {"is": "thing--small"}


def test_a_part_that_fails_says_why(program, tmp_path):
    row = gpu.run(program("sys.exit('no such network')"), tmp_path, seconds=60)
    assert row["note"] == "failed with status 1: no such network"
    assert row["record"] is None


def test_a_part_that_takes_too_long_keeps_what_it_wrote(program, tmp_path):
    row = gpu.run(program("path.write_text('[1]')\ntime.sleep(60)"), tmp_path, seconds=2)
    assert row["note"] == "stopped after 2 s: time was up"
    assert row["record"] == [1]
    assert row["seconds"] < 30


def test_every_part_has_a_name_and_a_script():
    for torch in (True, False):
        parts = gpu.parts(small=False, torch=torch, stablehlo="folder")
        assert len({part.name for part in parts}) == len(parts)
        for part in parts:
            assert (gpu.ROOT / "benchmarks" / part.script).is_file()


def test_all_parts_compile_at_the_same_time(program, tmp_path):
    slow = program("time.sleep(0 if '--steps=1' in sys.argv else 60)\npath.write_text('1')")
    parts = [slow._replace(name=name, script="step.py") for name in ("one", "other")]
    (tmp_path / "benchmarks" / "part.py").rename(tmp_path / "benchmarks" / "step.py")
    row = gpu.compile_all([*parts, slow], tmp_path, 60, torch=True)  # `part.py` compiles nothing.
    assert row["note"] is None
    assert row["seconds"] < 30
    assert {path.name for path in tmp_path.glob("*.json")} == {
        *("one-compiling.json", "other-compiling.json")
    }


def test_compiling_ends_when_its_time_is_up(program, tmp_path):
    slow = program("time.sleep(60)")._replace(script="descriptors.py")
    (tmp_path / "benchmarks" / "part.py").rename(tmp_path / "benchmarks" / "descriptors.py")
    row = gpu.compile_all([slow], tmp_path, 1, torch=False)
    assert row["note"] == "stopped after 1 s: some"


def test_preparations_measure_little():
    made = gpu.preparation(gpu.parts(small=False, torch=True, stablehlo=None)[0], torch=True)
    assert made.options[-1] == "--torch=compiled,compiled+autocast"
    assert "--profile" not in made.options
    assert made.options.index("--steps=1") > made.options.index("--steps=3")


def test_only_the_chosen_parts_run(tmp_path, monkeypatch, capsys):
    ran = []
    monkeypatch.setattr(gpu, "run", lambda part, *rest: ran.append(part.name) or _ROW)
    with pytest.raises(SystemExit):
        gpu.main(["--parts=networks,pmm", "--no-compiling", f"--output={tmp_path / 'gpu.json'}"])
    assert ran == ["pmm", "networks"]
    assert "--parts=pmm,networks" in json.loads((tmp_path / "gpu.json").read_text())["command"]
    with pytest.raises(SystemExit):
        gpu.main(["--parts=pmm,some", f"--output={tmp_path / 'gpu.json'}"])
    assert "unknown 'some' in --parts: choose from pmm, descriptors" in capsys.readouterr().err


@pytest.mark.slow
def test_a_rehearsal_measures_every_part(tmp_path):
    path, files = tmp_path / "gpu.json", tmp_path / "stablehlo"
    descriptors.main(["--networks=baseline", f"--export={files}"])
    options = ["--small", "--torch=none", f"--stablehlo={files}", f"--output={path}"]
    done = subprocess.run(
        [sys.executable, "benchmarks/gpu.py", *options],
        cwd=gpu.ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    content = json.loads(path.read_text())
    assert content["command"].startswith("python benchmarks/gpu.py --minutes=9.0 --small")
    assert content["platform"] == "cpu"
    compiling, *rows = content["results"]
    assert compiling["part"] == "compiling"
    notes = {row["part"]: row["note"] for row in rows}
    names = [part.name for part in gpu.parts(small=True, torch=False, stablehlo=None)]
    assert notes == dict.fromkeys(names)
    assert all(row["record"]["results"] for row in rows)
    (described,) = (row["record"]["results"] for row in rows if row["part"] == "descriptors")
    assert "stablehlo" in {row["form"] for row in described}
