"""Whole runs of a tiny network on a tiny dataset."""

import json
import pathlib
import shutil
import subprocess
import sys

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from ml_collections import ConfigDict
from orbax.checkpoint._src.path import atomicity

from reid_jax.configs import pmm_synthetic
from reid_jax.data import datasets, synthetic
from reid_jax.programs import train
from reid_jax.programs.evaluate import evaluate_run
from reid_jax.report import present
from reid_jax.runs import record
from reid_jax.runs.checkpoints import Checkpoints, CheckpointWriteError
from reid_jax.runs.metrics import read_metrics
from reid_jax.runs.workdir import CHECKPOINTS, read_run
from reid_jax.runtime.messages import Preempted
from reid_jax.training import step as step_module
from tests.compilations import count_compilations
from tests.test_configs import STRINGS, load

pytestmark = pytest.mark.usefixtures("standard_promotion")

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A small dataset of synthetic pedestrians, drawn once."""
    root = tmp_path_factory.mktemp("data") / "pedestrians"
    synthetic.write_market1501(root, synthetic.Contents(**tiny("unused").data.synthetic), None)
    return root


def tiny(root, config=None, **leaves):
    """A recipe for tests, PMM's or `config`, on one device; leaves by name, __ stands for a dot."""
    config = config or pmm_synthetic.get_config("small")
    config.devices = 1
    config.data.root = str(root)
    config.data.loader = "memory"
    config.epochs = 2
    config.eval.batch_size = 4
    config.data.image_size = (96, 64)
    if config.optim.schedule == "staircase":
        config.optim.milestones = (90,)  # The longest run has 120 epochs. One program serves all.
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in leaves.items()})
    return config


def simplest(root, **leaves):
    """The same for the network that is traced and compiled in the shortest time."""
    return tiny(root, load("baseline_synthetic", "triplet,small"), **leaves)


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """A run of 120 steps: its config, workdir and result."""
    workdir = tmp_path_factory.mktemp("run")
    config = tiny(data, epochs=120, eval__every_epochs=60, checkpoint__every_epochs=60)
    with jax.numpy_dtype_promotion("standard"):
        return config, workdir, train.train(config, str(workdir))


def test_a_run_learns(run):
    _, workdir, result = run
    records = read_metrics(workdir)
    first, last = (record for record in (records[1], records[-2]))
    assert (first["kind"], last["kind"]) == ("train", "train")
    # Three ID losses of eight identities start at 3 ln 8 = 6.2 or above.
    total = sum(last[f"loss/id_{stage}"] for stage in (1, 2, 3))
    assert total < 0.75 * sum(first[f"loss/id_{stage}"] for stage in (1, 2, 3))
    # Guesses are right in one of eight cases.
    assert np.mean([last[f"accuracy_{stage}"] for stage in (1, 2, 3)]) > 0.35
    evaluations = [record["mAP"] for record in records if record["kind"] == "eval"]
    assert evaluations[-1] == result.mAP > evaluations[0] + 0.03


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "string"), [("hbfp_synthetic", "small"), ("baseline_synthetic", "triplet,small")]
)
def test_the_other_networks_learn_in_the_same_loop(name, string, data, tmp_path):
    """Their losses fall, and evaluation needs only their workdir to restore them."""
    leaves = {"eval__every_epochs": 80, "checkpoint__every_epochs": 80, "log__every_steps": 4}
    config = tiny(data, load(name, string), epochs=80, **leaves)
    result = train.train(config, str(tmp_path / "run"))
    losses = [r["loss"] for r in read_metrics(tmp_path / "run") if r["kind"] == "train"]
    assert np.mean(losses[-3:]) < 0.7 * np.mean(losses[:3])
    config, _ = read_run(tmp_path / "run")
    again = evaluate_run(
        config, str(tmp_path / "run"), checkpoint="latest", output=str(tmp_path / "out")
    )
    assert again.evaluation.result.mAP == pytest.approx(result.mAP, abs=1e-6)


