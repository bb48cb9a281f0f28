"""Groups of images, a half-set, an optics group, a micrograph, a range of defocus: what each shows,
and how well it fits. Does one differ from the others by more than chance?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cryolike_dask import labels
from cryolike_dask.analysis.group_tests import p_values_of_fit, p_values_of_shares
from cryolike_dask.analysis.matrix import matrix_of
from cryolike_dask.analysis.populations.maximum import maximum_likelihood
from cryolike_dask.analysis.populations.passes import Images
from cryolike_dask.analysis.populations.precision import precision

N_DEFOCUS = 4
"""Ranges of defocus, of as many images each."""
ODD_P = 0.01
"""Of a group among all of its kind: below it, chance does not explain how it differs."""

MOST_SHOWN = 12
PROBABILITY = 0.95

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Fit:
    """How well images fit, whatever they show.

    Attributes
    ----------
    correlation : (image,) float64
        Of the best pose; NaN where it is not known.
    lead : (image,) float64
        Log-likelihood of the best structure over the second, nat.
    lost : (image,) float64 or None
        1 where a decoy fits better than all structures, else 0, NaN where that is not known; None
        without decoys.
    n_per_lost : float
        Images of none of the structures for each that decoys win.
    """

    correlation: Floats
    lead: Floats
    lost: Floats | None = None
    n_per_lost: float = np.nan

    def of(self, rows: NDArray[np.int64]) -> tuple[float, float, float]:
        """Median correlation, median lead, and the share of none, of some images."""
        none = np.nan if self.lost is None else self.n_per_lost * _known(np.mean, self.lost[rows])
        return (
            _known(np.median, self.correlation[rows]),
            _known(np.median, self.lead[rows]),
            min(none, 1.0) if np.isfinite(none) else np.nan,
        )


@dataclass(frozen=True, eq=False)
class Grouped:
    """What groups of a kind show, and how well they fit; of many groups some are shown.

    Attributes
    ----------
    kind : str
        "micrograph", say.
    n_groups : int
        Of all.
    names : (group,) str
        Of those shown: all if they are few, else those that differ most.
    n_images : (group,) int
        With results under all structures.
    share : (group, structure) float64
        Of largest likelihood, of the images of the group alone.
    interval : (group, structure, 2) float64
        Of 95%.
    p_value : (group,) float64
        Of a group that differs as much in its shares, by chance, among so many; two groups have the
        same. NaN of a group that is too small.
    least_p : float
        The least that it can be.
    correlation, lead, none : (group,) float64
        Median correlation of the best pose; median lead, nat; share of images that show none of the
        structures, by decoys. NaN of what is not known.
    p_of_fit, score_of_fit : (group,) float64
        Of a group that fits so much worse, or better; in standard errors, below 0 where it fits
        worse. As `p_values_of_fit` gives them.
    """

    kind: str
    n_groups: int
    names: NDArray[np.object_]
    n_images: NDArray[np.int64]
    share: Floats
    interval: Floats
    p_value: Floats
    least_p: float
    correlation: Floats
    lead: Floats
    none: Floats
    p_of_fit: Floats
    score_of_fit: Floats

    @property
    def odd(self) -> NDArray[np.int64]:
        """Groups whose shares differ by more than chance; of two groups both or none."""
        return np.flatnonzero(np.nan_to_num(self.p_value, nan=1.0) < ODD_P)

    @property
    def worse(self) -> NDArray[np.int64]:
        """Groups whose images fit worse than those of the others by more than chance."""
        differs = np.nan_to_num(self.p_of_fit, nan=1.0) < ODD_P
        return np.flatnonzero(differs & (self.score_of_fit < 0))

    def called(self, group: int) -> str:
        """A group as people call it: "half-set 1", "a.mrc"."""
        name = str(self.names[group])
        return name if self.kind == "micrograph" else f"{self.kind} {name}"


def groups_of_images(
    summary: xr.Dataset, defocus_angstrom: Floats | None
) -> dict[str, NDArray[np.object_]]:
    """The group of each image, "" where it is not known, by kinds of which there are several
    groups."""
    found: dict[str, NDArray[np.object_]] = {}
    for kind, coordinate in (
        ("half-set", labels.RANDOM_SUBSET),
        ("optics group", labels.OPTICS_GROUP),
        ("micrograph", labels.MICROGRAPH),
    ):
        if coordinate in summary.coords:
            values = np.atleast_1d(summary[coordinate].values)
            known = values >= 0 if values.dtype.kind in "iu" else values.astype(str) != ""
            found[kind] = np.where(known, values.astype(str), "").astype(object)
    if "micrograph" in found:
        found["micrograph"] = _last_parts(found["micrograph"])
    if defocus_angstrom is not None:
        found["defocus"] = _ranges(defocus_angstrom)
    return {kind: of for kind, of in found.items() if len(set(of.tolist()) - {""}) > 1}


def grouped_shares(
    kind: str,
    members: NDArray[np.object_],
    relative: NDArray[np.float32],
    shares: Floats,
    fit: Fit,
) -> Grouped:
    """Estimate shares in each group of images, see how well it fits, and hold both against those of
    all.

    Parameters
    ----------
    kind : str
    members : (image,) str
        "" of images that are in none.
    relative : (image, structure) float32
        Likelihoods, each image's over its largest; NaN of images that were not compared.
    shares : (structure,) float64
        Of all images.
    fit : Fit
    """
    used = np.flatnonzero((members != "") & np.isfinite(relative).all(axis=1))
    chosen = relative[used]
    names, number = _numbered(members[used])
    n = np.bincount(number, minlength=len(names))
    weighed = chosen * np.maximum(shares, np.finfo(np.float32).tiny)
    p_value, least = p_values_of_shares(weighed / weighed.sum(axis=1, keepdims=True), number, n)
    p_of_fit, score = p_values_of_fit(
        fit.correlation[used], chosen.argmax(axis=1), number, len(names)
    )
    shown = np.arange(len(names))
    if len(names) > MOST_SHOWN:
        both = np.stack([p_value, np.where(score < 0, p_of_fit, np.nan)])
        shown = np.lexsort((-n, np.nan_to_num(both, nan=2.0).min(axis=0)))[:MOST_SHOWN]
    shown = shown[_natural(names[shown])]
    rows = [np.flatnonzero(number == k) for k in shown]
    estimates = [_estimate(chosen[its]) for its in rows]
    correlation, lead, none = np.array([fit.of(used[its]) for its in rows]).reshape(-1, 3).T
    return Grouped(
        kind,
        len(names),
        names[shown].astype(object),
        n[shown],
        np.array([share for share, _ in estimates]),
        np.array([interval for _, interval in estimates]),
        p_value[shown],
        least,
        correlation,
        lead,
        none,
        p_of_fit[shown],
        score[shown],
    )


def relative_likelihoods(results: xr.Dataset) -> NDArray[np.float32]:
    """Likelihoods of structures that have some, each image's over its largest, (image, structure);
    NaN of images that lack one."""
    values = matrix_of(results, labels.LOG_LIKELIHOOD_INTEGRATED).transpose().values
    relative: NDArray[np.float32] = np.exp(values - values.max(axis=1, keepdims=True))
    return relative.astype(np.float32)


def _known(of: Callable[[Floats], np.float64], values: Floats) -> float:
    """Of the values that are known; NaN if none is."""
    known = values[np.isfinite(values)]
    return float(of(known)) if len(known) else np.nan


def _estimate(relative: NDArray[np.float32]) -> tuple[Floats, Floats]:
    images = Images(np.ascontiguousarray(relative), np.ones(len(relative)))
    maximum = maximum_likelihood(images)
    return maximum.shares, precision(images, maximum, PROBABILITY).interval


def _ranges(defocus: Floats) -> NDArray[np.object_]:
    """Ranges of defocus of as many images each, by their ends in micrometre."""
    known = np.isfinite(defocus)
    found = np.full(len(defocus), "", object)
    edges = np.unique(np.quantile(defocus[known], np.linspace(0, 1, N_DEFOCUS + 1)))
    if len(edges) < 2:
        return found
    which = np.searchsorted(edges[1:-1], defocus[known], side="right")
    said = [f"{a / 1e4:.2f} to {b / 1e4:.2f} µm" for a, b in pairwise(edges)]
    found[known] = np.array(said, object)[which]
    return found


def _last_parts(paths: NDArray[np.object_]) -> NDArray[np.object_]:
    """Names of files without their folders, where they differ still."""
    last = {path: str(path).replace("\\", "/").rpartition("/")[2] for path in set(paths.tolist())}
    if len(set(last.values())) < len(last) or not all(last[path] for path in last if path):
        return paths
    return np.array([last[path] for path in paths], object)


def _numbered(members: NDArray[np.object_]) -> tuple[NDArray[np.str_], NDArray[np.int64]]:
    """Names of groups, and the number of each image's; a million names are not sorted."""
    names = np.array(sorted(map(str, set(members.tolist()))), str)
    number = {name: k for k, name in enumerate(names.tolist())}
    return names, np.array([number[str(name)] for name in members], np.int64)


def _natural(names: NDArray[np.str_]) -> NDArray[np.int64]:
    """Order of names in which 10 comes after 9."""
    if all(name.isascii() and name.isdecimal() for name in names):
        return np.asarray(np.argsort([int(name) for name in names], kind="stable"))
    return np.arange(len(names))
