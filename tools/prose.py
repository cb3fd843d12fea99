"""Finds sentences that are not plain English, in Markdown, docstrings and comments.

    python tools/prose.py                  # every file of the project; exit code 1 if there are any
    python tools/prose.py docs/data.md     # some files
    python tools/prose.py --update         # lower the numbers in tools/prose_allowed.json

Markdown has to be free of findings. Python files may have as many as `prose_allowed.json` lists for
each, a number that only shrinks: a file with fewer fails until `--update` has lowered it.

The rules find words and orders of words that readers stumble over. They are patterns and make
mistakes. If a rule is wrong about a sentence, rewrite the sentence or narrow the rule;
`<!-- prose: off -->` and `<!-- prose: on -->` exempt lines of Markdown.
"""

import argparse
import ast
import json
import pathlib
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parents[1]
ALLOWED = ROOT / "tools" / "prose_allowed.json"

# The beginning of a sentence: the start of a text, or the end of the previous sentence.
_START = r"(?:^|(?<=[.:;!?] )|(?<=[.!?]\) ))"
_PLACE = "'if' for a condition; 'where' for a place only"
_SPEECH = "code does not speak or know: 'reports', 'states', 'holds', 'returns', 'supports'"
_DIRECT = "say it directly"

# Patterns, and what to write instead.
RULES = tuple(
    (re.compile(pattern), advice)
    for pattern, advice in (
        (_START + r"Of (?!course\b)", "subject, verb, object: do not begin with 'Of ...,'"),
        (_START + r"Where\b[^.:;]*, ", _PLACE),
        (
            r"\bwhere (?:it|that|they|there|one|none|any|no|neither|all|nothing) "
            r"(?:is|are|was|has|have|does|do|can|needs?|makes?|allows?|exists?)\b",
            _PLACE,
        ),
        (r"(?<!stand-)\balone\b", "'only'"),
        (r"\b(?:[Nn]obody|[Nn]o one)\b", "name what is meant: 'no identity', 'no program'"),
        (_START + r"Nothing\b", "a positive statement, or 'no X'"),
        (
            r"\bnothing (?:is|are|was|has|have|can|may|else|in|here|there|of)\b",
            "a positive statement, or 'no X'",
        ),
        (_START + r"None (?:of|is)\b", "'no X', or a positive statement"),
        (r"\bnone (?:is|are|was|were|has|have|of)\b", "'no X', or a positive statement"),
        (r"\b(?:tells?|told|says?|said|knows?|knew|speaks?|thinks?|believes?)\b", _SPEECH),
        (
            r"\b[Ww]ho(?:m|ever)? (?:has|have|opens?|asks?|calls?|reads?|wants?)\b",
            "name the subject",
        ),
        (r"\b(?:go(?:es)?|went|going) on\b", "'resume', 'continue'"),
        (r"\bat hand\b", "'available'"),
        (r"\b(?:whatever|wherever) (?:is|it|they|was|their)\b", _DIRECT),
        (
            r"\bfor (?:it|they|that|there|these|those) (?:is|are|was|would|has|have)\b",
            "'because'",
        ),
        (r"\bneed be\b", "'needs to be'"),
        (r"\bas if \w+ had\b", "state the result"),
        (r"\bis no (?:news|matter|part of|error)\b", "'is not ...'"),
        (r"\bbut for (?:it|them|its|their|these|those|this|one)\b", "'except'"),
        (r"\b(?:save for|thereof|thereby|whereby|hence)\b", "a plainer word"),
        (r"\b(?:put into words|in its turn|by and by)\b", "a plainer word"),
    )
)


class Finding(NamedTuple):
    """A place that a rule matches."""

    path: pathlib.Path
    line: int
    words: str
    advice: str


class Passage(NamedTuple):
    """Prose on one or several lines, joined by blanks; `starts` are where its lines start in it."""

    line: int
    text: str
    starts: tuple[int, ...] = (0,)

    def line_at(self, place: int) -> int:
        """The line of the file for a position in the text."""
        return self.line + sum(start <= place for start in self.starts) - 1


def findings(path: pathlib.Path) -> list[Finding]:
    """The findings in a Markdown or Python file, in its order."""
    text = path.read_text(encoding="utf-8")
    passages = _of_markdown(text) if path.suffix == ".md" else _of_python(text)
    found = []
    for passage in passages:
        for pattern, advice in RULES:
            for match in pattern.finditer(passage.text):
                line = passage.line_at(match.start())
                around = passage.text[max(0, match.start() - 20) : match.end() + 20]
                found.append(Finding(path, line, around.strip(), advice))
    return sorted(found, key=lambda finding: finding.line)


def _of_markdown(text: str, first: int = 1) -> Iterator[Passage]:
    """Paragraphs, list items and cells of tables, without code, links' targets and comments."""
    lines, fence, off = [], None, False
    for number, line in enumerate(text.splitlines(), start=first):
        mark = re.match(r"\s*(```+|~~~+)", line)
        if fence:
            fence = None if line.strip() == fence else fence
            line = ""
        elif mark:
            fence, line = mark.group(1), ""
        if "<!-- prose: o" in line:
            off = "prose: off" in line
        line = "" if off else re.sub(r"<!--.*?-->", "", line)
        # Replace inline code and links by one word, so that sentences keep their structure.
        line = re.sub(r"`+[^`]*`+", "`x`", line)
        line = re.sub(r"(!?)\[([^\]]*)\]\([^)\s]*\)", r"\2", line)
        lines.append((number, line.strip().replace("**", "").replace("*", "")))
    yield from _paragraphs(lines)


