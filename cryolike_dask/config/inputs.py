"""Sections of a configuration about what goes in: structures, particles, and the grid that they
share."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from cryolike_dask.config.values import (
    Angles,
    Angstrom,
    AtomicB,
    By,
    Count,
    Decoys,
    Degrees,
    File,
    Files,
    Frame,
    FrameNumbers,
    Order,
    PartOfNyquist,
    Pixels,
    Radian,
    Radius,
    Solvent,
    Text,
    Which,
    shown,
)
from cryolike_dask.errors import InputError
from cryolike_dask.geometry.parameters import ImageParameters
from cryolike_dask.io.kinds import TRAJECTORY_SUFFIXES
from cryolike_dask.io.parameters import make_parameters
from cryolike_dask.labels import AtomShape, DecoyKind, Downsampling, Models, Precision, SubsetMethod
from cryolike_dask.structures.selection import selected

NEEDED, UNFIT = "needed", "unfit"
"""Kinds of errors beside pydantic's: a section lacks something; the values of a section do not
fit each other."""


class Section(BaseModel):
    """A section of a configuration: frozen, without room for other keys, strict about types."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)


def one_of(other: str, value: Any, info: ValidationInfo, needed: str) -> Any:
    """Refuse two sources of one thing, and none; nothing is said of a source that was refused
    already."""
    if value is not None and info.data.get(other) is not None:
        raise ValueError(f"excludes {other}={shown(info.data[other])}; leave one of them out")
    if value is None and info.data.get(other, "refused") is None:
        raise PydanticCustomError(NEEDED, "give {needed}", {"needed": needed})
    return value


def empty_if_commented_out(section: Any) -> Any:
    """A section whose keys are all commented out is there, and empty."""
    return {} if section is None else section


def not_with(other: str, value: Any, info: ValidationInfo) -> Any:
    """Refuse a key that would be of no effect."""
    if value is not None and info.data.get(other) is not None:
        raise ValueError(f"excludes {other}={shown(info.data[other])}; leave one of them out")
    return value


class Subset(Section):
    """Frames that stand for all of a trajectory."""

    n: Count = Field(description="Frames that are chosen.")
    method: SubsetMethod = Field(
        default="farthest",
        description="farthest: as far from each other as can be; clusters: the middles of "
        "clusters.",
    )
    by: By = Field(
        default="rmsd",
        description="rmsd: of atoms, superposed; or a text file of features, a line for each "
        "frame.",
    )
    selection: Text | None = Field(
        default=None,
        description="Atoms that are superposed. Default: name CA; or all that are heavy.",
    )

    @field_validator("selection")
    @classmethod
    def _of_atoms(cls, value: Any, info: ValidationInfo) -> Any:
        if value is not None and info.data.get("by", "rmsd") != "rmsd":
            raise ValueError(f"is of rmsd, but by={shown(info.data['by'])}; leave one of them out")
        try:
            selected(NoAtoms(), value)
        except InputError as error:
            raise ValueError(f"cannot be used: {error}") from error
        return value


