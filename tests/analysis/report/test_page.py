"""The page in a real browser: alone, light and dark, wide and narrow, for readers of all kinds,
and its table of particles."""

from __future__ import annotations

import json
import re
from base64 import b64decode
from html import unescape

import numpy as np
import pytest

from cryolike_dask.analysis.compare.compare import compare_runs
from cryolike_dask.analysis.report import page as page_module
from cryolike_dask.analysis.report.about_comparison import sentence_of
from cryolike_dask.analysis.report.comparison_page import write_comparison
from cryolike_dask.analysis.report.report import write_report
from cryolike_dask.analysis.summaries import summarise_results
from tests.analysis.browser import find_browser, visit
from tests.analysis.making import make_results, named, with_truth
from tests.analysis.report.test_report import EVIL, Parsed

FIGURES = "Array.from(document.querySelectorAll('figure svg'), s => s.getBoundingClientRect())"
LOADED = f"{FIGURES}.map(box => box.width > 100 && box.height > 60)"
CONTRASTS = """(() => {
  const light = c => { const [r, g, b] = c.match(/[\\d.]+/g).map(v => v / 255).map(
    v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const paper = e => { const c = getComputedStyle(e).backgroundColor;
    return c.endsWith(', 0)') ? paper(e.parentElement) : c; };
  const contrast = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p);
    return (x + 0.05) / (y + 0.05); };
  const own = e => [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
  const found = [...document.body.querySelectorAll('*')].filter(e =>
    own(e) && e.getClientRects().length && !e.closest('script, style') && !e.disabled);
  return found.map(e => {
    const style = getComputedStyle(e);
    if (!e.closest('svg')) return [contrast(style.color, paper(e)), e.textContent.slice(0, 40)];
    if (['rgb(16, 16, 16)', 'rgb(254, 254, 254)'].includes(style.fill)) return [21, ''];  // cells
    return [contrast(style.fill, paper(e.closest('figure'))), e.textContent.slice(0, 40)];
  }).filter(([ratio]) => ratio < 4.5);
})()"""
FAULTS = """(() => {
  const faults = [], all = s => [...document.querySelectorAll(s)];
  const need = (sound, text) => { if (!sound) faults.push(text); };
  need(document.documentElement.lang === 'en', 'no language');
  need(document.title.trim(), 'no title');
  for (const tag of ['h1', 'main', 'header', 'footer']) need(all(tag).length === 1, tag);
  all('h1, h2, h3, h4').reduce((level, h) => { const its = Number(h.tagName[1]);
    need(its <= level + 1, `heading skips a level: ${h.textContent}`);
    need(h.textContent.trim(), 'empty heading'); return its; }, 0);
  const ids = all('[id]').map(e => e.id);
  need(new Set(ids).size === ids.length,
       `ids twice: ${ids.filter((id, i) => ids.indexOf(id) !== i).slice(0, 5)}`);
  for (const a of all('a'))
    need(document.getElementById(a.hash.slice(1)), `leads nowhere ${a.hash}`);
  for (const e of all('[aria-labelledby]'))
    need(document.getElementById(e.getAttribute('aria-labelledby')), 'no label is there');
  for (const e of all('img')) need(e.alt, 'img without alt');
  for (const e of all('svg')) need(e.getAttribute('role') === 'img' && e.getAttribute('aria-label'),
    'svg without a name');
  for (const e of all('input, select')) need(e.labels.length && e.labels[0].textContent.trim(),
    `no label ${e.id}`);
  for (const e of all('button')) need(e.textContent.trim(), 'button without a name');
  for (const e of all('th')) need(e.scope && e.textContent.trim(), `th without scope or text`);
  for (const e of all('table.data')) need(e.caption && e.tHead, 'table without caption or head');
  const named = e => e.getAttribute('aria-label') ||
    document.getElementById(e.getAttribute('aria-labelledby'))?.textContent;
  const regions = all('[role=region]').map(named);
  need(regions.every(Boolean) && new Set(regions).size === regions.length, `regions ${regions}`);
  for (const e of all('*')) if (e.scrollWidth > e.clientWidth + 1 && e.clientWidth &&
      /auto|scroll/.test(getComputedStyle(e).overflowX))
    need(e.tabIndex === 0 && named(e), `scrolls, and no key reaches it: ${e.className} ${e.id}`);
  for (const e of all('button, input, select')) { const box = e.getBoundingClientRect();
    if (box.width) need(box.width >= 24 && box.height >= 24, `small: ${e.textContent}`); }
  return faults;
})()"""
SIZES = """Array.from(document.querySelectorAll('figure svg text'),
  t => { const svg = t.ownerSVGElement; return parseFloat(getComputedStyle(t).fontSize) *
    svg.getBoundingClientRect().width / svg.viewBox.baseVal.width; })"""


