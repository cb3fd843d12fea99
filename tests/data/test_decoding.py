import itertools
import math
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from reid_jax.data import decoding, loaders

LOADERS = ("memory", "tfdata")
SIZE = (24, 10)


def triangle(extent, target):
    """(target, extent) float64: the filter that `decoding.resize` documents."""
    scale = extent / target
    reach = max(scale, 1.0)
    weights = np.zeros((target, extent))
    for i in range(target):
        for j in range(extent):
            weights[i, j] = max(0.0, 1 - abs(j + 0.5 - (i + 0.5) * scale) / reach)
    return weights / weights.sum(axis=1, keepdims=True)


def load(paths, loader, size=SIZE):
    opened = loaders.open_images([str(path) for path in paths], size, loader)
    assert len(opened) == len(paths)
    (batch,) = opened.batches([np.arange(len(paths), dtype=np.int32)])
    assert batch.dtype == np.uint8
    assert batch.shape == (len(paths), *size, 3)
    return np.array(batch)


@pytest.fixture
def kinds(tmp_path, draw):
    """Files of every kind: paths and the RGB of what they were saved from."""
    saved = {}

    def save(name, image, **options):
        path = tmp_path / name
        image.save(path, **options)
        saved[path] = image

    for i, size in enumerate([SIZE, (12, 5), (48, 20), (7, 31), (90, 33), (24, 33), (1, 1)]):
        for subsampling in (0, 1, 2):
            save(f"{i}_{subsampling}.jpg", draw(*size), quality=80, subsampling=subsampling)
        save(f"{i}.png", draw(*size))
    save("progressive.jpg", draw(40, 20), progressive=True)
    save("stored_as_rgb.jpg", draw(40, 20), keep_rgb=True)
    save("grey.jpg", draw(40, 20).convert("L"))
    save("cmyk.jpg", draw(40, 20).convert("CMYK"))
    save("grey.png", draw(40, 20).convert("L"))
    save("bilevel.png", draw(40, 20).convert("1"))
    save("palette.png", draw(40, 20).convert("P"))
    save("see_through_palette.png", draw(40, 20).convert("P"), transparency=bytes(range(256)))
    save("grey_alpha.png", draw(40, 20).convert("LA"))
    save("key.png", draw(40, 20), transparency=(1, 2, 3))
    rgba = draw(40, 20).convert("RGBA")
    rgba.putalpha(draw(40, 20).convert("L"))
    save("rgba.png", rgba)
    save("really_a_bmp.jpg", draw(40, 20), format="BMP")
    exif = Image.Exif()
    exif[0x0112] = 6
    save("rotated.jpg", draw(40, 20), exif=exif)
    return saved


@pytest.mark.parametrize("size", [SIZE, (64, 33)])
def test_loaders_give_the_same_bits(kinds, size):
    memory, tfdata = (load(kinds, loader, size) for loader in LOADERS)
    for path, ours, theirs in zip(kinds, memory, tfdata, strict=True):
        np.testing.assert_array_equal(ours, theirs, err_msg=path.name)


@pytest.mark.parametrize("shape", [SIZE, (12, 5), (24, 31), (90, 33), (7, 10), (1, 1), (24, 90)])
def test_loaders_give_the_same_bits_of_files_of_one_size(tmp_path, rng, draw, shape):
    """Their resizing is compiled, but for the last, which is much larger than what is asked for."""
    extremes = Image.fromarray(255 * rng.integers(0, 2, (*shape, 3), np.uint8))
    paths = [tmp_path / name for name in ("extremes.png", "white.png", "a.jpg", "b.jpg")]
    pictures = [extremes, Image.new("RGB", shape[::-1], "white"), draw(*shape), draw(*shape)]
    for path, picture in zip(paths, pictures, strict=True):
        picture.save(path)
    np.testing.assert_array_equal(load(paths, "memory"), load(paths, "tfdata"))


@pytest.mark.parametrize("loader", LOADERS)
def test_every_kind_of_file_becomes_rgb(kinds, loader):
    lossless = {path: image for path, image in kinds.items() if path.suffix == ".png"}
    for path, pixels in zip(lossless, load(lossless, loader), strict=True):
        rgb = np.asarray(lossless[path].convert("RGB"), np.float64)
        rows = triangle(rgb.shape[0], SIZE[0])
        columns = triangle(rgb.shape[1], SIZE[1])
        expected = np.einsum("ih,hwc,jw->ijc", rows, rgb, columns)
        # Each of the two passes rounds once.
        assert abs(pixels - expected).max() <= 1.0 + 1e-3, path.name


