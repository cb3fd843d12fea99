"""The common parts of the recipes: config strings and leaves, at full size.

A recipe is a function of a config string, `configs/pmm_cuhk03.py:labeled,small`: words separated by
commas, which the recipe defines. You can then override any leaf by name, `--config.optim.lr=1e-3`;
an unknown leaf is an error. The allowed values of leaves are in `reid_jax/runs/leaves.py`.
"""

from ml_collections import ConfigDict


def parse(string: str | None, *groups: tuple[str | None, ...]) -> list[str | None]:
    """Find the word of each group in a config string.

    Args:
        string: comma-separated words, or None or "" for no words.
        *groups: alternatives, of which a string contains at most one word. The first of several is
            the default, which may be None; a group of one word is a switch.

    Returns:
        For each group the word in the string, its default, or None for a switch that is off.

    Raises:
        ValueError: an unknown word, or two words of a group. The message lists them and the known
            words.
    """
    words = [word for word in (string or "").split(",") if word]
    known = [word for group in groups for word in group if word is not None]
    for word in words:
        if word not in known:
            raise ValueError(f"unknown config string {word!r}; this recipe has {', '.join(known)}")
    chosen = []
    for group in groups:
        named = [word for word in words if word in group]
        if len(named) > 1:
            raise ValueError(f"config strings {' and '.join(named)} exclude each other; use one")
        chosen.append(named[0] if named else group[0] if len(group) > 1 else None)
    return chosen


def recipe() -> ConfigDict:
    """The leaves of every recipe, at full size: 384x128 images, batches of 16 identities x 4."""
    return ConfigDict(
        {
            "seed": 0,
            # Passes over the training identities.
            "epochs": 400,
            # The step at which a run ends even if its epochs are not over; 0 means no limit. The
            # learning rate still follows `epochs`.
            "max_steps": 0,
            # Devices to train and evaluate on; 0 means all.
            "devices": 0,
            "data": _data(),
            "augment": {
                "flip": 0.5,
                # Neither paper crops images at random or changes colours.
                "crop_padding": 0,
                "brightness": 0.0,
                "contrast": 0.0,
                "saturation": 0.0,
                "cutout_probability": 0.5,
                "cutout_size": 64,
                # PMM's paper has no random erasing; HBFP-Net's has it, with 0.5.
                "erasing_probability": 0.0,
                "erasing_area": (0.02, 0.4),  # smallest and largest share of the image
                "erasing_aspect": (0.3, 3.33),  # smallest and largest height / width
            },
            "eval": {
                "every_epochs": 20,
                "batch_size": 128,
                # Describe an image by the mean of its descriptor and its mirror image's.
                "flip": False,
                # Scale descriptors to length one.
                "normalize": False,
                # Gallery images whose distances to 256 queries are in memory at a time, in ranking.
                "block_size": 16384,
            },
            "log": {"every_steps": 50},
            "checkpoint": {"every_epochs": 5, "keep": 2},
        }
    )


def _data() -> dict:
    """The leaves of `data`."""
    return {
        # market1501, dukemtmc, cuhk03, msmt17; your own photographs: folder (named files), people
        # (a folder for each person) or csv (a list); or synthetic (drawn on first use).
        "layout": "market1501",
        "root": "",
        # layout=folder: regular expression with groups pid and camid; empty is
        # IDENTITY_cCAMERA.
        "pattern": "",
        # Folders of train, query and gallery; empty are those of the layout.
        "folders": (),
        # More datasets to train and evaluate on: ("cuhk03:cuhk03-np/labeled", "people:shop").
        "also": (),
        # layout=synthetic: what to draw.
        "synthetic": {
            "seed": 0,
            "train_identities": 64,
            "test_identities": 32,
            "train_cameras": 6,
            "test_cameras": 4,
        },
        "image_size": (384, 128),  # height, width
        # Decoded pixels: memory holds them on the host; disk in a file for later runs; tfdata in
        # the same file, read ahead by TensorFlow; device on every accelerator.
        "loader": "tfdata",
        # Files that are not images: error reports them before training starts; skip omits
        # them, up to this share of a split, and lists them in skipped_images.json.
        "on_bad_image": "error",
        "skip_limit": 0.01,
        "identities_per_batch": 16,
        "images_per_identity": 4,
        # Take as many identities of each dataset into a batch.
        "balanced": False,
    }


