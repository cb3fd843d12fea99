"""A run's network as a function of images: every kind of image, every size, few compilations."""

import copy
import json
import os
import pathlib
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pytest
from PIL import Image

import reid_jax
from reid_jax.data import image_like
from reid_jax.data.augment import normalize
from reid_jax.evaluation import descriptors
from tests import random_runs
from tests.compilations import count_compilations

ROOT = pathlib.Path(__file__).parents[1]

pytestmark = pytest.mark.usefixtures("standard_promotion")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "pmm"
    return workdir, *random_runs.write(workdir, "pmm_synthetic", steps=(1, 2))


@pytest.fixture(scope="module")
def model(run):
    return reid_jax.load(run[0])


@pytest.fixture(scope="module")
def crops():
    """Images of one size, the recipe's."""
    return np.random.default_rng(0).integers(0, 256, (11, 96, 64, 3), np.uint8)


@pytest.fixture(scope="module")
def expected(run, crops):
    """Descriptors of `crops`, computed without the tested code."""
    _, _, network, variables = run
    with jax.numpy_dtype_promotion("standard"):
        return np.asarray(jax.jit(network.apply)(variables, normalize(crops)))


def close(got, expected):
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


def test_pixels_in_any_form_have_the_networks_descriptors(model, crops, expected):
    assert model.dim == expected.shape[1] == 48
    close(model.embed(crops), expected)
    close(model.embed(list(crops)), expected)
    close(model.embed(iter(crops[:3])), expected[:3])
    close(model.embed(crops[4]), expected[4:5])
    close(model.embed(jax.numpy.asarray(crops[:2])), expected[:2])
    assert model.embed([]).shape == (0, 48)


def test_descriptors_are_those_of_the_variables_with_norms_folded(run, model, crops, expected):
    _, _, network, variables = run
    assert "scale" not in model.descriptor_weights["params"]["trunk"]["layer1_0"]["bn1"]
    face = descriptors.descriptor_face(network, jax.devices())
    close(np.asarray(face(model.variables, crops[:4])), expected[:4])
    other = copy.copy(model)
    other.variables = jax.tree.map(lambda leaf: leaf * 0.5, variables)
    assert np.abs(other.embed(crops[:4]) - expected[:4]).max() > 1e-2 * np.abs(expected).max()
    close(model.embed(crops[:4]), expected[:4])


@pytest.mark.parametrize("held", [2**28, 0])
def test_files_of_any_size_are_resized_as_training_does(model, tmp_path, held, monkeypatch):
    monkeypatch.setattr(image_like, "_HELD", held)
    rng = np.random.default_rng(1)
    sizes = [(96, 64), (128, 48), (31, 77)]
    arrays = [rng.integers(0, 256, (*size, 3), np.uint8) for size in sizes]
    paths = [tmp_path / f"{i}.png" for i in range(len(sizes))]
    for path, array in zip(paths, arrays, strict=True):
        Image.fromarray(array).save(path)
    by_hand = [
        np.asarray(Image.fromarray(a).resize((64, a.shape[0]), 2).resize((64, 96), 2))
        for a in arrays
    ]
    from_files = model.embed(paths)
    np.testing.assert_array_equal(from_files, model.embed(np.stack(by_hand)))
    np.testing.assert_array_equal(from_files, model.embed(arrays))
    close(model.embed(str(paths[1])), from_files[1:2])
    np.testing.assert_array_equal(from_files, model.embed(sorted(tmp_path.glob("*.png"))))


def test_each_size_of_batch_is_compiled_once(run, crops):
    descriptors._descriptor_face.cache_clear()  # Earlier tests have used the same network.
    fresh = reid_jax.load(run[0], batch_size=np.uint8(4))
    with count_compilations() as first:
        for count in (1, 2, 4):
            fresh.embed(crops[:count])
    with count_compilations() as later:
        for count in (1, 3, 5, 11):
            fresh.embed(crops[:count])
    assert first  # the network, and reshaping its output
    assert later == []