def test_what_a_run_leaves(run):
    config, workdir, result = run
    assert read_run(workdir)[1] == 8
    records = read_metrics(workdir)
    evaluations = [record for record in records if record["kind"] == "eval"]
    assert [record["step"] for record in evaluations] == [0, 60, 120]
    assert evaluations[-1]["mAP"] == result.mAP
    steps = [record["step"] for record in records if record["kind"] == "train"]
    assert steps == list(range(2, 121, config.log.every_steps))
    assert (workdir / "curves.png").stat().st_size > 1000
    assert list((workdir / "tensorboard").iterdir())
    with Checkpoints(workdir / CHECKPOINTS) as checkpoints:
        assert checkpoints.latest_step == 120
        assert (
            checkpoints.best_step == max(evaluations, key=lambda r: (r["mAP"], r["step"]))["step"]
        )


def test_a_second_training_in_a_workdir_is_refused(data, tmp_path):
    with (
        record.Record(tmp_path, keep=1),
        pytest.raises(BlockingIOError, match=r"another program trains in .*: wait until"),
    ):
        train.train(simplest(data), str(tmp_path))
    assert not (tmp_path / "metrics.jsonl").exists()


def test_evaluation_needs_the_workdir_alone(run, tmp_path, capsys):
    _, workdir, result = run
    config, _ = read_run(workdir)
    run = evaluate_run(config, str(workdir), checkpoint="latest", output=str(tmp_path), figures=3)
    present(run, str(tmp_path))
    again = run.evaluation.result
    assert again.mAP == pytest.approx(result.mAP, abs=1e-6)
    np.testing.assert_allclose(again.cmc, result.cmc, atol=1e-6)
    report = json.loads((tmp_path / "results.json").read_text())
    assert report["step"] == 120
    assert report["mAP"] == again.mAP
    assert report["Rank-1"] == report["cmc"][0]
    for picture in ("gradcam.png", "ranked_lists.png"):
        assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")
    assert "Rank-1   Rank-5  Rank-10      mAP     mINP" in capsys.readouterr().out


def test_evaluation_on_four_devices_and_another_dataset(run, tmp_path):
    """Other identities, another number of classes, and a last batch that is not full."""
    _, workdir, _ = run
    other = tmp_path / "other"
    arguments = {"seed": 5, "train_identities": 3, "test_identities": 5}
    synthetic.write_market1501(other, synthetic.Contents(**arguments), None)
    config, _ = read_run(workdir)
    results = []
    for devices, batch_size in ((1, 32), (4, 10)):
        config.data.synthetic.update(arguments)
        config.data.root = str(other)
        config.devices = devices
        config.eval.batch_size = batch_size
        run = evaluate_run(config, str(workdir), checkpoint="best", output=str(tmp_path / "out"))
        results.append(run.evaluation.result)
    np.testing.assert_allclose(results[0].cmc, results[1].cmc, atol=0.02)
    assert results[0].mAP == pytest.approx(results[1].mAP, abs=1e-2)


def test_a_checkpoint_that_is_not_there_is_named(run, tmp_path):
    _, workdir, _ = run
    config, _ = read_run(workdir)
    with pytest.raises(FileNotFoundError, match=r"no checkpoint of step 7 .*only"):
        evaluate_run(config, str(workdir), checkpoint="7", output=str(tmp_path))


def test_a_resumed_run_ends_where_the_unbroken_one_does(data, tmp_path, monkeypatch):
    """Bit for bit: parameters, moments, batch statistics, and each metric once.

    Loaders and lengths change from start to start; no start compiles a program after its first
    step. An epoch is one step.
    """
    leaves = {"checkpoint__every_epochs": 1, "log__every_steps": 1}
    states, records = [], []
    for name, starts in (
        ("unbroken", [(3, 0, "memory")]),
        ("resumed", [(2, 5, "device"), (4, 3, "tfdata")]),
    ):
        for epochs, max_steps, loader in starts:
            config = tiny(data, epochs=epochs, max_steps=max_steps, data__loader=loader, **leaves)
            with count_compilations() as events:
                so_far = after_each_step(monkeypatch, lambda events=events: len(events))
                train.train(config, str(tmp_path / name))
            assert set(so_far) == {so_far[0]}
        with Checkpoints(tmp_path / name / CHECKPOINTS) as checkpoints:
            assert checkpoints.latest_step == 3
            states.append(arrays(checkpoints.path(3)))
        evaluated = [r["step"] for r in read_metrics(tmp_path / name) if r["kind"] == "eval"]
        assert evaluated[-1] == 3
        kept = [r for r in read_metrics(tmp_path / name) if r["kind"] == "train"]
        records.append([{k: v for k, v in r.items() if k != "images_per_second"} for r in kept])
    assert states[0].keys() == states[1].keys()
    assert any("opt_state" in name for name in states[0])
    for name, array in states[0].items():
        np.testing.assert_array_equal(array, states[1][name], err_msg=name)
    assert records[0] == records[1]
    assert [record["step"] for record in records[0]] == [1, 2, 3]


