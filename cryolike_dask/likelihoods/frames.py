"""From rows of images and templates to tensors on the device: read, checked, and with what the kernels need to know.

torch is imported inside the functions: the scheduler imports this module too, and does not need torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.conventions import Conventions
from cryolike_dask.errors import CryolikeError, InputError, NotFiniteError, ZeroPowerError, listed
from cryolike_dask.geometry.displacements import DisplacementGrid
from cryolike_dask.geometry.optics import OPTICS, electron_wavelength_angstrom
from cryolike_dask.geometry.polar_grid import PolarGrid
from cryolike_dask.io.sources import ArraySource
from cryolike_dask.likelihoods.tiles import Comparison, Rows, piece_bytes, resolve_device

SAMPLED_TEMPLATES, SAMPLED_SPECTRA = 64, 2048
"""What makes the radial basis: so many templates, and displaced templates in all. Measured at the standard case, of
templates that are not in the sample 3e-6 is left out at most for a tolerance of 1e-6; by 32 templates, 4e-5."""
DISPLACEMENTS_AT_A_TIME = 32
"""Of the factors that displace, evaluated in float64."""

if TYPE_CHECKING:
    import torch

    from cryolike_dask.likelihoods.kernels.comparison import Frame
    from cryolike_dask.likelihoods.kernels.radial_basis import RadialBasis


def make_frame(comparison: Comparison, device: torch.device, basis: RadialBasis = ()) -> Frame:
    """Make what all tiles share, on the device."""
    from cryolike_dask.likelihoods.kernels.comparison import Frame
    from cryolike_dask.likelihoods.kernels.rotations import Scratch, fold

    grid, conventions = comparison.grid, comparison.conventions
    mask = grid.mask(exact=conventions.exact_mask)
    weights = _tensor(np.broadcast_to(grid.weights[:, None], grid.shape), comparison.precision, device)
    folding = fold(grid.n_inplanes, weights.dtype, device)
    return Frame(
        weights=weights,
        mask=_tensor(mask, comparison.precision, device),
        translation=_translation(comparison, folding.angles),
        folding=folding,
        basis=tuple(_tensor(np.repeat(group, 2, axis=0), comparison.precision, device) for group in basis),
        mask_power=float(grid.integrate(np.abs(mask) ** 2)),
        n_degrees_of_freedom=degrees_of_freedom(grid, conventions),
        zero_normalised=conventions.zero_normalised,
        recomputes_offset_above=conventions.recomputes_offset_above,
        piece_bytes=piece_bytes(device.type),
        scratch=Scratch(weights),
    )


def degrees_of_freedom(grid: PolarGrid, conventions: Conventions) -> float:
    """Of the noise: inside the band, or of all pixels."""
    return 4 * np.pi * grid.radius_max**2 if conventions.degrees_of_freedom_in_band else float(grid.n_pixels**2)


def _translation(comparison: Comparison, angles: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Real and imaginary parts of the factors that displace, on half rings: (W/2, shell, displacement)."""
    import torch

    from cryolike_dask.likelihoods.kernels import translation_factors

    grid, device = comparison.grid, angles.device
    kx, ky = (torch.from_numpy(k).to(device)[:, angles].T for k in grid.points())
    shifts = shifts_in_half_boxes(comparison.displacements, grid, comparison.conventions)
    x, y = (torch.from_numpy(v).to(device) for v in shifts)
    parts = tuple(
        torch.empty(*kx.shape, len(x), device=device, dtype=torch_real(comparison.precision)) for _ in range(2)
    )
    for start in range(0, len(x), DISPLACEMENTS_AT_A_TIME):
        d = slice(start, start + DISPLACEMENTS_AT_A_TIME)
        factors = translation_factors(x[d], y[d], kx, ky).permute(1, 2, 0)
        parts[0][..., d], parts[1][..., d] = factors.real, factors.imag
    return parts[0], parts[1]


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


