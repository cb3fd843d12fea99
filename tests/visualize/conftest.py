import matplotlib as mpl
import pytest

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(autouse=True)
def same_settings():
    """Check that no drawing changes matplotlib's global settings."""
    before = dict(mpl.rcParams)
    yield
    assert dict(mpl.rcParams) == before
