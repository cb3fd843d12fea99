"""The page of a report in headless Chromium."""

import base64
import dataclasses
import io
import json
import pathlib
import re
import shutil
import subprocess
import time

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from reid_jax import visualize
from reid_jax.data.splits import Split
from reid_jax.data.synthetic import capture
from reid_jax.evaluation.first_matches import first_matches
from reid_jax.evaluation.ranking import evaluate_ranking
from reid_jax.report import content
from tests.report_page import CALLED, NAMES, Evaluation

webdriver = pytest.importorskip("selenium.webdriver", reason="Selenium is not installed")
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)
DRIVER = shutil.which("chromedriver")
pytestmark = [
    pytest.mark.extras,
    pytest.mark.skipif(
        not (BROWSER and DRIVER), reason="Chromium and chromedriver are not installed"
    ),
]

# No window, no sandbox for containers, and no network traffic of the browser itself.
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-dev-shm-usage", "--force-device-scale-factor=1", "--font-render-hinting=none"),
)
WINDOW = {"width": 1200, "height": 800, "deviceScaleFactor": 1, "mobile": False}

# The cells of the nearest images in a row.
FOUND = "figure:has(.good, .bad):not(.missed)"


@pytest.fixture(scope="module")
def evaluation():
    return Evaluation()


@pytest.fixture(scope="module")
def folder(evaluation, tmp_path_factory):
    """A page with its thumbnails, and below `beside/` a page whose thumbnails are files."""
    folder = tmp_path_factory.mktemp("browser")
    (folder / "beside").mkdir()
    evaluation.write(folder)
    evaluation.write(folder / "beside", page_bytes=1000)
    (folder / "missed").mkdir()
    Difficult().write(folder / "missed", curves=visualize.curve_figures(LOGGED))
    return folder


LOGGED = [{"step": step, "loss": 2.0 - step, "lr": 0.1, "mAP": step / 2} for step in (0, 1)]


class Difficult(Evaluation):
    """Query 0 has its matches beyond the tenth rank, and a Grad-CAM of zeros."""

    def __init__(self):
        super().__init__()
        own = self.gallery.pids == self.query.pids[0]
        self.gallery.features[own] += 9.0
        self.result = evaluate_ranking(self.query, self.gallery)
        self.pixels["query"][0, ..., 0] = 0  # The first stage looks at red.


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in FLAGS:
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('profile')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = Service(DRIVER, log_output=subprocess.DEVNULL)
    driver = webdriver.Chrome(options=options, service=service)
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", WINDOW)
    driver.set_script_timeout(20)
    yield driver
    driver.quit()


@pytest.fixture
def page(chromium, folder):
    """The browser, with the page newly opened; the test fails if the browser logs a message."""
    chromium.get("about:blank")
    chromium.get_log("browser")
    chromium.get_log("performance")
    chromium.get((folder / "report.html").as_uri())
    settle(chromium)
    yield chromium
    assert chromium.get_log("browser") == []


def settle(driver):
    """Wait until everything near the window has been drawn."""
    driver.execute_async_script(
        "const done = arguments[0];"
        "const frame = () => new Promise(requestAnimationFrame);"
        "frame().then(frame).then(frame).then(() =>"
        "  Promise.all([...document.images].map((image) => image.decode()))).then(done, done);"
    )


def press(driver, *keys):
    for key in keys:
        driver.switch_to.active_element.send_keys(key)


def rows(driver):
    """The listed queries, in order."""
    script = "return [...document.querySelectorAll('.query')].map((row) => +row.dataset.query)"
    return driver.execute_script(script)


def current(driver):
    """The query that has the focus, or None."""
    script = "return document.activeElement.dataset.query ?? null"
    query = driver.execute_script(script)
    return None if query is None else int(query)


def text(driver, element_id):
    return driver.find_element(By.ID, element_id).text


def is_open(driver, element_id):
    return driver.execute_script(f"return document.getElementById('{element_id}').open")


def shot(driver):
    with Image.open(io.BytesIO(driver.get_screenshot_as_png())) as image:
        return np.asarray(image.convert("RGB"), float)


def requests(driver):
    """Addresses that pages requested, except those of images in the pages."""
    messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    return [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
        and not message["params"]["request"]["url"].startswith("data:")
    ]


