import io
import os
import pathlib
import subprocess
import sys

import pytest

from reid_jax.runtime.messages import (
    clear_errors,
    counted,
    printable,
    say,
    say_to_stderr,
    shown,
)


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


@pytest.mark.parametrize(
    ("encoding", "printed"),
    [
        ("ascii", rb"\u5b9e\u9a8c \xe9 \u2713 \udcff"),
        ("cp1252", rb"\u5b9e\u9a8c " + b"\xe9" + rb" \u2713 \udcff"),
        ("utf-8", "实验 é ✓ ".encode() + rb"\udcff"),
    ],
)
def test_what_a_stream_cannot_encode_is_escaped(encoding, printed, monkeypatch):
    for name, write in (("stdout", say), ("stderr", say_to_stderr)):
        written = io.BytesIO()
        monkeypatch.setattr(sys, name, io.TextIOWrapper(written, encoding))
        write("实验 é ✓ \udcff")
        assert written.getvalue() == printed + b"\n"


def test_text_goes_to_streams_without_an_encoding(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    say("实验")
    assert sys.stdout.getvalue() == "实验\n"
    monkeypatch.setattr(sys, "stdout", None)  # As under pythonw.
    say("实验")


def test_a_reader_that_went_away_costs_no_result(monkeypatch):
    class Closed(io.StringIO):
        def write(self, text):
            raise BrokenPipeError(text)

    monkeypatch.setattr(sys, "stdout", Closed())
    say("all images are described")


def test_without_standard_error_its_lines_are_dropped(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stderr", None)
    say_to_stderr("described 4 of 8 images")
    assert capsys.readouterr().out == ""


def test_no_file_gets_the_number_of_a_standard_stream(tmp_path):
    program = (
        "import os; from reid_jax.runtime.messages import open_standard_streams as o; o(); o();"
        "file = open('file', 'w'); os.write(2, b'a message'); print(file.fileno(), file=file)"
    )
    command = f'"{sys.executable}" -c "{program}" <&- >&- 2>&-'
    root = pathlib.Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    subprocess.run(command, shell=True, cwd=tmp_path, env=environment, check=True)
    assert (tmp_path / "file").read_text() == "3\n"


def test_a_current_folder_that_was_removed_is_named(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(SystemExit, match="the current folder was removed"), clear_errors(False):
        os.path.abspath("runs")
    with pytest.raises(SystemExit, match=r"directory: '/nowhere'\n"), clear_errors(False):
        os.listdir("/nowhere")
