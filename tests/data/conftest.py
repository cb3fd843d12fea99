"""Pictures for the tests of data."""

import numpy as np
import pytest
from PIL import Image

from tests.data.market import FOLDERS
from tests.data.opened import SIZE


@pytest.fixture
def draw(rng):
    """A function (height, width) -> a smooth random RGB picture, so that JPEG keeps its shape."""

    def draw(height, width):
        coarse = rng.integers(0, 256, (6, 4, 3), np.uint8)
        return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)

    return draw


@pytest.fixture
def kinds(tmp_path, draw):
    """Files of every kind: their paths, and the RGB images they were saved from."""
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


@pytest.fixture
def root(tmp_path, draw):
    """Four identities for training and four to find under two cameras, with four images of each."""
    for folder, pids, camids in zip(FOLDERS, ((1, 3, 5, 7), *2 * [(2, 4, 6, 8)]), (
        (1, 2), (1,), (1, 2)
    ), strict=True):  # fmt: skip
        (tmp_path / folder).mkdir()
        for pid in pids:
            for camid in camids:
                for i in range(4 // len(camids)):
                    draw(6, 4).save(tmp_path / folder / f"{pid:04}_c{camid}s1_{i:06}_00.jpg")
    return tmp_path


@pytest.fixture(autouse=True)
def user_cache(tmp_path_factory, monkeypatch):
    """The user's cache folder, in which the loader `disk` keeps decoded images."""
    folder = tmp_path_factory.mktemp("user") / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder
