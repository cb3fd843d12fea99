"""TFDS builders over the readers of `reid_jax.data.layouts`.

    import reid_jax.data.builders
    tfds.load("market1501", split="train")

TFDS builds from a folder that you put under its manual folder; `tfds.load` names that folder.
"""

from reid_jax.data.builders.folders import CUHK03NP, DukeMTMCReID, Market1501

__all__ = ["CUHK03NP", "DukeMTMCReID", "Market1501"]
