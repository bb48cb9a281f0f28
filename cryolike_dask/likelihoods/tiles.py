"""What happens on the device inside a task: read rows, check them, and give the comparison tile by tile.

torch is imported inside the functions: the scheduler imports this module too, and does not need torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.conventions import Conventions
from cryolike_dask.errors import (
    CannotFitError,
    CryolikeError,
    DeviceError,
    InputError,
    NotFiniteError,
    ZeroPowerError,
    listed,
)
from cryolike_dask.geometry.displacements import DisplacementGrid
from cryolike_dask.geometry.optics import OPTICS, electron_wavelength_angstrom
from cryolike_dask.geometry.polar_grid import PolarGrid
from cryolike_dask.io.sources import ArraySource

if TYPE_CHECKING:
    import torch

    from cryolike_dask.likelihoods.kernels.comparison import Frame, ImageTerms

IMAGE_ROW = np.dtype([("index", "i8"), *OPTICS.descr])
TEMPLATE_ROW = np.dtype([("index", "i8"), ("log_prior", "f8")])

Rows = NDArray[np.void]

DEFAULT_TILE_BYTES = 2**24
"""Measured on one core: 2^28 is three times slower, for its memory is fetched from the system anew each time."""
FEWEST_IMAGES_PER_TILE = 8
"""Below this the products of spectra are too thin."""
BYTES_PER_POSE = 64
"""Of device memory inside a tile: correlation, its spectrum, and log-likelihood with its temporaries in float64."""
CPU_MEMORY_FRACTION = 0.25
"""Of the free memory, for the tile that `discover_batch_size` settles on."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """Everything that a task needs to know, small enough to travel with it.

    Attributes
    ----------
    images, templates : ArraySource
    grid : PolarGrid
    displacements : DisplacementGrid
    conventions : Conventions
    precision : "single" | "double"
    device : "auto" | "cpu" | "cuda"
        Resolved inside the task: "auto" is the GPU of the process that runs it, if there is one.
    n_images_per_tile, n_templates_per_tile : int or None
    discover_tiles : bool
        Start from the largest tile that could fit instead of the default.
    """

    images: ArraySource
    templates: ArraySource
    grid: PolarGrid
    displacements: DisplacementGrid
    conventions: Conventions
    precision: str
    device: str
    n_images_per_tile: int | None = None
    n_templates_per_tile: int | None = None
    discover_tiles: bool = False


def real_dtype(precision: str) -> np.dtype[Any]:
    """The real numpy type of a precision."""
    return np.dtype("f8" if precision == "double" else "f4")


def resolve_device(name: str) -> torch.device:
    """Find the device of this process.

    Raises
    ------
    DeviceError
        If a GPU is asked for and there is none: a CPU is never taken silently.
    """
    import torch

    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise DeviceError(
            'device="cuda", but this process sees no CUDA GPU',
            remedy='Use device="auto" or "cpu", or check nvidia-smi and CUDA_VISIBLE_DEVICES.',
        )
    return torch.device("cuda" if name != "cpu" and available else "cpu")


def smaller_tile(tile: tuple[int, int], reason: str) -> tuple[int, int]:
    """Halve the larger side of an (images, templates) tile that did not fit.

    Raises
    ------
    CannotFitError
        If it is one image and one template already.
    """
    n_images, n_templates = tile
    if n_images == n_templates == 1:
        raise CannotFitError(
            f"one image and one template do not fit into the memory of the device ({reason})",
            remedy="Use fewer displacements, a lower resolution factor, or a device with more memory.",
        )
    return ((n_images + 1) // 2, n_templates) if n_images >= n_templates else (n_images, (n_templates + 1) // 2)


def first_tile(n_images: int, n_templates: int, comparison: Comparison) -> tuple[int, int]:
    """Choose the (images, templates) of a tile: as asked, or by a budget of memory."""
    budget = DEFAULT_TILE_BYTES
    if comparison.discover_tiles:
        if resolve_device(comparison.device).type == "cuda":
            return n_images, n_templates  # try, and shrink on running out of memory
        budget = int(_free_memory() * CPU_MEMORY_FRACTION)
    item = 16 if comparison.precision == "double" else 8
    n_poses = len(comparison.displacements) * comparison.grid.n_inplanes
    per_template = n_poses * comparison.grid.n_shells * item * 2
    per_pair = n_poses * BYTES_PER_POSE
    templates = comparison.n_templates_per_tile if not comparison.discover_tiles else None
    images = comparison.n_images_per_tile if not comparison.discover_tiles else None
    templates = templates or min(n_templates, max(1, budget // 2 // (per_template + per_pair)))
    images = images or max(FEWEST_IMAGES_PER_TILE, budget // (per_pair * templates))
    return min(images, n_images), min(templates, n_templates)


def _free_memory() -> int:
    """Bytes that this process may still use: of the machine, or of the limit of the Dask worker that it is."""
    import psutil
    from distributed import get_worker

    free = int(psutil.virtual_memory().available)
    try:
        limit = get_worker().memory_manager.memory_limit
    except (ValueError, AttributeError):
        return free
    return free if not limit else max(0, min(free, int(limit) - psutil.Process().memory_info().rss))


def tiles(
    image_rows: Rows, template_rows: Rows, comparison: Comparison, tile: tuple[int, int]
) -> Iterator[tuple[slice, slice, torch.Tensor, torch.Tensor]]:
    """Give correlation and log-likelihood of each tile. Templates are the outer loop: their spectra are made once."""
    from cryolike_dask.likelihoods.kernels.comparison import compare, prepare_templates

    device = resolve_device(comparison.device)
    frame = _frame(comparison, device)
    prepared: list[tuple[slice, ImageTerms]] = []
    for start in range(0, len(image_rows), tile[0]):
        m = slice(start, min(start + tile[0], len(image_rows)))
        prepared.append((m, _prepared_images(image_rows[m], comparison, frame)))
    for start in range(0, len(template_rows), tile[1]):
        s = slice(start, min(start + tile[1], len(template_rows)))
        indices = template_rows["index"][s]
        values = _tensor(comparison.templates.take(indices), comparison.precision, device)
        _refuse_bad(values, frame, comparison.templates, indices, "template")
        templates = prepare_templates(values, frame, int(indices[0]))
        for m, images in prepared:
            yield m, s, *compare(images, templates, frame)


def _frame(comparison: Comparison, device: torch.device) -> Frame:
    """Make what all tiles share, on the device."""
    import torch

    from cryolike_dask.likelihoods.kernels import translation_factors
    from cryolike_dask.likelihoods.kernels.comparison import Frame

    grid, conventions = comparison.grid, comparison.conventions
    mask = grid.mask(exact=conventions.exact_mask)
    kx, ky = (torch.from_numpy(k).to(device) for k in grid.points())
    shifts = shifts_in_half_boxes(comparison.displacements, grid, conventions)
    x, y = (torch.from_numpy(v).to(device) for v in shifts)
    in_band = conventions.degrees_of_freedom_in_band
    return Frame(
        weights=_tensor(np.broadcast_to(grid.weights[:, None], grid.shape), comparison.precision, device),
        mask=_tensor(mask, comparison.precision, device),
        translation=_typed(translation_factors(x, y, kx, ky), comparison.precision),
        mask_power=float(grid.integrate(np.abs(mask) ** 2)),
        n_degrees_of_freedom=4 * np.pi * grid.radius_max**2 if in_band else float(grid.n_pixels**2),
        zero_normalised=conventions.zero_normalised,
        recomputes_offset_above=conventions.recomputes_offset_above,
    )


def realised_table(displacements: DisplacementGrid, conventions: Conventions) -> NDArray[np.float64]:
    """Displacements as they are reported, angstrom, rounded where the conventions round: (2, displacement)."""
    table = displacements.table()
    return table.astype(np.float32).astype(np.float64) if conventions.rounds_to_single else table


def shifts_in_half_boxes(
    displacements: DisplacementGrid, grid: PolarGrid, conventions: Conventions
) -> NDArray[np.float64]:
    """Displacements as the phase factors take them, 2 d / L, rounded where the conventions round: (2, displacement)."""
    table = realised_table(displacements, conventions)
    if conventions.rounds_to_single:
        return (table.astype(np.float32) * np.float32(2) / np.float32(grid.box_size_angstrom)).astype(np.float64)
    return 2 * table / grid.box_size_angstrom


def _prepared_images(rows: Rows, comparison: Comparison, frame: Frame) -> ImageTerms:
    from cryolike_dask.likelihoods.kernels.comparison import prepare_images

    values = _tensor(comparison.images.take(rows["index"]), comparison.precision, frame.weights.device)
    _refuse_bad(values, frame, comparison.images, rows["index"], "image")
    contrast = _typed(_contrast(rows, comparison, frame.weights.device), comparison.precision)
    light, source, indices = (contrast**2).sum((1, 2)), comparison.images, rows["index"]
    _refuse(light == 0, source, indices, "image", "have a contrast transfer of 0 everywhere", ZeroPowerError)
    _refuse(~light.isfinite(), source, indices, "image", "have a contrast transfer that overflows", NotFiniteError)
    return prepare_images(values, contrast, frame)


def _contrast(rows: Rows, comparison: Comparison, device: torch.device) -> torch.Tensor:
    """Contrast transfer in float64, (image, shell, angle)."""
    import torch

    from cryolike_dask.likelihoods.kernels import contrast_transfer

    conventions, grid = comparison.conventions, comparison.grid
    columns = {name: torch.from_numpy(rows[name].copy()).to(device) for name in OPTICS.names or ()}
    wavelength = electron_wavelength_angstrom(columns["voltage_kilovolt"], conventions.elementary_charge)
    return contrast_transfer(
        columns,
        wavelength,
        torch.from_numpy(grid.spatial_frequencies).to(device),
        torch.from_numpy(grid.angles).to(device),
        signed_astigmatism=conventions.signed_astigmatism,
        envelope=conventions.applies_envelope,
    )


def _tensor(values: NDArray[Any], precision: str, device: torch.device) -> torch.Tensor:
    import torch

    # copied into memory of torch's own alignment: sums over the same values then round the same way every time
    return _typed(torch.from_numpy(np.ascontiguousarray(values)).to(device, copy=True), precision)


def _typed(values: torch.Tensor, precision: str) -> torch.Tensor:
    import torch

    if values.is_complex():
        return values.to(torch.complex128 if precision == "double" else torch.complex64)
    return values.to(torch.float64 if precision == "double" else torch.float32)


def _refuse_bad(values: torch.Tensor, frame: Frame, source: ArraySource, rows: NDArray[np.int64], what: str) -> None:
    """Refuse values that are not finite, have no power beside a constant offset, or do not transform a real image."""
    from cryolike_dask.likelihoods.kernels.cross_correlation import mask_terms

    power = (values.abs() ** 2 * frame.weights).sum((1, 2))
    _refuse(~power.isfinite(), source, rows, what, "hold NaN or infinite values", NotFiniteError)
    _refuse(power == 0, source, rows, what, "have no power: they are zero everywhere", ZeroPowerError)
    offset = mask_terms(frame.mask, values, frame.weights) ** 2 / frame.mask_power
    constant = power - offset <= 100 * frame.rounding * power
    _refuse(constant, source, rows, what, "are constant: nothing is left beside their offset", ZeroPowerError)
    opposite = values.roll(values.shape[-1] // 2, -1).conj()
    asymmetry = ((values - opposite).abs() ** 2 * frame.weights).sum((1, 2))
    _refuse(asymmetry > 1e-4 * power, source, rows, what, "are not transforms of real images", InputError)


def _refuse(
    bad: torch.Tensor, source: ArraySource, rows: NDArray[np.int64], what: str, why: str, error: type[CryolikeError]
) -> None:
    if not bool(bad.any()):
        return
    files: dict[str, list[int]] = {}
    for row in rows[bad.cpu().numpy()]:
        path, position = source.locate(int(row))
        files.setdefault(path, []).append(position)
    where = "; ".join(f"{path}: {what}(s) {listed(positions)}" for path, positions in files.items())
    raise error(f"{where} {why}", remedy=f"Leave these {what}s out, or make the file again.")


def log_likelihood_at(image_rows: Rows, poses: Rows, comparison: Comparison, n_at_once: int = 64) -> NDArray[Any]:
    """Log-likelihood of each image at its own pose, by direct sums in float64 with the offset of that pose."""
    import torch

    from cryolike_dask.likelihoods.kernels import translation_factors
    from cryolike_dask.likelihoods.kernels.comparison import at_given_poses

    device = resolve_device(comparison.device)
    grid, exact = comparison.grid, replace(comparison, precision="double")
    frame = _frame(replace(exact, displacements=DisplacementGrid(np.zeros(1), np.zeros(1))), device)
    kx, ky = (torch.from_numpy(k).to(device) for k in grid.points())
    table = realised_table(comparison.displacements, comparison.conventions)
    shifts = torch.from_numpy(2 * table / grid.box_size_angstrom).to(device)
    angles = torch.arange(grid.n_inplanes, device=device)
    values = np.empty(len(image_rows))
    for start in range(0, len(image_rows), n_at_once):
        part = slice(start, start + n_at_once)
        x, y = shifts[:, torch.from_numpy(poses["displacement"][part].astype(np.int64)).to(device)]
        rotation = torch.from_numpy(poses["rotation"][part].astype(np.int64)).to(device)
        templates = _tensor(comparison.templates.take(poses["template"][part]), "double", device)
        templates = templates * translation_factors(x, y, kx, ky)
        turned = (angles + rotation[:, None]) % grid.n_inplanes
        templates = templates.gather(2, turned[:, None, :].expand(templates.shape))
        images = _tensor(comparison.images.take(image_rows["index"][part]), "double", device)
        contrast = _contrast(image_rows[part], comparison, device)
        values[part] = at_given_poses(images, contrast, templates, frame).cpu().numpy()
    return values