# In both papers the trunk is trained from the first step, at the same rate as the heads.
_WHOLE_NETWORK = {"trunk_lr": 1.0, "frozen_epochs": 0}


def _losses(triplet_margin: float, label_smoothing: float) -> ConfigDict:
    """The losses of both papers, which differ in these two numbers."""
    return ConfigDict(
        {
            "triplet_margin": triplet_margin,
            "triplet_weight": 1.0,
            "metric": "euclidean",  # or cosine, for embeddings scaled to length one
            "label_smoothing": label_smoothing,
            "id_margin": 0.0,  # subtracted from the true class's logit
        }
    )


# PMM's kinds of mixing (its table 3), its own first; `model.mixing` may also be `none`.
PAPER_MIXINGS = ("hardmix", "cutout", "cutmix", "attentive_cutmix")

# ResNet-18 has basic blocks and depths (2, 2, 2, 2), ResNet-34 basic blocks and these depths.
RESNET50 = {
    "depths": (3, 4, 6, 3),
    "width": 64,
    "stem_width": 0,  # channels of the stem; 0 for `width`
    "base_width": 64,  # 128 for torchvision's wide_resnet50_2
    "strides": (1, 2, 2, 1),
    "stride_in_1x1": False,  # True for networks of Caffe and Keras (ResNet v1)
    "block": "bottleneck",  # or basic
    "ibn": False,  # IBN-a: instance norm beside batch norm in res2, res3 and res4
}

# The trunk's initial weights: a file of `reid-jax weights`, torchvision, timm or Caffe. If it is
# empty, the trunk starts from random weights.
PRETRAINED = ""

# The rows of HBFP-Net's table 2 that are baselines: "Baseline(+LS+Cutout)", on which all later rows
# build, "Baseline(+LS)" and "Baseline".
BASELINE_ROWS = ("ls+cutout", "ls", "triplet")


def _hbfp_row(levels: str, pairs: str = "", hierarchy: bool = False, lambdas=(0.0,)) -> dict:
    return {
        "levels": tuple(levels.split()),
        "pairs": tuple(pairs.split()),
        "hierarchy": hierarchy,
        "lambdas": lambdas,
    }


_ALL = {"levels": "low middle high", "pairs": "low&middle middle&high"}
_LAMBDAS = (0.0, 0.3, 0.5, 0.7, 1.0)

# The other rows of HBFP-Net's table 2, and table 3: the levels, the pairs that inform each other,
# the hierarchy, and the thresholds of the generalized pooling. The first is the whole network.
HBFP_ROWS = {
    "hbfp+gep": _hbfp_row(**_ALL, hierarchy=True, lambdas=_LAMBDAS),
    "middle+high": _hbfp_row("middle high"),
    "low+middle+high": _hbfp_row("low middle high"),
    "bfp_low_middle+high": _hbfp_row("low middle high", "low&middle"),
    "bfp_middle_high": _hbfp_row("middle high", "middle&high"),
    "low+bfp_middle_high": _hbfp_row("low middle high", "middle&high"),
    "bfp_low_middle_high": _hbfp_row(**_ALL),
    "hbfp": _hbfp_row(**_ALL, hierarchy=True),
    # Table 3 adds one threshold per row; its first row is "hbfp" and its last "hbfp+gep".
    "gep_0": _hbfp_row(**_ALL, hierarchy=True, lambdas=_LAMBDAS[:1]),
    "gep_0.3": _hbfp_row(**_ALL, hierarchy=True, lambdas=_LAMBDAS[:2]),
    "gep_0.5": _hbfp_row(**_ALL, hierarchy=True, lambdas=_LAMBDAS[:3]),
    "gep_0.7": _hbfp_row(**_ALL, hierarchy=True, lambdas=_LAMBDAS[:4]),
    "gep_1": _hbfp_row(**_ALL, hierarchy=True, lambdas=_LAMBDAS),
}


def pmm(top_k: int, mixing: str = "hardmix") -> ConfigDict:
    """PMM as its paper trains it, for `top_k` masked blocks and one of `PAPER_MIXINGS`."""
    config = _pmm_training()
    config.model = ConfigDict(
        {
            "name": "pmm",
            "trunk": dict(RESNET50),
            "pretrained": PRETRAINED,
            "embedding_dim": 512,
            "stages": 3,
            "mixing": mixing,
            "block": (3, 2),  # height, width in cells of the map
            "top_k": top_k,
            "dtype": "float32",  # or bfloat16, for the computation
        }
    )
    return config


