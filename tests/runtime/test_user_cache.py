import os

import pytest

from reid_jax.runtime import user_cache


def test_folder_is_made_for_the_user_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = user_cache.user_cache("things")
    assert folder == tmp_path / "cache" / "reid_jax" / "things"
    assert folder.stat().st_mode & 0o077 == 0
    assert user_cache.user_cache("things") == folder


def test_folder_that_others_may_write_to(tmp_path):
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(PermissionError, match="others may write to"):
        user_cache.private_folder(folder)


def test_least_recently_used_files_are_removed(tmp_path):
    for i, name in enumerate("cab"):
        (tmp_path / name).write_bytes(bytes(10))
        os.utime(tmp_path / name, (i, i))
    user_cache.forget(tmp_path, 30)
    assert len(list(tmp_path.iterdir())) == 3
    user_cache.forget(tmp_path, 19)
    assert [path.name for path in tmp_path.iterdir()] == ["b"]
