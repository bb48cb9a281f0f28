"""Agreement with numbers that CryoLike computed, under its conventions.

The log_likelihood_integrated files of its outputs hold one constant for every image and are not
compared.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from cryolike_dask.conventions import CRYOLIKE
from cryolike_dask.geometry.displacements import DisplacementSearch
from cryolike_dask.geometry.optics import OPTICS, electron_wavelength_angstrom
from cryolike_dask.io.layout import LikelihoodFiles
from cryolike_dask.io.results import open_full_cross_correlation
from cryolike_dask.io.tensors import load_displacements, open_tensor
from cryolike_dask.likelihoods import interface
from cryolike_dask.likelihoods.kernels import contrast_transfer
from cryolike_dask.likelihoods.kernels.cross_correlation import (
    contrast_power_spectra,
    cross_terms,
    overlaps,
    template_power_spectra,
)
from cryolike_dask.stacks import ImageStack, TemplateStack, open_images, open_templates

SEARCHES = {
    "uao_gauss_paired_double": DisplacementSearch(2.0, 5, 5),
    "uao_gauss_paired_single": DisplacementSearch(2.0, 5, 5),
    "map_volume_single": DisplacementSearch(1.0, 3, 2),
}
FIRST_STACKS = [(name, 0) for name in SEARCHES]
STACKS = [*FIRST_STACKS, ("uao_gauss_paired_double", 1), ("uao_gauss_paired_single", 1)]
CORRELATION = {"double": 1e-12, "single": 1e-6}
LOG_LIKELIHOOD = {"double": 1e-9, "single": 1e-2}
LOG_LIKELIHOOD_OPTIMAL = {"double": 5e-6, "single": 1e-2}
DECIDED = 1e-5
"""Poses are compared where the best correlation exceeds the second best by this."""


@dataclass(frozen=True)
class Case:
    """One stack of one golden case."""

    folder: Path
    stack: int
    images: ImageStack
    templates: TemplateStack
    computed: dict[str, xr.Dataset] = field(default_factory=dict)

    @property
    def precision(self) -> str:
        return self.folder.name.rsplit("_", 1)[1]

    def golden(self, name: str) -> np.ndarray:
        """A number of this stack in aggregations.npz."""
        return np.load(self.folder / "outputs/aggregations.npz")[f"t0_s{self.stack}__{name}"]

    def output(self, folder: str, stem: str) -> Path:
        """A file that CryoLike's run wrote for this stack."""
        return self.folder / f"outputs/template0/{folder}/{stem}_stack_{self.stack:06d}.pt"

    def compute(self, name: str) -> xr.Dataset:
        """The result of a function of the interface, computed once."""
        if name not in self.computed:
            lazy = getattr(interface, name)(
                self.images, self.templates, conventions="cryolike", device="cpu"
            )
            self.computed[name] = lazy.compute(scheduler="sync")
        return self.computed[name]

    def gap(self, *dims: str) -> np.ndarray:
        """The best correlation less the second best, over these dims."""
        full = self.compute("compute_cross_correlation_complete").cross_correlation
        ordered = full.stack(pose=dims).transpose(..., "pose").values
        return np.diff(np.partition(ordered, -2)[..., -2:])[..., 0]


@pytest.fixture(scope="module")
def case(request, golden):
    name, stack = request.param
    inputs = golden / name / "inputs"
    files = LikelihoodFiles(inputs / "templates", inputs / "particles", inputs)
    parameters = inputs / "templates/parameters.npz"
    templates = SEARCHES[name](open_templates(files, parameters))
    return Case(golden / name, stack, open_images(files, parameters, i_stack=stack), templates)


def assert_near(found, wanted, tolerance):
    np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance)


def assert_same_poses(case, found, suffix, gap, at_least):
    """Poses agree where they are decided, and that is the case for the given part of them."""
    decided = gap > DECIDED
    assert decided.mean() >= at_least
    for name in set(found) - {"cross_correlation", "log_likelihood"}:
        wanted = case.golden(f"{suffix}__{name}_{suffix}")
        assert_near(found[name].values[decided], wanted[decided], 1e-6)


