"""Templates and image stacks against those that CryoLike made of the same files, under its
conventions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from cryolike_dask import (
    Atoms,
    configure_displacement,
    configure_likelihood_files,
    convert_particles,
    make_templates,
    open_particles,
    open_structure,
    open_structures,
    run_likelihood_optimal_pose,
)
from cryolike_dask.io.archives import read_archive, read_list
from cryolike_dask.io.stacks import ONCE_IF_ALIKE, OPTICS_KEYS, STACK_OPTIONAL
from cryolike_dask.io.tensors import open_tensor

SEARCHES = {
    "uao_gauss_paired_double": (2.0, 5, 5),
    "uao_gauss_paired_single": (2.0, 5, 5),
    "map_volume_single": (1.0, 3, 2),
}
NOT_SAID = ("angleRotation", "angleTilt", "anglePsi", "ref_pixel_size")
"""None in CryoLike's stacks: paired STAR files name no poses."""


@dataclass(frozen=True)
class Case:
    """One golden case, and the STAR and image files that CryoLike read."""

    folder: Path
    models: Path

    @property
    def parameters(self) -> Path:
        return self.folder / "inputs/templates/parameters.npz"

    @property
    def structure(self) -> Path:
        of_map = self.folder / "inputs/toy_map.mrc"
        return of_map if of_map.is_file() else self.models / "1uao_model1_ca.pdb"

    @property
    def pairs(self) -> list[tuple[Path, Path]]:
        return [
            (star, star.with_suffix(".mrcs"))
            for star in sorted(self.folder.glob("inputs/particles/group*.star"))
        ]

    @property
    def in_double(self) -> bool:
        return self.folder.name.endswith("double")

    def templates(self) -> np.ndarray:
        (name,) = read_list(self.folder / "inputs/templates/template_file_list.npy")
        return tensor(self.folder / "inputs/templates" / name)

    def outputs(self, folder: str, stem: str) -> np.ndarray:
        """What CryoLike's run wrote, its stacks one after the other."""
        found = sorted(self.folder.glob(f"outputs/template0/{folder}/{stem}_stack_??????.pt"))
        return np.concatenate([tensor(path) for path in found])


@pytest.fixture(scope="module", params=SEARCHES)
def case(request, golden):
    return Case(golden / request.param, golden / "models")


def tensor(path):
    return open_tensor(path).take()


def largest_difference(found, wanted):
    assert found.shape == wanted.shape
    assert found.dtype == wanted.dtype
    difference = np.abs(found - wanted).max()
    print(f"largest difference {difference:.1e}")
    return difference


def test_templates_of_a_structure_file(case, tmp_path):
    (made,) = make_templates(
        case.structure, case.parameters, tmp_path, conventions="cryolike", progress=False
    )
    # The PDB file has three decimals of angstrom. Measured: 3.6e-8 in double precision, 1.5e-7
    # (map) and 3.0e-7 in
    # single, whose rounding is 6e-8 of values up to 0.76.
    assert largest_difference(tensor(made), case.templates()) < (1.5e-7 if case.in_double else 1e-6)


def test_template_files_are_those_that_cryolike_looks_for(case, tmp_path):
    (made,) = make_templates(
        case.structure, case.parameters, tmp_path, conventions="cryolike", progress=False
    )
    assert made == tmp_path / f"templates_fourier_{case.structure.stem}.pt"
    listed = np.load(tmp_path / "template_file_list.npy", allow_pickle=False)
    assert listed.dtype.kind == "U"
    assert listed.tolist() == [str(made)]
    assert torch.load(made, weights_only=True).shape == case.templates().shape
    theirs, ours = (
        read_archive(p, optional=("atom_radii", "atom_selection"))
        for p in (case.parameters, tmp_path / "parameters.npz")
    )
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        np.testing.assert_array_equal(ours[key], value, err_msg=key)


@pytest.mark.parametrize("precision", ["double", "single"])
def test_templates_of_coordinates_in_memory(precision, golden):
    case = Case(golden / f"uao_gauss_paired_{precision}", golden / "models")
    with np.load(golden / "models/1uao.npz") as model:
        positions, radii = (
            model[k].astype(np.float64) for k in ("centered_ca_xyz_angstrom", "residue_radii")
        )
    atoms = Atoms(positions, np.ones(len(radii)), radii)
    opened = open_structure(atoms, case.parameters, conventions="cryolike")
    # CryoLike keeps positions and viewing angles in single precision. Measured: 2.5e-8 and 3.0e-7.
    found = opened.data.compute(scheduler="synchronous")
    assert largest_difference(found, case.templates()) < (1e-7 if precision == "double" else 1e-6)


