"""Take the pictures of the tutorial from a report: `python -m docs.screenshots
cryolike-dask-demo/results/report.html`, in the folder of the project. Needs Chromium."""

from __future__ import annotations

import io
import sys
from base64 import b64decode
from pathlib import Path

from PIL import Image

from tests.analysis.browser import Tab, find_browser, visit

PICTURES = Path(__file__).parent / "screenshots"
WIDTH, HEIGHT, MARGIN = 1000, 800, 20
PARTS = {"report": "section.answer", "ratios": "#structures"}
"""Of the page, those that the tutorial shows."""
PLACE = """(box => [box.x, box.y, box.width, box.height])(
  document.querySelector('{}').getBoundingClientRect())"""


async def parts(tab: Tab) -> dict[str, bytes]:
    """Each part as a PNG."""
    size = {"width": WIDTH, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": False}
    await tab.call("Emulation.setDeviceMetricsOverride", **size)
    taken = {}
    for name, selector in PARTS.items():
        x, y, width, height = await tab.value(PLACE.format(selector))
        clip = {"x": x - MARGIN, "y": y, "scale": 1}
        clip |= {"width": width + 2 * MARGIN, "height": height}
        answer = await tab.call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        taken[name] = b64decode(answer["result"]["data"])
    return taken


if __name__ == "__main__":
    browser = find_browser()
    if browser is None:
        sys.exit("no Chromium is installed")
    PICTURES.mkdir(exist_ok=True)
    for name, png in visit(browser, Path(sys.argv[1]), parts).items():
        few_colours = Image.open(io.BytesIO(png)).convert("RGB").quantize(64)
        few_colours.save(PICTURES / f"{name}.png", optimize=True)
