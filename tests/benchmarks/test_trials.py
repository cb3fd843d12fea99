"""The content of a collection of trials, for runs written by hand."""

import json

import pytest

from benchmarks import trials


def write(folder, config, records):
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps({"config": config}))
    lines = [json.dumps(record) for record in records]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def config(lr, neck):
    data = {"root": "/home/somebody/cuhk03-np/detected", "image_size": [192, 64]}
    model = {"neck": neck, "pretrained": "/home/somebody/half.safetensors"}
    return {"optim": {"lr": lr}, "data": data, "model": model}


@pytest.fixture
def folders(tmp_path):
    train = {"step": 20, "kind": "train", "epoch": 0.5, "lr": 1e-3, "loss": 3.0, "loss/id_1": 2.0}
    train |= {"accuracy_1": 0.25, "ordered_1": 0.5, "gradient_norm": 9.0}
    train |= {"images_per_second": 95.123456}
    evaluated = {"step": 42, "kind": "eval", "epoch": 1.0, "Rank-1": 1 / 3, "mAP": 0.25, "mINP": 0}
    return [
        write(tmp_path / "plain", config(1e-3, "none"), [train, evaluated]),
        write(tmp_path / "neck", config(1e-3, "batch_norm"), [evaluated]),
    ]


def test_shared_settings_are_listed_once_and_paths_are_left_out(folders, tmp_path, capsys):
    trials.main([*map(str, folders), f"--output={tmp_path / 'all.json'}"])
    text = (tmp_path / "all.json").read_text()
    content = json.loads(text)
    assert "somebody" not in text
    assert content["shared"] == {
        "data.image_size": [192, 64],
        "data.root": "detected",
        "model.pretrained": "half.safetensors",
        "optim.lr": 1e-3,
    }
    plain, neck = content["results"]
    assert (plain["name"], plain["settings"]) == ("plain", {"model.neck": "none"})
    assert neck["settings"] == {"model.neck": "batch_norm"}
    (logged,) = plain["log"]
    assert logged == {
        **{"step": 20, "epoch": 0.5, "lr": 1e-3, "loss": 3.0, "loss/id_1": 2.0},
        **{"accuracy_1": 0.25, "ordered_1": 0.5, "images_per_second": 95.123},
    }
    assert neck["log"] == []
    assert plain["evaluations"] == [{"step": 42, "epoch": 1, "Rank-1": 0.33333, "mAP": 0.25}]
    assert "2 runs in" in capsys.readouterr().out


def test_a_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing/run\.json"):
        trials.collect([tmp_path / "nothing"])
