"""The report in a real browser: nothing asked for, nothing complained of, usable by keyboard, and no barrier axe-core knows."""

import importlib.util
import shutil
import sys
from pathlib import Path

import pytest

pytest.importorskip("selenium", reason="selenium drives the browser; it is in the extra 'test'")
if not (shutil.which("chromium") and shutil.which("chromedriver")):
    pytest.skip("no chromium with its chromedriver here (Debian: chromium, chromium-driver)", allow_module_level=True)


def _driving():
    """Return how the benchmark drives a browser: one way for both."""
    path = Path(__file__).resolve().parents[3] / "benchmarks" / "report_browser.py"
    spec = importlib.util.spec_from_file_location("report_browser", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["report_browser"] = module
    spec.loader.exec_module(module)
    return module


browsing = _driving()
#: Summaries that do not lie within another closed one.
_REACHABLE = (
    "return [...document.querySelectorAll('summary')].filter("
    "e => !e.parentElement.parentElement.closest('details:not([open])')).length"
)


@pytest.fixture(scope="module")
def driver():
    with browsing.browser() as driver:
        yield driver


@pytest.fixture
def opened(driver, small_results):
    browsing.dark(driver, "light")
    driver.get_log("performance")
    driver.get_log("browser")
    times = browsing.load(driver, small_results / "report.html")
    return driver, times


def shown(driver, selector):
    """Return how many figures' parts a reader sees."""
    script = (
        "return [...document.querySelectorAll(arguments[0])].filter(e => getComputedStyle(e).display != 'none').length"
    )
    return driver.execute_script(script, selector)


def test_it_loads_quickly_asks_for_nothing_and_complains_of_nothing(opened):
    driver, times = opened
    assert times["load"] < 3
    assert browsing.asked_for(driver) == []
    assert driver.get_log("browser") == []


def test_the_keyboard_reaches_everything_in_order(opened):
    driver, _ = opened
    stops = browsing.walk(driver)
    assert stops[0]["name"] == "Skip to the answer"
    tags = [s["tag"] for s in stops]
    contents = driver.execute_script("return document.querySelectorAll('nav a').length")
    assert tags[1 : 1 + contents] == ["a"] * contents
    assert [s["id"] for s in stops if s["tag"] == "input"] == [
        "axis-usual",
        "show-means",
    ]  # one stop a group; arrows move within
    folded = driver.execute_script(_REACHABLE)
    assert tags.count("summary") == folded
    assert all(s["outline"] != "none" for s in stops if s["tag"] in ("a", "summary")), "focus must be seen"
    tables = [s for s in stops if s["role"] == "region"]
    assert tables
    assert all(s["name"] for s in tables)


def test_switches_work_by_keyboard(opened):
    from selenium.webdriver.common.keys import Keys

    driver, _ = opened
    before = {s: shown(driver, f"#curves .{s}") for s in ("lin", "log", "mean", "each")}
    figures = driver.execute_script("return document.querySelectorAll('#curves figure').length")
    assert before["lin"] + before["log"] == figures
    assert before["each"] == 0 < before["mean"]
    driver.find_element("id", "axis-usual").send_keys(Keys.ARROW_RIGHT)
    assert (shown(driver, "#curves .lin"), shown(driver, "#curves .log")) == (figures, 0)
    driver.find_element("id", "axis-linear").send_keys(Keys.ARROW_RIGHT)
    logarithmic = driver.execute_script("return document.querySelectorAll('#curves .two').length")
    assert (shown(driver, "#curves .lin"), shown(driver, "#curves .log")) == (figures - logarithmic, logarithmic)
    driver.find_element("id", "show-means").send_keys(Keys.ARROW_RIGHT)
    assert shown(driver, "#curves .mean") == 0 < shown(driver, "#curves .each")


def test_figures_follow_a_dark_screen_and_paper_stays_white(opened):
    driver, _ = opened
    colours = "return [getComputedStyle(document.body).backgroundColor, getComputedStyle(document.querySelector('.fig .s0')).color]"
    light = driver.execute_script(colours)
    browsing.dark(driver)
    dark = driver.execute_script(colours)
    assert light[0] == "rgb(255, 255, 255)"
    assert dark[0] != light[0]
    assert dark[1] != light[1]
    driver.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {"media": "print", "features": [{"name": "prefers-color-scheme", "value": "dark"}]},
    )
    assert driver.execute_script(colours) == light
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})


def test_a_narrow_screen_needs_no_sideways_scrolling(opened):
    driver, _ = opened
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": False}
    )
    driver.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert driver.execute_script("return document.documentElement.scrollWidth") <= 360
    driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.parametrize(("scheme", "rules"), [("light", ""), ("dark", "color-contrast")])
def test_axe_finds_no_barrier(opened, scheme, rules):
    axe = browsing.axe_file()
    if axe is None:
        pytest.skip(
            "axe-core is not here: npm install axe-core@4, and EVBIODIST_NODE names the folder with node_modules"
        )
    driver, _ = opened
    browsing.dark(driver, scheme)
    assert browsing.violations(driver, axe, rules=rules) == []
