"""Recipes and their leaves as arguments of a program."""

import pathlib
import re

import pytest
from absl import flags

from reid_jax.cli.recipe_flags import define_from_recipe, read_recipe
from reid_jax.runs.leaves import SCHEDULES
from reid_jax.runs.settings import check

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"
DEFAULT = "pmm_market"


def parse(*arguments):
    """The recipe that arguments describe, and the arguments that are not flags."""
    values = flags.FlagValues()
    flags.DEFINE_string("workdir", None, "", flag_values=values)
    rest = define_from_recipe(["program", *arguments], DEFAULT, values)
    return values, values(rest)


def test_leaves_are_read_as_what_they_are():
    values, rest = parse(
        "--config.optim.lr=1", "--config.epochs=7", "--config.data.image_size=(48,32)",
        "--config.data.root=1", "--config.eval.flip", "--config.model.block=[6, 4]", "more",
    )  # fmt: skip
    assert rest == ["program", "more"]
    config = values.config
    assert (config.optim.lr, config.epochs, config.data.image_size) == (1.0, 7, (48, 32))
    assert (config.data.root, config.eval.flip, config.model.block) == ("1", True, (6, 4))
    assert config.model.top_k == 3


@pytest.mark.parametrize("named", [["--config", "{}"], ["--config={}"], ["-config={}"]])
@pytest.mark.parametrize("recipe", [f"{CONFIGS}/pmm_cuhk03.py", "pmm_cuhk03"])
def test_the_recipe_may_stand_anywhere(recipe, named, tmp_path):
    named = [part.format(f"{recipe}:labeled") for part in named]
    values, _ = parse("--workdir", "x", "--config.optim.lr", "0.5", *named, "--config.seed", "3")
    assert values.workdir == "x"
    assert (values.config.model.top_k, values.config.optim.lr, values.config.seed) == (8, 0.5, 3)
    assert values.config.data.root.endswith("labeled")
    (tmp_path / "flags").write_text("\n".join([*named, "--config.epochs=9"]))
    values, _ = parse(f"--flagfile={tmp_path}/flags")
    assert (values.config.model.top_k, values.config.epochs) == (8, 9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--config.data.batch_size=64"],
            "data.batch_size is not a leaf of this recipe; a batch is",
        ),
        (
            ["--config.optim.lrr", "1"],
            "optim.lrr is not a leaf of this recipe; did you mean optim.lr?",
        ),
        (["-config.modl.top_k=1"], "modl.top_k is not a leaf of this recipe"),
        (["--noconfig.eval.flp"], "eval.flp is not a leaf of this recipe"),
        (["--config.data.image_size[0]=1"], "data.image_size[0] is not a leaf of this recipe"),
        (["--config.epochs.x=1", "--config.y=1"], "epochs.x is not a leaf of this recipe"),
        (["--config.optim.lr=1", "--config.optim={}"], "Flag --config.optim is provided after"),
        ([f"--config={DEFAULT}:smal"], "unknown config string 'smal'"),
        ([f"--config={CONFIGS}/common.py"], f"{CONFIGS}/common.py is not a recipe"),
        (["--config=pmm_markt"], "no recipe 'pmm_markt' (--config); did you mean pmm_market"),
        (["--config=common"], "no recipe 'common' (--config); "),
        (["--config=x:small"], "no recipe 'x' (--config); the installed ones are baseline_cuhk03"),
        (["--config=pmm_duke", "--config", "pmm_market"], "--config is given twice"),
        (["-config=pmm_duke", "--config=pmm_duke"], "--config is given twice"),
        (["--config"], "Missing value for flag --config"),
    ],
)
def test_what_is_no_recipe_and_no_leaf_is_named(arguments, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        parse(*arguments)


def test_a_missing_file_of_flags_is_named():
    with pytest.raises(ValueError, match="nowhere"):
        read_recipe(["program", "--flagfile=nowhere"], "pmm_market")


def test_all_unknown_leaves_are_named_at_once():
    with pytest.raises(ValueError, match=r"^a is not a leaf .*; b is not a leaf "):
        parse("--config.a=1", "--config.b=1", "--config.a=2")


@pytest.mark.parametrize("path", ["nowhere.py", "", str(CONFIGS)])
def test_a_missing_recipe_is_named(path):
    with pytest.raises(FileNotFoundError, match=re.escape(f"no file {path!r} (--config)")):
        parse(f"--config={path}")


@pytest.mark.parametrize(
    "argument",
    [
        "--config.optim.lr=abc",
        "--config.epochs=1.5",
        "--config.eval.flip=maybe",
        "--config.optim.milestones=(5,1",
        "--config.optim=3",
    ],
)
def test_a_value_of_another_type_names_its_leaf(argument):
    with pytest.raises(flags.IllegalFlagValueError, match=re.escape(argument)):
        parse(argument)


RECIPES = ("pmm_market", "pmm_market:small", "hbfp_synthetic", "strong_market", "bdb_duke:half")


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("epochs", [[], ["--config.epochs=7"], ["--config.epochs", "1"]])
def test_any_recipe_takes_any_schedule(recipe, schedule, epochs):
    """It fits the epochs and the warm-up; the recipe's own schedule is unchanged."""
    warmup = ["--config.optim.warmup_epochs=0"] if epochs else []
    arguments = [f"--config={recipe}", "--config.optim.lr=0.5", *epochs, *warmup]
    own, _ = parse(*arguments)
    values, _ = parse(*arguments, f"--config.optim.schedule={schedule}")
    config = values.config
    assert (config.optim.schedule, config.optim.lr) == (schedule, 0.5)
    assert config.optim.warmup_epochs == own.config.optim.warmup_epochs
    if schedule == own.config.optim.schedule:
        assert config.to_dict() == own.config.to_dict()
        return
    check(config)
    if schedule == "staircase":
        assert all(1 <= milestone < config.epochs for milestone in config.optim.milestones)
    else:
        assert config.optim.decay_until == config.epochs


def test_leaves_of_the_chosen_schedule_may_be_set():
    values, _ = parse("--config.optim.schedule", "cosine", "--config.optim.final=0.25")
    assert values.config.optim.final == 0.25
    assert "milestones" not in values.config.optim
    with pytest.raises(ValueError, match=r"optim\.milestones is not a leaf"):
        parse("--config.optim.schedule=cosine", "--config.optim.milestones=(3,)")
    with pytest.raises(ValueError, match=r"optim\.warmup_every is not a leaf") as error:
        parse("--config.optim.schedule=cosine", "--config.optim.warmup_every=2")
    assert "did you mean optim.warmup_every" not in str(error.value)
    values, _ = parse("--config.optim.schedule=steps")
    with pytest.raises(ValueError, match=r"optim\.schedule is 'steps'"):
        check(values.config)


@pytest.mark.parametrize(
    "change",
    [
        "del config.optim",
        "del config.optim.warmup_epochs",
        "del config.epochs",
        "del config.optim; config.optim = 3",
    ],
)
def test_a_recipe_that_lacks_leaves_is_left_to_the_check(tmp_path, change):
    path = tmp_path / "recipe.py"
    path.write_text(
        "from reid_jax.cli import recipes\n\n\ndef get_config(argument=None):\n"
        "    config = recipes.find('pmm_market').config.unlock()\n"
        f"    {change}\n    return config\n"
    )
    with pytest.raises(ValueError, match=r"optim|epochs"):
        check(parse(f"--config={path}", "--config.optim.schedule=cosine")[0].config)
