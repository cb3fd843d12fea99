import contextlib
import copy
import json
import math
import os
import pathlib

import numpy as np
import pytest
from hypothesis import example, given, settings, strategies
from ml_collections import ConfigDict

from reid_jax.runs import workdir as run
from tests.test_configs import load


def make_config(recipe="pmm_market", **changes) -> ConfigDict:
    config = load(recipe)
    config.data.root = "données"
    config.optim.milestones = ()
    for name, value in changes.items():
        config.update_from_flattened_dict({name.replace("__", "."): value})
    return config


@contextlib.contextmanager
def edited(folder, config=None):
    """Edit the content of a folder's `run.json` by hand."""
    run.write_run(folder, config or make_config(), 4)
    content = json.loads((folder / "run.json").read_text())
    yield content
    (folder / "run.json").write_text(json.dumps(content))


def test_config_survives_the_round_trip(tmp_path):
    run.write_run(tmp_path, make_config(), 751)
    config, num_classes = run.read_run(tmp_path)
    assert num_classes == 751
    expected = make_config(data__root=os.path.abspath("données"))
    assert config.to_dict() == expected.to_dict()
    assert config.data.image_size == (384, 128)
    assert isinstance(config.data.image_size, tuple)
    assert config.optim.milestones == ()
    assert config.eval.flip is False
    assert config.data.pattern == ""
    assert type(config.optim.lr) is float
    assert type(config.epochs) is int


def test_the_data_is_found_from_another_folder(tmp_path, monkeypatch):
    run.write_run(tmp_path, make_config(), 751)
    monkeypatch.chdir(tmp_path)
    config, _ = run.read_run(tmp_path)
    assert os.path.isabs(config.data.root)
    with pytest.raises(ValueError, match=r"data\.root"):
        run.check_workdir(tmp_path, make_config(), 751)  # another folder with the same name


def test_other_datasets_are_found_from_another_folder(tmp_path, monkeypatch):
    also = ("people:données", "csv:~/a:b.csv")
    run.write_run(tmp_path, make_config(data__also=also), 751, IMAGES)
    config, _ = run.read_run(tmp_path)
    assert config.data.also == (
        f"people:{os.path.abspath('données')}",
        f"csv:{os.path.expanduser('~/a:b.csv')}",
    )
    run.check_workdir(tmp_path, make_config(data__also=also), 751)
    moved = make_config(data__also=("people:elsewhere", "csv:b.csv"))
    run.check_workdir(tmp_path, moved, 751, (), IMAGES)
    with pytest.raises(
        ValueError, match=r"data\.also is \('people:.*données', .* there and \('peo"
    ):
        run.check_workdir(tmp_path, moved, 751)


def test_config_read_back_refuses_unknown_leaves_and_takes_known_ones(tmp_path):
    run.write_run(tmp_path, make_config(), 751)
    config, _ = run.read_run(tmp_path)
    with pytest.raises(AttributeError, match="rot"):
        config.data.rot = "elsewhere"
    config.data.root = "elsewhere"


def test_a_run_from_before_a_leaf_is_read_as_if_it_had_it(tmp_path):
    with edited(tmp_path) as content:
        content["config"]["eval"]["flip"] = True
        del content["config"]["eval"]["normalize"]
        for leaf in ("on_bad_image", "skip_limit", "also", "balanced"):
            del content["config"]["data"][leaf]
        content["config"]["model"]["trunk"]["ibn"] = True
        trunk = content["config"]["model"]["trunk"]
        del trunk["block"], trunk["stem_width"], trunk["base_width"], trunk["stride_in_1x1"]
    config, _ = run.read_run(tmp_path)
    assert config.eval.flip
    assert not config.eval.normalize
    assert (config.data.on_bad_image, config.data.skip_limit) == ("error", 0.01)
    assert (config.data.also, config.data.balanced) == ((), False)
    trunk = config.model.trunk
    assert (trunk.block, trunk.ibn, trunk.width) == ("bottleneck", True, 64)
    assert (trunk.stem_width, trunk.base_width, trunk.stride_in_1x1) == (0, 64, False)


