"""Tables that notebooks show: what they say is there, whole, and harmless."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
import pytest

import cryolike_dask as cld
from cryolike_dask.geometry.optics import optics_table
from cryolike_dask.notebook import LONGEST, html_table

PARAMETERS = cld.ImageParameters(32, 3.0, viewing_distance=0.5, precision="single")
OPTICS = {
    "defocus_u_angstrom": np.array([10_000.0, 20_000.0]),
    "defocus_v_angstrom": np.array([10_000.0, 20_000.0]),
    "defocus_angle_radian": 0.0,
    "voltage_kilovolt": 300.0,
    "spherical_aberration_mm": 2.7,
    "amplitude_contrast": 0.1,
}


class Balanced(HTMLParser):
    """Refuses tags that are not closed in order."""

    def __init__(self):
        super().__init__()
        self.open = []

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def shown(value):
    """The rows of a value's table, by name; the title stands under ""."""
    html = value._repr_html_()
    parser = Balanced()
    parser.feed(html)
    assert parser.open == []
    assert "http" not in html
    assert "<script" not in html
    title = re.search(r"<thead><tr><th[^>]*>(.*?)</th>", html)[1]
    rows = re.findall(r"<tr><th[^>]*>([^<]*)</th><td[^>]*>([^<]*)</td></tr>", html)
    return {"": title, **dict(rows)}


def stack(n):
    return np.ones((n, *PARAMETERS.grid.shape), np.complex64)


def test_stacks():
    images = cld.ImageStack.from_array(stack(2), PARAMETERS, optics_table(2, **OPTICS)).chunk(1)
    rows = shown(images)
    assert rows["images"] == "2 in 2 chunk(s)"
    assert rows["box"] == "32 pixels of 3 angstrom: 96 angstrom"
    assert rows["resolution"] == "6 angstrom"
    assert rows["defocus"] == "1 to 2 micrometre"
    assert rows["voltage"] == "300 kV"
    n = len(PARAMETERS.viewing_angles())
    templates = cld.TemplateStack.from_array(stack(n), PARAMETERS, structure="<b>open & shut")
    rows = shown(cld.configure_displacement(2, 3, 3)(templates))
    assert rows[""] == "Template stack: &lt;b&gt;open &amp; shut"
    assert rows["templates"] == f"{n:,} views, symmetry C1"
    assert rows["displacements"] == "9, up to 6 angstrom"


def test_parameters():
    rows = shown(PARAMETERS)
    assert rows["resolution"] == "6 angstrom"
    assert rows["views"] == "about 28.6 degrees apart"
    assert "superpose" not in rows  # not asked for


@pytest.mark.parametrize(
    ("search", "name", "said"),
    [
        (cld.configure_displacement(3, 13, 7), "displacements", "91: 13 along x, 7 along y"),
        (cld.configure_displacement(3, 13, 7), "steps", "0.5 and 1 pixels"),
        (cld.configure_displacement(0, 1, 1), "steps", "0 and 0 pixels"),
        (cld.Adaptive(0.01), "likelihoods to", "about 0.01 nat"),
        (cld.Around(10, 2), "within", "10 degrees and 2 pixels"),
    ],
)
def test_searches(search, name, said):
    assert shown(search)[name] == said


def test_runs():
    config = cld.RunConfig.model_validate(
        {
            "structures": {"files": ["/a/<i>.pdb"]},
            "particles": {"metadata": "/b.star"},
            "parameters": {"n_pixels": 32, "pixel_size_angstrom": 3.0},
            "output": "/out",
        }
    )
    rows = shown(config)
    assert "/a/&lt;i&gt;.pdb" in rows["structures"]
    assert rows["parameters"] == "n_pixels: 32, pixel_size_angstrom: 3.0"
    assert rows["output"] == "/out"


def test_long_entries_are_cut_in_the_middle():
    text = "a" * LONGEST + "b" * LONGEST
    assert f">{'a' * (LONGEST // 2)} ... {'b' * (LONGEST // 2)}<" in html_table("t", {"n": text})
