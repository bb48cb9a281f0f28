"""What a summary of results tells: winners on the edge of the search, calibration, errors of
poses, warnings."""

from __future__ import annotations

import csv
import io
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cryolike_dask import labels
from cryolike_dask.analysis import summaries
from cryolike_dask.analysis.search_steps import Step
from cryolike_dask.conventions import STANDARD
from cryolike_dask.errors import InputFileError
from cryolike_dask.io.identity import reading

MANY_ON_THE_EDGE = 0.05
"""A larger fraction of winners on the edge of the search is worth a warning."""
SHARE_OF_THE_EDGE = 0.75
"""A displacement on the edge is nearest to half as many true ones as its neighbour, where these
end at the edge."""
NEAR_EDGE_ANGSTROM = 1e-3
MISCALIBRATED, STANDARD_ERRORS = 0.03, 4.0
"""Probability and frequency that differ by more, and by more than chance explains, are worth a
warning."""
LOST_BETWEEN_POSES = 5.0
"""Nat: more is worth a warning. With 3, 14 and 31 nat, 92%, 89% and 78% of the demo's particles
are assigned rightly, where probabilities say 95%, 94% and 93% (benchmarks/steps.py)."""
CALIBRATION_BINS = 10
MOST_CONFUSED = 12
"""Structures of a confusion matrix; all others are one row and one column."""
OTHERS = "others"

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Finding:
    """Something to be wary of: in which section of the report it belongs, and what it is."""

    section: str
    text: str


@dataclass(frozen=True)
class Edge:
    """How many winners sit on the edge of the search.

    Attributes
    ----------
    n_images : int
        With results.
    n_on_edge : int
        At the largest displacement tried along x or y.
    limit_x, limit_y : float
        That displacement, angstrom; 0 for an axis that was not searched.
    fraction_tried : float
        Of the displacements tried, those that are on the edge.
    per_edge, per_neighbour : float
        Images for each displacement on the edge, and for each next to it.
    """

    n_images: int
    n_on_edge: int
    limit_x: float
    limit_y: float
    fraction_tried: float
    per_edge: float
    per_neighbour: float

    @property
    def is_crowded(self) -> bool:
        """Whether many images are on the edge, and more than if particles were spread to the
        edge and no further."""
        return (
            self.fraction > MANY_ON_THE_EDGE
            and self.per_edge > SHARE_OF_THE_EDGE * self.per_neighbour
        )

    @property
    def fraction(self) -> float:
        """Of the images."""
        return self.n_on_edge / self.n_images if self.n_images else 0.0


def on_the_edge(summary: xr.Dataset) -> Edge | None:
    """Count winners on the edge of the search; None where no displacements are known or tried."""
    tried = [
        np.asarray(summary.attrs.get(f"displacements_{axis}_angstrom", ()), np.float64)
        for axis in "xy"
    ]
    if not all(len(values) for values in tried):
        return None
    limits = [float(np.abs(values).max()) for values in tried]
    if not any(limits):
        return None
    found = [
        summary[name].values
        for name in (labels.OPTIMAL_DISPLACEMENT_X, labels.OPTIMAL_DISPLACEMENT_Y)
    ]
    known = np.isfinite(found[0])
    found = [values[known] for values in found]
    outer = [limit or np.inf for limit in limits]  # an axis that was not searched has no edge
    inner = [_next_inside(values, limit) for values, limit in zip(tried, outer, strict=True)]
    n_on_edge, n_outside = (int(_beyond(found, at).sum()) for at in (outer, inner))
    n_edge, n_outer = (int(_beyond(tried, at).sum()) for at in (outer, inner))
    return Edge(
        n_images=int(known.sum()),
        n_on_edge=n_on_edge,
        limit_x=limits[0],
        limit_y=limits[1],
        fraction_tried=n_edge / len(tried[0]),
        per_edge=n_on_edge / n_edge,
        per_neighbour=max(n_outside - n_on_edge, 0) / max(n_outer - n_edge, 1),
    )


