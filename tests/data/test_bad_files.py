"""Files of every kind and in every state: all loaders agree on good ones and name bad ones."""

import io
import json
import os
import struct
import subprocess
import sys
import threading
import time
import unicodedata
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, ImageOps, features

from reid_jax.data import decoding, disk, encoded, memory, streamed
from reid_jax.runtime.messages import shown

SIZE = (12, 8)
KINDS = {
    "memory": memory.MemoryImages,
    "disk": disk.DiskImages,
    "encoded": encoded.EncodedImages,
    "streamed": streamed.StreamedImages,
}


def read(kind, paths):
    """The images of a loader: (N, H, W, 3)."""
    opened = KINDS[kind]([str(path) for path in paths], SIZE)
    (batch,) = opened.batches([np.arange(len(paths), dtype=np.int32)])
    return np.array(batch)


def problems(*paths):
    """The problems that `visit` finds, by the index of the path."""
    found = decoding.visit([str(path) for path in paths], lambda *_: None)
    assert all(text.isprintable() for _, text in found)
    return dict(found)


def test_an_error_without_a_message_is_a_problem(tmp_path, draw):
    def use(i, data, image):
        raise ValueError

    draw(*SIZE).save(tmp_path / "a.png")
    assert decoding.visit([str(tmp_path / "a.png")], use) == [(0, "ValueError: ")]