def test_the_threshold_of_the_runs_evaluation(run, monkeypatch):
    model = reid_jax.load(run[0])
    command = f"`reid-jax eval --workdir='{run[0]}' --checkpoint=2`"
    with pytest.raises(FileNotFoundError, match="no threshold") as error:
        model.threshold(fpr=1e-2)
    assert command in str(error.value)
    protocol = {"multi_query": None, "rerank": False, "flip": False, "normalize": False}
    verification = {"thresholds": {"0.01": 2.5, "0.001": 1.5}, "image_size": [96, 64]}
    results = {"step": 2, "protocol": protocol, "verification": verification}
    (run[0] / "eval").mkdir()
    (run[0] / "eval" / "results.json").write_text(json.dumps(results))
    assert model.threshold(fpr=1e-2) == 2.5
    assert model.threshold() == 1.5
    assert pickle.loads(pickle.dumps(model)).threshold() == 1.5
    monkeypatch.chdir(run[0].parent)
    relative = reid_jax.load(run[0].name)
    monkeypatch.chdir(run[0])
    assert relative.threshold() == 1.5
    with pytest.raises(ValueError, match="step 2, and descriptors here have step 1") as error:
        reid_jax.load(run[0], 1).threshold()
    assert "--checkpoint=1`" in str(error.value)
    of_no_run = reid_jax.Model(model.config, model.network, run[3], 2)
    with pytest.raises(ValueError, match="has no run: load one by"):
        of_no_run.threshold()


def test_boxes_of_a_frame_are_its_crops_in_their_order(model, rng):
    frame = rng.integers(0, 256, (120, 160, 3), np.uint8)
    boxes = np.array([[5, 10, 69, 106], [-20, 3.5, 40.2, 200], [100, 0, 160, 120]] * 4)
    crops = [frame[10:106, 5:69], frame[4:120, 0:40], frame[0:120, 100:160]] * 4
    expected = model.embed(crops)
    np.testing.assert_array_equal(model.embed_boxes(frame, boxes), expected)
    np.testing.assert_array_equal(model.embed_boxes(frame[:, :, ::-1], boxes, bgr=True), expected)
    assert model.embed_boxes(frame, []).shape == (0, 48)

    empty = [np.nan, 0, 9, 9], [50, 50, 50, 60], [160, 0, 200, 120]
    mixed = np.array([empty[0], boxes[0], empty[1], boxes[1], empty[2]])
    with pytest.warns(UserWarning, match="3 of 5 boxes have no pixels") as warned:
        got = model.embed_boxes(frame, mixed)
    assert len(warned) == 1
    assert warned[0].filename == __file__
    close(got[[1, 3]], expected[:2])
    assert np.isnan(got[[0, 2, 4]]).all()
    with pytest.warns(UserWarning, match="3 of 3 boxes"):
        assert np.isnan(model.embed_boxes(frame, empty)).all()
    with pytest.raises(ValueError, match=r"boxes are float64 \(1, 3\)"):
        model.embed_boxes(frame, mixed[:1, :3])


def test_threads_share_a_model(model, crops):
    expected = [model.embed(crops[i : i + 3]) for i in range(8)]
    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(lambda i: model.embed(crops[i : i + 3]), range(8)))
    np.testing.assert_array_equal(got, expected)


def test_gradcam_of_every_stage(run, model, crops):
    _, _, network, variables = run
    gradcams = jax.jit(lambda images: network.apply(variables, images, method="gradcams"))
    expected = gradcams(normalize(crops[:5]))
    assert model.stage_names == ("Stage I", "Stage II", "Stage III")
    got = model.gradcam(crops[:5])
    assert got.shape == (5, 3, 6, 4)
    assert got.max() > 0
    close(got, np.asarray(expected))


@pytest.fixture(scope="module")
def hbfp(tmp_path_factory):
    """A run of HBFP-Net, and class activation maps of images, computed without the tested code."""
    workdir = tmp_path_factory.mktemp("runs") / "hbfp"
    with jax.numpy_dtype_promotion("standard"):
        _, network, variables = random_runs.write(workdir, "hbfp_synthetic")

    def expected(crops, *classes):
        def face(images, *classes):
            return network.apply(variables, images, *classes, method="class_activations")

        return np.asarray(jax.jit(face)(normalize(crops), *classes))

    return workdir, expected


def test_class_activations_of_predicted_and_given_classes(hbfp, crops):
    workdir, expected = hbfp
    model = reid_jax.load(workdir, batch_size=4)  # Five images form two batches.
    assert model.stage_names == ("Low", "Middle", "High")
    got = model.class_activations(crops[:5])
    assert got.shape == (5, 2, 3, 6, 4)
    close(got, expected(crops[:5]))
    classes = np.array([3, 0, 1, 2, 1], np.int32)
    of_classes = model.class_activations(crops[:5], classes)
    close(of_classes, expected(crops[:5], classes))
    assert not np.allclose(got, of_classes)
    np.testing.assert_array_equal(of_classes, model.class_activations(list(crops[:5]), [*classes]))
    # With whole batches, the second call of a face starts with its own classes.
    close(model.class_activations(crops[5:9], classes[:4]), expected(crops[5:9], classes[:4]))
    assert model.class_activations([]).shape == model.class_activations([], []).shape
    assert model.class_activations([], []).shape == (0, 2, 3, 6, 4)


