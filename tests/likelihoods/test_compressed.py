"""The compressed kernel against the same comparison without compression, and its parts against
definitions."""

from __future__ import annotations

import dask
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from cryolike_dask.geometry.displacements import DisplacementGrid
from cryolike_dask.likelihoods import interface
from cryolike_dask.likelihoods.graph import ComparisonGraph, image_rows
from cryolike_dask.likelihoods.kernels.compressed import (
    correlate,
    prepare_images,
    prepare_templates,
)
from cryolike_dask.likelihoods.kernels.radial_basis import AMPLIFIED, radial_basis
from cryolike_dask.likelihoods.kernels.rotations import Scratch, angular_spectra, fold, rotate
from cryolike_dask.likelihoods.reading import read_images, read_templates
from cryolike_dask.likelihoods.settings import Settings
from cryolike_dask.likelihoods.setup import find_basis, make_constants

CPU = torch.device("cpu")
ROUNDING = {"single": 2e-6, "double": 1e-12}


def computed(name, images, templates, **options):
    lazy = getattr(interface, f"compute_{name}")(images, templates, **{"device": "cpu", **options})
    return lazy.compute(scheduler="sync")


def complete(images, templates, **options):
    return computed(
        "cross_correlation_complete", images, templates, **options
    ).cross_correlation.values.astype("f8")


# The series over rings


