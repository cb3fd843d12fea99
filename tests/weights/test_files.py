"""PyTorch's files are read as data, without running any of their content."""

import builtins
import io
import os
import pickle
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from reid_jax.cli.weights import main
from reid_jax.weights import files, read_trunk
from tests.weights.files import arrays


def zipped(data):
    """A pickle as in PyTorch's archives."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")
    return buffer.getvalue()


def old_format(data):
    """As in PyTorch before 1.6: number, version and system, then the content and the names."""
    head = (0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True})
    return b"".join(pickle.dumps(x, 2) for x in head) + data + pickle.dumps([], 2)


@pytest.mark.parametrize("wrap", [zipped, old_format, lambda data: data])
def test_a_file_that_would_run_code_runs_nothing(wrap, torch, tmp_path, monkeypatch):
    """Neither when it is converted nor when it is read for training."""
    canary = tmp_path / "canary"

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(canary),)

    evil = {"state_dict": {"conv1.weight": Evil()}, "epoch": 1}
    pickle.loads(pickle.dumps(evil, 2))
    canary.rmdir()  # Unpickling does run it.
    path = tmp_path / "evil.pth"
    path.write_bytes(wrap(pickle.dumps(evil, 2)))
    heard = []
    monkeypatch.setattr(pickle, "loads", heard.append)
    message = (
        r"evil\.pth' holds more than weights: it needs posix\.mkdir, and no content .* executed"
    )
    with pytest.raises(ValueError, match=message):
        read_trunk(path)
    with pytest.raises(SystemExit, match=f"^ValueError: .*{message}"):
        main([str(path), str(tmp_path / "out")])
    assert not canary.exists()
    assert heard == []
    assert not (tmp_path / "out").exists()


def test_nothing_is_unpickled_by_python_itself(torch, tmp_path):
    """An audit hook in a separate process checks it, for a good file and an evil one."""
    tensors = {name: torch.from_numpy(np.array(x)) for name, x in arrays("bottleneck").items()}
    torch.save(tensors, tmp_path / "good.pth")
    evil = b"\x80\x02cposix\nsystem\nX\x06\x00\x00\x00exit 3\x85R."
    (tmp_path / "evil.pth").write_bytes(zipped(evil))
    program = """if True:
        import sys
        import torch
        from reid_jax.weights import read_trunk
        heard = []
        events = "pickle.find_class", "os.system", "os.exec", "os.posix_spawn", "subprocess.Popen"
        sys.addaudithook(lambda event, _: heard.append(event) if event in events else None)
        print(read_trunk(sys.argv[1]).structure.title)
        try:
            read_trunk(sys.argv[2])
        except ValueError as error:
            print(error)
        print(heard)
    """
    paths = [str(tmp_path / name) for name in ("good.pth", "evil.pth")]
    done = subprocess.run(
        [sys.executable, "-c", program, *paths], capture_output=True, text=True, check=True
    )
    good, bad, heard = done.stdout.splitlines()
    assert good.startswith("ResNet of bottleneck blocks")
    assert "evil.pth' holds more than weights: it needs posix.system" in bad
    assert heard == "[]"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds no tensors by name but a list"),
        ({"state_dict": [1]}, "holds objects that are not tensors: state_dict$"),
        ({1: 2}, "holds no tensors by name but a dict"),
        ({"a": 1, "b\n": "x"}, r"holds objects that are not tensors: a, 'b\\n'$"),
    ],
)
def test_what_holds_no_weights_is_told(content, message, torch, tmp_path):
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=rf"a\.pth' {message}"):
        files.read(tmp_path / "a.pth")


def test_cut_off_files_are_one_error_that_names_them(torch, tmp_path):
    tensors = {name: torch.from_numpy(np.array(x)) for name, x in arrays("basic").items()}
    path = tmp_path / "weights.pth"
    for new_format in (True, False):
        torch.save(tensors, path, _use_new_zipfile_serialization=new_format)
        data = path.read_bytes()
        assert files.read(path).arrays.keys() == tensors.keys()
        for size in (10, 1000, len(data) // 2, len(data) - 30):
            path.write_bytes(data[:size])
            with pytest.raises(ValueError, match=r"weights\.pth' is damaged \([A-Za-z][^\n]*\)$"):
                files.read(path)


def test_tensors_without_plain_numbers_are_told(torch, tmp_path):
    for tensor in (torch.ones(2, 2).to_sparse(), torch.empty(2, device="meta")):
        torch.save({"conv1.weight": tensor}, tmp_path / "a.pth")
        with pytest.raises(ValueError, match=r"a\.pth' is damaged \([A-Za-z][^\n]*\)$"):
            files.read(tmp_path / "a.pth")


def test_without_pytorch_the_error_says_what_to_do(tmp_path, monkeypatch):
    real = builtins.__import__

    def blocked(name, *arguments, **options):
        if name.split(".")[0] == "torch":
            raise ImportError("No module named 'torch'", name="torch")
        return real(name, *arguments, **options)

    (tmp_path / "a.pth").write_bytes(zipped(pickle.dumps({})))
    monkeypatch.setattr(builtins, "__import__", blocked)
    message = r"a\.pth' is a PyTorch checkpoint, .*pip install torch, or convert it to .safetensors"
    with pytest.raises(ImportError, match=message):
        files.read(tmp_path / "a.pth")
    with pytest.raises(SystemExit, match=f"^ImportError: .*{message}"):
        main([str(tmp_path / "a.pth"), str(tmp_path / "out")])


def test_a_pytorch_that_is_not_safe_is_not_used(torch, tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "__version__", "2.5.1+cpu")
    (tmp_path / "a.pth").write_bytes(zipped(pickle.dumps({}, 2)))
    with pytest.raises(
        ImportError, match=r"needs PyTorch 2\.6 or newer to be loaded safely, but 2\.5\.1\+cpu"
    ):
        files.read(tmp_path / "a.pth")


def test_metadata_may_be_null(tmp_path):
    header = b'{"__metadata__":null,"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    content = len(header).to_bytes(8, "little") + header + b"\0\0\0\0"
    (tmp_path / "a.safetensors").write_bytes(content)
    assert list(files.read(tmp_path / "a.safetensors").arrays) == ["a"]