class Structures(Section):
    """The candidate structures: templates that were made before, or files that are projected
    while it runs."""

    templates: File | None = Field(
        default=None, description="Folder of templates made before: with template_file_list.npy."
    )
    files: Files | None = Field(
        default=None,
        validate_default=True,
        description="Instead of templates: PDB, mmCIF, MRC, .npy or .pt files, or folders of them, "
        "or trajectories; one or a list.",
    )
    models: Models = Field(
        default="first",
        description="Of PDB and mmCIF files: their first model, or each model as a structure.",
    )
    topology: File | None = Field(
        default=None,
        description="Of trajectories among the files (XTC, TRR, DCD ...): a PDB file, say, of the "
        "same atoms.",
    )
    frames: FrameNumbers | None = Field(
        default=None,
        description='Of trajectories, from 0: "0, 5, 10-20, 100-", a list of numbers, or the name '
        "of a text file of them. Default: all.",
    )
    every: Count = Field(default=1, description="Only the first of each so many of these frames.")
    healpix_order: Order | None = Field(
        default=None,
        description="Views of structure files: HEALPix of this order. Default: the grid of the "
        "parameters.",
    )
    viewing_angles: File | None = Field(
        default=None,
        description="Views of structure files: a text file of azimuth and polar angle in degrees, "
        "and a weight.",
    )
    voxel_size_angstrom: Angstrom | None = Field(
        default=None, description="Of maps among the files, in place of what their headers say."
    )
    i_template: Which = Field(
        default="all", description="Which structures, by position from 0: one, a list, or all."
    )

    subset: Annotated[Subset | None, BeforeValidator(empty_if_commented_out)] = Field(
        default=None,
        description="Of these frames of a trajectory, only some that stand for all.",
    )
    decoys: Decoys = Field(
        default=0,
        description="Decoys to be made of each structure file (20 at most), and compared beside: "
        "images that show none of the structures are told by them.",
    )
    decoy_kind: DecoyKind = Field(
        default="phases",
        description="phases: random beyond the envelope; residues: moved to each other's places.",
    )
    decoy_structures: Files | None = Field(
        default=None,
        description="Files of structures that no image shows, compared as decoys; one or a list.",
    )

    @field_validator("files")
    @classmethod
    def _one_source(cls, value: Any, info: ValidationInfo) -> Any:
        return one_of(
            "templates", value, info, "templates (a folder made before) or files (PDB, mmCIF, MRC)"
        )

    @field_validator(
        "models",
        "topology",
        "frames",
        "every",
        "healpix_order",
        "viewing_angles",
        "voxel_size_angstrom",
    )
    @classmethod
    def _not_of_files_made_before(cls, value: Any, info: ValidationInfo) -> Any:
        return not_with("templates", value, info)

    @field_validator("subset")
    @classmethod
    def _of_one_trajectory(cls, value: Any, info: ValidationInfo) -> Any:
        files, which = info.data.get("files"), info.data.get("i_template", "all")
        if value is None:
            return value
        if files is not None and [path.suffix.lower() in TRAJECTORY_SUFFIXES for path in files] != [
            True
        ]:
            raise PydanticCustomError(
                NEEDED,
                "subset is of frames of a trajectory, but files is not one (XTC, TRR, DCD ...)",
            )
        if which != "all":
            raise PydanticCustomError(
                NEEDED, "subset stands for all frames, but i_template leaves some out"
            )
        return not_with("templates", value, info)

    @field_validator("viewing_angles")
    @classmethod
    def _one_kind_of_views(cls, value: Any, info: ValidationInfo) -> Any:
        return not_with("healpix_order", value, info)


class Particles(Section):
    """The particle images: image stacks that were made before, or STAR or .cs files that are
    read while it runs."""

    stacks: File | None = Field(
        default=None,
        description="Folder of image stacks made before: with "
        "fft/particles_fourier_stack_NNNNNN.pt and .npz.",
    )
    metadata: Files | None = Field(
        default=None,
        validate_default=True,
        description="Instead of stacks: STAR files, .cs files, or folders of cryoSPARC jobs; one "
        "or a list.",
    )
    images: Files | None = Field(
        default=None,
        description="One MRC file for each STAR file: that of its images, wherever it says that "
        "they are.",
    )
    folder: File | None = Field(
        default=None,
        description="Where the names of image files start. Default: found upwards from the "
        "metadata.",
    )
    passthrough: File | None = Field(
        default=None, description="cryoSPARC's passthrough file. Default: found beside the .cs."
    )
    pixel_size_angstrom: Angstrom | None = Field(
        default=None,
        description="Of the stored images, angstrom, where neither metadata nor headers say it.",
    )
    downsample: Downsampling = Field(
        default="fourier",
        description="How images are brought to fewer pixels: cropped in Fourier space, or by "
        "blocks.",
    )
    invert_contrast: bool = Field(default=False, description="Particles are dark on light.")
    background_radius_pixels: Radius | None = Field(
        default=None,
        description="Normalise by the pixels beyond this radius, in pixels of the grid.",
    )
    recenter: bool = Field(default=False, description="Move every image by its recorded origin.")
    batch_size: Count = Field(
        default=1024, description="Images per stack, which is a piece of work."
    )
    n_stacks: Count | None = Field(
        default=None, description="Only so many stacks, from the first on. Default: all."
    )

    @field_validator("metadata")
    @classmethod
    def _one_source(cls, value: Any, info: ValidationInfo) -> Any:
        return one_of(
            "stacks", value, info, "stacks (a folder made before) or metadata (STAR or .cs files)"
        )

    @field_validator(
        "images",
        "folder",
        "passthrough",
        "pixel_size_angstrom",
        "downsample",
        "invert_contrast",
        "background_radius_pixels",
        "recenter",
        "batch_size",
    )
    @classmethod
    def _not_of_files_made_before(cls, value: Any, info: ValidationInfo) -> Any:
        return not_with("stacks", value, info)

    @field_validator("images")
    @classmethod
    def _one_for_each_metadata_file(cls, value: Any, info: ValidationInfo) -> Any:
        metadata = info.data.get("metadata")
        if value is not None and metadata is not None and len(value) != len(metadata):
            raise ValueError(f"has {len(value)} file(s) for {len(metadata)} file(s) of metadata")
        return value


