"""What to do next: what to change in the run.yaml, and commands."""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import yaml

from cryolike_dask import labels
from cryolike_dask.analysis import summaries
from cryolike_dask.analysis.displacements_tried import displacements_tried
from cryolike_dask.analysis.findings import AIMED_AT, LOST_BETWEEN_POSES, negative_fraction
from cryolike_dask.analysis.lights import Lights
from cryolike_dask.analysis.report.trust import MANY_NEGATIVE
from cryolike_dask.analysis.run_file import RunFile
from cryolike_dask.analysis.search_edge import on_the_edge
from cryolike_dask.analysis.search_of_results import inputs_to_name
from cryolike_dask.analysis.search_steps import Step, axes_of
from cryolike_dask.conventions import CRYOLIKE, STANDARD
from cryolike_dask.io.layout import CONFIGURATION

MORE_WORK = 1.2
"""Times as much to compare, from which on it is said."""
FINER = ("displacement_step_pixels", "view_step_degrees", "healpix_order", "n_inplanes")
WIDER = 2.0
"""Times as far is searched where particles lie on the edge."""
RUN = "cryolike-dask run"


@dataclass(frozen=True)
class Change:
    """A value of the run.yaml that should be another.

    Attributes
    ----------
    section, key : str
        Of a key that is no section's, the section is empty.
    value : number, text or bool
        In the unit of the file.
    was : same, or None
        Where it is known.
    why : str
    work : float
        Times as much that is compared.
    """

    section: str
    key: str
    value: Any
    was: Any
    why: str
    work: float = 1.0


@dataclass(frozen=True)
class NextStep:
    """Something to do: why, what to change in the run.yaml, which commands to give."""

    why: str
    changes: str
    commands: str


def next_steps(
    summary: xr.Dataset,
    steps: list[Step],
    lights: dict[str, Lights],
    described: RunFile | None,
    *,
    has_decoys: bool,
) -> list[NextStep]:
    """What should be done next, most important first."""
    changes = list(_changes(summary, steps, lights, described, has_decoys=has_decoys))
    found = [*_going_on(summary, described)]
    if changes:
        found.append(_another_run(summary, changes, described))
    return [*found, *_commands(summary, lights)]


def _going_on(summary: xr.Dataset, described: RunFile | None) -> Iterator[NextStep]:
    """The same run, where results are missing."""
    n = int((summary[summaries.BEST_STRUCTURE] == summaries.NO_STRUCTURE).sum())
    done = summary[summaries.N_RESULTS].values > 0
    if not n and done.all():
        return
    if described is None:
        command = "the same command again"
    else:
        command = f"{RUN} {shlex.quote(described.path)}"
    yield NextStep("Not all is compared yet. The same run goes on where it stopped.", "", command)


def _changes(
    summary: xr.Dataset,
    steps: list[Step],
    lights: dict[str, Lights],
    described: RunFile | None,
    *,
    has_decoys: bool,
) -> Iterator[Change]:
    """What another run should have otherwise."""

    def change(
        section: str, key: str, value: Any, why: str, was: Any = None, work: float = 1.0
    ) -> Change:
        if described is not None:
            was = described.value(section, key)
        return Change(section, key, value, was, why, work)

    if summary.attrs.get("conventions") == CRYOLIKE.name:
        why = "so that the noise is known"
        yield change("likelihood", "conventions", STANDARD.name, why)
    if negative_fraction(summary) > MANY_NEGATIVE:
        yield change("particles", "invert_contrast", True, "most correlations are negative")
    yield from _of_displacements(summary, steps, change, described)
    for step in steps:
        if step.loss <= LOST_BETWEEN_POSES:
            continue
        finer = step.size_of_loss(AIMED_AT)
        lost = f"{step.loss:.2g} nat are lost between {step.name} {step.shown(step.size)} apart"
        if step.name == "rotations":
            n = 2 * ceil(np.pi / finer)
            yield change("parameters", "n_inplanes", n, lost, work=step.size / finer)
        if step.name == "views":
            yield _finer_views(change, described, step.size, finer, lost)
    noise = lights["Noise"].parts["Noise"]
    if noise.colour == "unsure" and "white" in noise.text:
        yield change("noise", "spectrum", "estimate", "that of micrographs is not white")
    if not has_decoys:
        why = "tells images of none of the structures; or leave it out"
        yield change("structures", "decoys", 1, why, work=2)


def _finer_views(
    change: Any, described: RunFile | None, size: float, finer: float, lost: str
) -> Change:
    """Views that are so near to each other, radian, where and how the run.yaml says it."""
    times = size / finer
    order = None if described is None else described.value("structures", "healpix_order")
    if isinstance(order, int):
        more = ceil(np.log2(times))
        nested: Change = change("structures", "healpix_order", order + more, lost, work=4**more)
        return nested
    before = _view_step_degrees(described) or float(np.degrees(size))
    given = None if described is None else described.values.get("parameters")
    if isinstance(given, str):
        lost += f"; in place of the file {given}, with what else it says"
    elif described is not None and described.value("parameters", "viewing_distance") is not None:
        lost += "; in place of viewing_distance"
    degrees = _rounded_down(before / times)
    work = (before / degrees) ** 2
    nearer: Change = change("parameters", "view_step_degrees", degrees, lost, work=work)
    return nearer


def _view_step_degrees(described: RunFile | None) -> float | None:
    """What the run.yaml says of it; the nearest views of its grid are a little nearer."""
    if described is None:
        return None
    degrees = described.value("parameters", "view_step_degrees")
    radian = described.value("parameters", "viewing_distance")
    if isinstance(radian, (int, float)):
        degrees = np.degrees(radian)
    return float(degrees) if isinstance(degrees, (int, float)) else None


