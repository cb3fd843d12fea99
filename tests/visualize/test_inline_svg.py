import re
import xml.etree.ElementTree

import numpy as np
import pytest

from reid_jax import visualize

pytestmark = pytest.mark.filterwarnings("error")


def test_svg_within_a_page_has_no_style_and_the_pages_colours():
    records = [{"step": step, "loss": 2.0 - step, "mAP": step / 2} for step in (0, 1)]
    svg = {
        name: visualize.inline_svg(figure, name)
        for name, figure in {
            "cmc": visualize.cmc_figure(np.array([0.5, 0.75])),
            "roc": visualize.roc_figure([0.1], [1.0], 0.9),
            "distances": visualize.distances_figure([0.0, 1.0], [2], [3], ("limit", 0.5)),
            "training": visualize.curves_figure(records),
        }.items()
    }
    ids = []
    for name, text in svg.items():
        root = xml.etree.ElementTree.fromstring(text)
        assert root.tag == "svg"
        assert list(root.attrib) == ["viewBox"]
        elements = list(root.iter())
        assert not any("style" in element.attrib or element.tag == "style" for element in elements)
        ids += [element.attrib["id"] for element in elements if "id" in element.attrib]
        used = {e.attrib["href"] for e in elements if "href" in e.attrib}
        used |= {f"#{place}" for place in re.findall(r"url\(#([^)]*)\)", text)}
        assert used
        assert used <= {f"#{own}" for own in ids if own.startswith(f"{name}-")}
        colors = {e.attrib[k] for e in elements for k in ("fill", "stroke") if k in e.attrib}
        assert {"var(--ink)", "var(--muted)", "var(--grid)", "var(--blue)"} <= colors
        assert "://" not in text
    assert len(ids) == len(set(ids))
    again = visualize.inline_svg(visualize.cmc_figure(np.array([0.5, 0.75])), "cmc")
    assert again == svg["cmc"]
