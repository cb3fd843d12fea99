import os
import pathlib

import pytest

from reid_jax.console import shown


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
