import logging

import pytest

from reid_jax.data import image_files


def test_images_are_found_below_and_the_option_is_named(tmp_path):
    for name in ("b.jpg", "a/c.PNG", "a/.d.jpg", "a/e.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "a" / "round").symlink_to(tmp_path)
    found = image_files.find_images(tmp_path, "--here")
    assert found == [str(tmp_path / "a" / "c.PNG"), str(tmp_path / "b.jpg")]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"no image .*empty.* \(--here\)"):
        image_files.find_images(tmp_path / "empty", "--here")
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere.* \(--here\)"):
        image_files.find_images(tmp_path / "nowhere", "--here")


def test_a_path_is_found_in_a_folder_before_it_exists(tmp_path, monkeypatch):
    folder = tmp_path / "real" / "own"
    folder.mkdir(parents=True)
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.chdir(folder)
    for path in (folder / "a.PNG", tmp_path / "link" / "below" / "a.jpg", "a.png"):
        assert image_files.is_found(path, folder)
        assert image_files.is_found(path, tmp_path / "link")
        assert not image_files.is_found(path, folder / "other")
    for name in ("a.txt", ".a.png", ".hidden/a.png", "../a.png", "../owner/a.png", "../../a.png"):
        assert not image_files.is_found(folder / name, ".")


def test_what_is_no_image_is_counted_once(tmp_path, caplog):
    for name in ("a.JFIF", "b.txt", "below/c.mp4", "below/d.csv", "e", ".f.txt", "Thumbs.db"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / ".thumbnails").mkdir()
    (tmp_path / ".thumbnails" / "a.jpg").touch()
    with caplog.at_level(logging.WARNING, logger="absl"):
        assert image_files.find_images(tmp_path, "") == [str(tmp_path / "a.JFIF")]
    (line,) = caplog.messages
    assert line.startswith(f"not used: 4 files in '{tmp_path}' without the suffix of an image: ")
    assert f"'{tmp_path}/b.txt', '{tmp_path}/below/c.mp4', '{tmp_path}/below/d.csv', ...;" in line