@pytest.mark.parametrize("n_inplanes", [2, 4, 6, 8, 10, 12, 14, 16, 30, 32])
def test_series_over_rings_both_ways(rng, n_inplanes):
    """Against the FFT of whole rings, and against the sum over angles."""
    folding = fold(n_inplanes, torch.float64, CPU)
    scratch = Scratch(torch.empty(0, dtype=torch.float64))
    assert sorted(folding.rotations.flatten().tolist()) == list(range(n_inplanes))
    half = rng.standard_normal((2, 7, n_inplanes // 2)) + 1j * rng.standard_normal(
        (2, 7, n_inplanes // 2)
    )
    a, b = rings = np.concatenate([half, half.conj()], axis=2)
    wanted = (
        np.fft.fft(rings, norm="ortho")[..., : n_inplanes // 2 + 1]
        .transpose(2, 0, 1)
        .reshape(-1, 14)
    )
    ordered = torch.from_numpy(half)[..., folding.angles].permute(2, 0, 1).flatten(1)
    spectra = torch.empty(len(wanted), 2, 14, dtype=torch.float64)
    angular_spectra(ordered.real.contiguous(), ordered.imag.contiguous(), folding, scratch, spectra)
    np.testing.assert_allclose(spectra[:, 0] + 1j * spectra[:, 1], wanted, rtol=0, atol=1e-13)
    products = (np.fft.fft(a, norm="ortho").conj() * np.fft.fft(b, norm="ortho"))[
        :, : n_inplanes // 2 + 1
    ].T
    found = rotate(
        torch.from_numpy(np.stack([products.real, products.imag], axis=1)), folding, scratch
    )
    sums = np.stack([(a.conj() * np.roll(b, -w, axis=1)).sum(1).real for w in range(n_inplanes)])
    np.testing.assert_allclose(found, sums[folding.rotations], rtol=0, atol=1e-12)


# The basis


def test_basis_is_orthonormal_and_leaves_out_what_it_may(rng):
    """Moments of a known spectrum of powers: directions are kept from the largest on, over all q
    together."""
    n_q, n_shells = 7, 9
    powers = 10.0 ** -rng.uniform(0, 8, (n_q, n_shells))
    directions = np.linalg.qr(rng.standard_normal((n_q, n_shells, n_shells)))[0]
    moments = torch.from_numpy(np.einsum("qnk,qk,qmk->qnm", directions, powers, directions))
    twice = torch.tensor([1.0] + [2.0] * (n_q - 2) + [1.0], dtype=torch.float64)
    for tolerance in (0.3, 1e-2, 1e-3):
        groups = radial_basis(moments, twice, tolerance)
        basis = [vectors for group in groups for vectors in group]
        assert len(basis) == n_q
        for vectors in basis:
            np.testing.assert_allclose(
                vectors @ vectors.T, np.eye(len(vectors)), rtol=0, atol=1e-12
            )
        kept = [np.trace(v @ m @ v.T) for v, m in zip(basis, moments.numpy(), strict=True)]
        lost = (twice.numpy() * (powers.sum(1) - kept)).sum() / (
            twice.numpy() * powers.sum(1)
        ).sum()
        assert -1e-12 <= lost <= tolerance**2
    assert sum(map(len, basis)) > sum(
        len(v) for group in radial_basis(moments, twice, 0.3) for v in group
    )


def test_basis_does_not_depend_on_chunks_and_is_made_once(build):
    images, templates = build.stacks()
    lazy = {
        n: interface.compute_optimal_pose(
            images.chunk(n), templates.chunk(n), device="cpu", precision="single"
        )
        for n in (1, 3)
    }
    made = []
    for dataset in lazy.values():
        keys = [str(key) for key in dict(dataset.__dask_graph__()) if "radial-basis" in str(key)]
        assert len(keys) == 1
        made.append(keys[0])
    assert made[0] == made[1]
    first, second = (found.compute(scheduler="sync") for found in lazy.values())
    np.testing.assert_allclose(first.cross_correlation, second.cross_correlation, rtol=0, atol=1e-6)
    np.testing.assert_allclose(
        first.log_likelihood_integrated, second.log_likelihood_integrated, rtol=0, atol=1e-3
    )


def test_without_tolerance_there_is_no_basis(build):
    images, templates = build.stacks()
    for options in ({"tolerance": 0}, {"precision": "double"}):
        lazy = interface.compute_optimal_pose(images, templates, device="cpu", **options)
        assert not [key for key in dict(lazy.__dask_graph__()) if "radial-basis" in str(key)]


@pytest.mark.parametrize("tolerance", [-1e-3, 1, 1.5, float("nan"), "1e-6", True])
def test_tolerances_that_are_none(build, tolerance):
    with pytest.raises(
        interface.InputError,
        match=f"tolerance='?{tolerance}'? is not a (number|part of 1)",
    ):
        interface.compute_optimal_pose(*build.stacks(), tolerance=tolerance)


# The whole kernel


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
@seed(0)
def test_compression_changes_no_more_than_it_says(build, data):
    """Random sizes, optics, searches and tolerances: correlations within the bound, poses where
    they are decided."""
    n_inplanes = data.draw(st.sampled_from([10, 12, 14, 20, 22, 32]), "rotations")
    side = data.draw(st.integers(1, 3), "displacements along x")
    isotropic = data.draw(st.booleans(), "isotropic")
    conventions = data.draw(st.sampled_from(["standard", "cryolike"]))
    precision = data.draw(st.sampled_from(["single", "double"]), "precision")
    tolerance = data.draw(st.sampled_from([0.0, 1e-6, 1e-3, 1e-2, 0.1]), "tolerance")
    optics = {"defocus_u_angstrom": 9000.0, "defocus_v_angstrom": 9000.0} if isotropic else {}
    images, templates = build.stacks(
        data.draw(st.integers(1, 4)),
        data.draw(st.integers(1, 5)),
        n_pixels=data.draw(st.sampled_from([8, 12, 16])),
        n_inplanes=n_inplanes,
        search=(1.5, side, data.draw(st.integers(1, 3))),
        **optics,
    )
    exact = complete(images, templates, conventions=conventions, precision="double", tolerance=0)
    options = {"conventions": conventions, "precision": precision, "tolerance": tolerance}
    found = computed("optimal_pose", images, templates, **options)
    allowed = found.correlation_error_bound.values + ROUNDING[precision]
    assert (allowed == ROUNDING[precision]).all() or tolerance > 0
    changes = np.abs(complete(images, templates, **options) - exact).max((1, 2, 3))
    assert (changes <= allowed).all()
    flat = exact.reshape(len(exact), -1)
    ordered = np.sort(flat, axis=1)
    s, d, w = np.unravel_index(flat.argmax(1), exact.shape[1:])
    decided = (
        np.ones(len(flat), bool)
        if flat.shape[1] == 1
        else ordered[:, -1] - ordered[:, -2] > 2 * allowed
    )
    np.testing.assert_array_equal(found.optimal_template.values[decided], s[decided])
    at = templates.displacements.table()[:, d[decided]]
    np.testing.assert_allclose(
        found.optimal_displacement_x.values[decided], at[0], rtol=0, atol=1e-5
    )
    np.testing.assert_allclose(
        found.optimal_displacement_y.values[decided], at[1], rtol=0, atol=1e-5
    )
    turned = templates.grid.angles[w[decided]]
    np.testing.assert_allclose(
        found.optimal_inplane_rotation.values[decided], turned, rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("conventions", ["standard", "cryolike"])
@pytest.mark.parametrize("noise", [0.3, 1.0, 30.0])
def test_integral_leaves_out_nothing_that_counts(build, conventions, noise):
    """Summed within reach only, and summed over every pose of every pair: strong and weak
    images."""
    images, templates = build.stacks(
        6, 9, n_pixels=16, n_inplanes=28, search=(2.0, 4, 3), noise=noise
    )
    for precision, tolerance in (("double", 1e-9), ("single", 2e-3)):
        options = {"conventions": conventions, "precision": precision, "tolerance": 0}
        found = computed("optimal_pose", images, templates.chunk(4), **options)
        pairs = computed(
            "optimal_displacement_and_rotation",
            images,
            templates,
            **{**options, "precision": "double"},
        )
        weight = templates.viewing.weight
        prior = np.log(weight / weight.sum()) if conventions == "standard" else weight
        prior = prior - np.log(len(templates.displacements) * templates.grid.n_inplanes)
        wanted = np.logaddexp.reduce(pairs.log_likelihood.values + prior, axis=1)
        np.testing.assert_allclose(found.log_likelihood_integrated, wanted, rtol=0, atol=tolerance)


def test_series_for_weak_images_is_exact_to_rounding(build):
    """Noise in a larger box: squared correlations are small, and the sum is over a series in
    single precision."""
    images, templates = build.stacks(
        4, 3, n_pixels=64, n_inplanes=64, search=(2.0, 3, 3), noise=300.0
    )
    single, double = (
        computed("optimal_displacement_and_rotation", images, templates, precision=precision)
        for precision in ("single", "double")
    )
    assert (double.cross_correlation**2 < 0.01).all()
    np.testing.assert_allclose(single.log_likelihood, double.log_likelihood, rtol=0, atol=1e-3)


def coefficients_of(terms, n_columns):
    """Coefficients of displaced templates at each angular frequency: complex (rank, column)."""
    parts = [part[..., :n_columns].numpy() for group in terms.spectra for part in group]
    return [part[: len(part) // 2] + 1j * part[len(part) // 2 :] for part in parts]


def left_out_of(values, constants, basis, coefficients=None):
    """Power of displaced templates less what their coefficients stand for, those by projection if
    none are given: (template, displacement)."""
    spectra = torch.fft.fft(
        values[:, None] * constants.translation_factors * constants.weights.sqrt(), norm="ortho"
    ).numpy()
    lost, n_inplanes = np.zeros(spectra.shape[:2]), spectra.shape[-1]
    for q, vectors in enumerate(v for group in basis for v in group):
        of_q = spectra[..., q]
        found = of_q @ vectors.T
        if coefficients is not None:
            found = coefficients[q].T.reshape(found.shape)
        rest = of_q - found @ vectors
        lost += (1 if q in (0, n_inplanes // 2) else 2) * (abs(rest) ** 2).sum(-1)
    return lost


def test_what_is_lost_of_a_template_is_measured(build):
    """Against displaced templates, less what their coefficients stand for, in double precision;
    beside their projections on the basis."""
    images, templates = build.stacks(2, 4, n_pixels=16, n_inplanes=24, search=(2.0, 3, 3))
    comparison = ComparisonGraph(
        images, templates, Settings(device="cpu", precision="double", tolerance=0.05)
    ).comparison
    basis = find_basis(comparison)
    constants = make_constants(comparison, CPU, basis)
    (values,) = read_templates([np.arange(4)], comparison, constants)
    terms = prepare_templates(values, constants)
    lost, least = (
        np.sqrt(left_out_of(values, constants, basis, given).max(1))
        for given in (coefficients_of(terms, 36), None)
    )
    np.testing.assert_allclose(terms.lost, lost, rtol=1e-9)
    assert (least > 1e-3).all()
    assert (lost >= least).all()
    assert (lost <= np.hypot(1, AMPLIFIED) * least).all()
    tile = correlate(
        prepare_images(
            read_images(image_rows(images, comparison.conventions), comparison, constants),
            constants,
        ),
        terms,
        constants,
    )
    assert (tile.error_bound > 0).all()


def test_tasks_are_given_the_basis_and_no_data(build):
    """The graph carries neither stacks nor bases; the basis is a task that each block waits for."""
    images, templates = build.stacks()
    lazy = interface.compute_optimal_pose(
        images.chunk(2), templates.chunk(3), device="cpu", precision="single"
    )
    graph = dict(lazy.__dask_graph__())
    (basis,) = [key for key in graph if "radial-basis" in str(key)]
    blocks = [key for key in graph if str(key).startswith("('optimal-pose-block")]
    dependencies = dask.core.get_dependencies
    assert len(blocks) == 9
    assert all(basis in dependencies(graph, key) for key in blocks)


def test_one_displacement_at_rest(build):
    """A search that is only (0, 0)."""
    images, templates = build.stacks(3, 4, search=(0.0, 1, 1))
    assert isinstance(templates.displacements, DisplacementGrid)
    assert len(templates.displacements) == 1
    exact = complete(images, templates, precision="double")
    found = complete(images, templates, precision="single")
    np.testing.assert_allclose(found, exact, rtol=0, atol=2e-6)
