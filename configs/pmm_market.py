r"""PMM on Market-1501.

    python train.py --config=configs/pmm_market.py --workdir=runs/pmm_market \
        --config.data.root=Market-1501-v15.09.15

Data: 12,936 training images of 751 identities; 3,368 queries; 15,913 gallery images without junk.
Published (table 2, from ImageNet weights, batch 64): Rank-1 94.1, mAP 85.2.
Measured with this code: not yet, because the data and ImageNet weights were not available.

Strings: `hardmix` (default), `cutout`, `cutmix` or `attentive_cutmix`, the rows of table 3; `small`
(narrow trunk, 192x64 images, trains on a CPU); `half` or `half40` (half-width ResNet-50, 192x64
images, 16 or 40 epochs, see `sizes.half`).
"""

from reid_jax.configs import common, sizes


def get_config(string=None):
    """The recipe; see the module's docstring."""
    mixing, size = common.parse(string, common.PAPER_MIXINGS, sizes.SIZES)
    config = common.pmm(top_k=3, mixing=mixing)
    config.data.layout = "market1501"
    config.data.root = "data/Market-1501-v15.09.15"
    return sizes.sized(config, size)