def _of_displacements(
    summary: xr.Dataset, steps: list[Step], change: Any, described: RunFile | None
) -> Iterator[Change]:
    """A search that is wider, or finer, or both; numbers of displacements go with its width."""
    pixel = summary.attrs.get("pixel_size_angstrom")
    edge = on_the_edge(summary)
    axes = axes_of(*(np.round(values, 3) for values in displacements_tried(summary)))
    if edge is None or not pixel or not all(map(len, axes)):
        return
    most = max(edge.limit_x, edge.limit_y)
    coarse = next((s for s in steps if s.name == "displacements"), None)
    is_coarse = coarse is not None and coarse.loss > LOST_BETWEEN_POSES
    if not edge.is_crowded and not is_coarse:
        return
    wide = WIDER * most if edge.is_crowded else most
    if edge.is_crowded:
        why = f"{edge.fraction:.0%} of the images are on the edge; pixels of {pixel:.4g} Å"
        was = round(most / pixel, 3)
        wider = round(wide / pixel, 3)
        yield change("search", "max_displacement_pixels", wider, why, was, work=WIDER**2)
    before = min((float(np.median(np.diff(a))) for a in axes if len(a) > 1), default=most)
    step, why = before, "in steps as before"
    if coarse is not None and is_coarse:
        step = min(step, coarse.size_of_loss(AIMED_AT))
        why = f"{coarse.loss:.2g} nat are lost between displacements"
    # one that divides the way from end to end, as another would not be kept to
    step = 2 * wide / ceil(round(2 * wide / step, 3))
    older = described is not None and described.value("search", "n_displacements_x") is not None
    why += "; in place of n_displacements_x and n_displacements_y" if older else ""
    key = "displacement_step_pixels"
    was = round(before / pixel, 3)
    yield change("search", key, round(step / pixel, 4), why, was, work=(before / step) ** 2)


def _rounded_down(value: float) -> float:
    """A step of two digits that is no coarser."""
    digits = 1 - int(np.floor(np.log10(value)))
    return float(np.floor(value * 10**digits) / 10**digits)


def _another_run(summary: xr.Dataset, changes: list[Change], described: RunFile | None) -> NextStep:
    """All changes together, in one new run."""
    folder = str(summary.attrs.get("folder") or "results")
    number = next(n for n in count(2) if not Path(f"{folder}-{n}").exists())
    if described is None:
        options = [_option(change) for change in changes]
        new = shlex.quote(f"{folder}-{number}")
        command = " ".join(["cryolike-dask optimal-pose ...", *options, "--output", new])
        return NextStep(
            "Run again into a new folder, with the options of before and these in place of theirs:",
            "",
            command,
        )
    output = described.values.get("output")
    was = output if isinstance(output, str) else Path(folder).name
    again = Change("", "output", f"{was}-{number}", was, "what is there stays")
    copy = Path(folder) / CONFIGURATION
    where = f"a copy of {copy}" if Path(described.path) == copy else described.path
    times = float(np.prod([change.work for change in changes]))
    said = f"{times:.0f}" if times > 10 else f"{times:.2g}"
    more = f", which compares {said} times as much" if times > MORE_WORK else ""
    again_finer = any(change.key in FINER for change in changes)
    twice = " A finer search may show that a still finer one is needed." if again_finer else ""
    command = f"{RUN} {shlex.quote(described.path)}"
    return NextStep(
        f"Run again into a new folder, with these lines in place of those in {where}{more}.{twice} "
        "The first command says how long it will take.",
        _as_yaml([*changes, again]),
        f"{command} --plan\n{command}",
    )


def _option(change: Change) -> str:
    name = {"spectrum": "noise", "view_step_degrees": "view-step-degrees (of `parameters`)"}.get(
        change.key, change.key
    )
    flag = f"--{name.replace('_', '-')}"
    return flag if change.value is True else f"{flag} {change.value}"


def _as_yaml(changes: list[Change]) -> str:
    """Changes as they stand in a run.yaml, each with what it was."""
    by_section: dict[str, list[Change]] = defaultdict(list)
    for change in changes:
        by_section[change.section].append(change)
    lines = []
    for section, its in by_section.items():
        indent = "  " if section else ""
        if section:
            lines.append(f"{section}:")
        for change in its:
            entry = f"{indent}{change.key}: {_scalar(change.value)}"
            was = "" if change.was is None else f"was {_scalar(change.was)}; "
            lines.append(f"{entry}  # {was}{change.why}")
    return "\n".join(lines)


def _scalar(value: Any) -> str:
    text: str = yaml.safe_dump(value, default_flow_style=True, width=10**4)
    return text.removesuffix("\n...\n").strip()


def _commands(summary: xr.Dataset, lights: dict[str, Lights]) -> Iterator[NextStep]:
    """Commands that look at these results further."""
    folder = summary.attrs.get("folder")
    if not folder:
        return
    quoted = shlex.quote(str(folder))
    inputs = " ".join(inputs_to_name(summary).values())
    several = summaries.are_compared(summary)
    calibration = lights["Calibration"].parts["Calibration"]
    if several and calibration.colour == "unsure" and "cryolike-dask calibrate" in calibration.text:
        yield NextStep(
            "Find out whether probabilities keep what they promise, on particles like yours.",
            "",
            f"cryolike-dask calibrate {quoted} {inputs}".strip(),
        )
    if labels.RESIDUAL_P_VALUE not in summary.coords:
        yield NextStep(
            "Find out whether what the projections leave of the images is noise.",
            "",
            f"cryolike-dask residuals {quoted} {inputs}".strip(),
        )
    if several:
        yield NextStep(
            "Take the particles of one structure back to RELION.",
            "",
            f"cryolike-dask export {quoted} --subsets subsets --min-probability 0.9",
        )
