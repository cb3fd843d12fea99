"""The leaves of a recipe: allowed values and meanings. A new leaf is one entry here."""

import operator

from reid_jax import choices
from reid_jax.runs.leaf_kinds import (
    COUNT,
    DATASET,
    SHARE,
    SWITCH,
    TEXT,
    Leaf,
    number,
    one_of,
    rising,
    several,
    some_of,
    whole,
)

LEAVES = {
    "seed": whole(0).means("Seed of everything random in the run."),
    "epochs": COUNT.means("Passes over the training identities."),
    "max_steps": whole(0).means(
        "End the run at this step and keep the schedule of `epochs`; 0 for no limit."
    ),
    "devices": whole(0).means("Devices to train and evaluate on; 0 for all."),
    "data": {
        "layout": one_of(*choices.LAYOUTS, "synthetic").means(
            "How splits, identities and cameras are named; synthetic pedestrians are drawn on "
            "first use."
        ),
        "root": TEXT.means("Folder of the dataset, or the CSV file of data.layout=csv."),
        "pattern": TEXT.means(
            "Regular expression of file names with the groups pid and, if cameras are known, "
            "camid, for data.layout=folder; empty for IDENTITY_cCAMERA."
        ),
        "folders": several(TEXT, 0, 3).means(
            "Folders of training, query and gallery images below data.root, for any layout but csv "
            "and synthetic; empty for those of the layout."
        ),
        "also": several(DATASET).means(
            "More datasets to train and evaluate on, each as LAYOUT:ROOT; data.root decides which "
            "checkpoint is the best."
        ),
        "synthetic": {
            "seed": whole(0).means("Seed of the drawn pedestrians."),
            "train_identities": whole(2).means("People to draw for training."),
            "test_identities": COUNT.means("Other people to draw for query and gallery."),
            "train_cameras": whole(2).means("Cameras of the training images."),
            "test_cameras": whole(2).means("Other cameras, of query and gallery images."),
        },
        "image_size": several(COUNT, 2).means("Height and width of the network's input, pixels."),
        "loader": one_of(*choices.LOADERS).means(
            "Where decoded pixels are: memory holds them on the host, disk in a file that later "
            "runs open, tfdata in the same file if there is room, read ahead by TensorFlow, device "
            "on every accelerator."
        ),
        "on_bad_image": one_of(*choices.POLICIES).means(
            "Stop at files that are not images, or skip them and list them."
        ),
        "skip_limit": number(least=0, below=1).means(
            "Largest share of a split that may be skipped."
        ),
        "identities_per_batch": whole(2, "the triplet loss needs negatives").means(
            "Identities in a batch."
        ),
        "images_per_identity": whole(2, "the triplet loss needs positives").means(
            "Images of each identity in a batch."
        ),
        "balanced": SWITCH.means(
            "Take equally many identities of each dataset into a batch, as near as possible."
        ),
    },
    "augment": {
        "flip": SHARE.means("Probability of a horizontal flip."),
        "crop_padding": whole(0).means(
            "Pixels of padding around the image before a random crop; 0 for no crop."
        ),
        "brightness": SHARE.means("Largest relative change of brightness."),
        "contrast": SHARE.means("Largest relative change of contrast."),
        "saturation": SHARE.means("Largest relative change of saturation."),
        "cutout_probability": SHARE.means("Probability of cutting a square out of an image."),
        "cutout_size": COUNT.means("Side of that square, pixels."),
        "erasing_probability": SHARE.means("Probability of erasing a random rectangle."),
        "erasing_area": rising(
            several(number(above=0, most=1), 2), operator.le, "the smaller first"
        ).means("Smallest and largest share of the image that is erased."),
        "erasing_aspect": rising(
            several(number(above=0), 2), operator.le, "the smaller first"
        ).means("Smallest and largest ratio of height to width of the erased rectangle."),
    },
    "loss": {
        "triplet_margin": number(least=0).means(
            "Margin of the triplet loss; 0 for the soft margin, log(1 + exp(d_ap - d_an))."
        ),
        "triplet_weight": number(least=0).means("Weight of the triplet loss in the sum."),
        "metric": one_of(*choices.METRICS).means(
            "Distance of the triplet loss; cosine scales embeddings to length one."
        ),
        "label_smoothing": number(least=0, below=1).means("Label smoothing of the ID loss."),
        "id_margin": number(least=0).means("Margin subtracted from the true class's logit."),
    },
    "eval": {
        "every_epochs": COUNT.means("Epochs between evaluations."),
        "batch_size": COUNT.means(
            "Images in a batch of evaluation at most; on CPUs there are fewer."
        ),
        "flip": SWITCH.means("Average the descriptors of an image and of its mirror image."),
        "normalize": SWITCH.means("Scale descriptors to length one."),
        "block_size": COUNT.means(
            "Gallery images whose distances are held at a time; results do not depend on it."
        ),
    },
    "log": {
        "every_steps": COUNT.means(
            "Steps between two lines of training metrics; losses and accuracies are their means."
        )
    },
    "checkpoint": {
        "every_epochs": COUNT.means("Epochs between checkpoints."),
        "keep": COUNT.means("Newest checkpoints to keep, beside the best by mAP."),
    },
}

