"""The words that a recipe or a program can choose from.

They are in this module, not beside their implementations, so that a recipe can be checked and
`--help` printed without importing JAX.
"""

NETWORKS = ("baseline", "bdb", "pmm", "hbfp")
BLOCKS = ("bottleneck", "basic")
SCHEDULES = ("staircase", "exponential", "cosine")
DTYPES = ("float32", "bfloat16")

#: Layouts whose file names show identity and camera.
NAMED_LAYOUTS = ("market1501", "dukemtmc", "cuhk03", "folder")
#: Layouts of folders and lists that can be read.
LAYOUTS = (*NAMED_LAYOUTS, "people", "csv", "msmt17")
LOADERS = ("tfdata", "memory", "disk", "device")
#: What to do about files that are not images.
POLICIES = ("error", "skip")
#: The largest number of cameras in a synthetic dataset.
MAX_CAMERAS = 12

#: Distances of the triplet loss.
METRICS = ("euclidean", "cosine")

#: PMM's kinds of mixing.
MIXINGS = ("hardmix", "cutout", "cutmix", "attentive_cutmix", "none")
#: HBFP-Net's levels, from the lowest.
LEVELS = ("low", "middle", "high")
#: The levels of each pair of HBFP-Net that inform each other.
PAIRS = {"low&middle": ("low", "middle"), "middle&high": ("middle", "high")}
#: How HBFP-Net combines the pooled features of its thresholds.
REDUCTIONS = ("sum", "mean")
#: Layers between the pooled feature and the classifier of a head.
NECKS = ("none", "batch_norm")
#: How the baseline pools its map.
BASELINE_POOLINGS = ("average", "max", "gem")

#: How the multi-query protocol pools descriptors.
QUERY_POOLINGS = ("average", "max")


def parse_dataset(entry: str) -> tuple[str, str] | None:
    """The layout and the root of a dataset, written as `LAYOUT:ROOT`; None for another text."""
    layout, _, root = entry.partition(":")
    return (layout, root) if layout in LAYOUTS and root else None