def read_images(rows: Rows, comparison: Comparison, frame: Frame) -> tuple[torch.Tensor, torch.Tensor]:
    """Read images, complex (image, shell, angle), and evaluate their contrast transfer, real (image, shell, W/2).

    Raises
    ------
    NotFiniteError, ZeroPowerError, InputError
        If a value is not finite, an image is constant, or not the transform of a real image; files and rows named.
    """
    values = _tensor(comparison.images.take(rows["index"]), comparison.precision, frame.weights.device)
    _refuse_bad(values, frame, comparison.images, rows["index"], "image")
    contrast = _typed(_contrast(rows, comparison, frame.weights.device), comparison.precision)
    light, source, indices = (contrast**2).sum((1, 2)), comparison.images, rows["index"]
    _refuse(light == 0, source, indices, "image", "have a contrast transfer of 0 everywhere", ZeroPowerError)
    _refuse(~light.isfinite(), source, indices, "image", "have a contrast transfer that overflows", NotFiniteError)
    return values, contrast


def read_templates(parts: Sequence[NDArray[np.int64]], comparison: Comparison, frame: Frame) -> Iterator[torch.Tensor]:
    """Read templates part by part, complex (template, shell, angle), each while the one before is in use.

    Raises
    ------
    NotFiniteError, ZeroPowerError, InputError
        As `read_images`.
    """
    source = comparison.templates
    with ThreadPoolExecutor(1) as reader:
        ahead = reader.submit(source.take, parts[0])
        for indices, following in zip(parts, [*parts[1:], None], strict=True):
            taken = ahead.result()
            if following is not None:
                ahead = reader.submit(source.take, following)
            values = _tensor(taken, comparison.precision, frame.weights.device)
            _refuse_bad(values, frame, source, indices, "template")
            yield values