def test_a_run_from_before_other_trunks_goes_on(tmp_path):
    with edited(tmp_path) as content:
        trunk = content["config"]["model"]["trunk"]
        for leaf in ("block", "ibn", "stem_width", "base_width", "stride_in_1x1"):
            del trunk[leaf]
        assert list(trunk) == ["depths", "strides", "width"]
    run.check_workdir(tmp_path, make_config(), 4)
    for leaf, there, here in (
        ("block", "'bottleneck'", "basic"),
        ("ibn", "False", True),
        ("stem_width", "0", 32),
        ("base_width", "64", 128),
        ("stride_in_1x1", "False", True),
    ):
        message = rf"model\.trunk\.{leaf} is {there} there and {here!r} here\. Choose"
        with pytest.raises(ValueError, match=message):
            run.check_workdir(tmp_path, make_config(**{f"model__trunk__{leaf}": here}), 4)


# Leaves that runs from before the strong baseline lack, for each recipe, and the values that
# describe their network and training.
NEW = {
    "augment": {"crop_padding": 0, "brightness": 0.0, "contrast": 0.0, "saturation": 0.0},
    "loss": {"triplet_weight": 1.0, "metric": "euclidean", "id_margin": 0.0},
    "optim": {"trunk_lr": 1.0, "frozen_epochs": 0},
}
NEW_BY_RECIPE = {
    "pmm_market": NEW,
    "bdb_market": NEW,
    "hbfp_market": {
        **NEW,
        "optim": {**NEW["optim"], "warmup_epochs": 0},
        "model": {"classifier_std": 1e-3, "reduction": "sum", "neck": "none"},
    },
    "baseline_market": {
        **NEW,
        "optim": {**NEW["optim"], "warmup_epochs": 0},
        "model": {
            "classifier_std": 1e-3,
            "cosine_scale": 0.0,
            "pooling": "average",
            "neck": "none",
            "stripes": 0,
            "whole_dim": 0,
            "stripe_dim": 0,
        },
    },
}


@pytest.mark.parametrize("recipe", NEW_BY_RECIPE)
def test_a_run_from_before_the_strong_baseline_goes_on(tmp_path, recipe):
    """Each recipe has its own new leaves, with the values that the former program used."""
    config = load(recipe)
    with edited(tmp_path, config) as content:
        for section, leaves in NEW_BY_RECIPE[recipe].items():
            for leaf, value in leaves.items():
                assert content["config"][section].pop(leaf) == value
    read, _ = run.read_run(tmp_path)
    config.data.root = os.path.abspath(config.data.root)
    assert read.to_dict() == config.to_dict()
    run.check_workdir(tmp_path, config, 4)
    config.loss.metric = "cosine"
    with pytest.raises(ValueError, match=r"loss\.metric is 'euclidean' there and 'cosine' here"):
        run.check_workdir(tmp_path, config, 4)


def test_leaves_that_came_with_a_network_or_a_schedule_are_missed(tmp_path):
    """No run of the cosine schedule is older than its leaves, and no PMM has a neck."""
    with edited(tmp_path, load("strong_market")) as content:
        del content["config"]["optim"]["warmup_epochs"]
    with pytest.raises(ValueError, match=r"run\.json: optim\.warmup_epochs is missing$"):
        run.read_run(tmp_path)
    run.write_run(tmp_path, make_config(), 4)
    assert "neck" not in run.read_run(tmp_path)[0].model


@pytest.mark.parametrize("trunk", [None, [1], "x"])
def test_sections_from_before_that_are_none_are_named(tmp_path, trunk):
    with edited(tmp_path) as content:
        content["config"]["model"]["trunk"] = trunk
    with pytest.raises(ValueError, match=r"model\.trunk is .*; it must be a section of leaves"):
        run.read_run(tmp_path)


def test_the_file_says_which_version_wrote_it(tmp_path):
    run.write_run(tmp_path, make_config(), 751)
    written = json.loads((tmp_path / "run.json").read_text())
    assert sorted(written) == ["config", "num_classes", "reid_jax"]
    assert written["reid_jax"][0].isdigit()


def test_lists_are_tuples_to_the_run(tmp_path):
    listed = make_config().to_dict()
    listed["model"]["block"] = [3, 2]
    run.write_run(tmp_path, listed, 2)
    config, _ = run.read_run(tmp_path)
    assert config.model.block == (3, 2)
    run.check_workdir(tmp_path, make_config(), 2)


