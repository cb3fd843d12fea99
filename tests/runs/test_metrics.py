import contextlib
import json
import math
import resource
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from reid_jax.runs.metrics import MetricsWriter, read_metrics
from tests.events import shown


def write_steps(workdir, resume_step, *steps):
    with MetricsWriter(workdir, resume_step) as writer:
        for step in steps:
            writer.write(step, "train", {"loss": 1 / step, "lr": 1e-3})


def steps_of(workdir):
    return [record["step"] for record in read_metrics(workdir)]


def test_writes_and_reads_back(tmp_path):
    with MetricsWriter(tmp_path, 0) as writer:
        writer.write(20, "train", {"loss": jnp.float32(0.5), "lr": 1e-3})
        writer.write(np.int64(20), "eval", {"mAP": np.float64(0.25), "rank1": 1})
    assert read_metrics(tmp_path) == [
        {"step": 20, "kind": "train", "loss": 0.5, "lr": 1e-3},
        {"step": 20, "kind": "eval", "mAP": 0.25, "rank1": 1.0},
    ]


def test_each_line_is_on_disk_once_written(tmp_path):
    with MetricsWriter(tmp_path, 0) as writer:
        for step in (1, 2):
            writer.write(step, "train", {"loss": 0.5})
            assert steps_of(tmp_path) == list(range(1, step + 1))


def test_what_is_no_number_is_null(tmp_path):
    def strict(constant):
        raise AssertionError(f"{constant} is no JSON")

    with MetricsWriter(tmp_path, 0) as writer:
        writer.write(1, "train", {"loss": math.nan, "norm": math.inf, "lr": -math.inf})
    line = (tmp_path / "metrics.jsonl").read_text()
    assert json.loads(line, parse_constant=strict) == {
        "step": 1,
        "kind": "train",
        "loss": None,
        "norm": None,
        "lr": None,
    }
    (record,) = read_metrics(tmp_path)
    assert all(math.isnan(record[name]) for name in ("loss", "norm", "lr"))


def test_resuming_reports_each_step_once(tmp_path):
    """The killed run had reported beyond its checkpoint at step 4, and half of a line."""
    write_steps(tmp_path, 0, 2, 4, 6, 8)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 10, "kind": "tr')
    assert steps_of(tmp_path) == [2, 4, 6, 8]  # Evaluation may read at any moment.
    write_steps(tmp_path, 4, 6, 8, 10)
    assert steps_of(tmp_path) == [2, 4, 6, 8, 10]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.jsonl", "tensorboard"]


def test_a_kill_while_resuming_loses_nothing(tmp_path, monkeypatch):
    write_steps(tmp_path, 0, 2, 4)

    def killed(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        MetricsWriter(tmp_path, 2)
    assert steps_of(tmp_path) == [2, 4]


def test_beginning_afresh_drops_everything(tmp_path):
    """A run that was killed before its first checkpoint reports step 0 again."""
    (tmp_path / "metrics.jsonl").write_text('not json\n{"step": 0}\n')
    write_steps(tmp_path, 0, 1)
    assert steps_of(tmp_path) == [1]


@pytest.mark.parametrize("line", ["half a line", "[1, 2]", '{"kind": "train"}', '{"step": "x"}'])
def test_damaged_line_is_named(tmp_path, line):
    (tmp_path / "metrics.jsonl").write_text(f'{{"step": 1}}\n{line}\n{{"step": 3}}\n')
    with pytest.raises(ValueError, match=rf"{tmp_path}/metrics\.jsonl, line 2 is not a record"):
        read_metrics(tmp_path)


def test_no_metrics(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"metrics\.jsonl"):
        read_metrics(tmp_path)


def test_tensorboard_shows_the_same_each_step_once(tmp_path):
    """Also for runs that began within one second, whose files could have the same name."""
    write_steps(tmp_path, 0, 2, 4, 6, 8)
    write_steps(tmp_path, 4, 6)
    with MetricsWriter(tmp_path, 6) as writer:
        writer.write(8, "train", {"loss": 7.0})
        writer.write(8, "eval", {"mAP": 0.5})
        # A kill at this moment leaves the files like this.
        points = shown(tmp_path / "tensorboard")
    losses = [point[1:] for point in points if point[0] == "train/loss"]
    assert losses == [(s, np.float32(v)) for s, v in [(2, 1 / 2), (4, 1 / 4), (6, 1 / 6), (8, 7.0)]]
    assert [point for point in points if point[0] == "eval/mAP"] == [("eval/mAP", 8, 0.5)]


@contextlib.contextmanager
def full_disk(bytes_a_file):
    """Limit the size of files. Python ignores the signal, so writes fail as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_a_file, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_told_at_once_and_costs_what_was_not_written(tmp_path):
    """For whichever of the two files is full first, even without a reader of TensorBoard's."""
    for name, scalars in (("metrics.jsonl", {"x": 1 / 3}), ("tensorboard", {"x" * 900: 1.0})):
        workdir = tmp_path / name
        workdir.mkdir()
        writer = MetricsWriter(workdir, 0)
        if name == "metrics.jsonl":
            writer._events.write = lambda *unused: None
        steps = 0

        def write_on(writer=writer, scalars=scalars):
            nonlocal steps
            with full_disk(2**12):
                while True:
                    writer.write(steps + 1, "train", scalars)
                    steps += 1

        with pytest.raises(OSError, match=f"cannot write {workdir}/{name}: File too large"):
            write_on()
        writer.close()
        assert 0 < steps < 200
        with MetricsWriter(workdir, steps) as writer:
            writer.write(steps + 1, "train", scalars)
        assert steps_of(workdir) == list(range(1, steps + 2))


def test_files_that_cannot_be_made_are_named(tmp_path):
    (tmp_path / "tensorboard").touch()
    with pytest.raises(OSError, match=f"cannot write {tmp_path}/tensorboard: File exists"):
        MetricsWriter(tmp_path, 0)


def test_needs_no_tensorflow():
    code = (
        "import sys; sys.modules['tensorflow'] = None; sys.modules['tensorboard'] = None; "
        "import reid_jax.runs.metrics, tempfile; "
        "folder = tempfile.TemporaryDirectory(); "
        "writer = reid_jax.runs.metrics.MetricsWriter(folder.name, 0); "
        "writer.write(1, 'train', {'loss': 1.0}); writer.close(); folder.cleanup()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
