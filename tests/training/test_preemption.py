import os
import signal
import threading

import pytest

from reid_jax.training.preemption import Preempted, Preemption


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


def test_sigterm_waits_for_the_end_of_the_step():
    before = signal.getsignal(signal.SIGTERM)
    with Preemption() as preemption:
        preemption.begin()
        assert not preemption.due(1)
        terminate()
        terminate()  # Asking twice does no harm.
        assert preemption.due(2)
        assert preemption.due(3)
    assert signal.getsignal(signal.SIGTERM) is before


def test_sigterm_before_the_first_step_stops_at_once():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Preempted, match="before a step was made"), Preemption():
        terminate()
    assert signal.getsignal(signal.SIGTERM) is before


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
