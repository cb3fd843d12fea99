import itertools

import numpy as np
import pytest
from PIL import Image

from reid_jax.data import loaders
from tests.data.opened import LOADERS, SIZE, load, open_images


@pytest.mark.parametrize("size", [SIZE, (64, 33)])
def test_loaders_give_the_same_bits(kinds, size):
    memory, *others = (load(kinds, loader, size) for loader in LOADERS)
    for other in others:
        for path, ours, theirs in zip(kinds, memory, other, strict=True):
            np.testing.assert_array_equal(ours, theirs, err_msg=path.name)


@pytest.mark.parametrize("shape", [SIZE, (12, 5), (24, 31), (90, 33), (7, 10), (1, 1), (24, 90)])
def test_loaders_give_the_same_bits_of_files_of_one_size(tmp_path, rng, draw, shape):
    """Resizing is compiled, except for the last size, which is much larger than the target."""
    extremes = Image.fromarray(255 * rng.integers(0, 2, (*shape, 3), np.uint8))
    paths = [tmp_path / name for name in ("extremes.png", "white.png", "a.jpg", "b.jpg")]
    pictures = [extremes, Image.new("RGB", shape[::-1], "white"), draw(*shape), draw(*shape)]
    for path, picture in zip(paths, pictures, strict=True):
        picture.save(path)
    np.testing.assert_array_equal(load(paths, "memory"), load(paths, "encoded"))


@pytest.mark.parametrize("loader", LOADERS)
def test_batches_come_in_the_order_asked_for(tmp_path, loader):
    paths = []
    for i in range(12):
        # Files of unequal cost, so that parallel work finishes out of order.
        side = 400 if i % 3 == 0 else 8
        paths.append(str(tmp_path / f"{i}.png"))
        Image.new("RGB", (side, side), (i, 2 * i, 3 * i)).save(paths[-1])
    opened = open_images(paths, (4, 2), loader)
    wanted = [np.random.default_rng(i).integers(0, 12, 5).astype(np.int32) for i in range(40)]
    batches = list(opened.batches(iter(wanted)))
    assert len(batches) == 40
    # A transfer may still read a batch when the next one is made.
    assert not any(np.shares_memory(*pair) for pair in itertools.pairwise(batches))
    for indices, batch in zip(wanted, batches, strict=True):
        np.testing.assert_array_equal(batch[:, 0, 0, 0], indices)
        np.testing.assert_array_equal(batch[:, 3, 1, 2], 3 * indices)
    assert list(opened.batches([])) == []


@pytest.mark.parametrize("loader", LOADERS)
def test_an_endless_stream_may_be_left(tmp_path, loader):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    opened = open_images([str(tmp_path / "a.png")], (4, 4), loader)

    def forever():
        while True:
            yield np.zeros(3, np.int32)

    stream = opened.batches(forever())
    assert next(stream).shape == (3, 4, 4, 3)
    stream.close()


@pytest.mark.parametrize("loader", LOADERS)
def test_bad_files_are_counted_and_named(tmp_path, draw, loader):
    good = tmp_path / "good.jpg"
    draw(40, 20).save(good)
    text = tmp_path / "text.jpg"
    text.write_text("no image")
    empty = tmp_path / "empty.png"
    empty.touch()
    cut_jpeg = tmp_path / "cut.jpg"
    cut_jpeg.write_bytes(good.read_bytes()[:-60])
    cut_png = tmp_path / "cut.png"
    draw(40, 20).save(cut_png)
    cut_png.write_bytes(cut_png.read_bytes()[:-60])
    missing = tmp_path / "missing.jpg"
    bad = [text, empty, cut_jpeg, cut_png, missing]
    with pytest.raises(ValueError, match="5 of 6 files cannot be read") as caught:
        load([good, *bad], loader)
    assert [path.name in str(caught.value) for path in bad] == [True, True, True, False, False]
    for path in bad:
        with pytest.raises(ValueError, match=f"1 of 2 files.*{path.name}"):
            load([good, path], loader)


def test_unknown_loader():
    with pytest.raises(ValueError, match=r"'torch' \(data\.loader\).*tfdata, memory, disk, device"):
        loaders.open_images([], SIZE, "torch")
