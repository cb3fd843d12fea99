r"""HBFP-Net's baseline on DukeMTMC-reID, which its authors have withdrawn, for owners of a copy.

    python train.py --config=configs/baseline_duke.py --workdir=runs/baseline_duke \
        --config.data.root=DukeMTMC-reID

Data: 16,522 training images of 702 identities; 2,228 queries; 17,661 gallery images.
Published: no figures; the paper's table 2 is for Market-1501.
Measured with this code: not yet, because the data and ImageNet weights were not available.

Strings: a row of table 2: `ls+cutout` (default), `ls` or `triplet`; `small` (narrow trunk, 192x64
images, trains on a CPU); `half` or `half40` (half-width ResNet-50, 192x64 images, 16 or 40 epochs,
see `sizes.half`).
"""

from reid_jax.configs import common, sizes


def get_config(string=None):
    """The recipe; see the module's docstring."""
    row, size = common.parse(string, common.BASELINE_ROWS, sizes.SIZES)
    config = common.baseline(row)
    config.data.layout = "dukemtmc"
    config.data.root = "data/DukeMTMC-reID"
    return sizes.sized(config, size)
