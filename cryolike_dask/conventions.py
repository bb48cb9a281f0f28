"""The two conventions, and the explicit values that each word stands for.

`standard` is the default and is right; `cryolike` reproduces the numbers of the published program
CryoLike, its errors included. Only this file knows the words: everything below is given the values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from cryolike_dask.errors import InputError

ConventionsName = Literal["standard", "cryolike"]


@dataclass(frozen=True)
class Conventions:
    """Choices that templates, and their comparison with images, depend on, as values.

    Attributes
    ----------
    name : str
        The word that a user writes and that every result records.
    signed_astigmatism : bool
        Defocus is (U+V)/2 + (U-V)/2 cos 2(theta - angle); otherwise with the absolute value of U-V.
    corrects_transposed_stacks : bool
        In a stack whose x axis is the MRC row (one that CryoLike made) the defocus angle a is read
        as 90 degrees - a.
    applies_envelope : bool
        The contrast transfer is multiplied by scale exp(-B f^2 / 4).
    optics_per_image : bool
        Voltage, spherical aberration and amplitude contrast may differ within a stack.
    zero_normalised : bool
        A constant offset of the image is projected out of the cross-correlation.
    exact_mask : bool
        The box has the exact transform of its pixels; otherwise that of a continuous square.
    degrees_of_freedom_in_band : bool
        Counts the degrees of freedom inside the band, 4 pi K^2; otherwise all pixels.
    knows_noise : bool
        Noise may have a spectrum, an envelope may be added, and rings of more angles than the grid
        has tell the power of an image.
    searches_coarse_to_fine : bool
        A search may leave out what a part of the band rules out.
    weight_is_log_prior : bool
        Adds the viewing weight itself to the log-likelihood; otherwise log(weight / sum of
        weights).
    rounds_to_single : bool
        Viewing angles and displacements are rounded to single precision.
    atoms_weigh_electrons : bool
        An atom or residue weighs as many as its electrons; otherwise radius^-3 (Gaussians) or 1
        (hard spheres).
    knows_scattering : bool
        Atoms may scatter by the tabulated factors of their elements.
    knows_symmetry : bool
        Templates may be views of the asymmetric unit of a symmetric structure.
    knows_frames : bool
        Poses may have another origin than the mean of the atoms.
    removes_box_from_templates : bool
        A constant box is subtracted from Gaussian and map templates before they are moved and
        filtered.
    reads_map_header : bool
        A map has the voxel size and the axes of its header; otherwise it fills the box, its
        sections along x.
    recomputes_offset_above : float
        The offset of the template is recomputed exactly for poses whose squared correlation exceeds
        this (and wherever the residual would not be positive).
    elementary_charge : float
        Coulomb.
    """

    name: ConventionsName
    signed_astigmatism: bool
    corrects_transposed_stacks: bool
    applies_envelope: bool
    optics_per_image: bool
    zero_normalised: bool
    exact_mask: bool
    degrees_of_freedom_in_band: bool
    knows_noise: bool
    searches_coarse_to_fine: bool
    weight_is_log_prior: bool
    rounds_to_single: bool
    atoms_weigh_electrons: bool
    knows_scattering: bool
    knows_symmetry: bool
    knows_frames: bool
    removes_box_from_templates: bool
    reads_map_header: bool
    recomputes_offset_above: float
    elementary_charge: float


STANDARD = Conventions(
    name="standard",
    signed_astigmatism=True,
    corrects_transposed_stacks=True,
    applies_envelope=True,
    optics_per_image=True,
    zero_normalised=True,
    exact_mask=True,
    degrees_of_freedom_in_band=True,
    knows_noise=True,
    searches_coarse_to_fine=True,
    weight_is_log_prior=False,
    rounds_to_single=False,
    atoms_weigh_electrons=True,
    knows_scattering=True,
    knows_symmetry=True,
    knows_frames=True,
    removes_box_from_templates=False,
    reads_map_header=True,
    recomputes_offset_above=0.95,
    elementary_charge=1.602176634e-19,
)

CRYOLIKE = Conventions(
    name="cryolike",
    signed_astigmatism=False,
    corrects_transposed_stacks=False,
    applies_envelope=False,
    optics_per_image=False,
    zero_normalised=False,
    exact_mask=False,
    degrees_of_freedom_in_band=False,
    knows_noise=False,
    searches_coarse_to_fine=False,
    weight_is_log_prior=True,
    rounds_to_single=True,
    atoms_weigh_electrons=False,
    knows_scattering=False,
    knows_symmetry=False,
    knows_frames=False,
    removes_box_from_templates=True,
    reads_map_header=False,
    recomputes_offset_above=1.0,
    elementary_charge=1.60217663e-19,
)


def conventions_named(name: str | None) -> Conventions:
    """Give the values that a word stands for.

    Raises
    ------
    InputError
        If the word is neither "standard" nor "cryolike".
    """
    for conventions in (STANDARD, CRYOLIKE):
        if conventions.name == name:
            return conventions
    raise InputError(
        f"conventions={name!r} is not known",
        remedy=f"Use one of {', '.join(get_args(ConventionsName))}.",
    )
