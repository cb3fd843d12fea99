r"""HBFP-Net on CUHK03-NP (767 / 700 split of Zhong et al., CVPR 2017), both boxes.

    python train.py --config=configs/hbfp_cuhk03.py:detected --workdir=runs/hbfp_cuhk03 \
        --config.data.root=cuhk03-np/detected

Data: 767 training identities, 1,400 queries; detected boxes: 7,365 training and 5,332 gallery
images; labeled boxes: 7,368 and 5,328.
Published (table 1, from ImageNet weights, batch 64): Rank-1 80.0, mAP 77.5 with detected and Rank-1
81.3, mAP 79.4 with labeled boxes.
Measured with this code on a part of the training split: `detected,half40` from pretrained weights
(README and docs/results.md) and `detected,small` from random weights (docs/results.md).

Strings: `detected` (default) or `labeled`; a row of table 2 or 3, see `common.HBFP_ROWS`,
`hbfp+gep` (the whole network) by default; `small` (narrow trunk, 192x64 images, trains on a CPU);
`half` or `half40` (half-width ResNet-50, 192x64 images, 16 or 40 epochs, see `sizes.half`).
"""

from reid_jax.configs import common, sizes


def get_config(string=None):
    """The recipe; see the module's docstring."""
    boxes, row, size = common.parse(
        string, ("detected", "labeled"), tuple(common.HBFP_ROWS), sizes.SIZES
    )
    config = common.hbfp(row)
    config.data.layout = "cuhk03"
    config.data.root = f"data/cuhk03-np/{boxes}"
    return sizes.sized(config, size)
