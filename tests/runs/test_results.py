import json

import pytest

from reid_jax.runs.results import (
    IMAGES,
    PAGE,
    PICTURES,
    check_writable,
    remove_images,
    skipped_name,
    write_results,
)

DIGEST = "0123456789abcdef"


@pytest.fixture
def folder(tmp_path):
    """The folder of an evaluation with pictures and a page, and files of the user's."""
    assert not write_results(tmp_path / "eval", {"mAP": 0.5})
    folder = tmp_path / "eval"
    for name in (*PICTURES, PAGE, "notes.txt"):
        (folder / name).touch()
    for name in (DIGEST, "holiday"):
        (folder / IMAGES / name).mkdir(parents=True)
    return folder


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_other_results_remove_pictures_and_page(folder):
    assert write_results(folder, {"mAP": 0.6})
    assert names(folder) == {"results.json", "notes.txt", IMAGES}
    assert names(folder / IMAGES) == {"holiday"}


def test_the_same_results_keep_them(folder):
    before = names(folder)
    assert not write_results(folder, {"mAP": 0.5})
    assert names(folder) == before
    assert names(folder / IMAGES) == {DIGEST, "holiday"}


def test_pictures_of_a_folder_without_results_are_left_alone(folder):
    (folder / "results.json").unlink()
    assert not write_results(folder, {"mAP": 0.6})
    assert set(PICTURES) <= names(folder)


def test_an_empty_folder_of_images_goes(folder):
    (folder / IMAGES / "holiday").rmdir()
    remove_images(folder)
    assert IMAGES not in names(folder)


@pytest.mark.parametrize("content", ["[]", '{"mAP": 0.5}', "no JSON", "[" * 100_000])
@pytest.mark.parametrize("name", ["results.json", "skipped_images.json"])
def test_files_of_other_programs_are_named(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(FileExistsError, match=rf"'{tmp_path}/{name}' is a file of another program"):
        check_writable(tmp_path, "the folder of the results")


@pytest.mark.parametrize("name", [*PICTURES, PAGE])
def test_a_picture_without_results_is_of_another_program(tmp_path, name):
    (tmp_path / name).touch()
    check_writable(tmp_path, "the folder of the results")
    with pytest.raises(FileExistsError, match=rf"'{tmp_path}/{name}' is a file of another program"):
        check_writable(tmp_path, "the folder of the results", [*PICTURES, PAGE])
    (tmp_path / "results.json").write_text('{"workdir": "", "step": 2, "dataset": {}, "cmc": []}')
    check_writable(tmp_path, "the folder of the results", [*PICTURES, PAGE])


@pytest.mark.parametrize("below", ["", "7", "new/eval"])
def test_results_are_not_put_into_checkpoints(tmp_path, below):
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    check_writable(folder / below, "the folder of the results")
    (tmp_path / "run" / "run.json").touch()
    (tmp_path / "link").symlink_to(folder)
    for start in (folder, tmp_path / "link"):
        with pytest.raises(ValueError, match=r"is in the checkpoints of the run in .*/run'"):
            check_writable(start / below, "the folder of the results")
    check_writable(tmp_path / "run" / "eval", "the folder of the results")


def test_own_files_may_be_replaced(tmp_path):
    first_version = {"workdir": "runs/pmm", "step": 2, "dataset": {}, "mAP": 0.5, "cmc": [0.5]}
    (tmp_path / "results.json").write_text(json.dumps(first_version))
    (tmp_path / "skipped_images.json").write_text('{"skipped": []}')
    check_writable(tmp_path, "the folder of the results")


def test_training_and_an_evaluation_in_its_workdir_list_images_apart(tmp_path):
    assert skipped_name(tmp_path) == "skipped_images.json"
    (tmp_path / "run.json").touch()
    assert skipped_name(tmp_path) == "eval_skipped_images.json"
