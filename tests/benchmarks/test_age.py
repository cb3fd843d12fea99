import json
import warnings

import pytest

from benchmarks import age, output

# A download without git's history, or a shallow clone, does not have the commits.
pytestmark = pytest.mark.skipif(
    output.git("rev-parse", "--is-shallow-repository") != "false", reason="needs git's history"
)


@pytest.mark.filterwarnings("default:older than the code")
def test_every_file_names_a_commit_of_the_history(capsys):
    age.main()
    lines = capsys.readouterr().out.splitlines()[1:]
    later = {line.split()[0]: int(line.split()[-1]) for line in lines}
    assert set(later) == {p.name for p in age.RESULTS.glob("*.json")}
    older = [name for name, commits in later.items() if commits]
    if older:  # No failure, since not every change of code changes a figure.
        warnings.warn(f"older than the code that they measured: {', '.join(older)}", stacklevel=1)


def test_every_measured_path_exists():
    for paths in age.MEASURED.values():
        for path in paths:
            assert list(output.ROOT.glob(path)), path


def test_commits_to_the_measured_code_are_counted(tmp_path):
    path = tmp_path / "step.json"
    path.write_text(json.dumps({"commit": output.git("rev-parse", "HEAD")}))
    assert age.age(path)[2] == 0
    changed = output.git("log", "-2", "--format=%H", "--", "reid_jax/models").splitlines()
    path.write_text(json.dumps({"commit": changed[1]}))
    assert age.age(path)[2] >= 1


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("step", {"date": "2026-11-21"}, "step.json has no `commit`"),
        ("step", {"commit": None}, "step.json has no `commit`"),
        ("step", {"commit": "0" * 40}, "names the commit '0000.*which this clone does not have"),
        ("other", {"commit": "HEAD"}, "other.json is not in MEASURED"),
    ],
)
def test_what_is_missing_or_unknown(name, content, message, tmp_path, monkeypatch):
    (tmp_path / f"{name}.json").write_text(json.dumps(content))
    monkeypatch.setattr(age, "RESULTS", tmp_path)
    with pytest.raises(SystemExit, match=message):
        age.main()
