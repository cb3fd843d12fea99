import itertools

import numpy as np
import pytest
import tensorflow_datasets as tfds

from reid_jax.data import builders

FOLDERS = ("bounding_box_train", "query", "bounding_box_test")
MARKET = (
    ["0002_c1s1_000451_03.jpg", "0007_c3s3_000001_01.jpg"],
    ["0001_c1s1_001051_00.jpg"],
    ["0001_c2s1_000001_00.jpg", "-1_c1s1_000401_03.jpg", "0000_c4s2_000001_02.jpg"],
)
DUKE = (
    ["0001_c2_f0046182.jpg", "0004_c8_f0000001.jpg"],
    ["0005_c2_f0046985.jpg"],
    ["0005_c5_f0051781.jpg"],
)
DETECTED = (["0001_c1_1.png", "0003_c2_10.png"], ["0002_c1_4.png"], ["0002_c2_7.png"])
LABELED = (["0001_c1_1.png", "0004_c2_10.png"], ["0002_c1_4.png"], ["0002_c2_7.png"])


@pytest.fixture
def load(tmp_path, draw):
    """A function that writes pictures below the manual folder and calls `tfds.load`."""
    tfds.disable_progress_bar()
    pictures = {}

    def load(name, folder, names):
        for split, files in zip(FOLDERS, names, strict=True):
            path = tmp_path / "manual" / folder / split
            path.mkdir(parents=True)
            for file in files:
                image = draw(16, 8)
                (path / file).parent.mkdir(exist_ok=True)
                image.save(path / file, quality=95, subsampling=0, lossless=True)
                pictures[file] = np.asarray(image, np.float64)
        config = tfds.download.DownloadConfig(manual_dir=str(tmp_path / "manual"))
        loaded = tfds.load(
            name,
            data_dir=str(tmp_path / "data"),
            download_and_prepare_kwargs={"download_config": config},
        )
        examples = {}
        for split, dataset in loaded.items():
            for example in dataset.as_numpy_iterator():
                file = example["filename"].decode()
                assert example["image"].dtype == np.uint8
                assert abs(example["image"] - pictures[file]).mean() < 8
                examples[split, file] = (example["pid"], example["camid"])
        return examples

    return load


def test_market1501(load):
    assert load("market1501", "Market-1501-v15.09.15", MARKET) == {
        ("train", "0002_c1s1_000451_03.jpg"): (2, 1),
        ("train", "0007_c3s3_000001_01.jpg"): (7, 3),
        ("query", "0001_c1s1_001051_00.jpg"): (1, 1),
        ("gallery", "0001_c2s1_000001_00.jpg"): (1, 2),
        ("gallery", "0000_c4s2_000001_02.jpg"): (0, 4),
    }


def test_files_of_all_formats_and_in_folders_below(load):
    names = (
        ["a/0002_c1s1_000451_03.webp", "b/0002_c1s1_000451_03.tif", "0007_c3s3_000001_01.bmp"],
        ["0001_c1s1_001051_00.PNG"],
        ["0001_c2s1_000001_00.JFIF"],
    )
    examples = load("market1501", "Market-1501-v15.09.15", names)
    assert sorted(file for _, file in examples) == sorted(itertools.chain(*names))


def test_dukemtmc_reid(load):
    assert load("dukemtmc_reid", "DukeMTMC-reID", DUKE) == {
        ("train", "0001_c2_f0046182.jpg"): (1, 2),
        ("train", "0004_c8_f0000001.jpg"): (4, 8),
        ("query", "0005_c2_f0046985.jpg"): (5, 2),
        ("gallery", "0005_c5_f0051781.jpg"): (5, 5),
    }


@pytest.mark.parametrize(
    ("config", "names", "pid"), [("detected", DETECTED, 3), ("labeled", LABELED, 4)]
)
def test_cuhk03_np(load, config, names, pid):
    examples = load(f"cuhk03_np/{config}", f"cuhk03-np/{config}", names)
    assert len(examples) == 4
    assert examples["train", names[0][1]] == (pid, 2)
    assert examples["query", "0002_c1_4.png"] == (2, 1)


def test_without_the_folder_tfds_says_how_to_get_it(tmp_path):
    builder = tfds.builder("market1501", data_dir=str(tmp_path / "data"))
    config = tfds.download.DownloadConfig(manual_dir=str(tmp_path / "manual"))
    with pytest.raises(AssertionError, match=r"Market-1501-v15\.09\.15"):
        builder.download_and_prepare(download_config=config)
    (tmp_path / "manual" / "others").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"Market-1501-v15\.09\.15"):
        builder.download_and_prepare(download_config=config)


def test_dukemtmc_reid_is_not_linked():
    builder = builders.DukeMTMCReID
    assert "withdrawn" in builder.MANUAL_DOWNLOAD_INSTRUCTIONS
    assert "http" not in builder.MANUAL_DOWNLOAD_INSTRUCTIONS + builder.CITATION
