import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from reid_jax import visualize
from tests.visualize.drawing import random_images, training_records

pytestmark = pytest.mark.filterwarnings("error")


def test_save_writes_png_into_a_new_folder_and_replaces(rng, tmp_path):
    path = tmp_path / "new" / "folder" / "curves.png"
    for count in (1, 2):
        figure = visualize.gradcam_figure(random_images(rng, count), rng.random((count, 3, 6, 2)))
        visualize.save(figure, path)
        with Image.open(path) as image:
            assert image.format == "PNG"
            expected = figure.get_size_inches() * figure.dpi
            np.testing.assert_allclose(image.size, expected, atol=1)
        assert list(path.parent.iterdir()) == [path]
    before = path.read_bytes()
    visualize.save(figure, path)
    assert path.read_bytes() == before


def test_save_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "curves.png"
    path.write_bytes(b"old")
    figure = visualize.curves_figure(training_records())

    def savefig(part, **kwargs):
        with open(part, "wb") as file:
            file.write(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(figure, "savefig", savefig)
    with pytest.raises(OSError, match="no space left"):
        visualize.save(figure, path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_pyplot_is_never_imported(tmp_path):
    program = (
        "import sys; from reid_jax import visualize;"
        "visualize.save(visualize.curves_figure([{'step': 1, 'loss': 2.0}]), sys.argv[1]);"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "a.png")], check=True)
