"""Figures as SVG inside a page, in the page's colours and without style sheets of their own."""

import io
import re

import matplotlib as mpl
from matplotlib.figure import Figure

from reid_jax.visualize.canvas import AXIS, BLUE, GREY, GRID, INK

#: The colours of a figure that the page sets, and the CSS custom properties for them.
COLORS = {INK: "--ink", GREY: "--muted", GRID: "--grid", AXIS: "--axis", BLUE: "--blue"}

# Dates and versions; without them the same figure gives the same text.
_METADATA = ("Creator", "Date", "Format", "Type")


def inline_svg(figure: Figure, name: str) -> str:
    """Write a figure as an `svg` element for an HTML page. Equal figures give equal text.

    Letters are outlines, so no font is needed. There is no `style`, which a page's policy may
    forbid, and `COLORS` are custom properties of the page. The page must set `stroke-linejoin:
    round; stroke-linecap: butt` for everything in the element.

    Args:
        figure: any figure of `reid_jax.visualize`.
        name: letters and digits, a letter first. Every id begins with it, so that several figures
            can share a page.

    Returns:
        The element. The page sets its size; its aspect ratio is the figure's.
    """
    text = io.StringIO()
    # Ids are hashes that include a salt, which is random unless it is set.
    with mpl.rc_context({"svg.hashsalt": name, "svg.fonttype": "path"}):
        figure.savefig(
            text, format="svg", transparent=True, metadata=dict.fromkeys(_METADATA, None)
        )
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r"<!--.*?-->|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'^<svg[^>]* (viewBox="[^"]*")[^>]*>', r"<svg \1>", svg)
    svg = re.sub(r' style="([^"]*)"', lambda match: _attributes(match[1]), svg)
    svg = svg.replace("xlink:href", "href")
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    for color, variable in COLORS.items():
        svg = re.sub(f'="{color}"', f'="var({variable})"', svg, flags=re.IGNORECASE)
    return re.sub(r"\s+", " ", svg)


def _attributes(style: str) -> str:
    """Convert a `style` to presentation attributes."""
    declarations = (part.partition(":") for part in style.split(";") if part.strip())
    return "".join(f' {name.strip()}="{value.strip()}"' for name, _, value in declarations)
