"""Flags, help and start of the programs that take recipes."""

import re
import sys

import pytest
from absl import flags

from reid_jax.cli import flag_programs, recipe_flags
from tests.test_configs import load


@pytest.fixture
def values():
    values = flag_programs.new_flags()
    flag_programs.define_host_flags(values)
    return values


def test_flags_are_parsed(values):
    flag_programs.parse(values, ["program", "--workdir=run", "--processes=2", "--traceback"])
    assert (values.workdir, values.processes, values.traceback) == ("run", 2, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Flag --workdir must have a value other than None"),
        (["--workdir=run", "more"], "unknown argument 'more': flags begin with --"),
        (["--workdir=run", "--processes=two"], "flag --processes=two"),
        (["--workdir=run", "--heartbeat=0"], "flag --heartbeat=0"),
        (["--workdir=run", "--process_id=0"], "Unknown command line flag 'process_id'"),
    ],
)
def test_mistakes_are_value_errors(values, arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        flag_programs.parse(values, ["program", *arguments])


@pytest.mark.parametrize("word", ["-h", "--help", "--helpfull"])
def test_help_is_recognised(word):
    assert flag_programs.asks_for_help(["--workdir=run", word])
    assert not flag_programs.asks_for_help(["--workdir=help"])


def test_help_lists_each_flag_once_with_choices_and_default(values):
    flags.DEFINE_enum("kind", "a", ["a", "b"], "Which.", flag_values=values)
    lines = flag_programs.describe(values).splitlines()
    for name in ("workdir=VALUE", "traceback", "heartbeat=VALUE", "kind=a|b"):
        assert lines.count(f"  --{name}") == 1
    assert lines[lines.index("  --kind=a|b") + 1] == "      Which. Default: a."
    assert not any("verbosity" in line for line in lines)


@pytest.mark.parametrize(
    ("loader", "libraries"), [("memory", "JAX"), ("tfdata", "JAX and TensorFlow")]
)
def test_the_first_line_names_what_is_read_and_where(loader, libraries, values, capsys):
    config = load("pmm_market", "small")
    config.data.loader, config.data.root = loader, "line\nend"
    recipe_flags.define(config, ["program"], values)
    flag_programs.parse(values, ["program", "--workdir=run"])
    with flag_programs.started(values, "train it"):
        said = capsys.readouterr().out
    assert said == f"loading {libraries} to train it on market1501 data in 'line\\nend'\n"


@pytest.mark.parametrize("more", [["--process=1"], ["--coordinator=auto"]])
def test_only_a_host_that_is_surely_the_first_prints_it(more, values, capsys):
    flag_programs.parse(values, ["program", "--workdir=run", *more])
    flag_programs._announce(values, "train it")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("missing", ["data", "data.loader", "data.root"])
def test_the_first_line_needs_no_complete_recipe(missing, values, capsys):
    config = load("pmm_market", "small")
    *section, leaf = missing.split(".")
    del (config[section[0]] if section else config)[leaf]
    recipe_flags.define(config, ["program"], values)
    flag_programs.parse(values, ["program", "--workdir=run"])
    with flag_programs.started(values, "train it"):
        assert capsys.readouterr().out.startswith("loading JAX to train it")


def test_a_program_starts_without_standard_error(values, monkeypatch):
    recipe_flags.define(load("pmm_market", "small"), ["program"], values)
    flag_programs.parse(values, ["program", "--workdir=run"])
    monkeypatch.setattr(sys, "stderr", None)
    with flag_programs.started(values, "train it"):
        pass
