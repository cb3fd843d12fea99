import pathlib

import pytest

from reid_jax.runtime import checkout

ROOT = pathlib.Path(__file__).parents[2]


def test_without_a_checkout_there_is_nothing_to_run(tmp_path, monkeypatch):
    assert checkout.find_checkout() == ROOT
    package = tmp_path / "site-packages" / "reid_jax"
    monkeypatch.setattr(checkout, "__file__", str(package / "runtime" / "checkout.py"))
    monkeypatch.chdir(ROOT)
    assert checkout.find_checkout() == ROOT
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no train\.py .*start this in a checkout"):
        checkout.find_checkout()