@pytest.fixture(scope="module")
def converted(case, tmp_path_factory):
    """Each STAR file as a set of its own, as CryoLike does: one stack per folder."""
    folders = [tmp_path_factory.mktemp("particles") for _ in case.pairs]
    for folder, (star, images) in zip(folders, case.pairs, strict=True):
        convert_particles(
            star, case.parameters, folder, images=images, conventions="cryolike", progress=False
        )
    return folders


def test_image_stacks(case, converted):
    for k, folder in enumerate(converted):
        found = tensor(folder / "fft/particles_fourier_stack_000000.pt")
        wanted = tensor(case.folder / f"inputs/particles/fft/particles_fourier_stack_{k:06d}.pt")
        # CryoLike transforms pixels that it has scaled in single precision. Measured: 8.1e-7 to
        # 1.2e-6.
        assert largest_difference(found, wanted) < 2e-6
        found = tensor(folder / "phys/particles_phys_stack_000000.pt")
        wanted = tensor(case.folder / f"inputs/particles/phys/particles_phys_stack_{k:06d}.pt")
        # measured: 9e-8 to 1.8e-7, three roundings of values up to 1
        assert largest_difference(found, wanted) < 3e-7


def test_metadata_of_image_stacks(case, converted):
    for k, folder in enumerate(converted):
        path = folder / "fft/particles_fourier_stack_000000.npz"
        theirs = read_archive(
            case.folder / f"inputs/particles/fft/particles_fourier_stack_{k:06d}.npz",
            optional=STACK_OPTIONAL,
        )
        ours = read_archive(path, optional=STACK_OPTIONAL)
        assert "frame" not in ours
        assert set(theirs) - set(ours) == {"stack_start", "stack_end"}
        n = int(theirs["n_images"])
        for key in (*OPTICS_KEYS, "ctfBfactor", "ctfScalefactor", "n_images"):
            wanted, found = np.broadcast_to(theirs[key], n), np.broadcast_to(ours[key], n)
            np.testing.assert_allclose(found, wanted, rtol=1e-14, err_msg=key)
        for key in ONCE_IF_ALIKE:
            assert np.shape(ours[key]) == (), key
        assert [key for key in NOT_SAID if theirs[key] is not None or ours[key] is not None] == []
        with np.load(path, allow_pickle=False) as plain:
            assert all(plain[key].size == 0 for key in NOT_SAID)
            assert not any(plain[key].dtype.hasobject for key in plain)


def test_likelihood_of_our_own_inputs(case, tmp_path):
    """From a structure and particles to correlations: through files, and lazily."""
    stars, images = zip(*case.pairs, strict=True)
    search = configure_displacement(*SEARCHES[case.folder.name])
    settings = {"conventions": "cryolike", "progress": False}
    make_templates(case.structure, case.parameters, tmp_path / "templates", **settings)
    convert_particles(
        stars, case.parameters, tmp_path / "particles", images=images, batch_size=4, **settings
    )
    files = configure_likelihood_files(
        tmp_path / "templates", tmp_path / "particles", tmp_path / "likelihood"
    )
    through_files = run_likelihood_optimal_pose(
        files, case.parameters, search, **settings, noise="white"
    ).compute()

    wanted = case.outputs("cross_correlation", "cross_correlation")
    # Measured: 2.1e-8 in double precision, 1.8e-7 and 1.2e-7 (map) in single, of which the rounding
    # alone is 6e-8. The
    # log-likelihood at the optimal pose: 1.0e-5 nat; 7.3e-4 and 1.2e-4 (map), float32 being 2.4e-4
    # apart at 4000 nat.
    assert largest_difference(through_files.cross_correlation.values, wanted) < 2e-6
    wanted = case.outputs("log_likelihood", "log_likelihood_optimal_fourier")
    assert largest_difference(through_files.log_likelihood_optimal.values, wanted) < (
        4e-5 if case.in_double else 2e-3
    )

    lazily = run_likelihood_optimal_pose(
        configure_likelihood_files(None, None, tmp_path / "lazy"),
        case.parameters,
        search,
        images=open_particles(
            stars, case.parameters, images=images, batch_size=3, conventions="cryolike"
        ),
        templates=open_structures(case.structure, case.parameters, conventions="cryolike"),
        **settings,
        noise="white",
    ).compute()
    for name in through_files.data_vars:  # measured: two roundings at most, 1.2e-7 and 4.9e-4 nat
        tolerance = 2e-3 if name.startswith("log_likelihood") else 1e-6
        np.testing.assert_allclose(
            lazily[name], through_files[name], rtol=0, atol=tolerance, err_msg=name
        )
