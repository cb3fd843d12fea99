r"""HBFP-Net on Market-1501.

    python train.py --config=configs/hbfp_market.py --workdir=runs/hbfp_market \
        --config.data.root=Market-1501-v15.09.15

Data: 12,936 training images of 751 identities; 3,368 queries; 15,913 gallery images without junk.
Published (table 1, from ImageNet weights, batch 64): Rank-1 95.8, mAP 89.8.
Measured with this code: not yet, because the data and ImageNet weights were not available.

Strings: a row of table 2 or 3, see `common.HBFP_ROWS`, `hbfp+gep` (the whole network) by default;
`small` (narrow trunk, 192x64 images, trains on a CPU); `half` or `half40` (half-width ResNet-50,
192x64 images, 16 or 40 epochs, see `sizes.half`).
"""

from reid_jax.configs import common, sizes


def get_config(string=None):
    """The recipe; see the module's docstring."""
    row, size = common.parse(string, tuple(common.HBFP_ROWS), sizes.SIZES)
    config = common.hbfp(row)
    config.data.layout = "market1501"
    config.data.root = "data/Market-1501-v15.09.15"
    return sizes.sized(config, size)
