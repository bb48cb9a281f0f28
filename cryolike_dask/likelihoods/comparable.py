"""Whether images and templates can be compared, and what a user should know of those that can."""

from __future__ import annotations

import re

import numpy as np

from cryolike_dask.conventions import STANDARD
from cryolike_dask.errors import GridMismatchError, InputError
from cryolike_dask.io.sources import Files, innermost
from cryolike_dask.likelihoods.search.known_rows import known_poses
from cryolike_dask.likelihoods.settings import Settings
from cryolike_dask.stacks import ImageStack, TemplateStack


def check_comparable(images: ImageStack, templates: TemplateStack, settings: Settings) -> None:
    """Refuse stacks that cannot be compared, and log what the user should know of those that
    can."""
    if not isinstance(images, ImageStack) or not isinstance(templates, TemplateStack):
        raise InputError(
            f"images are a {type(images).__name__} and templates a {type(templates).__name__}",
            remedy="Give an ImageStack, then a TemplateStack: open_images, open_templates.",
        )
    if images.grid != templates.grid:
        raise GridMismatchError(f"images lie on {images.grid}, but templates on {templates.grid}")
    farthest = np.abs(templates.displacements.table()).max()
    half_box = templates.grid.box_size_angstrom / 2
    if farthest > half_box:
        raise InputError(
            f"displacements of up to {farthest:g} angstrom leave the box, whose half is "
            f"{half_box:g} angstrom",
            remedy="max_displacement_pixels counts pixels; give less than half of the box.",
        )
    if settings.around is not None:
        known_poses(images, templates, settings.around)
    if not settings.rules.optics_per_image:
        for name in ("voltage_kilovolt", "spherical_aberration_mm", "amplitude_contrast"):
            values = np.unique(images.optics[name])
            if len(values) > 1:
                raise InputError(
                    f"{name} takes {len(values)} values, {values[0]} to {values[-1]}, but "
                    f'conventions="cryolike" '
                    "knows one per stack",
                    remedy='Use conventions="standard", or one optics group at a time.',
                )


def notes_on(images: ImageStack, templates: TemplateStack, settings: Settings) -> list[str]:
    """Notes that a user should know before believing numbers from these inputs, one sentence
    each."""
    notes = []
    rules, used = settings.rules, settings.precision_with(templates)
    if rules.corrects_transposed_stacks and images.frame == "transposed":
        notes.append(
            "these stacks were made by CryoLike (x is the MRC row): the defocus angle a is read as "
            "90 degrees - a; "
            'conventions="cryolike" takes it as it is'
        )
    if rules.zero_normalised and templates.conventions != STANDARD.name:
        notes.append(
            "these templates were made by CryoLike, or under its conventions: their offset box "
            "moves with the template, and correlations come out too low; make them again "
            "(make_templates, cryolike-dask templates); "
            'conventions="cryolike" gives the numbers of CryoLike from them'
        )
    source = innermost(images.source)
    if rules.knows_noise and isinstance(source, Files) and not source.knows_rings:
        notes.append(
            "these stacks do not tell the power of their rings (ringPower): it is summed over the "
            "angles that they hold, which is 2% off image by image; convert the particles again"
        )
    wide = {"single": "complex64", "double": "complex128"}[used]
    if images.source.dtype != wide:
        notes.append(f"images are {images.source.dtype} and are converted to {used} precision")
    return notes


def name_of(images: ImageStack, templates: TemplateStack) -> str:
    """The name of a comparison: its structure, and its stack if there is one."""
    structure = re.sub(r"[^\w.]+", "_", templates.structure)
    stacks = np.unique(images.stack)
    return f"{structure}-stack_{stacks[0]:06d}" if len(stacks) == 1 else structure
