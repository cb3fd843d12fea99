import numpy as np
import pytest
from PIL import Image
from reid_jax.configs.common import recipe

from benchmarks import pil_loaders
from reid_jax.data import augment, loaders

SIZE = (24, 10)
PLAIN = {
    **{"flip": 0.0, "erasing_probability": 0.0, "erasing_area": (0.02, 0.4)},
    **{"erasing_aspect": (0.3, 3.33), "cutout_probability": 0.0, "cutout_size": 4},
}


@pytest.fixture
def paths(tmp_path, rng):
    paths = [str(tmp_path / f"{i}.jpg") for i in range(5)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (31, 14, 3), np.uint8)).save(path)
    return paths


def load(path, **options):
    out = np.full((3, *SIZE), np.nan, np.float32)
    pil_loaders.load(path, out, PLAIN | options, np.random.default_rng(0))
    return out


def ours(paths):
    opened = loaders.open_images(paths, SIZE, "memory")
    (batch,) = opened.batches([np.arange(len(paths))])
    return np.asarray(augment.normalize(batch)).transpose(0, 3, 1, 2)


def test_options_are_those_of_a_recipe():
    """Except leaves that no paper's recipe uses, which are off."""
    others = {"crop_padding", "brightness", "contrast", "saturation"}
    assert set(PLAIN) | others == set(recipe().augment)
    assert not any(recipe().augment[name] for name in others)


def test_without_chance_pixels_are_ours(paths):
    for path, expected in zip(paths, ours(paths), strict=True):
        np.testing.assert_allclose(load(path), expected, rtol=0, atol=1e-6)


def test_flip(paths):
    np.testing.assert_array_equal(load(paths[0], flip=1.0), load(paths[0])[..., ::-1])


def test_cutout_is_a_square_of_the_mean_colour(paths):
    changed = (load(paths[0], cutout_probability=1.0) != load(paths[0])).all(axis=0)
    rows, columns = np.nonzero(changed)
    assert np.ptp(rows) == np.ptp(columns) == 3
    assert changed.sum() == 16
    assert not load(paths[0], cutout_probability=1.0)[:, changed].any()


def test_erasing_is_a_rectangle_of_the_share_asked_for(paths):
    options = {"erasing_area": (0.25, 0.25), "erasing_aspect": (2.0, 2.0)}
    erased = load(paths[0], erasing_probability=1.0, **options)
    rows, columns = np.nonzero((erased == 0).all(axis=0))
    # An area of 60 pixels, twice as high as wide: 10.95 x 5.48.
    assert (np.ptp(rows) + 1, np.ptp(columns) + 1, len(rows)) == (11, 5, 55)


@pytest.mark.parametrize(
    "loader", ["processes", pytest.param("dataloader", marks=pytest.mark.extras)]
)
def test_workers_deliver_every_batch_in_order(paths, loader):
    if loader == "dataloader":
        pytest.importorskip("torch", reason="PyTorch is not installed")
    expected = ours(paths)
    order = [np.array(indices) for indices in ([0, 1], [4, 3], [2, 2], [1, 0], [3, 4], [0, 2])]
    if loader == "processes":
        opened = pil_loaders.processes(paths, SIZE, 2, PLAIN, 1)
    else:
        opened = pil_loaders.dataloader(paths, SIZE, PLAIN, 1)
    with opened as stream:
        for epoch in (order, order[:1], order[::-1]):
            batches = [np.array(batch) for batch in stream(epoch)]
            assert len(batches) == len(epoch)
            for indices, batch in zip(epoch, batches, strict=True):
                np.testing.assert_allclose(batch, expected[indices], rtol=0, atol=1e-6)


def test_what_a_worker_raises_ends_the_stream(tmp_path):
    (tmp_path / "a.jpg").write_text("no image")
    workers = pil_loaders.processes([str(tmp_path / "a.jpg")], SIZE, 1, PLAIN, 1)
    with workers as stream, pytest.raises(OSError, match="cannot identify"):
        next(stream([np.array([0])]))


def test_decoding_alone_reads_files_and_writes_nothing(paths):
    out = np.full((3, *SIZE), 7, np.float32)
    pil_loaders.decode(paths[0], out, PLAIN, np.random.default_rng(0))
    assert (out == 7).all()
    assert pil_loaders.read(paths[0]).size == (14, 31)
    with pytest.raises(FileNotFoundError):
        pil_loaders.decode(paths[0] + "x", out, PLAIN, np.random.default_rng(0))
