import math
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tests.data.opened import SIZE, load


def test_without_tensorflow(tmp_path, draw):
    draw(40, 20).save(tmp_path / "a.jpg")
    expected = load([tmp_path / "a.jpg"], "memory")
    program = f"""
import sys
sys.modules["tensorflow"] = sys.modules["tensorflow_datasets"] = None
import numpy as np
from reid_jax.data import loaders, pipeline, sampler
paths = [{str(tmp_path / "a.jpg")!r}] * 4
opened = loaders.open_images(paths, {SIZE}, "memory")
labels = np.array([0, 0, 1, 1], np.int32)
sample = sampler.IdentitySampler(labels, 2, 2, seed=0)
(batch,) = pipeline.train_batches(opened, labels, sample, 3, 4)
(_, _) = pipeline.eval_batches(opened, 4, [2, 2])
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
    assert b"data.loader='tfdata' needs TensorFlow" in message
    assert b"--config.data.loader=memory" in message
    assert b".[tfdata]" in message
    np.testing.assert_array_equal(np.frombuffer(pixels, np.uint8), expected.ravel())


def test_a_tensorflow_that_fails_is_named(tmp_path):
    # As with another version of protobuf.
    (tmp_path / "tensorflow.py").write_text("raise TypeError('Descriptors cannot be created')")
    program = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
from reid_jax.data import loaders
try:
    loaders.open_images([], {SIZE}, "tfdata")
except ImportError as error:
    print(error)
"""
    message = subprocess.check_output([sys.executable, "-c", program], text=True)
    assert "use --config.data.loader=memory, or install" in message
    assert message.endswith("(TypeError: Descriptors cannot be created)\n")


# A separate process, in which memory freed by earlier tests is not reused unseen.
GROWTH = """
import os, sys
import numpy as np
from reid_jax.data.encoded import EncodedImages

def resident_bytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

def feed(copies):
    opened = EncodedImages([sys.argv[1]] * copies, (32, 16))
    for _ in opened.batches([np.arange(4)] * 8):
        pass
    return opened

warm = feed(4)
before = resident_bytes()
opened = feed(int(sys.argv[2]))
print(resident_bytes() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="memory is read from /proc")
def test_encoded_bytes_are_held_once(tmp_path, rng):
    path = str(tmp_path / "a.jpg")
    # Noise hardly compresses: the file has about a megabyte, and is cheap to decode.
    Image.fromarray(rng.integers(0, 256, (560, 800, 3), np.uint8)).save(path, quality=95)
    copies = math.ceil(160e6 / os.path.getsize(path))
    command = [sys.executable, "-c", GROWTH, path, str(copies)]
    grown = int(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    held = copies * os.path.getsize(path)
    assert 0.9 * held < grown < 1.5 * held


# The file is as if written by an earlier run, and so large that a copy of it would be seen.
PEAK = """
import os, resource, sys
import numpy as np
from reid_jax.data import pixel_file
from reid_jax.data.tfdata import TfdataImages

paths, size = [sys.argv[1]] * 2**12, (512, 512)
with open(pixel_file._folder() / f"{pixel_file._digest(paths, size)}.uint8", "wb") as file:
    file.truncate(len(paths) * 512 * 512 * 3)
opened = TfdataImages(paths, size)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
(batch,) = opened.batches([np.array([2**12 - 1], np.int32)])
assert batch.shape == (1, *size, 3) and not batch.any()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the unit of ru_maxrss")
def test_pixels_on_disk_are_not_copied_into_memory(tmp_path, user_cache):
    path = tmp_path / "a.png"
    path.touch()
    command = [sys.executable, "-c", PEAK, str(path)]
    grown = int(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    assert grown * 1024 < 0.2 * 2**12 * 512 * 512 * 3
