"""Identities and cameras in the names of files, by regular expressions."""

import os
import re
from collections.abc import Iterable


def compiled(pattern: str, option: str) -> re.Pattern:
    """The regular expression of a pattern that `option` gives.

    Raises:
        ValueError: it is no regular expression, or lacks the groups `pid` and `camid`.
    """
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{option} {pattern!r} is no regular expression: {error}") from None
    if not {"pid", "camid"} <= expression.groupindex.keys():
        raise ValueError(f"{option} {pattern!r} lacks the groups (?P<pid>...), (?P<camid>...)")
    return expression


def who_is(expression: re.Pattern, path: str) -> tuple[str, str] | None:
    """The (pid, camid) texts of a path, or None where it shows none.

    The expression is matched from the first character of the file's name. One with slashes is
    matched from the names of the folders above it too, as many as it has slashes.
    """
    parts = path.split(os.sep)
    for first in range(1, expression.pattern.count("/") + 2):
        match = expression.match("/".join(parts[-first:]))
        if match:
            return (match["pid"], match["camid"]) if match["pid"] and match["camid"] else None
    return None


def who_are(expression: re.Pattern, folder: str, paths: Iterable[str]) -> list[tuple[str, str]]:
    """The (pid, camid) texts of files in a folder or below, whose own name shows nothing.

    Raises:
        ValueError: a file shows none; names it.
    """
    people = []
    for path in paths:
        who = who_is(expression, os.path.relpath(path, folder))
        if who is None:
            raise ValueError(
                f"no identity and camera in the name of {path!r}: names must match "
                f"{expression.pattern!r}"
            )
        people.append(who)
    return people
