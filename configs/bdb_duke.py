r"""BDB, the Batch DropBlock network (Dai et al., ICCV 2019), on DukeMTMC-reID, which its
authors have withdrawn, for owners of a copy.

    python train.py --config=configs/bdb_duke.py --workdir=runs/bdb_duke \
        --config.data.root=DukeMTMC-reID

Data: 16,522 training images of 702 identities; 2,228 queries; 17,661 gallery images.
Published from ImageNet weights: Rank-1 87.1, mAP 74.5 with batches of 64, as here (PMM's table 2,
"BDB*"); by BDB's authors Rank-1 89.0, mAP 76.0 (HBFP-Net's table 1, "BDB+Cut").
Measured with this code: not yet, because the data and ImageNet weights were not available.

Strings: `small` (narrow trunk, 192x64 images, trains on a CPU); `half` or `half40` (half-width
ResNet-50, 192x64 images, 16 or 40 epochs, see `sizes.half`).
"""

from reid_jax.configs import common, sizes


def get_config(string=None):
    """The recipe; see the module's docstring."""
    (size,) = common.parse(string, sizes.SIZES)
    config = common.bdb()
    config.data.layout = "dukemtmc"
    config.data.root = "data/DukeMTMC-reID"
    return sizes.sized(config, size)
