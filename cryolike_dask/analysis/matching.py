"""Particles beside the projections that match them best: found in their stacks, moved, turned
and filtered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cryolike_dask import labels
from cryolike_dask.analysis.summaries import BEST_STRUCTURE, NO_STRUCTURE
from cryolike_dask.conventions import Conventions, conventions_named
from cryolike_dask.errors import GridMismatchError, InputError
from cryolike_dask.geometry.displacements import DisplacementGrid
from cryolike_dask.geometry.optics import OPTICS, electron_wavelength_angstrom
from cryolike_dask.geometry.parameters import ImageParameters
from cryolike_dask.geometry.polar_grid import PolarGrid
from cryolike_dask.io.layout import (
    PARAMETERS,
    LikelihoodFiles,
    holds_image_stacks,
    holds_templates,
    structure_of,
)
from cryolike_dask.io.parameters import read_parameters
from cryolike_dask.likelihoods.graph import image_rows
from cryolike_dask.likelihoods.setup import shifts_in_half_boxes
from cryolike_dask.particles.opening import open_particles
from cryolike_dask.stacks import ImageStack, TemplateStack, open_images, open_template_file
from cryolike_dask.structures.opening import open_structures

Images = ImageStack | Sequence[ImageStack]
Templates = TemplateStack | Sequence[TemplateStack]
Complex = NDArray[np.complex128]


@dataclass(frozen=True, eq=False)
class Pair:
    """An image and its best template on the Fourier polar grid.

    Attributes
    ----------
    particle, template : complex, (shell, angle)
        The template as it is, neither moved nor filtered.
    contrast : (shell, angle)
        Contrast transfer of the image.
    projection : complex, (shell, angle)
        The template displaced, turned and filtered.
    correlation : float
        Computed from these values; the offset of a template as it is before it is moved, as in
        results.
    templates : TemplateStack
    row : int
        Of the template there.
    """

    particle: Complex
    template: Complex
    contrast: NDArray[np.float64]
    projection: Complex
    correlation: float
    templates: TemplateStack
    row: int


@dataclass(frozen=True, eq=False)
class Matches:
    """Some images and their best projections on the Fourier polar grid.

    Attributes
    ----------
    particles, projections : complex, (image, shell, angle)
        Projections are displaced, turned and filtered by the contrast transfer of their images.
    grid : PolarGrid
    correlation : (image,) float64
    """

    particles: Complex
    projections: Complex
    grid: PolarGrid
    correlation: NDArray[np.float64]


def match(summary: xr.Dataset, images: Images, templates: Templates) -> Matches:
    """Make the best projection of each image of a summary; parameters and errors are those of
    `pairs_of`."""
    pairs = pairs_of(summary, images, templates)
    return Matches(
        np.stack([pair.particle for pair in pairs]),
        np.stack([pair.projection for pair in pairs]),
        pairs[0].templates.grid,
        np.array([pair.correlation for pair in pairs]),
    )


def pairs_of(summary: xr.Dataset, images: Images, templates: Templates) -> list[Pair]:
    """Find each image of a summary and its best template.

    Parameters
    ----------
    summary : xarray.Dataset
        Of these images alone, as `summarise_results` gives it.
    images : ImageStack or several
        Images are found by stack and position.
    templates : TemplateStack or several
        Found by the names of their structures.

    Raises
    ------
    InputError, GridMismatchError
        If an image or a structure is not there, an image has no result, or they lie on different
        grids.
    """
    conventions = conventions_named(str(summary.attrs.get("conventions")))
    image_stacks = [images] if isinstance(images, ImageStack) else list(images)
    by_name = _by_name([templates] if isinstance(templates, TemplateStack) else list(templates))
    pairs = []
    for m in range(summary.sizes[labels.IMAGE]):
        one = summary.isel({labels.IMAGE: m})
        image, stack = _image(one, image_stacks), _templates(one, by_name)
        if image.grid != stack.grid:
            raise GridMismatchError(
                f"images lie on {image.grid}, templates of {stack.structure} on {stack.grid}"
            )
        particle = image.source.take(np.arange(1))[0].astype(np.complex128)
        row = int(one[labels.OPTIMAL_TEMPLATE])
        template = stack.source.take(np.atleast_1d(row))[0].astype(np.complex128)
        contrast = _contrast(image, conventions)
        projection = contrast * _in_pose(template, one, image.grid, conventions)
        correlation = _correlation(
            particle, projection, contrast * template, image.grid, conventions
        )
        pairs.append(Pair(particle, template, contrast, projection, correlation, stack, row))
    if not pairs:
        raise InputError("there is no image to show")
    return pairs


def _by_name(templates: Sequence[TemplateStack]) -> dict[str, TemplateStack]:
    """Templates by the names of their structures; namesakes are told apart as `open_results`
    does."""
    counts = Counter(stack.structure for stack in templates)
    own = (
        s.structure if counts[s.structure] == 1 else f"{s.structure} (template{i})"
        for i, s in enumerate(templates)
    )
    return dict(zip(own, templates, strict=True))


def _image(one: xr.Dataset, stacks: Sequence[ImageStack]) -> ImageStack:
    i_stack, position = int(one[labels.STACK]), int(one[labels.IMAGE_IN_STACK])
    for stack in stacks:
        (rows,) = np.nonzero((stack.stack == i_stack) & (stack.image_in_stack == position))
        if len(rows):
            return stack[rows[:1]]
    raise InputError(f"image {position} of stack {i_stack} is not among the images given")


def _templates(one: xr.Dataset, by_name: dict[str, TemplateStack]) -> TemplateStack:
    name, row = str(one[BEST_STRUCTURE].item()), one[labels.OPTIMAL_TEMPLATE].item()
    if name == NO_STRUCTURE or not row >= 0:
        raise InputError(f"image {int(one[labels.IMAGE])} has no result")
    if name not in by_name:
        raise InputError(f"there are no templates of {name}", remedy="Give them (--templates).")
    if row >= len(by_name[name]):
        raise InputError(f"template {row} of {name} is not there: it has {len(by_name[name])}")
    return by_name[name]


def _in_pose(
    template: Complex, one: xr.Dataset, grid: PolarGrid, conventions: Conventions
) -> Complex:
    """A template displaced, then turned."""
    x, y = (np.atleast_1d(float(one[f"optimal_displacement_{axis}"])) for axis in "xy")
    shift = shifts_in_half_boxes(DisplacementGrid(x, y), grid, conventions)
    kx, ky = grid.points()
    moved = template * np.exp(-2j * np.pi * (kx * shift[0] + ky * shift[1]))
    turns = round(float(one[labels.OPTIMAL_INPLANE_ROTATION]) * grid.n_inplanes / (2 * np.pi))
    posed: Complex = np.roll(moved, -turns, axis=-1)
    return posed


def _contrast(image: ImageStack, conventions: Conventions) -> NDArray[np.float64]:
    import torch

    from cryolike_dask.likelihoods.kernels import contrast_transfer

    rows = image_rows(image, conventions)
    columns = {name: torch.from_numpy(rows[name].copy()) for name in OPTICS.names or ()}
    filtered: NDArray[np.float64] = contrast_transfer(
        columns,
        electron_wavelength_angstrom(columns["voltage_kilovolt"], conventions.elementary_charge),
        torch.from_numpy(image.grid.spatial_frequencies),
        torch.from_numpy(image.grid.angles),
        signed_astigmatism=conventions.signed_astigmatism,
        envelope=conventions.applies_envelope,
    )[0].numpy()
    return filtered


def _correlation(
    particle: Complex,
    projection: Complex,
    unmoved: Complex,
    grid: PolarGrid,
    conventions: Conventions,
) -> float:
    def overlap(a: Complex, b: Complex) -> float:
        return float(grid.integrate((a.conj() * b).real))

    mask = grid.mask(exact=conventions.exact_mask)
    offsets = [
        overlap(mask, values) / np.sqrt(overlap(mask, mask)) for values in (particle, unmoved)
    ]
    of_particle, of_template = offsets if conventions.zero_normalised else (0.0, 0.0)
    powers = (overlap(particle, particle) - of_particle**2) * (
        overlap(projection, projection) - of_template**2
    )
    return float((overlap(particle, projection) - of_particle * of_template) / np.sqrt(powers))


def open_matching(
    summary: xr.Dataset,
    rows: NDArray[np.int64],
    templates: str | Path | Templates | None = None,
    particles: str | Path | Images | None = None,
    parameters: str | Path | ImageParameters | None = None,
) -> tuple[list[ImageStack], list[TemplateStack]]:
    """Open the image stacks and templates that some images of a summary need.

    Parameters
    ----------
    summary : xarray.Dataset
        Of all images.
    rows : (row,) int
        Which are needed.
    templates, particles : path, stack or several stacks, optional
        As they were given to the run; default: the folders that the results name.
    parameters : path or ImageParameters, optional
        Default: `parameters.npz` in the folder of templates.

    Raises
    ------
    CryolikeError
        If they are not there, or not known.
    """
    templates, particles = (
        _known(summary, "templates", templates),
        _known(summary, "particles", particles),
    )
    if (
        parameters is None
        and isinstance(templates, (str, Path))
        and holds_templates(Path(templates))
    ):
        parameters = Path(templates) / PARAMETERS
    read = None if parameters is None else read_parameters(parameters)
    names = {str(name) for name in summary[BEST_STRUCTURE].values[rows]}
    return _open_images(summary, rows, particles, read), _open_templates(
        summary, names, templates, read
    )


def _known(summary: xr.Dataset, what: str, given: Any) -> Any:
    found = summary.attrs.get(f"folder_{what}") if given is None else given
    if found is None or found == "":
        raise InputError(
            f"the results do not say where the {what} are", remedy=f"Give {what} (--{what})."
        )
    return found


def _needed(parameters: ImageParameters | None) -> ImageParameters:
    if parameters is None:
        raise InputError(
            "the parameters are not known", remedy="Give parameters.npz (--parameters)."
        )
    return parameters


def _open_images(
    summary: xr.Dataset, rows: NDArray[np.int64], given: Any, parameters: ImageParameters | None
) -> list[ImageStack]:
    if not isinstance(given, (str, Path)):
        return [given] if isinstance(given, ImageStack) else list(given)
    stacks = summary[labels.STACK].values
    if holds_image_stacks(Path(given)):
        files = LikelihoodFiles(None, Path(given), Path())
        numbers = np.unique(stacks[rows]).tolist()
        return [
            open_images(replace(files, n_stacks=k + 1), _needed(parameters), k) for k in numbers
        ]
    conventions: Any = summary.attrs.get("conventions")
    n = int(np.unique(stacks, return_counts=True)[1].max())
    return [open_particles(given, _needed(parameters), batch_size=n, conventions=conventions)]


def _open_templates(
    summary: xr.Dataset, names: set[str], given: Any, parameters: ImageParameters | None
) -> list[TemplateStack]:
    if not isinstance(given, (str, Path)):
        return [given] if isinstance(given, TemplateStack) else list(given)
    if not holds_templates(Path(given)):
        conventions: Any = summary.attrs.get("conventions")
        return open_structures(given, _needed(parameters), conventions=conventions)
    opened = []
    for i, path in enumerate(LikelihoodFiles(Path(given), None, Path()).template_files()):
        stem = structure_of(path)
        # as open_results tells namesakes apart
        for name in names & {
            stem,
            f"{stem} (template{i})",
        }:
            opened.append(replace(open_template_file(path, _needed(parameters)), structure=name))
    return opened
