"""SIGTERM, which schedulers send before they take a machine away, and Ctrl-C (SIGINT)."""

import contextlib
import os
import signal
import threading
from typing import Any

from jax.experimental import multihost_utils

from reid_jax.runtime import hosts
from reid_jax.runtime.messages import INTERRUPTED, TRY_AGAIN

_NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}


class Preemption:
    """Records signals, to be checked after every step. A context manager, for the main thread.

    Until `begin` there is nothing to save, and a signal ends the process at once with `TRY_AGAIN`.
    A second Ctrl-C ends it at any time, with `INTERRUPTED`. With several hosts, JAX receives
    SIGTERM instead, from `hosts.joined` on, and stops all of them after the same step; Ctrl-C is
    passed on to it as SIGTERM.

    Attributes:
        cause: name of the signal, for messages.
    """

    cause = "SIGTERM"

    def __init__(self):
        """Keep signals unchanged until the context is entered."""
        self._requested = self._begun = False
        self._interrupts = 0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Preemption":
        # Python lets only the main thread set handlers.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT,) if hosts.count() > 1 else _NAMES:
                # A shell that starts a program in the background has it ignore Ctrl-C.
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._hear)
        return self

    def __exit__(self, *unused_exception) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def begin(self) -> None:
        """Note that a step was made: from now on signals wait for `due`."""
        self._begun = True

    def due(self, step: int) -> bool:
        """Whether the run has to stop after this step; asked after every step."""
        if hosts.count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self._requested

    def _hear(self, number: int, unused_frame: object) -> None:
        self._requested, self.cause = True, _NAMES[signal.Signals(number)]
        self._interrupts += number == signal.SIGINT
        # Exit like a kill, which all files survive. An exception could be raised inside any
        # library, which might mistake it, for example for an unreadable checkpoint.
        if self._interrupts > 1:
            _end("stopped at once by Ctrl-C: run the same command again to continue", INTERRUPTED)
        if hosts.count() > 1:
            os.kill(os.getpid(), signal.SIGTERM)
        elif not self._begun:
            _end(
                f"stopped by {self.cause} before the first step: run the same command again",
                TRY_AGAIN,
            )
        if number == signal.SIGINT:
            _write(2, "stopping after this step; a second Ctrl-C stops at once")


def _end(message: str, status: int) -> None:
    _write(1, message)
    os._exit(status)


def _write(descriptor: int, line: str) -> None:
    # Ctrl-C may already have ended the program that reads the output, such as `tee`.
    with contextlib.suppress(OSError):
        os.write(descriptor, f"{line}\n".encode())