# `optim` and `model` have the common leaves, and those of their schedule and network.
OPTIM = {
    "schedule": one_of(*choices.SCHEDULES).means("How the learning rate changes over epochs."),
    "lr": number(above=0).means("Largest learning rate."),
    "weight_decay": number(least=0).means("Weight of the L2 penalty, added to the gradient."),
    "trunk_lr": number(above=0, most=1).means("Learning rate of the trunk, as a share of lr."),
    "frozen_epochs": whole(0).means("First epochs, in which the trunk does not learn."),
}
_DECAY = {
    "warmup_epochs": whole(0).means("Epochs in which the rate rises in a straight line."),
    "decay_from": whole(0).means("Epoch at which the decay starts."),
    "decay_until": COUNT.means("Epoch at which the decay ends."),
}
SCHEDULES = {
    "staircase": {
        "warmup_epochs": whole(0).means("Epochs in which the rate rises in steps."),
        "warmup_every": COUNT.means("Epochs of one such step."),
        "milestones": rising(several(COUNT), operator.lt, "each above the one before").means(
            "Epochs at which the rate drops."
        ),
        "decay": number(above=0, most=1).means("Factor of each drop."),
    },
    "exponential": {
        **_DECAY,
        "final": number(above=0, most=1).means("Rate after the decay, as a share of lr."),
    },
    "cosine": {
        **_DECAY,
        "final": number(least=0, most=1).means("Rate after the decay, as a share of lr."),
    },
}

MODEL = {
    "name": one_of(*choices.NETWORKS).means("Network."),
    "trunk": {
        "depths": several(COUNT, 4).means("Blocks of the trunk's four stages, res2 to res5."),
        "width": COUNT.means("Channels of res2 inside its blocks; later stages double it."),
        "stem_width": whole(0).means("Channels of the first convolution; 0 for width."),
        "base_width": COUNT.means("Width of a bottleneck; 128 for wide_resnet50_2."),
        "strides": several(COUNT, 4).means("Strides of the four stages."),
        "stride_in_1x1": SWITCH.means(
            "Stride of bottlenecks on the first 1x1 convolution, as in ResNet v1."
        ),
        "block": one_of(*choices.BLOCKS).means("Kind of residual block."),
        "ibn": SWITCH.means("IBN-a: instance norm beside batch norm in res2, res3 and res4."),
    },
    "pretrained": TEXT.means("File of ImageNet weights for the trunk; empty for random weights."),
    "dtype": one_of(*choices.DTYPES).means("Dtype of the computation."),
}
_NECK = one_of(*choices.NECKS).means("What is applied to the pooled feature before classifying.")
_CLASSIFIER_STD = number(above=0).means("Deviation of the classifier's initial weights.")
NETWORKS = {
    "baseline": {
        "classifier": SWITCH.means("Train with the ID loss beside the triplet loss."),
        "classifier_std": _CLASSIFIER_STD,
        "cosine_scale": number(least=0).means(
            "Scale of a cosine classifier's logits; 0 for a linear classifier."
        ),
        "pooling": one_of(*choices.BASELINE_POOLINGS).means("Pooling of the last map."),
        "neck": _NECK,
        "stripes": whole(0).means("Horizontal stripes with their own heads; 0 for none."),
        "whole_dim": whole(0).means(
            "Numbers in the whole map's descriptor; 0 for one for each channel."
        ),
        "stripe_dim": whole(0).means(
            "Numbers in each stripe's descriptor; 0 for one for each channel."
        ),
    },
    "bdb": {
        "global_dim": COUNT.means("Numbers in the global branch's embedding."),
        "part_dim": COUNT.means("Numbers in the drop branch's embedding."),
        "drop_height": number(above=0, most=1).means("Share of the map's height that is dropped."),
        "drop_width": number(above=0, most=1).means("Share of the map's width that is dropped."),
    },
    "pmm": {
        "embedding_dim": COUNT.means("Numbers in the embedding of each stage."),
        "stages": Leaf("1, 2 or 3", lambda value: whole(1).holds(value) and value <= 3).means(
            "Stages to train and to describe images with."
        ),
        "mixing": one_of(*choices.MIXINGS).means("What replaces the most salient blocks."),
        "block": several(COUNT, 2).means("Height and width of a block, cells of the map."),
        "top_k": COUNT.means("Number of blocks that are replaced, the most salient ones (K)."),
    },
    "hbfp": {
        "levels": some_of(*choices.LEVELS, least=1).means("Levels that form the descriptor."),
        "pairs": some_of(*choices.PAIRS).means("Pairs of levels that inform each other."),
        "hierarchy": SWITCH.means(
            "Run the informed maps through blocks of res4 and res5 a second time."
        ),
        "lambdas": several(SHARE, least=1).means("Thresholds of the generalized pooling."),
        "reduction": one_of(*choices.REDUCTIONS).means("How the thresholds' terms are combined."),
        "neck": _NECK,
        "classifier_std": _CLASSIFIER_STD,
        "correlation_dim": COUNT.means("Dimension of the correlation maps (L)."),
        "perception_dim": COUNT.means("Dimension of the bi-directional perception (L')."),
    },
}
