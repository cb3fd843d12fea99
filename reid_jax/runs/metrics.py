"""The metrics of a run as files: JSON lines, and the same for TensorBoard."""

import contextlib
import json
import math
import os
import pathlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar

from reid_jax.runtime.files import write_text_atomically

NAME = "metrics.jsonl"


class MetricsWriter:
    """Appends scalars to `metrics.jsonl` and, the same, to `tensorboard/`. A context manager.

    One JSON object a line, `{"step": 200, "kind": "train", "loss": 1.25}`, on disk once `write`
    returns. JSON knows no infinity and nothing that is not a number: both are written as null.
    """

    def __init__(self, workdir: str | os.PathLike[str], resume_step: int):
        """Opens the metrics of a run that goes on after a step.

        A killed run has reported more than it has checkpointed, and may have left half a line.
        What is beyond `resume_step` is removed, since it is about to be reported again.

        Args:
            workdir: an existing folder.
            resume_step: the step of the checkpoint the run goes on from; 0 begins afresh.

        Raises:
            ValueError: a line other than the last is damaged.
            OSError: a file cannot be written; names it.
        """
        path = pathlib.Path(workdir) / NAME
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
        """Closes both files."""
        for file in (self._events, self._file):
            with contextlib.suppress(OSError):  # What was written is on disk, or `write` has told.
                file.close()

    def write(self, step: int, kind: str, scalars: Mapping[str, Any]) -> None:
        """Reports scalars of one step. Reads them from the device, so it waits for them.

        Args:
            step: number of steps made.
            kind: "train" or "eval"; the tag in TensorBoard is `kind/name`.
            scalars: numbers or arrays of one element by name, not named "step" or "kind".

        Raises:
            OSError: a file cannot be written; names it.
        """
        values = {name: float(value) for name, value in scalars.items()}
        self._events.write(int(step), {f"{kind}/{name}": value for name, value in values.items()})
        with _naming(self._file.name):
            self._file.write(_as_line({"step": int(step), "kind": kind} | values))
            self._file.flush()
            os.fsync(self._file.fileno())


class _Events:
    """The file of one start in `tensorboard/`, every event in it once `write` returns.

    tensorboardX's own `SummaryWriter` has a thread write: a kill loses what it has not come to, and
    where the disk is full it dies unheard, and the run waits for it for ever.
    """

    def __init__(self, folder: pathlib.Path, resume_step: int):
        self._path = folder
        with _naming(folder):
            folder.mkdir(exist_ok=True)
            # The name tells seconds apart, and a file of the same name is overwritten.
            self._writer = EventsWriter(str(folder / "events"), f".{time.time_ns()}")
            # Hides what earlier starts reported from this step on.
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
    """Has an OSError name the file, which errors of writing, as of a full disk, do not."""
    try:
        yield
    except OSError as error:
        raise OSError(f"cannot write {path}: {error.strerror}") from error


def read_metrics(workdir: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The records of `metrics.jsonl`, in the order written; null scalars as NaN.

    The run may be writing this moment: a last line without its end is passed over.

    Raises:
        FileNotFoundError: there is no `metrics.jsonl`.
        ValueError: a line is damaged; names the file and the line.
    """
    path = pathlib.Path(workdir) / NAME
    lines = path.read_bytes().split(b"\n")
    records = []
    for number, line in enumerate(lines[:-1], start=1):
        try:
            record = json.loads(line)
            record = {key: math.nan if value is None else value for key, value in record.items()}
            records.append({"step": int(record.pop("step"))} | record)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{path}, line {number} is no record of metrics: {line[:80]!r}. "
                "Repair the line or remove it"
            ) from error
    return records


def _as_line(record: Mapping[str, Any]) -> str:
    finite = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in record.items()
    }
    return json.dumps(finite, allow_nan=False) + "\n"
