import os
import pathlib

import pytest

from reid_jax.runtime.messages import printable, shown


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


def test_where_nothing_else_stands_a_path_has_no_quotes():
    for path in ("a b/é.jpg", 'it\'s "\\".jpg', pathlib.Path("a")):
        assert printable(path) == str(path)
    assert printable(b"a\nb\xff\x1b\xe2\x80\xae") == r"a\nb\udcff\x1b\u202e"
