"""Draws the pictures of `docs/images` from two runs on synthetic pedestrians and from results.

    python docs/pictures.py --pmm=runs/pmm --hbfp=runs/hbfp --pretrained=runs/pretrained

The runs are `reid-jax train --config=pmm_synthetic --workdir=runs/pmm` and the same with
`hbfp_synthetic`, or longer ones, and PMM on synthetic pedestrians from the half-width trunk, whose
command is in `docs/weights.md`. Start the script from the folder in which they were trained. The
picture of the report needs Chromium and its driver, and Selenium.
"""

import argparse
import io
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

import numpy as np
from PIL import Image

import reid_jax
from reid_jax import visualize
from reid_jax.data import datasets

ROOT = pathlib.Path(__file__).resolve().parents[1]

# The largest width of a picture, in pixels.
_WIDTH = 1100
_QUALITY = 88
# The size of the report's picture: CSS pixels, and device pixels for each.
_WINDOW = (1160, 1432)
_SCALE = 1.5
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# Labels of the rows that were fine-tuned on CPU cores, by run name without the seed.
_ROWS = {
    "PMM, BDB and ours": {
        "strong": "ours, 256x128 (one seed, mirrored)",
        "pmm_cutout": "PMM, ranked blocks set to 0",
        "pmm_none": "PMM without mixing",
        "bdb": "BDB",
        "pmm_k1": "PMM, K = 1",
        "pmm_k2": "PMM, K = 2",
        "pmm_k3": "PMM, K = 3 (one seed)",
        "pmm_stages1": "PMM, stage I",
        "pmm_stages2": "PMM, stages I and II",
        "pmm_attentive_cutmix": "PMM, A-CutMix (one seed)",
        "pmm_cutmix": "PMM, CutMix (one seed)",
    },
    "HBFP-Net": {
        "hbfp": "HBFP",
        "bfp_low_middle_high": "BFP(Low&Middle&High)",
        "hbfp_middle_high": "Middle+High",
        "hbfp_gep": "HBFP+GeP",
        "baseline_ls": "baseline(+LS)",
        "baseline_triplet": "baseline",
        "baseline": "baseline(+LS+Cutout)",
    },
}


def draw(
    pmm: pathlib.Path,
    hbfp: pathlib.Path | None,
    output: pathlib.Path,
    pretrained: pathlib.Path | None = None,
) -> list[pathlib.Path]:
    """Draw all pictures that the runs and the machine allow.

    Args:
        pmm: workdir of a run of PMM, for ranked lists, curves, tracks and the report.
        hbfp: workdir of a run of HBFP-Net, for activations; None leaves them out.
        output: folder of the pictures.
        pretrained: workdir of a run of PMM from pretrained weights, for Grad-CAM; None for `pmm`.

    Returns:
        The files written.
    """
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        results = pathlib.Path(folder)
        _evaluate(pmm, results / "pmm", "--figures", "--queries=4", "--report")
        written = [
            _gradcam(pretrained or pmm, output / "gradcam.jpg"),
            _convert(results / "pmm" / "ranked_lists.png", output / "ranked_lists.jpg"),
            _curves(pmm, output / "curves.png"),
            _fine_tuning(output / "cuhk03_curves.png"),
            _tracks(pmm, output / "tracks.jpg"),
        ]
        if browser():
            written.append(_report(results / "pmm" / "report.html", output / "report.jpg"))
        if hbfp:
            _evaluate(hbfp, results / "hbfp", "--figures", "--queries=3")
            picture = results / "hbfp" / "activations.png"
            written.append(_convert(picture, output / "activations.jpg"))
    return written


def browser() -> tuple[str, str] | None:
    """Paths of Chromium and of its driver, None if one is missing."""
    chromium = next(filter(None, map(shutil.which, _BROWSERS)), None)
    driver = shutil.which("chromedriver")
    return (chromium, driver) if chromium and driver else None


def most_different(cams: np.ndarray, pids: np.ndarray, count: int) -> np.ndarray:
    """Find the queries whose stages look at the most different places, one for each identity.

    Args:
        cams: (N, S, h, w), a Grad-CAM for each query and stage.
        pids: (N,), identities.
        count: number of queries to choose.

    Returns:
        (count,) indices, in the order of the queries: those with the largest distance between the
        two stages that are most alike, as 1 minus the cosine of their maps.
    """
    flat = cams.reshape(*cams.shape[:2], -1)
    flat = flat / np.maximum(np.linalg.norm(flat, axis=-1, keepdims=True), 1e-12)
    alike = np.einsum("nsp,ntp->nst", flat, flat)
    first, second = np.triu_indices(cams.shape[1], k=1)
    alike = alike[:, first, second].max(axis=1)
    alike[(flat.sum(axis=-1) == 0).any(axis=1)] = 1.0  # A stage sees no evidence.
    order = np.argsort(alike, kind="stable")
    _, unique = np.unique(pids[order], return_index=True)
    return np.sort(order[np.sort(unique)[:count]])


def _evaluate(workdir: pathlib.Path, output: pathlib.Path, *flags: str) -> None:
    command = [sys.executable, ROOT / "eval.py", f"--workdir={workdir}", f"--output={output}"]
    subprocess.run([*command, *flags], check=True, stdout=subprocess.DEVNULL)


