"""The real `train.py`, stopped from outside at any moment and restarted with the same command."""

import concurrent.futures
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import threading
import time

import pytest

from reid_jax.data import synthetic
from reid_jax.runs.metrics import read_metrics
from reid_jax.runs.workdir import CHECKPOINTS
from reid_jax.runtime.messages import TRY_AGAIN
from tests.events import shown
from tests.programs.test_train import arrays

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[2]
STEPS = 18
LEAVES = {
    "data.loader": "memory",
    "data.synthetic.test_identities": 3,
    "devices": 1,
    "epochs": STEPS,  # of one step each
    "eval.every_epochs": 5,
    "eval.batch_size": 4,
    "checkpoint.every_epochs": 1,
    "log.every_steps": 1,
}
# The moments of ten kills, and the number of kills at each.
MOMENTS = {"any": 3, "reading": 2, "step": 1, "evaluation": 1, "write": 3}


class Run:
    """`train.py` in a workdir, which can be started again. As a context manager, it ends on exit.

    Attributes:
        workdir: the run's folder.
        said: lines of the last start.
    """

    def __init__(self, shared, name, **leaves):
        self.workdir = shared / name
        self.said = []
        self._process = None
        leaves = LEAVES | {name.replace("__", "."): value for name, value in leaves.items()}
        self._command = [
            *(sys.executable, "train.py", "--config=configs/baseline_synthetic.py:triplet,small"),
            *(f"--workdir={self.workdir}", f"--config.data.root={shared / 'pedestrians'}"),
            *(f"--config.{name}={value}" for name, value in leaves.items()),
        ]
        self._environment = {**os.environ, "XDG_CACHE_HOME": str(shared / "cache")}
        # A kill must not truncate files that other tests keep there.
        self._environment.pop("JAX_COMPILATION_CACHE_DIR", None)

    def __enter__(self):
        return self

    def __exit__(self, *unused_exception):
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def start(self):
        self.said = []
        self._process = subprocess.Popen(
            self._command,
            cwd=ROOT,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._listener = threading.Thread(target=self._listen)
        self._listener.start()

    def _listen(self):
        for line in self._process.stdout:
            self.said.append(line.rstrip())

    def end(self, number=None):
        """Send a signal, or wait for the end; return the exit status."""
        if number is not None:
            self._process.send_signal(number)
        status = self._process.wait(timeout=200)
        self._listener.join()
        self._process.stdout.close()
        # The remains of a kill must cause no warning, also not in absl's log. On a busy machine
        # Orbax warns of a write that takes more than a second.
        warnings = [line for line in self.said if re.search(r"[Ww]arning|^[WE]\d{4} ", line)]
        assert not [line for line in warnings if "previous save to complete" not in line], self.said
        return status

    def wait_for(self, moment):
        """Wait until `moment()`, which reads `said`, is true."""
        while not moment():
            assert self._process.poll() is None, self.said
            time.sleep(0.003)

    def has_said(self, pattern):
        return lambda: any(re.match(pattern, line) for line in list(self.said))

    def steps(self):
        """The steps of the checkpoints."""
        return sorted(int(entry.name) for entry in self._checkpoints() if entry.name.isdigit())

    def half_written(self):
        """Folders of checkpoints that are being written, or were at a kill."""
        halves = re.compile(r"\d+\.orbax-checkpoint-tmp")
        return {(e.name, e.inode()) for e in self._checkpoints() if halves.match(e.name)}

    def _checkpoints(self):
        folder = self.workdir / CHECKPOINTS
        return list(os.scandir(folder)) if folder.exists() else []

    def kill(self, moment, rng):
        """Start the run and kill it; return whether that interrupted the writing of a
        checkpoint."""
        if self.steps() and self.steps()[-1] > STEPS - 4 and moment not in ("any", "reading"):
            moment = "reading"  # The run might end by itself.
        before = self.half_written()
        self.start()
        if moment == "any":
            time.sleep(rng.uniform(0, 3))
        elif moment == "reading":
            self.wait_for(self.has_said(rng.choice(["read 124", "read 83", "baseline:"])))
            time.sleep(rng.uniform(0, 1))
        elif moment == "write":
            self.wait_for(lambda: self.half_written() - before)
            first = self.half_written()
            if rng.random() < 0.5:  # The second checkpoint.
                self.wait_for(lambda: self.half_written() - before - first)
            time.sleep(rng.choice([0, 0.01, 0.02]))
        else:
            every = LEAVES["eval.every_epochs"] if moment == "evaluation" else 1
            at = "|".join(str(step) for step in range(every, STEPS, every))
            self.wait_for(self.has_said(rf"step +({at})/"))
            time.sleep(rng.uniform(0, 0.3))
        assert self.end(signal.SIGKILL) == -signal.SIGKILL, self.said
        return bool(self.half_written() - before)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """Data and compiled programs."""
    folder = tmp_path_factory.mktemp("killed")
    arguments = {"train_identities": 8, "test_identities": 3}
    synthetic.write_market1501(folder / "pedestrians", synthetic.Contents(**arguments), None)
    return folder


@pytest.fixture(scope="module")
def unbroken(shared):
    """The run that is never stopped."""
    with Run(shared, "unbroken") as run:
        run.start()
        assert run.end() == 0, run.said
    return run


def assert_same_end(run, unbroken):
    """Check every bit of the state, every metric, and that each step is recorded once."""
    last = str(unbroken.steps()[-1])
    left, expected = (arrays(r.workdir / CHECKPOINTS / last) for r in (run, unbroken))
    assert left.keys() == expected.keys()
    assert any("opt_state" in name for name in left)
    assert any("batch_stats" in name for name in left)
    for name, array in left.items():
        assert array.tobytes() == expected[name].tobytes(), name

    assert metrics(run) == metrics(unbroken)
    assert curves(run) == curves(unbroken)
    scores = (r.workdir / CHECKPOINTS / last / "evaluation/metadata" for r in (run, unbroken))
    assert len({path.read_text() for path in scores}) == 1
    assert not list(run.workdir.glob("*.tmp"))


def metrics(run):
    """Metrics by step and kind."""
    records = read_metrics(run.workdir)
    by_step = {(record["step"], record["kind"]): record for record in records}
    assert len(by_step) == len(records)
    return {
        key: {name: value for name, value in record.items() if name != "images_per_second"}
        for key, record in by_step.items()
    }


def curves(run):
    """The curves that TensorBoard shows."""
    points = shown(run.workdir / "tensorboard")
    return [point for point in points if point[0] != "train/images_per_second"]


def test_a_run_killed_twenty_times_ends_as_the_one_nobody_killed(shared, unbroken):
    seed = int(os.environ.get("KILLS_SEED", 0))
    print(f"KILLS_SEED={seed}")  # pytest shows it if the test fails.

    def carry_on(number):
        rng = random.Random(seed + number)
        moments = [moment for moment, times in MOMENTS.items() for _ in range(times)]
        rng.shuffle(moments)
        with Run(shared, f"killed{number}") as run:
            cut_off = [run.kill(moment, rng) for moment in moments]
            run.start()
            assert run.end() == 0, run.said
        return run, cut_off

    with concurrent.futures.ThreadPoolExecutor() as pool:
        ended = list(pool.map(carry_on, range(2)))
    cut_off = [was for _, all_of_run in ended for was in all_of_run]
    assert len(cut_off) == 20
    assert sum(cut_off) >= 3  # While a checkpoint was being written.
    for run, _ in ended:
        assert_same_end(run, unbroken)
        assert sorted(os.listdir(run.workdir / CHECKPOINTS)) == sorted(
            os.listdir(unbroken.workdir / CHECKPOINTS)
        )


def test_two_kills_change_nothing_on_two_datasets(shared):
    contents = synthetic.Contents(seed=7, train_identities=4, test_identities=3)
    synthetic.write_market1501(shared / "others", contents, None)
    leaves = {
        "data__also": f"('market1501:{shared / 'others'}',)",
        "data__identities_per_batch": 4,
        "epochs": 2,  # of three steps each
        "eval__every_epochs": 2,
    }
    with Run(shared, "two", **leaves) as unbroken, Run(shared, "two_killed", **leaves) as run:
        unbroken.start()  # Meanwhile, the other one is killed twice.
        run.start()
        run.wait_for(run.has_said(r"step +2/"))  # Within the first epoch.
        assert run.end(signal.SIGKILL) == -signal.SIGKILL, run.said
        before = run.half_written()
        run.start()
        run.wait_for(lambda: run.half_written() - before)
        assert run.end(signal.SIGKILL) == -signal.SIGKILL, run.said
        run.start()
        for each in (run, unbroken):
            assert each.end() == 0, each.said
    assert unbroken.steps()[-1] == 6
    assert_same_end(run, unbroken)


def test_sigterm_and_ctrl_c_end_a_run_that_goes_on_to_the_same_end(shared, unbroken):
    stopped = (
        r"stopped by SIGTERM after step (\d+); its checkpoint is written. Run the same command"
    )
    with Run(shared, "preempted", checkpoint__every_epochs=STEPS) as run:
        for pattern, message, number in (
            ("baseline:", "stopped by Ctrl-C before the first step: run the same", signal.SIGINT),
            (r"step +2/", stopped, signal.SIGTERM),
            # While it evaluates.
            (r"step +10/", stopped.replace("SIGTERM", "Ctrl-C"), signal.SIGINT),
        ):
            run.start()
            run.wait_for(run.has_said(pattern))
            assert run.end(number) == TRY_AGAIN == 75, run.said
            (found,) = filter(None, (re.match(message, line) for line in run.said))
            for step in found.groups():
                assert run.steps()[-1] == int(step) < STEPS
        run.start()
        assert run.end() == 0, run.said
    assert_same_end(run, unbroken)
