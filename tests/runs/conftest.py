import pytest

from tests.runs.states import save_all


@pytest.fixture
def two(tmp_path):
    """A folder with the checkpoints of steps 10 (mAP 0.9) and 20 (mAP 0.1)."""
    folder = tmp_path / "ünusual name %20"
    save_all(folder, (10, 0.9), (20, 0.1))
    return folder
