import gc
import os
import pathlib
import threading
import time
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from reid_jax.data import memory, pipeline, streamed

SIZE = (24, 10)


def threads():
    return [t for t in threading.enumerate() if t.name.startswith("StreamedImages")]


def open_streamed(paths, size=SIZE):
    return streamed.StreamedImages([str(path) for path in paths], size)


@pytest.fixture
def paths(tmp_path, draw):
    """Files of many kinds and of unequal cost, so that parallel work finishes out of order."""
    made = [tmp_path / f"{i}.{'jpg' if i % 2 else 'png'}" for i in range(9)]
    for i, path in enumerate(made):
        draw(*((300, 120) if i % 3 == 0 else (13 + i, 31 - i))).save(path)
    draw(40, 20).convert("CMYK").save(tmp_path / "cmyk.jpg")
    draw(40, 20).convert("P").save(tmp_path / "see_through.png", transparency=bytes(range(256)))
    exif = Image.Exif()
    exif[0x0112] = 6
    draw(40, 20).save(tmp_path / "rotated.jpg", exif=exif)
    made += [tmp_path / name for name in ("cmyk.jpg", "see_through.png", "rotated.jpg")]
    return [str(path) for path in made]


def test_the_bits_are_those_of_memory(paths, rng):
    wanted = [rng.integers(0, len(paths), 5).astype(np.int32) for _ in range(12)]
    opened = open_streamed(paths)
    assert len(opened) == len(paths)
    got = list(opened.batches(iter(wanted)))
    expected = list(memory.MemoryImages(paths, SIZE).batches(wanted))
    assert len(got) == 12
    for batch, other in zip(got, expected, strict=True):
        assert batch.dtype == np.uint8
        np.testing.assert_array_equal(batch, other)
        batch[:] = 0  # Batches have their own, writable memory.
    assert not any(np.shares_memory(got[0], batch) for batch in got[1:])
    assert list(opened.batches([])) == []


@pytest.mark.parametrize(("count", "size"), [(12, 5), (12, 4), (7, 3), (2, 8)])
def test_evaluation_loses_no_image(paths, count, size):
    batches = pipeline.eval_batches(open_streamed(paths), count, [size] * -(-count // size))
    got = np.concatenate([batch[mask] for batch, mask in batches])
    np.testing.assert_array_equal(got, memory.MemoryImages(paths, SIZE).pixels[:count])


@pytest.mark.parametrize("end", ["used up", "closed", "forgotten"])
def test_no_thread_outlives_the_iterator(paths, end):
    opened = open_streamed(paths)
    assert threads() == []

    count = 9 if end == "used up" else 500
    batches = opened.batches(np.arange(4, dtype=np.int32) for _ in range(count))
    assert next(batches).shape == (4, *SIZE, 3)
    assert threads()
    if end == "used up":
        assert len(list(batches)) == 8
    elif end == "closed":
        batches.close()
    else:
        del batches
        gc.collect()
    assert threads() == []


def test_no_thread_outlives_an_evaluation_that_is_left(paths):
    batches = pipeline.eval_batches(
        open_streamed(paths * 9), 9 * len(paths), [2] * (5 * len(paths))
    )
    next(batches)
    assert threads()
    batches.close()
    assert threads() == []


def test_only_a_few_batches_are_read_ahead(paths, monkeypatch):
    opened = open_streamed(paths)
    asked, decoded = 0, []
    decode = streamed.StreamedImages._read
    monkeypatch.setattr(
        streamed.StreamedImages, "_read", lambda self, i: (decoded.append(i), decode(self, i))[1]
    )

    def indices():
        nonlocal asked
        for _ in range(100):
            asked += 1
            yield np.arange(4, dtype=np.int32)

    batches = opened.batches(indices())
    for taken in range(1, 6):
        next(batches)
        time.sleep(0.02)  # Long enough for an unlimited reader to run far ahead.
        assert asked == taken + 2
        assert len(decoded) <= 4 * asked
    batches.close()


def test_memory_does_not_grow_with_the_number_of_images(tmp_path, draw):
    path = str(tmp_path / "a.jpg")
    draw(128, 64).save(path)
    opened = open_streamed([path], (128, 64))
    batch_bytes = 16 * 128 * 64 * 3
    tracemalloc.start()
    for batch in opened.batches(np.zeros(16, np.int32) for _ in range(40)):
        assert batch.nbytes == batch_bytes
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # Three in progress, one finished and one that the caller holds.
    assert batch_bytes < peak < 8 * batch_bytes


def test_every_file_is_checked_before_the_first_batch(paths, tmp_path):
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(pathlib.Path(paths[1]).read_bytes()[:-60])
    with pytest.raises(ValueError, match=r"2 of 14 files cannot be read.*bad\.jpg.*missing\.jpg"):
        open_streamed([*paths, bad, tmp_path / "missing.jpg"])


def test_progress_is_told(paths):
    lines = []
    streamed.StreamedImages(paths, SIZE, lines.append)
    assert lines == ["read 12 of 12 images"]


@pytest.mark.parametrize("change", ["vanish", "cut"])
def test_a_file_that_fails_later_is_named(paths, change):
    opened = open_streamed(paths)
    if change == "vanish":
        os.remove(paths[7])
    else:
        path = pathlib.Path(paths[7])
        path.write_bytes(path.read_bytes()[:-60])
    batches = opened.batches(np.arange(i, i + 3, dtype=np.int32) for i in (0, 3, 6, 9))
    assert [len(next(batches)) for _ in range(2)] == [3, 3]
    with pytest.raises(ValueError, match=r"7\.jpg' was a good image .* cannot be read"):
        next(batches)
    assert threads() == []
