"""Writes synthetic pedestrians as a folder in the layout of Market-1501."""

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from reid_jax.choices import MAX_CAMERAS
from reid_jax.data.identities import DISTRACTOR, JUNK
from reid_jax.data.synthetic.capture import WALK_LENGTH, draw
from reid_jax.data.synthetic.streams import stream
from reid_jax.runtime.files import local_path, new_folder
from reid_jax.runtime.messages import say_to_stderr, shown
from reid_jax.runtime.progress import Progress, Tracker

VERSION = 2  # of the generator; increase it if the same arguments give other pictures
RECORD = "synthetic.json"
TRAIN, QUERY, GALLERY = "bounding_box_train", "query", "bounding_box_test"
MULTI_QUERY = "gt_bbox"
_QUALITY = 92
# At Ctrl-C, which reaches all processes of a program, helpers end without a message: the program
# reports it. If the program ignores Ctrl-C, so do they.
_QUIETLY = "from signal import *; getsignal(SIGINT) == SIG_IGN or signal(SIGINT, SIG_DFL)"
_BOXES_A_PROCESS = 150  # Fewer are drawn before a process has started.
_LEAST = dict(
    train_identities=2, test_identities=1, train_cameras=2, test_cameras=2, images_per_camera=2
)


@dataclasses.dataclass(frozen=True)
class Contents:
    """The content of a dataset of synthetic pedestrians.

    Attributes:
        seed: another seed gives other people, cameras and places.
        train_identities: number of identities for training, at least 2.
        test_identities: number of identities to find, at least 1.
        train_cameras: number of cameras for the training identities, at least 2.
        test_cameras: number of cameras for the test identities, at least 2; with train_cameras at
            most MAX_CAMERAS.
        images_per_camera: pictures of an identity under a camera that sees it, on average; at least
            2. All numbers within 2 of it are equally likely.
        distractors: boxes of identity 0000 in the gallery: strangers, parts of them, empty places.
        junk: boxes of identity -1 in the gallery, badly placed, which evaluation ignores.
        multi_query_images: more pictures of each query's identity under its camera, in gt_bbox, for
            multi-query; 0 creates no such folder. They change no other picture.

    Raises:
        ValueError: a number is out of range.
    """

    seed: int = 0
    train_identities: int = 64
    test_identities: int = 32
    train_cameras: int = 6
    test_cameras: int = 4
    images_per_camera: int = 4
    distractors: int = 60
    junk: int = 40
    multi_query_images: int = 0

    def __post_init__(self):
        for name, value in dataclasses.asdict(self).items():
            least = _LEAST.get(name, 0)
            if value < least:
                raise ValueError(f"{name} is {value}; it must be at least {least}")
        cameras = self.train_cameras + self.test_cameras
        if cameras > MAX_CAMERAS:
            raise ValueError(
                f"train_cameras + test_cameras is {cameras}; it must be at most {MAX_CAMERAS}"
            )

    @property
    def record(self) -> dict[str, int]:
        """The numbers for `synthetic.json`, without multi-query images if there are none."""
        numbers = dataclasses.asdict(self)
        if not self.multi_query_images:  # As in records from before they existed.
            del numbers["multi_query_images"]
        return numbers


class Box(NamedTuple):
    """One file of the dataset: its path, and the arguments of `draw`."""

    path: str
    pid: int
    camid: int
    number: int


def write_market1501(
    root: str | os.PathLike,
    contents: Contents = Contents(),
    progress: Progress = say_to_stderr,
) -> None:
    """Draw a dataset of synthetic pedestrians, unless it already exists.

    Training identities have odd numbers and test identities even ones, so either can grow without
    changing the other. The splits share no camera either: cameras from 1 to train_cameras see the
    training identities, the next test_cameras see the test identities, distractors and junk. An
    identity is seen by at least two cameras. Query holds one picture of each test identity under
    each camera that sees it, the gallery the others.

    The same contents give the same bytes (with the same Pillow and NumPy), with any number of
    processes. The folder appears complete or not at all.

    Args:
        root: the folder, created with its parents. It gets bounding_box_train, query,
            bounding_box_test, perhaps gt_bbox (JPEG files, 64 wide and 128 high) and
            synthetic.json.
        contents: what to draw.
        progress: called with progress messages; None disables them.

    Raises:
        FileExistsError: root holds something else: another dataset, one with other contents or of
            another version, or one with files missing.
    """
    boxes = planned(contents)
    images = _counted(b.path for b in boxes)
    record = {"version": VERSION, **contents.record, "images": images}
    root = Path(local_path(root, "the folder of the pedestrians"))
    if _holds(root, record):
        return
    if progress:
        progress(f"drawing {len(boxes):,} pictures of synthetic pedestrians into {shown(root)}")
    try:
        with new_folder(root) as draft:
            for folder in images:
                (draft / folder).mkdir()
            _write_all(draft, contents.seed, boxes, progress)
            (draft / RECORD).write_text(json.dumps(record, indent=2) + "\n")
    except OSError:
        if not _holds(root, record):  # Another process may have been quicker.
            raise


