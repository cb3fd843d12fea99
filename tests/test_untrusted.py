"""Files from others: runs and datasets that try to do harm, read by real programs.

A separate process trains and evaluates, while an audit hook records which files Python opens for
writing, and what it starts or unpickles. Then it reads the files that try to run code.
"""

import ast
import json
import os
import pathlib
import re
import subprocess
import sys

import matplotlib
import pytest

from reid_jax.programs.evaluate import evaluate_run
from reid_jax.runs.symlinks import FOLDERS
from reid_jax.runs.workdir import write_run
from tests.report_page import Page
from tests.test_configs import load

ROOT = pathlib.Path(__file__).parents[1]

# Parts of file names with a meaning in Markdown, HTML, formulas, terminals or UTF-8.
NAME = b"evil\n$x{$<script>alert(1)</script>|`ls`\x1b[31m\xff"
if not sys.platform.startswith("linux"):  # Other systems reject names that are not UTF-8.
    NAME = NAME[:-1]

# Audit events of operations that run code.
RUNS = ("pickle.find_class", "os.system", "os.exec", "os.posix_spawn", "subprocess.Popen")

PROGRAM = r"""
import json, os, pathlib, pickle, shutil, sys, warnings
seen = []
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
PATHS = {"os.mkdir": 1, "os.remove": 1, "os.rmdir": 1, "os.truncate": 1, "os.chmod": 1}
PATHS |= {"os.chown": 1, "os.utime": 1, "os.rename": 2, "os.link": 2, "os.symlink": 2}
RUNS = sys.argv[3:]

def hook(event, arguments):
    if event == "open" and (arguments[2] or 0) & WRITES:
        seen.append([event, os.fsdecode(arguments[0])])
    elif event in PATHS:
        seen.extend([event, os.path.abspath(os.fsdecode(p))] for p in arguments[:PATHS[event]])
    elif event in RUNS:
        seen.append([event, repr(arguments[:2])])

sys.addaudithook(hook)
folder = pathlib.Path(sys.argv[1])
pedestrians, own, workdir = (folder / name for name in ("pedestrians", sys.argv[2], "run"))

import jax
from reid_jax.configs import baseline_synthetic
from reid_jax import models
from reid_jax.data.loaders import open_images
from reid_jax.programs.evaluate import Protocol, evaluate_run
from reid_jax.programs import train
from reid_jax.report import present
from reid_jax.runs.checkpoints import Checkpoints
from reid_jax.runs.metrics import read_metrics
from reid_jax.runs.workdir import read_run

config = baseline_synthetic.get_config("small")
config.data.root, config.data.loader = str(pedestrians), "memory"
config.data.synthetic.update({"test_identities": 3, "train_cameras": 2, "test_cameras": 2})
config.update({"devices": 1, "max_steps": 2})
train.train(config, str(workdir))

# The same pictures with names of others, and a query without a match.
splits = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
for to, name in splits.items():
    (own / to).mkdir(parents=True)
    for path in (pedestrians / name).iterdir():
        pid, camera, rest = path.name.split("_", 2)
        shutil.copy(path, own / to / f"{own.name}{pid}_{camera[:2]}_{rest}")
some = next((own / "query").iterdir())
some.rename(own / "query" / f"{own.name}alone_c1_0.jpg")
config, _ = read_run(workdir)
config.data.update({"layout": "folder", "root": str(own)})
output = str(workdir / "eval")
options = {"protocol": Protocol(rerank=True), "figures": 2}
run = evaluate_run(config, str(workdir), checkpoint="best", output=output, **options)
present(run, output, report=True)
print(json.dumps(["writes", seen]))

class Evil:
    def __reduce__(self):
        return os.mkdir, (str(folder / "canary"),)

def into(name):
    return lambda run: (run / name).write_bytes(pickle.dumps(Evil()) + b"\n")

def instead(pattern):
    def act(run):
        for path in [*(run / "checkpoints" / "2" / "model").glob(pattern)]:
            path.write_bytes(pickle.dumps(Evil()))
    return act

def metadata(name, change):
    def act(run):
        path = run / "checkpoints" / "2" / name
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))
    return act

def handlers(content):
    assert content["item_handlers"]
    content["item_handlers"] = dict.fromkeys(content["item_handlers"], "os.system")
    content["custom_metadata"] = {"__reduce__": ["os.mkdir", [str(folder / "canary")]]}

def types(content):
    for leaf in content["tree_metadata"].values():
        leaf["value_metadata"]["value_type"] = "pickle.loads"

def rich(content):
    content["value_metadata_tree"] = {
        "category": "namedtuple", "module": "os", "clazz": "system", "entries": []
    }

def pickled(run):
    shutil.rmtree(run / "checkpoints" / "2" / "model")
    (run / "checkpoints" / "2" / "model").mkdir()
    for name in ("checkpoint", "_METADATA", "model.pkl", "__init__.py", "sitecustomize.py"):
        (run / "checkpoints" / "2" / "model" / name).write_bytes(pickle.dumps(Evil()))

def image(run):
    (run / "mine").mkdir()
    into("mine/0_c1_0.jpg")(run)

CASES = {
    "run.json": into("run.json"),
    "metrics.jsonl": into("metrics.jsonl"),
    "handlers": metadata("_CHECKPOINT_METADATA", handlers),
    "types": metadata("model/_METADATA", types),
    "rich": metadata("model/_METADATA", rich),
    "pickled": pickled,
    "metadata": instead("_METADATA"),
    "manifest": instead("manifest.ocdbt"),
    "arrays": instead("**/d/*"),
    "evaluation": into("checkpoints/2/evaluation/metadata"),
    "image": image,
}

def shapes(config, classes):
    network = models.create(config.model, classes)
    pixels = jax.ShapeDtypeStruct((1, *config.data.image_size, 3), "float32")
    return dict(jax.eval_shape(network.init, jax.random.key(0), pixels))

del seen[:]
found = {}
for case, act in CASES.items():
    run = folder / "crafted" / case
    shutil.copytree(workdir, run)
    act(run)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            config, classes = read_run(run)
            read_metrics(run)
            with Checkpoints(run / "checkpoints") as checkpoints:
                variables = checkpoints.restore_model(shapes(config, classes), "latest")
            open_images([str(path) for path in (run / "mine").glob("*.jpg")], (96, 64), "memory")
            found[case] = "read"
        except (ValueError, OSError) as error:
            found[case] = f"{type(error).__name__}: {error}"
    found[case] = [found[case], *(str(w.message) for w in warned if "damaged" in str(w.message))]
print(json.dumps(["crafted", found, [[e, a] for e, a in seen if e in RUNS]]))
"""


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """The events that the program records, its output, and the folder it ran in."""
    folder = tmp_path_factory.mktemp("untrusted")
    for name in ("home", "temporary", "here", "data"):
        (folder / name).mkdir()
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("XDG_")},
        **{"HOME": str(folder / "home"), "TMPDIR": str(folder / "temporary")},
        "MPLCONFIGDIR": matplotlib.get_cachedir(),  # saves the search for fonts
        **{"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder / "data"), NAME, *RUNS],
        cwd=folder / "here",
        env=environment,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    *said, crafted = done.stdout.decode().splitlines()
    (writes,) = (i for i, line in enumerate(said) if line.startswith('["writes"'))
    return json.loads(said[writes])[1], json.loads(crafted)[1:], said[:writes], folder


@pytest.mark.slow
def test_nothing_is_written_outside(outcome):
    """Neither by Python, as the hook shows, nor by libraries, as the folders show."""
    seen, _, _, folder = outcome
    inside = (
        *(str(folder / "data"), os.environ["JAX_COMPILATION_CACHE_DIR"], os.devnull),
        # It is empty again, as checked below. Creating the folder is how its existence is tested.
        *(str(folder / "temporary"), matplotlib.get_cachedir()),
    )
    written = [entry for entry in seen if entry[0] not in RUNS]
    assert [entry for entry in written if not entry[1].startswith(inside)] == []
    assert any(path.endswith("run/metrics.jsonl") for _, path in written)  # The hook works.
    for empty in ("home", "temporary", "here"):
        assert list((folder / empty).iterdir()) == []
    run = folder / "data" / "run"
    assert {path.name for path in run.iterdir() if path.is_dir()} == set(FOLDERS)
    assert {path.name for path in run.iterdir() if path.is_file()} == {
        *("run.json", "metrics.jsonl", "curves.png", ".lock")
    }
    assert len(list((folder / "data").iterdir())) == 4  # pedestrians, own, run and crafted


@pytest.mark.slow
def test_no_file_runs_code(outcome):
    """Each file of a run, and an image, is replaced by pickles and names of functions."""
    seen, (found, run), _, folder = outcome
    assert not (folder / "data" / "canary").exists()
    assert run == []  # No process was started, and no pickle was loaded.
    # TensorBoard's writer copies its records in this way.
    own = ("('tensorboardX.proto.event_pb2', 'Event')", "('builtins', 'object')")
    assert {what for event, what in seen if event in RUNS} <= set(own)

    # Metadata that name a function are ignored or rejected.
    assert found["handlers"] == found["rich"] == ["read"]
    assert 'Unknown type: "pickle.loads"' in found["types"][0]
    errors = {
        "run.json": r"ValueError: .*run\.json is damaged",
        "metrics.jsonl": r"ValueError: .*metrics\.jsonl, line 1 is not a record of metrics",
        "image": r"BadFilesError: 1 of 1 file .*0_c1_0\.jpg",
    }
    for case in ("types", "pickled", "metadata", "manifest", "arrays"):
        errors[case] = rf"DamagedCheckpointError: the checkpoint .*{case}/checkpoints/2 is damaged"
    for case, error in errors.items():
        (message,) = found[case]
        assert re.match(error, message)
        assert "\n" not in message
    read, warning = found["evaluation"]
    assert read == "read"
    assert "Its metrics are lost" in warning


@pytest.mark.slow
def test_names_are_escaped(outcome):
    """In printed output and in JSON; pictures have numbers instead."""
    _, _, said, folder = outcome
    assert all(line.isprintable() for line in said)
    assert sum("evil" in line for line in said) == 2  # At the start of the evaluation and its end.
    text = (folder / "data" / "run" / "eval" / "results.json").read_text()
    assert text.isascii()
    assert "\x1b" not in text
    (unmatched,) = json.loads(text)["unmatched_queries"]
    own = folder / "data" / os.fsdecode(NAME)
    assert unmatched == str(own / "query" / f"{own.name}alone_c1_0.jpg")
    assert pathlib.Path(unmatched).is_file()
    page = Page(folder / "data" / "run" / "eval" / "report.html")
    names = page.data["query"]["names"]
    assert all(name.isprintable() and name.startswith("query/script>|`ls`") for name in names)
    assert [tag for tag, _ in page.elements].count("script") == 3  # the page's own
    for picture in ("gradcam.png", "ranked_lists.png"):
        assert (folder / "data" / "run" / "eval" / picture).exists()


def test_no_module_has_the_means():
    """The package imports no unpickling module, and does not call NumPy's `load` or `eval`."""
    for path in sorted((ROOT / "reid_jax").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {name.name.split(".")[0] for name in node.names}
                names.add((getattr(node, "module", None) or "").split(".")[0])
                unpickle = names & {"pickle", "marshal", "shelve", "dill", "joblib", "yaml"}
                assert not unpickle, path
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert (node.value.id, node.attr) != ("np", "load"), path
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
                assert node.id not in {"eval", "exec", "compile", "__import__"}, path


def test_a_recipe_from_others_draws_nothing(tmp_path):
    config = load("baseline_synthetic", "small")
    config.data.root = str(tmp_path / "anywhere" / "at all")
    (tmp_path / "run").mkdir()
    write_run(tmp_path / "run", config, 8)
    for layout in ("synthetic", "market1501"):
        config.data.layout = layout
        with pytest.raises(FileNotFoundError, match=r"anywhere/at all.*data\.root"):
            evaluate_run(
                config, str(tmp_path / "run"), checkpoint="latest", output=str(tmp_path / "eval")
            )
    # Evaluation does not draw into a folder on the command line either, which may be mistyped.
    (tmp_path / "file").touch()
    options = [f"--config.data.root={tmp_path / 'file' / 'in the way'}"]
    done = subprocess.run(
        [sys.executable, "eval.py", f"--workdir={tmp_path / 'run'}", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "no synthetic pedestrians in" in done.stderr
    assert "draw them by `python -m reid_jax.data.synthetic FOLDER --seed=0" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "run"]
