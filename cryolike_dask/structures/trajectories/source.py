"""A frame of a trajectory as the source of a structure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from cryolike_dask.errors import InputError, InputFileError
from cryolike_dask.geometry.parameters import ImageParameters
from cryolike_dask.io.identity import InputDescription, describe_file
from cryolike_dask.structures.atoms import Atoms
from cryolike_dask.structures.columns import Model
from cryolike_dask.structures.models import atoms_of
from cryolike_dask.structures.sources import describe_atoms
from cryolike_dask.structures.superposing import Placement
from cryolike_dask.structures.trajectories.contents import FramePlace
from cryolike_dask.structures.trajectories.topology import TopologyFile
from cryolike_dask.structures.volumes import Volume


class FrameDescription(InputDescription, total=False):
    """A frame of a trajectory."""

    frame: int


@dataclass(frozen=True)
class FrameInFile:
    """A frame of a trajectory: where it is, and what its atoms are; read by the tasks that need it.

    Attributes
    ----------
    place : FramePlace
    topology : TopologyFile
    parameters : ImageParameters
        How atoms are made of it.
    placement : Placement or None
        How it is superposed on another.
    """

    place: FramePlace
    topology: TopologyFile
    parameters: ImageParameters
    placement: Placement | None = None

    @property
    def path(self) -> str:
        """The file of the trajectory."""
        return self.place.path

    def model(self) -> Model:
        """Read the atoms of the frame, periodic images made whole."""
        return model_of_frame(self.place, self.topology)

    def load(self) -> Atoms | Volume:
        """Read the frame."""
        model = self.model()
        try:
            if self.placement is None:
                return atoms_of(model, self.parameters)[0]
            atoms, _ = atoms_of(self.placement.moved(model), self.parameters)
        except InputFileError:
            raise
        except InputError as error:
            raise InputFileError(
                f"frame {self.place.frame:,}: {error}", source=self.path
            ) from error
        return self.placement.centred(atoms)

    def describe(self) -> list[InputDescription]:
        """The trajectory, the frame, how atoms are made of it, and the topology."""
        frame = FrameDescription(**describe_file(self.path), frame=self.place.frame)
        of_frame = {**frame, **describe_atoms(self.parameters, self.placement)}
        return [cast(InputDescription, of_frame), describe_file(Path(self.topology.path))]


def model_of_frame(place: FramePlace, topology_file: TopologyFile) -> Model:
    """Read the atoms of a frame, periodic images made whole.

    Raises
    ------
    InputFileError
    """
    topology = topology_file.read()
    positions, box = place.read()
    if box is not None:
        positions = topology.links.made_whole(positions, box)
    return replace(topology.model, position_angstrom=positions)
