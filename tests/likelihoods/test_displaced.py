"""Displaced templates: compiled loops against definitions, coefficients from some of the shells,
and what they leave out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from cryolike_dask.likelihoods.graph import ComparisonGraph
from cryolike_dask.likelihoods.kernels import displaced
from cryolike_dask.likelihoods.kernels.displaced import (
    MARGIN,
    MEASURED,
    compressed_templates,
    displaced_spectra,
    left_out,
    measured_displacements,
    spectra_memory,
)
from cryolike_dask.likelihoods.kernels.radial_basis import AMPLIFIED, enough_shells
from cryolike_dask.likelihoods.reading import read_templates
from cryolike_dask.likelihoods.settings import Settings
from cryolike_dask.likelihoods.setup import find_basis, make_constants

ROUNDING = {"single": 1e-6, "double": 1e-14}


def prepared(build, precision="double", tolerance=0.0, **options):
    """Constants of a comparison with its basis, and rooted half rings of its templates."""
    images, templates = build.stacks(**{"n_images": 1, "n_templates": 3, **options})
    settings = Settings(device="cpu", precision=precision, tolerance=tolerance)
    comparison = ComparisonGraph(images, templates, settings).comparison
    constants = make_constants(comparison, torch.device("cpu"), find_basis(comparison))
    (values,) = read_templates([np.arange(len(templates))], comparison, constants)
    n = values.shape[-1] // 2
    return constants, values[..., :n] * constants.weights[:, :n].sqrt()


def expected_spectra(rooted, constants):
    """By definition: complex (q, shell, column)."""
    rings = torch.cat([rooted, rooted.conj()], -1).to(torch.complex128)
    moved = rings[:, None] * constants.translation_factors.to(torch.complex128)
    spectra = np.fft.fft(moved.numpy(), norm="ortho")[..., : rooted.shape[-1] + 1]
    return spectra.transpose(3, 2, 0, 1).reshape(*spectra.shape[:1:-1], -1)


@pytest.mark.parametrize("precision", ["single", "double"])
@pytest.mark.parametrize("n_inplanes", [4, 8, 12, 24, 44, 60, 64])
def test_loops_against_the_definition(build, n_inplanes, precision):
    """Columns of several chunks, in which templates begin anywhere; odd radices."""
    options = {"n_pixels": 12, "n_inplanes": n_inplanes, "search": (2.0, 8, 6)}
    constants, rooted = prepared(build, precision, **options)
    columns = 3 * constants.translation[0].shape[2]
    padded = -(-columns // 16) * 16
    spectra_memory(constants, padded).fill_(torch.nan)
    found = displaced_spectra(rooted, constants)
    assert found.shape[-1] == padded
    assert (found[..., columns:] == 0).all()
    parts, wanted = found.numpy(), expected_spectra(rooted, constants)
    np.testing.assert_allclose(
        parts[:, 0, :, :columns] + 1j * parts[:, 1, :, :columns],
        wanted,
        rtol=0,
        atol=ROUNDING[precision] * abs(wanted).max(),
    )


def test_products_of_matrices_give_the_same(build, monkeypatch):
    """As on GPUs, and where the number of rotations is not divisible by four."""
    constants, rooted = prepared(
        build, tolerance=1e-3, n_pixels=12, n_inplanes=24, search=(2.0, 8, 6)
    )
    by_loops = displaced_spectra(rooted, constants).clone()
    coefficients = tuple(compressed_templates(rooted, constants))
    lost = left_out(rooted, constants)
    monkeypatch.setattr(displaced, "_in_loops", lambda constants: False)
    by_products = displaced_spectra(rooted, constants)
    torch.testing.assert_close(by_products, by_loops, rtol=0, atol=1e-13 * float(by_loops.max()))
    projected = tuple(compressed_templates(rooted, constants))
    least = left_out(rooted, constants)
    assert (lost >= least * (1 - 1e-12)).all()
    twice = constants.folding.multiplicity
    changed, first = 0.0, 0
    for a, b in zip(coefficients, projected, strict=True):
        assert a.shape == b.shape
        changed += twice[first : first + len(a)] @ (a - b).square().sum((1, 2))
        first += len(a)
    # what projections leave out and what coefficients add to it are orthogonal
    most = changed.view(-1)[: 3 * constants.translation[0].shape[2]].view(3, -1).amax(1).sqrt()
    assert (most <= AMPLIFIED * least).all()


@pytest.mark.parametrize("precision", ["single", "double"])
def test_coefficients_are_a_fit_to_some_shells(build, precision):
    constants, rooted = prepared(
        build, precision, 1e-2, n_templates=4, n_pixels=16, n_inplanes=32, search=(2.0, 9, 5)
    )
    few, columns = constants.few_shells, 4 * constants.translation[0].shape[2]
    spectra = expected_spectra(rooted, constants)
    found = [part for group in compressed_templates(rooted, constants) for part in group]
    basis = [vectors for group in constants.basis for vectors in group[::2].double().numpy()]
    used = (few.matrices[0] != 0).any(0).any(0)
    shells = few.shells[used].numpy()
    assert len(set(shells)) == len(shells) < constants.weights.shape[0]
    for q, (vectors, (real, imaginary)) in enumerate(zip(basis, found, strict=True)):
        wanted = np.linalg.lstsq(vectors[:, shells].T, spectra[q, shells], rcond=None)[0]
        np.testing.assert_allclose(
            (real + 1j * imaginary)[:, :columns],
            wanted,
            rtol=0,
            atol=AMPLIFIED * ROUNDING[precision] * abs(spectra).max() * 10,
        )


def test_threads_change_nothing(build):
    constants, rooted = prepared(
        build, "single", 1e-3, n_pixels=12, n_inplanes=24, search=(2.0, 8, 6)
    )
    n_threads, found = torch.get_num_threads(), []
    try:
        for n in 1, 2, 40:  # more than shells
            torch.set_num_threads(n)
            found.append(compressed_templates(rooted, constants))
    finally:
        torch.set_num_threads(n_threads)
    for alone, *shared in zip(*found, strict=True):
        for of_threads in shared:
            assert torch.equal(of_threads, alone)


def test_shells_are_enough(rng):
    """Functions of small bandwidth at many shells: few are taken, and errors are not amplified by
    more than is said."""
    k = np.linspace(0, 1, 60)
    functions = np.cos(np.pi * np.outer(np.arange(14) + rng.uniform(0, 0.5), k))
    groups = [np.linalg.qr(functions[first : first + n].T)[0].T for first, n in ((0, 9), (2, 12))]
    basis = tuple(torch.from_numpy(np.stack([group, group])) for group in groups)
    shells, matrices = enough_shells(basis)
    assert len(shells) == len(shells.unique()) < 40
    for group, matrix in zip(basis, matrices, strict=True):
        unit = torch.eye(group.shape[1], dtype=torch.float64).expand(2, -1, -1)
        torch.testing.assert_close(matrix @ group[..., shells].mT, unit, rtol=0, atol=1e-10)
        assert float(torch.linalg.matrix_norm(matrix, 2).max()) <= AMPLIFIED
    # all shells are projections
    complete, matrices = enough_shells((torch.eye(7, dtype=torch.float64)[None],))
    assert complete.tolist() == [*range(7), 0]
    torch.testing.assert_close(matrices[0][0, :, :7], torch.eye(7, dtype=torch.float64))
    assert (matrices[0][..., 7] == 0).all()


@pytest.mark.parametrize("tolerance", [1e-1, 1e-4])
def test_what_is_left_out_anywhere_is_less_than_is_said(build, rng, tolerance):
    """Templates of the stack, the same moved from the middle, and noise, which no basis fits:
    measured at some displacements, and at all."""
    constants, rooted = prepared(
        build, "double", tolerance, n_templates=6, n_pixels=16, n_inplanes=32, search=(2.5, 9, 8)
    )
    moved = constants.translation[0][..., -1], constants.translation[1][..., -1]
    back = torch.complex(*moved)[constants.folding.angles.argsort()].T
    noise = torch.from_numpy(rng.standard_normal((2, *rooted.shape)))
    some = torch.cat([rooted, rooted * back, torch.complex(*noise)])
    everywhere = replace(constants, measured=torch.arange(constants.translation[0].shape[2]))
    said, most = left_out(some, constants), left_out(some, everywhere)
    assert len(constants.measured) == MEASURED < len(everywhere.measured)
    assert (most > 0).all()
    assert (most <= said).all()
    assert (said <= MARGIN * most * (1 + 1e-12)).all()


def test_displacements_that_are_measured(rng):
    x, y = (part.ravel() for part in np.meshgrid(np.arange(-4, 5), np.arange(-3, 4)))
    some = measured_displacements(x, y)
    assert len(set(some)) == len(some) == MEASURED
    for corner in [(-4, -3), (4, -3), (-4, 3), (4, 3)]:
        assert corner in set(zip(x[some], y[some], strict=True))
    few = rng.standard_normal((2, MEASURED))
    assert measured_displacements(*few).tolist() == list(range(MEASURED))
    same = measured_displacements(np.zeros(50), np.zeros(50))
    assert len(set(same)) == len(same)
