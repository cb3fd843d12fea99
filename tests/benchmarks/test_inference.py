import json
import time
import types

import numpy as np
import pytest

from benchmarks import inference
from tests.benchmarks import schema

SETTINGS = {"networks": [str], "counts": [str], "rounds": {int}, "small": bool}
FIGURES = {"milliseconds": {float}, "least_milliseconds": {float}, "images_per_second": {float}}
ROW = {"network": str, "count": {int}, "form": str, **FIGURES}
EMBED = {**ROW, "embed_over_best_fixed": {float}, "embed_over_peers": ({float}, None)}


def test_what_is_written_and_printed(tmp_path, capsys, monkeypatch):
    pauses = []
    clock = types.SimpleNamespace(sleep=pauses.append, perf_counter=time.perf_counter)
    monkeypatch.setattr(inference, "time", clock)
    path = tmp_path / "inference.json"
    options = ["--networks=baseline", "--counts=1,3", "--rounds=1", "--small"]
    inference.main([*options, f"--output={path}"])
    content = json.loads(path.read_text())
    schema.check_record(content, SETTINGS, (ROW, EMBED))
    assert content["command"].endswith(" ".join(options))
    assert pauses == [inference._PAUSE] * len(content["results"])
    for count in (1, 3):
        forms = [row["form"] for row in content["results"] if row["count"] == count]
        assert forms[:5] == ["embed", *(f"fixed {size}" for size in inference.FIXED)]
        assert set(forms[5:]) <= set(inference.PEERS)
    assert len(capsys.readouterr().out.splitlines()) == 1 + len(content["results"])


@pytest.mark.parametrize("wrong", [np.nan, 0.0, 2.0])
def test_other_descriptors_are_an_error(wrong):
    want = np.ones((2, 3), np.float32)
    with pytest.raises(ValueError, match="frozen returns other descriptors"):
        inference._check("frozen", wrong * want, want)
    with pytest.raises(ValueError, match="other descriptors"):
        inference._check("embed", 0 * want, 0 * want)  # Random weights that describe nothing.
