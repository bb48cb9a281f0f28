"""Shares of structures in groups of images: of a micrograph, an optics group, a half-set, a range
of defocus. Does one differ from the others by more than chance?"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.stats import chi2

from cryolike_dask import labels
from cryolike_dask.analysis.matrix import matrix_of
from cryolike_dask.analysis.populations.maximum import maximum_likelihood
from cryolike_dask.analysis.populations.micrographs import LEAST_VARIANCE
from cryolike_dask.analysis.populations.passes import Images
from cryolike_dask.analysis.populations.precision import precision

N_DEFOCUS = 4
"""Ranges of defocus, of as many images each."""
ODD_P = 0.01
"""Of a group among all of its kind: below it, chance does not explain how it differs."""
LEAST_IMAGES = 5
"""A smaller group says nothing of itself."""

MOST_SHOWN = 12
PROBABILITY = 0.95

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Grouped:
    """Shares of structures in groups of a kind, of which some are shown.

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
        Of a group that differs as much from all images, were it drawn from these by chance, times
        the number of groups. NaN of a group that is too small.
    """

    kind: str
    n_groups: int
    names: NDArray[np.object_]
    n_images: NDArray[np.int64]
    share: Floats
    interval: Floats
    p_value: Floats

    @property
    def odd(self) -> list[str]:
        """Groups that differ by more than chance."""
        differs = np.nan_to_num(self.p_value, nan=1.0) < ODD_P
        return [str(name) for name in self.names[differs]]


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
    if defocus_angstrom is not None:
        found["defocus"] = _ranges(defocus_angstrom)
    return {kind: of for kind, of in found.items() if len(set(of.tolist()) - {""}) > 1}


def grouped_shares(
    kind: str, members: NDArray[np.object_], relative: NDArray[np.float32], shares: Floats
) -> Grouped:
    """Estimate shares in each group of images, and hold them against those of all.

    Parameters
    ----------
    kind : str
    members : (image,) str
        "" of images that are in none.
    relative : (image, structure) float32
        Likelihoods, each image's over its largest; NaN of images that were not compared.
    shares : (structure,) float64
        Of all images.

    Notes
    -----
    A group of n of N images has a mean probability of each structure, given the shares of all. Of n
    rows of covariance C, drawn without replacement, the mean has the covariance C (1/n - 1/N). Its
    squared distance from that of all, in these units, is chi-squared distributed with as many
    degrees of freedom as C has directions.
    """
    used = (members != "") & np.isfinite(relative).all(axis=1)
    chosen, of = relative[used], members[used].astype(str)
    names, number = np.unique(of, return_inverse=True)
    n = np.bincount(number, minlength=len(names))
    p_value = _p_values(chosen, shares, number, n)
    shown = np.arange(len(names))
    if len(names) > MOST_SHOWN:
        shown = np.lexsort((-n, np.nan_to_num(p_value, nan=2.0)))[:MOST_SHOWN]
    shown = shown[_natural(names[shown])]
    estimates = [_estimate(chosen[number == k]) for k in shown]
    return Grouped(
        kind,
        len(names),
        names[shown].astype(object),
        n[shown],
        np.array([share for share, _ in estimates]),
        np.array([interval for _, interval in estimates]),
        p_value[shown],
    )


def relative_likelihoods(results: xr.Dataset) -> NDArray[np.float32]:
    """Likelihoods of structures that have some, each image's over its largest, (image, structure);
    NaN of images that lack one."""
    values = matrix_of(results, labels.LOG_LIKELIHOOD_INTEGRATED).transpose().values
    relative: NDArray[np.float32] = np.exp(values - values.max(axis=1, keepdims=True))
    return relative.astype(np.float32)


def _p_values(
    relative: NDArray[np.float32], shares: Floats, number: NDArray[np.int64], n: NDArray[np.int64]
) -> Floats:
    weighed = relative * np.maximum(shares, np.finfo(np.float32).tiny)
    rows = weighed / weighed.sum(axis=1, keepdims=True)
    means = (
        np.stack([np.bincount(number, column, len(n)) for column in rows.T], axis=1) / n[:, None]
    )
    away = means - rows.mean(axis=0)
    values, vectors = np.linalg.eigh(np.atleast_2d(np.cov(rows, rowvar=False, bias=True)))
    kept = values > LEAST_VARIANCE
    z = away @ vectors[:, kept] / np.sqrt(values[kept])
    scale = np.maximum(1 / n - 1 / len(rows), np.finfo(np.float64).tiny)
    p = chi2.sf((z**2).sum(axis=1) / scale, max(int(kept.sum()), 1)) * len(n)
    enough = (n >= LEAST_IMAGES) & bool(kept.any())
    return np.where(enough, np.minimum(p, 1), np.nan)


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


def _natural(names: NDArray[np.str_]) -> NDArray[np.int64]:
    """Order of names in which 10 comes after 9."""
    if all(name.isascii() and name.isdecimal() for name in names):
        return np.asarray(np.argsort([int(name) for name in names], kind="stable"))
    return np.arange(len(names))