def _next_inside(tried: Floats, limit: float) -> float:
    """The largest displacement along an axis that is not on the edge."""
    inside = np.abs(tried)[np.abs(tried) < limit - NEAR_EDGE_ANGSTROM]
    return float(inside.max()) if len(inside) and np.isfinite(limit) else limit


def _beyond(displacements: list[Floats], limits: list[float]) -> NDArray[np.bool_]:
    near = [
        np.abs(values) >= limit - NEAR_EDGE_ANGSTROM
        for values, limit in zip(displacements, limits, strict=True)
    ]
    return np.asarray(near[0] | near[1])


def negative_fraction(summary: xr.Dataset) -> float:
    """Fraction of images whose best correlation is negative; 0 without images."""
    found = summary[labels.CROSS_CORRELATION].values
    known = np.isfinite(found)
    return float((found[known] < 0).mean()) if known.any() else 0.0


def knows_truth(summary: xr.Dataset) -> bool:
    """Whether it is recorded which structure each image truly shows."""
    return labels.TRUE_STRUCTURE in summary.coords


@dataclass(frozen=True, eq=False)
class Calibration:
    """Posterior probability of the best structure against how often it is right, in bins of equal
    width.

    Attributes
    ----------
    edges : (bin + 1,) float64
    n_images, n_right : (bin,) int
    mean_probability : (bin,) float64
        NaN in an empty bin.
    surprise : float
        Expected less found number of right assignments, in standard errors; above 0 where too sure.
    """

    edges: Floats
    n_images: NDArray[np.int64]
    n_right: NDArray[np.int64]
    mean_probability: Floats
    surprise: float

    @property
    def expected(self) -> float:
        """Fraction of assignments that should be right."""
        known = self.n_images > 0
        return float(
            (self.mean_probability * self.n_images)[known].sum() / max(self.n_images.sum(), 1)
        )

    @property
    def found(self) -> float:
        """Fraction of assignments that are right."""
        return float(self.n_right.sum() / max(self.n_images.sum(), 1))


def calibration(summary: xr.Dataset, n_bins: int = CALIBRATION_BINS) -> Calibration:
    """Hold the probability of each best structure against the truth; images that can be compared
    only."""
    chosen = summary[summaries.COMPARABLE].values
    probability = summary[summaries.PROBABILITY].values[chosen]
    right = (summary[summaries.BEST_STRUCTURE].values == summary[labels.TRUE_STRUCTURE].values)[
        chosen
    ]
    which = np.minimum((probability * n_bins).astype(np.int64), n_bins - 1)
    n_images = np.bincount(which, minlength=n_bins)
    sums = np.bincount(which, probability, minlength=n_bins)
    variance = float((probability * (1 - probability)).sum())
    too_many = float(probability.sum() - right.sum())
    return Calibration(
        edges=np.linspace(0, 1, n_bins + 1),
        n_images=n_images,
        n_right=np.bincount(which[right], minlength=n_bins),
        mean_probability=np.where(n_images > 0, sums / np.maximum(n_images, 1), np.nan),
        surprise=too_many / np.sqrt(max(variance, 1e-12)),
    )


@dataclass(frozen=True, eq=False)
class Confusion:
    """How many images of each true structure (row) are assigned to each structure (column)."""

    names: list[str]
    counts: NDArray[np.int64]


def confusion(summary: xr.Dataset, most: int = MOST_CONFUSED) -> Confusion:
    """Count true against assigned structures; beyond `most` of them, the less frequent are taken
    together."""
    chosen = summary[summaries.COMPARABLE].values
    best = summary[summaries.BEST_STRUCTURE].values[chosen].astype(str)
    truth = summary[labels.TRUE_STRUCTURE].values[chosen].astype(str)
    names = list(dict.fromkeys([*map(str, summary[labels.STRUCTURE].values), *truth.tolist()]))
    if len(names) > most:
        counts = Counter([*best.tolist(), *truth.tolist()])
        frequent = {name for name, _ in counts.most_common(most - 1)}
        names = [*(name for name in names if name in frequent), OTHERS]
    position = {name: i for i, name in enumerate(names)}
    rows, columns = (
        [position.get(str(name), len(names) - 1) for name in values] for values in (truth, best)
    )
    table = np.zeros((len(names), len(names)), np.int64)
    np.add.at(table, (rows, columns), 1)
    return Confusion(names, table)