@pytest.mark.parametrize("value", [np.float32(1), pathlib.Path("x"), (1, {"a": 1}), {1, 2}])
def test_a_leaf_that_json_cannot_hold_is_named(tmp_path, value):
    with pytest.raises(TypeError, match=r"config\.model\.width holds .* of type"):
        run.write_run(tmp_path, ConfigDict({"model": {"width": value}}), 2)
    assert os.listdir(tmp_path) == []


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    run.write_run(tmp_path, make_config(), 751)

    def full(*args):
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        run.write_run(tmp_path, make_config(epochs=1), 702)
    assert run.read_run(tmp_path)[1] == 751


def test_missing_run_is_named(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=rf"{tmp_path}/run\.json is missing: is .*--workdir"
    ):
        run.read_run(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="file' is not a file of `reid-jax pack`"):
        run.read_run(tmp_path / "file")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("config", "optim", "lr"), "abc", r"optim\.lr is 'abc'; it must be a finite number"),
        (("config", "optim", "lr"), math.nan, r"optim\.lr is nan; it must be a finite number"),
        (("config", "model", "trunk", "depths"), [3, 4, 6], r"model\.trunk\.depths is \(3, 4, 6\)"),
        (("config", "eval"), [1], r"eval is \(1,\); it must be a section of leaves: every_epochs"),
        (("config", "data", "sise"), 1, r"data\.sise is not a leaf"),
        (("config", "model", "name"), ["hbfp"], r"model\.name is \('hbfp',\); it must be one of"),
        (("config", "optim", "schedule"), {"x": 1}, r"optim\.schedule is a section of leaves; it"),
        (("config", "model"), [1], r"model is \(1,\); it must be a section of leaves: name"),
        (("config", "optim"), "fast", r"optim is 'fast'; it must be a section of leaves: schedule"),
        (("config", "model"), {}, r"3 settings are wrong:\n  model\.name is missing\n"),
        (
            ("config", "model"),
            {"name": "pmm"},
            r"7 settings are wrong:\n  model\.trunk is missing",
        ),
        (("config",), [], "is damaged"),
        (("config",), {"lock": 1}, "[0-9]+ settings are wrong"),
        (("config",), {"__class__": 1}, "is damaged"),
        (("train_images",), {"count": math.inf}, "is damaged: OverflowError"),
        (("num_classes",), 1, "num_classes is 1; it must be a whole number, at least 2"),
        (("num_classes",), "751", "num_classes is '751'; it must be"),
    ],
)
def test_a_run_edited_by_hand_names_file_and_leaf(tmp_path, path, value, message):
    with edited(tmp_path) as content:
        *sections, last = path
        for section in sections:
            content = content[section]
        content[last] = value
    with pytest.raises(ValueError, match=rf"^{tmp_path}/run\.json:? {message}"):
        run.read_run(tmp_path)


JSON = strategies.recursive(
    strategies.none() | strategies.booleans() | strategies.floats() | strategies.text(),
    lambda inner: strategies.lists(inner) | strategies.dictionaries(strategies.text(), inner),
)


