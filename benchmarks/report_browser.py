"""The report in a browser: time to load, size, errors, network, accessibility and the keyboard, of a small and a large study.

Needs Debian's chromium and chromium-driver. axe-core is found in $EVBIODIST_AXE (axe.min.js) or in node_modules of $EVBIODIST_NODE;
`npm install axe-core@4` makes it. Usage: python benchmarks/report_browser.py [--results FOLDER] [--animals 500] [--work FOLDER]
Prints the tables of docs/report.md.
"""

from __future__ import annotations

import argparse
import math
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import which
from typing import Any

import numpy as np

LABELS = {"DiR": "fluorescence", "NanoLuc": "bioluminescence", "mCherry": "fluorescence", "111In": "radioactive"}
TIMES = (0.083, 0.5, 2.0, 8.0, 24.0)
#: Organs with their uptake and loss (1/h) from 2.9 g of blood, which also loses 0.4/h.
ORGANS = {
    "liver": (1.9, 0.03),
    "spleen": (0.25, 0.02),
    "kidney": (0.25, 0.09),
    "lung": (0.15, 0.12),
    "brain": (0.04, 0.03),
}
_BLOOD_G, _LOSS = 2.9, 0.4


def true_values() -> dict[float, dict[str, float]]:
    """Return % of dose of every organ, and % of dose a gram of blood, at the times of the study."""
    from scipy.linalg import expm

    rates = np.zeros((len(ORGANS) + 1,) * 2)
    for i, (uptake, loss) in enumerate(ORGANS.values(), start=1):
        rates[0, 0] -= uptake
        rates[i, 0], rates[0, i], rates[i, i] = uptake, loss, -loss
    rates[0, 0] -= _LOSS
    amounts = {t: 100 * expm(rates * t)[:, 0] for t in TIMES}
    return {t: {"blood": a[0] / _BLOOD_G} | dict(zip(ORGANS, a[1:], strict=True)) for t, a in amounts.items()}


