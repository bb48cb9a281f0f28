"""Profiles of atoms that scatter electrons: Peng's five Gaussians for each element, times the
envelope of each atom's B-factor."""

from __future__ import annotations

import math

import gemmi
import numpy as np
from numpy.typing import NDArray

from cryolike_dask.errors import InputError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

FACTORS = {z: element.c4322 for z in range(1, 119) if (element := gemmi.Element(z)).c4322}
"""Coefficients of neutral atoms by atomic number, hydrogen to californium: those of the
International Tables for Crystallography, volume C, table 4.3.2.2 (Peng et al. 1996), good to a
resolution of 0.25 angstrom."""
MOST_POINTS = 512
"""Points at which is found what spans the profiles."""


def elements_without_factors(elements: NDArray[np.float64]) -> list[str]:
    """Name those among atomic numbers that are not tabulated."""
    numbers = np.unique(elements).tolist()
    return [
        gemmi.Element(int(z)).name if z.is_integer() and 0 < z < 119 else f"{z:g}"
        for z in numbers
        if z not in FACTORS
    ]


def scattering_factors(elements: IntArray, x: FloatArray) -> FloatArray:
    """Scattering factor of each element.

    Parameters
    ----------
    elements : (element,) int
        Atomic numbers.
    x : (point,)
        A quarter of the square of the spatial frequency, angstrom^-2.

    Returns
    -------
    float64, (element, point)
        sum_i a_i exp(-b_i x), angstrom.
    """
    factors = [FACTORS[z] for z in elements.tolist()]
    return np.array(
        [sum(a * np.exp(-b * x) for a, b in zip(f.a, f.b, strict=True)) for f in factors]
    )


def widest_b_factor(elements: IntArray) -> float:
    """That of the widest of the Gaussians that these elements are made of, angstrom^2."""
    return max(max(FACTORS[z].b) for z in np.unique(elements).tolist())


def scattering_profiles(
    elements: IntArray, b_factors: FloatArray, x: FloatArray, eps: float
) -> tuple[FloatArray, FloatArray]:
    """Few products whose sums are the profiles of all atoms, f(x) exp(-B x).

    Parameters
    ----------
    elements : (atom,) int
    b_factors : (atom,) float64
        Angstrom^2.
    x : (point,)
        A quarter of the square of the spatial frequency, angstrom^-2.
    eps : float
        What may be left out, relative to the largest value.

    Returns
    -------
    per_atom : (rank, atom) float64
    per_point : (rank, point) float64

    Notes
    -----
    A file can have as many B-factors as atoms. exp(-B x) is then interpolated between nodes, so
    that distinct profiles are those of each element at each node. What spans them is found at some
    points alone: profiles are smooth.
    """
    distinct, which = np.unique(elements, return_inverse=True)
    values, inverse = np.unique(b_factors, return_inverse=True)
    nodes, weights = _nodes(values, float(x.max(initial=0.0)))
    some = np.argsort(x)[np.linspace(0, len(x) - 1, min(len(x), MOST_POINTS)).round().astype(int)]
    envelopes = np.exp(-nodes[:, None] * x)
    profiles = scattering_factors(distinct, x)
    sample = (profiles[:, None, some] * envelopes[:, some]).reshape(-1, len(some))
    left, strength, _ = np.linalg.svd(sample, full_matrices=False)
    rank = max(1, int((strength > eps * strength[0]).sum()))
    bases = left[:, :rank].reshape(len(distinct), len(nodes), rank)
    per_atom, per_point = np.empty((rank, len(elements))), np.zeros((rank, len(x)))
    for i, (profile, basis) in enumerate(zip(profiles, bases, strict=True)):
        atoms = np.flatnonzero(which == i)
        per_atom[:, atoms] = (weights @ basis)[inverse[atoms]].T
        per_point += basis.T @ envelopes * profile
    return per_atom, per_point


def _nodes(values: FloatArray, x_max: float) -> tuple[FloatArray, FloatArray]:
    """Nodes (node,), and weights (value, node) that interpolate exp(-B x) from them, x up to
    `x_max`."""
    half = (values[-1] - values[0]) / 2
    n = 16 + math.ceil(8 * math.sqrt(half * x_max))
    if len(values) <= n:
        return values, np.eye(len(values))
    angles = (np.arange(n) + 0.5) * np.pi / n
    nodes = values[0] + half * (1 - np.cos(angles))
    # the barycentric formula, whose weights at these nodes are sines of alternating sign
    distance = values[:, None] - nodes
    hit = np.isclose(distance, 0, rtol=0, atol=1e-12 * half)
    terms = (-1.0) ** np.arange(n) * np.sin(angles) / np.where(hit, 1, distance)
    weights = terms / terms.sum(axis=1, keepdims=True)
    return nodes, np.where(hit.any(axis=1, keepdims=True), hit, weights)


def check_scattering(
    elements: FloatArray, b_factors: FloatArray, bulk_solvent: tuple[float, float] | None
) -> None:
    """Refuse elements without factors, B-factors that are none, and solvent denser than atoms.

    Raises
    ------
    InputError
    """
    unknown = elements_without_factors(elements)
    if unknown:
        raise InputError(
            f"there are no scattering factors for {', '.join(unknown[:5])}",
            remedy="Leave these atoms out (--atom-selection), or choose another atom_shape.",
        )
    if b_factors.shape != elements.shape:
        raise InputError(f"{len(elements)} atoms, but B-factors of shape {b_factors.shape}")
    if not (np.isfinite(b_factors).all() and (b_factors >= 0).all()):
        raise InputError("an atom has a B-factor that is negative or not finite")
    if bulk_solvent is not None and not (0 <= bulk_solvent[0] < 1 and bulk_solvent[1] >= 0):
        raise InputError(f"bulk_solvent={bulk_solvent} is no share below 1 and a B-factor")
