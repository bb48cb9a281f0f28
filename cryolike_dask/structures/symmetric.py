"""Whether structures have the symmetry that their views are reduced by, as a number."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.conventions import Conventions
from cryolike_dask.errors import InputError, InputFileError
from cryolike_dask.geometry.polar_grid import PolarGrid
from cryolike_dask.geometry.symmetry import AXES, NO_SYMMETRY, PointGroup, point_group
from cryolike_dask.geometry.viewing_angles import ViewingAngles, viewing_rotation
from cryolike_dask.structures.projection import EPS, Structure
from cryolike_dask.structures.sources import Projections

FloatArray = NDArray[np.float64]

MOST = 0.05
"""Of the amplitude of a projection, by which it may differ from one that should be the same: a part
of 0.0025 of the signal's power, which is below what noise hides in an image."""
N_VIEWS, SEED = 8, 20
PRIMES, HIGHEST_FOUND, HIGHEST_TRIED = (2, 3, 5, 7, 11), 12, 24
"""Of the order of an axis that is sought; what has a higher one is taken to be round."""


def refuse_symmetry(viewing: ViewingAngles, conventions: Conventions) -> None:
    """Refuse views of an asymmetric unit where conventions know no symmetry.

    Raises
    ------
    InputError
    """
    if viewing.symmetry != NO_SYMMETRY and not conventions.knows_symmetry:
        raise InputError(
            f"symmetry={viewing.symmetry!r}, but conventions={conventions.name!r} know none",
            remedy="Leave it out of the parameters; or choose other conventions.",
        )


def note_of_symmetry(projections: Projections) -> tuple[str, ...]:
    """Measure the symmetry of a structure whose views are those of an asymmetric unit.

    Returns
    -------
    tuple of str
        A sentence; none where the views are of no symmetry.

    Raises
    ------
    InputError
        If the structure does not have it.
    """
    if projections.viewing.symmetry == NO_SYMMETRY:
        return ()
    group = point_group(projections.viewing.symmetry)
    structure = projections.structure.load()
    found = asymmetry(structure, projections.grid, group, projections.conventions)
    if not found <= MOST:
        raise _not_symmetric(projections, structure, group, found)
    return (
        f"has the symmetry {group.name}: turned by its rotations, projections differ by "
        f"{found:.1g} of their amplitude",
    )


def asymmetry(
    structure: Structure, grid: PolarGrid, group: PointGroup, conventions: Conventions
) -> float:
    """How much the projections of a structure differ from those of the turned structure.

    Parameters
    ----------
    structure : Atoms or Volume
    grid : PolarGrid
        Of the images: differences count as far as its band limit.
    group : PointGroup
    conventions : Conventions

    Returns
    -------
    float
        Root of the power of the difference over that of the projection, over `N_VIEWS` views in
        double precision; the largest of those of the generators.
    """
    half = grid.n_inplanes // 2
    kx, ky = (k[:, :half].ravel() for k in grid.points())
    views = _some_views()
    turned = np.concatenate([views, *(generator @ views for generator in group.generators)])
    values = structure.slices(turned, kx, ky, grid.box_size_angstrom, conventions, EPS["double"])
    values = values.reshape(-1, N_VIEWS, grid.n_shells, half)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        power = grid.integrate(np.abs(values[0]) ** 2).sum()
        apart = grid.integrate(np.abs(values[1:] - values[0]) ** 2).sum(axis=1)
        return float(np.sqrt(np.max(apart, initial=0.0) / power))


@lru_cache(maxsize=1)
def _some_views() -> FloatArray:
    """Views in any direction, the same each time."""
    rng = np.random.default_rng(SEED)
    azimuth, gamma = rng.uniform(0, 2 * np.pi, (2, N_VIEWS))
    return viewing_rotation(azimuth, np.arccos(rng.uniform(-1, 1, N_VIEWS)), gamma)


def shared_symmetry(structures: Sequence[Projections]) -> str:
    """Measure which symmetry structures have, all of them, about the axes of their files.

    Returns
    -------
    str
        The largest group found; C1 where there is none, or where every rotation about z leaves
        projections as they are.
    """
    measured = [(shown.structure.load(), shown.grid, shown.conventions) for shown in structures]

    def holds(name: str) -> bool:
        group = point_group(name)
        return all(asymmetry(one, grid, group, how) <= MOST for one, grid, how in measured)

    order = 1
    for prime in PRIMES:
        while order * prime <= HIGHEST_TRIED and holds(f"C{order * prime}"):
            order *= prime
    if not 1 < order <= HIGHEST_FOUND:
        return NO_SYMMETRY
    larger = [name for name, (main, _) in AXES.items() if order % main[0] == 0]
    return next(filter(holds, (*reversed(larger), f"D{order}")), f"C{order}")


def _not_symmetric(
    projections: Projections, structure: Structure, group: PointGroup, found: float
) -> InputError:
    """What to say of a structure that is not as symmetric as was said."""
    others = [
        name
        for name in AXES
        if name[0] == group.name[0]
        and name != group.name
        and asymmetry(structure, projections.grid, point_group(name), projections.conventions)
        <= MOST
    ]
    what = (
        f"structure {projections.name!r} does not have the symmetry {group.name} about the axes of "
        f"its file: turned, its projections differ by {found:.1%} of their amplitude (at most "
        f"{MOST:.0%})"
    )
    remedy = (
        f"It has {others[0]}: give that."
        if others
        else f"{group.name} has {group.orientation}, through voxel n // 2 of maps and the mean "
        f"position of atoms. Turn the structure so, make its copies alike, or leave the symmetry "
        f"out of the parameters."
    )
    path = projections.structure.path
    if Path(path).is_absolute():
        return InputFileError(what, source=path, remedy=remedy)
    return InputError(what, remedy=remedy)
