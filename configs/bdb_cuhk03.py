r"""BDB, the Batch DropBlock network (Dai et al., ICCV 2019), on CUHK03-NP, both boxes.

    python train.py --config=configs/bdb_cuhk03.py:detected --workdir=runs/bdb_cuhk03 \
        --config.data.root=cuhk03-np/detected

Data: 767 training identities, 1,400 queries; detected boxes: 7,365 training and 5,332 gallery
images; labeled boxes: 7,368 and 5,328.
Published from ImageNet weights: detected Rank-1 73.5, mAP 69.8 with batches of 64, as here (PMM's
table 2, "BDB*"); by BDB's authors detected 76.4 and 73.5, labeled 79.4 and 76.7 (HBFP-Net's table
1, "BDB+Cut").
Measured with this code: the CUHK03 rows of the README, `detected,half40` from pretrained and
`detected,small` from random weights, on a part of the training split; see docs/results.md.

Strings: `detected` (default) or `labeled`; `small` (narrow trunk, 192x64 images, trains on a CPU);
`half` or `half40` (half-width ResNet-50, 192x64 images, 16 or 40 epochs, see `sizes.half`).
"""

from reid_jax.configs import common, sizes


def get_config(string=None):
    """The recipe; see the module's docstring."""
    boxes, size = common.parse(string, ("detected", "labeled"), sizes.SIZES)
    config = common.bdb()
    config.data.layout = "cuhk03"
    config.data.root = f"data/cuhk03-np/{boxes}"
    return sizes.sized(config, size)
