"""The output of `reid-jax eval` besides the scores: pictures and a page."""

import pathlib

from matplotlib.figure import Figure

from reid_jax import visualize
from reid_jax.programs.evaluate import EvaluatedRun
from reid_jax.report.figures import write_figures
from reid_jax.report.html_report import write_report
from reid_jax.runs.metrics import read_metrics
from reid_jax.runtime import hosts
from reid_jax.runtime.files import local_path
from reid_jax.runtime.messages import printable, say


def present(run: EvaluatedRun, output: str, *, report: bool = False) -> None:
    """Write pictures of the queries `run.drawn`, and a page of all queries if requested.

    Prints the names of the written files. If there are several hosts, only the first one writes.

    Args:
        run: from `evaluate_run`.
        output: the folder of its results.
        report: whether to write a page of all queries, see `write_report`.

    Raises:
        OSError, ValueError: as `write_report`.
    """
    if not hosts.is_first():
        return
    folder = pathlib.Path(local_path(output, "output"))
    if len(run.drawn):
        written = write_figures(folder, run.evaluation, shown=run.drawn)
        say("drew " + ", ".join(str(path) for path in written))
    if report:
        places = [f"{x.images.layout}, {printable(x.images.dataset.root)}" for x in run.scores]
        facts = {
            "Run": printable(run.workdir),
            "Step": f"{run.step:,}",
            "Dataset": places[0],
            "Protocol": run.scores[0].protocol_text or "single query",
        }
        if len(places) > 1:
            facts["Also evaluated on"] = "; ".join(places[1:])
        curves = _training_curves(run.workdir)
        rows = {x.title: x.result for x in run.scores}
        write_report(folder, run.evaluation, facts=facts, curves=curves, rows=rows, progress=say)


def _training_curves(workdir: str) -> dict[str, Figure]:
    """The training curves of a run; none if it has none, such as one of converted weights."""
    try:
        return visualize.curve_figures(read_metrics(workdir))
    except (FileNotFoundError, NotADirectoryError):  # The latter for a packed file.
        return {}
