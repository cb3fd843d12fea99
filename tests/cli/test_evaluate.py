"""`reid-jax eval`: how it passes on its arguments."""

import pytest

from reid_jax import report
from reid_jax.cli import evaluate
from reid_jax.programs import evaluate as program
from reid_jax.runs.workdir import read_run, write_run
from tests.test_configs import load


@pytest.fixture
def calls(monkeypatch):
    """Keyword arguments of `evaluate_run`, its recipe, and whether a report is requested."""
    calls = []

    def evaluate_run(config, workdir, **others):
        calls.append({"config": config, "workdir": workdir, **others})

    monkeypatch.setattr(program, "evaluate_run", evaluate_run)
    monkeypatch.setattr(
        report, "present", lambda run, output, report: calls[-1].update(report=report)
    )
    return calls


@pytest.fixture
def workdir(tmp_path):
    write_run(tmp_path, load("bdb_synthetic", "small"), 8)
    return str(tmp_path)


def test_the_run_s_recipe_is_the_default(workdir, calls):
    evaluate.main([f"--workdir={workdir}"])
    (call,) = calls
    assert call["config"] == read_run(workdir)[0]
    assert (call["workdir"], call["output"]) == (workdir, f"{workdir}/eval")
    assert (call["checkpoint"], call["figures"], call["report"]) == ("latest", 0, False)
    assert call["protocol"] == program.Protocol(None, None, False)


def test_every_flag_arrives(workdir, calls):
    evaluate.main(
        [
            *(f"--workdir={workdir}", "--checkpoint=best", "--output=there", "--report"),
            *("--multi-query=max", "--gallery-extra=more", "--rerank", "--figures", "--queries=2"),
            *("--config.eval.batch_size=3", "--config.data.root=elsewhere"),
        ]
    )
    (call,) = calls
    assert (call["config"].eval.batch_size, call["config"].data.root) == (3, "elsewhere")
    assert (call["checkpoint"], call["output"], call["figures"]) == ("best", "there", 2)
    assert call["protocol"] == program.Protocol("max", "more", True)
    assert call["report"]


def test_queries_by_name_are_drawn_instead(workdir, calls):
    evaluate.main([f"--workdir={workdir}", "--figure-queries=a.jpg,b.jpg"])
    assert calls[0]["figures"] == ["a.jpg", "b.jpg"]


def test_no_query_to_draw_is_an_error(workdir, calls):
    with pytest.raises(SystemExit, match="--figure-queries names no query"):
        evaluate.main([f"--workdir={workdir}", "--figure-queries="])
    assert not calls


def test_the_first_line_names_the_run_and_its_data(workdir, calls, capsys):
    evaluate.main([f"--workdir={workdir}", "--config.data.root=elsewhere"])
    first = capsys.readouterr().out.splitlines()[0]
    assert first == (
        f"loading JAX and TensorFlow to evaluate '{workdir}' on synthetic data in 'elsewhere'"
    )


def test_a_file_of_flags_is_read(workdir, calls, tmp_path):
    (tmp_path / "flags").write_text("--config.data.root=elsewhere\n--queries=2\n")
    evaluate.main([f"--workdir={workdir}", f"--flagfile={tmp_path / 'flags'}"])
    (call,) = calls
    assert (call["config"].data.root, call["config"].data.also) == ("elsewhere", ())
    assert call["figures"] == 2  # without --figures
    with pytest.raises(SystemExit, match=r"^ValueError: .*nowhere"):
        evaluate.main([f"--workdir={workdir}", "--flagfile=nowhere"])
    (tmp_path / "flags").write_text("--config.model.dtype=bfloat16\n")
    with pytest.raises(SystemExit, match=r"eval cannot change model\.dtype"):
        evaluate.main([f"--workdir={workdir}", f"--flagfile={tmp_path / 'flags'}"])


def test_another_layout_has_its_own_names_and_folders(tmp_path, calls):
    config = load("bdb_synthetic", "small")
    config.data.layout, config.data.pattern = "folder", "(?P<pid>[^-]+)-(?P<camid>[0-9]+)"
    config.data.folders = ("a", "b", "c")
    write_run(tmp_path, config, 8)
    own = (config.data.pattern, config.data.folders)
    for arguments, wanted in (
        ([], own),
        (["--config.data.root=there"], own),
        (["--config.data.layout=folder"], own),
        (["--config.data.layout=market1501"], ("", ())),
        (
            ["--config.data.layout", "market1501", "--config.data.folders=('d','e','f')"],
            ("", ("d", "e", "f")),
        ),
    ):
        evaluate.main([f"--workdir={tmp_path}", *arguments])
        data = calls[-1]["config"].data
        assert (data.pattern, data.folders) == wanted
