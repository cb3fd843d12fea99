"""SIGTERM, which schedulers send before they take a machine away."""

import os
import signal
import threading

from jax.experimental import multihost_utils

from reid_jax.runtime import hosts
from reid_jax.runtime.messages import TRY_AGAIN


class Preemption:
    """Records SIGTERM, to be checked after every step. A context manager, for the main thread.

    Until `begin` there is nothing to save, and SIGTERM ends the process at once with `TRY_AGAIN`.
    With several hosts, JAX receives the signal instead, from `hosts.joined` on, and stops all of
    them after the same step.
    """

    def __init__(self):
        """Keep SIGTERM unchanged until the context is entered."""
        self._requested = self._begun = False
        self._before = None

    def __enter__(self) -> "Preemption":
        # Python lets only the main thread set handlers.
        if hosts.count() == 1 and threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._hear)
        return self

    def __exit__(self, *unused_exception) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def begin(self) -> None:
        """Note that a step was made: from now on SIGTERM waits for `due`."""
        self._begun = True

    def due(self, step: int) -> bool:
        """Whether the run has to stop after this step; asked after every step."""
        if hosts.count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self._requested

    def _hear(self, *unused_signal) -> None:
        self._requested = True
        if not self._begun:
            # Exit like a kill, which all files survive. An exception could be raised inside any
            # library, which might mistake it, for example for an unreadable checkpoint.
            os.write(1, b"stopped by SIGTERM before the first step: run the same command again\n")
            os._exit(TRY_AGAIN)
