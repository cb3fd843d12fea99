"""The pages of the documentation, and the parts of a page that several tests read."""

import pathlib
import re

ROOT = pathlib.Path(__file__).parents[2]
PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").glob("*.md")]
)
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]

_FENCE = re.compile(r"^(```+|~~~+).*?^\1\s*$", re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*$", re.MULTILINE)


def prose(text: str) -> str:
    """A page without its code blocks and comments; line numbers stay the same."""

    def blank(match):
        return "\n" * match.group().count("\n")

    return _COMMENT.sub(blank, _FENCE.sub(blank, text))


def anchors(page: pathlib.Path) -> set[str]:
    """The anchors of a page's headings, as code hosts and the site make them."""
    found, seen = set(), {}
    for heading in _HEADING.findall(prose(page.read_text(encoding="utf-8"))):
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        count = seen.get(slug, 0)
        seen[slug] = count + 1
        found.add(f"{slug}-{count}" if count else slug)
    return found
