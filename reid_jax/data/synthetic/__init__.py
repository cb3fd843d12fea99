"""Synthetic pedestrians: a procedural stand-in for photographs of people.

A person's appearance (`looks`, drawn at random by `people`), drawing the figure in a view and a
phase of the gait (`figure`, of `solids` painted by `cloth`), cameras and their places (`cameras`,
`scenes`, `obstacles`), taking a box (`capture`), writing a folder in the Market-1501 layout
(`dataset`).

It needs only NumPy and Pillow. From a shell:

    python -m reid_jax.data.synthetic OUT --seed=0 --train_identities=64 --test_identities=32
"""

from reid_jax.choices import MAX_CAMERAS
from reid_jax.data.synthetic.capture import draw
from reid_jax.data.synthetic.dataset import VERSION, Contents, write_market1501

__all__ = ["MAX_CAMERAS", "VERSION", "Contents", "draw", "write_market1501"]
