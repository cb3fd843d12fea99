import textwrap

import pytest

from reid_jax.reproduce.plan import Settings
from tests.reproduce.stand_in import FAKE_TRAIN


@pytest.fixture
def settings(tmp_path):
    """Settings for a folder in which `python -m reid_jax train` is replaced and takes no time."""
    folder = tmp_path / "folder"
    package = folder / "reid_jax"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(textwrap.dedent(FAKE_TRAIN))
    return Settings(folder, folder / "runs")
