import json
import pathlib

ROOT = pathlib.Path(__file__).parents[2]


# Replaces `python -m reid_jax train`: records its start and its end, and measures figures that
# depend on its seed. It waits (for a limited time), fails or is preempted if a file `wait`, `fail`
# or `preempt` contains its folder's name.
FAKE_TRAIN = """
    import json, pathlib, sys, time
    leaves = dict(argument.removeprefix("--").split("=", 1) for argument in sys.argv[2:])
    assert sys.argv[1] == "train"
    seed = int(leaves["config.seed"])
    workdir = pathlib.Path(leaves["workdir"])
    name = f"{workdir.parent.name}/{workdir.name}"

    def note(what):
        with open("calls", "a") as file:
            file.write(f"{what} {name}\\n")

    def is_to(what):
        return pathlib.Path(what).exists() and pathlib.Path(what).read_text() == name

    note("start")
    for _ in range(4000):
        if is_to("wait"):
            time.sleep(0.01)
    if is_to("fail"):
        sys.exit(3)
    if is_to("preempt"):
        sys.exit(75)
    final = {"Rank-1": (0.5, 0.75, 0.25)[seed], "Rank-5": 0.875, "mAP": (0.1, 0.2, 0.6)[seed]}
    with (workdir / "metrics.jsonl").open("w") as file:
        for step, values in enumerate([dict.fromkeys(final, 0.01), final]):
            line = {"step": step, "kind": "eval", "epoch": 1.0, "mINP": 0.05, "queries": 8}
            file.write(json.dumps(line | values) + "\\n")
        file.write(json.dumps({"step": 2, "kind": "train", "mAP": 0.0}) + "\\n")
    note("end")
"""


def calls(settings):
    path = settings.folder / "calls"
    return path.read_text().splitlines() if path.exists() else []


def ended(settings):
    return [call.removeprefix("end ") for call in calls(settings) if call.startswith("end")]


def read(settings, name):
    return json.loads((settings.workdir / f"{name}.json").read_text())