class Parameters(Section):
    """The grid that images and templates share, and how templates are made from atoms."""

    n_pixels: Pixels = Field(description="Pixels along a side of the images.")
    pixel_size_angstrom: Angstrom = Field(description="Pixel size, angstrom.")
    precision: Precision = Field(
        default="default",
        description="Of what is read while it runs; default: that of the data, single where there "
        "is none.",
    )
    resolution_angstrom: Angstrom | None = Field(
        default=None,
        description="Resolution up to which images are compared, angstrom. Default: two pixels.",
    )
    resolution_factor: PartOfNyquist | None = Field(
        default=None,
        description="The older word for resolution_angstrom: a fraction of Nyquist's frequency.",
        json_schema_extra={"deprecated": True},
    )
    view_step_degrees: Degrees | None = Field(
        default=None,
        description="From one viewing direction to the next, degrees. Default: 4.56 at full "
        "resolution, which is 2370 views, and in proportion to resolution_angstrom.",
    )
    viewing_distance: Radian | None = Field(
        default=None,
        description="The older word for view_step_degrees, in radian.",
        json_schema_extra={"deprecated": True},
    )
    n_inplanes: Angles | None = Field(
        default=None, description="In-plane angles, even. Default: twice the pixels."
    )
    atom_radii: Angstrom | None = Field(
        default=None,
        description="One radius for all, angstrom. Default: of each residue or element.",
    )
    atom_selection: Text | None = Field(
        default=None,
        description='Such as "name CA" or "chain A and not resname GLY". Default: all, but for '
        "waters and ions of atoms that scatter.",
    )
    use_protein_residue_model: bool | None = Field(
        default=None,
        description="One sphere per residue; otherwise all atoms. Default: unless atoms scatter.",
    )
    atom_shape: AtomShape = Field(
        default="default",
        description="What stands for an atom: scattering, by its element; or a sphere. Default: "
        "hard-sphere.",
    )
    atomic_b: AtomicB = Field(
        default="none",
        description="B-factor of atoms that scatter, angstrom^2: none, file (refined ones), or a "
        "number for all.",
    )
    bulk_solvent: Solvent = Field(
        default="none",
        description="Flat solvent around atoms that scatter: none, babinet, or [share, B-factor].",
    )
    symmetry: Text = Field(
        default="C1",
        description="Point group of the structures, with RELION's axes: C4, D7, T, O, I1 to I4 (I "
        "is I2). Views are those of its asymmetric unit.",
    )

    frame: Frame | None = Field(
        default=None,
        description="Origin of poses in structure files: the middle of this map, which they lie "
        "in, or file, their own. Default: the mean of the atoms of each.",
    )
    superpose: Text | None = Field(
        default=None,
        description='Superpose structures on the first by these atoms, such as "name CA".',
    )

    @model_validator(mode="after")
    def _values_fit_each_other(self) -> Parameters:
        try:
            self.made()
            for selection in (self.atom_selection, self.superpose):
                selected(NoAtoms(), selection)
        except InputError as error:
            raise PydanticCustomError(UNFIT, "{reason}", {"reason": str(error)}) from error
        return self

    def made(self) -> ImageParameters:
        """The same as `parameters.npz` holds it."""
        return make_parameters(**dict(self))


class NoAtoms:
    """Nothing, for a selection to be tried on before any structure is read."""

    name = residue_name = chain = residue_number = np.empty(0, np.int64)

    def __len__(self) -> int:
        return 0