def test_classes_that_are_not_the_networks_are_named(hbfp, model, crops):
    of_hbfp = reid_jax.load(hbfp[0])
    for classes, words in [
        ([1], r"classes are int64 \(1,\); they must be 2 integers"),
        (1, r"classes are int64 \(\); they must be 2 integers"),
        ([0.0, 1.0], r"classes are float64 \(2,\); they must be 2 integers"),
        ([0, 4], "class 4 of image 1 is not one of the network's 4 training identities, 0 to 3"),
        ([-1, 0], "class -1 of image 0 is not one of"),
    ]:
        with pytest.raises(ValueError, match=words):
            of_hbfp.class_activations(crops[:2], classes)
    with pytest.raises(ValueError, match=r"model\.name is 'pmm', but only 'hbfp' has class act"):
        model.class_activations(crops[:2])


def test_flip_and_length_are_the_recipes(tmp_path, crops):
    def change(config):
        config.eval.flip = config.eval.normalize = True

    _, network, variables = random_runs.write(tmp_path / "run", "baseline_synthetic", change=change)
    images = normalize(crops[:2])
    apply = jax.jit(network.apply)
    both = apply(variables, images) + apply(variables, images[:, :, ::-1])
    close(
        reid_jax.load(tmp_path / "run").embed(crops[:2]),
        np.asarray(both / np.linalg.norm(both, axis=1, keepdims=True)),
    )


def test_the_recipe_of_a_model_cannot_be_changed(model):
    with pytest.raises(AttributeError, match="immutable"):
        model.config.eval.flip = True


def test_a_call_computes_no_more_than_its_images(tmp_path, crops, monkeypatch):
    """One crop is not padded to a whole batch, and many crops are few batches."""
    random_runs.write(tmp_path / "run", "pmm_synthetic")
    model = reid_jax.load(tmp_path / "run")
    computed = []
    describe = model._describe

    def counting(variables, images):
        computed.append(len(images))
        return describe(variables, images)

    monkeypatch.setattr(model, "_describe", counting)
    devices = jax.local_device_count()
    several = np.resize(crops, (9 * devices, *crops.shape[1:]))
    whole = model.embed(several)
    assert computed == [8 * devices, devices]
    computed.clear()
    one = model.embed(several[:1])
    assert computed == [devices]
    np.testing.assert_allclose(one, whole[:1], rtol=1e-4, atol=1e-5)


def test_the_default_batch_is_that_of_the_recipe_or_of_a_cpu(tmp_path):
    for batch_size, want in ((16, 16), (1000, 64)):
        workdir = tmp_path / str(batch_size)

        def change(config, batch_size=batch_size):
            config.eval.batch_size = batch_size

        random_runs.write(workdir, "pmm_synthetic", change=change)
        assert reid_jax.load(workdir)._batch_size == want


def test_a_network_with_stripes_has_gradcams_of_one_size(tmp_path, crops):
    def change(config):
        config.eval.flip = config.eval.normalize = False
        config.model.update({"stripes": 3, "neck": "batch_norm"})

    _, network, variables = random_runs.write(tmp_path / "run", "strong_synthetic", change=change)
    model = reid_jax.load(tmp_path / "run")
    assert model.stage_names == ("res5", "Stripe 1", "Stripe 2", "Stripe 3")
    cams = model.gradcam(crops[:3])
    assert cams.shape == (3, 4, 6, 4)
    for stripe in (1, 2, 3):
        outside = np.delete(cams[:, stripe], [2 * stripe - 2, 2 * stripe - 1], axis=1)
        assert cams[:, stripe].max() > 0 == outside.max()
    descriptors = model.embed(crops[:3])
    assert descriptors.shape[1] == model.dim == 16 + 3 * 8
    close(descriptors, np.asarray(jax.jit(network.apply)(variables, normalize(crops[:3]))))


def test_a_network_without_classifier_has_no_gradcam(tmp_path, crops):
    random_runs.write(tmp_path / "run", "baseline_synthetic", "triplet,small")
    model = reid_jax.load(tmp_path / "run")
    assert model.stage_names == ()
    with pytest.raises(ValueError, match=r"without one \(model\.classifier\)"):
        model.gradcam(crops)