def _paragraphs(lines: list[tuple[int, str]]) -> Iterator[Passage]:
    """Join lines that belong together. Each cell of a table is a separate passage."""
    gathered: list[tuple[int, str]] = []

    def flush():
        if gathered:
            starts, length = [], 0
            for _, line in gathered:
                starts.append(length)
                length += len(line) + 1
            yield Passage(gathered[0][0], " ".join(line for _, line in gathered), tuple(starts))
            gathered.clear()

    for number, line in lines:
        if line.startswith("|"):
            yield from flush()
            yield from (Passage(number, cell.strip()) for cell in line.strip("|").split("|"))
        elif not line or re.fullmatch(r"[-=#>|: ]+", line):
            yield from flush()
        elif re.match(r"(?:[-+] |\d+\. |#+ |> )", line):
            yield from flush()
            gathered.append((number, re.sub(r"^(?:[-+]|\d+\.|#+|>) +", "", line)))
        else:
            gathered.append((number, line))
    yield from flush()


def _of_python(text: str) -> Iterator[Passage]:
    """Docstrings and comments."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
        if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
            yield from _of_docstring(node.body[0].value.value, node.body[0].lineno)
    yield from _comments(text)


def _of_docstring(docstring: str, first: int) -> Iterator[Passage]:
    """The prose of a docstring. Indented blocks after an empty line are code, except in
    sections."""
    lines, section = [], False
    margin = min(
        (len(line) - len(line.lstrip()) for line in docstring.splitlines()[1:] if line.strip()),
        default=0,
    )
    empty = False
    code = False
    for number, line in enumerate(docstring.splitlines(), start=first):
        indent = len(line) - len(line.lstrip()) - margin if number > first else 0
        if line.strip():
            if indent == 0:
                section = bool(re.fullmatch(r"[A-Z][a-z]+:", line.strip()))
                code = False
            elif empty and not section:
                code = True
            if section and indent > 0:
                # Each argument, `name: description`, begins a passage.
                named = re.match(r"\s*(?:\*{0,2}\w+(?:, \w+)*)(?: \([^)]*\))?: +", line)
                if named:
                    lines.append((number, ""))
                    line = line[named.end() :]
        empty = not line.strip()
        line = "" if code else re.sub(r"`+[^`]*`+", "`x`", line)
        lines.append((number, line.strip()))
    yield from _paragraphs(lines)


def _comments(text: str) -> Iterator[Passage]:
    """Comments; consecutive lines are one passage."""
    lines: list[tuple[int, str]] = []
    last = None
    for token in tokenize.generate_tokens(iter(text.splitlines(keepends=True)).__next__):
        if token.type != tokenize.COMMENT:
            continue
        line = token.string.lstrip("#:").strip()
        if line.startswith(("%%", "!", "noqa", "type:", "fmt:", "ruff:", "pyright:")):
            continue
        own_line = not token.line[: token.start[1]].strip()
        if last != token.start[0] - 1 or not own_line:
            lines.append((token.start[0], ""))
        lines.append((token.start[0], re.sub(r"`+[^`]*`+", "`x`", line)))
        last = token.start[0] if own_line else None
    yield from _paragraphs(lines)


def files() -> list[pathlib.Path]:
    """The Markdown and Python files of the project that git tracks or would add."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md", "*.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    return [ROOT / name for name in sorted(set(listed)) if (ROOT / name).is_file()]


def allowed() -> dict[str, int]:
    """How many findings each Python file may have."""
    return json.loads(ALLOWED.read_text(encoding="utf-8")) if ALLOWED.exists() else {}


def check(paths: list[pathlib.Path]) -> list[str]:
    """Lines that report files with more findings than allowed, or with fewer."""
    limits, report = allowed(), []
    for path in paths:
        name = path.resolve().relative_to(ROOT).as_posix()
        found, limit = findings(path), limits.get(name, 0)
        if len(found) > limit:
            report += [f"{name}:{f.line}: '{f.words}': {f.advice}" for f in found]
            report.append(f"{name}: {len(found)} findings, {limit} allowed")
        elif len(found) < limit:
            report.append(f"{name}: {len(found)} findings, {limit} allowed: run with --update")
    return report


def update() -> None:
    """Write the present numbers of Python files."""
    counts = {
        p.relative_to(ROOT).as_posix(): len(findings(p)) for p in files() if p.suffix == ".py"
    }
    counts = {name: count for name, count in counts.items() if count}
    ALLOWED.write_text(json.dumps(counts, indent=2) + "\n", encoding="utf-8")


def main(arguments: list[str] | None = None) -> None:
    """Check the files that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("files", nargs="*", type=pathlib.Path, help="default: every file")
    parser.add_argument("--update", action="store_true", help="write tools/prose_allowed.json")
    options = parser.parse_args(arguments)
    if options.update:
        update()
    report = check(options.files or files())
    print("\n".join(report), end="\n" if report else "")
    sys.exit(bool(report))


if __name__ == "__main__":
    main()
