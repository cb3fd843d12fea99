"""Evaluation of a run's checkpoint, on the run's own dataset or another."""

import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from reid_jax import models
from reid_jax.data import datasets, unions
from reid_jax.data.splits import Dataset, Split
from reid_jax.data.synthetic.dataset import RECORD
from reid_jax.evaluation import verification
from reid_jax.evaluation.evaluator import Evaluation, Evaluator, tables
from reid_jax.evaluation.ranking import RankingResult
from reid_jax.evaluation.reranking import NEIGHBOURS
from reid_jax.evaluation.verification import VerificationResult
from reid_jax.recipe import DataConfig, RecipeConfig
from reid_jax.runs.restoring import restore_variables
from reid_jax.runs.results import check_writable, skipped_name, write_results
from reid_jax.runs.settings import check_leaves
from reid_jax.runs.symlinks import check_symlinks
from reid_jax.runs.workdir import read_run, report_skipped
from reid_jax.runtime import hosts
from reid_jax.runtime.devices import choose_devices, own_devices
from reid_jax.runtime.files import local_path
from reid_jax.runtime.messages import say, shown


@dataclasses.dataclass(frozen=True)
class Protocol:
    """The differences of an evaluation from the standard protocol, if any.

    Attributes:
        multi_query: `average` or `max`: Market-1501's multi-query protocol. None means single
            query.
        gallery_extra: a folder of more gallery images, all of them distractors.
        rerank: order the gallery by k-reciprocal re-ranking.
    """

    multi_query: str | None = None
    gallery_extra: str | None = None
    rerank: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class EvaluationImages:
    """The images of an evaluation: a dataset, boxes for multi-query, more gallery images.

    Attributes:
        name: a short name of the dataset, see `unions.names`.
        layout: the layout, as the recipe names it.
        dataset: its query and gallery are evaluated.
        boxes: see `Evaluator`.
        extra: see `Evaluator`.
    """

    name: str
    layout: str
    dataset: Dataset
    boxes: Split | None
    extra: Split | None

    @property
    def skipped(self) -> list[tuple[str, str]]:
        """Paths of the omitted bad images, and the reasons."""
        splits = (self.dataset, self.boxes, self.extra)
        return [image for split in splits if split is not None for image in split.skipped]


@dataclasses.dataclass(frozen=True, eq=False)
class Scores:
    """The scores on one dataset.

    Attributes:
        images: the dataset.
        protocol: the differences from the standard protocol, by name, as in `results.json`.
            `without_cameras` means that only the query's own file is ignored.
        result: result of ranking the gallery for the queries.
        verification: as `Evaluation.verification`.
    """

    images: EvaluationImages
    protocol: dict[str, Any]
    result: RankingResult
    verification: VerificationResult | None

    @property
    def title(self) -> str:
        """The name of the dataset, and the protocol if it is not the standard one."""
        return ", ".join(filter(None, (self.images.name, self.protocol_text)))

    @property
    def protocol_text(self) -> str:
        """The protocol in words: `multi_query average, rerank`; "" for the standard one."""
        return ", ".join(
            name if value is True else f"{name} {value}"
            for name, value in self.protocol.items()
            if value
        )


@dataclasses.dataclass(frozen=True, eq=False)
class EvaluatedRun:
    """The evaluation of a checkpoint, and where its weights and images are from.

    Attributes:
        config: the run's recipe, perhaps with other `data` or `eval`.
        workdir: the run's folder, or a file of `reid-jax pack`.
        step: the step of the checkpoint.
        scores: of the dataset of `data.root`, then of those of `data.also`.
        evaluation: descriptors and scores of the first dataset.
        drawn: (n,) int32 indices of its queries to draw.
    """

    config: RecipeConfig
    workdir: str
    step: int
    scores: list[Scores]
    evaluation: Evaluation
    drawn: np.ndarray


