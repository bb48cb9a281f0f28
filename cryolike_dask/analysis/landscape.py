"""The shares of structures carried back to the frames of a simulation that they stand for: weights
of frames, observables, free energies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm

from cryolike_dask import labels
from cryolike_dask.analysis.populations.estimate import PROBABILITY
from cryolike_dask.errors import InputError, number
from cryolike_dask.structures.trajectories.subset import FrameAssignment, read_assignment

FRAME, BIN, BOUND = "frame", "bin", "bound"
COLLECTIVE_VARIABLE, FREE_ENERGY = "collective_variable", "free_energy"
OF_FRAMES = "of the frames as they are, each with its prior weight"

Floats = NDArray[np.float64]


def frame_weight(
    populations: xr.Dataset,
    assignment: FrameAssignment | str | Path,
    prior_weight: ArrayLike | None = None,
) -> xr.DataArray:
    """Give every frame its part of the share of the structure that stands for it.

    Parameters
    ----------
    populations : xarray.Dataset
        As `populations` gives it, of structures that are frames of a simulation.
    assignment : FrameAssignment or path
        Which structure stands for each frame: as `choose_subset` gives it, or `assignment.csv`.
    prior_weight : (frame,) array, optional
        Of each frame beforehand, such as that of a biased simulation; default: all alike. The share
        of a structure is divided among its frames in proportion to these.

    Returns
    -------
    xarray.DataArray
        (frame,), adding up to 1. Coordinates: the number of each frame in the trajectory, and its
        `structure`.

    Raises
    ------
    InputError
        If a structure has no frames, or frames have a structure that has no share.
    """
    carried = _carried(populations, assignment, prior_weight)
    share = populations[labels.POPULATION].values[carried.structure]
    return xr.DataArray(
        carried.part * share,
        dims=FRAME,
        coords={
            FRAME: carried.frames,
            labels.STRUCTURE: (FRAME, populations[labels.STRUCTURE].values[carried.structure]),
        },
        name="frame_weight",
        attrs={"long_name": "weight of the frame, by the shares of structures", "units": "1"},
    )


def expectation(
    populations: xr.Dataset,
    assignment: FrameAssignment | str | Path,
    observable: ArrayLike | xr.DataArray,
    prior_weight: ArrayLike | None = None,
) -> xr.Dataset:
    """Average what is known of every frame over the shares of structures, with the error that these
    have.

    Parameters
    ----------
    populations, assignment, prior_weight
        As for `frame_weight`.
    observable : (frame, ...) array
        Numbers of each frame, in the order of the assignment.

    Returns
    -------
    xarray.Dataset
        `expectation`, `expectation_sd`, and `expectation_interval` (bound, ...) of 95%, without the
        dimension of frames; and `expectation_of_frames`, of the simulation itself. Errors are those
        of the shares alone, not of the simulation within a cluster.

    Raises
    ------
    InputError
        As for `frame_weight`; or if the observable is not of these frames, or not finite.
    """
    carried = _carried(populations, assignment, prior_weight)
    values, dims, coords = _of_frames(observable, len(carried.frames))
    means = carried.means(values.reshape(len(values), -1))
    found = _with_errors(populations, means)
    shape = values.shape[1:]
    variables = {
        "expectation": (found.value, "mean of the observable"),
        "expectation_sd": (found.sd, "standard deviation of this mean, of the shares"),
        "expectation_of_frames": (carried.prior @ values.reshape(len(values), -1), OF_FRAMES),
    }
    return xr.Dataset(
        {
            name: (dims, np.reshape(numbers, shape), {"long_name": what})
            for name, (numbers, what) in variables.items()
        }
        | {
            "expectation_interval": (
                (BOUND, *dims),
                found.interval.reshape(2, *shape),
                {"long_name": "the mean lies between"},
            )
        },
        coords={**coords, BOUND: np.array(["lower", "upper"], object)},
        attrs={"probability_of_intervals": PROBABILITY, "errors": found.source},
    )


def free_energy(
    populations: xr.Dataset,
    assignment: FrameAssignment | str | Path,
    collective_variable: ArrayLike | xr.DataArray,
    bins: int | ArrayLike = 30,
    prior_weight: ArrayLike | None = None,
) -> xr.Dataset:
    """Find the free energy along a collective variable from the shares of structures.

    Parameters
    ----------
    populations, assignment, prior_weight
        As for `frame_weight`.
    collective_variable : (frame,) array
        In the order of the assignment. The name and units of a DataArray are kept.
    bins : int or array
        How many, over all values; or their edges, beyond which frames are left out.

    Returns
    -------
    xarray.Dataset
        (bin): `free_energy`, kT, minus the logarithm of the density, 0 where it is least, NaN
        where there is no frame; `free_energy_sd` and `free_energy_interval` (bound, bin) of 95%,
        the error of the probability of each bin, whose zero stays; `free_energy_of_frames`, of the
        simulation itself; `probability`, `n_frames`. Coordinates: `collective_variable`, the
        middles of bins, and `bin_edge`, (edge). Errors are those of the shares alone: within a
        cluster the slope is that of the simulation.

    Raises
    ------
    InputError
        As for `frame_weight`; or if the variable is not of these frames, or bins are none.
    """
    carried = _carried(populations, assignment, prior_weight)
    values, _, _ = _of_frames(collective_variable, len(carried.frames))
    if values.ndim != 1:
        raise InputError(
            f"collective_variable has the shape {values.shape}", remedy="Give one number a frame."
        )
    edges = _edges(bins, values)
    place = np.searchsorted(edges, values, side="right") - 1
    place[values == edges[-1]] = len(edges) - 2
    inside = (place >= 0) & (place < len(edges) - 1)
    n_bins, rows = len(edges) - 1, np.flatnonzero(inside)
    found = _with_errors(populations, carried.shares_of_bins(rows, place[rows], n_bins))
    simulated = np.bincount(place[rows], carried.prior[rows], n_bins)
    width, n_frames = np.diff(edges), np.bincount(place[rows], minlength=n_bins)
    with np.errstate(divide="ignore", invalid="ignore"):
        energy, of_frames = (-np.log(p / width) for p in (found.value, simulated))
        zero, zero_of_frames = (
            np.min(e[np.isfinite(e)], initial=np.inf) for e in (energy, of_frames)
        )
        interval = -np.log(np.maximum(found.interval[::-1], 0) / width) - zero
        sd = found.sd / found.value
    empty = ~np.isfinite(energy)
    variables: dict[str, tuple[Any, ...]] = {
        FREE_ENERGY: (energy - zero, "free energy", "kT"),
        "free_energy_sd": (sd, "standard deviation of the free energy, of the shares", "kT"),
        "free_energy_of_frames": (of_frames - zero_of_frames, OF_FRAMES, "kT"),
        "probability": (found.value, "probability of the bin", "1"),
    }
    name, attributes = _about(collective_variable)
    return xr.Dataset(
        {
            key: (
                BIN,
                np.where(empty & (unit == "kT"), np.nan, numbers),
                {"long_name": what, "units": unit},
            )
            for key, (numbers, what, unit) in variables.items()
        }
        | {
            "free_energy_interval": (
                (BOUND, BIN),
                np.where(empty, np.nan, interval),
                {"long_name": "the free energy lies between", "units": "kT"},
            ),
            "n_frames": (BIN, n_frames, {"long_name": "frames in the bin"}),
        },
        coords={
            COLLECTIVE_VARIABLE: (BIN, (edges[:-1] + edges[1:]) / 2, attributes),
            "bin_edge": ("edge", edges, attributes),
            BOUND: np.array(["lower", "upper"], object),
        },
        attrs={
            "collective_variable": name,
            "probability_of_intervals": PROBABILITY,
            "n_frames_left_out": int(np.sum(~inside)),
            "errors": found.source,
        },
    )


@dataclass(frozen=True, eq=False)
class _Carried:
    """Frames and the structures that stand for them.

    Attributes
    ----------
    frames : (frame,) int64
    structure : (frame,) int64
        By position among the populations.
    part : (frame,) float64
        Of the share of its structure.
    prior : (frame,) float64
        Weights beforehand, adding up to 1.
    n_structures : int
    """

    frames: NDArray[np.int64]
    structure: NDArray[np.int64]
    part: Floats
    prior: Floats
    n_structures: int

    def means(self, values: Floats) -> Floats:
        """Means of values over the frames of each structure: (frame, number) to (structure,
        number)."""
        means = np.empty((self.n_structures, values.shape[1]))
        for k in range(values.shape[1]):
            weighted = self.part * values[:, k]
            means[:, k] = np.bincount(self.structure, weighted, self.n_structures)
        return means

    def shares_of_bins(
        self, frames: NDArray[np.int64], place: NDArray[np.int64], n_bins: int
    ) -> Floats:
        """What part of each structure is in each bin, (structure, bin), by the place of some
        frames."""
        cell = self.structure[frames] * n_bins + place
        parts = np.bincount(cell, self.part[frames], self.n_structures * n_bins)
        return parts.reshape(self.n_structures, n_bins).astype(np.float64)


@dataclass(frozen=True, eq=False)
class _Found:
    """Averages over shares, their errors, and where these come from."""

    value: Floats
    sd: Floats
    interval: Floats
    source: str


def _carried(
    populations: xr.Dataset,
    assignment: FrameAssignment | str | Path,
    prior_weight: ArrayLike | None,
) -> _Carried:
    if not isinstance(populations, xr.Dataset) or labels.POPULATION not in populations:
        raise InputError("no populations", remedy="Give the Dataset that populations gives.")
    if not isinstance(assignment, FrameAssignment):
        assignment = read_assignment(assignment)
    names = [str(name) for name in populations[labels.STRUCTURE].values]
    place = {name: k for k, name in enumerate(names)}
    used = assignment.structures[np.unique(assignment.assignment)].tolist()
    unknown, idle = sorted({*used} - {*names}), sorted({*names} - {*used})
    if unknown or idle:
        what = (
            f"frames are assigned to {unknown[0]!r}, which has no share (there are "
            f"{', '.join(names[:5])}{', ...' * (len(names) > 5)})"
            if unknown
            else f"{idle[0]!r} has a share, but no frame is assigned to it"
        )
        more = len(unknown or idle) - 1
        raise InputError(
            what + (f"; so it is with {more:,} more" if more else ""),
            remedy="Give populations of just the structures of the assignment: "
            "results.sel(structure=...).",
        )
    n = len(assignment.frames)
    prior = np.ones(n) if prior_weight is None else _of_frames(prior_weight, n, "prior_weight")[0]
    if prior.ndim != 1 or (prior < 0).any():
        raise InputError("prior_weight is negative, or more than one number a frame")
    of_name = np.array([place.get(str(name), -1) for name in assignment.structures], np.int64)
    structure = of_name[assignment.assignment]
    total = np.bincount(structure, prior, len(names))
    if (total <= 0).any():
        raise InputError(f"no frame of {names[int(np.argmin(total))]!r} has any prior_weight")
    part = prior / total[structure]
    return _Carried(assignment.frames, structure, part, prior / prior.sum(), len(names))


def _of_frames(
    given: ArrayLike | xr.DataArray, n: int, name: str = "what is known of frames"
) -> tuple[Floats, list[str], dict[str, Any]]:
    """Numbers of each frame, their other dimensions, and the coordinates of these."""
    dims, coords = None, dict[str, Any]()
    if isinstance(given, xr.DataArray):
        if FRAME in given.dims:
            given = given.transpose(FRAME, ...)
        dims = [str(dim) for dim in given.dims[1:]]
        coords = {dim: given[dim] for dim in dims if dim in given.coords}
    try:
        values = np.asarray(given, np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name}: {error}", remedy="Give numbers.") from error
    if values.ndim < 1 or len(values) != n:
        raise InputError(f"{name} has the shape {values.shape}, but {n:,} frames are assigned")
    if not np.isfinite(values).all():
        frame = int(np.argwhere(~np.isfinite(values))[0][0])
        raise InputError(f"{name} is not finite at position {frame:,}")
    return values, dims or [f"dim_{k}" for k in range(1, values.ndim)], coords


def _with_errors(populations: xr.Dataset, means: Floats) -> _Found:
    """Averages of means of structures over their shares: by the draws of these, or else by their
    covariance."""
    value = populations[labels.POPULATION].values @ means
    tail = (1 - PROBABILITY) / 2
    if "population_draws" in populations:
        draws = populations["population_draws"].transpose(..., labels.STRUCTURE).values
        drawn = draws.reshape(-1, len(means)) @ means
        interval = np.quantile(drawn, [tail, 1 - tail], axis=0)
        return _Found(value, drawn.std(axis=0), interval, "draws")
    if "population_covariance" in populations:
        covariance, source = populations["population_covariance"].values, "covariance"
    elif labels.POPULATION_SD in populations:
        covariance = np.diag(populations[labels.POPULATION_SD].values ** 2)
        source = "standard deviations, as if shares were independent"
    else:
        raise InputError("populations have no errors", remedy="Give what populations gives.")
    variance = np.einsum("sk,st,tk->k", means, covariance, means, optimize=True)
    sd = np.sqrt(np.maximum(variance, 0))
    return _Found(value, sd, value + norm.ppf([[tail], [1 - tail]]) * sd, source)


def _edges(bins: Any, values: Floats) -> Floats:
    if np.ndim(bins) == 0:
        n = number("bins", bins, whole=True, at_least=1)
        low, high = values.min(), values.max()
        if low == high:
            raise InputError(f"collective_variable is {low:g} in all frames")
        return np.linspace(low, high, n + 1)
    edges = np.asarray(bins, np.float64)
    if edges.ndim != 1 or len(edges) < 2 or not (np.diff(edges) > 0).all():
        raise InputError("bins are neither a number nor edges that rise")
    if not np.isfinite(edges).all() or edges[-1] < values.min() or edges[0] > values.max():
        raise InputError("no frame lies between the edges of bins")
    return edges


def _about(given: Any) -> tuple[str, dict[str, Any]]:
    """The name of a collective variable, and its attributes."""
    if not isinstance(given, xr.DataArray):
        return COLLECTIVE_VARIABLE.replace("_", " "), {}
    name = given.attrs.get("long_name", given.name or COLLECTIVE_VARIABLE.replace("_", " "))
    return str(name), dict(given.attrs)
