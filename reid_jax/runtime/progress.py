"""The progress of a long loop: a bar on a terminal, lines in a log, or nothing if disabled.

A loop over images or queries reports through `Tracker`, training through `TrainingProgress`.
"""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import TextIO

from tqdm import tqdm

from reid_jax.runtime.messages import counted, is_silent, print_line, say, say_to_stderr

#: What functions take as `progress`: called with progress messages; None disables them.
Progress = Callable[[str], object] | None

#: Seconds between two lines of a `Tracker`.
PERIOD = 10.0


def clock(seconds: float) -> str:
    """A duration as `0:02:35`."""
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"


def per_second(rate: float, noun: str, plural: str = "") -> str:
    """A rate as `310 images/s`, `3.1 images/s`, `0.04 images/s`; nouns as `counted` takes them."""
    text = f"{rate:,.0f}" if rate >= 9.95 else f"{rate:.2g}"
    return f"{text} {noun if text == '1' else plural or f'{noun}s'}/s"


class Tracker:
    """Progress through a known number of items. A context manager.

    Messages read `described 128 of 1,000 images  310 images/s  ETA 0:00:03`. They are passed to
    `progress` every `period` seconds. If that is the programs' own `say` and it prints to a
    terminal, a bar shows the same instead.
    """

    def __init__(
        self,
        progress: Progress,
        total: int,
        verb: str,
        noun: str = "image",
        plural: str = "",
        *,
        show: tuple[str, ...] = ("ETA",),
        period: float | None = None,
        ends: bool = False,
    ):
        """Begin at 0 items.

        Args:
            progress: called with messages, None disables them.
            total: number of items.
            verb: begins each message: `described`.
            noun, plural: of the items, as `messages.counted` takes them.
            show: what follows the counts: `rate`, `ETA`, both or neither.
            period: seconds between two messages; None means `PERIOD`.
            ends: report the last item even if the period has not passed.
        """
        self._progress, self._total = progress, total
        self._verb, self._nouns, self._show, self._ends = verb, (noun, plural), show, ends
        self._period = PERIOD if period is None else period
        self._started = self._shown = time.monotonic()
        self._bar: _Bar | None = None
        if _prints_to_terminal(progress) and total:
            unit = f" {plural or f'{noun}s'}"
            self._bar = _Bar(total=total, file=sys.stderr, desc=verb, unit=unit)

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(self, *unused_exception) -> None:
        if self._bar is not None:
            self._bar.close()

    def update(self, done: int) -> None:
        """Report that `done` items in total are finished, if a report is due."""
        if self._bar is not None:
            self._bar.update(done - self._bar.n)
        elif self._progress is not None:
            now = time.monotonic()
            if now - self._shown > self._period or (self._ends and done == self._total):
                self._progress(self._message(done, now - self._started))
                self._shown = now

    def _message(self, done: int, seconds: float) -> str:
        rate = done / max(seconds, 1e-9)
        message = f"{self._verb} {done:,} of {counted(self._total, *self._nouns)}"
        if "rate" in self._show:
            message += f"  {per_second(rate, *self._nouns)}"
        if "ETA" in self._show:
            message += f"  ETA {clock((self._total - done) / rate)}"
        return message


class TrainingProgress:
    """Progress of training: a bar on a terminal, otherwise one line per report.

    The rate is that of the steps since the last report, without the time inside `paused`. Report
    the first step separately: it includes compilation, so it gives no rate, and the clock starts
    after it. The remaining time is estimated from all steps since then, including pauses.
    """

    def __init__(
        self,
        total_steps: int,
        images_per_step: int,
        *,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        """Begin a report of `total_steps` steps of `images_per_step` images.

        Args:
            total_steps: the step at which the run ends.
            images_per_step: images per step on all devices together.
            stream: where to write; standard error by default.
            clock: returns seconds since a fixed moment.
        """
        self._total_steps = total_steps
        self._images_per_step = images_per_step
        self._stream: TextIO | None = sys.stderr if stream is None else stream
        self._clock = clock
        self._first: tuple[int, float] | None = None  # Step and time of the first report.
        self._last: tuple[int, float] | None = None
        self._paused = 0.0  # Paused seconds since the last report.
        self._bar: _Bar | None = None

    def report(self, step: int, epoch: float, loss: float, lr: float) -> float | None:
        """Show a step that has been computed.

        Args:
            step: number of steps made.
            epoch: number of epochs made, with fractions.
            loss: to show.
            lr: learning rate, to show.

        Returns:
            Images per second since the last report, None at the first.
        """
        now = self._clock()
        rate = seconds_left = None
        if self._last is None or self._first is None:
            self._first = step, now
        else:
            seconds = now - self._last[1] - self._paused
            rate = (step - self._last[0]) * self._images_per_step / max(seconds, 1e-9)
            per_step = (now - self._first[1]) / max(step - self._first[0], 1)
            seconds_left = per_step * (self._total_steps - step)
        self._last, self._paused = (step, now), 0.0
        place = step, self._total_steps, epoch
        self._write(step, format_progress(*place, loss, lr, rate, seconds_left))
        return rate

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """A context for work that is not training, such as an evaluation, which may print lines."""
        self.close()
        start = self._clock()
        yield
        self._paused += self._clock() - start

    def close(self) -> None:
        """Leave the bar on the terminal; the next report begins a new one."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _write(self, step: int, line: str) -> None:
        if is_silent() or self._stream is None:
            return
        if not self._stream.isatty():
            print_line(line, self._stream)
            return
        if self._bar is None:
            form = "{percentage:3.0f}% |{bar:10}| {desc}"
            self._bar = _Bar(total=self._total_steps, file=self._stream, bar_format=form)
        self._bar.n = step
        self._bar.set_description_str(line)


def format_progress(
    step: int,
    total_steps: int,
    epoch: float,
    loss: float,
    lr: float,
    images_per_second: float | None,
    seconds_left: float | None,
) -> str:
    """The line of `TrainingProgress`.

        step  200/1000  epoch 4.2  loss 1.2500  lr 0.0003  310 images/s  ETA 0:02:35

    Args:
        step: number of steps made.
        total_steps: number of steps of the run.
        epoch: number of epochs made.
        loss: the loss to show.
        lr: learning rate.
        images_per_second: omitted if None.
        seconds_left: remaining time; omitted if None.

    Returns:
        One line without its end.
    """
    parts = [
        f"step {step:{len(str(total_steps))}d}/{total_steps}",
        f"epoch {epoch:.1f}",
        f"loss {loss:.4f}",
        f"lr {lr:.3g}",
    ]
    if images_per_second is not None:
        parts.append(per_second(images_per_second, "image"))
    if seconds_left is not None:
        parts.append(f"ETA {clock(seconds_left)}")
    return "  ".join(parts)


class _Bar(tqdm):
    """A bar as wide as the terminal, without tqdm's own thread."""

    monitor_interval = 0

    def __init__(self, **options):
        super().__init__(dynamic_ncols=True, **options)


def _prints_to_terminal(progress: Progress) -> bool:
    """Whether messages are the programs' own and go to a terminal: then a bar replaces them."""
    if is_silent() or progress not in (say, say_to_stderr) or not _is_terminal(sys.stderr):
        return False
    return progress is say_to_stderr or _is_terminal(sys.stdout)


def _is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and stream.isatty()