def test_it_opens_and_asks_for_nothing(page, folder):
    assert requests(page) == [(folder / "report.html").as_uri()]
    assert shot(page).std() > 20
    assert text(page, "count") == "24 of 24 queries"
    sizes = page.execute_script("return [...document.images].map((image) => image.naturalWidth)")
    assert set(sizes) == {24}
    # Rows far below the window are empty.
    filled = page.execute_script("return document.querySelectorAll('.query > .strip').length")
    assert 3 < filled < 24
    page.execute_script("scrollTo(0, document.documentElement.scrollHeight)")
    settle(page)
    last = page.find_elements(By.CSS_SELECTOR, ".query")[-1]
    assert "no match in the gallery" in last.text
    assert page.execute_script("return document.querySelectorAll('.query > .strip').length") < 24
    assert not page.execute_script("return document.querySelector('.query').firstChild")


def test_the_policy_lets_no_other_script_run_and_nothing_out(page):
    """Not even a script that was injected into the page."""
    page.execute_script(
        "const script = document.createElement('script'); script.textContent = 'hacked = 1';"
        "document.body.append(script);"
        "const image = new Image(); image.src = 'http://localhost:9/x.png';"
        "document.body.append(image);"
    )
    assert page.execute_script("return typeof hacked") == "undefined"
    messages = [entry["message"] for entry in page.get_log("browser")]
    assert len(messages) == 2
    assert all("Content Security Policy" in message for message in messages)


def test_names_of_others_are_shown_and_do_nothing(page, evaluation):
    names = content.names(evaluation.dataset.query.paths, evaluation.dataset.root)
    for query in range(len(NAMES)):
        page.execute_script(f"document.querySelector('[data-query=\"{query}\"]').scrollIntoView()")
        settle(page)
        line = page.find_element(By.CSS_SELECTOR, f'[data-query="{query}"] .line .name')
        assert line.get_property("textContent") == names[query]
    assert page.execute_script("return typeof hacked") == "undefined"
    assert len(page.find_elements(By.TAG_NAME, "script")) == 3


def test_the_hardest_are_first(page, evaluation):
    hardest = content.hardest_first(evaluation.result.average_precision).tolist()
    assert rows(page) == hardest
    page.find_element(By.CSS_SELECTOR, "#order option[value=file]").click()
    assert rows(page) == [*[query for query in range(24) if query != 3], 3]


def test_a_row_says_what_is_right(page, evaluation):
    """For every filled row: rank, tick or cross, identity, camera and distance."""
    found = {}
    for query in rows(page)[:3]:
        cells = page.find_elements(By.CSS_SELECTOR, f'[data-query="{query}"] {FOUND}')
        found[query] = [cell.text.split("\n") for cell in cells]
    for query, cells in found.items():
        assert len(cells) == 10
        first = evaluation.result.ranks[query][0]
        for rank, (tag, who, where) in enumerate(cells, start=1):
            right = who == f"id {evaluation.query.pids[query]}"
            assert tag == f"{rank} {'✓' if right else '✗'}"
            assert right == (rank in evaluation.result.ranks[query])
            assert where.startswith("c")
        line = page.find_element(By.CSS_SELECTOR, f'[data-query="{query}"] .line').text
        assert f"rank {first}" in line
        assert f"AP {100 * evaluation.result.average_precision[query]:.1f} %" in line


def test_people_are_called_by_their_names(chromium, tmp_path):
    evaluation = Evaluation(**CALLED)
    evaluation.write(tmp_path)
    chromium.get((tmp_path / "report.html").as_uri())
    settle(chromium)
    page = chromium
    options = [o.get_attribute("value") for o in page.find_elements(By.CSS_SELECTOR, "datalist *")]
    assert options[:4] == ["gina", "<b>hugo", "0007", "5"]
    camera = [o.text for o in page.find_elements(By.CSS_SELECTOR, "#camera option")]
    assert camera == ["all", "lobby", r"yard\n", "3"]
    search, pids = page.find_element(By.ID, "search"), evaluation.query.pids
    for words, pid in (("GINA", 1), ("hugo", 2), ("7", 4), ("0007", 4), ("5", 5)):
        search.clear()
        search.send_keys(words)
        settle(page)
        assert sorted(rows(page)) == np.flatnonzero(pids == pid).tolist(), words
    search.clear()
    search.send_keys("gina")
    settle(page)
    line = page.find_element(By.CSS_SELECTOR, f'[data-query="{rows(page)[0]}"]').text
    assert "Identity gina" in line
    assert "id gina" in line
    assert "id 1" not in line


