"""Models moved onto the first of several, by atoms that both have, so that poses mean the same for
all of them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.conventions import Conventions
from cryolike_dask.errors import InputError, InputFileError
from cryolike_dask.geometry.parameters import ImageParameters
from cryolike_dask.io.mrc import open_mrc_map
from cryolike_dask.structures.accounts import Account, in_box
from cryolike_dask.structures.atoms import Atoms
from cryolike_dask.structures.columns import Model
from cryolike_dask.structures.maps import ARRAY_SUFFIXES
from cryolike_dask.structures.models import atoms_and_account
from cryolike_dask.structures.selection import selected

FEWEST = 3
REMEDY = "Select atoms that all structures have, with the same names of chains and numbers."

Numbers = tuple[float, ...]


@dataclass(frozen=True)
class Placement:
    """How a model is moved, and where its poses then have their origin; plain numbers, which
    travel with tasks and go into records.

    Attributes
    ----------
    rotation : (9,)
        By rows.
    translation, origin : (3,)
        Angstrom.
    """

    rotation: Numbers
    translation: Numbers
    origin: Numbers

    def moved(self, model: Model) -> Model:
        """The model as it is superposed."""
        rotation = np.reshape(self.rotation, (3, 3))
        positions = model.position_angstrom @ rotation.T + np.array(self.translation)
        return replace(model, position_angstrom=positions)

    def centred(self, atoms: Atoms) -> Atoms:
        """The atoms of it, about the origin."""
        return replace(atoms, origin_angstrom=np.array(self.origin))


@dataclass
class Superposing:
    """Superposes models on the first that it is given.

    Attributes
    ----------
    parameters : ImageParameters
        `superpose` selects atoms; None: nothing is moved.
    """

    parameters: ImageParameters
    _path: Path | None = None
    _first: Model | None = None
    _origin: Numbers = field(default=())

    def account(
        self, model: Model, path: Path, parameters: ImageParameters | None = None
    ) -> tuple[Placement | None, Account]:
        """How a model is moved, if it is, and an account of its atoms, which other parameters may
        make of it.

        Raises
        ------
        InputError, InputFileError
            As of `atoms_and_account`; and if it cannot be superposed.
        """
        parameters = parameters or self.parameters
        atoms, account = atoms_and_account(model, parameters)
        placement, said = self._place(model, atoms, path)
        if placement is None:
            return None, account
        atoms, account = atoms_and_account(placement.moved(model), parameters)
        account = in_box(account, placement.centred(atoms), parameters)
        return placement, replace(account, notes=(*account.notes, *([said] if said else [])))

    def _place(self, model: Model, atoms: Atoms, path: Path) -> tuple[Placement | None, str]:
        """How a model is moved, and a sentence on it.

        Raises
        ------
        InputFileError
            If too few atoms are selected that the first has too.
        """
        selection = self.parameters.superpose
        if selection is None:
            return None, ""
        try:
            chosen = model.take(selected(model, selection))
        except InputError as error:
            raise InputError(f"superpose: {error}") from error
        if self._first is None:
            self._first, self._path = chosen, path
            self._origin = tuple(atoms.origin.tolist())
        pairs = _common(self._first, chosen)
        if len(pairs) < FEWEST:
            raise InputFileError(
                f"{len(pairs)} atom(s) of superpose={selection!r} are in {self._path} too: "
                "they cannot be superposed",
                source=path,
                remedy=REMEDY,
            )
        to, of = (
            one.position_angstrom[rows]
            for one, rows in zip((self._first, chosen), pairs.T, strict=True)
        )
        rotation, translation = superposition(to, of)
        apart = np.sqrt(((of @ rotation.T + translation - to) ** 2).sum(axis=1).mean())
        placement = Placement(
            tuple(rotation.ravel().tolist()), tuple(translation.tolist()), self._origin
        )
        said = f"is superposed on {self._path} by {len(pairs):,} atoms, {apart:.2g} angstrom apart"
        return placement, "" if chosen is self._first else said


def superposition(
    to: NDArray[np.float64], of: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rotation R and translation t by which points x become R x + t, nearest to others.

    Parameters
    ----------
    to, of : (point, 3) float64

    Returns
    -------
    rotation : (3, 3)
        Proper, by the singular values of the covariance (Kabsch).
    translation : (3,)
    """
    middle_to, middle_of = to.mean(axis=0), of.mean(axis=0)
    left, _, right = np.linalg.svd((to - middle_to).T @ (of - middle_of))
    handed = np.array([1, 1, np.linalg.det(left @ right)])
    rotation = (left * handed) @ right
    return rotation, middle_to - rotation @ middle_of


def _common(first: Model, other: Model) -> NDArray[np.int64]:
    """Positions of the atoms that two models have both, (atom, 2): by chain, number of the residue
    and name, the first of each."""
    rows = [
        {key: k for k, key in reversed(list(enumerate(_keys(model))))} for model in (first, other)
    ]
    found = [(k, rows[1][key]) for key, k in rows[0].items() if key in rows[1]]
    return np.array(sorted(found), np.int64).reshape(-1, 2)


def _keys(model: Model) -> list[tuple[str, int, str]]:
    columns = model.chain, model.residue_number, model.name
    return list(zip(*(column.tolist() for column in columns), strict=True))


def refuse_frame(parameters: ImageParameters, conventions: Conventions) -> None:
    """Refuse another origin of poses where conventions know none.

    Raises
    ------
    InputError
    """
    if conventions.knows_frames:
        return
    for name in ("frame_origin", "superpose"):
        value = getattr(parameters, name)
        if value is not None:
            raise InputError(
                f"{name}={value!r}, but conventions={conventions.name!r} centre each structure",
                remedy="Leave it out of the parameters; or choose other conventions.",
            )


def refuse_without_frame(structure: object, parameters: ImageParameters) -> None:
    """Refuse a structure that is no model of a file where the parameters say where it lies: but
    for a map in a file whose middle is just there.

    Raises
    ------
    InputError, InputFileError
    """
    if parameters.superpose is not None:
        raise InputError(
            f"superpose={parameters.superpose!r} moves atoms of files, but a structure is "
            f"{structure if isinstance(structure, Path) else type(structure).__name__}",
            remedy="Leave it out of the parameters, or give PDB or mmCIF files alone.",
        )
    if parameters.frame_origin is None:
        return
    if not isinstance(structure, Path) or structure.suffix.lower() in ARRAY_SUFFIXES:
        raise InputError(
            "the parameters say where poses have their origin (frame_origin), but of "
            f"{structure if isinstance(structure, Path) else 'a structure in memory'} it is not "
            "known where that is",
            remedy="Give models or MRC maps in files, or leave it out of the parameters.",
        )
    found = open_mrc_map(structure)
    apart = np.abs(np.subtract(found.middle(), parameters.frame_origin))
    if (apart > np.array(found.voxel_size_angstrom) / 10).any():
        at, said = (
            ", ".join(f"{x:.4g}" for x in of) for of in (found.middle(), parameters.frame_origin)
        )
        raise InputFileError(
            f"has its middle, which is the origin of its poses, at ({at}) angstrom, but the "
            f"parameters say ({said})",
            source=structure,
            remedy="Make the parameters with this map as frame (--frame), or move it there.",
        )
