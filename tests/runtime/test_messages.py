import os
import pathlib

import pytest

from reid_jax.runtime.messages import counted, printable, shown


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("a b/é.jpg", "'a b/é.jpg'"),
        ("a\nERROR: forged\r\x1b[2K\u202e.jpg", r"'a\nERROR: forged\r\x1b[2K\u202e.jpg'"),
        ("it's", '"it\'s"'),
        (pathlib.Path("a"), "'a'"),
        (b"\xff", repr(os.fsdecode(b"\xff"))),
    ],
)
def test_a_path_is_shown_on_one_line(path, text):
    assert shown(path) == text
    assert shown(path).isprintable()
    shown(path).encode()


def test_numbers_agree_with_what_they_count():
    assert [counted(n, "step") for n in (0, 1, 2, 1200)] == [
        "0 steps", "1 step", "2 steps", "1,200 steps",
    ]  # fmt: skip
    assert [counted(n, "query", "queries") for n in (0, 1)] == ["0 queries", "1 query"]


def test_where_nothing_else_stands_a_path_has_no_quotes():
    for path in ("a b/é.jpg", 'it\'s "\\".jpg', pathlib.Path("a")):
        assert printable(path) == str(path)
    assert printable(b"a\nb\xff\x1b\xe2\x80\xae") == r"a\nb\udcff\x1b\u202e"
