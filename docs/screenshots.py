"""Take the pictures of the tutorial from a report: `python docs/screenshots.py
cryolike-dask-demo/results/report.html`. Needs Chromium."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from PIL import Image

PAGES = Path(__file__).parent / "screenshots"
WIDTH, HEIGHT = 1000, 4000
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PARTS = {"report": (0, 710), "ratios": (1815, 2375)}
"""Rows of pixels of the page, from and to."""


def take(report: Path, path: Path) -> None:
    """The whole page, as a browser without a window shows it."""
    browser = next((found for found in map(shutil.which, NAMES) if found), None)
    if browser is None:
        sys.exit(f"no browser: none of {', '.join(NAMES)} is on the path")
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    size, to = f"--window-size={WIDTH},{HEIGHT}", f"--screenshot={path}"
    subprocess.run(
        [browser, *options, size, to, report.absolute().as_uri()],
        check=True,
        capture_output=True,
        timeout=240,
    )


def cut(path: Path) -> None:
    """The parts that the tutorial shows, each in few colours."""
    with Image.open(path) as page:
        for name, (top, bottom) in PARTS.items():
            part = page.convert("RGB").crop((0, top, WIDTH, bottom))
            part.quantize(64).save(PAGES / f"{name}.png", optimize=True)


if __name__ == "__main__":
    PAGES.mkdir(exist_ok=True)
    whole = PAGES / "whole.png"
    try:
        take(Path(sys.argv[1]), whole)
        cut(whole)
    finally:
        whole.unlink(missing_ok=True)
