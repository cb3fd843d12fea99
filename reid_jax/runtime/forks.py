"""Forked processes, in which JAX hangs: its threads exist only in the process that forked."""

import os

# The process in which the check was first made.
_process: int | None = None


def check_not_forked() -> None:
    """Raise RuntimeError in a process that was forked from one that had made this check.

    Functions that compute with JAX for users call it first.
    """
    global _process
    if _process is None:
        _process = os.getpid()
    if _process != os.getpid():
        raise RuntimeError(
            f"this process was forked from process {_process}, which had used JAX, and JAX does "
            "not work in a fork: start processes by multiprocessing.get_context('spawn')"
        )