def bdb() -> ConfigDict:
    """BDB as PMM's paper trains it for comparison ("BDB*"): batches of 64 instead of 128."""
    config = _pmm_training()
    config.model = ConfigDict(
        {
            "name": "bdb",
            "trunk": dict(RESNET50),
            "pretrained": PRETRAINED,
            "global_dim": 512,
            "part_dim": 1024,
            # The dropped shares of the map's height and width.
            "drop_height": 0.33,
            "drop_width": 1.0,
            "dtype": "float32",  # or bfloat16, for the computation
        }
    )
    return config


def _pmm_training() -> ConfigDict:
    """Section 3.1 of PMM's paper, which follows BDB's."""
    config = recipe()
    # A margin of 0 is the soft margin, log(1 + exp(d_ap - d_an)).
    config.loss = _losses(triplet_margin=0.0, label_smoothing=0.1)
    config.optim = ConfigDict(
        {
            **_WHOLE_NETWORK,
            "schedule": "staircase",
            "lr": 1e-3,
            "weight_decay": 5e-4,
            "warmup_epochs": 50,
            "warmup_every": 5,
            "milestones": (200, 300),
            "decay": 0.1,
        }
    )
    return config


def hbfp(row: str = "hbfp+gep") -> ConfigDict:
    """HBFP-Net as its paper trains it: a row of `HBFP_ROWS`, the whole network by default."""
    config = _hbfp_training()
    config.model = ConfigDict(
        {
            "name": "hbfp",
            "trunk": dict(RESNET50),
            "pretrained": PRETRAINED,
            **HBFP_ROWS[row],
            "reduction": "sum",  # or mean, over lambdas
            "neck": "none",
            "classifier_std": 1e-3,
            "correlation_dim": 512,  # L
            "perception_dim": 2048,  # L'
            "dtype": "float32",  # or bfloat16, for the computation
        }
    )
    return config


def baseline(row: str = "ls+cutout") -> ConfigDict:
    """The baseline of HBFP-Net's table 2, a row of `BASELINE_ROWS`, trained as HBFP-Net is."""
    config = _hbfp_training()
    config.model = ConfigDict(
        {
            "name": "baseline",
            "trunk": dict(RESNET50),
            "pretrained": PRETRAINED,
            "classifier": row != "triplet",
            "classifier_std": 1e-3,
            "cosine_scale": 0.0,
            "pooling": "average",
            "neck": "none",
            "stripes": 0,
            "whole_dim": 0,  # 0: the channels of the map
            "stripe_dim": 0,
            "dtype": "float32",  # or bfloat16, for the computation
        }
    )
    if row != "ls+cutout":
        config.augment.cutout_probability = 0.0
    return config


def _hbfp_training() -> ConfigDict:
    """Sections 3.4 and 4.2 of HBFP-Net's paper."""
    config = recipe()
    config.epochs = 500
    config.augment.erasing_probability = 0.5
    config.loss = _losses(triplet_margin=0.3, label_smoothing=0.3)
    config.optim = ConfigDict(
        {
            **_WHOLE_NETWORK,
            "schedule": "exponential",
            "lr": 2e-4,
            "weight_decay": 5e-4,
            # Epochs of linear warm-up; the paper has none.
            "warmup_epochs": 0,
            # The epochs between which the rate decays to `final` times its initial value.
            "decay_from": 200,
            "decay_until": 500,
            "final": 1e-3,
        }
    )
    return config


def strong() -> ConfigDict:
    """A recipe of this project: HBFP-Net's baseline with later practice. It is not from a paper.

    The trials that decided it are in `docs/results.md`.
    """
    config = baseline()
    config.epochs = 120
    config.data.identities_per_batch = 8
    config.model.update({"pooling": "gem", "neck": "batch_norm", "stripes": 4})
    config.model.update({"whole_dim": 512, "stripe_dim": 256})
    config.loss.update({"triplet_margin": 0.0, "label_smoothing": 0.1})
    config.augment.update({"crop_padding": 10, "erasing_probability": 0.0})
    config.optim = ConfigDict(
        {
            **_WHOLE_NETWORK,
            "schedule": "cosine",
            "lr": 1e-3,
            "weight_decay": 5e-4,
            "warmup_epochs": 3,
            "decay_from": 3,
            "decay_until": 120,
            "final": 0.0,
        }
    )
    config.eval.flip = True
    config.eval.normalize = True
    return config