def write_many(folder: Path, animals: int, seed: int = 8) -> None:
    """Write a study of many animals as tables: half sampled once (serial sacrifice), half followed over time, four labels."""
    rng, truth = np.random.default_rng(seed), true_values()
    subjects = ["subject,label,dose,dose_unit,route,group,sex,weight_g,perfused"]
    rows = ["subject,label,organ,time_h,value,se,unit,group"]
    for i in range(animals):
        name, label, followed = f"m{i:04d}", list(LABELS)[i // 2 % 4], i % 2 == 1
        group, own = ("followed" if followed else "sacrificed"), np.exp(rng.normal(0, 0.15))
        subjects.append(
            f"{name},{label},1e10,particles,iv_bolus,{group},{'FM'[i // 8 % 2]},{rng.normal(22, 2):.1f},yes"
        )
        for t in TIMES if followed else (TIMES[i // 16 % len(TIMES)],):
            for organ, value in truth[t].items():
                seen = value * own * np.exp(rng.normal(0, 0.1))
                unit = "pct_id_per_g" if organ == "blood" else "pct_id"
                rows.append(f"{name},{label},{organ},{t},{seen:.6g},{0.05 * seen:.4g},{unit},{group}")
    (folder / "study.toml").write_text(_study_text(f"{animals} animals"))
    (folder / "subjects.csv").write_text("\n".join(subjects) + "\n")
    (folder / "observations.csv").write_text("\n".join(rows) + "\n")


def _study_text(name: str) -> str:
    lines = [f'name = "{name}"', "simulated = true"]
    for label, kind in LABELS.items():
        lines += [
            f'[labels."{label}"]',
            f'kind = "{kind}"',
            *([f'isotope = "{label}"'] if kind == "radioactive" else []),
        ]
    return "\n".join([*lines, "[tables]", 'subjects = "subjects.csv"', 'observations = ["observations.csv"]\n'])


def axe_file() -> Path | None:
    """Return axe.min.js where the environment has it."""
    named = [Path(os.environ["EVBIODIST_AXE"])] if "EVBIODIST_AXE" in os.environ else []
    if "EVBIODIST_NODE" in os.environ:
        named.append(Path(os.environ["EVBIODIST_NODE"]) / "node_modules" / "axe-core" / "axe.min.js")
    return next((p for p in named if p.is_file()), None)


_FLAGS = ("headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking",
          "disable-component-update", "disable-sync", "disable-dev-shm-usage", "hide-scrollbars", "window-size=1400,1000")  # fmt: skip


@contextmanager
def browser() -> Iterator[Any]:
    """Start a headless Chromium that writes down what its pages load and complain of, and end it."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = which("chromium") or ""
    for flag in _FLAGS:
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(which("chromedriver")))
    driver.set_script_timeout(300)  # axe looks at every element
    try:
        yield driver
    finally:
        driver.quit()


def dark(driver: Any, scheme: str = "dark") -> None:
    """Show pages as a reader with a dark screen sees them."""
    driver.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )


def load(driver: Any, page: Path) -> dict[str, float]:
    """Open a page and return when it was read, drawn first, and loaded (seconds since navigation)."""
    driver.get(page.resolve().as_uri())
    return driver.execute_script(
        "const n = performance.getEntriesByType('navigation')[0], p = performance.getEntriesByName('first-contentful-paint')[0];"
        "return {first: (p ? p.startTime : NaN) / 1e3, dom: n.domContentLoadedEventEnd / 1e3, load: n.loadEventEnd / 1e3,"
        " elements: document.getElementsByTagName('*').length}"
    )


def asked_for(driver: Any) -> list[str]:
    """Return the addresses that pages asked for since the last call, but for files and data within the page."""
    import json

    found = []
    for entry in driver.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            found.append(message["params"]["request"]["url"])
    return [url for url in found if not url.startswith(("file:", "data:"))]


def violations(driver: Any, axe: Path, *, rules: str = "") -> list[str]:
    """Return what axe-core finds wrong with the page that is open, all of it unfolded; by one rule only where one is named."""
    driver.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    driver.execute_script(axe.read_text(encoding="utf-8"))
    options = {"resultTypes": ["violations"], **({"runOnly": [rules]} if rules else {})}
    found = driver.execute_async_script(
        "const done = arguments[1]; axe.run(document, arguments[0]).then(r => done(r.violations))", options
    )
    return [f"{v['id']} ({v['impact']}): {n['html'][:120]}" for v in found for n in v["nodes"]]


def walk(driver: Any, most: int = 400) -> list[dict[str, str]]:
    """Press Tab from the top of the page to its end and return what had the focus."""
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    driver.execute_script("document.activeElement.blur(); window.scrollTo(0, 0)")
    stops: list[dict[str, str]] = []
    for _ in range(most):
        ActionChains(driver).send_keys(Keys.TAB).perform()
        stop = driver.execute_script(
            "const e = document.activeElement; return {tag: e.tagName.toLowerCase(), id: e.id, role: e.getAttribute('role') || '',"
            " name: e.getAttribute('aria-label') || e.textContent.trim().slice(0, 60), outline: getComputedStyle(e).outlineStyle}"
        )
        if stop["tag"] == "body" or (stops and stop == stops[0]):
            break
        stops.append(stop)
    return stops


def measure(name: str, results: Path, driver: Any) -> str:
    """Return a row of the table: how quick and how clean a report is."""
    from evbiodist.report.html import write_report

    start = time.perf_counter()
    page = write_report(results)
    built = time.perf_counter() - start
    driver.get_log("performance"), driver.get_log("browser")
    times = [load(driver, page) for _ in range(3)]
    complaints, network = driver.get_log("browser"), asked_for(driver)
    stops = walk(driver)
    axe, found = axe_file(), []
    for scheme in ("light", "dark") if axe else ():
        dark(driver, scheme)
        found += violations(driver, axe, rules="color-contrast" if scheme == "dark" else "")
    dark(driver, "light")
    for line in found[:10]:
        print("  ", line)
    middle = {k: float(np.median([t[k] for t in times])) for k in times[0]}
    cells = [name, f"{page.stat().st_size / 1e6:.2f}", f"{middle['elements']:.0f}", f"{built:.1f}", f"{middle['first']:.2f}",
             f"{middle['load']:.2f}", len(complaints), len(network), len(found) if axe else "not run", len(stops)]  # fmt: skip
    return f"| {' | '.join(str(c) for c in cells)} |"


def ways_to_draw(results: Path, driver: Any, work: Path) -> list[str]:
    """Return rows of the second table: one page with the curves of a study, drawn in three ways, and what each costs."""
    from evbiodist.report.curves import fitted_curves
    from evbiodist.report.figures import colours, means, organ_curve, slots
    from evbiodist.report.folder import read_results

    found = read_results(results)
    seen, labels = found["observations"], sorted(found["observations"]["label"].unique())
    place, palette = slots(labels), colours(labels)
    panels = [(here, seen[(seen["group"] == g) & (seen["organ"] == o) & (seen["unit"] == u)], fitted_curves(found["curves"], g, o, u))
              for (g, o, u), here in means(seen).groupby(["group", "organ", "unit"])]  # fmt: skip
    altair_chart(*panels[0], palette, svg=True)  # the renderer starts once
    rows = []
    for name, draw in (
        ("own SVG (two layers, values on every point)", lambda p: organ_curve(*p, place, log_y=False)),
        ("Altair, vl-convert to SVG (means only, no values)", lambda p: altair_chart(*p, palette, svg=True)),
        ("Altair, vega-embed (needs script; means only)", lambda p: altair_chart(*p, palette, svg=False)),
    ):
        start = time.perf_counter()
        drawn = [draw(p) for p in panels]
        built = (time.perf_counter() - start) / len(panels)
        page = work / "drawn.html"
        page.write_text(_page(drawn), encoding="utf-8")
        times = [_drawn(driver, page, len(panels)) for _ in range(3)]
        kilobytes = sum(len(d) for d in drawn) / len(drawn) / 1e3
        rows.append(
            f"| {name} | {1e3 * built:.1f} | {kilobytes:.0f} | {page.stat().st_size / 1e6:.2f} | {np.median(times):.2f} |"
        )
    return rows


def altair_chart(points: Any, animals: Any, curves: Any, palette: dict[str, str], *, svg: bool) -> str:
    """Return one panel as a renderer of charts draws it: as SVG, or as a chart for a script to draw."""
    import altair as alt
    import vl_convert

    colour = alt.Color("label:N", scale=alt.Scale(domain=list(palette), range=list(palette.values())), legend=None)
    first = points.loc[points["time_h"] > 0, "time_h"].min() / 2
    x = alt.X("time_h:Q", scale=alt.Scale(type="log"))
    layers: list[Any] = []
    if len(curves):
        fit = alt.Chart(curves[curves["time_h"] >= first])
        layers += [fit.mark_area(opacity=0.15).encode(x=x, y="low:Q", y2="high:Q", color=colour),
                   fit.mark_line().encode(x=x, y="value:Q", color=colour)]  # fmt: skip
    means = alt.Chart(points[points["time_h"] > 0])
    layers += [means.mark_rule().encode(x=x, y="low:Q", y2="high:Q", color=colour),
               means.mark_point(filled=True).encode(x=x, y="mean:Q", color=colour)]  # fmt: skip
    chart = alt.layer(*layers).properties(width=250, height=165).to_json(indent=None)
    return str(vl_convert.vegalite_to_svg(chart)) if svg else chart


def _page(drawn: list[str]) -> str:
    """Return a page of figures; charts bring the script that draws them."""
    import vl_convert

    if drawn[0].startswith("<svg"):
        return f"<!doctype html><title>x</title>{''.join(drawn)}"
    charts = [chart.replace("</", "<\\/") for chart in drawn]
    calls = "".join(f"embed('#v{i}', {chart});" for i, chart in enumerate(charts))
    places = "".join(f'<div id="v{i}"></div>' for i in range(len(drawn)))
    bundle = vl_convert.javascript_bundle("window.embed = vegaEmbed;")
    return f"<!doctype html><meta charset=utf-8><title>x</title>{places}<script type=module>{bundle}\n{calls}</script>"


def _drawn(driver: Any, page: Path, figures: int) -> float:
    """Return the seconds from asking for a page to its last figure."""
    start = time.perf_counter()
    driver.get(page.resolve().as_uri())
    while driver.execute_script("return document.querySelectorAll('svg, canvas').length") < figures:
        if time.perf_counter() - start > 60:
            return math.nan
        time.sleep(0.01)
    return time.perf_counter() - start


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, help="a result folder of the sample study; run afresh when left out")
    parser.add_argument("--animals", type=int, default=500)
    parser.add_argument("--work", type=Path, help="keep the large study here")
    asked = parser.parse_args()
    import evbiodist as ev
    from evbiodist.sample import sample_data

    with tempfile.TemporaryDirectory() as temporary:
        work = asked.work or Path(temporary)
        many = work / "many"
        if not (many / "results" / "study.json").is_file():
            many.mkdir(parents=True, exist_ok=True)
            write_many(many, asked.animals)
            ev.run(many, many / "results")
        sample = asked.results or work / "sample"
        if not asked.results:
            ev.run(sample_data() / "demo", sample)
        with browser() as driver:
            reports = [("sample study", sample), (f"{asked.animals} animals", many / "results")]
            rows = [measure(name, folder, driver) for name, folder in reports]
            ways = ways_to_draw(sample, driver, Path(temporary))
    print("| report | MB | elements | built s | first drawn s | loaded s | console | network | axe | Tab stops |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    print("\n".join(rows))
    print("\n| figures | ms a figure | kB a figure | page MB | page drawn s |")
    print("|---|---|---|---|---|")
    print("\n".join(ways))


if __name__ == "__main__":
    main()