def evaluate_run(
    config: RecipeConfig,
    workdir: str,
    *,
    checkpoint: str | int,
    output: str,
    protocol: Protocol = Protocol(),
    figures: int | Sequence[str] = 0,
    beside: Sequence[str] = (),
) -> EvaluatedRun:
    """Restore a checkpoint, rank the gallery, write `results.json` and print a table.

    If `data.also` names more datasets, each is evaluated by itself. With several hosts, each
    evaluates its part, and the first reads the checkpoint and writes. If bad images were left out,
    `skipped_images.json` beside the results names them; in a workdir, which may have such a file of
    training, its name is `eval_skipped_images.json`.

    Args:
        config: the run's recipe, as from `read_run`, perhaps with other `data` or `eval`.
        workdir: the run's folder, or a file of `reid-jax pack`.
        checkpoint: `latest`, `best`, or a step.
        output: the folder of the results, created if it does not exist.
        protocol: the protocol, by default the standard one.
        figures: queries to draw later, as `choose_queries` takes them; 0 for none.
        beside: names of the files that will be written to `output` later.

    Raises:
        FileExistsError: a file of another program in `output` would be replaced.
        FileNotFoundError, ValueError: the run, the checkpoint, the dataset or a folder is missing;
            the checkpoint is of another network; or a file of `figures` is not a query.
    """
    # Quick checks come first: settings and folders, then images.
    workdir, output = local_path(workdir, "workdir"), local_path(output, "output")
    _, num_classes = read_run(workdir)
    check_leaves(config)
    check_symlinks(workdir)
    folder = pathlib.Path(output)
    hosts.from_first(lambda: check_writable(folder, "the folder of the results", beside))
    devices = own_devices(choose_devices(config.devices))
    hosts.together(lambda: _check_drawn(config.data))
    sets = _load_images(config.data, protocol)
    drawn = choose_queries(figures, sets[0].dataset.query.paths)

    # The network and its weights.
    network = models.create(config.model, num_classes)
    network.check(config.data.image_size)
    step, variables = restore_variables(network, config.data.image_size, workdir, checkpoint)

    # Open the images of all datasets first: a bad one is then reported before hours of work.
    first, *others = sets
    evaluator = Evaluator(
        network,
        first.dataset,
        config,
        devices,
        say,
        boxes=first.boxes,
        pooling=protocol.multi_query or "average",
        extra=first.extra,
    )
    evaluators = [
        evaluator,
        *(evaluator.on(one.dataset, boxes=one.boxes, extra=one.extra) for one in others),
    ]

    # Descriptors and their ranking.
    evaluations, scores = [], []
    for images, one in zip(sets, evaluators, strict=True):
        say(_opening(workdir, step, images))
        evaluations.append(one.evaluate(variables, rerank=protocol.rerank))
        scores.append(_scores(images, evaluations[-1], protocol, config))
        del evaluations[1:]  # Only the first one's descriptors are needed later.

    # Results.
    done = EvaluatedRun(config, workdir, step, scores, evaluations[0], drawn)
    try:
        if hosts.is_first():
            _write(done, folder)
    finally:
        _print(done)
    return done


def choose_queries(chosen: int | Sequence[str], paths: Sequence[str]) -> np.ndarray:
    """Choose the queries to draw.

    Args:
        chosen: their number, spread evenly over the split; or the files to draw, in this order,
            each a path or the end of one, such as a file's name.
        paths: the files of all queries.

    Returns:
        (n,) int32 indices.

    Raises:
        ValueError: a file is not a query, or is the end of several paths. All are named.
    """
    if chosen == 0:
        return np.empty(0, np.int32)
    if isinstance(chosen, int):
        return np.unique(np.linspace(0, len(paths) - 1, chosen).astype(np.int32))
    parts = [pathlib.Path(os.path.abspath(path)).parts for path in paths]
    indices, problems = [], []
    for file in chosen:
        end, name = pathlib.Path(os.path.expanduser(file)).parts, shown(file)
        whole = pathlib.Path(os.path.abspath(os.path.expanduser(file))).parts
        found = [
            i for i, path in enumerate(parts) if end and (path[-len(end) :] == end or path == whole)
        ]
        indices += found
        if not found:
            problems.append(f"no query matches {name}")
        elif len(found) > 1:
            first, second = (shown(paths[i]) for i in found[:2])
            problems.append(f"{len(found)} queries match {name}, such as {first} and {second}")
    if problems:
        raise ValueError(
            f"queries to draw: {'; '.join(problems)}. Give each as a path, or the end of a path, "
            f"that only one query has, such as {shown(paths[0])}"
        )
    return np.array(indices, np.int32)


def _load_images(data: DataConfig, protocol: Protocol) -> list[EvaluationImages]:
    found = datasets.load_all(data, say, to_train=False)
    layouts = [data.layout, *(dataset.name for dataset in found[1:])]
    every = zip(unions.names(found), layouts, found, strict=True)
    return [_with_protocol(*one, data, protocol) for one in every]


