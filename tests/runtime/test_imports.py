import sys

import pytest

from reid_jax.runtime.imports import hidden


def test_a_hidden_module_is_absent_until_the_end(tmp_path, monkeypatch):
    (tmp_path / "seldom_used.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="seldom_used"), hidden("seldom_used"):
        import seldom_used
    import seldom_used

    with hidden("seldom_used"):
        assert sys.modules["seldom_used"] is seldom_used
    monkeypatch.delitem(sys.modules, "seldom_used")
