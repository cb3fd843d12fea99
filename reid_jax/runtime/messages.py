"""Messages of the programs: lines of text, and one clear line for what went wrong."""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import TextIO

from absl import logging

# The exit code of a program whose work can be resumed by starting it again: EX_TEMPFAIL of
# sysexits.h.
TRY_AGAIN = 75
# The exit code of a program that Ctrl-C has ended, as in shells.
INTERRUPTED = 130

_silent = False


class Preempted(Exception):
    """SIGTERM or Ctrl-C has stopped the work; all progress is saved."""


def say(text: str) -> None:
    """Print a line at once. Characters that the stream cannot encode are escaped."""
    if not _silent:
        print_line(text, sys.stdout)


def say_to_stderr(text: str) -> None:
    """Like `say`, on standard error, for programs whose output is read by other programs."""
    if not _silent:
        print_line(text, sys.stderr)


def print_line(text: str, stream: TextIO | None) -> None:
    """Print a line at once. A stream that has lost its reader, or was closed, is skipped."""
    if stream is None:  # as `sys.stderr` is where the program was started without it
        return
    encoding = getattr(stream, "encoding", None) or "utf-8"  # Streams in memory have none.
    printed = text.encode(encoding, "backslashreplace").decode(encoding)
    with contextlib.suppress(OSError):  # A reader that went away must not cost a result.
        print(printed, file=stream, flush=True)


def warn(text: str) -> None:
    """Log a warning of one line, unless another host prints for all."""
    if not _silent:
        logging.warning("%s", text)


def counted(number: int, noun: str, plural: str = "") -> str:
    """A number and what it counts: `0 steps`, `1 step`, `1,200 steps`.

    Args:
        number: how many.
        noun: in the singular.
        plural: of the noun, if it is not the noun with an s.
    """
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def open_standard_streams() -> None:
    """Open those of the descriptors 0, 1 and 2 that the program was started without.

    Otherwise files that it opens get these numbers, and messages of libraries end up in them.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)


def silence() -> None:
    """From now on print only errors, because another host prints for all."""
    global _silent
    _silent = True


def is_silent() -> bool:
    """Whether `silence` was called."""
    return _silent


def shown(path: str | bytes | os.PathLike) -> str:
    """A path for messages: quoted, and on one line whatever bytes it has.

    Line ends, control characters and bytes that are not text are escaped, so that a file's name can
    neither forge a line of a report nor fail to print.
    """
    return repr(os.fsdecode(path))


def printable(path: str | bytes | os.PathLike) -> str:
    """A path without quotes, for a place of its own; escaped as in `shown`."""
    text = os.fsdecode(path)
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


@contextlib.contextmanager
def clear_errors(traceback: bool) -> Iterator[None]:
    """On bad settings, files or numbers, end the program with only the message of the error.

    If it was preempted, the exit code is `TRY_AGAIN`; after Ctrl-C, it is `INTERRUPTED`.

    Args:
        traceback: let the error through with its traceback instead.
    """
    try:
        yield
    except (ValueError, OSError, ImportError, FloatingPointError, MemoryError) as error:
        if traceback:
            raise
        text = f"{error}{_lost_folder(error)}"
        sys.exit(f"{type(error).__name__}: {text}\n(--traceback shows where)")
    except Preempted as stopped:
        say(str(stopped))
        sys.exit(TRY_AGAIN)
    except KeyboardInterrupt as interrupt:
        say_to_stderr(": ".join(["stopped by Ctrl-C", *interrupt.args]))
        sys.exit(INTERRUPTED)


def _lost_folder(error: Exception) -> str:
    """What to add to the error of a call that found no current folder; it names no file."""
    if isinstance(error, FileNotFoundError) and error.filename is None:
        try:
            os.getcwd()
        except FileNotFoundError:
            return ": the current folder was removed; change to another"
    return ""
