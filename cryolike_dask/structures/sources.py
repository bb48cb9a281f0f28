"""Sources of structures, small enough to travel with every task, and their templates, projected
when needed."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Protocol, TypedDict, cast

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.compute.device import free_memory, resolve_device
from cryolike_dask.compute.gpu import is_out_of_memory
from cryolike_dask.conventions import Conventions
from cryolike_dask.errors import InputError, InputFileError, ZeroPowerError
from cryolike_dask.geometry.parameters import ImageParameters
from cryolike_dask.geometry.polar_grid import PolarGrid
from cryolike_dask.geometry.viewing_angles import ViewingAngles
from cryolike_dask.io.identity import InputDescription, describe_file, refuse_changed
from cryolike_dask.io.sources import OnDevice, describe_array
from cryolike_dask.structures.atoms import Atoms
from cryolike_dask.structures.columns import Model
from cryolike_dask.structures.maps import read_map_values
from cryolike_dask.structures.models import atoms_of, read_model
from cryolike_dask.structures.on_device import Central, bytes_on_device, central
from cryolike_dask.structures.pdb import Span
from cryolike_dask.structures.projection import project, project_half_rings
from cryolike_dask.structures.superposing import Placement
from cryolike_dask.structures.volumes import Volume

if TYPE_CHECKING:
    import torch

logger = logging.getLogger("cryolike_dask")

PAGE = 64
"""Projections of a map made at once: each non-uniform FFT repeats the FFT of the whole map (a
second at 132 voxels)."""
ROOM = 0.25
"""Part of what is free on a GPU that the transform of a structure may take while it is made."""
ORIGIN: Final = "origin_angstrom"
BETWEEN = 1e-9
"""Error of a projection that is compared with those in directions near by, of its largest value."""


class ModelDescription(InputDescription, total=False):
    """A model of a file."""

    model: int


class AtomsDescription(TypedDict, total=False):
    """How atoms are made of a model; the last four where they scatter, or are not about their
    mean."""

    atom_radii: float | None
    atom_selection: str | None
    use_protein_residue_model: bool
    atom_shape: str
    atomic_b: float | str
    bulk_solvent: list[float] | None
    origin_angstrom: list[float]
    superposed: list[float]


class MapDescription(InputDescription, total=False):
    """A map in a file, and its voxel size along (x, y, z)."""

    voxel_size_angstrom: list[float]


class StructureSource(Protocol):
    """Source of a structure: a model or a map in a file, or a structure in memory."""

    @property
    def path(self) -> str: ...

    def __hash__(self) -> int: ...

    def load(self) -> Atoms | Volume:
        """Read it."""

    def describe(self) -> list[InputDescription]:
        """Describe what it is read from, for completion records."""


def describe_atoms(parameters: ImageParameters, placement: Placement | None) -> AtomsDescription:
    """Describe how atoms are made of a model, and where their poses have their origin."""
    description = AtomsDescription(
        atom_radii=parameters.atom_radii,
        atom_selection=parameters.atom_selection,
        use_protein_residue_model=bool(parameters.use_protein_residue_model),
        atom_shape=parameters.atom_shape,
    )
    if parameters.scatters:
        solvent = parameters.bulk_solvent
        description["atomic_b"] = parameters.atomic_b
        description["bulk_solvent"] = None if solvent is None else [float(x) for x in solvent]
    if placement is not None:
        description[ORIGIN] = list(placement.origin)
        description["superposed"] = [*placement.rotation, *placement.translation]
    elif parameters.frame_origin is not None:
        description[ORIGIN] = list(parameters.frame_origin)
    return description


@dataclass(frozen=True)
class ModelInFile:
    """One model of a PDB or mmCIF file.

    Attributes
    ----------
    path : str
        Absolute.
    position : int
        Of the model in the file, from 0 on.
    span : (int, int) or None
        Where it is in the file, if that is known.
    parameters : ImageParameters
        How atoms are made of it.
    size, mtime_ns : int
        Of the file when it was opened; a file that has changed since is refused.
    placement : Placement or None
        How it is superposed on another.
    """

    path: str
    position: int
    span: Span | None
    parameters: ImageParameters
    size: int
    mtime_ns: int
    placement: Placement | None = None

    def load(self) -> Atoms | Volume:
        """Read the model."""
        return self.atoms(self.model())

    def model(self) -> Model:
        """The model, superposed as its atoms are."""
        refuse_changed(self.path, self.size, self.mtime_ns)
        model = read_model(self.path, self.position, self.span)
        return model if self.placement is None else self.placement.moved(model)

    def atoms(self, model: Model) -> Atoms:
        """Atoms of a model in its place, made as the parameters say."""
        atoms, _ = atoms_of(model, self.parameters)
        return atoms if self.placement is None else self.placement.centred(atoms)

    def describe(self) -> list[InputDescription]:
        """The file, the model and how atoms are made of it."""
        of_file = ModelDescription(**describe_file(self.path), model=self.position)
        return [
            cast(InputDescription, {**of_file, **describe_atoms(self.parameters, self.placement)})
        ]


@dataclass(frozen=True)
class MapInFile:
    """A density map in an MRC, `.npy` or `.pt` file.

    Attributes
    ----------
    path : str
        Absolute.
    voxel_size_angstrom : (x, y, z)
    size, mtime_ns : int
        Of the file when it was opened; a file that has changed since is refused.
    """

    path: str
    voxel_size_angstrom: tuple[float, float, float]
    size: int
    mtime_ns: int

    def load(self) -> Atoms | Volume:
        """Read the map."""
        refuse_changed(self.path, self.size, self.mtime_ns)
        try:
            return Volume(read_map_values(self.path), self.voxel_size_angstrom)
        except InputFileError:
            raise
        except InputError as error:
            raise type(error)(str(error), source=self.path) from error

    def describe(self) -> list[InputDescription]:
        """The file, and the voxel size."""
        voxel_size = list(self.voxel_size_angstrom)
        return [MapDescription(**describe_file(self.path), voxel_size_angstrom=voxel_size)]


@dataclass(frozen=True, eq=False)
class StructureInMemory:
    """A structure in memory. It travels with the tasks: meant for small structures, tests and
    notebooks."""

    structure: Atoms | Volume

    @property
    def path(self) -> str:
        """A phrase, for there is no file."""
        return "structure in memory"

    def load(self) -> Atoms | Volume:
        """Give it."""
        return self.structure

    def describe(self) -> list[InputDescription]:
        """The checksums of its arrays."""
        return [
            InputDescription(name=name, value=value)
            if isinstance(value, str)
            else describe_array(name, np.asarray(value))
            for name, value in vars(self.structure).items()
            if value is not None
        ]


@dataclass(frozen=True, eq=False)
class Projections:
    """The templates of a structure, projected where and when they are taken: an `ArraySource`."""

    structure: StructureSource
    name: str
    grid: PolarGrid
    viewing: ViewingAngles
    conventions: Conventions
    precision: str

    @property
    def shape(self) -> tuple[int, ...]:
        """(template, shell, angle)."""
        return (len(self.viewing), *self.grid.shape)

    @property
    def dtype(self) -> str:
        """complex64 or complex128."""
        return "complex64" if self.precision == "single" else "complex128"

    @property
    def paths(self) -> tuple[str, ...]:
        """The file of the structure."""
        return (self.structure.path,)

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Project along the directions of rows."""
        structure = _loaded(self.structure)
        pages = np.unique(np.asarray(rows) // PAGE)
        if isinstance(structure, Atoms) or len(rows) >= PAGE or len(pages) > 2:
            return self._project(rows)
        values = np.empty((len(rows), *self.grid.shape), self.dtype)
        for page in pages:
            rows_of_page = rows // PAGE == page
            values[rows_of_page] = _page(self, int(page))[rows[rows_of_page] % PAGE]
        return values

    def take_on(self, rows: NDArray[np.int64], device: torch.device) -> OnDevice | None:
        """Project along the directions of rows on a GPU, unless the transform of the structure is
        too large for it. On a CPU a non-uniform FFT is faster."""
        if device.type == "cpu":
            return None
        transform = _transformed(
            self.structure, self.grid, self.conventions, self.precision, device.type
        )
        if transform is None:
            return None
        viewing = self.viewing.take(rows)
        if self.conventions.rounds_to_single:
            viewing = viewing.in_single_precision()
        return OnDevice(transform.half_rings(viewing.rotations()), None)

    def at_rotations(self, rotations: NDArray[np.float64]) -> NDArray[np.complex128]:
        """Project along any axes, columns of rotations in the coordinates of the structure: half
        rings, (rotation, shell, W/2)."""
        structure = _loaded(self.structure)
        return project_half_rings(structure, self.grid, rotations, self.conventions, BETWEEN)

    @property
    def knows_rings(self) -> bool:
        """Templates have none."""
        return False

    def rings(self, rows: NDArray[np.int64]) -> None:
        """Templates have none."""

    def locate(self, row: int) -> tuple[str, int]:
        """The file of the structure, and the position among its projections."""
        return self.structure.path, row

    def describe(self, rows: NDArray[np.int64]) -> list[InputDescription]:
        """Describe what the structure is read from, and along which directions it is projected."""
        angles = np.stack([self.viewing.azimuth, self.viewing.polar, self.viewing.weight])
        return [
            *self.structure.describe(),
            describe_array("viewing directions", angles),
            {"name": "template conventions", "value": self.conventions.name},
        ]

    def subset(self, rows: NDArray[np.int64]) -> Projections:
        """The projections along some of the directions."""
        return replace(self, viewing=self.viewing.take(rows))

    def _project(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        viewing, structure = self.viewing.take(rows), _loaded(self.structure)
        try:
            return project(structure, self.grid, viewing, self.conventions, self.precision)
        except ZeroPowerError as error:
            raise ZeroPowerError(str(error), source=self.structure.path) from error


@lru_cache(maxsize=1)
def _loaded(source: StructureSource) -> Atoms | Volume:
    """The structure of the latest task of this process: the next task is likely to need it too."""
    return source.load()


@lru_cache(maxsize=1)
def _transformed(
    source: StructureSource,
    grid: PolarGrid,
    conventions: Conventions,
    precision: str,
    device: str,
) -> Central | None:
    """The transform of the structure of the latest task of this process, for the next one; None
    where a GPU has no room for it, which is said."""
    structure = _loaded(source)
    _, making = bytes_on_device(structure, grid, conventions, precision)
    if making <= ROOM * free_memory(device):
        try:
            return central(structure, grid, conventions, precision, resolve_device(device))
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
    logger.warning(
        "%s is projected on the CPU: its transform takes %.3g GB of the GPU while it is made",
        source.path,
        making / 1e9,
    )
    return None


@lru_cache(maxsize=1)
def _page(projections: Projections, page: int) -> NDArray[Any]:
    """The latest page of projections of a map: tiles are smaller than pages, and come in order."""
    rows = np.arange(page * PAGE, min((page + 1) * PAGE, len(projections.viewing)))
    return projections._project(rows)