@pytest.mark.slow
def test_means_between_log_lines_survive_a_stop_and_a_kill(data, tmp_path, monkeypatch):
    """Lines at steps 4 and 8, checkpoints at 3 and 6: SIGTERM after step 2 and a kill at step 7."""
    leaves = {"epochs": 8, "log__every_steps": 4, "eval__every_epochs": 8}
    leaves |= {"checkpoint__every_epochs": 3}
    lines = []
    for name in ("unbroken", "broken"):
        if name == "broken":
            with monkeypatch.context() as patch:
                patch.setattr(train.Preemption, "due", lambda self, step: step == 2)
                with pytest.raises(Preempted, match="after step 2"):
                    train.train(simplest(data, **leaves), str(tmp_path / name))
            with monkeypatch.context() as patch:
                calls = iter(range(9))
                after_each_step(patch, lambda calls=calls: 1 // (4 - next(calls)))
                with pytest.raises(ZeroDivisionError):
                    train.train(simplest(data, **leaves), str(tmp_path / name))
            with Checkpoints(tmp_path / name / CHECKPOINTS) as checkpoints:
                assert checkpoints.latest_step == 6
        train.train(simplest(data, **leaves), str(tmp_path / name))
        kept = [r for r in read_metrics(tmp_path / name) if r["kind"] == "train"]
        lines.append([{k: v for k, v in r.items() if k != "images_per_second"} for r in kept])
    assert lines[0] == lines[1]
    assert [line["step"] for line in lines[0]] == [4, 8]


def test_a_finished_run_is_evaluated_again_and_left_alone(run):
    config, workdir, result = run
    before = read_metrics(workdir)
    assert train.train(config, str(workdir)).mAP == pytest.approx(result.mAP, abs=1e-6)
    assert read_metrics(workdir) == before


@pytest.mark.parametrize(
    ("epochs", "max_steps", "message"),
    [(3, 0, "epochs is 3, 3 steps"), (120, 9, "max_steps is 9")],
)
def test_fewer_steps_than_a_run_has_made_are_an_error(epochs, max_steps, message, data, run):
    _, workdir, _ = run
    leaves = {"eval__every_epochs": 60, "checkpoint__every_epochs": 60}
    config = tiny(data, epochs=epochs, max_steps=max_steps, **leaves)
    with pytest.raises(ValueError, match=rf"{message}, but .* has made 120 steps"):
        train.train(config, str(workdir))


def after_each_step(monkeypatch, look):
    """A list to which `look`'s result is appended whenever the loop has called its step."""
    seen = []

    def pmap_step(step, devices):
        mapped = step_module.pmap_step(step, devices)

        def call(state, batch):
            result = mapped(state, batch)
            seen.append(look())
            return result

        return call

    monkeypatch.setattr(train, "pmap_step", pmap_step)
    return seen


def arrays(checkpoint):
    found = {}
    for item in ("model", "optimizer"):
        tree = ocp.StandardCheckpointer().restore(checkpoint / item)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            found[item + jax.tree_util.keystr(path)] = np.asarray(leaf)
    return found


def test_a_second_run_of_a_process_compiles_nothing(data, tmp_path):
    """Unless a setting of the step changes, which then takes effect. The seed is not one."""
    config = simplest(data, epochs=1)
    train.train(config, str(tmp_path / "first"))
    with count_compilations() as events:
        train.train(config, str(tmp_path / "second"))
        config.seed += 1
        train.train(config, str(tmp_path / "another"))
        config.seed -= 1
    assert not events
    config.loss.triplet_margin += 1.0
    with count_compilations() as events:
        train.train(config, str(tmp_path / "third"))
    assert events
    losses = [
        record["loss"]
        for name in ("first", "second", "third", "another")
        for record in read_metrics(tmp_path / name)
        if record["kind"] == "train"
    ]
    assert losses[0] == losses[1] == pytest.approx(losses[2] - 1.0, abs=1e-3)
    assert losses[0] != losses[3]


def test_nan_stops_the_run_and_names_the_last_good_checkpoint(data, tmp_path):
    config = simplest(data, epochs=8, optim__lr=1e30, optim__warmup_epochs=0, log__every_steps=1)
    with pytest.raises(FloatingPointError, match=r"last good checkpoint is .*checkpoints/\d"):
        train.train(config, str(tmp_path / "run"))
    with Checkpoints(tmp_path / "run" / CHECKPOINTS) as checkpoints:
        assert all(np.isfinite(x).all() for x in arrays(checkpoints.path(0)).values())


class Recording:
    """A config that records the dotted name of each leaf that is read."""

    def __init__(self, config, seen, prefix=""):
        self._config, self._seen, self._prefix = config, seen, prefix

    def __getitem__(self, name):
        value = self._config[name]
        if isinstance(value, ConfigDict):
            return Recording(value, self._seen, f"{self._prefix}{name}.")
        self._seen.add(self._prefix + name)
        return value

    def __getattr__(self, name):
        return self[name]

    def keys(self):
        return self._config.keys()


def traced_step(step, devices):
    """A step that is traced, and neither compiled nor run: state and metrics are not its own."""
    mapped = step_module.pmap_step(step, devices)

    def call(state, batch):
        _, metrics = jax.eval_shape(mapped, state, batch)
        metrics = jax.tree.map(lambda leaf: jax.numpy.ones(leaf.shape, leaf.dtype), metrics)
        return state.replace(step=state.step + 1), metrics

    return call


@pytest.mark.parametrize(
    "network",
    ["pmm", *(pytest.param(name, marks=pytest.mark.slow) for name in ("baseline", "hbfp"))],
)
def test_every_leaf_is_read(network, data, tmp_path, monkeypatch):
    monkeypatch.setattr(
        train, "check_workdir", lambda workdir, *unused: tmp_path.mkdir(exist_ok=True)
    )
    monkeypatch.setattr(record, "write_run", lambda *unused: (tmp_path / "run.json").touch())
    # Checking whether a value is in range does not count as using it.
    monkeypatch.setattr(train, "check", lambda *unused: None)
    monkeypatch.setattr(train, "pmap_step", traced_step)
    # A copy of the leaves would read them all.
    monkeypatch.setattr(train, "_of_step", lambda config: config)
    seen = set()
    config = tiny(data, load(f"{network}_synthetic", "small"), epochs=1)
    # Sizes of what never happens are not read.
    config.augment.update({"erasing_probability": 0.5, "cutout_probability": 0.5})
    train.train(Recording(config, seen), str(tmp_path))
    # The other layouts read the file-name pattern, and the other policy reads its limit.
    config.data.layout, config.data.on_bad_image = "market1501", "skip"
    datasets.load(Recording(config, seen, "").data)
    leaves = set(_leaf_names(config))
    assert leaves - seen == set()
    # No recipe of the network has other leaves.
    for name, strings in STRINGS.items():
        for string in strings:
            if name.startswith(f"{network}_"):
                assert set(_leaf_names(load(name, string))) == leaves


def _leaf_names(config, prefix=""):
    for name in config:
        if isinstance(config[name], ConfigDict):
            yield from _leaf_names(config[name], f"{prefix}{name}.")
        else:
            yield prefix + name


def _break_folder(root, kind):
    """A copy of the dataset with one error in it."""
    gallery = root / "bounding_box_test"
    if kind == "missing":
        shutil.rmtree(gallery)
    elif kind == "empty":
        for path in gallery.iterdir():
            path.unlink()
    elif kind == "no image":
        next(iter(sorted((root / "query").iterdir()))).write_bytes(b"nonsense")
    elif kind == "name":
        (root / "query" / "somebody.jpg").write_bytes(b"")
    elif kind == "one identity":
        paths = sorted((root / "bounding_box_train").iterdir())
        for path in paths:
            if path.name[:4] != paths[0].name[:4]:
                path.unlink()


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "bounding_box_test"),
        ("empty", "no image .*bounding_box_test"),
        ("no image", r"query/\d{4}_c"),
        ("name", r"somebody\.jpg"),
        ("one identity", "fewer than two identities"),
    ],
)
def test_bad_data_is_named_before_training(kind, message, data, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(data, root)
    _break_folder(root, kind)
    with pytest.raises((ValueError, OSError), match=message):
        train.train(tiny(root, data__layout="market1501"), str(tmp_path / "run"))
    assert not (tmp_path / "run" / CHECKPOINTS).exists()


@pytest.mark.parametrize(
    ("leaves", "message"),
    [
        ({"data__root": ""}, r"data\.root is empty"),
        ({"data__layout": "markt"}, "markt"),
        ({"data__loader": "disc"}, r"data\.loader"),
        ({"data__identities_per_batch": 9}, r"data\.identities_per_batch"),
        ({"data__identities_per_batch": 1}, r"data\.identities_per_batch"),
        ({"devices": 3}, "does not divide by 3 devices"),
        ({"devices": 5}, "devices is 5, but this machine has 4"),
        ({"eval__batch_size": 0}, r"eval\.batch_size is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"max_steps": -1}, "max_steps is -1"),
        ({"data__pattern": "x"}, "pattern"),
        ({"data__image_size": (80, 64)}, "blocks of 3x2"),
    ],
)
def test_bad_settings_name_their_leaf_before_training(leaves, message, data, tmp_path):
    with pytest.raises(ValueError, match=message):
        train.train(tiny(data, **leaves), str(tmp_path / "run"))
    assert not (tmp_path / "run" / CHECKPOINTS).exists()


def test_an_unwritable_workdir_is_named(data, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match=r"cannot write to the workdir .*file/run"):
        train.train(tiny(data), str(tmp_path / "file" / "run"))


def test_a_workdir_removed_meanwhile_is_told_at_the_next_log_step(data, tmp_path, monkeypatch):
    so_far = after_each_step(
        monkeypatch, lambda: len(so_far) == 3 and shutil.rmtree(tmp_path / "run")
    )
    config = simplest(data, epochs=9, log__every_steps=1)
    with pytest.raises(FileNotFoundError, match=r"metrics\.jsonl is gone: was the workdir removed"):
        train.train(config, str(tmp_path / "run"))
    assert len(so_far) == 4


def test_a_checkpoint_that_cannot_be_written_stops_the_run(data, tmp_path, monkeypatch):
    """At the next log step; the message names the last good checkpoint."""

    def fail(*unused):
        raise OSError(28, "No space left on device")

    so_far = after_each_step(
        monkeypatch,
        lambda: (
            len(so_far) == 1
            and monkeypatch.setattr(atomicity.AtomicRenameTemporaryPath, "finalize", fail)
        ),
    )
    config = simplest(data, epochs=99, log__every_steps=1, checkpoint__every_epochs=3)
    with pytest.raises(CheckpointWriteError, match=r"/3 could not .*No space left.*one is .*/0$"):
        train.train(config, str(tmp_path / "run"))
    assert 3 < len(so_far) < 20


def test_a_workdir_of_another_network_is_refused(data, run, tmp_path):
    _, workdir, _ = run
    config = tiny(data, epochs=120, model__embedding_dim=8)
    with pytest.raises(ValueError, match=r"another run: model\.embedding_dim is 16 there and 8"):
        train.train(config, str(workdir))


@pytest.mark.slow
def test_training_and_evaluation_run_without_tensorflow(data, tmp_path):
    program = f"""
import sys
sys.modules["tensorflow"] = sys.modules["tensorflow_datasets"] = None
import math, pathlib
import reid_jax
from reid_jax.cli import commands
from reid_jax.configs import pmm_synthetic
from reid_jax.programs.train import train
from reid_jax.runs.workdir import read_run
from reid_jax.programs.evaluate import evaluate_run
from reid_jax.report import present
config = pmm_synthetic.get_config("small")
config.data.root = {str(data)!r}
config.epochs = 1
try:
    train(config, {str(tmp_path / "run")!r})
except ImportError as error:
    print(error)
assert not pathlib.Path({str(tmp_path / "run")!r}).exists()
config.data.loader = "memory"
train(config, {str(tmp_path / "run")!r})
config, _ = read_run({str(tmp_path / "run")!r})
workdir, output = {str(tmp_path / "run")!r}, {str(tmp_path)!r}
run = evaluate_run(config, workdir, checkpoint="latest", output=output, figures=1)
assert math.isfinite(run.evaluation.result.mAP)
present(run, output, report=True)
assert pathlib.Path(output, "report.html").exists()
paths = sorted(pathlib.Path(config.data.root, "query").iterdir())[:3]
features = reid_jax.load(workdir).embed(paths)
assert features.shape == (3, 48)
gallery = reid_jax.Gallery()
gallery.add(features, names=[str(path) for path in paths])
assert gallery.search(features, 1).indices.ravel().tolist() == [0, 1, 2]
gallery.save(output + "/a.gallery")
commands.main([
    "search", "--workdir=" + workdir, "--gallery=" + str(paths[0].parent), "--top=1",
    "--output=" + output + "/search.png", "--query", str(paths[1]),
])
assert "tensorflow" not in {{name for name, module in sys.modules.items() if module}}
print("without TensorFlow")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "--config.data.loader=memory, or install the extra tfdata" in done.stdout
    assert f"1    0.0000  '{data / 'query'}" in done.stdout
    assert "without TensorFlow" in done.stdout


def test_bad_images_are_skipped_and_the_run_goes_on_with_the_same_ones_alone(data, tmp_path):
    root, workdir = tmp_path / "data", tmp_path / "run"
    shutil.copytree(data, root)
    first, second = sorted((root / "bounding_box_train").iterdir())[:2]
    whole = first.read_bytes()
    first.write_bytes(whole[:-100])
    config = simplest(root, max_steps=1, data__layout="market1501")
    with pytest.raises(ValueError, match=f"1 of .*{first.name}.*on_bad_image=skip"):
        train.train(config, str(workdir))

    config.data.on_bad_image = "skip"
    train.train(config, str(workdir))
    listed = json.loads((workdir / "skipped_images.json").read_text())["skipped"]
    assert [entry["path"] for entry in listed] == [str(first)]
    count = len(list(first.parent.iterdir())) - 1
    assert json.loads((workdir / "run.json").read_text())["train_images"]["count"] == count

    # The same images in another folder are the same run, but one image more or less is not.
    config.data.root, config.max_steps = str(root.rename(tmp_path / "moved")), 2
    train.train(config, str(workdir))
    assert read_metrics(workdir)[-1]["step"] == 2
    moved = pathlib.Path(config.data.root) / "bounding_box_train"
    (moved / first.name).write_bytes(whole)
    with pytest.raises(ValueError, match=f"images are {count} there and {count + 1} here"):
        train.train(config, str(workdir))
    (moved / first.name).write_bytes(b"")
    (moved / second.name).unlink()
    with pytest.raises(ValueError, match=f"images are {count} there and {count - 1} here"):
        train.train(config, str(workdir))


def test_too_little_memory_names_the_leaves_to_lower(data, tmp_path, monkeypatch):
    def exhaust(*unused_arguments):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes")

    monkeypatch.setattr(train, "pmap_step", lambda *unused_arguments: exhaust)
    lower = r"9 bytes\): lower data\.identities_per_batch x data\.images_per_identity$"
    with pytest.raises(MemoryError, match=lower):
        train.train(tiny(data), str(tmp_path))


def test_a_batch_larger_than_the_memory_is_an_error_before_any_work(data, tmp_path):
    config = tiny(data)
    config.data.images_per_identity = 2**30
    lower = r"lower data\.identities_per_batch x data\.images_per_identity, or data\.image_size$"
    with pytest.raises(MemoryError, match=rf"a batch, .* images of .* GiB.* memory: {lower}"):
        train.train(config, str(tmp_path / "new"))
    assert not (tmp_path / "new").exists()
