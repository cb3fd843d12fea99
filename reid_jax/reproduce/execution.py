"""Carries out a run of a table: the training program, one at a time in each folder."""

import contextlib
import fcntl
import json
import os
import pathlib
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from reid_jax.reproduce.plan import NAME, TRAIN, Run, finished
from reid_jax.runs.metrics import read_metrics
from reid_jax.runs.symlinks import check_symlinks
from reid_jax.runs.workdir import CHECKPOINTS
from reid_jax.runtime.files import write_text_atomically
from reid_jax.runtime.messages import TRY_AGAIN, Preempted, say

# What a run beside others prints, in its folder.
LOG = "train.log"

_CONTINUE = "run the same command again to continue"
_PAUSE = 0.2  # seconds between looks at what is waited for


def carry_out(run: Run, folder: pathlib.Path, stop: threading.Event | None = None) -> None:
    """Train, and record the measurements. A finished run is skipped.

    Args:
        run: the run to start or to resume.
        folder: the folder in which the command runs.
        stop: for a run beside others, in a thread: ends it when it is set. Such a run prints into
            `LOG` in its folder.

    Raises:
        OSError: the training failed. The message names the command.
        ValueError: a link leads out of the run's folder; see `check_symlinks`.
        Preempted: SIGTERM or `stop` ended it.
    """
    run.workdir.mkdir(parents=True, exist_ok=True)
    check_symlinks(run.workdir)
    with _alone_in(run.workdir, stop) as lock:
        if finished(run) is not None:
            return
        resumed = (run.workdir / CHECKPOINTS).exists()
        start = time.monotonic()
        status = _train(run, folder, lock, stop)
        if status == TRY_AGAIN:
            raise Preempted(_CONTINUE)
        if status != 0:
            where = "printed above" if stop is None else f"at the end of {run.workdir / LOG}"
            raise ChildProcessError(
                f"exit status {status} of {run.command}\nThe error is {where}. Run "
                "the same command again to continue"
            )
        evaluations = [record for record in read_metrics(run.workdir) if record["kind"] == "eval"]
        left = {
            "command": run.command,
            "metrics": _in_per_cent(evaluations[-1]),
            "seconds": round(time.monotonic() - start, 1),
            "resumed": resumed,
        }
        write_text_atomically(run.workdir / NAME, json.dumps(left, indent=2) + "\n")


def _train(run: Run, folder: pathlib.Path, lock: int, stop: threading.Event | None) -> int:
    """Run the training program to its end, and return its exit status."""
    program = [sys.executable, *TRAIN, *run.arguments]
    with contextlib.ExitStack() as stack:
        options: dict[str, Any] = {}
        if stop is not None:
            log = stack.enter_context((run.workdir / LOG).open("a"))
            # The first program would otherwise reserve most of a GPU's memory.
            environment = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", **os.environ}
            options = {"stdout": log, "stderr": subprocess.STDOUT, "env": environment}
        training = stack.enter_context(
            subprocess.Popen(program, cwd=folder, pass_fds=[lock], **options)
        )
        try:
            return _wait(training, stop)
        except BaseException:
            training.terminate()
            training.wait()  # The run writes its checkpoint.
            raise


def _wait(training: subprocess.Popen, stop: threading.Event | None) -> int:
    if stop is None:
        return training.wait()
    while not stop.is_set():
        with contextlib.suppress(subprocess.TimeoutExpired):
            return training.wait(_PAUSE)
    raise Preempted(_CONTINUE)


@contextlib.contextmanager
def _alone_in(workdir: pathlib.Path, stop: threading.Event | None) -> Iterator[int]:
    """Hold the lock of a run's folder; yield the lock file, which the training program inherits.

    The lock is held as long as either program lives. If only this program is killed, the next one
    waits for the training that was left behind, and two simultaneous tables do not make a run
    twice.
    """
    with (workdir / "lock").open("w") as file:
        waiting = False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not waiting:
                    say(f"waiting for another program that trains in {workdir}")
                waiting = True
                if stop is not None and stop.is_set():
                    raise Preempted(_CONTINUE) from None
                time.sleep(_PAUSE)
        yield file.fileno()


def _in_per_cent(evaluation: dict[str, Any]) -> dict[str, float]:
    return {
        name: 100 * value
        for name, value in evaluation.items()
        if name in ("mAP", "mINP") or name.startswith("Rank-")
    }
