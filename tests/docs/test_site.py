"""The site is built without a warning, its notebooks show pictures, and no page is too wide."""

import os
import re
import shutil
import subprocess
import sys

import pytest

from tests.docs.pages import ROOT

pytest.importorskip("myst_nb", reason="the extra `docs` is not installed")

pytestmark = pytest.mark.extras

WIDTHS = (390, 1280)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site. Its notebooks are executed."""
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "docs", str(out)]
    # Notebooks train for hundreds of steps: these are slow without optimisation.
    environment = os.environ | {"XLA_FLAGS": ""}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return out


@pytest.mark.slow
def test_every_page_is_on_the_site(site):
    for page in (ROOT / "docs").rglob("*.md"):
        built = site / page.relative_to(ROOT / "docs").with_suffix(".html")
        assert built.exists(), page


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "least", "printed"),
    [
        ("train_evaluate_look", 3, "mAP"),
        ("embed_search_look", 4, ": nobody"),
    ],
)
def test_notebooks_show_pictures(site, name, least, printed):
    text = (site / "notebooks" / f"{name}.html").read_text(encoding="utf-8")
    assert printed in text
    pictures = re.findall(r'src="\.\./(_images/[0-9a-f]+\.png)"', text)
    assert len(pictures) >= least
    assert all((site / picture).stat().st_size > 5000 for picture in pictures)


@pytest.mark.slow
def test_no_page_is_wider_than_a_window(site):
    """On a telephone and on a desktop: wide tables and code scroll within the page."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="Selenium is not installed")
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (browser and driver):
        pytest.skip("Chromium and chromedriver are not installed")
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    window = webdriver.Chrome(options, Service(driver))
    try:
        for width in WIDTHS:
            size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
            window.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            for page in sorted(site.rglob("*.html")):
                window.get(page.as_uri())
                taken = window.execute_script("return document.documentElement.scrollWidth")
                assert taken <= width, f"{page.name} takes {taken} of {width} pixels"
    finally:
        window.quit()
