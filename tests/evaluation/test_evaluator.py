import jax
import numpy as np

from reid_jax.evaluation.evaluator import Evaluator, table, tables
from reid_jax.evaluation.ranking import RankingResult
from tests.test_configs import load


def result(unmatched):
    return RankingResult(
        cmc=np.linspace(0.5, 0.99, 50),
        mAP=0.25,
        mINP=0.125,
        average_precision=np.full(20, 0.25),
        num_queries=20,
        unmatched=np.array(unmatched, int),
        ranks=[np.array([1])] * 20,
    )


def test_batches_are_as_large_as_those_of_embed():
    """On a CPU no larger than is fast, and in any case shared by all devices."""
    evaluator = object.__new__(Evaluator)  # Without a dataset.
    evaluator._config, evaluator.devices = load("pmm_market"), jax.devices()[:3]
    assert evaluator._config.eval.batch_size == 128
    assert evaluator.batch_size == 9


def test_table_is_in_per_cent():
    names, values = table(result([])).split("\n")
    assert names.split() == ["Rank-1", "Rank-5", "Rank-10", "mAP", "mINP"]
    assert values.split() == ["50.0", "54.0", "59.0", "25.0", "12.5"]


def test_queries_without_a_match_are_reported():
    assert "left out: 2 of 20 queries without a match" in table(result([3, 7]))


def test_several_datasets_are_rows_of_one_table():
    assert tables({"market1501": result([3])}) == table(result([3]))
    names, first, second, left_out = tables(
        {"cuhk03": result([]), "people, rerank": result([3])}
    ).split("\n")
    assert names.split() == ["Rank-1", "Rank-5", "Rank-10", "mAP", "mINP"]
    assert first.split() == ["cuhk03", "50.0", "54.0", "59.0", "25.0", "12.5"]
    assert second.split() == ["people,", "rerank", *first.split()[1:]]
    assert len(names) == len(first) == len(second)
    assert left_out == "  left out: 1 of 20 queries without a match in the gallery"