def test_unknown_cameras_are_left_out(chromium, tmp_path):
    evaluation = Evaluation(identity_names={1: "gina"}, has_cameras=False)
    evaluation.write(tmp_path)
    chromium.get("about:blank")
    chromium.get_log("browser")
    chromium.get((tmp_path / "report.html").as_uri())
    settle(chromium)
    assert not chromium.find_element(By.ID, "camera").is_displayed()
    query = rows(chromium)[0]
    row = chromium.find_element(By.CSS_SELECTOR, f'[data-query="{query}"]')
    label = row.get_attribute("aria-label")
    row.click()
    assert is_open(chromium, "view")
    assert text(chromium, "view-title").startswith("Identity ")
    shown = row.text + label + text(chromium, "view-title") + text(chromium, "view-body")
    assert "distance" in shown
    assert "Grad-CAM" in shown
    assert not re.search(r"camera|\bcam |undefined|c\d ·", shown)
    assert chromium.get_log("browser") == []


def test_a_click_opens_the_large_view(page):
    query, after = rows(page)[1:3]
    page.find_element(By.CSS_SELECTOR, f'[data-query="{query}"]').click()
    assert is_open(page, "view")
    body = text(page, "view-body")
    assert "Stage II" in body
    assert "2 of 24" in body
    assert "distance" in body
    press(page, "j")
    assert "3 of 24" in text(page, "view-body")
    page.find_element(By.ID, "previous").click()
    press(page, Keys.ARROW_LEFT, "k")  # The first query has no predecessor.
    assert "1 of 24" in text(page, "view-body")
    press(page, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert "3 of 24" in text(page, "view-body")
    press(page, Keys.ESCAPE)
    settle(page)
    assert not is_open(page, "view")
    assert current(page) == after  # The list follows the viewer.


def test_filters_narrow(page, evaluation):
    query, first = evaluation.query, [r[0] if len(r) else 0 for r in evaluation.result.ranks]
    search = page.find_element(By.ID, "search")

    def check(expected):
        assert sorted(rows(page)) == [i for i in range(24) if expected(i)]
        assert text(page, "count") == f"{len(rows(page))} of 24 queries"
        assert 0 < len(rows(page)) < 24

    page.find_element(By.CSS_SELECTOR, "#camera option[value='2']").click()
    check(lambda i: query.camids[i] == 2)
    page.find_element(By.CSS_SELECTOR, "[value=failures]").click()
    check(lambda i: query.camids[i] == 2 and first[i] != 1)
    page.find_element(By.CSS_SELECTOR, "#camera option[value='']").click()
    check(lambda i: first[i] != 1)
    page.find_element(By.CSS_SELECTOR, "[value=all]").click()
    pid = int(query.pids[0])
    search.send_keys(str(pid))
    check(lambda i: query.pids[i] == pid)
    search.clear()
    search.send_keys("QUOTED &AMP;")  # A part of a file's name.
    check(lambda i: i == 2)
    search.clear()
    search.send_keys("12345")
    assert rows(page) == []
    page.find_element(By.ID, "clear").click()
    assert len(rows(page)) == 24


def test_all_works_without_a_mouse(page):
    order = rows(page)
    assert current(page) is None
    press(page, "j")
    assert current(page) == order[0]
    press(page, "j", Keys.ARROW_DOWN, "k", Keys.ARROW_UP, Keys.ARROW_DOWN)
    assert current(page) == order[1]
    outline = page.execute_script("return getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    press(page, Keys.END)
    assert current(page) == order[-1]
    box = page.execute_script("return document.activeElement.getBoundingClientRect().toJSON()")
    assert 0 <= box["top"] < box["bottom"] <= 800
    press(page, "j")
    assert current(page) == order[-1]
    press(page, Keys.HOME)
    assert current(page) == order[0]
    top = page.execute_script(
        "return document.activeElement.getBoundingClientRect().top"
        " - document.getElementById('filters').getBoundingClientRect().bottom"
    )
    assert top >= 0  # The bar of filters does not hide it.

    for key in (Keys.ENTER, Keys.SPACE):
        press(page, key)
        assert is_open(page, "view")
        press(page, Keys.ESCAPE)
        assert not is_open(page, "view")
        assert current(page) == order[0]

    press(page, "/")
    assert page.switch_to.active_element.get_attribute("id") == "search"
    press(page, "j")  # Here it is a letter of the search text.
    assert page.switch_to.active_element.get_attribute("value") == "j"
    press(page, Keys.BACKSPACE, Keys.ESCAPE)
    assert current(page) == order[0]
    press(page, "?")
    assert is_open(page, "help")
    press(page, "j", Keys.ESCAPE)
    assert not is_open(page, "help")
    # All queries are one stop of the Tab key.
    assert len(page.find_elements(By.CSS_SELECTOR, '.query[tabindex="0"]')) == 1


def test_maps_are_enlarged_and_coloured_as_in_figures(page, evaluation, folder):
    query = rows(page)[0]
    shape = page.execute_script(
        "const canvas = document.querySelector('canvas'); return [canvas.height, canvas.width]"
    )
    assert shape == [128, 64]
    pixels = page.execute_script(
        "const canvas = document.querySelector('canvas');"
        "return [...canvas.getContext('2d').getImageData(0, 0, 64, 128).data]"
    )
    pixels = np.array(pixels, float).reshape(128, 64, 4)
    image = evaluation.pixels["query"][query] / 255
    red = (image[..., 0] - 0.485) / 0.229
    cam = np.maximum(red.reshape(6, 8, 3, 8).mean(axis=(1, 3)), 0).astype(np.float32)
    cam = np.round(255 * cam / cam.max()) / 255
    cam = np.asarray(Image.fromarray(cam.astype(np.float32)).resize((64, 128), Image.BILINEAR))
    np.testing.assert_allclose(pixels[..., 3], 255 * 0.75 * np.sqrt(cam), atol=2)
    colors = 255 * mpl.colormaps["turbo"](cam)[..., :3]
    seen = pixels[..., 3] > 80
    assert seen.mean() > 0.3
    np.testing.assert_allclose(pixels[seen][:, :3], colors[seen], atol=10)


def test_dark_and_light_wide_and_narrow(page):
    def look(scheme, width):
        feature = {"name": "prefers-color-scheme", "value": scheme}
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", WINDOW | {"width": width})
        settle(page)
        script = "return document.documentElement.scrollWidth <= innerWidth"
        assert page.execute_script(script)  # The page is not wider than the window.
        return np.median(shot(page))

    assert look("light", 1200) > 230
    assert look("dark", 1200) < 40
    assert look("dark", 400) < 40
    assert look("light", 400) > 230
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", WINDOW)


def test_on_paper_every_row_is_drawn(page):
    page.execute_script("dispatchEvent(new Event('beforeprint'))")
    assert page.execute_script("return document.querySelectorAll('.query > .strip').length") == 24
    assert "first 24 of 24" in page.execute_script(
        "return document.getElementById('printed').textContent"
    )
    page.execute_script("dispatchEvent(new Event('afterprint'))")
    settle(page)
    time.sleep(0.1)
    assert page.execute_script("return document.querySelectorAll('.query > .strip').length") < 24


def test_images_beside_the_page(page, folder):
    path = folder / "beside" / "report.html"
    page.get(path.as_uri())
    settle(page)
    sizes = page.execute_script("return [...document.images].map((image) => image.naturalWidth)")
    assert set(sizes) == {24}
    assert len(sizes) > 30
    asked = [address for address in requests(page) if "beside" in address]
    assert len(asked) > 10
    assert all(address.startswith(path.parent.as_uri()) for address in asked)
    assert len(page.find_elements(By.CSS_SELECTOR, ".query canvas")) > 6


def difficult(driver, folder, width):
    """Open the page of `Difficult` at a width, and scroll to query 0."""
    size = {"width": width, "height": 844 if width < 720 else 800, "mobile": width < 720}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", WINDOW | size)
    driver.get((folder / "missed" / "report.html").as_uri())
    settle(driver)
    driver.execute_script("document.querySelector('[data-query=\"0\"]').scrollIntoView()")
    settle(driver)


@pytest.fixture(params=[390, 1064])
def width(chromium, folder, request):
    difficult(chromium, folder, request.param)
    yield request.param
    chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", WINDOW)


def boxes(driver, selector):
    """Left, top, right and bottom of the elements, in pixels from the window's corner."""
    return driver.execute_script(
        "return [...document.querySelectorAll(arguments[0])].map((element) => {"
        "  const box = element.getBoundingClientRect();"
        "  return [box.left, box.top, box.right, box.bottom]; })",
        selector,
    )


def test_everything_fits_into_the_width(chromium, width):
    def check():
        assert chromium.execute_script("return innerWidth") == width
        root = "document.documentElement"  # Its clientWidth is without the scrollbar.
        script = f"return {root}.scrollWidth <= {root}.clientWidth"
        assert chromium.execute_script(script)
        for selector in (".chart", ".query figure", "#view[open] figure", ".frame"):
            for left, _, right, _ in boxes(chromium, selector):
                assert 0 <= left < right <= width, selector
        # No element hides a part of its content, except names with an ellipsis.
        hidden = chromium.execute_script(
            "return [...document.querySelectorAll('body *:not(.unseen, .skip, svg *)')].filter("
            "  (e) => e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).overflowX !=="
            "    'visible' && !e.matches('.name')).map((e) => e.outerHTML.slice(0, 200))"
        )
        assert hidden == []
        loaded = "return [...document.images].every((image) => image.naturalWidth === 24)"
        assert chromium.execute_script(loaded)

    check()
    assert len(boxes(chromium, ".chart")) == 6
    # Each row is as high as its content, with a little space below it.
    for query in rows(chromium)[:3]:
        row = f'[data-query="{query}"]'
        ((*_, below),) = boxes(chromium, row)
        lowest = max(box[3] for box in boxes(chromium, f"{row} figure"))
        assert 0 <= below - lowest < 40
        assert len(boxes(chromium, f"{row} {FOUND}")) == 10
    chromium.find_element(By.CSS_SELECTOR, '[data-query="0"]').click()
    settle(chromium)
    check()


@pytest.mark.parametrize("place", ['[data-query="0"]', "#view[open]"])
def test_matches_come_before_gradcam(chromium, width, place):
    if place != '[data-query="0"]':
        chromium.find_element(By.CSS_SELECTOR, '[data-query="0"]').click()
        settle(chromium)
    (match, *others), (cam, *_) = (
        boxes(chromium, f"{place} figure:has({kind})") for kind in (".good, .bad", ".cam")
    )
    assert len(others) == 10
    if width == 390 or place == "#view[open]":
        assert max(box[3] for box in others) <= cam[1]
    assert (match[1], match[0]) < (cam[1], cam[0])


def test_the_first_match_beyond_the_list_is_shown(chromium, folder, width):
    evaluation = Difficult()
    (match, *_), (distance, *_) = first_matches(evaluation.query, evaluation.gallery)
    rank = evaluation.result.ranks[0][0]
    assert rank > 10
    cell = chromium.find_element(By.CSS_SELECTOR, '[data-query="0"] .missed')
    tag, who, where = cell.text.split("\n")
    assert tag == f"{rank} ✓"
    assert who == f"id {evaluation.query.pids[0]}"
    assert where == f"c{evaluation.gallery.camids[match]} · {distance:.3g}"
    assert cell.find_element(By.TAG_NAME, "img").get_attribute("alt").startswith(f"Rank {rank}, r")
    missed = [len(r) > 0 and r[0] > 10 for r in evaluation.result.ranks]
    assert 0 < sum(missed) < 24
    late = chromium.find_elements(By.CSS_SELECTOR, ".query.late")
    assert {int(row.get_attribute("data-query")) for row in late} == set(np.flatnonzero(missed))
    chromium.find_element(By.CSS_SELECTOR, '[data-query="0"]').click()
    large = chromium.find_element(By.CSS_SELECTOR, "#view .missed").text.split("\n")
    assert large[0] == f"{rank} ✓"
    assert large[3] == f"distance {distance:.3g}"


def test_a_map_of_zeros_is_labelled(chromium, width):
    cams = chromium.find_elements(By.CSS_SELECTOR, '[data-query="0"] figure:has(.cam)')
    assert [cam.text.split("\n")[1:] for cam in cams] == [["Grad-CAM", "all zero"], ["Grad-CAM"]]
    labels = [cam.find_element(By.TAG_NAME, "canvas").get_attribute("aria-label") for cam in cams]
    assert labels == ["Grad-CAM of Stage I, zero everywhere", "Grad-CAM of Stage II"]


class Fixed(Evaluation):
    """Six queries that look the same on every machine: synthetic pedestrians and plain names."""

    def __init__(self):
        super().__init__(queries=6, gallery=30)
        for name, part in (("query", self.query), ("gallery", self.gallery)):
            for i, (pid, camid) in enumerate(zip(part.pids, part.camids, strict=True)):
                person = Image.fromarray(capture.draw(0, max(int(pid), 1), int(camid), i))
                self.pixels[name][i] = np.asarray(person.resize((24, 48)))
        root = self.dataset.root
        self.gallery_paths = [f"{root}/gallery/{i}.jpg" for i in range(30)]
        paths = tuple(f"{root}/query/{i}.jpg" for i in range(6))
        query = Split(paths, self.query.pids, self.query.camids)
        self.dataset = dataclasses.replace(self.dataset, query=query)


@pytest.fixture(scope="module")
def fixed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fixed")
    curves = visualize.curve_figures(LOGGED)
    Fixed().write(folder, facts={"Run": "runs/fixed", "Network": "pmm"}, curves=curves)
    return folder / "report.html"


# Widths and heights of the window, in pixels, and pixels per cell of a reference.
SIZES = {1280: 1500, 390: 3600}
CELL = 10
REFERENCES = pathlib.Path(__file__).parent / "references"
# Another version of Chromium may set lines a pixel apart.
REFERENCES_ARE_OF = "156"


def use_one_font(driver):
    """Draw all text in matplotlib's font, so that the machine's fonts do not matter."""
    for weight, file in ((400, "DejaVuSans.ttf"), (700, "DejaVuSans-Bold.ttf")):
        font = pathlib.Path(mpl.get_data_path(), "fonts", "ttf", file).read_bytes()
        driver.execute_async_script(
            "const bytes = Uint8Array.from(atob(arguments[0]), (c) => c.charCodeAt(0));"
            "const font = new FontFace('Fixed', bytes.buffer, {weight: arguments[1]});"
            "document.fonts.add(font); font.load().then(arguments[2], arguments[2]);",
            base64.b64encode(font).decode(),
            str(weight),
        )
    driver.execute_script(
        "const sheet = new CSSStyleSheet();"
        "sheet.replaceSync('* { font-family: Fixed !important; transition: none !important; }"
        "  html { scrollbar-width: none; }');"
        "document.adoptedStyleSheets = [sheet]; dispatchEvent(new Event('resize'));"
    )
    settle(driver)


def cells(pixels):
    """Mean grey of each cell, from 0 to 255."""
    grey = pixels.mean(axis=2)
    rows, columns = (size // CELL for size in grey.shape)
    grey = grey[: rows * CELL, : columns * CELL].reshape(rows, CELL, columns, CELL)
    return grey.mean(axis=(1, 3))


@pytest.mark.parametrize("what", ["page", "view"])
@pytest.mark.parametrize("width", SIZES)
def test_the_page_looks_as_before(chromium, fixed, tmp_path, width, what):
    """Cells of a screenshot are as bright as in the reference."""
    version = chromium.capabilities["browserVersion"].partition(".")[0]
    if version != REFERENCES_ARE_OF:
        pytest.skip(f"the references are of Chromium {REFERENCES_ARE_OF}, and this is {version}")
    size = {"width": width, "height": SIZES[width], "mobile": width < 720}
    chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", WINDOW | size)
    try:
        chromium.get(fixed.as_uri())
        settle(chromium)
        use_one_font(chromium)
        if what == "view":
            press(chromium, "j", Keys.ENTER)
            settle(chromium)
        found = cells(shot(chromium))
    finally:
        chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", WINDOW)
    reference, today = REFERENCES / f"{what}_{width}.png", tmp_path / f"{what}_{width}.png"
    Image.fromarray(found.round().astype(np.uint8)).save(today)
    with Image.open(reference) as image:
        expected = np.asarray(image, float)
    assert found.shape == expected.shape
    rows, columns = np.nonzero(np.abs(found - expected) > 8)
    assert len(rows) <= 5, (
        f"{len(rows)} cells differ, between the pixels x {CELL * columns.min()}, "
        f"y {CELL * rows.min()} and x {CELL * columns.max() + CELL}, y {CELL * rows.max() + CELL}: "
        f"look at both pictures, and if today's is right, copy {today} to {reference}"
    )
