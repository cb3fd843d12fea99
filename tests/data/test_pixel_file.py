"""The file of decoded images, and the loaders that use it."""

import errno
import io
import os
import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image

from reid_jax.data import decoding, pixel_file
from reid_jax.data.disk import DiskImages
from reid_jax.data.memory import MemoryImages
from reid_jax.data.pixel_file import open_pixels
from reid_jax.data.tfdata import TfdataImages

SIZE = (7, 4)


@pytest.fixture
def cache(user_cache):
    """The folder of decoded images."""
    return user_cache / "reid_jax" / "pixels"


@pytest.fixture
def paths(rng, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(5):
        noise = rng.integers(0, 256, (8 + i, 6, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{i}.png")
    return sorted(map(str, folder.iterdir()))


def decoded_by(call, monkeypatch):
    """How many files a call decodes."""
    count = 0

    def visit(paths, *rest):
        nonlocal count
        count += len(paths)
        return original(paths, *rest)

    original = decoding.visit
    with monkeypatch.context() as patch:
        patch.setattr(decoding, "visit", visit)
        call()
    return count


def test_the_second_run_decodes_nothing(paths, cache, monkeypatch):
    first = DiskImages(paths, SIZE)
    wanted = [np.asarray(decoding.resize(Image.open(path), SIZE)) for path in paths]
    np.testing.assert_array_equal(first.pixels, wanted)
    assert (len(first), first.pixels.dtype) == (5, np.uint8)
    (file,) = cache.iterdir()
    os.utime(file, (0, 0))
    assert decoded_by(lambda: DiskImages(paths, SIZE), monkeypatch) == 0
    assert decoded_by(lambda: DiskImages(paths, list(SIZE)), monkeypatch) == 0  # From a recipe.
    assert file.stat().st_mtime > 0  # It counts as used.
    np.testing.assert_array_equal(DiskImages(paths, SIZE).pixels, wanted)
    with pytest.raises(ValueError, match="read-only"):
        first.pixels[0] = 0


def test_pixels_may_take_more_than_the_memory(paths, cache):
    side, count = 2**12, 2**16  # 3 TiB, of which the disk stores nothing.
    paths = paths[:1] * count
    cache.mkdir(mode=0o700, parents=True)
    with open(cache / f"{pixel_file._digest(paths, (side, side))}.uint8", "wb") as file:
        file.truncate(count * side * side * 3)
    (batch,) = DiskImages(paths, (side, side)).batches([np.array([count - 1])])
    assert batch.shape == (1, side, side, 3)
    assert not batch.any()


def test_only_the_user_may_read_them(paths, cache):
    DiskImages(paths, SIZE)
    assert cache.stat().st_mode & 0o077 == 0  # They show people.


def test_other_images_or_another_size_are_decoded(paths, monkeypatch):
    DiskImages(paths, SIZE)
    # As many pixels in another form, and files of the same names, sizes and times elsewhere.
    assert decoded_by(lambda: DiskImages(paths, SIZE[::-1]), monkeypatch) == 5
    folder = pathlib.Path(paths[0]).parent
    copies = shutil.copytree(folder, folder.with_name("copies"))
    elsewhere = [str(copies / pathlib.Path(path).name) for path in paths]
    assert decoded_by(lambda: DiskImages(elsewhere, SIZE), monkeypatch) == 5
    assert decoded_by(lambda: DiskImages(paths[::-1], SIZE), monkeypatch) == 5
    os.utime(paths[0], (1, 1))
    assert decoded_by(lambda: DiskImages(paths, SIZE), monkeypatch) == 5
    monkeypatch.setattr(pixel_file.PIL, "__version__", "0")  # Another decoder.
    assert decoded_by(lambda: DiskImages(paths, SIZE), monkeypatch) == 5


def test_what_was_cut_short_is_decoded_again(paths, cache, monkeypatch):
    wanted = np.array(DiskImages(paths, SIZE).pixels)
    (file,) = cache.iterdir()
    os.truncate(file, 10)
    assert decoded_by(lambda: DiskImages(paths, SIZE), monkeypatch) == 5
    np.testing.assert_array_equal(DiskImages(paths, SIZE).pixels, wanted)


def test_bad_files_are_named_and_nothing_is_left(paths, cache):
    pathlib.Path(paths[2]).write_bytes(b"no image")
    os.remove(paths[3])
    with pytest.raises(decoding.BadFilesError, match=r"2 of 5 files.*2\.png.*3\.png"):
        DiskImages(paths, SIZE)
    assert list(cache.iterdir()) == []


def test_pixels_not_used_for_longest_go_first(paths, cache, monkeypatch):
    monkeypatch.setattr(pixel_file, "MAX_BYTES", 5 * 7 * 4 * 3 + 100)  # Room for one, not for two.
    DiskImages(paths, SIZE)
    (old,) = cache.iterdir()
    held = DiskImages(paths, SIZE)
    DiskImages(paths[:4], SIZE)
    assert [file.stat().st_size for file in cache.iterdir()] == [4 * 7 * 4 * 3]
    assert not old.exists()
    assert held.pixels[4].any()  # A run that reads the file keeps it.


def test_drafts_that_a_kill_left_are_removed(paths, cache):
    cache.mkdir(mode=0o700, parents=True)
    left, used = cache / ".0123.part", cache / ".4567.part"
    left.touch()
    used.touch()
    os.utime(left, (0, 0))
    DiskImages(paths, SIZE)
    assert not left.exists()
    assert used.exists()


def leave_free(count, monkeypatch):
    usage = shutil._ntuple_diskusage(9**9, 9**9, count)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)


def test_too_little_room(paths, cache, monkeypatch):
    leave_free(5 * 7 * 4 * 3 - 1, monkeypatch)
    with pytest.raises(OSError, match=r"5 decoded images take 0\.0 GiB.* use data\.loader=memory"):
        DiskImages(paths, SIZE)
    assert list(cache.iterdir()) == []
    leave_free(5 * 7 * 4 * 3, monkeypatch)
    DiskImages(paths, SIZE)


def test_images_that_cannot_fit_leave_the_cache_alone(paths, cache, monkeypatch):
    DiskImages(paths, SIZE)
    kept = list(cache.iterdir())
    monkeypatch.setattr(pixel_file, "MAX_BYTES", 5 * 7 * 4 * 3)
    with pytest.raises(OSError, match="has room for"):
        DiskImages(paths, (7, 5))
    with monkeypatch.context() as patch:
        leave_free(5 * 7 * 3 - 1, patch)
        patch.setattr(pixel_file, "MAX_BYTES", 5 * 7 * 5 * 3)
        with pytest.raises(OSError, match="has room for"):
            DiskImages(paths, (7, 5))
    assert list(cache.iterdir()) == kept
    leave_free(0, monkeypatch)
    DiskImages(paths[:4], SIZE)  # In the place of the first file.
    assert list(cache.iterdir()) != kept


def test_a_cache_that_cannot_be_made(paths, user_cache):
    user_cache.write_text("a file")
    with pytest.raises(OSError, match=r"data\.loader is disk, but .* XDG_CACHE_HOME"):
        DiskImages(paths, SIZE)


class FullDisk(io.FileIO):
    def write(self, data):
        raise OSError(errno.ENOSPC, "No space left on device")


class NearlyFullDisk(io.FileIO):
    def write(self, data):
        return super().write(data[:-1])


@pytest.mark.parametrize("opened", [FullDisk, NearlyFullDisk])
def test_a_disk_that_fills_up_is_no_problem_of_the_images(paths, cache, monkeypatch, opened):
    monkeypatch.setattr(pathlib.Path, "open", lambda path, mode, **_: opened(path, mode))
    with pytest.raises(
        OSError, match=r"cannot be written to .*pixels' \(No space left on device\)"
    ):
        DiskImages(paths, SIZE)
    assert list(cache.iterdir()) == []


class Team:
    """This host and another one, which has these values in turn."""

    def __init__(self, *others):
        self._others = iter(others)

    def values(self, own):
        return [*own, *next(self._others)]


def test_hosts_hear_of_the_others_problems(paths):
    with pytest.raises(decoding.BadFilesError, match=r"1 of 5 files.*1\.png.*is empty"):
        open_pixels(paths, SIZE, team=Team([], [[1, "is empty"]]))
    with pytest.raises(OSError, match=r"^no room there$"):
        open_pixels(paths, SIZE, team=Team(["no room there"]))


def batch_of(images):
    (batch,) = images.batches([np.arange(5)[::-1]])
    return batch


def test_tfdata_decodes_once_for_all_runs(paths, cache, monkeypatch):
    lines = []
    wanted = batch_of(MemoryImages(paths, SIZE))
    np.testing.assert_array_equal(batch_of(TfdataImages(paths, SIZE, lines.append)), wanted)
    assert lines == ["read 5 of 5 images"]
    assert len(list(cache.iterdir())) == 1
    again = []
    assert decoded_by(lambda: again.append(TfdataImages(paths, SIZE)), monkeypatch) == 0
    np.testing.assert_array_equal(batch_of(again[0]), wanted)
    # Decoded images are there, whatever the files are now.
    status = os.stat(paths[0])
    pathlib.Path(paths[0]).write_bytes(b"x" * status.st_size)
    os.utime(paths[0], ns=(status.st_atime_ns, status.st_mtime_ns))
    np.testing.assert_array_equal(batch_of(again[0]), wanted)
    np.testing.assert_array_equal(batch_of(TfdataImages(paths, SIZE)), wanted)


def test_tfdata_takes_half_of_the_free_disk_and_otherwise_decodes_in_every_epoch(
    paths, cache, monkeypatch
):
    lines = []
    leave_free(2 * 5 * 7 * 4 * 3 - 1, monkeypatch)
    images = TfdataImages(paths, SIZE, lines.append)
    assert lines[0].startswith("5 decoded images take 0.0 GiB, and ")
    assert lines[0].endswith("GiB: images are decoded again in every epoch")
    assert list(cache.iterdir()) == []
    np.testing.assert_array_equal(batch_of(images), batch_of(MemoryImages(paths, SIZE)))
    assert len(images) == 5
    leave_free(2 * 5 * 7 * 4 * 3, monkeypatch)
    assert len(TfdataImages(paths, SIZE)) == 5
    assert len(list(cache.iterdir())) == 1


def test_tfdata_without_a_cache(paths, user_cache):
    user_cache.write_text("a file")
    assert batch_of(TfdataImages(paths, SIZE)).shape == (5, *SIZE, 3)