@pytest.fixture(scope="module")
def browser():
    """A browser that is installed."""
    found = find_browser()
    if found is None:
        pytest.skip("no Chromium is installed")
    return found


async def coloured(tab, scheme):
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    await tab.call("Emulation.setEmulatedMedia", features=features)


async def resized(tab, width):
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    await tab.call("Emulation.setDeviceMetricsOverride", **size)


def complaints(tab):
    told = tab.told("Log.entryAdded") + tab.told("Runtime.consoleAPICalled")
    return told + tab.told("Runtime.exceptionThrown") + tab.told("Page.javascriptDialogOpening")


def asked(tab):
    urls = [sent["request"]["url"] for sent in tab.told("Network.requestWillBeSent")]
    return [url for url in urls if not url.startswith("data:")]


def groups_of(results, rng):
    """The same, of two half-sets and three micrographs."""
    n = results.sizes["image"]
    return results.assign_coords(
        random_subset=("image", 1 + np.arange(n) % 2),
        micrograph=("image", np.array([f"m{EVIL[0]}{i % 3}" for i in range(n)], object)),
    )


async def seen(tab):
    """What a browser shows, light and dark, wide and narrow, and on paper."""
    found = {
        "loaded": await tab.value(LOADED),
        "text": await tab.value("document.body.innerText"),
    }
    found["contrasts"], found["paper"], found["overflow"] = {}, {}, {}
    for scheme in ("light", "dark"):
        await coloured(tab, scheme)
        found["contrasts"][scheme] = await tab.value(CONTRASTS)
        found["paper"][scheme] = await tab.value("getComputedStyle(document.body).backgroundColor")
    found["faults"], found["type"] = {}, {}
    for width in (390, 1280):
        await resized(tab, width)
        found["overflow"][width] = await tab.value(
            "document.documentElement.scrollWidth - innerWidth"
        )
        found["faults"][width] = await tab.value(FAULTS)
        found["type"][width] = min(await tab.value(SIZES))
    found["printed"] = (await tab.call("Page.printToPDF"))["result"]["data"]
    found["log"], found["asked"] = complaints(tab), asked(tab)
    return found


def sound(browser, page):
    """What a browser shows of a page that has no fault."""
    found = visit(browser, page, seen)
    assert found["log"] == []
    assert found["asked"] == [page.as_uri()]
    assert all(found["loaded"])
    assert found["paper"]["light"] != found["paper"]["dark"]
    assert found["contrasts"] == {"light": [], "dark": []}
    assert found["faults"] == {390: [], 1280: []}
    assert min(found["type"].values()) > 8  # pixels; most are 11 and more
    assert all(pixels <= 0 for pixels in found["overflow"].values())
    assert b64decode(found["printed"]).startswith(b"%PDF")
    return found


def test_a_browser_shows_it_without_asking_for_anything(browser, rng, tmp_path):
    results = groups_of(with_truth(make_results(rng, EVIL, folder=f"/tmp/{EVIL[0]}"), rng), rng)
    page = write_report(results, tmp_path / "page & more.html")

    found = sound(browser, page)
    assert len(found["loaded"]) == len(Parsed(page).figures) > 5
    assert all(name in found["text"] for name in EVIL)


def test_a_comparison_of_two_runs_is_such_a_page_too(browser, rng, tmp_path):
    runs = [
        named(make_results(rng, EVIL, folder=f"/tmp/{name}"), "/data/a.mrcs")
        for name in (EVIL[0], "two")
    ]
    runs[1].attrs["precision"] = EVIL[1]  # a setting that differs
    found = sound(browser, write_comparison(*runs, tmp_path / "comparison.html"))
    assert len(found["loaded"]) == 2
    assert all(name in found["text"] for name in EVIL)


def test_a_report_beside_an_earlier_run(browser, rng, tmp_path):
    runs = [
        named(make_results(rng, EVIL, folder=f"/tmp/{name}"), "/data/a.mrcs")
        for name in ("one", "two")
    ]
    page = write_report(runs[1], tmp_path / "r.html", compare_with=runs[0], n_examples=0)
    found = sound(browser, page)
    comparison = compare_runs(*runs)
    assert "Beside one" in found["text"]
    assert sentence_of(comparison) in found["text"]
    assert {"ratios-of-runs", "changes"} <= set(Parsed(page).figures)


