r"""PMM on DukeMTMC-reID, which its authors have withdrawn, for owners of a copy.

    python train.py --config=configs/pmm_duke.py --workdir=runs/pmm_duke \
        --config.data.root=DukeMTMC-reID

Data: 16,522 training images of 702 identities; 2,228 queries; 17,661 gallery images.
Published (table 2, from ImageNet weights, batch 64): Rank-1 88.0, mAP 74.6.
Measured with this code: not yet, because the data and ImageNet weights were not available.

Strings: `hardmix` (default), `cutout`, `cutmix` or `attentive_cutmix`, the rows of table 3; `small`
(narrow trunk, 192x64 images, trains on a CPU); `half` or `half40` (half-width ResNet-50, 192x64
images, 16 or 40 epochs, see `sizes.half`).
"""

from reid_jax.configs import common, sizes


def get_config(string=None):
    """The recipe; see the module's docstring."""
    mixing, size = common.parse(string, common.PAPER_MIXINGS, sizes.SIZES)
    config = common.pmm(top_k=6, mixing=mixing)
    config.data.layout = "dukemtmc"
    config.data.root = "data/DukeMTMC-reID"
    return sizes.sized(config, size)
