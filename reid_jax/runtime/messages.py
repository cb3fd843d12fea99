"""Messages of the programs: lines of text, and one clear line for what went wrong."""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import TextIO

# What a program exits with whose work goes on when it is started again: EX_TEMPFAIL of sysexits.h.
TRY_AGAIN = 75
# What a program exits with that Ctrl-C has ended, as shells have it.
INTERRUPTED = 130

_silent = False


class Preempted(Exception):
    """SIGTERM or Ctrl-C has stopped the work, and no part of it is lost."""


def say(text: str) -> None:
    """Prints a line at once. Characters that the stream cannot encode are escaped."""
    if not _silent:
        _print(text, sys.stdout)


def say_to_stderr(text: str) -> None:
    """As `say`, on standard error: for programs whose output is read by others."""
    if not _silent:
        _print(text, sys.stderr)


def _print(text: str, stream: TextIO) -> None:
    encoding = getattr(stream, "encoding", None) or "utf-8"  # Streams in memory have none.
    printed = text.encode(encoding, "backslashreplace").decode(encoding)
    with contextlib.suppress(OSError):  # A reader that went away must not cost a result.
        print(printed, file=stream, flush=True)


def silence() -> None:
    """Prints errors only from now on, because another host prints for all."""
    global _silent
    _silent = True


def is_silent() -> bool:
    """Whether `silence` was called."""
    return _silent


def shown(path: str | bytes | os.PathLike) -> str:
    """A path as messages show it: quoted, and on one line whatever its bytes are.

    Line ends, control characters and bytes that are no text are escaped, so that a file's name can
    neither forge a line of a report nor fail to print.
    """
    return repr(os.fsdecode(path))


def printable(path: str | bytes | os.PathLike) -> str:
    """A path without quotes, for where nothing else stands; escaped as `shown` does."""
    text = os.fsdecode(path)
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


@contextlib.contextmanager
def clear_errors(traceback: bool) -> Iterator[None]:
    """Ends the program with the message alone where settings, files or numbers are bad.

    Also if it was preempted, by the exit code `TRY_AGAIN`, and at Ctrl-C, by `INTERRUPTED`.

    Args:
        traceback: let the error through with its traceback instead.
    """
    try:
        yield
    except (ValueError, OSError, ImportError, FloatingPointError, MemoryError) as error:
        if traceback:
            raise
        sys.exit(f"{type(error).__name__}: {error}\n(--traceback shows where)")
    except Preempted as stopped:
        say(str(stopped))
        sys.exit(TRY_AGAIN)
    except KeyboardInterrupt:
        say_to_stderr("stopped by Ctrl-C")
        sys.exit(INTERRUPTED)
