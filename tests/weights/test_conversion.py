"""Files of other programs: recognising the program, and the printed report."""

import numpy as np
import pytest

from reid_jax.runs import packed_file
from reid_jax.runs.packed_file import PackedRun
from reid_jax.weights import conversion, read_trunk
from tests.test_configs import load
from tests.weights import files


@pytest.mark.parametrize(
    ("name", "program"), [("pmm", "pmm"), ("bdb", "bdb"), ("bottleneck", None)]
)
def test_the_program_is_recognised(name, program, tmp_path):
    file = conversion.read(files.write(tmp_path / "file.safetensors", files.arrays(name)))
    assert conversion.program_of(file) == program


def test_a_trunk_is_written_with_the_flags_for_it(tmp_path, capsys):
    source = files.write(tmp_path / "file.safetensors", files.arrays("basic"))
    out = tmp_path / "trunk.safetensors"
    conversion.convert_trunk(conversion.read(source), out)
    first, second = capsys.readouterr().out.splitlines()
    trunk = read_trunk(out)
    assert first.startswith(f"{trunk.structure.title}: {trunk.num_tensors} tensors, ")
    assert f"--config.model.pretrained={out} " in second
    assert "--config.model.trunk.block=basic" in second
    with pytest.raises(ValueError, match="is already converted"):
        conversion.convert_trunk(conversion.read(out), tmp_path / "again.safetensors")


def test_a_packed_run_is_no_trunk(tmp_path):
    """It has the same key in its metadata."""
    packed = tmp_path / "packed.safetensors"
    run = PackedRun(3, {}, {}, None, {"params/stem/kernel": np.zeros((3, 3), np.float32)})
    packed.write_bytes(packed_file.to_bytes(run))
    message = r"packed\.safetensors' is a packed run, .*reid-jax eval, .* --workdir"
    with pytest.raises(ValueError, match=message):
        conversion.convert_trunk(conversion.read(packed), tmp_path / "out.safetensors")
    with pytest.raises(ValueError, match=message):
        read_trunk(packed)


def test_printed_commands_can_be_copied(tmp_path, capsys):
    source = files.write(tmp_path / "file.safetensors", files.arrays("basic"))
    conversion.convert_trunk(conversion.read(source), tmp_path / "my trunk (2).safetensors")
    said = capsys.readouterr().out
    assert f"--config.model.pretrained='{tmp_path / 'my trunk (2).safetensors'}' " in said
    file = conversion.read(files.write(tmp_path / "pmm.safetensors", files.arrays("pmm")))
    conversion.convert_program(file, "pmm", load("pmm_market"), tmp_path / "my run")
    assert f"--workdir='{tmp_path / 'my run'}' " in capsys.readouterr().out


def test_a_program_s_checkpoint_is_written_as_a_workdir(tmp_path, capsys):
    source = files.write(tmp_path / "file.safetensors", files.arrays("pmm"))
    file = conversion.read(source)
    conversion.convert_program(file, "pmm", load("pmm_market"), tmp_path / "run")
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(f"PMM: {len(files.arrays('pmm'))} tensors, ")
    assert second.startswith(f"evaluate it: reid-jax eval --workdir={tmp_path / 'run'} ")
    assert (tmp_path / "run" / "run.json").exists()


def test_a_recipe_of_another_network_is_refused(tmp_path):
    source = files.write(tmp_path / "file.safetensors", files.arrays("pmm"))
    file = conversion.read(source)
    with pytest.raises(
        ValueError, match=r"checkpoint of PMM, but the recipe's model\.name is 'bdb'"
    ):
        conversion.convert_program(file, "pmm", load("bdb_market"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert np.all([path.suffix == ".safetensors" for path in tmp_path.iterdir()])
