import io
import itertools
import math
import re
import sys
import weakref

import pytest

from reid_jax.runtime import messages
from reid_jax.runtime import progress as progress_module
from reid_jax.runtime.messages import say, say_to_stderr
from reid_jax.runtime.progress import Tracker, TrainingProgress, clock, format_progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Clock:
    """A clock that only the test advances."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def test_rate_and_time_left_leave_out_the_first_step():
    clock, stream = Clock(), io.StringIO()
    progress = TrainingProgress(100, 64, stream=stream, clock=clock)
    clock.now += 60  # for compilation
    assert progress.report(1, 0.1, 5.0, 1e-3) is None
    clock.now += 5
    # 10 steps of 64 images in 5 s.
    assert progress.report(11, 1.0, 4.0, 1e-3) == pytest.approx(128.0)
    clock.now += 20
    assert progress.report(21, 2.0, 3.0, 1e-3) == pytest.approx(32.0)  # Since the last report.
    assert stream.getvalue().splitlines() == [
        "step   1/100  epoch 0.1  loss 5.0000  lr 0.001",
        # 89 steps at 0.5 s, then 79 at 25 s / 20.
        "step  11/100  epoch 1.0  loss 4.0000  lr 0.001  128 images/s  ETA 0:00:44",
        "step  21/100  epoch 2.0  loss 3.0000  lr 0.001  32 images/s  ETA 0:01:39",
    ]


def test_evaluation_counts_for_the_time_left_not_for_the_rate():
    clock, stream = Clock(), io.StringIO()
    progress = TrainingProgress(30, 64, stream=stream, clock=clock)
    progress.report(10, 0.0, 1.0, 1e-3)
    clock.now += 2
    with progress.paused():
        clock.now += 30
    clock.now += 3
    assert progress.report(20, 0.0, 1.0, 1e-3) == pytest.approx(128.0)
    assert stream.getvalue().splitlines()[-1].endswith("128 images/s  ETA 0:00:35")
    clock.now += 5
    assert progress.report(30, 0.0, 1.0, 1e-3) == pytest.approx(128.0)
    assert stream.getvalue().splitlines()[-1].endswith("ETA 0:00:00")


def test_failed_evaluation_passes_its_error_on():
    progress = TrainingProgress(30, 64, stream=io.StringIO())
    with pytest.raises(RuntimeError, match="evaluation"), progress.paused():
        raise RuntimeError("evaluation")


def test_a_terminal_shows_a_bar_rewritten_in_place(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    stream = Terminal()
    progress = TrainingProgress(1000, 64, stream=stream, clock=itertools.count().__next__)
    progress.report(500, 12.0, 10.0, 1e-3)
    progress.report(1000, 12.0, 1.0, 1e-3)
    assert "\n" not in stream.getvalue()
    drawn = stream.getvalue().split("\r")
    assert re.fullmatch(
        r" 50% \|#+ +\| step  500/1000  epoch 12.0  loss 10.0000  lr 0.001 *", drawn[-2]
    )
    last = r"100% \|#+\| step 1000/1000  epoch 12.0  loss 1.0000  lr 0.001  32,000 images/s  "
    last += r"ETA 0:00:00 *"
    assert re.fullmatch(last, drawn[-1])
    with progress.paused():
        assert stream.getvalue().endswith("\n")
    progress.close()
    assert stream.getvalue().count("\n") == 1


def test_a_bar_is_as_wide_as_the_terminal(monkeypatch):
    monkeypatch.setattr(progress_module._Bar, "_instances", weakref.WeakSet())
    stream = Terminal()
    bar = progress_module._Bar(total=9, file=stream, bar_format="{desc}")
    bar.dynamic_ncols = None
    bar.ncols = 40
    bar.set_description_str("x" * 50)
    assert stream.getvalue().split("\r")[-1] == "x" * 40
    bar.close()


def test_silence_is_kept(monkeypatch):
    monkeypatch.setattr(messages, "_silent", True)
    for stream in (Terminal(), io.StringIO()):
        TrainingProgress(9, 64, stream=stream).report(1, 0.1, 1.0, 1e-3)
        assert stream.getvalue() == ""


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            (7, 1000, 0.04, 12.34567, 2.5e-4, None, None),
            "step    7/1000  epoch 0.0  loss 12.3457  lr 0.00025",
        ),
        (
            (200, 1000, 4.25, 1.25, 1 / 3, 309.6, 155.4),
            "step  200/1000  epoch 4.2  loss 1.2500  lr 0.333  310 images/s  ETA 0:02:35",
        ),
        (
            (1, 9, 1.0, math.nan, 1e-5, 3.14, 100 * 3600 + 59.6),
            "step 1/9  epoch 1.0  loss nan  lr 1e-05  3.1 images/s  ETA 100:01:00",
        ),
    ],
)
def test_format(arguments, line):
    assert format_progress(*arguments) == line


def test_one_of_one_and_slow_rates(monkeypatch):
    """Numbers and nouns agree, and a rate above zero is shown as such."""
    clock, lines = Clock(), []
    monkeypatch.setattr(progress_module.time, "monotonic", clock)
    for total, nouns in ((1, ("image",)), (1, ("query", "queries")), (2, ("query", "queries"))):
        with Tracker(lines.append, total, "read", *nouns, show=("rate",), ends=True) as tracker:
            clock.now += 25.0
            tracker.update(total)
    assert lines == [
        "read 1 of 1 image  0.04 images/s",
        "read 1 of 1 query  0.04 queries/s",
        "read 2 of 2 queries  0.08 queries/s",
    ]
    rates = [progress_module.per_second(rate, "image") for rate in (0, 1, 9.94, 9.96, 12345.6)]
    assert rates == ["0 images/s", "1 image/s", "9.9 images/s", "10 images/s", "12,346 images/s"]


def test_clock():
    assert [clock(s) for s in (0, 59.4, 60, 3599.6, 100 * 3600)] == [
        "0:00:00", "0:00:59", "0:01:00", "1:00:00", "100:00:00",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("show", "line"),
    [
        (("ETA",), "read 500 of 1,500 files  ETA 0:00:20"),
        (("rate", "ETA"), "read 500 of 1,500 files  50 files/s  ETA 0:00:20"),
        ((), "read 500 of 1,500 files"),
    ],
)
def test_a_log_has_a_line_every_period(show, line, monkeypatch):
    clock, lines = Clock(), []
    monkeypatch.setattr(progress_module.time, "monotonic", clock)
    with Tracker(lines.append, 1500, "read", "file", show=show) as tracker:
        for done, seconds in ((250, 5.0), (500, 5.5), (1000, 9.0)):
            clock.now += seconds
            tracker.update(done)
        assert [len(lines), lines[0].replace("48", "50")] == [1, line.replace("0:20", "0:21")]
        clock.now += 5.0
        tracker.update(1500)
    assert len(lines) == 2


def test_the_end_is_a_line_on_request():
    for ends, expected in ((True, ["read 9 of 9 images"]), (False, [])):
        lines = []
        with Tracker(lines.append, 9, "read", show=(), ends=ends) as tracker:
            tracker.update(8)
            tracker.update(9)
        assert lines == expected


def test_nothing_is_shown_where_nobody_listens(monkeypatch, capsys):
    monkeypatch.setattr(progress_module, "PERIOD", -1.0)
    with Tracker(None, 9, "read") as tracker:
        tracker.update(9)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("progress", "out", "err", "bar"),
    [
        (say, True, True, True),
        (say, False, True, False),  # Lines go to the redirected output.
        (say, True, False, False),
        (say_to_stderr, False, True, True),
        (print, True, True, False),  # A caller's function is called.
    ],
)
def test_a_bar_stands_for_the_programs_own_lines_on_a_terminal(
    progress, out, err, bar, monkeypatch
):
    monkeypatch.setattr(progress_module, "PERIOD", -1.0)
    streams = [Terminal() if is_terminal else io.StringIO() for is_terminal in (out, err)]
    monkeypatch.setattr(sys, "stdout", streams[0])
    monkeypatch.setattr(sys, "stderr", streams[1])
    with Tracker(progress, 8, "described") as tracker:
        tracker.update(4)
        tracker.update(8)
    lines = [stream.getvalue() for stream in streams]
    assert ("described: 100%" in lines[1]) == bar
    assert ("described 8 of 8 images  ETA 0:00:00\n" in "".join(lines)) != bar


def test_a_broken_log_stream_does_not_stop_training():
    class Closed(io.StringIO):
        def write(self, text):
            raise BrokenPipeError(text)

    progress = TrainingProgress(9, 64, stream=Closed(), clock=iter([0.0, 2.0]).__next__)
    assert progress.report(1, 0.1, 1.0, 1e-3) is None
    assert progress.report(2, 0.2, 1.0, 1e-3) == 32.0


def test_without_standard_error_there_is_no_bar(monkeypatch, capsys):
    monkeypatch.setattr(progress_module, "PERIOD", -1.0)
    monkeypatch.setattr(sys, "stderr", None)
    TrainingProgress(9, 64).report(1, 0.1, 1.0, 1e-3)
    with Tracker(say, 8, "described") as tracker:
        tracker.update(8)
    assert capsys.readouterr().out == "described 8 of 8 images  ETA 0:00:00\n"