def encode(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width, height, depth, colour, rows, *chunks, interlace=0):
    """A PNG file with these raw rows and any values in its header."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)
    body = (*chunks, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(body)


def interlaced(image):
    """The RGB image as an Adam7 PNG, which Pillow reads but does not write."""
    pixels = np.asarray(image)
    passes = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2),
              (1, 0, 2, 1))  # fmt: skip
    rows = b""
    for top, left, down, across in passes:
        part = pixels[top::down, left::across]
        if part.size:
            rows += b"".join(b"\0" + row.tobytes() for row in part)
    return png(image.width, image.height, 8, 2, rows, interlace=1)


def odd_files(rng, image):
    """Bytes of good files on which decoders might disagree, and the names of exact copies."""
    width, height = image.size

    def rows(length):
        noise = rng.integers(0, 256, (height, length), np.uint8)
        return b"".join(b"\0" + row.tobytes() for row in noise)

    jpeg, plain = encode(image, "JPEG"), encode(image, "PNG")
    grey = Image.fromarray(rng.integers(0, 2**16, (height, width), np.uint16))
    palette = chunk(b"PLTE", rng.integers(0, 256, 3 * 5, np.uint8).tobytes())
    files = {
        "trailing garbage.jpg": jpeg + b"garbage" * 9,
        "progressive.jpg": encode(image, "JPEG", progressive=True),
        "restarts.jpg": encode(image, "JPEG", restart_marker_blocks=1),
        "cmyk.jpg": encode(image.convert("CMYK"), "JPEG"),
        "mpo.jpg": encode(image, "MPO", save_all=True, append_images=[image]),
        "gif.jpg": encode(image, "GIF"),
        "bmp.jpg": encode(image, "BMP"),
        "tiff.jpg": encode(image, "TIFF"),
        "deflated.tif": encode(image, "TIFF", compression="tiff_adobe_deflate"),
        "two pages.tif": encode(image, "TIFF", save_all=True, append_images=[image.rotate(180)]),
        "16 bit grey.tif": encode(grey, "TIFF"),
        "cmyk.tif": encode(image.convert("CMYK"), "TIFF"),
        "palette without colours.png": png(width, height, 8, 3, rows(width)),
        "palette with few.png": png(width, height, 8, 3, rows(width), palette),
        "palette of 4 bits.png": png(width, height, 4, 3, rows(-(-width // 2)), palette),
        "16 bit colours.png": png(width, height, 16, 2, rows(6 * width)),
        "16 bit alpha.png": png(width, height, 16, 6, rows(8 * width)),
        "16 bit grey and alpha.png": png(width, height, 16, 4, rows(4 * width)),
        "2 bit grey, one transparent.png": png(
            width, height, 2, 0, rows(-(-width // 4)), chunk(b"tRNS", b"\0\1")
        ),
        "16 bit grey, one transparent.png": png(
            width, height, 16, 0, rows(2 * width), chunk(b"tRNS", b"\1\2")
        ),
        "gamma.png": plain[:33] + chunk(b"gAMA", struct.pack(">I", 220000)) + plain[33:],
        "no end.png": plain[:-12],
        "trailing garbage.png": plain + b"garbage",
        "interlaced.png": interlaced(image),
        "animated.png": encode(image, "PNG", save_all=True, append_images=[image.rotate(180)]),
        "profile.png": encode(image, "PNG", icc_profile=b"no profile"),
    }
    if features.check("webp"):
        files["webp.jpg"] = encode(image, "WEBP", lossless=True)
    exact = {
        "bmp.jpg", "webp.jpg", "tiff.jpg", "deflated.tif", "two pages.tif", "gamma.png",
        "no end.png", "trailing garbage.png",
        "interlaced.png", "animated.png", "profile.png",
    }  # fmt: skip
    return files, exact


def test_odd_files_are_the_same_to_all_loaders(tmp_path, rng, draw):
    image = draw(*SIZE)
    files, exact = odd_files(rng, image)
    paths = [tmp_path / name for name in files]
    for path, data in zip(paths, files.values(), strict=True):
        path.write_bytes(data)
    delivered = {kind: read(kind, paths) for kind in KINDS}
    for i, path in enumerate(paths):
        for kind in KINDS:
            np.testing.assert_array_equal(
                delivered[kind][i], delivered["memory"][i], err_msg=f"{kind} {path.name}"
            )
        if path.name in exact:
            np.testing.assert_array_equal(delivered["memory"][i], image, err_msg=path.name)


def test_what_tensorflow_would_not_decode_alike_is_held_as_pillow_decodes_it(
    tmp_path, draw, monkeypatch
):
    """For any reason: the kind of a file does not show how TensorFlow decodes it."""
    paths = [str(tmp_path / f"{i}.jpg") for i in range(3)]
    for path in paths:
        draw(*SIZE).save(path)
    expected = read("memory", paths)

    def off_by_one(data):
        return encoded._decode_jpeg(data) + int(data == (tmp_path / "1.jpg").read_bytes())

    monkeypatch.setitem(encoded._DECODERS, b"\xff\xd8\xff", off_by_one)
    opened = encoded.EncodedImages(paths, SIZE)
    monkeypatch.undo()
    assert [data[:4] == b"\x89PNG" for data in opened._encoded] == [False, True, False]
    (batch,) = opened.batches([np.arange(3)])
    np.testing.assert_array_equal(batch, expected)


@pytest.mark.parametrize("orientation", range(10))
def test_orientation_is_what_pillow_makes_of_it(draw, orientation):
    image = draw(8, 5)
    image.getexif()[0x0112] = orientation
    np.testing.assert_array_equal(decoding.to_rgb(image), ImageOps.exif_transpose(image))


def with_exif(data, exif):
    """Insert a segment of EXIF data into the JPEG."""
    segment = b"Exif\0\0" + exif
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + data[2:]


# One tag, the orientation "mirrored", of a wrong type and with a wrong number of values.
_TAG = st.builds(
    lambda order, kind, count, value: b"".join(
        (b"II*\0" if order == "<" else b"MM\0*", struct.pack(order + "I", 8),
         struct.pack(order + "HHHI", 1, 0x0112, kind, count), value)
    ),
    st.sampled_from("<>"), st.integers(0, 13), st.integers(0, 2**32 - 1), st.binary(max_size=12),
)  # fmt: skip


@settings(derandomize=True, database=None, max_examples=150, deadline=None)
@given(st.one_of(st.binary(max_size=60), _TAG))
def test_damaged_metadata_harm_no_image(exif):
    image = Image.linear_gradient("L").resize((8, 12)).convert("RGB")
    plain = encode(image, "PNG")
    files = (
        with_exif(encode(image, "JPEG"), exif),
        plain[:33] + chunk(b"eXIf", exif) + plain[33:],
    )
    for data in files:
        with warnings.catch_warnings():
            decoding._hush()
            rgb = decoding.to_rgb(decoding._header(data))
        assert rgb.mode == "RGB"
        assert sorted(rgb.size) == [8, 12]


def test_pillows_warnings_are_kept_from_the_user(tmp_path, draw):
    paths = [tmp_path / name for name in ("exif.jpg", "bomb.png", "text.jpg")]
    paths[0].write_bytes(with_exif(encode(draw(*SIZE), "JPEG"), b"II*\0\x08\0\0\0\x09\0"))
    paths[1].write_bytes(png(10_000, 10_000, 8, 2, b""))  # more pixels than Pillow opens silently
    paths[2].write_text("no image")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Image.open(paths[1]).close()
        assert len(caught) == 1
        assert list(problems(*paths)) == [1, 2]
        opened = streamed.StreamedImages([str(paths[0])], SIZE)
        assert len(list(opened.batches([np.zeros(2, np.int32)]))) == 1
    assert len(caught) == 1


def with_size(jpeg, height, width):
    """A JPEG with another size in its header."""
    at = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:at] + struct.pack(">HH", height, width) + jpeg[at + 4 :]


def test_enormous_images_are_bad_before_anything_is_decoded(tmp_path, draw, monkeypatch):
    jpeg, bmp, gif = (encode(draw(*SIZE), kind) for kind in ("JPEG", "BMP", "GIF"))
    files = {
        "is 8193x1 pixels": png(8193, 1, 8, 0, bytes(8194)),
        "is 1x8193 pixels": png(1, 8193, 8, 0, bytes(2 * 8193)),
        "is 9000x9000 pixels": with_size(jpeg, 9000, 9000),
        "has too many pixels": with_size(jpeg, 65000, 65000),
        "has too many pixels ": png(2**31 - 1, 2**31 - 1, 8, 2, b""),
        "has too many pixels  ": bmp[:18] + struct.pack("<ii", 2**30, 2**30) + bmp[26:],
        "has too many pixels   ": gif[:6] + struct.pack("<HH", 65535, 65535) + gif[10:],
    }
    paths = []
    for i, data in enumerate(files.values()):
        paths.append(tmp_path / f"{i}.jpg")
        paths[-1].write_bytes(data)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded"))
    found = problems(*paths)
    for i, text in enumerate(files):
        assert found[i].startswith(text.strip()), (text, found[i])
        assert found[i].endswith("the limit is 8,192 a side")


def test_images_at_the_limit_are_good(tmp_path):
    (tmp_path / "wide.png").write_bytes(png(8192, 1, 8, 0, bytes(8193)))
    (tmp_path / "high.png").write_bytes(png(1, 8192, 8, 0, bytes(2 * 8192)))
    for kind in KINDS:
        assert not read(kind, [tmp_path / "wide.png", tmp_path / "high.png"]).any()


def test_an_enormous_file_is_bad_before_anything_is_read(tmp_path, monkeypatch):
    with open(tmp_path / "a.jpg", "wb") as file:
        file.truncate(2**28 + 1)  # a sparse file, which takes no space
    monkeypatch.setattr(decoding, "open", lambda *_: pytest.fail("opened"), raising=False)
    assert problems(tmp_path / "a.jpg") == {0: "has 268,435,457 bytes; the limit is 268,435,456"}


def test_large_images_are_decoded_one_at_a_time(tmp_path, draw, monkeypatch):
    paths = [str(tmp_path / f"{i}.png") for i in range(6)]
    for path in paths:
        draw(*SIZE).save(path)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    inside, most = 0, 0
    lock = threading.Lock()

    def use(i, data, image):
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        time.sleep(0.02)
        with lock:
            inside -= 1

    for limit in ("LARGE_PIXELS", "_LARGE_BYTES"):
        most = 0
        with monkeypatch.context() as patch:
            patch.setattr(decoding, limit, 50)
            assert decoding.visit(paths, use) == []
        assert most == 1
    assert decoding.visit(paths, use) == []
    assert most > 1


def test_large_images_are_held_resized(tmp_path, draw, monkeypatch):
    paths = [tmp_path / name for name in ("large.jpg", "small.jpg", "large.png")]
    for path in paths:
        draw(*((30, 20) if "large" in path.name else (9, 9))).save(path)
    expected = read("memory", paths)
    monkeypatch.setattr(decoding, "LARGE_PIXELS", 100)
    opened = encoded.EncodedImages([str(path) for path in paths], SIZE)
    (batch,) = opened.batches([np.arange(3)])
    np.testing.assert_array_equal(batch, expected)
    held = [Image.open(io.BytesIO(data)).size[::-1] for data in opened._encoded]
    assert held == [SIZE, (9, 9), SIZE]


NAMES = [
    "with spaces  and more .jpg",
    unicodedata.normalize("NFC", "Zoë Łódź 人.jpg"),
    unicodedata.normalize("NFD", "Zoë 2.jpg"),
    "$x^2$ {0} %s \\n \\u0041.jpg",
    "line\nbreak.jpg",
    "\x1b[31mred\r\u202e.jpg",
    "'quoted\".jpg",
    os.fsdecode(b"no text \xff\xfe.jpg"),
]


@pytest.mark.parametrize("kind", KINDS)
def test_names_of_any_letters(kind, tmp_path, capsys):
    paths, colours = [], []
    for i, name in enumerate(NAMES):
        try:
            Image.new("RGB", (9, 9), (20 * i, 0, 0)).save(tmp_path / name, "PNG")
        except OSError:  # Only Linux allows such names.
            continue
        paths.append(os.path.join(tmp_path, name))
        colours.append(20 * i)
    assert len(paths) >= 7 or sys.platform != "linux"
    np.testing.assert_array_equal(read(kind, paths)[:, 3, 3, 0], colours)
    for path in paths:
        with open(path, "wb"):
            pass
        with pytest.raises(ValueError, match="1 of 1 file cannot") as caught:
            KINDS[kind]([path], SIZE)
        message = str(caught.value)
        assert f"{shown(path)} (is empty)" in message
        assert message.isprintable()
        print(message)  # A stream accepts it, and it is one line.
    assert len(capsys.readouterr().out.splitlines()) == len(paths)


def test_links_are_followed_to_files_and_to_nothing_else(tmp_path, draw):
    draw(*SIZE).save(tmp_path / "good.png")
    (tmp_path / "folder.jpg").mkdir()
    targets = {
        "link.jpg": "good.png",
        "link to link.jpg": "link.jpg",
        "dangling.jpg": "nowhere.jpg",
        "to folder.jpg": "folder.jpg",
        "circle.jpg": "circle.jpg",
        "device.jpg": os.devnull,
    }
    for name, target in targets.items():
        (tmp_path / name).symlink_to(target)
    names = ["good.png", "link.jpg", "link to link.jpg"]
    bad = ["folder.jpg", "dangling.jpg", "to folder.jpg", "circle.jpg", "device.jpg"]
    found = problems(*(tmp_path / name for name in names + bad))
    assert list(found) == [3, 4, 5, 6, 7]
    assert "folder" in found[3]
    assert found[4] == "No such file or directory"
    assert "folder" in found[5]
    assert "links" in found[6]
    assert "device" in found[7]
    for kind in KINDS:
        first, *others = read(kind, [tmp_path / name for name in names])
        for other in others:
            np.testing.assert_array_equal(first, other)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_a_pipe_does_not_hang_the_check(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    # A program that opens it nonetheless finds it open for writing, and empty after a moment.
    end = os.open(tmp_path / "pipe.jpg", os.O_RDWR)
    timer = threading.Timer(0.5, os.close, [end])
    timer.start()
    try:
        assert "pipe" in problems(tmp_path / "pipe.jpg")[0]
    finally:
        timer.join()


def test_an_unreadable_file_is_named(tmp_path, draw, monkeypatch):
    paths = [tmp_path / "good.png", tmp_path / "secret.png"]
    for path in paths:
        draw(*SIZE).save(path)
    paths[1].chmod(0)
    if os.access(paths[1], os.R_OK):  # Permissions do not stop root.

        def refuse(path, mode):
            if str(path) == str(paths[1]):
                raise PermissionError(13, "Permission denied", path)
            return open(path, mode)

        monkeypatch.setattr(decoding, "open", refuse, raising=False)
    assert problems(*paths) == {1: "Permission denied"}


# Files that Pillow would pass to its other decoders, even to a program.
OTHERS = {
    "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n",
    "ppm": b"P6 1 1 255 \0\0\0",
    "icon": b"\0\0\1\0" + bytes(60),
    "text": b"no image",
}


@pytest.mark.parametrize("name", [*OTHERS, "empty"])
def test_other_formats_are_bad(name, tmp_path):
    (tmp_path / "a.jpg").write_bytes(({"empty": b""} | OTHERS)[name])
    expected = "is empty" if name == "empty" else "is no JPEG, PNG, GIF, BMP, WebP or TIFF"
    assert problems(tmp_path / "a.jpg") == {0: expected}


def test_text_that_inflates_in_a_png_is_bad(tmp_path, draw):
    data = encode(draw(*SIZE), "PNG")
    bomb = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**26), 9))
    (tmp_path / "a.png").write_bytes(data[:33] + bomb + data[33:])
    assert "large" in problems(tmp_path / "a.png")[0]


def base_files():
    image = Image.linear_gradient("L").resize((11, 17)).convert("RGB")
    image.paste((200, 30, 90), (3, 4, 8, 12))
    exif = Image.Exif()
    exif[0x0112] = 6
    return [
        encode(image, "JPEG"),
        encode(image, "JPEG", progressive=True, subsampling=0),
        encode(image, "JPEG", restart_marker_blocks=1, exif=exif),
        encode(image.convert("CMYK"), "JPEG"),
        encode(image, "PNG"),
        encode(image.convert("P"), "PNG", transparency=bytes(range(256))),
        interlaced(image),
        encode(image, "GIF"),
        encode(image, "BMP"),
    ]


BASE = base_files()


def corrupted(data, cut, changes):
    """The bytes, truncated to a share of their length, with some changed."""
    data = bytearray(data[: round(cut * len(data))])
    for at, value in changes:
        if data:
            data[int(at * len(data))] = value
    return bytes(data)


_SHARE = st.floats(0, 1, exclude_max=True)
CORRUPTED = st.builds(
    corrupted,
    st.sampled_from(BASE),
    st.one_of(st.just(1.0), _SHARE),
    st.lists(st.tuples(_SHARE, st.integers(0, 255)), max_size=3),
)


@settings(
    derandomize=True, database=None, max_examples=40, deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(st.lists(CORRUPTED, min_size=4, max_size=12))
def test_a_damaged_file_is_bad_or_the_same_to_all(tmp_path, files):
    paths = [str(tmp_path / f"{i}.jpg") for i in range(len(files))]
    for path, data in zip(paths, files, strict=True):
        with open(path, "wb") as file:
            file.write(data)
    found = problems(*paths)
    good = [path for i, path in enumerate(paths) if i not in found]
    if found:
        for opened in KINDS.values():
            with pytest.raises(ValueError, match=f"^{len(found)} of {len(paths)} files") as caught:
                opened(paths, SIZE)
            assert shown(paths[min(found)]) in str(caught.value)
    if good:
        delivered = {kind: read(kind, good) for kind in KINDS}
        for kind in KINDS:
            np.testing.assert_array_equal(delivered["memory"], delivered[kind], err_msg=kind)


@pytest.mark.parametrize("file", range(len(BASE)))
def test_every_cut_is_bad_or_loses_no_pixel(file, tmp_path):
    data = BASE[file]
    paths = [tmp_path / f"{cut}" for cut in range(len(data) + 1)]
    for cut, path in enumerate(paths):
        path.write_bytes(data[:cut])
    pixels = {}
    found = decoding.visit(
        [str(path) for path in paths],
        lambda i, data, image: pixels.__setitem__(i, np.asarray(image)),
    )
    assert len(found) > 0.8 * len(data)
    assert len(data) in pixels
    for rest in pixels.values():
        np.testing.assert_array_equal(rest, pixels[len(data)])


# A separate process, so that earlier tests do not affect the highest memory use.
PEAK = """
import json, resource, sys
from reid_jax.data import decoding
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = decoding.visit(sys.argv[1:], lambda *_: None)
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(json.dumps([len(found), grown]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is told in KiB there")
def test_headers_that_lie_take_no_memory(tmp_path, draw):
    jpeg = encode(draw(*SIZE), "JPEG")
    files = [
        png(8192, 8192, 8, 2, b""),
        png(30_000, 30_000, 8, 6, b""),
        with_size(jpeg, 65535, 65535),
        with_size(jpeg, 20_000, 20_000),
    ]
    paths = []
    for i, data in enumerate(files * 4):
        paths.append(str(tmp_path / f"{i}.jpg"))
        (tmp_path / f"{i}.jpg").write_bytes(data)
    command = [sys.executable, "-c", PEAK, *paths]
    found, grown = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert found == 16
    # Four files claim the limit. One at a time is in memory, with Pillow's 4 bytes per pixel.
    assert grown * 1024 < 2 * 4 * 8192**2