@settings(max_examples=60, deadline=None)
@given(JSON | strategies.fixed_dictionaries({"num_classes": JSON, "config": JSON}))
@example({"num_classes": 4, "config": {"eval": "x", "model": {"name": []}, "optim": 3}})
def test_no_file_of_others_does_more_than_name_itself(tmp_path_factory, content):
    folder = tmp_path_factory.getbasetemp()
    (folder / "run.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"/run\.json"):
        run.read_run(folder)


@pytest.mark.parametrize(
    "text", ["", "[" * 100_000, '{"num_classes": 7', "[]", '{"num_classes": 7}', "\0\0"]
)
def test_damaged_run_is_named(tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(ValueError, match=rf"{tmp_path}/run\.json is damaged"):
        run.read_run(tmp_path)
    with pytest.raises(ValueError, match=rf"{tmp_path}/run\.json is damaged"):
        run.check_workdir(tmp_path, make_config(), 7)


def test_check_creates_the_workdir_and_leaves_it_empty(tmp_path):
    run.check_workdir(tmp_path / "a" / "b", make_config(), 751)
    assert os.listdir(tmp_path / "a" / "b") == []


def test_check_lets_the_same_run_go_on(tmp_path):
    config = make_config()
    before = copy.deepcopy(config)
    run.write_run(tmp_path, config, 751)
    run.check_workdir(tmp_path, config, 751)
    assert config == before
    assert os.listdir(tmp_path) == ["run.json"]


def test_unwritable_workdir_is_named(tmp_path):
    """Also for root, who may write in spite of permissions."""
    (tmp_path / "file").write_text("in the way")
    folders = [tmp_path / "file", tmp_path / "file" / "below", pathlib.Path("/proc/reid_jax_run")]
    for workdir in folders:
        with pytest.raises(OSError, match=f"cannot write to the workdir {workdir}: .*Choose"):
            run.check_workdir(workdir, make_config(), 751)


def test_existing_folder_that_takes_no_file(monkeypatch, tmp_path):
    def read_only(*args, **kwargs):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("tempfile.TemporaryFile", read_only)
    with pytest.raises(OSError, match=f"workdir {tmp_path}: Read-only file system"):
        run.check_workdir(tmp_path, make_config(), 751)


@pytest.mark.parametrize(
    ("changes", "num_classes", "message"),
    [
        ({"recipe": "hbfp_market"}, 751, r".*model\.name is 'pmm' there and 'hbfp' here"),
        (
            {"data__image_size": (256, 128)},
            751,
            r"data\.image_size is \(384, 128\) there and \(256",
        ),
        ({"optim__lr": 2e-3}, 751, r"optim\.lr is 0\.001 there and 0\.002 here"),
        ({"data__pattern": "x"}, 751, r"data\.pattern is '' there and 'x' here"),
        ({}, 702, r"number of identities is 751 there and 702 here"),
        ({"model__top_k": 6, "seed": 1}, 751, r"model\.top_k is 3 .*; seed is 0 there and 1"),
    ],
)
def test_workdir_of_another_run_names_what_differs(tmp_path, changes, num_classes, message):
    run.write_run(tmp_path, make_config(), 751)
    with pytest.raises(ValueError, match=rf"{tmp_path} holds another run: {message}.*--workdir"):
        run.check_workdir(tmp_path, make_config(**changes), num_classes)


def test_a_leaf_that_only_one_run_has_is_named(tmp_path):
    run.write_run(tmp_path, make_config(), 751)
    with pytest.raises(ValueError, match=r"model\.top_k is 3 there and absent here") as error:
        run.check_workdir(tmp_path, make_config("bdb_market"), 751)
    assert "model.part_dim is absent there and 1024 here" in str(error.value)


def test_leaves_and_sections_that_may_change(tmp_path):
    run.write_run(tmp_path, make_config(), 751)
    changed = make_config(log__every_steps=1, epochs=2)
    run.check_workdir(tmp_path, changed, 751, may_change=("log", "epochs"))
    with pytest.raises(
        ValueError, match=r"another run: log\.every_steps is 50 there and 1 here\. "
    ):
        run.check_workdir(tmp_path, changed, 751, may_change=("lo", "log.every", "epochs"))


def test_settings_that_change_the_scores_are_warned_of(tmp_path):
    run.write_run(tmp_path, make_config(), 751)
    changed = make_config(eval__normalize=True, eval__batch_size=7)
    with pytest.warns(UserWarning, match=r"eval\.normalize was False in .* and is True now"):
        run.check_workdir(tmp_path, changed, 751, may_change=("eval",))


IMAGES = {"count": 12936, "sha256": "ab"}


def test_a_run_goes_on_with_its_training_images_wherever_they_are(tmp_path):
    run.write_run(tmp_path, make_config(), 751, IMAGES)
    moved = make_config(data__root="elsewhere", data__on_bad_image="skip", data__skip_limit=0.5)
    run.check_workdir(tmp_path, moved, 751, (), dict(IMAGES))
    with pytest.raises(ValueError, match=r"data\.pattern is '' there and 'x' here\. Choose"):
        run.check_workdir(tmp_path, make_config(data__pattern="x"), 751, (), IMAGES)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"count": 12935}, "run: training images are 12,936 there and 12,935 here"),
        ({"sha256": "cd"}, "run: training images are 12,936 there and here, but others: names"),
    ],
)
def test_a_run_does_not_go_on_with_other_training_images(tmp_path, changes, message):
    run.write_run(tmp_path, make_config(), 751, IMAGES)
    everything = ("data", "model", "optim")
    with pytest.raises(ValueError, match=f"{tmp_path} holds another {message}.*--workdir"):
        run.check_workdir(tmp_path, make_config(), 751, everything, IMAGES | changes)
    # Other images in another folder are noticed, too.
    with pytest.raises(ValueError, match=r"data\.root .*; training images are"):
        run.check_workdir(tmp_path, make_config(data__root="b"), 751, (), IMAGES | changes)


