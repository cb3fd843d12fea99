"""Identities and cameras of a search: texts in file names, and their numbers in a gallery."""

import re
from collections.abc import Callable, Sequence

import numpy as np

from reid_jax.data import layouts
from reid_jax.gallery import Hits
from reid_jax.runtime.messages import shown

# The number of an identity that the gallery does not have; no image has this number.
_ABSENT = -2


class Labels:
    """Identities and cameras in file names, and their numbers in a gallery.

    Attributes:
        texts: (identity, camera) of each gallery image.
        pids: int64 (N,), numbers of the gallery's identities.
        camids: int64 (N,), numbers of the gallery's cameras.
        counted: whether identities, and whether cameras, have other numbers than their texts.
    """

    def __init__(
        self, paths: Sequence[str], read: Callable[[Sequence[str]], list], layout: str | None
    ):
        """Number the identities and cameras in the names of gallery images.

        If all texts are numbers of at least `layouts.least_identity`, they are kept; otherwise they
        are counted from 1.

        Args:
            paths: N paths.
            read: from paths to (identity, camera) texts, None for names without them.
            layout: of the names; None with a pattern.

        Raises:
            ValueError: a name shows no identity and camera.
        """
        self._read, self._layout = read, layout
        self.texts = read(paths)
        for path, who in zip(paths, self.texts, strict=True):
            if who is None:
                raise ValueError(
                    f"no identity and camera in the name of {shown(path)}: is --layout or "
                    "--pattern another?"
                )
        least = layouts.least_identity(layout)
        self._numbers = [_numbering({who[field] for who in self.texts}, least) for field in (0, 1)]
        self.counted = [
            any(text != str(number) for text, number in numbers.items())
            for numbers in self._numbers
        ]
        self.pids, self.camids = self._numbered(self.texts)

    def of(self, paths: Sequence[str]) -> tuple[list, np.ndarray, np.ndarray]:
        """The same for queries: texts or None, and numbers, 0 for names without them."""
        texts = self._read(paths)
        return texts, *self._numbered(texts)

    def number(self, text: str, field: int, option: str) -> int:
        """The number of an identity (field 0) or a camera (1) that an option names.

        Raises:
            ValueError: no image of the gallery has it.
        """
        known = self._numbers[field]
        key = layouts.plain_name(text, field, self._layout)
        if key not in known:
            few = ", ".join(map(repr, sorted(known, key=known.__getitem__)[:10]))
            more = ", ..." if len(known) > 10 else ""
            raise ValueError(f"{option} {text!r}: the gallery has none; it has {few}{more}")
        return known[key]

    def _numbered(self, texts) -> tuple[np.ndarray, np.ndarray]:
        pids, camids = (
            np.array([numbers.get(who[field], _ABSENT) if who else 0 for who in texts], np.int64)
            for field, numbers in enumerate(self._numbers)
        )
        return pids, camids


def _numbering(texts: set[str], least: int) -> dict[str, int]:
    """Numbers of texts: their own if all are numbers of at least `least`, otherwise from 1 on."""
    if all(re.fullmatch(r"-?[0-9]{1,9}", text) for text in texts):
        numbers = {text: int(text) for text in texts}
        if all(str(n) == text and n >= least for text, n in numbers.items()):
            return numbers
    return {text: number for number, text in enumerate(sorted(texts), start=1)}


class StoredLabels:
    """Identities and cameras of a Milvus gallery, which are numbers, and those of the queries.

    Attributes:
        texts: (identity, camera) of images that were found, by their index.
        counted: as in `Labels`; they never are.
    """

    counted = (False, False)

    def __init__(self, read: Callable[[Sequence[str]], list] | None):
        """Take a function that reads the names of queries, or None if they show nothing."""
        self._read = read
        self.texts: dict[int, tuple[str, str]] = {}

    def keep(self, hits: Hits) -> None:
        """Keep the labels of images that were found."""
        columns = (field.ravel().tolist() for field in (hits.indices, hits.pids, hits.camids))
        self.texts = {i: (str(pid), str(camid)) for i, pid, camid in zip(*columns, strict=True)}

    def of(self, paths: Sequence[str]) -> tuple[list, np.ndarray, np.ndarray]:
        """Queries' texts or None, and numbers, 0 for names without them."""
        texts = [None] * len(paths) if self._read is None else self._read(paths)
        numbers = [
            [_integer(part) for part in who] if who else [0, 0]  # A text is in no such gallery.
            for who in texts
        ]
        pids, camids = np.array(numbers, np.int64).T
        return texts, pids, camids

    def number(self, text: str, field: int, option: str) -> int:
        """The number that an option names; raise ValueError for any other text."""
        number = _integer(text)
        if number == _ABSENT:
            raise ValueError(f"{option} {text!r}: identities and cameras in Milvus are numbers")
        return number


def _integer(text: str) -> int:
    return int(text) if re.fullmatch(r"-?[0-9]{1,18}", text) else _ABSENT