def why_no_pose_errors(summary: xr.Dataset) -> str | None:
    """Say why directions cannot be held against the recorded ones; None if they can."""
    needed = (labels.RECORDED_ROT, labels.RECORDED_TILT)
    if not all(name in summary.coords for name in needed):
        return "no poses are recorded with the particles"
    if not all(name in summary for name in (labels.OPTIMAL_AZIMUTH, labels.OPTIMAL_POLAR)):
        return "the viewing directions of the templates are not known"
    frame = {
        name: summary.attrs.get(name) for name in ("conventions", "frame", "template_conventions")
    }
    if frame != {
        "conventions": STANDARD.name,
        "frame": "xy",
        "template_conventions": STANDARD.name,
    }:
        return (
            "recorded poses are compared only where images, templates and results follow the "
            "standard conventions"
        )
    if not np.isfinite(direction_errors_degree(summary)).any():
        return "no image with a result has a recorded pose"
    return None


def direction_errors_degree(summary: xr.Dataset) -> Floats:
    """Angle between the best viewing direction of each image and the recorded one, degree; NaN
    where one is missing."""
    found = _directions(
        summary[labels.OPTIMAL_AZIMUTH].values, summary[labels.OPTIMAL_POLAR].values
    )
    recorded = _directions(
        summary[labels.RECORDED_ROT].values, summary[labels.RECORDED_TILT].values
    )
    half_chord = np.clip(np.linalg.norm(found - recorded, axis=0) / 2, 0, 1)
    return np.asarray(np.degrees(2 * np.arcsin(half_chord)))


def _directions(azimuth: NDArray[np.float64], polar: NDArray[np.float64]) -> Floats:
    sine = np.sin(polar)
    return np.stack([np.cos(azimuth) * sine, np.sin(azimuth) * sine, np.cos(polar)])


@dataclass(frozen=True, eq=False)
class Blocks:
    """How long each block of a run took, and where.

    Attributes
    ----------
    seconds : (block,) float64
    device : (block,) str
    first, last : str
        When the first and the last block ended, UTC; empty where no time can be read.
    n_unreadable : int
        Rows of the table that are damaged.
    """

    seconds: Floats
    device: NDArray[np.str_]
    first: str
    last: str
    n_unreadable: int

    def __len__(self) -> int:
        return len(self.seconds)


def read_blocks(path: str | Path) -> Blocks:
    """Read the table of blocks that runs append to; rows that cannot be read are counted and left
    out.

    Raises
    ------
    InputFileError
        If there is no such file, or it is no table of blocks.
    """
    seconds, devices, times, n_unreadable = [], [], [], 0
    try:
        with (
            reading(path) as opened,
            io.TextIOWrapper(opened, "utf-8", "replace", newline="") as file,
        ):
            rows = csv.DictReader(file)
            missing = {"seconds", "device", "time"} - set(rows.fieldnames or ())
            if missing:
                raise InputFileError(
                    f"is no table of blocks: it lacks {', '.join(sorted(missing))}", source=path
                )
            for row in rows:
                try:
                    value, when = float(row["seconds"]), datetime.fromisoformat(row["time"])
                except (TypeError, ValueError):
                    n_unreadable += 1
                    continue
                if not 0 <= value < np.inf:
                    n_unreadable += 1
                    continue
                seconds.append(value)
                devices.append(row["device"])
                times.append(f"{when.astimezone(UTC):%Y-%m-%d %H:%M:%S}")
    except csv.Error as error:
        raise InputFileError(f"is no table of blocks: {error}", source=path) from error
    return Blocks(
        *(np.array(seconds, np.float64), np.array(devices, str)),
        *(min(times, default=""), max(times, default="")),
        n_unreadable,
    )