def test_checkpoints_by_name_and_step(run, model):
    workdir, _, _, variables = run
    kernel = ("params", "trunk", "conv1", "kernel")

    def weights(tree):
        for key in kernel:
            tree = tree[key]
        return np.asarray(tree)

    assert model.step == 2
    np.testing.assert_array_equal(weights(model.variables), weights(variables))
    best = reid_jax.load(workdir, "best")
    assert best.step == reid_jax.load(workdir, 1).step == 1
    assert not np.array_equal(weights(best.variables), weights(variables))


def test_bad_images_are_named(model, tmp_path, crops):
    good, bad = tmp_path / "good.png", tmp_path / "bad.jpg"
    Image.fromarray(crops[0]).save(good)
    bad.write_bytes(b"")
    with pytest.raises(ValueError, match=r"1 of 2 files .*bad\.jpg.*is empty"):
        model.embed([good, bad])
    with pytest.raises(ValueError, match=r"gone\.jpg.*No such file"):
        model.embed(tmp_path / "gone.jpg")
    with pytest.raises(ValueError, match="paths or pixels, not some of both"):
        model.embed([good, crops[0]])
    for wrong, words in [
        (crops.astype(np.float32), r"image 0 is float32 \(96, 64, 3\); it must be"),
        (crops[0, :, :, 0], r"image 0 is uint8 \(96, 64\)"),
        ([crops[0], crops[0, :0]], r"image 1 is uint8 \(0, 64, 3\)"),
        (3, r"images are of type int; they must be paths"),
        ([3], r"image 0 is int64 \(\)"),
    ]:
        with pytest.raises(ValueError, match=words):
            model.embed(wrong)


def test_images_of_pillow(model, crops):
    one = Image.fromarray(crops[0])
    expected = model.embed(crops)
    close(model.embed(one), expected[:1])
    several = [Image.fromarray(crop) for crop in crops]
    np.testing.assert_array_equal(model.embed(several), expected)
    # Any mode, as of files.
    grey = one.convert("L")
    np.testing.assert_array_equal(model.embed(grey), model.embed(grey.convert("RGB")))


def test_bad_runs_and_settings_are_named(run, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"run\.json is missing"):
        reid_jax.load(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no checkpoint of step 7 .*only \[1, 2\]"):
        reid_jax.load(run[0], 7)
    for batch_size, message in ((0, "at least 1, got 0"), (2.5, "a whole number, got 2.5")):
        with pytest.raises(ValueError, match=f"batch_size must be {message}"):
            reid_jax.load(run[0], batch_size=batch_size)


def test_a_model_can_be_pickled(model, crops):
    again = pickle.loads(pickle.dumps(model))
    assert again.config == model.config
    assert (again.step, again.dim, again.stage_names) == (model.step, model.dim, model.stage_names)
    np.testing.assert_array_equal(again.embed(crops), model.embed(crops))
    np.testing.assert_array_equal(copy.deepcopy(model).embed(crops[:1]), model.embed(crops[:1]))


OTHER_PROCESSES = """
import multiprocessing, os, sys, warnings
import numpy as np
import reid_jax

def attempt(call):
    try:
        call()
    except RuntimeError as error:
        print(error, flush=True)

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    workdir, crops = sys.argv[1], np.load(sys.argv[2])
    model = reid_jax.load(workdir)
    gallery = reid_jax.Gallery()
    gallery.add([[1.0]])
    child = os.fork()  # Before the first call, which prepares weights.
    if not child:
        attempt(lambda: model.embed(crops))
        attempt(lambda: reid_jax.load(workdir))
        attempt(lambda: gallery.search([[1.0]]))
        os._exit(0)
    os.waitpid(child, 0)
    want = model.embed(crops)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        np.testing.assert_array_equal(pool.apply(model.embed, (crops,)), want)
    print("spawned")
"""


def test_other_processes_are_spawned_and_a_fork_is_an_error(run, crops, tmp_path):
    (tmp_path / "program.py").write_text(OTHER_PROCESSES)
    np.save(tmp_path / "crops.npy", crops[:2])
    program = [sys.executable, tmp_path / "program.py", run[0], tmp_path / "crops.npy"]
    done = subprocess.run(
        program,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    *errors, last = done.stdout.splitlines()
    assert len(errors) == 3
    assert all("JAX does not work in a fork: start processes by" in error for error in errors)
    assert last == "spawned"
