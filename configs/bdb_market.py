r"""BDB, the Batch DropBlock network (Dai et al., ICCV 2019), on Market-1501.

    python train.py --config=configs/bdb_market.py --workdir=runs/bdb_market \
        --config.data.root=Market-1501-v15.09.15

Data: 12,936 training images of 751 identities; 3,368 queries; 15,913 gallery images without junk.
Published from ImageNet weights: Rank-1 94.0, mAP 84.9 with batches of 64, as here (PMM's table 2,
"BDB*"); by BDB's authors Rank-1 95.3, mAP 86.7 (HBFP-Net's table 1, "BDB+Cut").
Measured with this code: not yet, because the data and ImageNet weights were not available.

Strings: `small` (narrow trunk, 192x64 images, trains on a CPU); `half` or `half40` (half-width
ResNet-50, 192x64 images, 16 or 40 epochs, see `sizes.half`).
"""

from reid_jax.configs import common, sizes


def get_config(string=None):
    """The recipe; see the module's docstring."""
    (size,) = common.parse(string, sizes.SIZES)
    config = common.bdb()
    config.data.layout = "market1501"
    config.data.root = "data/Market-1501-v15.09.15"
    return sizes.sized(config, size)
