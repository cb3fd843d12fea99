"""CSV files that list images with identities, cameras and splits."""

import csv
import io
import os
from collections.abc import Iterator

from reid_jax.data.named import Who, plain_number
from reid_jax.runtime.messages import counted, shown, warn

SPLITS = ("train", "query", "gallery")
_NEEDED = ("path", "identity", "split")
_COLUMNS = (*_NEEDED, "camera")


def read(file: str, *, to_train: bool = True) -> tuple[list[list[str]], list[list[Who]]]:
    """Read the list.

    The file is UTF-8, with or without a byte order mark. Its first line names the columns `path`,
    `identity`, `split` and, if cameras are known, `camera`, in any order; a warning names other
    columns, which are ignored. Paths are relative to the file's folder. Empty lines are skipped.

    Args:
        file: the CSV file.
        to_train: whether to read the lines of the training split.

    Returns:
        For train, query and gallery: the paths in sorted order, and the identity and the camera of
        each; the camera is "" for all images if cameras are not known.

    Raises:
        ValueError: a line is wrong, or query or gallery has no line. The message names the lines.
    """
    folder = os.path.dirname(file)
    splits: dict[str, dict[str, Who]] = {split: {} for split in SPLITS}
    known = _Known(folder)
    problems = []
    for number, fields in _lines(file):
        problem = fields if isinstance(fields, str) else _problem(fields, folder, to_train)
        if isinstance(fields, dict) and not problem and fields["split"] in _used(to_train):
            who = fields["identity"], plain_number(fields["camera"])
            problem = known.add(number, fields["path"], fields["split"], who)
            splits[fields["split"]][fields["path"]] = who
        if problem:
            problems.append(f"line {number}: {problem}")
    if problems:
        rest = len(problems) - 3
        more = f"; and {counted(rest, 'more bad line')}" if rest > 0 else ""
        raise ValueError(f"{file!r}, {'; '.join(problems[:3])}{more}")
    for split in SPLITS[1:]:
        if not splits[split]:
            raise ValueError(f"{file!r} has no line with the split {split!r}")
    paths = [sorted(splits[split], key=os.path.normpath) for split in SPLITS]
    people = [
        [splits[split][path] for path in listed]
        for split, listed in zip(SPLITS, paths, strict=True)
    ]
    return [[os.path.join(folder, path) for path in listed] for listed in paths], people


class _Known:
    """The lines so far, which later lines must not repeat or contradict."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._first: dict[str, tuple[int, Who]] = {}
        self._lines: dict[tuple[str, str], int] = {}
        self._camera: tuple[int, str] | None = None

    def add(self, number: int, path: str, split: str, who: Who) -> str:
        """Add a line, and return its contradiction to an earlier one, or ""."""
        place = os.path.abspath(os.path.join(self._folder, path))
        line = self._lines.setdefault((place, split), number)
        if line != number:
            return f"{path!r} is in the split {split!r} already, by line {line}"
        line, there = self._first.setdefault(place, (number, who))
        if there[0] != who[0]:
            return f"{path!r} shows {who[0]!r}, but {there[0]!r} in line {line}"
        self._camera = self._camera or (number, who[1])
        line, camera = self._camera
        if bool(camera) != bool(who[1]):
            fault = f"no camera, but line {line} has one"
            if who[1]:
                fault = f"a camera, but line {line} has none"
            return f"{fault}: give all images a camera, or none"
        if there[1] != who[1]:
            line = self._first[place][0]
            return f"{path!r} has the camera {who[1]!r}, but {there[1]!r} in line {line}"
        return ""


def _used(to_train: bool) -> tuple[str, ...]:
    return SPLITS if to_train else SPLITS[1:]


def _problem(fields: dict[str, str], folder: str, to_train: bool) -> str:
    """The fault of a line by itself, or ""."""
    for column in ("path", "identity"):
        if not fields[column]:
            return f"the {column} is empty"
    if fields["split"] not in SPLITS:
        return f"unknown split {fields['split']!r}; it must be train, query or gallery"
    if fields["split"] in _used(to_train) and not os.path.isfile(
        os.path.join(folder, fields["path"])
    ):
        return f"no file {fields['path']!r} in {folder or '.'!r}"
    return ""


def _lines(file: str) -> Iterator[tuple[int, dict[str, str] | str]]:
    """The number of each line below the header, and its fields by column, or its fault."""
    rows = _rows(file)
    _, header = next(rows, (1, []))
    columns = [column.strip().lower() for column in header]
    missing = [column for column in _NEEDED if column not in columns]
    twice = [column for column in _COLUMNS if columns.count(column) > 1]
    if missing or twice:
        fault = f"no column {missing[0]!r}" if missing else f"two columns {twice[0]!r}"
        raise ValueError(
            f"{file!r}, line 1: {fault} in {','.join(header)!r}; the first line must name the "
            "columns path, identity and split, and camera if cameras are known, with commas "
            "between them"
        )
    if others := [column for column in columns if column not in _COLUMNS]:
        warn(f"columns of {shown(file)} that are not used: {', '.join(map(repr, others))}")
    for number, row in rows:
        fields = [field.strip() for field in row]
        if len(fields) == len(columns):
            yield number, {"camera": "", **dict(zip(columns, fields, strict=True))}
        elif any(fields):
            yield number, f"{counted(len(row), 'field')}, but the first line has {len(columns)}"


def _rows(file: str) -> Iterator[tuple[int, list[str]]]:
    """The rows of a file, each with the number of its first line."""
    with open(file, "rb") as opened:
        data = opened.read()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{file!r}, line {line}: no text in UTF-8; save the file in the encoding UTF-8"
        ) from None
    rows = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True, strict=True)
    while True:
        number = rows.line_num + 1
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            raise ValueError(f"{file!r}, line {number}: {error}") from None
        yield number, row
