import textwrap

import pytest

from reid_jax.reproduce.plan import Settings
from tests.reproduce.stand_in import FAKE_TRAIN


@pytest.fixture
def settings(tmp_path):
    """Of a checkout with a `train.py` that takes no time."""
    checkout = tmp_path / "checkout"
    (checkout / "configs").mkdir(parents=True)
    (checkout / "train.py").write_text(textwrap.dedent(FAKE_TRAIN))
    return Settings(checkout, checkout / "runs")
