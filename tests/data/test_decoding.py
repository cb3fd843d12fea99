import json
import re
import struct

import numpy as np
import pytest
from PIL import Image

from reid_jax.data import decoding
from tests.data.opened import LOADERS, SIZE, load, open_images
from tests.docs.pages import ROOT


def triangle(extent, target):
    """(target, extent) float64: the filter that `decoding.resize` documents."""
    scale = extent / target
    reach = max(scale, 1.0)
    weights = np.zeros((target, extent))
    for i in range(target):
        for j in range(extent):
            weights[i, j] = max(0.0, 1 - abs(j + 0.5 - (i + 0.5) * scale) / reach)
    return weights / weights.sum(axis=1, keepdims=True)


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


def grey_tiff(levels, bits=16, photometric=1, kind=1, order="<"):
    """A TIFF file of grey levels, (H, W) below 2^bits, without compression.

    `photometric` is 0 if white is zero, and `kind` is 2 for signed numbers.
    """
    height, width = levels.shape
    if bits == 12:
        pairs = levels.reshape(-1, 2)
        data = b"".join(int(a << 12 | b).to_bytes(3, "big") for a, b in pairs.tolist())
    else:
        data = levels.astype(f"{order}{'ui'[kind - 1]}{bits // 8}").tobytes()
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1}
    tags |= {278: height, 279: len(data), 339: kind}
    entries = b"".join(struct.pack(order + "HHII", tag, 4, 1, tags[tag]) for tag in tags)
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8 + len(data))
    return start + data + struct.pack(order + "H", len(tags)) + entries + bytes(4)


@pytest.mark.parametrize(
    ("bits", "photometric", "order"),
    [(16, 1, "<"), (16, 1, ">"), (16, 0, "<"), (12, 1, "<"), (8, 0, "<"), (8, 1, ">")],
)
def test_grey_tiffs_keep_their_high_bits(tmp_path, rng, bits, photometric, order):
    levels = rng.integers(0, 2**bits, SIZE, np.uint16)
    (tmp_path / "a.tif").write_bytes(grey_tiff(levels, bits, photometric, order=order))
    (pixels,) = load([tmp_path / "a.tif"], LOADERS[0])
    expected = levels >> (bits - 8)
    expected = expected if photometric else 255 - expected
    np.testing.assert_array_equal(pixels, np.stack([expected] * 3, axis=-1))


def test_the_documented_function_reads_the_same_pixels(kinds, tmp_path, rng, draw, monkeypatch):
    """`pixels` of `docs/export.md`, which users of exported files copy."""
    page = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    (block,) = (block for block in blocks if "def pixels" in block)
    (tmp_path / "exported").mkdir()
    facts = {"input": {"shape": ["b", *SIZE, 3]}}
    (tmp_path / "exported" / "descriptor.json").write_text(json.dumps(facts))
    deep = Image.fromarray(rng.integers(0, 2**16, (40, 20), np.uint16))
    paths = [*kinds, *(tmp_path / f"deep.{suffix}" for suffix in ("png", "tif"))]
    for path in paths[-2:]:
        deep.save(path)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        for suffix, picture in (("jpg", draw(40, 20)), ("png", deep), ("tif", draw(40, 20))):
            paths.append(tmp_path / f"turned_{orientation}.{suffix}")
            picture.save(paths[-1], exif=exif)
    for name in ("anna.jpg", "bert.jpg"):
        draw(40, 20).save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(block, names)
    for path, expected in zip(paths, load(paths, LOADERS[0]), strict=True):
        np.testing.assert_array_equal(names["pixels"](path), expected, err_msg=path.name)


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_32_bits_are_an_error(tmp_path, draw, dtype):
    image = Image.fromarray(np.asarray(draw(*SIZE).convert("L")).astype(dtype))
    image.save(tmp_path / "a.tif")
    message = "has 32 bits or signed numbers for a colour; the limit is 16 unsigned bits"
    with pytest.raises(ValueError, match=rf"a\.tif.* \({message}"):
        load([tmp_path / "a.tif"], LOADERS[0])
    with pytest.raises(ValueError, match=message):
        decoding.to_rgb(image)


def test_signed_numbers_are_an_error(tmp_path, rng):
    levels = rng.integers(0, 2**15, SIZE)
    (tmp_path / "a.tif").write_bytes(grey_tiff(levels, kind=2))
    with pytest.raises(ValueError, match=r"a\.tif.* \(has 32 bits or signed numbers for a colour"):
        load([tmp_path / "a.tif"], LOADERS[0])


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


def test_an_open_tiff_is_turned_once(tmp_path, draw):
    exif = Image.Exif()
    exif[0x0112] = 6
    image = draw(20, 48)
    image.save(tmp_path / "a.tif", exif=exif)
    with Image.open(tmp_path / "a.tif") as opened:
        pixels = np.asarray(decoding.to_rgb(opened))
    np.testing.assert_array_equal(pixels, np.rot90(np.asarray(image), -1))


def test_image_of_the_size_asked_for_is_untouched(draw):
    image = draw(*SIZE)
    np.testing.assert_array_equal(decoding.resize(image, SIZE), image)


@pytest.mark.parametrize("loader", LOADERS)
def test_progress_is_told(tmp_path, draw, loader, monkeypatch):
    paths = [str(tmp_path / f"{i}.png") for i in range(3)]
    for path in paths:
        draw(4, 4).save(path)
    lines = []
    open_images(paths, SIZE, loader, progress=lines.append)
    assert lines == ["read 3 of 3 images"]
    lines.clear()
    monkeypatch.setattr(decoding, "_PROGRESS_PERIOD", 0.0)
    # Another size, because `disk` and `tfdata` keep what they have decoded.
    open_images(paths, (3, 2), loader, progress=lines.append)
    assert lines == [f"read {i} of 3 images" for i in (1, 2, 3)]
