r"""PMM on CUHK03-NP (the 767 / 700 split of Zhong et al., CVPR 2017), detected or labeled boxes.

    python train.py --config=configs/pmm_cuhk03.py:detected --workdir=runs/pmm_cuhk03 \
        --config.data.root=cuhk03-np/detected

Data: 767 training identities, 1,400 queries; detected boxes: 7,365 training and 5,332 gallery
images; labeled boxes: 7,368 and 5,328.
Published (table 2, detected, from ImageNet weights, batch 64): Rank-1 76.3, mAP 73.0. The paper has
no row for labeled boxes.
Measured with this code: the CUHK03 rows of the README, `detected,half40` from pretrained and
`detected,small` from random weights, on a part of the training split; see docs/results.md.

Strings: `detected` (default) or `labeled`; `hardmix` (default), `cutout`, `cutmix` or
`attentive_cutmix`, the rows of table 3; `small` (narrow trunk, 192x64 images, trains on a CPU);
`half` or `half40` (half-width ResNet-50, 192x64 images, 16 or 40 epochs, see `sizes.half`).
"""

from reid_jax.configs import common, sizes


def get_config(string=None):
    """The recipe; see the module's docstring."""
    boxes, mixing, size = common.parse(
        string, ("detected", "labeled"), common.PAPER_MIXINGS, sizes.SIZES
    )
    config = common.pmm(top_k=8, mixing=mixing)
    config.data.layout = "cuhk03"
    config.data.root = f"data/cuhk03-np/{boxes}"
    return sizes.sized(config, size)
