"""Tests that need more than the extra `test` have the marker `extras`, by which CI finds them."""

import pathlib

TESTS = pathlib.Path(__file__).parent


def test_files_that_skip_what_is_not_installed_mark_it():
    for path in TESTS.rglob("test_*.py"):
        text = path.read_text(encoding="utf-8")
        if "importorskip(" in text and path.name != "test_extras.py":
            assert "pytest.mark.extras" in text, f"{path}: mark the tests that need an extra"


def test_fixtures_of_extras_mark_their_tests(request):
    """In the whole suite. Alone, this test sees only itself."""
    for item in request.session.items:
        if {"milvus", "onnx_converter", "torch"}.intersection(item.fixturenames):
            assert item.get_closest_marker("extras"), item.nodeid
