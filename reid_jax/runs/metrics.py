"""The metrics of a run as files: JSON lines, and the same for TensorBoard."""

import contextlib
import json
import math
import os
import pathlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

from reid_jax.runs.workdir import METRICS
from reid_jax.runtime.files import write_text_atomically
from reid_jax.runtime.imports import hidden

with hidden("torch"):  # tensorboardX imports it for a type only, which takes seconds.
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto.event_pb2 import Event, SessionLog
    from tensorboardX.summary import scalar


class MetricsWriter:
    """Appends scalars to `metrics.jsonl` and to `tensorboard/`. A context manager.

    A line is one JSON object, `{"step": 200, "kind": "train", "loss": 1.25}`, which is on disk once
    `write` returns. JSON has no infinity and no NaN: both are written as null.
    """

    def __init__(self, workdir: str | os.PathLike[str], resume_step: int):
        """Open the metrics of a run that resumes after a step.

        A killed run has reported more than its last checkpoint, and may have left half a line.
        Records beyond `resume_step` are removed, because they will be reported again.

        Args:
            workdir: an existing folder.
            resume_step: the step of the checkpoint from which the run resumes; 0 starts afresh.

        Raises:
            ValueError: a line other than the last is damaged.
            OSError: a file cannot be written. The message names it.
        """
        path = pathlib.Path(workdir) / METRICS
        records = read_metrics(workdir) if resume_step > 0 and path.exists() else []
        kept = [record for record in records if record["step"] <= resume_step]
        with _naming(path):
            write_text_atomically(path, "".join(map(_as_line, kept)))
        self._events = _Events(path.with_name("tensorboard"), resume_step)
        self._file = path.open("a", encoding="utf-8")

    def __enter__(self) -> "MetricsWriter":
        return self

    def __exit__(self, *unused_exception) -> None:
        self.close()

    def close(self) -> None:
        """Close both files."""
        for file in (self._events, self._file):
            with contextlib.suppress(OSError):  # `write` has put the data on disk or raised.
                file.close()

    def write(self, step: int, kind: str, scalars: Mapping[str, Any]) -> None:
        """Report scalars of one step. Reads them from the device, so it waits for them.

        Args:
            step: number of steps made.
            kind: "train", "eval" or "eval/NAME"; the tag in TensorBoard is `kind/name`.
            scalars: numbers or arrays of one element by name, not named "step" or "kind".

        Raises:
            OSError: a file cannot be written. The message names it.
        """
        values = {name: float(value) for name, value in scalars.items()}
        self._events.write(int(step), {f"{kind}/{name}": value for name, value in values.items()})
        with _naming(self._file.name):
            self._file.write(_as_line({"step": int(step), "kind": kind} | values))
            self._file.flush()
            os.fsync(self._file.fileno())


class _Events:
    """The file of one start in `tensorboard/`. Every event is in it once `write` returns.

    tensorboardX's own `SummaryWriter` writes in a thread: a kill loses the events in its queue, and
    on a full disk the thread ends silently and the run waits for it forever.
    """

    def __init__(self, folder: pathlib.Path, resume_step: int):
        self._path = folder
        with _naming(folder):
            folder.mkdir(exist_ok=True)
            # The default name only has whole seconds, and a file of the same name is overwritten.
            self._writer = EventsWriter(str(folder / "events"), f".{time.time_ns()}")
            # Hide reports of earlier starts from this step on.
            purge_step = resume_step + 1 if resume_step > 0 else 0
            start = SessionLog(status=SessionLog.START)
            self._write(Event(step=purge_step, session_log=start))

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        with _naming(self._path):
            self._write(*(Event(step=step, summary=scalar(*item)) for item in scalars.items()))

    def _write(self, *events: Event) -> None:
        for event in events:
            event.wall_time = time.time()
            self._writer.write_event(event)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


@contextlib.contextmanager
def _naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Name the file in OSErrors, which errors of writing, such as a full disk, do not."""
    try:
        yield
    except OSError as error:
        raise OSError(f"cannot write {path}: {error.strerror}") from error


def read_metrics(workdir: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Read the records of `metrics.jsonl`, in the order written, with null scalars as NaN.

    The run may be writing at this moment: a last line without its end is ignored.

    Raises:
        FileNotFoundError: there is no `metrics.jsonl`.
        ValueError: a line is damaged. The message names the file and the line.
    """
    path = pathlib.Path(workdir) / METRICS
    lines = path.read_bytes().split(b"\n")
    records = []
    for number, line in enumerate(lines[:-1], start=1):
        try:
            record = json.loads(line)
            record = {key: math.nan if value is None else value for key, value in record.items()}
            records.append({"step": int(record.pop("step"))} | record)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{path}, line {number} is not a record of metrics: {line[:80]!r}. "
                "Repair the line or remove it"
            ) from error
    return records


def _as_line(record: Mapping[str, Any]) -> str:
    finite = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in record.items()
    }
    return json.dumps(finite, allow_nan=False) + "\n"
