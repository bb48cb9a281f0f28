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
from cryolike_dask.analysis.whitening import (
    WhiteningOfImage,
    settings_of_results,
    whitening_of_image,
)
from cryolike_dask.conventions import Conventions
from cryolike_dask.errors import GridMismatchError, InputError
from cryolike_dask.geometry.displacements import DisplacementGrid
from cryolike_dask.geometry.noise import NoiseModel
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
from cryolike_dask.likelihoods.image_formation import (
    contrast_at_points,
    correlation,
    displacement_phases,
)
from cryolike_dask.likelihoods.setup import shifts_in_half_boxes
from cryolike_dask.particles.opening import open_particles
from cryolike_dask.stacks import (
    ImageStack,
    TemplateStack,
    one_or_several,
    open_images,
    open_template_file,
)
from cryolike_dask.structures.opening import open_structures
from cryolike_dask.structures.trajectories.trajectory import Trajectory

Images = ImageStack | Sequence[ImageStack]
Templates = TemplateStack | Sequence[TemplateStack]
Complex = NDArray[np.complex128]


@dataclass(frozen=True, eq=False)
class Match:
    """An image and its best template on the Fourier polar grid.

    Attributes
    ----------
    particle, template : complex, (shell, angle)
        The template as it is, neither moved nor filtered.
    contrast : (shell, angle)
        Contrast transfer of the image, its envelope included.
    projection : complex, (shell, angle)
        The template displaced, turned and filtered.
    correlation : float
        Computed from these values, whitened; the offset of a template as it is before it is moved,
        as in results.
    whitening : WhiteningOfImage
    templates : TemplateStack
    row : int
        The row of the template there.
    """

    particle: Complex
    template: Complex
    contrast: NDArray[np.float64]
    projection: Complex
    correlation: float
    whitening: WhiteningOfImage
    templates: TemplateStack
    row: int


