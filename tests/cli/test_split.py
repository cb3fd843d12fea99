"""`reid-jax split`: its arguments, its output, and the printed command."""

import shlex

import pytest

from reid_jax.cli import commands, split
from reid_jax.data import datasets


@pytest.fixture
def photos(tmp_path):
    for who in ("anna", "bert", "carl O'Neill", "dora"):
        (tmp_path / "my photos" / who).mkdir(parents=True)
        for i in range(3):
            (tmp_path / "my photos" / who / f"{i}.jpg").touch()
    return tmp_path / "my photos"


def test_the_printed_command_reads_the_new_folder(photos, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    commands.main(["split", "my photos", "it's out"])
    first, *counts, wrote, command = capsys.readouterr().out.splitlines()
    assert first == "'my photos', without cameras:"
    assert [line.split()[0] for line in counts] == ["all", "train", "query", "gallery"]
    assert wrote == 'wrote "it\'s out" with links to the files; to train on it:'
    program, name, *arguments = shlex.split(command)
    assert (program, name) == ("reid-jax", "train")
    flags = dict(argument.removeprefix("--").split("=", 1) for argument in arguments)
    assert flags.pop("workdir") == "runs/it's out"
    config = split.recipes.find(flags.pop("config")).config
    assert flags.pop("config.data.identities_per_batch") == "2"
    config.update_from_flattened_dict(
        {leaf.removeprefix("config."): value for leaf, value in flags.items()}
    )
    assert datasets.load(config.data).train.num_identities == 2


def test_options_are_used(photos, tmp_path, capsys):
    for i, name in enumerate(("zoe-1.jpg", "zoe-2.jpg", "ida-1.jpg", "ida-2.jpg", "eva-1.jpg")):
        (photos / f"{i}").mkdir()
        (photos / f"{i}" / name).touch()
    options = ["--pattern=(?P<pid>[a-z]+|)", "--train=0.3", "--queries=2", "--seed=1"]
    with pytest.raises(SystemExit, match="no identity in the name of "):
        split.main([str(photos), str(tmp_path / "out"), *options])
    options = [r"--pattern=(?P<pid>[^/]+)/\d", "--train=0.3", "--queries=2", "--seed=1"]
    (tmp_path / "few").mkdir()
    for who in ("anna", "bert", "dora"):
        (photos / who).rename(tmp_path / "few" / who)
    split.main([str(tmp_path / "few"), str(tmp_path / "out"), *options])
    printed = capsys.readouterr().out
    assert "  query           1 identity          2 images\n" in printed
    assert "'--config.data.pattern=(?P<pid>[^/]+)/\\d'" in printed


@pytest.mark.parametrize(
    "arguments",
    [[], ["a"], ["a", "b", "c"], ["a", "b", "--train=1"], ["a", "b", "--train=x"],
     ["a", "b", "--queries=0"], ["a", "b", "--queries=1.5"], ["a", "b", "--seed=-1"]],
)  # fmt: skip
def test_wrong_arguments_are_refused(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        split.main(arguments)
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith("usage: reid-jax split")


def test_errors_are_one_line(photos, tmp_path):
    with pytest.raises(SystemExit, match=r"^FileExistsError: .* exists and is no empty folder"):
        split.main([str(photos), str(photos.parent)])
    (tmp_path / "one").mkdir()
    (photos / "anna").rename(tmp_path / "one" / "x")
    with pytest.raises(SystemExit, match=r"^ValueError: images of 'x' only"):
        split.main([str(tmp_path / "one"), str(tmp_path / "out")])
