"""Structures that have the symmetry that their views are reduced by, and those that have not."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import replace

import gemmi
import mrcfile
import numpy as np
import pytest

import cryolike_dask as cld
from cryolike_dask import Atoms, ImageParameters, Volume, asymmetric_unit, healpix_grid
from cryolike_dask.analysis.pose_errors import direction_errors_degree
from cryolike_dask.analysis.summaries import summarise_results
from cryolike_dask.conventions import STANDARD
from cryolike_dask.errors import InputError, InputFileError
from cryolike_dask.geometry.polar_grid import PolarGrid
from cryolike_dask.geometry.symmetry import point_group
from cryolike_dask.geometry.viewing_angles import viewing_grid
from cryolike_dask.io.archives import read_archive
from cryolike_dask.io.parameters import read_parameters
from cryolike_dask.stacks import open_template_file
from cryolike_dask.structures.making import make_templates
from cryolike_dask.structures.opening import open_structure
from cryolike_dask.structures.symmetric import MOST, asymmetry, shared_symmetry
from tests.commands import in_process, worked

GRID = PolarGrid(24, 4.0, 6.0, 48)
PARAMETERS = ImageParameters(24, 4.0, n_inplanes=48, viewing_distance=0.5, symmetry="C4")
NAMES = ("C4", "D3", "T", "O", "I1", "I3")


def assembly(name, rng):
    """Places of a few atoms and all of their images: of one, farther out, where they are 60."""
    atoms = rng.normal(0, 6, (6, 3)) + np.array([12.0, 6.0, 9.0])
    if name[0] == "I":
        atoms = rng.normal(0, 2, (1, 3)) + np.array([26.0, 13.0, 20.0])
    return point_group(name).images(atoms).reshape(-1, 3)


def gaussians(places, radius=3.0):
    return Atoms(places, np.full(len(places), 40.0), np.full(len(places), radius))


def projections(places):
    return open_structure(gaussians(places), replace(PARAMETERS, symmetry="C1")).source


def pdb(path, places):
    """C-alpha atoms of leucines at these places."""
    structure, model, chain = gemmi.Structure(), gemmi.Model(1), gemmi.Chain("A")
    for number, place in enumerate(places, start=1):
        residue, atom = gemmi.Residue(), gemmi.Atom()
        residue.name, residue.seqid = "LEU", gemmi.SeqId(str(number))
        atom.name, atom.element, atom.pos = "CA", gemmi.Element("C"), gemmi.Position(*place)
        residue.add_atom(atom)
        chain.add_residue(residue)
    model.add_chain(chain)
    structure.add_model(model)
    path.parent.mkdir(exist_ok=True)
    structure.write_pdb(str(path))
    return path


@pytest.mark.parametrize("name", NAMES)
def test_assemblies_have_their_symmetry(rng, name):
    """Wherever they are; it falls as atoms move, and is large about another axis."""
    group, places = point_group(name), assembly(name, rng)
    found = asymmetry(gaussians(places + rng.normal(0, 50, 3)), GRID, group, STANDARD)
    assert found < 1e-9
    moved = [places + s * rng.normal(size=places.shape) for s in (0.1, 1.0)]
    little, much = (asymmetry(gaussians(p), GRID, group, STANDARD) for p in moved)
    assert 0.001 < little < MOST < much
    turn = point_group("C3").rotations[1] @ point_group("T").generators[1]
    tilted = places @ (turn @ np.array([[0.8, 0.0, 0.6], [0.0, 1.0, 0.0], [-0.6, 0.0, 0.8]])).T
    assert asymmetry(gaussians(tilted), GRID, group, STANDARD) > MOST


@pytest.mark.parametrize("name", ["C1", "C2", "C4", "D2", "D3", "T", "O", "I1", "I2", "I3", "I4"])
def test_the_symmetry_that_structures_have_is_found(name):
    """The largest, in the setting that they have; here and there atoms that lie by chance as a ring
    look round at this resolution, so these are always the same."""
    rng = np.random.default_rng(1)
    places = rng.normal(0, 6, (6, 3)) if name == "C1" else assembly(name, rng)
    assert shared_symmetry([projections(places)]) == name


def test_several_structures_share_what_all_of_them_have(rng):
    four, two, none = assembly("C4", rng), assembly("D2", rng), rng.normal(0, 9, (9, 3))
    assert shared_symmetry([projections(four), projections(two)]) == "C2"
    assert shared_symmetry([projections(four), projections(none)]) == "C1"
    assert shared_symmetry([projections(np.zeros((1, 3)))]) == "C1"  # a ball
    assert shared_symmetry([projections(four[:, [2, 0, 1]])]) == "C1"  # the axis on x


@pytest.mark.parametrize("size", [24, 25])
def test_maps_turn_about_voxel_n_over_2(rng, size):
    """A map of C4 about that voxel; moved by a voxel, it is none."""
    values = np.zeros((size,) * 3)
    half, place = size // 2, rng.integers(-6, 7, (12, 3)) * [1, 1, 1]
    for x, y, z in place:
        for u, v in ((x, y), (-y, x), (-x, -y), (y, -x)):
            values[half + z, half + v, half + u] += 1
    voxels = (4.0, 4.0, 4.0)
    assert asymmetry(Volume(values, voxels), GRID, point_group("C4"), STANDARD) < 1e-6
    assert asymmetry(Volume(np.roll(values, 1, 2), voxels), GRID, point_group("C4"), STANDARD) > 0.1
    on_x = Volume(np.ascontiguousarray(values.transpose(2, 1, 0)), voxels)
    assert asymmetry(on_x, GRID, point_group("C4"), STANDARD) > 0.1


def test_templates_of_a_symmetric_structure(tmp_path, rng, caplog):
    """Fewer of them; the number is said; files say of which unit they are."""
    file = pdb(tmp_path / "tetramer.pdb", assembly("C4", rng))
    caplog.set_level(logging.INFO)
    (made,) = make_templates(file, PARAMETERS, tmp_path / "templates", progress=False)
    said = re.search(r"tetramer: has the symmetry C4: .* differ by (\S+) of their", caplog.text)
    assert float(said[1]) < 1e-3  # places in the file have three decimals
    templates = open_template_file(made, PARAMETERS)
    unit = PARAMETERS.viewing_angles()
    assert templates.viewing.symmetry == unit.symmetry == "C4"
    np.testing.assert_array_equal(templates.viewing.azimuth, unit.azimuth)
    np.testing.assert_array_equal(templates.viewing.weight, unit.weight)
    whole = len(viewing_grid(PARAMETERS.viewing_distance))
    assert len(templates) == pytest.approx(whole / 4, rel=0.15)
    assert read_parameters(tmp_path / "templates" / "parameters.npz") == PARAMETERS
    side = read_archive(made.with_suffix(".npz"), optional=())
    assert str(side["symmetry"]) == "C4"
    described = json.loads(str(side["source"]))
    assert any(item["name"] == "viewing directions" for item in described)


def test_files_without_symmetry_stay_what_they_were(tmp_path, rng):
    file = pdb(tmp_path / "tetramer.pdb", assembly("C4", rng))
    plain = replace(PARAMETERS, symmetry="C1")
    (made,) = make_templates(file, plain, tmp_path / "templates", progress=False)
    for path in (made.with_suffix(".npz"), tmp_path / "templates" / "parameters.npz"):
        assert "symmetry" not in read_archive(path, optional=("atom_radii", "atom_selection"))
    assert len(open_template_file(made, plain)) == len(viewing_grid(0.5))
    made.with_suffix(".npz").unlink()  # as a file of CryoLike's, which knows no symmetry
    assert len(open_template_file(made, PARAMETERS)) == len(viewing_grid(0.5))


def test_a_structure_that_lacks_it_is_refused(tmp_path, rng):
    places = assembly("C4", rng)
    file = pdb(tmp_path / "other.pdb", places[:, [2, 0, 1]])  # the axis on x
    with pytest.raises(InputFileError) as error:
        make_templates(file, PARAMETERS, tmp_path / "templates", progress=False)
    said = " ".join(str(error.value).split())
    assert re.search(
        r"other\.pdb: structure 'other' does not have the symmetry C4 about the axes of its file: "
        r"turned, its projections differ by \d+\.\d% of their amplitude \(at most 5%\)",
        said,
    )
    assert "C4 has the axis on z, through voxel n // 2 of maps and the mean position of" in said
    assert "make its copies alike, or leave the symmetry out of the parameters." in said
    assert not (tmp_path / "templates").exists()
    with pytest.raises(InputError, match=r"structure 'structure' does not have the symmetry C4"):
        open_structure(gaussians(places + rng.normal(size=places.shape)), PARAMETERS)
    assert (
        len(open_structure(file, PARAMETERS, viewing=healpix_grid(0))) == 12
    )  # all that are given


def test_another_setting_of_the_group_is_named(rng):
    places = assembly("I2", rng)
    with pytest.raises(InputError, match=r"the symmetry I1 .* It has I2: give that\."):
        open_structure(gaussians(places), replace(PARAMETERS, symmetry="I1"))
    assert (
        open_structure(gaussians(places), replace(PARAMETERS, symmetry="I")).viewing.symmetry
        == "I2"
    )


def test_no_symmetry_under_other_conventions(rng):
    with pytest.raises(InputError, match="symmetry='C4', but conventions='cryolike' know none"):
        open_structure(gaussians(assembly("C4", rng)), PARAMETERS, conventions="cryolike")


def test_a_side_file_of_no_group_is_refused(tmp_path, rng):
    file = pdb(tmp_path / "tetramer.pdb", assembly("C4", rng))
    (made,) = make_templates(file, PARAMETERS, tmp_path / "templates", progress=False)
    side = made.with_suffix(".npz")
    with np.load(side) as archive:
        entries = {**archive, "symmetry": np.array("X4")}
    np.savez(side, **entries)
    with pytest.raises(InputFileError, match=r"symmetry='X4' is no point group"):
        open_template_file(made, PARAMETERS)


def test_by_commands(tmp_path, rng):
    """parameters --symmetry, and templates of its unit, of HEALPix too; a map and a refusal."""
    parameters = tmp_path / "parameters.npz"
    options = ("--n-pixels", 24, "--pixel-size-angstrom", 4, "--viewing-distance", 0.5)
    said = worked(in_process("parameters", *options, "--symmetry", "c4", "--output", parameters))
    n = len(PARAMETERS.viewing_angles())
    assert f"{n} viewing directions of the asymmetric unit of C4" in " ".join(said.split())
    assert read_parameters(parameters).symmetry == "C4"
    made = tmp_path / "templates"
    file = pdb(tmp_path / "tetramer.pdb", assembly("C4", rng))
    arguments = ("templates", file, "--parameters", parameters, "--output", made, "--workers", 0)
    worked(in_process(*arguments, "--healpix-order", 1))
    opened = open_template_file(made / "templates_fourier_tetramer.pt", PARAMETERS)
    unit = asymmetric_unit(healpix_grid(1), "C4")
    np.testing.assert_array_equal(opened.viewing.polar, unit.polar)
    assert len(unit) == 12
    with mrcfile.new(tmp_path / "noise.mrc") as map_file:
        map_file.set_data(rng.normal(size=(24, 24, 24)).astype(np.float32))
        map_file.voxel_size = 4.0
    refused = in_process(
        "templates", tmp_path / "noise.mrc", *arguments[2:5], tmp_path / "no", "--workers", 0
    )
    assert refused.returncode == 3
    assert "does not have the symmetry C4" in " ".join(refused.stderr.split())


def test_a_run_over_the_unit(tmp_path, rng):
    """A configuration that says it: particles of all directions are found in the unit, and errors
    of directions are those to the nearest that looks the same."""
    pdb(tmp_path / "structures" / "tetramer.pdb", assembly("C4", rng))
    grid = {"n_pixels": 24, "pixel_size_angstrom": 4.0, "viewing_distance": 0.3}
    cld.simulate_particles(
        tmp_path / "structures",
        cld.make_parameters(**grid),
        tmp_path / "relion",
        n_images=12,
        signal_to_noise=5,
        max_displacement_pixels=1,
        progress=False,
    )
    values = {
        "structures": {"files": str(tmp_path / "structures")},
        "particles": {"metadata": str(tmp_path / "relion" / "particles.star")},
        "parameters": {**grid, "symmetry": "C4"},
        "search": {"max_displacement_pixels": 2, "n_displacements_x": 5, "n_displacements_y": 5},
        "noise": "white",
        "output": str(tmp_path / "results"),
    }
    cld.run_config(cld.read_config(values))
    results = cld.open_results(tmp_path / "results")
    assert results.attrs["symmetry"] == "C4"
    errors = direction_errors_degree(summarise_results(results))
    assert np.median(errors) < 15
    as_if_none = summarise_results(results).assign_attrs(symmetry="C1")
    assert (direction_errors_degree(as_if_none) > 45).any()
