import errno
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from reid_jax import gallery_file
from reid_jax.gallery import Gallery
from reid_jax.gallery_milvus import MilvusGallery


def same(one, other):
    for name in ("features", "pids", "camids"):
        got, expected = getattr(one, name), getattr(other, name)
        assert got.dtype == expected.dtype
        np.testing.assert_array_equal(got, expected)
    assert (one.names, one.origin) == (other.names, other.origin)


@settings(deadline=None, max_examples=40)
@given(
    names=st.lists(st.text(st.characters()), max_size=6),
    origin=st.text(st.characters()),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_names_survive(tmp_path_factory, names, origin, seed):
    rng = np.random.default_rng(seed)
    gallery = Gallery(origin)
    numbers = rng.integers(-(2**40), 2**40, (2, len(names)))
    gallery.add(
        rng.standard_normal((len(names), 3)), pids=numbers[0], camids=numbers[1], names=names
    )
    path = tmp_path_factory.getbasetemp() / "names.gallery"
    gallery.save(path)
    loaded = Gallery.load(path)
    if names:
        same(loaded, gallery)
    assert (loaded.names, loaded.origin) == (tuple(names), origin)


def test_bytes_that_are_no_text_and_a_loaded_gallery_grows(rng, tmp_path):
    gallery = Gallery()
    odd = [b"\xff\xfe name.jpg", b"\xed\xb2\x80", "人 \n.jpg".encode()]
    gallery.add(rng.standard_normal((3, 8)), names=[os.fsdecode(name) for name in odd])
    folder = tmp_path / "new" / os.fsdecode(b"na\nme ") / "of it"
    path = folder / "a gallery.file"
    gallery.save(path)
    assert [p.name for p in folder.iterdir()] == ["a gallery.file"]
    loaded = Gallery.load(str(path))
    assert [os.fsencode(name) for name in loaded.names] == odd
    assert loaded.search(gallery.features[1], 1).names == ((loaded.names[1],),)
    loaded.add(gallery.features[:2], names=["more", "yet"])
    assert loaded.search(gallery.features[1], 2).indices.tolist() == [[1, 4]]
    loaded.save(path)  # It overwrites the file that it was read from.
    same(Gallery.load(path), loaded)
    assert len(gallery) == 3


@pytest.fixture(scope="module")
def saved_file(tmp_path_factory):
    gallery = Gallery("pmm")
    rng = np.random.default_rng(1)
    names = ["x", "yy", "zzz"]
    gallery.add(rng.standard_normal((3, 4)), pids=[1, 2, 3], camids=[1, 1, 2], names=names)
    path = tmp_path_factory.mktemp("saved") / "good.gallery"
    gallery.save(path)
    return gallery, path


def test_every_cut_and_every_changed_byte_is_told_or_harmless(saved_file, tmp_path):
    gallery, good = saved_file
    data, path = good.read_bytes(), tmp_path / "bad.gallery"
    for length in range(0, len(data), 7):
        path.write_bytes(data[:length])
        with pytest.raises(ValueError, match=r"bad\.gallery' is not a file of Gallery\.save"):
            Gallery.load(path)
    told = 0
    for place in range(len(data)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        try:
            same(Gallery.load(path), gallery)
        except ValueError as error:
            assert str(path) in str(error)  # noqa: PT017
            told += 1
    assert told > 0.9 * len(data)


def tampered(good, path, change):
    tensors = load_file(good)
    metadata = {"format": "reid_jax gallery 1", "origin": '"pmm"'}
    change(tensors, metadata)
    known = [name for name in gallery_file._TENSORS if name in tensors]
    if len(known) == len(gallery_file._TENSORS):
        metadata.setdefault("crc32", str(gallery_file._checksum(tensors, metadata["origin"])))
    save_file(tensors, path, metadata)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, m: m.update(format="pt"), "its format is 'pt'"),
        (lambda t, m: t.pop("ends"), "ends"),
        (lambda t, m: t.update(features=t["features"].astype("f8")), "features are float64"),
        (lambda t, m: t.update(pids=t["pids"][None]), r"pids are int64 \(1, 3\)"),
        (lambda t, m: t.update(pids=t["pids"][:2]), "different lengths"),
        (lambda t, m: t.update(ends=t["ends"] + 1), "the ends of its names are wrong"),
        (lambda t, m: t.update(ends=t["ends"][[1, 0, 2]]), "the ends of its names are wrong"),
        (lambda t, m: t.update(names=t["names"] | 128), "invalid"),
        (lambda t, m: m.update(origin="{}"), "different lengths"),
        (lambda t, m: m.update(origin="[" * 100_000), "recursion|Expecting"),
        (lambda t, m: m.update(origin='"other"', crc32="0"), "checksum"),
        (lambda t, m: t.update(features=t["features"] * np.nan), "descriptor 0 holds NaN"),
    ],
)
def test_files_of_others_are_one_clear_error(saved_file, tmp_path, change, message):
    path = tmp_path / "others.gallery"
    tampered(saved_file[1], path, lambda t, m: None)
    same(Gallery.load(path), saved_file[0])
    tampered(saved_file[1], path, change)
    with pytest.raises(ValueError, match=rf"others\.gallery' is .*({message})"):
        Gallery.load(path)


def test_no_such_file_a_folder_and_a_pipe(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        Gallery.load(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe")
    for name in ("", "pipe"):
        with pytest.raises(ValueError, match="is a folder, a pipe or a device"):
            Gallery.load(tmp_path / name)
    with pytest.raises(IsADirectoryError, match="pass the path of a file"):
        Gallery().save(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        Gallery().save(tmp_path / "file" / "below")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "pipe"]


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_a_file_has_the_mode_of_other_files(saved_file, tmp_path, mask):
    before = os.umask(mask)
    try:
        saved_file[0].save(tmp_path / "a.gallery")
    finally:
        os.umask(before)
    assert (tmp_path / "a.gallery").stat().st_mode & 0o777 == 0o666 & ~mask


def test_a_file_that_may_not_be_read_is_not_missing(saved_file, monkeypatch):
    def refuse(path, mode):
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr(gallery_file, "open", refuse, raising=False)  # Root may read all files.
    with pytest.raises(PermissionError, match=r"good\.gallery"):
        Gallery.load(saved_file[1])


@pytest.mark.parametrize("origin", [7, None, True, ["pmm"], b"pmm"])
def test_an_origin_is_a_text(origin, tmp_path):
    with pytest.raises(ValueError, match="origin must be a text, got"):
        Gallery(origin)
    with pytest.raises(ValueError, match="origin must be a text, got"):
        MilvusGallery(tmp_path / "a.db", origin=origin)
    gallery = Gallery()
    gallery.origin = origin
    with pytest.raises(ValueError, match="origin must be a text, got"):
        gallery.save(tmp_path / "a.gallery")
    assert list(tmp_path.iterdir()) == []


def test_a_save_that_fails_leaves_the_old_file(saved_file, tmp_path, monkeypatch):
    gallery, good = saved_file
    path = tmp_path / "kept.gallery"
    path.write_bytes(good.read_bytes())

    def half(tensors, part, metadata):
        part.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(gallery_file, "save_file", half)
    with pytest.raises(OSError, match="No space left"):
        gallery.save(path)
    same(Gallery.load(path), gallery)
    assert [p.name for p in tmp_path.iterdir()] == ["kept.gallery"]
