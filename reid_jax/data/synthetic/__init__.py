"""Synthetic pedestrians: a procedural stand-in for photographs of people.

What a person looks like (`looks`, drawn at random by `people`), how the figure is drawn in a view
and a phase of the gait (`figure`, of `solids` painted by `cloth`), what a camera and its place are
(`cameras`, `scenes`, `obstacles`), how a box is taken (`capture`), how a folder in the Market-1501
layout is written (`dataset`).

It needs NumPy and Pillow alone. From a shell:

    python -m reid_jax.data.synthetic OUT --seed=0 --train_identities=64 --test_identities=32
"""

from reid_jax.choices import MAX_CAMERAS
from reid_jax.data.synthetic.capture import draw
from reid_jax.data.synthetic.dataset import VERSION, Contents, write_market1501

__all__ = ["MAX_CAMERAS", "VERSION", "Contents", "draw", "write_market1501"]