def are_compared(summary: xr.Dataset) -> bool:
    """Whether there are images with results under several structures."""
    several = int((summary[summaries.N_RESULTS] > 0).sum()) > 1
    return several and bool(summary[summaries.COMPARABLE].any())


def warnings_about(summary: xr.Dataset) -> list[Finding]:
    """What to be wary of, most important first."""
    found = [*_about_what_is_missing(summary), *_about_contrast(summary), *_about_the_edge(summary)]
    return [*found, *_about_calibration(summary)]


def about_steps(steps: list[Step]) -> list[Finding]:
    """Steps of the search half-way between which too much is lost."""
    return [
        Finding(
            "steps",
            f"The search is coarse for these images: half-way between {step.name}, "
            f"{step.shown(step.size)} apart, "
            f"log-likelihoods are up to {step.loss:.2g} nat lower, under one structure more than "
            f"under another. "
            "Assignments suffer, and probabilities are too large. Try steps of "
            f"{step.shown(step.size_of_loss(LOST_BETWEEN_POSES))} or less.",
        )
        for step in steps
        if step.loss > LOST_BETWEEN_POSES
    ]


def _about_what_is_missing(summary: xr.Dataset) -> list[Finding]:
    n_images, n_structures = summary.sizes[labels.IMAGE], summary.sizes[labels.STRUCTURE]
    n_without = int((summary[summaries.BEST_STRUCTURE] == summaries.NO_STRUCTURE).sum())
    empty = summary[labels.STRUCTURE].values[summary[summaries.N_RESULTS].values == 0]
    n_apart = n_images - n_without - int(summary[summaries.COMPARABLE].sum())
    said = []
    if n_without:
        said.append(f"{n_without} of {n_images} images have no result yet.")
    if len(empty) and len(empty) < n_structures:
        names = ", ".join(map(str, empty[:3])) + (" and others" if len(empty) > 3 else "")
        said.append(f"{len(empty)} of {n_structures} structures have no result yet ({names}).")
    if n_apart:
        said.append(
            f"{n_apart} images have results under some structures only, and are left out where "
            f"these compete."
        )
    if not said:
        return []
    remedy = (
        "What follows is about the rest. The same run goes on (in Python with skip_exist=True)."
    )
    return [Finding("run", " ".join(["The results are partial.", *said, remedy]))]


def _about_contrast(summary: xr.Dataset) -> list[Finding]:
    fraction = negative_fraction(summary)
    if fraction <= 0.5:
        return []
    text = (
        f"{fraction:.0%} of the best correlations are negative. Is the contrast inverted? If "
        f"particles are dark on "
        "light, convert them again with --invert-contrast."
    )
    return [Finding("correlation", text)]


def _about_the_edge(summary: xr.Dataset) -> list[Finding]:
    edge = on_the_edge(summary)
    if edge is None or not edge.is_crowded:
        return []
    axes = zip("xy", (edge.limit_x, edge.limit_y), strict=True)
    limits = " and ".join(f"{limit:.3g} Å in {axis}" for axis, limit in axes if limit)
    text = (
        f"{edge.n_on_edge} of {edge.n_images} images ({edge.fraction:.0%}) fit best on the edge of "
        f"the search "
        f"({limits}; {edge.fraction_tried:.0%} of the displacements tried lie there). These "
        f"particles may be further "
        "off centre than was searched: search wider, max_displacement_pixels "
        "(--max-displacement-pixels), or "
        "centre them as they are read, recenter=True (--recenter)."
    )
    return [Finding("displacements", text)]


def _about_calibration(summary: xr.Dataset) -> list[Finding]:
    if not knows_truth(summary) or not are_compared(summary):
        return []
    found = calibration(summary)
    if abs(found.surprise) < STANDARD_ERRORS or abs(found.expected - found.found) < MISCALIBRATED:
        return []
    how = "too large" if found.surprise > 0 else "too small"
    text = (
        f"Probabilities are {how}: {found.expected:.1%} of the assignments should be right, "
        f"{found.found:.1%} are."
    )
    if found.surprise > 0:
        text += " A search that is too coarse, in views or displacements, makes them so."
    return [Finding("calibration", text)]