@dataclass(frozen=True, eq=False)
class Matches:
    """Images and their best projections, stacked, on the Fourier polar grid.

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


def match(
    summary: xr.Dataset, images: Images, templates: Templates, noise: NoiseModel | None = None
) -> Matches:
    """Make the best projection of each image of a summary; parameters and errors are those of
    `single_matches`."""
    matches = single_matches(summary, images, templates, noise)
    return Matches(
        np.stack([match.particle for match in matches]),
        np.stack([match.projection for match in matches]),
        matches[0].templates.grid,
        np.array([match.correlation for match in matches]),
    )


def single_matches(
    summary: xr.Dataset, images: Images, templates: Templates, noise: NoiseModel | None = None
) -> list[Match]:
    """Find each image of a summary and its best template, one by one.

    Parameters
    ----------
    summary : xarray.Dataset
        The summary of these images alone, as `summarise_results` gives it.
    images : ImageStack or several
        Images are found by stack and position.
    templates : TemplateStack or several
        Found by the names of their structures.
    noise : NoiseModel, optional
        That of the results; default: the one in their folder.

    Raises
    ------
    InputError, GridMismatchError
        If an image or a structure is not there, an image has no result, or they lie on different
        grids.
    """
    settings = settings_of_results(summary, noise)
    conventions = settings.rules
    image_stacks = one_or_several(images, ImageStack)
    by_name = _by_name(one_or_several(templates, TemplateStack))
    matches = []
    for m in range(summary.sizes[labels.IMAGE]):
        summary_of_image = summary.isel({labels.IMAGE: m})
        image = _image(summary_of_image, image_stacks)
        stack = _templates(summary_of_image, by_name)
        if image.grid != stack.grid:
            raise GridMismatchError(
                f"images lie on {image.grid}, templates of {stack.structure} on {stack.grid}"
            )
        particle = image.source.take(np.arange(1))[0].astype(np.complex128)
        row = int(summary_of_image[labels.OPTIMAL_TEMPLATE])
        template = stack.source.take(np.atleast_1d(row))[0].astype(np.complex128)
        whitening = whitening_of_image(image, settings)
        contrast = contrast_of_image(image, conventions) * whitening.envelope[:, None]
        projection = contrast * _in_pose(template, summary_of_image, image.grid, conventions)
        mask = image.grid.mask(exact=conventions.exact_mask)
        rings = image.source.rings(np.arange(1)) if conventions.knows_noise else None
        correlation_of_pair = correlation(
            whitening.whitened(particle),
            whitening.whitened(projection),
            image.grid,
            whitening.whitened(mask) if conventions.zero_normalised else None,
            unmoved=whitening.whitened(contrast * template),
            rings=None if rings is None else rings[0] * whitening.factors**2,
        )
        pair = particle, template, contrast, projection, correlation_of_pair
        matches.append(Match(*pair, whitening, stack, row))
    if not matches:
        raise InputError("there is no image to show")
    return matches


def _by_name(templates: Sequence[TemplateStack]) -> dict[str, TemplateStack]:
    """Templates by the names of their structures; namesakes are told apart as `open_results`
    does."""
    counts = Counter(stack.structure for stack in templates)
    names = (
        s.structure if counts[s.structure] == 1 else f"{s.structure} (template{i})"
        for i, s in enumerate(templates)
    )
    return dict(zip(names, templates, strict=True))


def _image(summary_of_image: xr.Dataset, stacks: Sequence[ImageStack]) -> ImageStack:
    i_stack = int(summary_of_image[labels.STACK])
    position = int(summary_of_image[labels.IMAGE_IN_STACK])
    for stack in stacks:
        (rows,) = np.nonzero((stack.stack == i_stack) & (stack.image_in_stack == position))
        if len(rows):
            return stack[rows[:1]]
    raise InputError(f"image {position} of stack {i_stack} is not among the images given")


def _templates(summary_of_image: xr.Dataset, by_name: dict[str, TemplateStack]) -> TemplateStack:
    name = str(summary_of_image[BEST_STRUCTURE].item())
    row = summary_of_image[labels.OPTIMAL_TEMPLATE].item()
    if name == NO_STRUCTURE or not row >= 0:
        raise InputError(f"image {int(summary_of_image[labels.IMAGE])} has no result")
    stack = _of_structure(name, by_name)
    if row >= len(stack):
        raise InputError(f"template {row} of {name} is not there: it has {len(stack)}")
    return stack


def _of_structure(name: str, by_name: dict[str, TemplateStack]) -> TemplateStack:
    if name not in by_name:
        raise InputError(f"there are no templates of {name}", remedy="Give them (--templates).")
    return by_name[name]


def _in_pose(
    template: Complex, summary_of_image: xr.Dataset, grid: PolarGrid, conventions: Conventions
) -> Complex:
    """A template displaced, then turned."""
    x, y = (
        np.atleast_1d(float(summary_of_image[name]))
        for name in (labels.OPTIMAL_DISPLACEMENT_X, labels.OPTIMAL_DISPLACEMENT_Y)
    )
    (shift_x,), (shift_y,) = shifts_in_half_boxes(DisplacementGrid(x, y), grid, conventions)
    moved = template * displacement_phases(shift_x, shift_y, *grid.points())
    rotation = float(summary_of_image[labels.OPTIMAL_INPLANE_ROTATION])
    posed: Complex = np.roll(moved, -round(rotation * grid.n_inplanes / (2 * np.pi)), axis=-1)
    return posed


def contrast_of_image(image: ImageStack, conventions: Conventions) -> NDArray[np.float64]:
    """Contrast transfer of a stack of one image, (shell, angle)."""
    grid = image.grid
    contrast: NDArray[np.float64] = contrast_at_points(
        image_rows(image, conventions),
        grid.spatial_frequencies[:, None],
        grid.angles,
        conventions,
    )[0]
    return contrast


def open_matching(
    summary: xr.Dataset,
    rows: NDArray[np.int64],
    templates: str | Path | Trajectory | Templates | None = None,
    particles: str | Path | Images | None = None,
    parameters: str | Path | ImageParameters | None = None,
    *,
    names: Sequence[str] | None = None,
) -> tuple[list[ImageStack], list[TemplateStack]]:
    """Open the image stacks and templates that some images of a summary need.

    Parameters
    ----------
    summary : xarray.Dataset
        The summary of all images.
    rows : (row,) int
        Rows of the images that are needed.
    templates, particles : path, stack or several stacks, optional
        As they were given to the run; default: the folders that the results name.
    parameters : path or ImageParameters, optional
        Default: `parameters.npz` in the folder of templates.
    names : sequence of str, optional
        Give the templates of these structures, in this order, instead of those that the images need
        to be shown.

    Raises
    ------
    CryolikeError
        If they are not there, or not known.
    """
    templates = _known(summary, "templates", templates)
    particles = _known(summary, "particles", particles)
    if (
        parameters is None
        and isinstance(templates, (str, Path))
        and holds_templates(Path(templates))
    ):
        parameters = Path(templates) / PARAMETERS
    read = None if parameters is None else read_parameters(parameters)
    best = {str(name) for name in summary[BEST_STRUCTURE].values[rows]}
    opened = _open_templates(summary, best if names is None else set(names), templates, read)
    if names is not None:
        by_name = _by_name(opened)
        opened = [_of_structure(name, by_name) for name in names]
    return _open_images(summary, rows, particles, read), opened


def _known(summary: xr.Dataset, kind: str, source: Any) -> Any:
    known = summary.attrs.get(f"folder_{kind}") if source is None else source
    if known is None or known == "":
        raise InputError(
            f"the results do not say where the {kind} are", remedy=f"Give {kind} (--{kind})."
        )
    return known


def _needed(parameters: ImageParameters | None) -> ImageParameters:
    if parameters is None:
        raise InputError(
            "the parameters are not known", remedy="Give parameters.npz (--parameters)."
        )
    return parameters


def _open_images(
    summary: xr.Dataset, rows: NDArray[np.int64], source: Any, parameters: ImageParameters | None
) -> list[ImageStack]:
    if not isinstance(source, (str, Path)):
        return [source] if isinstance(source, ImageStack) else list(source)
    stacks = summary[labels.STACK].values
    if holds_image_stacks(Path(source)):
        files = LikelihoodFiles(None, Path(source), Path())
        numbers = np.unique(stacks[rows]).tolist()
        return [
            open_images(replace(files, n_stacks=k + 1), _needed(parameters), k) for k in numbers
        ]
    conventions: Any = summary.attrs.get("conventions")
    n = int(np.unique(stacks, return_counts=True)[1].max())
    return [open_particles(source, _needed(parameters), batch_size=n, conventions=conventions)]


def _open_templates(
    summary: xr.Dataset, names: set[str], source: Any, parameters: ImageParameters | None
) -> list[TemplateStack]:
    if not isinstance(source, (str, Path, Trajectory)):
        return [source] if isinstance(source, TemplateStack) else list(source)
    if isinstance(source, Trajectory) or not holds_templates(Path(source)):
        conventions: Any = summary.attrs.get("conventions")
        return open_structures(source, _needed(parameters), conventions=conventions)
    opened = []
    for i, path in enumerate(LikelihoodFiles(Path(source), None, Path()).template_files()):
        stem = structure_of(path)
        # as open_results tells namesakes apart
        for name in names & {
            stem,
            f"{stem} (template{i})",
        }:
            opened.append(replace(open_template_file(path, _needed(parameters)), structure=name))
    return opened