def test_a_run_that_does_not_tell_its_training_images_goes_on(tmp_path):
    run.write_run(tmp_path, make_config(), 751)
    assert "train_images" not in json.loads((tmp_path / "run.json").read_text())
    run.check_workdir(tmp_path, make_config(), 751, (), IMAGES)
    with pytest.raises(ValueError, match=r"data\.root"):  # It is unknown whether they are equal.
        run.check_workdir(tmp_path, make_config(data__root="elsewhere"), 751, (), IMAGES)


@pytest.mark.parametrize("images", [3, [], {"count": 3}, {"count": "many", "sha256": ""}])
def test_damaged_training_images_are_named(tmp_path, images):
    run.write_run(tmp_path, make_config(), 751)
    record = json.loads((tmp_path / "run.json").read_text()) | {"train_images": images}
    (tmp_path / "run.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match=rf"{tmp_path}/run\.json is damaged"):
        run.check_workdir(tmp_path, make_config(), 751, (), IMAGES)


def test_skipped_images_are_listed_whatever_their_names(tmp_path):
    skipped = (("/d/a\n\udcff é.jpg", "is empty"), ("/d/b.jpg", "Permission denied"))
    lines = []
    run.report_skipped(tmp_path, skipped, lines.append)
    text = (tmp_path / "skipped_images.json").read_bytes()
    assert text.isascii()
    listed = json.loads(text)["skipped"]
    assert [(entry["path"], entry["reason"]) for entry in listed] == list(skipped)
    assert lines == [f"skipped 2 bad images, listed in '{tmp_path}/skipped_images.json'"]


def test_a_report_of_an_earlier_run_goes(tmp_path):
    lines = []
    run.report_skipped(tmp_path, [("a.jpg", "is empty")], lines.append)
    run.report_skipped(tmp_path, (), lines.append)
    assert os.listdir(tmp_path) == []
    run.report_skipped(tmp_path, (), lines.append)
    assert len(lines) == 1


def test_a_list_of_another_program_is_left_alone(tmp_path):
    theirs = tmp_path / "skipped_images.json"
    theirs.write_text('["a.jpg"]')
    run.report_skipped(tmp_path, (), print)
    with pytest.raises(FileExistsError, match="is a file of another program"):
        run.report_skipped(tmp_path, [("a.jpg", "is empty")], print)
    assert theirs.read_text() == '["a.jpg"]'


@pytest.mark.parametrize("name", ["metrics.jsonl", "curves.png"])
def test_a_folder_of_another_program_is_no_workdir(tmp_path, name):
    (tmp_path / name).write_text("theirs")
    with pytest.raises(FileExistsError, match=f"'{tmp_path}/{name}' would be replaced"):
        run.check_workdir(tmp_path, make_config(), 751)
    assert os.listdir(tmp_path) == [name]


def test_a_start_that_was_killed_before_its_metrics_goes_on(tmp_path):
    """Skipped images are listed first, then `run.json` is written, then the metrics."""
    run.report_skipped(tmp_path, [("a.jpg", "is empty")], print)
    run.check_workdir(tmp_path, make_config(), 751)
    run.write_run(tmp_path, make_config(), 751)
    run.check_workdir(tmp_path, make_config(), 751)
    (tmp_path / "metrics.jsonl").touch()
    run.check_workdir(tmp_path, make_config(), 751)
