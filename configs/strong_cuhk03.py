r"""The strong baseline of this project, see `common.strong`, on CUHK03-NP, both kinds of boxes.

    python train.py --config=configs/strong_cuhk03.py:detected --workdir=runs/strong_cuhk03 \
        --config.data.root=cuhk03-np/detected

Data: 767 training identities, 1,400 queries; detected boxes: 7,365 training and 5,332 gallery
images; labeled boxes: 7,368 and 5,328.
Published: no figures; this recipe is not from a paper.
Measured with this code: Rank-1 78.0 and mAP 77.7 for `detected,half` (one H100) on a part of the
training split, before BDB and PMM at equal images seen, see docs/results.md. Not measured at full
size.

Strings: `detected` (default) or `labeled`; `small` (narrow trunk, 192x64 images, trains on a CPU);
`half` or `half40` (half-width ResNet-50, 256x128 images, 16 or 40 epochs, see `sizes.half`).
"""

from reid_jax.configs import common, sizes


def get_config(string=None):
    """The recipe; see the module's docstring."""
    boxes, size = common.parse(string, ("detected", "labeled"), sizes.SIZES)
    config = common.strong()
    config.data.layout = "cuhk03"
    config.data.root = f"data/cuhk03-np/{boxes}"
    return sizes.sized(config, size)
