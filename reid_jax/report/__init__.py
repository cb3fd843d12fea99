"""Views of an evaluation: pictures of some queries, and an HTML page of all of them.

`presentation` writes what `reid-jax eval` requests. `figures` draws pictures. `html_report` writes
the page: `content` gathers its data, `thumbnails` shrinks images, `page` builds the HTML from
`page.html`, `page.css` and `page.js`.
"""

from reid_jax.report.figures import write_figures
from reid_jax.report.html_report import write_report
from reid_jax.report.presentation import present

__all__ = ["present", "write_figures", "write_report"]
