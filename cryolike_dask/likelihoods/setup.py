"""The constants that all tiles of a task share, made once: weights, displacement phases, and the
radial basis.

torch is imported inside the functions: the scheduler imports this module too, and does not need
torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.compute.device import resolve_device
from cryolike_dask.compute.gpu import sent
from cryolike_dask.conventions import Conventions
from cryolike_dask.geometry.displacements import DisplacementGrid, not_displaced
from cryolike_dask.geometry.polar_grid import PolarGrid
from cryolike_dask.likelihoods.comparison import Comparison, Rows
from cryolike_dask.likelihoods.reading import (
    read_templates,
    taken,
    tensor_on,
    torch_real,
    whitened,
)
from cryolike_dask.likelihoods.tiles import columns_of_template, piece_bytes

if TYPE_CHECKING:
    import torch

    from cryolike_dask.likelihoods.kernels.direct import BlockConstants, WhitenedImages
    from cryolike_dask.likelihoods.kernels.radial_basis import RadialBasis


SAMPLED_TEMPLATES, SAMPLED_SPECTRA = 64, 2048
"""Templates, and displaced templates in all, that the radial basis is made from. Measured at the
standard case, of templates that are not in the sample 3e-6 is left out at most for a tolerance of
1e-6; by 32 templates, 4e-5."""
TOUCHING = 1e-3
"""Steps that a displacement of a search may lie from where it is looked for."""
SAMPLED_AT_A_TIME = 128
"""Displaced templates whose moments are summed together: each sum is a pass over all moments."""
DISPLACEMENTS_AT_A_TIME = 32
"""Displacements whose phases are evaluated together, in float64."""
IMAGES_AT_A_TIME = {"cpu": 16, "cuda": 256}
"""Images that are compared at one pose each together: measured at the standard case on a CPU, 1.5
ms an image; 1.9 to 2.5 ms of 64 together, which leave the cache. A GPU has no such cache, and
starts the same kernels for few as for many: 70 MB for each of a few arrays of them."""


def make_constants(
    comparison: Comparison, device: torch.device, basis: RadialBasis = ()
) -> BlockConstants:
    """Make the constants that all tiles share, on the device."""

    from cryolike_dask.likelihoods.kernels.checks import Checks
    from cryolike_dask.likelihoods.kernels.direct import BlockConstants
    from cryolike_dask.likelihoods.kernels.displaced import measured_displacements
    from cryolike_dask.likelihoods.kernels.log_likelihood import NoiseTerms
    from cryolike_dask.likelihoods.kernels.rotations import Scratch, fold

    grid, conventions, whitening = comparison.grid, comparison.conventions, comparison.whitening
    mask = grid.mask(exact=conventions.exact_mask)
    weights = tensor_on(
        np.broadcast_to(grid.weights[:, None], grid.shape), comparison.precision, device
    )
    folding = fold(grid.n_inplanes, weights.dtype, device)
    return BlockConstants(
        weights=weights,
        mask=tensor_on(mask, comparison.precision, device),
        translation=_translation(comparison, folding.angles),
        n_displacements=len(comparison.displacements),
        folding=folding,
        basis=tuple(
            tensor_on(np.repeat(group, 2, axis=0), comparison.precision, device) for group in basis
        ),
        measured=sent(measured_displacements(*comparison.displacements.table()), device),
        whitening=sent(whitening.factors, device),
        envelopes=sent(whitening.envelopes, device),
        template_whitening=tensor_on(whitening.of_templates, comparison.precision, device),
        noise=NoiseTerms.of(
            _mask_powers(mask, whitening.factors, grid),
            whitening.n_degrees_of_freedom.tolist(),
            device,
        ),
        zero_normalised=conventions.zero_normalised,
        recomputes_offset_above=conventions.recomputes_offset_above,
        piece_bytes=piece_bytes(device.type),
        scratch=Scratch(weights),
        checks=Checks(device.type == "cpu"),
    )


def _mask_powers(
    mask: NDArray[np.complex128], factors: NDArray[np.float64], grid: PolarGrid
) -> list[float]:
    """Iss of each group."""
    if len(factors) == 1:
        return [float(grid.integrate(np.abs(mask * factors[0][:, None]) ** 2))]
    of_rings = (np.abs(mask) ** 2 * grid.weights[:, None]).sum(axis=1)
    powers: list[float] = (factors**2 @ of_rings).tolist()
    return powers


def degrees_of_freedom(grid: PolarGrid, conventions: Conventions) -> float:
    """Degrees of freedom of the noise: inside the band, or of all pixels."""
    return (
        4 * np.pi * grid.radius_max**2
        if conventions.degrees_of_freedom_in_band
        else float(grid.n_pixels**2)
    )


def _translation(comparison: Comparison, angles: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Real and imaginary parts of the factors that displace, on half rings: (W/2, shell,
    displacement), of which the last may be repeated."""
    import torch

    from cryolike_dask.likelihoods.kernels import translation_factors

    grid, device = comparison.grid, angles.device
    kx, ky = (sent(k, device)[:, angles].T for k in grid.points())
    shifts = shifts_in_half_boxes(comparison.displacements, grid, comparison.conventions)
    repeated = columns_of_template(shifts.shape[1], device.type) - shifts.shape[1]
    x, y = (sent(v, device) for v in np.pad(shifts, ((0, 0), (0, repeated)), mode="edge"))
    parts = tuple(
        torch.empty(*kx.shape, len(x), device=device, dtype=torch_real(comparison.precision))
        for _ in range(2)
    )
    for start in range(0, len(x), DISPLACEMENTS_AT_A_TIME):
        d = slice(start, start + DISPLACEMENTS_AT_A_TIME)
        factors = translation_factors(x[d], y[d], kx, ky).permute(1, 2, 0)
        parts[0][..., d], parts[1][..., d] = factors.real, factors.imag
    return parts[0], parts[1]


