import os
import pathlib
import signal
import subprocess
import sys
import threading

from reid_jax.runtime.preemption import Preemption

ROOT = pathlib.Path(__file__).parents[2]


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


def test_sigterm_waits_for_the_end_of_the_step():
    before = signal.getsignal(signal.SIGTERM)
    with Preemption() as preemption:
        preemption.begin()
        assert not preemption.due(1)
        terminate()
        terminate()  # A second signal does no harm.
        assert preemption.due(2)
        assert preemption.due(3)
    assert signal.getsignal(signal.SIGTERM) is before


def test_sigterm_before_the_first_step_ends_the_process_at_once():
    """The process does not end by an exception, which other code could catch."""
    program = (
        "import os, signal\n"
        "from reid_jax.runtime.preemption import Preemption\n"
        "with Preemption():\n"
        "    try:\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "    except BaseException:\n"
        "        pass\n"
        "    print('survived')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stdout == "stopped by SIGTERM before the first step: run the same command again\n"
    assert (done.returncode, done.stderr) == (75, "")


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
