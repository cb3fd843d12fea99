import os
import pathlib
import signal
import subprocess
import sys
import threading

import pytest

from reid_jax.runtime import hosts
from reid_jax.runtime.messages import INTERRUPTED
from reid_jax.runtime.preemption import Preemption

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("signals", "cause"),
    [
        # Asking twice does no harm.
        ([signal.SIGTERM, signal.SIGTERM], "SIGTERM"),
        ([signal.SIGINT], "Ctrl-C"),
        # `reid-jax reproduce` passes Ctrl-C on to a run that has heard it already.
        ([signal.SIGINT, signal.SIGTERM], "SIGTERM"),
    ],
)
def test_signals_wait_for_the_end_of_the_step(signals, cause):
    before = [signal.getsignal(number) for number in set(signals)]
    with Preemption() as preemption:
        preemption.begin()
        assert not preemption.due(1)
        for number in signals:
            os.kill(os.getpid(), number)
        assert preemption.due(2)
        assert preemption.due(3)
        assert preemption.cause == cause
    assert [signal.getsignal(number) for number in set(signals)] == before


def run_with_signals(*names, begin):
    """Run a program that receives signals and catches every exception they raise."""
    program = (
        "import os, signal\n"
        "from reid_jax.runtime.preemption import Preemption\n"
        "with Preemption() as preemption:\n"
        f"    if {begin}: preemption.begin()\n"
        "    try:\n"
        f"        for name in {names}:\n"
        "            os.kill(os.getpid(), getattr(signal, name))\n"
        "    except BaseException:\n"
        "        pass\n"
        "    print('survived')\n"
    )
    return subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(("name", "cause"), [("SIGTERM", "SIGTERM"), ("SIGINT", "Ctrl-C")])
def test_a_signal_before_the_first_step_ends_the_process_at_once(name, cause):
    """The process does not end by an exception, which other code could catch."""
    done = run_with_signals(name, begin=False)
    assert done.stdout == f"stopped by {cause} before the first step: run the same command again\n"
    assert (done.returncode, done.stderr) == (75, "")


def test_a_second_ctrl_c_ends_the_process_at_once():
    done = run_with_signals("SIGINT", "SIGINT", begin=True)
    assert done.stdout == "stopped at once by Ctrl-C: run the same command again to continue\n"
    assert done.stderr == "stopping after this step; a second Ctrl-C stops at once\n"
    assert done.returncode == 130


def test_ctrl_c_that_is_ignored_stays_ignored(monkeypatch):
    """Shells have programs in the background ignore it."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Preemption() as preemption:
            preemption.begin()
            os.kill(os.getpid(), signal.SIGINT)
            assert not preemption.due(1)
    finally:
        signal.signal(signal.SIGINT, before)


def test_with_several_hosts_ctrl_c_becomes_sigterm(monkeypatch):
    """JAX handles SIGTERM there, and has all hosts stop after the same step."""
    heard = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    monkeypatch.setattr(hosts, "count", lambda: 2)
    try:
        with Preemption() as preemption:
            preemption.begin()
            os.kill(os.getpid(), signal.SIGINT)
        assert heard == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_another_thread_leaves_signals_alone():
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def train():
        with Preemption() as preemption:
            seen.extend([signal.getsignal(signal.SIGTERM), preemption.due(1)])

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert seen == [before, False]


def test_ctrl_c_works_after_the_reader_of_the_output_is_gone():
    """As in `train.py | tee log`, where Ctrl-C ends `tee` first."""
    program = (
        "import os, signal\n"
        "from reid_jax.runtime.preemption import Preemption\n"
        "with Preemption() as preemption:\n"
        "    preemption.begin()\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    assert preemption.due(1)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
    )
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, stdout=write, stderr=write, check=False)
    os.close(write)
    assert done.returncode == INTERRUPTED
