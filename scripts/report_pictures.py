"""Pictures of the report for the documentation: light, dark, printed, and of a study of 500 animals; to be looked at by eye.

Needs Debian's chromium and chromium-driver, and poppler's pdftoppm for the printed page.
Usage: python scripts/report_pictures.py RESULTS [--many RESULTS] [--out docs/pictures]
"""

from __future__ import annotations

import argparse
import base64
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

from report_browser import browser, dark


def picture(driver: Any, path: Path, *, section: str = "", height: int = 1500) -> None:
    """Save what a window shows, from the top of the page or of a section."""
    from PIL import Image

    driver.set_window_size(1400, height)
    driver.execute_script("document.querySelector(arguments[0]).scrollIntoView()", section or "h1")
    driver.save_screenshot(str(path))
    with Image.open(path) as shown:
        shown.convert("RGB").save(path, optimize=True)
    print(path)


def printed(driver: Any, path: Path, page: int) -> None:
    """Save one page of the report printed on A4."""
    pdf = path.with_suffix(".pdf")
    pdf.write_bytes(
        base64.b64decode(
            driver.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True, "printBackground": True})["data"]
        )
    )
    pages = ["-f", str(page), "-l", str(page), "-singlefile"]
    subprocess.run(["pdftoppm", "-png", "-r", "80", *pages, pdf, path.with_suffix("")], check=True)  # noqa: S603, S607 - a fixed command
    pdf.unlink()
    print(path)


def main() -> None:
    """Make the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("--many", type=Path, help="results of a study of 500 animals")
    parser.add_argument("--out", type=Path, default=Path("docs/pictures"))
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    with browser() as driver:
        driver.get((asked.results / "report.html").resolve().as_uri())
        picture(driver, asked.out / "report.png", height=1180)
        picture(driver, asked.out / "labels.png", section="#labels", height=1500)
        picture(driver, asked.out / "report_curves.png", section="#curves", height=1250)
        picture(driver, asked.out / "report_fit.png", section="#diagnostics", height=800)
        printed(driver, asked.out / "report_print.png", 1)
        dark(driver)
        picture(driver, asked.out / "report_dark.png", height=1180)
        if asked.many:
            driver.get((asked.many / "report.html").resolve().as_uri())
            driver.execute_script("document.getElementById('show-animals').click()")
            picture(driver, asked.out / "report_500.png", section="#curves", height=1100)


if __name__ == "__main__":
    main()
