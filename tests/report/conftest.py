import pytest

from reid_jax import visualize
from tests.report_page import Evaluation, Page


@pytest.fixture(scope="module")
def evaluation():
    return Evaluation()


@pytest.fixture(scope="module")
def written(evaluation, tmp_path_factory):
    """A page with all of its parts."""
    records = [{"step": step, "loss": 2.0 - step, "mAP": step / 2} for step in (0, 1)]
    return Page(
        evaluation.write(
            tmp_path_factory.mktemp("report"),
            facts={"Run": "</script><script>hacked=1</script>"},
            curves=visualize.curve_figures(records),
        )
    )