@pytest.mark.parametrize("case", STACKS, indirect=True)
def test_terms_of_the_kernels(case):
    precision, grid = CORRELATION[case.precision], case.templates.grid
    images, templates = (
        torch.from_numpy(s.data.compute(scheduler="sync")) for s in (case.images, case.templates)
    )
    optics = case.images.optics
    wavelength = electron_wavelength_angstrom(
        optics["voltage_kilovolt"], CRYOLIKE.elementary_charge
    )
    contrast = contrast_transfer(
        {name: torch.from_numpy(optics[name].copy()) for name in OPTICS.names},
        torch.from_numpy(wavelength),
        torch.from_numpy(grid.spatial_frequencies),
        torch.from_numpy(grid.angles),
        signed_astigmatism=False,
        envelope=False,
    )
    if case.stack == 0:
        assert_near(contrast[0], case.golden("ctf_image0"), 1e-12)
    weights = torch.from_numpy(np.repeat(grid.weights[:, None], grid.n_inplanes, axis=1)).to(
        images.real.dtype
    )
    mask = torch.from_numpy(grid.mask(exact=False)).to(images.dtype)
    contrast = contrast.to(images.real.dtype)
    template_power = cross_terms(
        contrast_power_spectra(contrast, weights),
        template_power_spectra(templates, weights),
        grid.n_inplanes,
    )
    assert_near(template_power, case.golden("Ixx_MSw"), precision)
    assert_near((images.abs() ** 2 * weights).sum((1, 2)), case.golden("Iyy_M"), precision)
    assert_near(
        overlaps(mask, contrast[:, None] * templates, weights),
        case.golden("Isx_MS").real,
        precision,
    )
    assert_near(overlaps(mask, images, weights), case.golden("Isy_M").real, precision)


@pytest.mark.parametrize("case", FIRST_STACKS, indirect=True)
def test_displacements(case):
    found = case.compute("compute_optimal_rotation")
    wanted = np.load(case.folder / "outputs/aggregations.npz")["displacement_grid_angstrom"]
    assert_near(np.stack([found.displacement_x, found.displacement_y]), wanted, 1e-6)
    assert_near(load_displacements(case.folder / "outputs/displacements_set.pt"), wanted, 1e-6)


@pytest.mark.parametrize("case", STACKS, indirect=True)
def test_optimal_pose(case):
    found = case.compute("compute_optimal_pose")
    tolerance = LOG_LIKELIHOOD[case.precision]
    assert_near(
        found.cross_correlation, case.golden("M__cross_correlation_M"), CORRELATION[case.precision]
    )
    assert_near(found.log_likelihood_integrated, case.golden("aggregate_ill_M"), tolerance)
    wanted = case.golden("calc_likelihood_optimal_pose_fourier")
    assert_near(found.log_likelihood_optimal, wanted, LOG_LIKELIHOOD_OPTIMAL[case.precision])
    poses = found.drop_vars(
        ["log_likelihood_integrated", "log_likelihood_optimal", "correlation_error_bound"]
    )
    assert_same_poses(
        case, poses, "M", case.gap("template", "displacement", "rotation"), at_least=0.75
    )


@pytest.mark.parametrize("case", STACKS, indirect=True)
def test_files_of_an_optimal_pose_run(case):
    found = case.compute("compute_optimal_pose")
    decided = case.gap("template", "displacement", "rotation") > DECIDED
    for name in (
        "optimal_template",
        "optimal_displacement_x",
        "optimal_displacement_y",
        "optimal_inplane_rotation",
    ):
        wanted = open_tensor(case.output("optimal_pose", name)).take()
        assert_near(found[name].values[decided], wanted[decided], 1e-6)
    wanted = open_tensor(case.output("cross_correlation", "cross_correlation")).take()
    assert_near(found.cross_correlation, wanted, CORRELATION[case.precision])
    wanted = open_tensor(case.output("log_likelihood", "log_likelihood_optimal_fourier")).take()
    assert_near(found.log_likelihood_optimal, wanted, LOG_LIKELIHOOD_OPTIMAL[case.precision])


