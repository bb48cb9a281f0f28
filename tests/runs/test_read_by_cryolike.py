"""What we write, read by the rules of the program whose files they are: names, keys, types, shapes,
forms of None.

The rules are written down here once more, and nothing of the package reads what is checked.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import gemmi
import numpy as np
import pytest
import torch

import cryolike_dask as cld
from cryolike_dask.errors import InputFileError
from cryolike_dask.geometry.optics import optics_table
from cryolike_dask.io.layout import LikelihoodFiles
from cryolike_dask.io.stacks import write_image_stack
from cryolike_dask.simulation.demo import write_hinge

N, N_IMAGES, BATCH = 16, 7, 4
PARAMETERS = cld.ImageParameters(
    N, 12.0, n_inplanes=24, viewing_distance=1.5, atom_shape="gaussian"
)
NAMES = ("closed", "open")

ONE = ("voltage", "sphericalAberration", "amplitudeContrast")
"""Never more than one number in a stack."""
ONE_OR_EACH = ("ctfBfactor", "ctfScalefactor")
EACH = ("defocusU", "defocusV", "defocusAngle", "phaseShift")
POSE = ("angleRotation", "angleTilt", "anglePsi")


def entries(path):
    """The entries of an archive; empty arrays of floats are None, and nothing is pickled."""
    with np.load(path, allow_pickle=False) as archive:
        found = {key: archive[key] for key in archive.files}
    return {
        key: None if value.dtype.kind == "f" and value.size == 0 else value
        for key, value in found.items()
    }


def check_parameters(found):
    assert found["n_pixels"].dtype.kind == "i"
    assert found["n_pixels"].tolist() == [N, N]
    assert found["pixel_size"].tolist() == [12.0, 12.0]
    for key in ("radius_max", "dist_radii", "viewing_distance"):
        assert (found[key].dtype.kind, found[key].shape) == ("f", ()), key
    assert (found["n_inplanes"].dtype.kind, found["n_inplanes"].shape) == ("i", ())
    assert str(found["precision"]) in ("single", "double", "default")
    assert str(found["atom_shape"]) in ("gaussian", "hard-sphere", "default")
    assert found["use_protein_residue_model"].dtype == bool
    assert found["atom_radii"] is None or found["atom_radii"].shape == ()
    assert found["atom_selection"] is None or found["atom_selection"].dtype.kind == "U"


def check_stack(folder, k, n):
    """One image stack, all of its files; gives the entries of its `.npz`."""
    tensor = torch.load(folder / f"fft/particles_fourier_stack_{k:06d}.pt", weights_only=True)
    found = entries(folder / f"fft/particles_fourier_stack_{k:06d}.npz")
    check_parameters(found)
    n_shells = round(float((found["radius_max"] + found["dist_radii"]) / found["dist_radii"]))
    assert tensor.dtype in (torch.complex64, torch.complex128)
    assert abs(tensor.shape[1] - n_shells) <= 1
    assert tensor.shape == (n, tensor.shape[1], int(found["n_inplanes"]))
    assert (found["n_images"].shape, int(found["n_images"])) == ((), n)
    for key in EACH:
        assert (found[key].dtype.kind, found[key].shape) == ("f", (n,)), key
    for key in ONE:
        assert (found[key].dtype.kind, found[key].shape) == ("f", ()), key
    for key in ONE_OR_EACH:
        assert found[key] is None or found[key].shape in ((), (n,)), key
    for key in POSE:
        assert found[key] is None or (found[key].dtype.kind, found[key].shape) == ("f", (n,)), key
    assert found["ref_pixel_size"] is None or found["ref_pixel_size"].dtype.kind == "f"
    assert found["files"] is None or found["files"].dtype.kind == "U"
    assert found["idxs"] is None or found["idxs"].dtype.kind == "i"
    return found


def listed_templates(folder, cwd):
    """The files of the list, each name as it is, from the folder that the program was started
    in."""
    names = np.load(folder / "template_file_list.npy", allow_pickle=False)
    assert (names.dtype.kind, names.ndim) == ("U", 1)
    return [cwd / str(name) for name in names]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """All that our commands write, made from the folder of a project with relative names."""
    project, before = tmp_path_factory.mktemp("project"), Path.cwd()
    os.chdir(project)
    try:
        for name, opening in zip(NAMES, (0.0, 0.9), strict=True):
            write_hinge(Path("structures") / f"{name}.pdb", opening, n_residues=20)
        star = cld.simulate_particles(
            "structures",
            PARAMETERS,
            "relion",
            n_images=N_IMAGES,
            signal_to_noise=1.0,
            batch_size=5,
            progress=False,
        )
        cld.convert_particles(star, PARAMETERS, "out/particles", batch_size=BATCH, progress=False)
        cld.make_templates("structures", PARAMETERS, "out/templates", progress=False)
    finally:
        os.chdir(before)
    return project


def test_templates(made):
    folder = made / "out/templates"
    check_parameters(entries(folder / "parameters.npz"))
    files = listed_templates(folder, made)
    assert [file.name for file in files] == [f"templates_fourier_{name}.pt" for name in NAMES]
    for file in files:
        values = torch.load(file, weights_only=True)
        assert values.dtype == torch.complex64
        assert values.shape == (len(PARAMETERS.viewing_angles()), *PARAMETERS.grid.shape)


def test_a_symmetry_is_a_key_more(tmp_path):
    """All others are as they are without; CryoLike looks up those that it knows."""
    plain, symmetric = (tmp_path / name for name in ("plain.npz", "symmetric.npz"))
    for path, name in ((plain, "C1"), (symmetric, "D7")):
        cld.make_parameters(
            N,
            12.0,
            n_inplanes=24,
            viewing_distance=1.5,
            atom_shape="gaussian",
            symmetry=name,
            path=path,
        )
    known, found = entries(plain), entries(symmetric)
    assert str(found.pop("symmetry")) == "D7"
    check_parameters(found)
    assert {key: str(value) for key, value in found.items()} == {
        key: str(value) for key, value in known.items()
    }


@pytest.mark.parametrize("k", [0, 1])
def test_image_stacks(made, k):
    n = min(BATCH, N_IMAGES - k * BATCH)
    found = check_stack(made / "out/particles", k, n)
    assert (
        float(found["voltage"]),
        float(found["ctfBfactor"]),
        float(found["ctfScalefactor"]),
    ) == (300.0, 0.0, 1.0)
    assert np.abs(found["angleRotation"]).max() <= 2 * np.pi
    assert found["files"].shape == found["idxs"].shape == (n,)
    shells = (n, PARAMETERS.grid.n_shells)
    assert found["ringPower"].shape == found["ringOffset"].shape == shells  # keys that are ignored
    assert found["pixelVariance"].shape == (N, N)
    assert all(Path(file).is_file() for file in found["files"])
    pixels = torch.load(
        made / f"out/particles/phys/particles_phys_stack_{k:06d}.pt", weights_only=True
    )
    assert (pixels.dtype, pixels.shape) == (torch.float32, (n, N, N))


def test_simulated_particles(made):
    block = gemmi.cif.read(str(made / "relion/particles.star")).find_block("particles")
    names = [name.split("@") for name in block.find_values("_rlnImageName")]
    per_file = [
        [int(number) for number, file in names if file.endswith(f"_{k:06d}.mrcs")] for k in (0, 1)
    ]
    assert per_file == [[1, 2, 3, 4, 5], [1, 2]]
    degrees = np.array([float(value) for value in block.find_values("_rlnAngleTilt")])
    assert 3.2 < degrees.max() <= 180


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
def test_a_stack_of_which_nothing_more_is_known(tmp_path, build, dtype):
    tensor = tmp_path / "fft/particles_fourier_stack_000000.pt"
    images = build.rings(3, PARAMETERS.grid).astype(dtype)
    write_image_stack(tensor, images, build.optics(3), PARAMETERS, {"frame": None})
    found = check_stack(tmp_path, 0, 3)
    assert [
        key for key in (*POSE, "ref_pixel_size", "files", "idxs") if found[key] is not None
    ] == []
    assert "frame" not in found
    assert torch.equal(torch.load(tensor, weights_only=True), torch.from_numpy(images))


@pytest.mark.parametrize("key", [*ONE, *ONE_OR_EACH])
def test_what_differs_within_a_stack_is_written_for_each_image(tmp_path, build, key):
    column = {
        "voltage": "voltage_kilovolt",
        "sphericalAberration": "spherical_aberration_mm",
        "amplitudeContrast": "amplitude_contrast",
        "ctfBfactor": "b_factor_angstrom2",
        "ctfScalefactor": "scale",
    }[key]
    values = np.array([200.0, 300.0, 300.0]) / (1 if key == "voltage" else 1000)
    tensor = tmp_path / "fft/particles_fourier_stack_000000.pt"
    optics = build.optics(3, **{column: values})
    write_image_stack(tensor, build.rings(3, PARAMETERS.grid), optics, PARAMETERS)
    found = entries(tensor.with_suffix(".npz"))
    assert found[key].tolist() == values.tolist()
    assert [other for other in (*ONE, *ONE_OR_EACH) if found[other].shape] == [key]
    files = LikelihoodFiles(None, tmp_path, tmp_path / "out")
    assert cld.open_images(files, PARAMETERS).optics[column].tolist() == values.tolist()


def test_one_image_is_not_a_scalar(tmp_path, build):
    tensor = tmp_path / "fft/particles_fourier_stack_000000.pt"
    write_image_stack(tensor, build.rings(1, PARAMETERS.grid), build.optics(1), PARAMETERS)
    check_stack(tmp_path, 0, 1)


def test_optics_are_read_as_they_were_written(tmp_path, build):
    optics = optics_table(
        2, **{name: build.optics(2)[name] for name in build.optics(1).dtype.names}
    )
    tensor = tmp_path / "fft/particles_fourier_stack_000000.pt"
    write_image_stack(tensor, build.rings(2, PARAMETERS.grid), optics, PARAMETERS)
    files = LikelihoodFiles(None, tmp_path, tmp_path / "out")
    np.testing.assert_array_equal(cld.open_images(files, PARAMETERS).optics, optics)


# --- the list of templates, from other folders, and of a folder that was moved or copied ---


def found_from(cwd, folder, monkeypatch):
    monkeypatch.chdir(cwd)
    return [path.resolve() for path in LikelihoodFiles(folder, None, Path("o")).template_files()]


@pytest.fixture
def copy(made, tmp_path):
    """The project, to be changed."""
    return shutil.copytree(made, tmp_path / "project")


@pytest.mark.parametrize("start", ["project", "project/out", "project/out/templates", "."])
def test_templates_are_found_from_any_folder(copy, tmp_path, monkeypatch, start):
    folder = copy / "out/templates"
    wanted = [folder / f"templates_fourier_{name}.pt" for name in NAMES]
    assert found_from(tmp_path / start, folder, monkeypatch) == wanted
    assert found_from(tmp_path / start, Path(os.path.relpath(folder)), monkeypatch) == wanted


@pytest.mark.parametrize("absolute", [False, True])
def test_a_folder_of_templates_can_be_moved(copy, tmp_path, monkeypatch, absolute):
    folder = copy / "out/templates"
    if absolute:
        np.save(
            folder / "template_file_list.npy",
            [str(folder / f"templates_fourier_{name}.pt") for name in NAMES],
        )
    moved = folder.rename(tmp_path / "elsewhere")
    for start in (copy, tmp_path, moved):
        assert found_from(start, moved, monkeypatch) == [
            moved / f"templates_fourier_{name}.pt" for name in NAMES
        ]


def test_the_templates_of_a_copied_folder_are_its_own(copy, tmp_path, monkeypatch):
    copied = shutil.copytree(copy / "out/templates", tmp_path / "copied")
    assert found_from(copy, copied, monkeypatch) == [
        copied / f"templates_fourier_{name}.pt" for name in NAMES
    ]
    assert listed_templates(copied, copy)[0].is_file()
    changed = copy / "out/templates/templates_fourier_open.pt"
    torch.save(torch.load(changed, weights_only=True) * 2, changed)
    with pytest.raises(
        InputFileError,
        match=rf"is both {changed} and {copied}/templates_fourier_open\.pt, which differ",
    ):
        found_from(copy, copied, monkeypatch)
    assert len(found_from(tmp_path, copied, monkeypatch)) == 2


def test_a_missing_template_is_named_where_it_should_be(copy, tmp_path, monkeypatch):
    folder = copy / "out/templates"
    (folder / "templates_fourier_open.pt").unlink()
    with pytest.raises(
        InputFileError,
        match=rf"1 missing input file\(s\):\n  {folder}/templates_fourier_open\.pt\n",
    ):
        found_from(tmp_path, folder, monkeypatch)


def test_going_on_writes_the_same_list(copy, monkeypatch):
    monkeypatch.chdir(copy)
    folder = Path("out/templates")
    before = (folder / "template_file_list.npy").read_bytes()
    cld.make_templates("structures", PARAMETERS, folder, skip_exist=True, progress=False)
    assert (folder / "template_file_list.npy").read_bytes() == before
    other = replace(PARAMETERS, viewing_distance=1.4)
    (file,) = cld.make_templates(
        "structures/open.pdb", other, folder, overwrite=True, progress=False
    )
    assert listed_templates(folder, copy) == [copy / file]