def _with_protocol(
    name: str, layout: str, dataset: Dataset, data: DataConfig, protocol: Protocol
) -> EvaluationImages:
    """The images of a dataset and of a protocol."""
    boxes = extra = None
    if protocol.multi_query:
        boxes = datasets.load_multi_query(dataset, data, say)
    if protocol.gallery_extra is not None:
        extra = datasets.load_extra(protocol.gallery_extra, data, say)
    count = len(dataset.query) + len(dataset.gallery) + len(extra or ())
    if protocol.rerank and count <= NEIGHBOURS:
        raise ValueError(
            f"--rerank needs at least {NEIGHBOURS + 1} images in query and gallery together, which "
            f"have {count}: leave out --rerank"
        )
    return EvaluationImages(name, layout, dataset, boxes, extra)


def _scores(
    images: EvaluationImages, evaluation: Evaluation, protocol: Protocol, config: RecipeConfig
) -> Scores:
    described = {
        "without_cameras": not images.dataset.has_cameras,
        "multi_query": protocol.multi_query,
        "rerank": protocol.rerank,
        "flip": config.eval.flip,
        "normalize": config.eval.normalize,
        "gallery_extra": 0 if images.extra is None else len(images.extra),
    }
    return Scores(images, described, evaluation.result, evaluation.verification)


def _opening(workdir: str, step: int, images: EvaluationImages) -> str:
    """The first line of an evaluation: which weights are evaluated on which images."""
    dataset = images.dataset
    return (
        f"evaluating step {step} of {shown(os.path.abspath(workdir))} on {images.layout} in "
        f"{shown(os.path.abspath(dataset.root))}: {len(dataset.query):,} queries, "
        f"{len(dataset.gallery):,} gallery images"
        + ("" if dataset.has_cameras else "; without cameras, only a query's own file is ignored")
    )


def _print(done: EvaluatedRun) -> None:
    where = f"{done.config.model.name}, step {done.step} of {shown(done.workdir)}"
    first = done.scores[0]
    if len(done.scores) == 1:
        where += f", on {shown(first.images.dataset.root)}"
        where += f", {first.protocol_text}" if first.protocol_text else ""
    say(f"{where}:\n{tables({scores.title: scores.result for scores in done.scores})}")
    for scores in done.scores:
        if scores.verification is not None:
            which = f"{scores.images.name}: " if len(done.scores) > 1 else ""
            say(which + verification.table(scores.verification))


def _write(done: EvaluatedRun, folder: pathlib.Path) -> None:
    """Write `results.json` and, if images were omitted, `skipped_images.json`."""
    size = list(done.config.data.image_size)
    first, *others = (_results(scores, size) for scores in done.scores)
    results = {"workdir": os.path.abspath(done.workdir), "step": done.step, **first}
    if others:
        names = [scores.images.name for scores in done.scores[1:]]
        results["also"] = [{"name": x, **y} for x, y in zip(names, others, strict=True)]
    if write_results(folder, results):
        say(f"removed pictures and report of another evaluation from {shown(folder)}")
    # An image of --gallery-extra is in all galleries.
    skipped = dict.fromkeys(image for scores in done.scores for image in scores.images.skipped)
    report_skipped(folder, list(skipped), say, skipped_name(folder))


def _results(scores: Scores, image_size: list[int]) -> dict[str, Any]:
    """What `results.json` holds about one dataset."""
    dataset, result = scores.images.dataset, scores.result
    results = {
        "dataset": {
            "layout": scores.images.layout,
            "root": os.path.abspath(dataset.root),
            "query": len(dataset.query),
            "gallery": len(dataset.gallery),
            "skipped": len(scores.images.skipped),
        },
        "protocol": scores.protocol,
        **result.summary(),
        "cmc": result.cmc.tolist(),
        "unmatched_queries": [dataset.query.paths[i] for i in result.unmatched],
    }
    if scores.verification is not None:
        results["verification"] = {**scores.verification.summary(), "image_size": image_size}
    return results


def _check_drawn(data: DataConfig) -> None:
    """Raise FileNotFoundError if the synthetic pedestrians of a recipe are not drawn yet.

    Evaluations draw none: a workdir may come from others, and its recipe may name any folder; and a
    mistyped folder must not get a new dataset.
    """
    if data.layout != "synthetic":
        return
    root = local_path(data.root, "data.root")
    if not os.path.isfile(os.path.join(root, RECORD)):
        numbers = " ".join(f"--{name}={value}" for name, value in data.synthetic.items())
        raise FileNotFoundError(
            f"no synthetic pedestrians in {shown(os.path.abspath(root))}, and an evaluation draws "
            "none. Name the folder in which training drew them by --config.data.root=FOLDER, or "
            f"draw them by `python -m reid_jax.data.synthetic FOLDER {numbers}`"
        )