def planned(contents: Contents) -> list[Box]:
    """The boxes of a dataset, in the order of their names."""
    seed, images = contents.seed, contents.images_per_camera
    train_camids = range(1, contents.train_cameras + 1)
    first = contents.train_cameras + 1
    test_camids = range(first, first + contents.test_cameras)
    boxes = []
    for identity in range(contents.train_identities):
        pid = 2 * identity + 1
        for camid, count in _appearances(seed, pid, train_camids, images):
            boxes += [_box(TRAIN, seed, pid, camid, i) for i in range(count)]
    for identity in range(contents.test_identities):
        pid = 2 * identity + 2
        for camid, count in _appearances(seed, pid, test_camids, images):
            asked = int(stream(seed, "query", pid, camid).integers(count))
            boxes += [
                _box(QUERY if i == asked else GALLERY, seed, pid, camid, i) for i in range(count)
            ]
            more = range(count, count + contents.multi_query_images)
            boxes += [_box(MULTI_QUERY, seed, pid, camid, i) for i in more]
    for pid, count in ((DISTRACTOR, contents.distractors), (JUNK, contents.junk)):
        for i in range(count):
            index, at = divmod(i, contents.test_cameras)
            boxes.append(_box(GALLERY, seed, pid, test_camids[at], index))
    return sorted(boxes)


def _appearances(seed: int, pid: int, camids: range, images: int) -> list[tuple[int, int]]:
    """(camera, number of pictures) pairs of an identity, two of the cameras or more."""
    rng = stream(seed, "appearances", pid, len(camids), images)
    seen = rng.permutation(camids)[: rng.integers(2, len(camids) + 1)]
    spread = min(2, images - 2)
    return [(int(c), int(rng.integers(images - spread, images + spread + 1))) for c in seen]


def _box(folder: str, seed: int, pid: int, camid: int, index: int) -> Box:
    """The box with its file name: identity, camera, sequence, frame, number of the box."""
    walk = index // WALK_LENGTH
    frame = int(stream(seed, "frame", pid, camid, walk).integers(100, 99_000))
    frame += 25 * (index % WALK_LENGTH)
    identity = "-1" if pid == JUNK else f"{pid:04d}"
    name = f"{identity}_c{camid}s{walk + 1}_{frame:06d}_{index + 1:02d}.jpg"
    return Box(f"{folder}/{name}", pid, camid, index)


def _counted(paths) -> dict[str, int]:
    """The number of files in each folder that has any."""
    folders = [p.split("/")[0] for p in paths]
    known = (TRAIN, QUERY, GALLERY, MULTI_QUERY)
    return {folder: folders.count(folder) for folder in known if folder in folders}


def _holds(root: Path, record: dict) -> bool:
    """Whether root holds exactly this dataset; False if it does not exist yet."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    if not (root / RECORD).exists():  # The folder appears complete, so these are other files.
        raise FileExistsError(
            f"{root} exists and has no {RECORD}, so it is no synthetic dataset: choose another "
            "folder, or, to use the images in it, the layout that they have (data.layout)"
        )
    advice = "delete it, or choose another folder"
    try:
        found = json.loads((root / RECORD).read_text())
        if not isinstance(found, dict):
            raise ValueError(f"not an object: {found!r}")
    except (OSError, ValueError) as error:
        raise FileExistsError(
            f"{root} exists and has no readable {RECORD}, so it is no complete synthetic dataset: "
            f"{advice}"
        ) from error
    other = [name for name in record if found.get(name) != record[name]]
    if other:
        differences = ", ".join(f"{n} {found.get(n)} instead of {record[n]}" for n in other)
        raise FileExistsError(
            f"{root} holds a synthetic dataset of other arguments ({differences}): {advice}"
        )
    there = _counted(f"{f}/{p.name}" for f in record["images"] for p in (root / f).glob("*.jpg"))
    if there != record["images"]:
        raise FileExistsError(
            f"{root} holds {there} images instead of {record['images']}; files were lost: {advice}"
        )
    return True


def _write_all(root: Path, seed: int, boxes: list[Box], progress: Progress) -> None:
    """Draw the boxes in as many processes as there are processors.

    The helpers are plain child processes: forking is unsafe once JAX or TensorFlow runs threads,
    and multiprocessing's other ways import the caller's main program again, with all it imports.
    """
    workers = max(1, min(_processors(), len(boxes) // _BOXES_A_PROCESS))
    helpers = []
    try:
        for k in range(1, workers):
            job = json.dumps({"root": str(root), "seed": seed, "boxes": boxes[k::workers]})
            helper = subprocess.Popen(
                [sys.executable, "-c", f"{_QUIETLY}; from {__name__} import _help; _help()"],
                stdin=subprocess.PIPE,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
                text=True,
            )
            helpers.append(helper)
            # If it died, its exit status is checked below.
            with contextlib.suppress(BrokenPipeError):
                assert helper.stdin is not None
                helper.stdin.write(job)
                helper.stdin.close()
        _write_part(root, seed, boxes[::workers], progress)
        if any([helper.wait() for helper in helpers]):
            raise RuntimeError(f"a process that draws into {root} failed; its error is above")
    finally:
        for helper in helpers:
            helper.kill()
            helper.wait()


def _processors() -> int:
    """The number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _help() -> None:
    """Draw the boxes that stdin names: the work of a child process."""
    job = json.load(sys.stdin)
    _write_part(Path(job["root"]), job["seed"], [Box(*box) for box in job["boxes"]], None)


def _write_part(root: Path, seed: int, boxes: list[Box], progress: Progress) -> None:
    """Draw and write boxes."""
    with Tracker(progress, len(boxes), "drew", "picture", ends=True) as tracker:
        for done, box in enumerate(boxes, start=1):
            image = Image.fromarray(draw(seed, box.pid, box.camid, box.number))
            image.save(root / box.path, quality=_QUALITY)
            tracker.update(done)