def _gradcam(workdir: pathlib.Path, path: pathlib.Path) -> pathlib.Path:
    """Grad-CAM of the six queries whose stages differ most."""
    model = reid_jax.load(workdir)
    query = datasets.load(model.config.data, to_train=False).query
    cams = model.gradcam(query.paths)
    shown = most_different(cams, query.pids, count=6)
    height, width = model.config.data.image_size
    images = [Image.open(query.paths[i]).convert("RGB").resize((width, height)) for i in shown]
    figure = visualize.gradcam_figure(
        np.stack([np.asarray(image) for image in images]),
        cams[shown],
        names=model.stage_names,
        titles=[f"id {query.pids[i]}, cam {query.camids[i]}" for i in shown],
    )
    return _save(figure, path)


def _curves(workdir: pathlib.Path, path: pathlib.Path) -> pathlib.Path:
    lines = (workdir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    visualize.save(visualize.curves_figure([json.loads(line) for line in lines]), path)
    return path


def _fine_tuning(path: pathlib.Path) -> pathlib.Path:
    """Draw mAP by epoch of fine-tuned networks: 40 epochs on a GPU, 16 on CPU cores."""
    panels: dict[str, dict] = {"40 epochs": {}}
    for run in _results("cuhk03_h100"):
        if run["epochs"] == 40:
            epochs = [point["epoch"] for point in run["curve"]]
            panels["40 epochs"][run["name"]] = epochs, [p["mAP"] / 100 for p in run["curve"]]
    curves = _mean_curves()
    for title, rows in _ROWS.items():
        panels[f"16 epochs, {title}"] = {label: curves[name] for name, label in rows.items()}
    return _save(visualize.comparison_figure(panels, "mAP"), path)


def _mean_curves() -> dict[str, tuple[list[float], np.ndarray]]:
    """Epochs and the mean mAP of all seeds, for each row that was trained on CPU cores."""
    seeds: dict[str, list] = {}
    for file in ("pmm_cpu", "hbfp_cpu", "baseline_cpu", "strong_cpu"):
        for run in _results(file):
            seeds.setdefault(re.sub(r"_s\d$", "", run["name"]), []).append(run["evaluations"])
    return {
        name: (
            [point["epoch"] for point in runs[0]],
            np.mean([[point["mAP"] for point in run] for run in runs], axis=0),
        )
        for name, runs in seeds.items()
    }


def _results(name: str) -> list[dict]:
    file = ROOT / "benchmarks" / "results" / f"{name}.json"
    return json.loads(file.read_text(encoding="utf-8"))["results"]


def _tracks(workdir: pathlib.Path, path: pathlib.Path) -> pathlib.Path:
    """The picture that the code of docs/tracking.md draws."""
    page = (ROOT / "docs" / "tracking.md").read_text(encoding="utf-8")
    code, name, _ = "".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL)).partition(
        f'"{path.name}"'
    )
    with tempfile.TemporaryDirectory() as folder:
        (pathlib.Path(folder) / "runs").mkdir()
        (pathlib.Path(folder) / "runs" / "pmm").symlink_to(workdir.absolute())
        command = [sys.executable, "-c", f"{code}{name})"]
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        return _convert(pathlib.Path(folder) / path.name, path)


def _save(figure, path: pathlib.Path) -> pathlib.Path:
    with tempfile.TemporaryDirectory() as folder:
        drawn = pathlib.Path(folder) / "figure.png"
        visualize.save(figure, drawn)
        return _convert(drawn, path)


def _convert(source: pathlib.Path | io.BytesIO, path: pathlib.Path) -> pathlib.Path:
    """Convert a picture to JPEG, at most as wide as a page."""
    image = Image.open(source).convert("RGB")
    if image.width > _WIDTH:
        image = image.resize((_WIDTH, round(image.height * _WIDTH / image.width)))
    image.save(path, quality=_QUALITY, optimize=True)
    return path


def _report(page: pathlib.Path, path: pathlib.Path) -> pathlib.Path:
    """Photograph the upper part of a report, with its queries in the order of their files."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service
    from selenium.webdriver.support.ui import Select

    chromium, driver = browser()
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--hide-scrollbars",
    ):
        options.add_argument(flag)
    options.add_argument(f"--force-device-scale-factor={_SCALE}")
    options.add_argument("--window-size={},{}".format(*_WINDOW))
    window = webdriver.Chrome(options, Service(driver))
    try:
        window.get(page.resolve().as_uri())
        size = {"width": _WINDOW[0], "height": _WINDOW[1], "deviceScaleFactor": _SCALE}
        window.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size | {"mobile": False})
        Select(window.find_element("id", "order")).select_by_value("file")
        return _convert(io.BytesIO(window.get_screenshot_as_png()), path)
    finally:
        window.quit()


def main() -> None:
    """Draw the pictures that the command line requests."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pmm", type=pathlib.Path, required=True, help="workdir of a run of PMM")
    parser.add_argument("--hbfp", type=pathlib.Path, help="workdir of a run of HBFP-Net")
    parser.add_argument("--pretrained", type=pathlib.Path, help="workdir of another run of PMM")
    parser.add_argument("--output", type=pathlib.Path, default=ROOT / "docs" / "images")
    options = parser.parse_args()
    for path in draw(options.pmm, options.hbfp, options.output, options.pretrained):
        print(path)


if __name__ == "__main__":
    main()