def realised_table(
    displacements: DisplacementGrid, conventions: Conventions
) -> NDArray[np.float64]:
    """Displacements as they are reported, angstrom, rounded where the conventions round: (2,
    displacement)."""
    table = displacements.table()
    return table.astype(np.float32).astype(np.float64) if conventions.rounds_to_single else table


def shifts_in_half_boxes(
    displacements: DisplacementGrid, grid: PolarGrid, conventions: Conventions
) -> NDArray[np.float64]:
    """Displacements as the phase factors take them, 2 d / L, rounded where the conventions
    round: (2, displacement)."""
    table = realised_table(displacements, conventions)
    if conventions.rounds_to_single:
        return (
            table.astype(np.float32) * np.float32(2) / np.float32(grid.box_size_angstrom)
        ).astype(np.float64)
    return 2 * table / grid.box_size_angstrom


def find_basis(comparison: Comparison) -> RadialBasis:
    """Make the radial basis of a comparison from a sample of its whole template stack, displaced;
    empty: all shells.

    The sample is the same however templates are chunked.
    """
    import torch

    from cryolike_dask.likelihoods.kernels.compressed import half
    from cryolike_dask.likelihoods.kernels.cross_correlation import squared
    from cryolike_dask.likelihoods.kernels.displaced import (
        displaced_spectra,
        measured_displacements,
    )
    from cryolike_dask.likelihoods.kernels.radial_basis import radial_basis, second_moments

    if comparison.tolerance == 0:
        return ()
    device, exact = resolve_device(comparison.device), replace(comparison, precision="double")
    n_templates, n_displacements = comparison.templates.shape[0], len(comparison.displacements)
    spread = np.linspace(0, n_templates - 1, SAMPLED_TEMPLATES).round().astype(np.int64)
    sampled_templates = np.unique(spread)
    n_drawn = -(-SAMPLED_SPECTRA // len(sampled_templates))
    drawn = np.random.default_rng(0).permutation(n_displacements)[:n_drawn]
    # the farthest need most of the basis, and few of them are drawn
    drawn = np.union1d(drawn, measured_displacements(*comparison.displacements.table()))
    sampled_displacements = DisplacementGrid(
        comparison.displacements.x_angstrom[drawn], comparison.displacements.y_angstrom[drawn]
    )
    with torch.inference_mode():
        constants = make_constants(replace(exact, displacements=sampled_displacements), device)
        moments = torch.zeros((), dtype=torch.float64, device=device)
        together = max(1, SAMPLED_AT_A_TIME // len(drawn))
        parts = np.split(sampled_templates, range(together, len(sampled_templates), together))
        for values in read_templates(parts, exact, constants):
            template = half(values) * half(constants.weights).sqrt()
            template = template * constants.template_whitening[:, None]
            # what is left out is a part of each template
            brightness = squared(template).sum((1, 2), keepdim=True).sqrt()
            moments = moments + second_moments(displaced_spectra(template / brightness, constants))
        constants.checks.read()
        return radial_basis(moments, constants.folding.multiplicity, comparison.tolerance)


def log_likelihood_at(
    image_rows: Rows, poses: Rows, comparison: Comparison, n_at_once: int | None = None
) -> NDArray[Any]:
    """Log-likelihood of each image at its own pose, by direct sums in float64 with the offset of
    that pose."""
    import torch

    from cryolike_dask.likelihoods.kernels.direct import at_given_poses

    values = [
        at_given_poses(images, templates, constants)
        for _, images, templates, constants in at_poses(image_rows, poses, comparison, n_at_once)
    ]
    found: NDArray[np.float64] = torch.cat(values).cpu().numpy() if values else np.empty(0)
    return found


def best_nodes(
    image_rows: Rows, poses: Rows, comparison: Comparison, n_at_once: int | None = None
) -> NDArray[np.int64]:
    """The displacement of the search at which each image is likeliest, of that of its pose and
    those beside it, under the same template and rotation: its power is the same at all of them."""
    import torch

    from cryolike_dask.likelihoods.kernels import translation_factors
    from cryolike_dask.likelihoods.kernels.direct import covariances_at_offsets

    device, grid = resolve_device(comparison.device), comparison.grid
    table = comparison.displacements.table()
    steps = np.array(comparison.displacements.steps)
    offsets = np.array([(i, j) for i in (0, -1, 1) for j in (0, -1, 1)]).T * steps[:, None]
    kx, ky = (sent(k, device) for k in grid.points())
    x, y = sent(2 * offsets / grid.box_size_angstrom, device)
    factors = translation_factors(x, y, kx, ky)
    angles = torch.arange(grid.n_inplanes // 2, device=device)
    best = poses["displacement"].astype(np.int64)
    for part, images, templates, constants in at_poses(image_rows, poses, comparison, n_at_once):
        rotation = sent(poses["rotation"][part].astype(np.int64), device)
        turned = (angles + rotation[:, None]) % grid.n_inplanes
        at_angles = factors[:, :, turned].transpose(1, 2)
        covariance = covariances_at_offsets(images, templates, at_angles, constants).cpu().numpy()
        beside = table[:, best[part], None] + offsets[:, None]
        apart = np.abs(beside[..., None] - table[:, None, None]).max(axis=0)
        covariance[apart.min(axis=2) > TOUCHING * max(steps)] = -np.inf  # not of the search
        chosen = covariance.argmax(axis=1)
        best[part] = apart.argmin(axis=2)[np.arange(len(chosen)), chosen]
    return best


def constants_of_half_rings(comparison: Comparison, device: torch.device) -> BlockConstants:
    """Constants whose sums are over half rings, without a displacement."""
    from cryolike_dask.likelihoods.kernels.compressed import half

    nowhere = not_displaced()
    constants = make_constants(replace(comparison, displacements=nowhere), device)
    # half a turn adds the same again
    return replace(constants, weights=2 * half(constants.weights), mask=half(constants.mask))


def at_poses(
    image_rows: Rows, poses: Rows, comparison: Comparison, n_at_once: int | None = None
) -> Iterator[tuple[slice, WhitenedImages, torch.Tensor, BlockConstants]]:
    """Give images part by part, as many as `IMAGES_AT_A_TIME` unless said, each with its own
    template, displaced and rotated: half rings in float64, and constants of half rings."""
    import torch

    from cryolike_dask.likelihoods.kernels import translation_factors
    from cryolike_dask.likelihoods.kernels.compressed import half

    device = resolve_device(comparison.device)
    grid, exact = comparison.grid, replace(comparison, precision="double")
    constants = constants_of_half_rings(exact, device)
    kx, ky = (sent(k, device) for k in grid.points())
    table = realised_table(comparison.displacements, comparison.conventions)
    shifts = sent(2 * table / grid.box_size_angstrom, device)
    angles = torch.arange(grid.n_inplanes // 2, device=device)
    n_at_once = n_at_once or IMAGES_AT_A_TIME[device.type]
    for start in range(0, len(image_rows), n_at_once):
        part = slice(start, start + n_at_once)
        x, y = shifts[:, sent(poses["displacement"][part].astype(np.int64), device)]
        rotation = sent(poses["rotation"][part].astype(np.int64), device)
        turned = (angles + rotation[:, None]) % grid.n_inplanes
        factors = translation_factors(
            x, y, kx[:, turned].transpose(0, 1), ky[:, turned].transpose(0, 1)
        )
        templates, _ = taken(poses["template"][part], comparison.templates, "double", device)
        templates = templates.gather(2, turned[:, None, :].expand(factors.shape)) * factors
        values, rings = taken(image_rows["index"][part], comparison.images, "double", device)
        images = whitened(half(values), rings, image_rows[part], exact, constants)
        yield part, images, templates, constants
