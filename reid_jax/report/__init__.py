"""An evaluation to look at: pictures of some queries, and a page of all of them for a browser.

`presentation` writes what `reid-jax eval` is asked for. `figures` draws pictures. `html_report`
writes the page: `content` gathers what it shows, `thumbnails` makes images small, `page` builds the
HTML from `page.html`, `page.css` and `page.js`.
"""

from reid_jax.report.figures import write_figures
from reid_jax.report.html_report import write_report
from reid_jax.report.presentation import present

__all__ = ["present", "write_figures", "write_report"]
