"""Evaluates a run: `python eval.py --workdir=runs/pmm`.

Recipe, number of identities and weights come from the workdir. Leaves of `data` and `eval` may be
overridden, to evaluate on another dataset: `--config.data.layout=folder --config.data.root=FOLDER`.
`--figures` adds pictures of some queries, or of those that `--figure-queries=FILE,FILE` chooses;
`--report` a page of all of them, to open in a browser.
"""

import functools
import os

from absl import app, flags
from ml_collections import config_flags

from reid_jax import recipe_flags
from reid_jax.evaluation.multi_query import QUERY_POOLINGS
from reid_jax.programs.evaluate import Protocol, evaluate_run
from reid_jax.report import present
from reid_jax.runs.workdir import read_run
from reid_jax.runtime import hosts
from reid_jax.runtime.allocator import keep_freed_memory
from reid_jax.runtime.compilation_cache import keep_compiled
from reid_jax.runtime.messages import clear_errors

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
_CHECKPOINT = flags.DEFINE_string("checkpoint", "latest", "latest, best, or the number of a step.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder of the results; WORKDIR/eval by default.")
_FIGURES = flags.DEFINE_bool(
    "figures", False, "Draw what the network looks at in some queries, and their ranked lists."
)
_REPORT = flags.DEFINE_bool(
    "report", False, "Write report.html: all queries, what was found and Grad-CAM, for a browser."
)
_MULTI_QUERY = flags.DEFINE_enum(
    "multi-query",
    None,
    QUERY_POOLINGS,
    "Market-1501's multi-query protocol, from its folder gt_bbox.",
)
_GALLERY_EXTRA = flags.DEFINE_string(
    "gallery-extra", None, "Folder of more gallery images, none of them a match."
)
_RERANK = flags.DEFINE_bool("rerank", False, "Re-rank by k-reciprocal neighbours.")
_TRACEBACK = flags.DEFINE_bool("traceback", False, "Show where an error came from.")
_QUERIES = flags.DEFINE_integer("queries", 6, "Queries to draw.", lower_bound=1)
_FIGURE_QUERIES = flags.DEFINE_list(
    "figure-queries", None, "Draw these queries, given by file, instead of --queries spread evenly."
)
_joined = hosts.define_flags()


def parse_flags(argv):
    """The recipe in the workdir is the default that `--config.` flags override."""
    app.parse_flags_with_usage([arg for arg in argv if not arg.startswith("--config.")])
    with clear_errors(_TRACEBACK.value):
        config, _ = read_run(_WORKDIR.value)
        recipe_flags.define(config, argv)
        flags.declare_key_flag("config")
        return app.parse_flags_with_usage(argv)


def main(argv):
    """Flags and two calls."""
    keep_freed_memory()
    keep_compiled()
    if len(argv) > 1:
        raise app.UsageError(f"unknown argument {argv[1]!r}: flags begin with --")
    clear = functools.partial(clear_errors, _TRACEBACK.value)
    with clear(), _joined(), clear():
        output = _OUTPUT.value or os.path.join(_WORKDIR.value, "eval")
        figures = _FIGURE_QUERIES.value or (_QUERIES.value if _FIGURES.value else 0)
        run = evaluate_run(
            flags.FLAGS.config,
            _WORKDIR.value,
            checkpoint=_CHECKPOINT.value,
            output=output,
            protocol=Protocol(_MULTI_QUERY.value, _GALLERY_EXTRA.value, _RERANK.value),
            figures=figures,
            draw="data.root" in config_flags.get_override_values(flags.FLAGS["config"]),
        )
        present(run, output, report=_REPORT.value)


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
