import pytest

from tests.data.synthetic.market import write


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    root = tmp_path_factory.mktemp("synthetic") / "market"
    write(root)
    return root
