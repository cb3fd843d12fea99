import pytest

from reid_jax.report import presentation


@pytest.mark.parametrize(
    ("content", "drawn"),
    [('{"step": 1, "loss": 2.5, "<b>": 1}', True), ('{"step": 1, "<b>": 1}', False), ("", False)],
)
def test_curves_are_drawn_where_there_are_some(content, drawn, tmp_path):
    (tmp_path / "metrics.jsonl").write_text(f"{content}\n" if content else "")
    assert (list(presentation._training_curves(str(tmp_path))) == ["Loss"]) == drawn