def test_the_browser_would_see_a_page_that_is_not_alone(browser, tmp_path):
    head = page_module.TEMPLATE.read_text()
    policy = re.search(r"<meta http-equiv=.*", head)[0]
    assert "default-src 'none'" in unescape(policy)
    page = tmp_path / "page.html"
    page.write_text(
        f"{policy}<img src='http://127.0.0.1:9/x.png'><script>alert(1)</script><p>text<table><th>x"
    )

    async def look(tab):
        return tab.told("Log.entryAdded"), await tab.value(FAULTS)

    log, faults = visit(browser, page, look)
    refused = [entry["entry"]["text"] for entry in log]
    assert sum("Content Security Policy" in text for text in refused) >= 2
    assert {"no language", "img without alt", "th without scope or text"} <= set(faults)


TIMES = """(() => {
  const heads = [...document.querySelectorAll('#particles-head button')];
  return heads.map(button => Math.min(...[1, 2, 3, 4, 5].map(() => {
    const start = performance.now();
    button.click();
    document.body.offsetHeight;  // laid out
    return performance.now() - start; })));
})()"""
ROWS = """[...document.querySelectorAll('#particles-rows tr')].map(
  row => [...row.children].map(cell => cell.textContent))"""


def click(title):
    return (
        "[...document.querySelectorAll('#particles-head button')]"
        f".find(b => b.textContent === {json.dumps(title)}).click()"
    )


def typed(name, value):
    return (
        f"(() => {{ const e = document.getElementById('particles-{name}'); "
        f"e.value = {json.dumps(value)}; e.dispatchEvent(new Event('input')); "
        "return document.getElementById('particles-found').textContent; })()"
    )


def test_ten_thousand_particles_are_sorted_and_filtered_at_once(browser, rng, tmp_path):
    results = make_results(rng, ("closed", "open"), n_images=10_000, n_per_stack=1000)
    results = results.assign_coords(
        image_file=("image", np.array(["/data/a.mrcs"] * 10_000, object)),
        image_index=("image", np.arange(10_000)),
        micrograph=("image", np.array([f"m{i % 40:02d}" for i in range(10_000)], object)),
    )
    page = write_report(results, tmp_path / "r.html", n_examples=0, progress=False)
    assert page.stat().st_size < 6e6
    summary = summarise_results(results)

    async def look(tab):
        found = {"times": await tab.value(TIMES)}
        await tab.value(click("correlation"))
        found["best"] = await tab.value(ROWS)
        found["marked"] = await tab.value(
            "[...document.querySelectorAll('[aria-sort]')].map(e => "
            "[e.textContent, e.getAttribute('aria-sort')])"
        )
        await tab.value(click("correlation"))
        found["worst"] = (await tab.value(ROWS))[0]
        found["structure"] = await tab.value(typed("structure", "1"))
        found["least"] = await tab.value(typed("least", "0.9"))
        found["micrograph"] = await tab.value(typed("text", "M07"))
        await tab.value(typed("structure", ""))
        await tab.value(typed("least", ""))
        found["name"] = await tab.value(typed("text", "004711@"))
        found["named"] = await tab.value(ROWS)
        await tab.value(typed("text", ""))
        await tab.value("document.getElementById('particles-after').click()")
        found["page"] = await tab.value("document.getElementById('particles-place').textContent")
        found["log"], found["asked"] = complaints(tab), asked(tab)
        return found

    found = visit(browser, page, look)
    assert max(found["times"]) < 200, found["times"]
    correlation = summary.cross_correlation.values
    # as the page shows them: four digits
    rounded = np.array([float(f"{c:.4g}") for c in correlation])
    order = np.lexsort((np.arange(10_000), -rounded))
    names = [f"{i + 1:06d}@/data/a.mrcs" for i in order[:50]]
    assert [row[0] for row in found["best"]] == names
    assert [float(row[4]) for row in found["best"]] == rounded[order[:50]].tolist()
    assert found["marked"] == [["correlation", "descending"]]
    assert float(found["worst"][4]) == rounded.min()
    is_open = summary.best_structure.values == "open"
    sure = np.array([float(f"{p:.4g}") for p in summary.probability.values]) >= 0.9
    of_it = summary.micrograph.values == "m07"
    for key, expected in (
        ("structure", is_open),
        ("least", is_open & sure),
        ("micrograph", is_open & sure & of_it),
    ):
        assert found[key] == f"{expected.sum():,} of 10,000 particles"
    assert [row[0] for row in found["named"]] == ["004711@/data/a.mrcs"]
    assert found["page"] == "page 2 of 200"
    assert (found["log"], found["asked"]) == ([], [page.as_uri()])
