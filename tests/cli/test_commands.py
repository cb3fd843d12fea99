"""`reid-jax`: the selected command is run, and help imports very little."""

import os
import pathlib
import subprocess
import sys
import time

import pytest

import reid_jax
from reid_jax.cli import commands, flag_programs
from reid_jax.runs.settings import leaves_of
from reid_jax.runs.workdir import write_run
from reid_jax.runtime import hosts
from tests.test_configs import load

ROOT = pathlib.Path(__file__).parents[2]
HEAVY = ("jax", "flax", "optax", "orbax", "tensorflow", "tensorflow_datasets", "matplotlib")
PROGRAMS = [
    ["-m", "reid_jax"],
    *(["-m", "reid_jax", name] for name in commands.COMMANDS),
    ["train.py"],
    ["eval.py"],
]


def run(*arguments):
    program = [sys.executable, *arguments]
    return subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("program", PROGRAMS, ids=" ".join)
def test_help_is_printed_at_once_and_without_jax(program):
    start = time.monotonic()
    done = run("-X", "importtime", *program, "--help")
    seconds = time.monotonic() - start
    assert done.returncode == 0, done.stderr
    imported = {
        line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.split("\n")
    }
    assert "reid_jax" in imported
    assert imported.isdisjoint(HEAVY)
    assert done.stdout.startswith("usage: ")
    # A quarter of a second on an idle machine; other work may run beside the tests.
    assert seconds < 10


def test_without_arguments_help_is_printed():
    done = run("-m", "reid_jax")
    assert (done.returncode, done.stderr) == (0, "")
    assert all(f"\n  {name} " in done.stdout for name in commands.COMMANDS)


def test_the_version_is_printed():
    done = run("-m", "reid_jax", "--version")
    assert (done.returncode, done.stdout) == (0, f"reid-jax {reid_jax.__version__}\n")


@pytest.mark.parametrize("argument", ["--help", "--version"])
def test_a_reader_that_is_gone_is_no_error(argument):
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "reid_jax", argument]
    with open(write, "wb") as stream:
        done = subprocess.run(command, cwd=ROOT, stdout=stream, stderr=-1, text=True, check=False)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["tain"], 2, "reid-jax: there is no command 'tain'; did you mean train?\n"),
        (["x"], 2, "reid-jax: there is no command 'x'; commands: train, eval, search, "),
        (["train", "--config=pmm_markt", "--workdir=x"], 1, "did you mean pmm_market"),
        (["train", "--config=a", "--config=b", "--workdir=x"], 1, "--config is given twice"),
        (["train", "--config=pmm_markt", "--help"], 1, "did you mean pmm_market"),
        (["train"], 1, "flag --workdir=None: Flag --workdir must have a value"),
        (["train", "--workdir=x", "more"], 1, "unknown argument 'more': flags begin with --"),
        (["train", "--wrkdir=x"], 1, "Unknown command line flag 'wrkdir'"),
        (["eval", "--config=pmm_market", "--workdir=x"], 1, "uses the recipe of the run in --wor"),
        (["reproduce", "pmm-table9"], 2, "invalid choice: 'pmm-table9'"),
    ],
)
def test_mistakes_are_one_line(arguments, code, message):
    done = run("-m", "reid_jax", *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["pmm_market", "hbfp_market", "bdb_cuhk03", "strong_duke"])
def test_help_shows_each_leaf_with_default_meaning_and_what_it_may_be(name, capsys):
    commands.main(["train", f"--config={name}", "--help"])
    shown = capsys.readouterr().out
    words = " ".join(shown.split())
    for leaf, kind in leaves_of(load(name)).items():
        assert f"\n  --config.{leaf}=" in shown
        assert f"{kind.meaning} {kind.words[0].upper()}{kind.words[1:]}." in words
    lr = load(name).optim.lr
    assert f"\n  --config.optim.lr={lr}\n" in shown
    assert max(map(len, shown.splitlines())) <= 102


def test_help_of_eval_shows_the_leaves_of_its_run(tmp_path, capsys):
    config = load("bdb_synthetic", "small")
    config.eval.batch_size = 17
    write_run(tmp_path, config, 8)
    commands.main(["eval", f"--workdir={tmp_path}", "--help"])
    shown = capsys.readouterr().out
    assert "\n  --config.eval.batch_size=17\n" in shown
    assert "--config.optim.lr" not in shown
    commands.main(["eval", "--help"])
    assert "\n  --config.eval.batch_size=128\n" in capsys.readouterr().out


def test_the_flags_for_hosts_have_the_defaults_of_hosts():
    values = flag_programs.new_flags()
    flag_programs.define_host_flags(values)
    assert values["heartbeat"].default == hosts.HEARTBEAT_TIMEOUT
