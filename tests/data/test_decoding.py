import numpy as np
import pytest
from PIL import Image

from reid_jax.data import decoding
from tests.data.opened import LOADERS, SIZE, load, open_images


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


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_32_bits_are_an_error(tmp_path, draw, dtype):
    image = Image.fromarray(np.asarray(draw(*SIZE).convert("L")).astype(dtype))
    image.save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match=r"a\.tif.* \(has 32 bits for a colour; the limit is 16"):
        load([tmp_path / "a.tif"], LOADERS[0])
    with pytest.raises(ValueError, match="has 32 bits for a colour"):
        decoding.to_rgb(image)


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