@pytest.mark.parametrize("loader", LOADERS)
def test_sixteen_bit_grey_keeps_its_high_bytes(tmp_path, rng, loader):
    levels = rng.integers(0, 2**16, SIZE, np.uint16)
    Image.fromarray(levels).save(tmp_path / "a.png")
    (pixels,) = load([tmp_path / "a.png"], loader)
    np.testing.assert_array_equal(pixels, np.stack([levels // 256] * 3, axis=-1))


@pytest.mark.parametrize("loader", LOADERS)
def test_jpeg_is_near_what_was_saved(kinds, loader):
    names = ("0_0.jpg", "2_0.jpg", "stored_as_rgb.jpg", "grey.jpg", "really_a_bmp.jpg")
    jpegs = {path: image for path, image in kinds.items() if path.name in names}
    assert len(jpegs) == len(names)
    for path, pixels in zip(jpegs, load(jpegs, loader), strict=True):
        expected = np.asarray(decoding.resize(jpegs[path].convert("RGB"), SIZE), np.float64)
        assert abs(pixels - expected).mean() < 8, path.name


@pytest.mark.parametrize("loader", LOADERS)
def test_exif_orientation_is_applied(tmp_path, draw, loader):
    image = draw(20, 48)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    image.save(tmp_path / "a.jpg", exif=exif, quality=95, subsampling=0)
    upright = np.rot90(np.asarray(image), -1).astype(np.float64)
    (pixels,) = load([tmp_path / "a.jpg"], loader, upright.shape[:2])
    assert abs(pixels - upright).mean() < 4


def test_image_of_the_size_asked_for_is_untouched(draw):
    image = draw(*SIZE)
    np.testing.assert_array_equal(decoding.resize(image, SIZE), image)


@pytest.mark.parametrize("loader", LOADERS)
def test_batches_come_in_the_order_asked_for(tmp_path, loader):
    paths = []
    for i in range(12):
        # Files of unequal cost, so that parallel work ends out of order.
        side = 400 if i % 3 == 0 else 8
        paths.append(str(tmp_path / f"{i}.png"))
        Image.new("RGB", (side, side), (i, 2 * i, 3 * i)).save(paths[-1])
    opened = loaders.open_images(paths, (4, 2), loader)
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
    opened = loaders.open_images([str(tmp_path / "a.png")], (4, 4), loader)

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
    with pytest.raises(ValueError, match="5 of 6 files are no images or are damaged") as caught:
        load([good, *bad], loader)
    assert [path.name in str(caught.value) for path in bad] == [True, True, True, False, False]
    for path in bad:
        with pytest.raises(ValueError, match=f"1 of 2 files.*{path.name}"):
            load([good, path], loader)


@pytest.mark.parametrize("loader", LOADERS)
def test_progress_is_told(tmp_path, draw, loader, monkeypatch):
    paths = [str(tmp_path / f"{i}.png") for i in range(3)]
    for path in paths:
        draw(4, 4).save(path)
    lines = []
    loaders.open_images(paths, SIZE, loader, progress=lines.append)
    assert lines == ["read 3 of 3 images"]
    lines.clear()
    monkeypatch.setattr(decoding, "_PROGRESS_PERIOD", 0.0)
    loaders.open_images(paths, SIZE, loader, progress=lines.append)
    assert lines == [f"read {i} of 3 images" for i in (1, 2, 3)]


def test_unknown_loader():
    with pytest.raises(ValueError, match=r"'torch' \(data\.loader\).*tfdata, memory, device"):
        loaders.open_images([], SIZE, "torch")


def test_without_tensorflow(tmp_path, draw):
    draw(40, 20).save(tmp_path / "a.jpg")
    expected = load([tmp_path / "a.jpg"], "memory")
    program = f"""
import sys
sys.modules["tensorflow"] = sys.modules["tensorflow_datasets"] = None
import numpy as np
from reid_jax.data import decoding, layouts, pipeline, sampler
paths = [{str(tmp_path / "a.jpg")!r}] * 4
opened = loaders.open_images(paths, {SIZE}, "memory")
labels = np.array([0, 0, 1, 1], np.int32)
sample = sampler.IdentitySampler(labels, 2, 2, seed=0)
(batch,) = pipeline.train_batches(opened, labels, sample, 3, 4)
(_, _) = pipeline.eval_batches(opened, 4, 2)
try:
    loaders.open_images(paths, {SIZE}, "tfdata")
except ImportError as error:
    print(error)
sys.stdout.flush()
sys.stdout.buffer.write(batch["image"][0].tobytes())
"""
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, check=True
    )
    message, pixels = run.stdout.split(b"\n", 1)
    assert b"--config.data.loader=memory" in message
    np.testing.assert_array_equal(np.frombuffer(pixels, np.uint8), expected.ravel())


# A process of its own: memory that earlier tests gave back would be used again and not seen.
GROWTH = """
import os, sys
import numpy as np
from reid_jax.data import decoding, loaders

def resident_bytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

def feed(copies):
    opened = loaders.open_images([sys.argv[1]] * copies, (32, 16), "tfdata")
    for _ in opened.batches([np.arange(4)] * 8):
        pass
    return opened

warm = feed(4)
before = resident_bytes()
opened = feed(int(sys.argv[2]))
print(resident_bytes() - before)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="memory is read from /proc")
def test_encoded_bytes_are_held_once(tmp_path, rng):
    path = str(tmp_path / "a.jpg")
    # Noise hardly compresses: a file of about a megabyte, cheap to decode.
    Image.fromarray(rng.integers(0, 256, (560, 800, 3), np.uint8)).save(path, quality=95)
    copies = math.ceil(160e6 / os.path.getsize(path))
    command = [sys.executable, "-c", GROWTH, path, str(copies)]
    grown = int(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    held = copies * os.path.getsize(path)
    assert 0.9 * held < grown < 1.5 * held
