"""Pictures: Grad-CAM and class activation maps over images, ranked lists, curves.

Pure functions from arrays to a `matplotlib.figure.Figure`. They do not use pyplot, so no figure
outlives its last reference, no display is needed and no global setting changes.
"""

from reid_jax.visualize.canvas import save
from reid_jax.visualize.curves import (
    cmc_figure,
    comparison_figure,
    curve_figures,
    curves_figure,
    distances_figure,
    roc_figure,
)
from reid_jax.visualize.inline_svg import inline_svg
from reid_jax.visualize.maps import class_activation_figure, gradcam_figure, overlay, scaled
from reid_jax.visualize.ranked_lists import RIGHT, WRONG, Identities, Names, ranked_list_figure

__all__ = [
    "RIGHT",
    "WRONG",
    "Identities",
    "Names",
    "class_activation_figure",
    "cmc_figure",
    "comparison_figure",
    "curve_figures",
    "curves_figure",
    "distances_figure",
    "gradcam_figure",
    "inline_svg",
    "overlay",
    "ranked_list_figure",
    "roc_figure",
    "save",
    "scaled",
]
