"""`parameters.npz`, as CryoLike and this project both read and write it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cryolike_dask.errors import InputError, InputFileError, number
from cryolike_dask.geometry.parameters import ImageParameters
from cryolike_dask.geometry.symmetry import NO_SYMMETRY
from cryolike_dask.geometry.viewing_angles import SMALLEST_DISTANCE
from cryolike_dask.io.archives import read_archive, write_archive
from cryolike_dask.io.mrc import open_mrc_map
from cryolike_dask.labels import AtomicB, BulkSolvent, Precision

OPTIONAL = ("atom_radii", "atom_selection")
REQUIRED = (
    "n_pixels",
    "pixel_size",
    "radius_max",
    "dist_radii",
    "n_inplanes",
    "precision",
    "viewing_distance",
    "use_protein_residue_model",
    "atom_shape",
)
SCATTERING = ("scattering", "atomic_b", "bulk_solvent")
"""Keys of ours, there only where atoms scatter; `atom_shape` is a word that CryoLike knows."""
SYMMETRY = "symmetry"
"""A key of ours, there only where structures are symmetric; CryoLike looks for no such key."""
FRAME = ("frame_origin", "superpose")
"""Keys of ours, there only where structures are not centred one by one."""
KEYS = (*REQUIRED, *OPTIONAL, *SCATTERING, SYMMETRY, *FRAME)
FILE = "file"
HALF_A_TURN = 180
EQUAL = 1e-6
"""By which a number may be off that was rounded when it was typed."""


def make_parameters(
    n_pixels: int,
    pixel_size_angstrom: float,
    precision: Precision = "default",
    resolution_factor: float | None = None,
    viewing_distance: float | None = None,
    n_inplanes: int | None = None,
    atom_radii: float | None = None,
    atom_selection: str | None = None,
    use_protein_residue_model: bool | None = None,
    atom_shape: str = "default",
    *,
    resolution_angstrom: float | None = None,
    view_step_degrees: float | None = None,
    atomic_b: AtomicB = "none",
    bulk_solvent: BulkSolvent | None = None,
    symmetry: str = NO_SYMMETRY,
    frame: str | Path | tuple[float, float, float] | None = None,
    superpose: str | None = None,
    path: str | Path | None = None,
) -> ImageParameters:
    """Describe the grid that images and templates share, and how templates are made from atoms.

    Parameters
    ----------
    n_pixels : int
        Pixels along a side of the images.
    pixel_size_angstrom : float
    precision : "default" | "single" | "double"
        "default" is the precision of the data found, single where there is none.
    resolution_factor : float, optional
        The band limit as a fraction of the Nyquist frequency, as CryoLike says it, in place of
        `resolution_angstrom`.
    viewing_distance : float, optional
        The distance of viewing directions in radian, as CryoLike says it, in place of
        `view_step_degrees`.
    n_inplanes : int, optional
        In-plane angles, an even number; default 2 n_pixels.
    atom_radii : float, optional
        One radius for all atoms or residues, angstrom; default: that of each residue, or else of
        each element.
    atom_selection : str, optional
        Such as "name CA", "resname GLY ALA and not chain B", "resid 10-50"; default: everything,
        but, of atoms that scatter, for waters and ions, which "all" or their names ask for.
    use_protein_residue_model : bool, optional
        One sphere per residue, on its C-alpha; otherwise all atoms. Default: one sphere per
        residue, unless atoms scatter. True wins over scattering.
    atom_shape : "scattering" | "gaussian" | "hard-sphere" | "default"
        Atoms that scatter electrons by the tabulated factors of their elements, neutral, right to
        any resolution; or spheres: "default" is hard-sphere. A Gaussian's standard deviation is the
        radius. One sphere per residue misleads below about 10 angstrom, hard spheres of atoms below
        about 4.
    resolution_angstrom : float, optional
        The band limit: images and templates are compared up to this resolution. Default: two
        pixels, which is all that images hold.
    view_step_degrees : float, optional
        From one viewing direction to the next. Default: 4.56 degrees, which is 2370 directions, at
        full resolution; and in proportion to `resolution_angstrom`.
    atomic_b : "none" | "file" | float
        B-factor of atoms that scatter, angstrom^2: 0, that of each atom in its file, which has to
        be refined, or one for all atoms of all structures, up to 500.
    bulk_solvent : "none" | "babinet" | (float, float), optional
        Flat solvent around atoms that scatter: a share k and a B-factor (angstrom^2), by which
        their transform is multiplied by 1 - k exp(-B f^2 / 4). "babinet" is 0.85 and 200, found by
        refinement against X-rays; k is the ratio of the solvent's mean potential to that of the
        molecule, and smaller for electrons, by tabulated factors about 0.6 for proteins with their
        hydrogens and 0.7 without.
    symmetry : str
        Point group of the structures, in RELION's orientation: C4 (axis on z), D7 (a two-fold on
        x), T (a three-fold on z), O, I1 to I4; I is I2. Templates are views of its asymmetric unit,
        as many times fewer as it has rotations, and structures that lack it are refused.
    frame : path, "file" or (x, y, z), optional
        Where poses have their origin in the coordinates of the structure files: the middle (voxel n
        // 2) of a map that they lie in, the origin of the files, or a point in angstrom; so that
        poses found with that map hold for them. Default: the mean of the atoms of each structure.
    superpose : str, optional
        A selection of atoms, as `atom_selection`, by which every structure is superposed on the
        first, with its origin.
    path : path, optional
        Where to write `parameters.npz`.

    Returns
    -------
    ImageParameters

    Raises
    ------
    InputError
        If a value cannot be used.
    """
    n_pixels = number("n_pixels", n_pixels, whole=True, at_least=1)
    pixel_size = number("pixel_size_angstrom", pixel_size_angstrom, above=0)
    factor = _part_of_band(resolution_factor, resolution_angstrom, n_pixels, pixel_size)
    parameters = ImageParameters(
        n_pixels=n_pixels,
        pixel_size_angstrom=pixel_size,
        radius_max=factor * n_pixels / 4,
        n_inplanes=0
        if n_inplanes is None
        else number("n_inplanes", n_inplanes, whole=True, at_least=1),
        precision=precision,
        viewing_distance=_radian(viewing_distance, view_step_degrees),
        atom_radii=atom_radii,
        atom_selection=atom_selection,
        use_protein_residue_model=None
        if use_protein_residue_model is None
        else bool(use_protein_residue_model),
        atom_shape=atom_shape,
        atomic_b=atomic_b,
        bulk_solvent=bulk_solvent,
        symmetry=symmetry,
        frame_origin=_origin_of(frame),
        superpose=superpose,
    )
    if path is not None:
        write_parameters(path, parameters)
    return parameters


def _part_of_band(
    factor: float | None, angstrom: float | None, n_pixels: int, pixel_size: float
) -> float:
    """The band limit as a fraction of the Nyquist frequency, by either word; default: all of it."""
    if angstrom is not None:
        if factor is not None:
            raise _both("resolution_angstrom", angstrom, "resolution_factor", factor)
        if number("resolution_angstrom", angstrom, above=0) < 2 * pixel_size * (1 - EQUAL):
            raise InputError(
                f"resolution_angstrom={angstrom:g} is finer than two pixels, which are "
                f"{2 * pixel_size:g} angstrom",
                remedy="Give that or more, or leave it out.",
            )
        if angstrom > n_pixels * pixel_size:
            raise InputError(
                f"resolution_angstrom={angstrom:g} is more than the box of "
                f"{n_pixels * pixel_size:g} angstrom",
                remedy="Nothing is left to be compared; give less.",
            )
        return min(1.0, 2 * pixel_size / angstrom)
    part: float = 1.0 if factor is None else number("resolution_factor", factor, above=0)
    if part > 1:
        raise InputError(
            f"resolution_factor={part:g} is beyond the Nyquist frequency", remedy="Give 1 or less."
        )
    return part


def _radian(radian: float | None, degrees: float | None) -> float:
    """The distance of viewing directions, by either word; default: 0, which stands for that of the
    band."""
    if degrees is not None:
        if radian is not None:
            raise _both("view_step_degrees", degrees, "viewing_distance", radian)
        if number("view_step_degrees", degrees, above=0) > HALF_A_TURN:
            raise InputError(
                f"view_step_degrees={degrees:g} is more than half a turn",
                remedy="Give 180 or less.",
            )
        if degrees < math.degrees(SMALLEST_DISTANCE):
            raise InputError(
                f"view_step_degrees={degrees:g} gives more than a million directions",
                remedy="4.6 gives 2370 directions, 0.6 gives 126,000.",
            )
        return math.radians(degrees)
    if radian is None:
        return 0.0
    if number("viewing_distance", radian, above=0) > math.pi:
        what = f"viewing_distance={radian:g} is more than half a turn"
        raise InputError(
            what, remedy=f"It is in radian; in degrees say view_step_degrees={radian:g}."
        )
    return radian


def _both(word: str, value: float, older: str, older_value: float) -> InputError:
    return InputError(
        f"{word}={value:g} and {older}={older_value:g} exclude each other",
        remedy="Leave one of them out.",
    )


def _origin_of(
    frame: str | Path | tuple[float, float, float] | None,
) -> tuple[float, float, float] | None:
    """Origin of poses, angstrom."""
    if not isinstance(frame, (str, Path)):
        return frame
    return (0.0, 0.0, 0.0) if frame == FILE else open_mrc_map(frame).middle()


def read_parameters(params_input: str | Path | ImageParameters) -> ImageParameters:
    """Give the parameters, from a `parameters.npz` file or as they are.

    Raises
    ------
    InputFileError
        If the file is missing or damaged, lacks a key, or describes a box or pixel that is not
        square.
    """
    if isinstance(params_input, ImageParameters):
        return params_input
    if not isinstance(params_input, (str, Path)):
        raise InputError(
            f"params_input is a {type(params_input).__name__}",
            remedy="Give the path of parameters.npz, or an ImageParameters.",
        )
    return parameters_from(
        read_archive(params_input, optional=OPTIONAL, keys=KEYS, n_images=0), str(params_input)
    )


def write_parameters(path: str | Path, parameters: ImageParameters) -> None:
    """Write `parameters.npz`, atomically."""
    write_archive(path, parameters_entries(parameters))


def parameters_entries(parameters: ImageParameters) -> dict[str, ArrayLike | None]:
    """The entries of `parameters.npz`, which every stack's `.npz` repeats."""
    return {
        **_grid_and_spheres(parameters),
        **(_scattering(parameters) if parameters.atom_shape == "scattering" else {}),
        **({} if parameters.symmetry == NO_SYMMETRY else {SYMMETRY: parameters.symmetry}),
        **{key: of for key in FRAME if (of := getattr(parameters, key)) is not None},
    }


def _scattering(parameters: ImageParameters) -> dict[str, ArrayLike | None]:
    solvent = parameters.bulk_solvent
    return {
        "atom_shape": "gaussian" if parameters.scatters else "default",
        "scattering": True,
        "atomic_b": parameters.atomic_b,
        **({} if solvent is None else {"bulk_solvent": np.array(solvent)}),
    }


def _grid_and_spheres(parameters: ImageParameters) -> dict[str, ArrayLike | None]:
    return {
        "n_pixels": np.array([parameters.n_pixels] * 2),
        "pixel_size": np.array([parameters.pixel_size_angstrom] * 2),
        "radius_max": parameters.radius_max,
        "dist_radii": parameters.dist_radii,
        "n_inplanes": parameters.n_inplanes,
        "precision": parameters.precision,
        "viewing_distance": parameters.viewing_distance,
        "atom_radii": parameters.atom_radii,
        "atom_selection": parameters.atom_selection,
        "use_protein_residue_model": parameters.use_protein_residue_model,
        "atom_shape": parameters.atom_shape,
    }


def parameters_from(entries: Mapping[str, NDArray[Any] | None], source: str) -> ImageParameters:
    """Build the parameters from the entries of a `.npz` file named `source`."""
    missing = [key for key in REQUIRED if entries.get(key) is None]
    if missing:
        if len(missing) == len(REQUIRED):
            what = f"holds {', '.join(sorted(entries)[:5]) or 'nothing'}, not parameters"
            raise InputFileError(what, source=source, remedy="Give parameters.npz.")
        raise InputFileError(
            f"lacks {', '.join(missing)}", source=source, remedy="Make the parameters again."
        )
    try:
        radii, selection = entries.get("atom_radii"), entries.get("atom_selection")
        symmetry = entries.get(SYMMETRY)
        origin, superpose = (entries.get(key) for key in FRAME)
        return ImageParameters(
            n_pixels=number(
                "n_pixels", _square(entries["n_pixels"], "n_pixels", source), whole=True, at_least=1
            ),
            pixel_size_angstrom=number(
                "pixel_size", _square(entries["pixel_size"], "pixel_size", source), above=0
            ),
            radius_max=number("radius_max", entries["radius_max"], above=0),
            n_inplanes=number("n_inplanes", entries["n_inplanes"], whole=True),
            dist_radii=number("dist_radii", entries["dist_radii"], above=0),
            precision=str(entries["precision"]),  # type: ignore[arg-type]
            viewing_distance=number("viewing_distance", entries["viewing_distance"], above=0),
            atom_radii=None if radii is None else number("atom_radii", radii, above=0),
            atom_selection=None if selection is None else str(selection),
            use_protein_residue_model=bool(entries["use_protein_residue_model"]),
            symmetry=NO_SYMMETRY if symmetry is None else str(symmetry),
            frame_origin=None if origin is None else tuple(np.atleast_1d(origin).tolist()),
            superpose=None if superpose is None else str(superpose),
            **_of_atoms(entries),
        )
    except InputFileError:
        raise
    except (InputError, TypeError, ValueError) as error:
        raise InputFileError(str(error), source=source) from error


class _OfAtoms(TypedDict):
    atom_shape: str
    atomic_b: AtomicB
    bulk_solvent: BulkSolvent | None


def _of_atoms(entries: Mapping[str, NDArray[Any] | None]) -> _OfAtoms:
    scattering, b_factor, solvent = (entries.get(key) for key in SCATTERING)
    if scattering is None or not bool(scattering):
        return _OfAtoms(atom_shape=str(entries["atom_shape"]), atomic_b=0.0, bulk_solvent=None)
    return _OfAtoms(
        atom_shape="scattering",
        atomic_b=0.0 if b_factor is None else b_factor.item(),
        bulk_solvent=None if solvent is None else tuple(solvent.tolist()),
    )


def _square(value: Any, name: str, source: str) -> Any:
    values = np.atleast_1d(value)
    if values.size not in (1, 2) or values.ndim > 1 or len(set(map(str, values.tolist()))) > 1:
        raise InputFileError(
            f"{name}={values.tolist()} is not square",
            source=source,
            remedy="Crop or resample the images to square pixels and a square box.",
        )
    return values[0]