@pytest.mark.parametrize("case", STACKS, indirect=True)
def test_optimal_displacement_and_rotation(case):
    found = case.compute("compute_optimal_displacement_and_rotation")
    assert_near(
        found.cross_correlation,
        case.golden("MS__cross_correlation_MS"),
        CORRELATION[case.precision],
    )
    assert_near(
        found.log_likelihood, case.golden("log_likelihood_ms"), LOG_LIKELIHOOD[case.precision]
    )
    assert_same_poses(case, found, "MS", case.gap("displacement", "rotation"), at_least=0.9)


@pytest.mark.parametrize("case", FIRST_STACKS, indirect=True)
def test_optimal_displacement(case):
    found = case.compute("compute_optimal_displacement")
    wanted = case.golden("MSw__cross_correlation_MSw")
    assert_near(
        found.cross_correlation.transpose("image", "template", "rotation"),
        wanted,
        CORRELATION[case.precision],
    )
    assert_same_poses(case, found, "MSw", case.gap("displacement"), at_least=0.9)


@pytest.mark.parametrize("case", FIRST_STACKS, indirect=True)
def test_optimal_rotation(case):
    found = case.compute("compute_optimal_rotation")
    assert_near(
        found.cross_correlation,
        case.golden("MSd__cross_correlation_MSd"),
        CORRELATION[case.precision],
    )
    assert_same_poses(case, found, "MSd", case.gap("rotation"), at_least=0.9)


@pytest.mark.parametrize("case", FIRST_STACKS, indirect=True)
def test_full_cross_correlation(case):
    found = case.compute("compute_cross_correlation_complete").cross_correlation
    files = LikelihoodFiles(None, None, case.folder / "outputs", n_stacks=1)
    written = open_full_cross_correlation(files).cross_correlation
    assert_near(found, written, CORRELATION[case.precision])
    for name, tolerance in (("displacement_x", 1e-5), ("displacement_y", 1e-5), ("rotation", 1e-6)):
        assert_near(found[name], written[name], tolerance)


@pytest.mark.parametrize(
    "case", [(name, 0) for name in SEARCHES if name.endswith("single")], indirect=True
)
def test_part_of_the_full_cross_correlation(case):
    found = case.compute("compute_cross_correlation_complete").cross_correlation
    assert_near(found[0, :8], case.golden("MSdw_image0_templates0to8"), CORRELATION[case.precision])


@pytest.mark.parametrize("case", STACKS, indirect=True)
def test_integral_with_the_prior_of_the_directions(case):
    """What CryoLike's log-likelihoods give once its prior is put right."""
    found = case.compute("compute_optimal_displacement_and_rotation")
    log_prior = np.log(found.viewing_weight / found.viewing_weight.sum())
    n_poses = len(case.templates.displacements) * case.templates.grid.n_inplanes
    integrated = np.logaddexp.reduce((found.log_likelihood + log_prior).values, axis=1) - np.log(
        n_poses
    )
    assert_near(integrated, case.golden("corrected_ill_M"), LOG_LIKELIHOOD[case.precision])


@pytest.mark.parametrize("case", STACKS, indirect=True)
def test_poses_that_were_rendered(case):
    """Noisy particles: most of those on the grid of the search come back to the step."""
    found = case.compute("compute_optimal_pose")
    truth = np.load(case.folder / "inputs/truth.npz")
    rows = truth["stack_position_to_truth_row"][
        slice(3, None) if case.stack else slice(len(found.image))
    ]
    x, y = truth["dx"][rows], truth["dy"][rows]
    grid = case.templates.displacements
    on_grid = np.isclose(x[:, None], grid.x_angstrom) & np.isclose(y[:, None], grid.y_angstrom)
    on_grid = on_grid.any(axis=1)
    exact = found.optimal_template.values == truth["template"][rows]
    exact &= np.isclose(found.optimal_inplane_rotation, truth["gamma"][rows])
    exact &= np.isclose(found.optimal_displacement_x, x) & np.isclose(
        found.optimal_displacement_y, y
    )
    assert exact[on_grid].mean() > 0.6
