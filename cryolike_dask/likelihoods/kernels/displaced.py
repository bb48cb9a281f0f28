"""Displaced templates: their spectra, what these are on the radial basis, and what it leaves out.

On CPUs two things make it cheap. Coefficients are few, so that they follow from spectra at some of
the shells (`radial_basis.enough_shells`), and only these are displaced and transformed; and a few
columns at a time go all the way in compiled loops (`displaced_cpu`). Elsewhere, and where W is not
divisible by four, all shells are transformed by products of matrices (`rotations`).

What coefficients leave out of a displaced template is measured over all shells, at a sample of the
displacements: more is lost the farther a template is moved, wherever it was, so that those farthest
in each direction are among them. Up to `MEASURED` displacements all are measured, and the largest
is a bound. For more it is an estimate from above: the largest of the sample times `MARGIN`. At no
displacement of the cases of `benchmarks` more than 1.2 times the largest of the sample is lost.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryolike_dask.likelihoods.kernels.columns import by_pairs, by_templates
from cryolike_dask.likelihoods.kernels.direct import BlockConstants
from cryolike_dask.likelihoods.kernels.rotations import angular_spectra, plan
from cryolike_dask.likelihoods.kernels.threads import threads

if TYPE_CHECKING:
    from cryolike_dask.likelihoods.kernels.displaced_cpu import Rings, Series

ALIGNED = 16
"""Columns of matrices are padded to a multiple: products of 257 columns take up to a third
longer than those of 272."""
MEASURED = 10
"""Displacements at which what is left out is measured; all, where there are no more."""
MARGIN = 2.0
"""What is left out of a template at any displacement, over the most at those measured: of 1800
random templates in small boxes 1.96 in the worst case, 1.3 in one of a hundred."""


def measured_displacements(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.int64]:
    """Choose displacements at which what is left out is measured: the farthest in each of eight
    directions, and others at all distances."""
    if len(x) <= MEASURED:
        return np.arange(len(x))
    angles = np.pi / 4 * np.arange(8)
    along = np.cos(angles)[:, None] * x + np.sin(angles)[:, None] * y
    farthest = np.unique(along.argmax(1))
    others = np.setdiff1d(np.hypot(x, y).argsort(kind="stable")[::-1], farthest, True)
    some = np.linspace(0, len(others) - 1, MEASURED - len(farthest)).round().astype(np.int64)
    return np.sort(np.concatenate([farthest, others[some]]))


def compressed_templates(rooted: Tensor, constants: BlockConstants) -> Iterable[Tensor]:
    """Displace, expand and compress half rings, complex (template, shell, W/2).

    Returns
    -------
    iterable of Tensor, real, (q, 2, rank, column)
        Of each group of angular frequencies; one of all shells if there is no basis. To be taken
        before anything else is displaced: products of matrices are done then.
    """
    if not constants.basis:
        # complete spectra are in scratch memory, coefficients are not
        return (displaced_spectra(rooted, constants).clone(),)
    if not _in_loops(constants):
        return on_basis(displaced_spectra(rooted, constants), constants)
    from cryolike_dask.likelihoods.kernels.displaced_cpu import expand, project
    from cryolike_dask.likelihoods.kernels.fft_cpu import COLUMNS

    few, n_displacements = constants.few_shells, constants.translation[0].shape[2]
    columns, n_shells = _columns(rooted, constants), len(few.shells)
    rings = _rings(rooted[:, few.shells], few.translation, constants)
    series = _series(constants)
    spectra = constants.scratch.take(
        "spectra", len(constants.folding.multiplicity), 2, n_shells, COLUMNS
    )
    groups = _coefficients_memory(constants, columns)
    of_groups = [
        (matrices.numpy(), spectra[q].numpy(), group.numpy())
        for matrices, q, group in zip(few.matrices, _frequencies(few.matrices), groups, strict=True)
    ]
    # the same displacements of several templates one after the other: their factors are in the
    # outer cache then
    starts = sorted(range(0, columns, COLUMNS), key=lambda start: start % n_displacements)
    with threads() as in_threads:
        for start in starts:
            in_threads(expand, n_shells, start, rings, series, spectra.numpy(), 0)
            for of_group in of_groups:
                in_threads(project, len(of_group[0]), *of_group, start)
    return groups


def _coefficients_memory(constants: BlockConstants, columns: int) -> tuple[Tensor, ...]:
    """Memory for the coefficients of each group, (q, 2, rank, column): in one piece, which the
    system gives faster."""
    shapes = [(len(m), 2, m.shape[1], columns) for m in constants.few_shells.matrices]
    sizes = [math.prod(shape) for shape in shapes]
    # numpy asks for large pages, torch does not
    dtype = str(constants.weights.dtype).removeprefix("torch.")
    memory = torch.from_numpy(np.empty(sum(sizes), dtype))
    return tuple(
        part.view(shape) for part, shape in zip(torch.split(memory, sizes), shapes, strict=True)
    )


def displaced_spectra(rooted: Tensor, constants: BlockConstants) -> Tensor:
    """Displace and expand half rings, complex (template, shell, W/2).

    Returns
    -------
    Tensor, real, (q, 2, shell, column), in scratch memory
    """
    spectra = spectra_memory(constants, _columns(rooted, constants))
    if not _in_loops(constants):
        _expand_by_products(rooted, constants, spectra)
        return spectra
    from cryolike_dask.likelihoods.kernels.displaced_cpu import expand
    from cryolike_dask.likelihoods.kernels.fft_cpu import COLUMNS

    rings, series = _rings(rooted, constants.translation, constants), _series(constants)
    with threads() as in_threads:
        for start in range(0, spectra.shape[3], COLUMNS):
            in_threads(expand, spectra.shape[2], start, rings, series, spectra.numpy(), start)
    return spectra


def spectra_memory(constants: BlockConstants, columns: int) -> Tensor:
    """Scratch memory for spectra of all shells: real (q, 2, shell, x)."""
    n_shells, n_inplanes = constants.weights.shape
    return constants.scratch.take("spectra", n_inplanes // 2 + 1, 2, n_shells, columns)


def on_basis(spectra: Tensor, constants: BlockConstants) -> Iterator[Tensor]:
    """Project real (q, 2, shell, x) on each group's basis: (q, 2, rank, x)."""
    if not constants.basis:
        yield spectra
        return
    # one rank for each group, so that the projection is a batched product
    for basis, q in zip(constants.basis, _frequencies(constants.basis, 2), strict=True):
        coefficients = torch.bmm(basis, spectra[q].flatten(0, 1))
        yield coefficients.view(len(basis) // 2, 2, *coefficients.shape[1:])


def left_out(rooted: Tensor, constants: BlockConstants) -> Tensor:
    """Norm of what coefficients leave out of each template at the worst displacement: float64
    (template,)."""
    if not constants.basis:
        return rooted.real.new_zeros(len(rooted), dtype=torch.float64)
    some = constants.at_measured
    spectra = displaced_spectra(rooted, some)
    power = spectra.new_zeros(spectra.shape[3], dtype=torch.float64)
    for basis, q, coefficients in zip(
        constants.basis,
        _frequencies(constants.basis, 2),
        _coefficients(spectra, constants),
        strict=True,
    ):
        group = spectra[q].flatten(0, 1)
        rest = torch.baddbmm(group, basis.mT, coefficients.flatten(0, 1), alpha=-1)
        of_parts = rest.square_().sum(1).view(len(basis) // 2, 2, -1).sum(1).double()
        power += constants.folding.multiplicity[q] @ of_parts
    lost = by_pairs(power, len(rooted), some).amax(1).sqrt()
    return lost if len(constants.measured) == constants.n_displacements else lost * MARGIN


def _coefficients(spectra: Tensor, constants: BlockConstants) -> Iterator[Tensor]:
    """The coefficients that `compressed_templates` gives, by complete spectra."""
    if not _in_loops(constants):
        yield from on_basis(spectra, constants)
        return
    few = constants.few_shells
    for matrices, q in zip(few.matrices, _frequencies(few.matrices), strict=True):
        yield torch.matmul(matrices[:, None], spectra[q][:, :, few.shells])


def _frequencies(groups: tuple[Tensor, ...], each: int = 1) -> Iterator[slice]:
    """Angular frequencies of each group, whose matrices stand `each` times."""
    first = 0
    for group in groups:
        yield slice(first, first + len(group) // each)
        first += len(group) // each


def _columns(rooted: Tensor, constants: BlockConstants) -> int:
    """Number of columns, padded."""
    return -(-len(rooted) * constants.translation[0].shape[2] // ALIGNED) * ALIGNED


def _in_loops(constants: BlockConstants) -> bool:
    """Whether there are compiled loops for this device and number of rotations."""
    return constants.weights.is_cpu and constants.folding.n_inplanes % 4 == 0


def _rings(rooted: Tensor, translation: tuple[Tensor, Tensor], constants: BlockConstants) -> Rings:
    """Half rings as compiled loops read them."""
    from cryolike_dask.likelihoods.kernels.displaced_cpu import Rings

    rings = rooted[..., constants.folding.angles].transpose(0, 1)
    rings = rings * (2 / constants.folding.n_inplanes**0.5)
    cosine, sine = translation
    return Rings(
        rings.real.contiguous().numpy(),
        rings.imag.contiguous().numpy(),
        cosine.contiguous().numpy(),
        sine.contiguous().numpy(),
        constants.folding.angles.numpy(),
    )


def _series(constants: BlockConstants) -> Series:
    """Tables of the transform."""
    from cryolike_dask.likelihoods.kernels.displaced_cpu import Series

    n_inplanes, dtype = (
        constants.folding.n_inplanes,
        str(constants.weights.dtype).removeprefix("torch."),
    )
    half = plan(n_inplanes // 2, dtype)
    rows = np.argsort(half.rotations[::2] // 2)
    return Series(half.radices, half.waves, rows, plan(n_inplanes, dtype).waves)


def _expand_by_products(rooted: Tensor, constants: BlockConstants, spectra: Tensor) -> None:
    """Displace and expand by products of matrices."""
    rings = rooted[..., constants.folding.angles].permute(2, 1, 0)
    n_templates, columns = rings.shape[2], spectra.shape[3]
    n_pairs = n_templates * constants.translation[0].shape[-1]
    step = max(1, constants.piece_bytes // (len(rings) * columns * spectra.element_size()))
    # displaced rings of a few shells stay in the cache until they are transformed
    for start in range(0, rings.shape[1], step):
        n = slice(start, min(start + step, rings.shape[1]))
        shape = len(rings), n.stop - n.start, columns
        real, imaginary = (constants.scratch.take(name, *shape) for name in ("real", "imaginary"))
        for part in (real, imaginary):
            part[..., n_pairs:] = 0  # or padding might hold NaN
        displaced_real, displaced_imaginary = (
            by_templates(part, n_templates, constants) for part in (real, imaginary)
        )
        # (cosine + i sine) template, in parts: the transform takes them apart anyway
        cosine, sine = (part[:, n, None] for part in constants.translation)
        template_real, template_imaginary = rings[:, n].real[..., None], rings[:, n].imag[..., None]
        torch.mul(cosine, template_real, out=displaced_real).addcmul_(
            sine, template_imaginary, value=-1
        )
        torch.mul(cosine, template_imaginary, out=displaced_imaginary).addcmul_(sine, template_real)
        out = spectra.flatten(2)[:, :, n.start * columns : n.stop * columns]
        angular_spectra(
            real.flatten(1), imaginary.flatten(1), constants.folding, constants.scratch, out
        )
