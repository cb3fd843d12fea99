"""Evaluation of a run's checkpoint, on the run's own dataset or another."""

import json
import pathlib
from collections.abc import Sequence

from matplotlib.figure import Figure

from reid_jax import hosts, models, visualize
from reid_jax.console import printable, say, shown
from reid_jax.data import datasets
from reid_jax.data.synthetic.dataset import RECORD
from reid_jax.evaluation.evaluator import Evaluator, table
from reid_jax.evaluation.figures import choose_queries, write_figures
from reid_jax.evaluation.ranking import RankingResult
from reid_jax.evaluation.reranking import k_reciprocal
from reid_jax.report import write_report
from reid_jax.settings import check_leaves
from reid_jax.training.devices import choose_devices, own_devices
from reid_jax.training.links import check_links
from reid_jax.training.metrics import read_metrics
from reid_jax.training.restore import restore_variables
from reid_jax.training.workdir import read_run, report_skipped, write_text_atomically


def evaluate_run(
    config,
    workdir: str,
    *,
    checkpoint: str | int,
    output: str,
    figures: int | Sequence[str] = 0,
    multi_query: str | None = None,
    gallery_extra: str | None = None,
    rerank: bool = False,
    report: bool = False,
    draw: bool = False,
) -> RankingResult:
    """Restores a checkpoint, ranks, prints a table, writes `results.json` and what else is asked.

    Of several hosts each evaluates its part, and the first reads the checkpoint and writes. Where
    bad images were left out, `skipped_images.json` beside the results names them.

    Args:
        config: the run's recipe, as `read_run` gives it, perhaps with other `data` or `eval`.
        workdir: the run's folder.
        checkpoint: `latest`, `best`, or a step.
        output: the folder of the results, made where it does not exist.
        figures: queries to draw, as `choose_queries` takes them; 0 for none.
        multi_query: `average` or `max`: Market-1501's multi-query protocol. None is single query.
        gallery_extra: a folder of more gallery images, all of them distractors.
        rerank: order the gallery by k-reciprocal re-ranking.
        report: write a page of all queries, see `reid_jax.report`.
        draw: draw synthetic pedestrians into `data.root` where there are none yet. A workdir may
            be another's, and its recipe name any folder.

    Raises:
        FileNotFoundError, ValueError: no run, no checkpoint, no such dataset or folder, named; or
            the checkpoint is of another network; or a file of `figures` is not a query.
    """
    _, num_classes = read_run(workdir)
    check_leaves(config)
    check_links(workdir)
    devices = own_devices(choose_devices(config.devices))
    if not draw:
        hosts.together(lambda: _check_drawn(config.data))
    dataset = datasets.load(config.data, say, to_train=False)
    drawn = choose_queries(figures, dataset.query.paths) if figures else None
    boxes = datasets.load_multi_query(dataset, config.data, say) if multi_query else None
    extra = datasets.load_extra(gallery_extra, config.data, say) if gallery_extra else None
    network = models.create(config.model, num_classes)
    network.check(config.data.image_size)

    step, variables = restore_variables(network, config.data.image_size, workdir, checkpoint)
    evaluate = Evaluator(
        network,
        dataset,
        config,
        devices,
        say,
        boxes=boxes,
        pooling=multi_query or "average",
        extra=extra,
    )
    query, gallery = evaluate.describe(variables)
    rescore = None
    if rerank:
        rescore = k_reciprocal(query, gallery, block_size=config.eval.block_size, progress=say)
    result = evaluate.rank(query, gallery, rescore)
    protocol = {
        "multi_query": multi_query,
        "rerank": rerank,
        "flip": config.eval.flip,
        "normalize": config.eval.normalize,
        "gallery_extra": 0 if extra is None else len(extra),
    }
    chosen = "".join(
        f", {name}" if value is True else f", {name} {value}"
        for name, value in protocol.items()
        if value
    )
    where = f"step {step} of {shown(workdir)}, on {shown(dataset.root)}"
    say(f"{config.model.name}, {where}{chosen}:\n{table(result)}")
    if not hosts.is_first():
        return result

    folder = pathlib.Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    splits = [split for split in (dataset, boxes, extra) if split is not None]
    skipped = [image for split in splits for image in split.skipped]
    report_skipped(folder, skipped, say)
    results = {
        "workdir": str(workdir),
        "step": step,
        "dataset": {
            "layout": config.data.layout,
            "root": str(dataset.root),
            "query": len(dataset.query),
            "gallery": len(dataset.gallery),
            "skipped": len(skipped),
        },
        "protocol": protocol,
        **result.summary(),
        "cmc": result.cmc.tolist(),
        "unmatched_queries": [dataset.query.paths[i] for i in result.unmatched],
    }
    write_text_atomically(folder / "results.json", json.dumps(results, indent=2) + "\n")
    if drawn is not None:
        written = write_figures(
            folder,
            evaluate,
            network,
            devices,
            variables,
            query,
            gallery,
            shown=drawn,
            block_size=config.eval.block_size,
            rescore=rescore,
        )
        say("drew " + ", ".join(str(path) for path in written))
    if report:
        write_report(
            folder,
            evaluate,
            network,
            devices,
            variables,
            query,
            gallery,
            result,
            facts={
                "Run": printable(workdir),
                "Step": f"{step:,}",
                "Dataset": f"{config.data.layout}, {printable(dataset.root)}",
                "Protocol": chosen.removeprefix(", ") or "single query",
            },
            curves=_curves(workdir),
            batch_size=config.eval.batch_size,
            block_size=config.eval.block_size,
            rescore=rescore,
            progress=say,
        )
    return result


def _curves(workdir: str) -> Figure | None:
    """The training curves of a run, None where it has none: its weights came from elsewhere."""
    try:
        records = read_metrics(workdir)
    except FileNotFoundError:
        return None
    try:
        return visualize.curves_figure(records)
    except ValueError:  # Nothing to draw is in them.
        return None


def _check_drawn(config) -> None:
    """Raises FileNotFoundError where to load the dataset of a recipe's `data` would draw it."""
    if config.layout == "synthetic" and not (pathlib.Path(config.root) / RECORD).is_file():
        raise FileNotFoundError(
            f"no synthetic pedestrians in {shown(config.root)}, the folder that the run names: "
            "--config.data.root=FOLDER names another, where they are drawn if they are not there"
        )
