"""Identities and cameras in the names of files, by regular expressions."""

import os
import re
from collections.abc import Iterable, Sequence


def compiled(pattern: str, option: str, *, cameras: bool = True) -> re.Pattern:
    """The regular expression of a pattern that `option` gives.

    Args:
        pattern: the regular expression.
        option: the option or leaf, for errors.
        cameras: whether the group `camid` is required.

    Raises:
        ValueError: it is no regular expression, or lacks the group `pid`, or `camid` if required.
    """
    try:
        expression = re.compile(pattern)
    except (re.error, OverflowError) as error:  # The latter for a huge number of repetitions.
        raise ValueError(f"{option} {pattern!r} is no regular expression: {error}") from None
    needed = ["pid", "camid"] if cameras else ["pid"]
    if not expression.groupindex.keys() >= set(needed):
        groups = ", ".join(f"(?P<{group}>...)" for group in needed)
        raise ValueError(f"{option} {pattern!r} lacks the groups {groups}")
    return expression


def who_is(expression: re.Pattern, path: str) -> tuple[str, str] | None:
    """The (pid, camid) texts of a path, or None if it shows none.

    The expression is matched from the first character of the file's name. One with slashes is
    matched from the names of the folders above it too, as many as it has slashes. If it has no
    group `camid`, camid is "".
    """
    parts = path.split(os.sep)
    for first in range(1, expression.pattern.count("/") + 2):
        match = expression.match("/".join(parts[-first:]))
        if match:
            groups = {"camid": ""} | match.groupdict()
            found = groups["pid"], groups["camid"]
            return found if all(groups[group] for group in _groups(expression)) else None
    return None


def _groups(expression: re.Pattern) -> list[str]:
    return [group for group in ("pid", "camid") if group in expression.groupindex]


def who_are(expression: re.Pattern, folder: str, paths: Iterable[str]) -> list[tuple[str, str]]:
    """The (pid, camid) texts of files in a folder or below; the folder's own name is not matched.

    Raises:
        ValueError: a file shows none; names it.
    """
    people = []
    for path in paths:
        who = who_is(expression, os.path.relpath(path, folder))
        if who is None:
            what = "identity and camera" if len(_groups(expression)) == 2 else "identity"
            raise ValueError(
                f"no {what} in the name of {path!r}: names must match {expression.pattern!r}, with "
                "text in each group"
            )
        people.append(who)
    return people


def people_of_folders(
    folder: str, paths: Sequence[str], but: Iterable[str] = ()
) -> list[tuple[str, str]]:
    """The (pid, camid) texts of files in a folder that has a folder for each person; camid is "".

    Args:
        folder: holds a folder of each person, named after them.
        paths: the images in it, which may lie in folders below a person's.
        but: folders that are no person's, nor those above them.

    Raises:
        ValueError: an image lies in no person's folder, or a person's folder has no image; names
          it.
    """
    names = [os.path.relpath(path, folder).split(os.sep) for path in paths]
    for path, parts in zip(paths, names, strict=True):
        if len(parts) == 1:
            raise ValueError(
                f"{path!r} is in no person's folder: each image must lie in the folder of a "
                f"person, such as {os.path.join(folder, 'anna', parts[0])!r}"
            )
    others = [os.path.join(os.path.relpath(other, folder), "") for other in but]
    people = {parts[0] for parts in names}
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        above_another = any(other.startswith(os.path.join(entry.name, "")) for other in others)
        hidden = entry.name.startswith(".")
        is_folder = os.path.isdir(entry.path)  # `entry.is_dir` raises for a link to itself.
        if is_folder and not hidden and not above_another and entry.name not in people:
            raise ValueError(
                f"no image in the folder {entry.path!r} of a person: add images or remove the "
                "folder"
            )
    return [(parts[0], "") for parts in names]
