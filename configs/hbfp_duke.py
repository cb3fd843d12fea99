r"""HBFP-Net on DukeMTMC-reID, which its authors have withdrawn, for owners of a copy.

    python train.py --config=configs/hbfp_duke.py --workdir=runs/hbfp_duke \
        --config.data.root=DukeMTMC-reID

Data: 16,522 training images of 702 identities; 2,228 queries; 17,661 gallery images.
Published (table 1, from ImageNet weights, batch 64): Rank-1 89.5, mAP 80.2.
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
    config.data.layout = "dukemtmc"
    config.data.root = "data/DukeMTMC-reID"
    return sizes.sized(config, size)
