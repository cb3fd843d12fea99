import pytest

from reid_jax.data.synthetic import __main__ as command
from tests.data.synthetic.market import TINY, digests


def test_command_line(tiny, tmp_path, capsys):
    options = [f"--{name}={value}" for name, value in TINY.items()]
    command.main([str(tmp_path / "market"), *options])
    assert digests(tmp_path / "market") == digests(tiny)
    with pytest.raises(SystemExit) as stop:
        command.main([str(tmp_path / "market"), *options, "--test_cameras=11"])
    assert stop.value.code == 2
    assert "train_cameras + test_cameras is 13" in capsys.readouterr().err


def test_ctrl_c_is_one_line(tmp_path, monkeypatch, capsys):
    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "write_market1501", stop)
    with pytest.raises(SystemExit) as stopped:
        command.main([str(tmp_path)])
    assert stopped.value.code == 130
    assert capsys.readouterr().err == "stopped by Ctrl-C\n"