def _contrast(rows: Rows, comparison: Comparison, device: torch.device) -> torch.Tensor:
    """Contrast transfer in float64, of half rings: (image, shell, W/2). Half a turn further it is the same."""
    import torch

    from cryolike_dask.likelihoods.kernels import contrast_transfer

    conventions, grid = comparison.conventions, comparison.grid
    columns = {name: torch.from_numpy(rows[name].copy()).to(device) for name in OPTICS.names or ()}
    wavelength = electron_wavelength_angstrom(columns["voltage_kilovolt"], conventions.elementary_charge)
    return contrast_transfer(
        columns,
        wavelength,
        torch.from_numpy(grid.spatial_frequencies).to(device),
        torch.from_numpy(grid.angles[: grid.n_inplanes // 2]).to(device),
        signed_astigmatism=conventions.signed_astigmatism,
        envelope=conventions.applies_envelope,
    )


def _tensor(values: NDArray[Any], precision: str, device: torch.device) -> torch.Tensor:
    import torch

    # copied into memory of torch's own alignment: sums over the same values then round the same way every time
    return _typed(torch.from_numpy(np.ascontiguousarray(values)).to(device, copy=True), precision)


def _typed(values: torch.Tensor, precision: str) -> torch.Tensor:
    real = torch_real(precision)
    return values.to(real.to_complex() if values.is_complex() else real)


def torch_real(precision: str) -> torch.dtype:
    """The real torch type of a precision."""
    import torch

    return torch.float64 if precision == "double" else torch.float32


def _refuse_bad(values: torch.Tensor, frame: Frame, source: ArraySource, rows: NDArray[np.int64], what: str) -> None:
    """Refuse values that are not finite, have no power beside a constant offset, or do not transform a real image."""
    from cryolike_dask.likelihoods.kernels.cross_correlation import mask_terms, squared

    power = (squared(values) * frame.weights).sum((1, 2))
    _refuse(~power.isfinite(), source, rows, what, "hold NaN or infinite values", NotFiniteError)
    _refuse(power == 0, source, rows, what, "have no power: they are zero everywhere", ZeroPowerError)
    offset = mask_terms(frame.mask, values, frame.weights) ** 2 / frame.mask_power
    constant = power - offset <= 100 * frame.rounding * power
    _refuse(constant, source, rows, what, "are constant: nothing is left beside their offset", ZeroPowerError)
    opposite = values.roll(values.shape[-1] // 2, -1).conj()
    asymmetry = (squared(values - opposite) * frame.weights).sum((1, 2))
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


def find_basis(comparison: Comparison) -> RadialBasis:
    """Make the radial basis of a comparison from a sample of its whole template stack, displaced; empty: all shells.

    The sample is the same however templates are chunked.
    """
    import torch

    from cryolike_dask.likelihoods.kernels.compressed import displaced_spectra, half
    from cryolike_dask.likelihoods.kernels.cross_correlation import squared
    from cryolike_dask.likelihoods.kernels.radial_basis import radial_basis, second_moments

    if comparison.tolerance == 0:
        return ()
    device, exact = resolve_device(comparison.device), replace(comparison, precision="double")
    n_templates, n_displacements = comparison.templates.shape[0], len(comparison.displacements)
    some_templates = np.unique(np.linspace(0, n_templates - 1, SAMPLED_TEMPLATES).round().astype(np.int64))
    drawn = np.random.default_rng(0).permutation(n_displacements)[: -(-SAMPLED_SPECTRA // len(some_templates))]
    some = DisplacementGrid(comparison.displacements.x_angstrom[drawn], comparison.displacements.y_angstrom[drawn])
    with torch.inference_mode():
        frame = make_frame(replace(exact, displacements=some), device)
        moments = torch.zeros((), dtype=torch.float64, device=device)
        for values in read_templates(list(some_templates[:, None]), exact, frame):
            template = half(values) * half(frame.weights).sqrt()
            brightness = squared(template).sum().sqrt()  # what is left out is a part of each template
            moments = moments + second_moments(displaced_spectra(template / brightness, frame))
        return radial_basis(moments, frame.folding.multiplicity, comparison.tolerance)


def log_likelihood_at(image_rows: Rows, poses: Rows, comparison: Comparison, n_at_once: int = 64) -> NDArray[Any]:
    """Log-likelihood of each image at its own pose, by direct sums in float64 with the offset of that pose."""
    import torch

    from cryolike_dask.likelihoods.kernels import translation_factors
    from cryolike_dask.likelihoods.kernels.comparison import at_given_poses
    from cryolike_dask.likelihoods.kernels.compressed import half

    device = resolve_device(comparison.device)
    grid, exact = comparison.grid, replace(comparison, precision="double")
    frame = make_frame(replace(exact, displacements=DisplacementGrid(np.zeros(1), np.zeros(1))), device)
    frame = replace(frame, weights=2 * half(frame.weights), mask=half(frame.mask))  # half a turn adds the same again
    kx, ky = (torch.from_numpy(k).to(device) for k in grid.points())
    table = realised_table(comparison.displacements, comparison.conventions)
    shifts = torch.from_numpy(2 * table / grid.box_size_angstrom).to(device)
    angles = torch.arange(grid.n_inplanes // 2, device=device)
    values = np.empty(len(image_rows))
    for start in range(0, len(image_rows), n_at_once):
        part = slice(start, start + n_at_once)
        x, y = shifts[:, torch.from_numpy(poses["displacement"][part].astype(np.int64)).to(device)]
        rotation = torch.from_numpy(poses["rotation"][part].astype(np.int64)).to(device)
        turned = (angles + rotation[:, None]) % grid.n_inplanes
        factors = translation_factors(x, y, kx[:, turned].transpose(0, 1), ky[:, turned].transpose(0, 1))
        templates = _tensor(comparison.templates.take(poses["template"][part]), "double", device)
        templates = templates.gather(2, turned[:, None, :].expand(factors.shape)) * factors
        images = half(_tensor(comparison.images.take(image_rows["index"][part]), "double", device))
        contrast = _contrast(image_rows[part], comparison, device)
        values[part] = at_given_poses(images, contrast, templates, frame).cpu().numpy()
    return values
