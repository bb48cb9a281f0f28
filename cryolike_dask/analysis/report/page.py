"""The page itself: what it says, put into HTML with its style and its script."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from hashlib import sha256
from pathlib import Path

from cryolike_dask.analysis.findings import Finding
from cryolike_dask.analysis.lights import Lights
from cryolike_dask.analysis.report.next_steps import NextStep
from cryolike_dask.analysis.report.sections import Panel, Section
from cryolike_dask.errors import OutputError
from cryolike_dask.io.outputs import HTML, own_output
from cryolike_dask.version import __version__

TEMPLATE = Path(__file__).with_name("report.html")
"""The page without its content."""
STYLE, SCRIPT = (TEMPLATE.with_suffix(suffix) for suffix in (".css", ".js"))
START_BYTES = 512
OURS = b'<meta name="generator" content="cryolike_dask report">'
WORDS = {"good": "fine", "unsure": "not sure", "bad": "wrong"}
"""Lights that are green, amber and red, for those who do not see it."""


@dataclass(frozen=True, eq=False)
class Content:
    """What a page says, from its top to its end.

    Attributes
    ----------
    title, subtitle : str
    answer : Section
    sentence : str
        That can be sent to a colleague.
    lights : Mapping of str to Lights
        What the answer rests on.
    warnings : tuple of Finding
    next_steps : tuple of NextStep
    groups : Section or None
        Of half-sets and other groups of images.
    sections : tuple of Section
        Of figures and tables.
    particles : Section or None
        Above the table of particles.
    table : str
        That table, for the script.
    last : tuple of Section
    """

    title: str
    subtitle: str
    answer: Section
    sentence: str = ""
    lights: Mapping[str, Lights] = field(default_factory=dict)
    warnings: tuple[Finding, ...] = ()
    next_steps: tuple[NextStep, ...] = ()
    groups: Section | None = None
    sections: tuple[Section, ...] = ()
    particles: Section | None = None
    table: str = ""
    last: tuple[Section, ...] = ()

    @property
    def all_sections(self) -> list[Section]:
        """In the order of the page."""
        groups = [self.groups] if self.groups is not None else []
        own = [self.particles] if self.particles is not None else []
        return [self.answer, *groups, *self.sections, *own, *self.last]

    @property
    def panels(self) -> list[Panel]:
        """Every figure, in the order of the page."""
        return [panel for section in self.all_sections for panel in section.panels]


def page_of(content: Content) -> str:
    """Put it into HTML."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATE.parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    now = f"{datetime.now().astimezone():%Y-%m-%d %H:%M %Z}"
    script = SCRIPT.read_text("utf-8")
    text: str = environment.get_template(TEMPLATE.name).render(
        **vars(content),
        sections_title="Figures",
        linked={section.key: section.title for section in content.all_sections},
        words=WORDS,
        style=STYLE.read_text("utf-8"),
        script=script,
        script_hash=_hash(script),
        footer=f"Written by cryolike_dask {__version__} on {now}.",
    )
    return text


def refuse_others(page: Path, overwrite: bool) -> None:
    """Refuse to replace what is no report, and what is no page at all even if it is asked for."""
    own_output(page, HTML)
    if page.exists() and not overwrite:
        with open(page, "rb") as file:
            head = file.read(START_BYTES)
        if head and OURS not in head:
            raise OutputError(
                "is there already, and is no report",
                source=page,
                remedy="Give another path, or pass overwrite=True (--overwrite).",
            )


@cache
def _hash(script: str) -> str:
    """The only script that a browser may run."""
    digest = b64encode(sha256(script.encode()).digest()).decode()
    return f"sha256-{digest}"
