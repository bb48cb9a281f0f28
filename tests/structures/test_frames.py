"""Where poses have their origin: the mean of atoms, a place of their file, the middle of a map; and
structures that are superposed."""

from __future__ import annotations

from dataclasses import replace

import gemmi
import mrcfile
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from cryolike_dask import (
    Around,
    make_parameters,
    make_templates,
    open_particles,
    open_structure,
    open_structures,
    run_likelihood_optimal_pose,
)
from cryolike_dask.errors import InputError, InputFileError
from cryolike_dask.io.layout import LikelihoodFiles
from cryolike_dask.io.mrc import open_mrc_map
from cryolike_dask.structures.atoms import Atoms
from cryolike_dask.structures.superposing import superposition
from tests.likelihoods.test_known_poses import PARAMETERS, SEARCH
from tests.likelihoods.test_known_poses import Particles as StarParticles

HOW = {"atom_shape": "gaussian", "use_protein_residue_model": False, "precision": "double"}
GRID = {"n_pixels": 24, "pixel_size_angstrom": 2.0, "viewing_distance": 1.0}


def parameters(**more):
    return make_parameters(**GRID, **HOW, **more)


def write_cif(path, places, names=None, chain="A"):
    """A model of one carbon for each residue."""
    model = gemmi.Model(1)
    of = gemmi.Chain(chain)
    for k, place in enumerate(places):
        residue, atom = gemmi.Residue(), gemmi.Atom()
        residue.name, residue.seqid = "GLY", gemmi.SeqId(k + 1, " ")
        atom.name, atom.element = "CA" if names is None else names[k], gemmi.Element("C")
        atom.pos = gemmi.Position(*place)
        residue.add_atom(atom)
        of.add_residue(residue)
    model.add_chain(of)
    structure = gemmi.Structure()
    structure.add_model(model)
    structure.setup_entities()
    structure.make_mmcif_document().write_file(str(path))
    return path


def write_map(path, n=6, voxel=2.0, origin=(0, 0, 0), start=(0, 0, 0)):
    with mrcfile.new(path) as file:
        file.set_data(np.random.default_rng(0).random((n, n, n)).astype(np.float32))
        file.voxel_size = voxel
        file.set_volume()
        file.header.origin = origin
        file.header.nxstart, file.header.nystart, file.header.nzstart = start
    return path


def values(stack):
    return stack.data.compute(scheduler="synchronous")


@pytest.fixture
def places(rng):
    return rng.normal([40, 30, 20], 5, (9, 3)).round(2)


@pytest.mark.parametrize(
    ("header", "origin"),
    [
        ({"origin": (30, 20, 10)}, (36, 26, 16)),
        ({"start": (15, 10, 5)}, (36, 26, 16)),
        ({"n": 7, "voxel": 12}, (36, 36, 36)),
        ("file", (0, 0, 0)),
        ((41, 32, 19), (41, 32, 19)),
    ],
)
def test_poses_have_their_origin_where_the_frame_says(tmp_path, places, header, origin):
    frame = write_map(tmp_path / "map.mrc", **header) if isinstance(header, dict) else header
    made = parameters(frame=frame)
    np.testing.assert_allclose(made.frame_origin, origin, atol=1e-4)
    path = write_cif(tmp_path / "a.cif", places)
    found, plain = (values(open_structure(path, one)) for one in (made, parameters()))
    # each view is displaced by what its axes see of the way from the origin to the mean
    grid, viewing = made.grid, made.viewing_angles()
    way = viewing.rotations()[:, :, :2].transpose(0, 2, 1) @ (places.mean(axis=0) - origin)
    kx, ky = grid.points()
    turns = (kx[None] * way[:, 0, None, None] + ky[None] * way[:, 1, None, None]) * 2
    expected = plain * np.exp(-2j * np.pi * turns / grid.box_size_angstrom)
    np.testing.assert_allclose(found, expected, atol=2e-9 * np.abs(expected).max())
    description = open_structure(path, made).source.structure.describe()
    assert description[0]["origin_angstrom"] == pytest.approx(list(origin))
    (description,) = open_structure(path, parameters()).source.structure.describe()
    assert "origin_angstrom" not in description


def test_structures_are_superposed_on_the_first(tmp_path, places, rng):
    """By atoms that both have; the others move with them."""
    names = ["CA"] * 6 + ["CB"] * 3
    first = write_cif(tmp_path / "a.cif", places, names)
    turn = Rotation.random(random_state=int(rng.integers(2**31))).as_matrix()
    others = places.copy()
    others[7:] += 3
    second = write_cif(tmp_path / "b.cif", others @ turn.T + [5, -20, 60], names)
    moved = write_cif(tmp_path / "c.cif", others, names)
    for frame in (None, (38, 31, 22)):
        made = parameters(superpose="name CA", frame=frame)
        stacks = open_structures([first, second], made)
        # where the first has its origin
        origin = tuple(places.mean(axis=0)) if frame is None else frame
        expected = [
            values(open_structure(path, parameters(frame=origin))) for path in (first, moved)
        ]
        for stack, of in zip(stacks, expected, strict=True):
            np.testing.assert_allclose(values(stack), of, atol=1e-3 * np.abs(of).max())
    written = make_templates([first, second], made, tmp_path / "templates", progress=False)
    assert len(written) == 2


def test_a_superposition_is_a_proper_rotation(rng):
    points = rng.normal(size=(5, 3)) * [3, 2, 0.1]
    rotation, translation = superposition(points * [1, 1, -1], points)
    assert np.linalg.det(rotation) == pytest.approx(1)
    turn = Rotation.random(random_state=int(rng.integers(2**31))).as_matrix()
    rotation, translation = superposition(points @ turn.T + [1, 2, 3], points)
    np.testing.assert_allclose(rotation, turn, atol=1e-9)
    np.testing.assert_allclose(translation, [1, 2, 3], atol=1e-9)


def test_what_cannot_be_is_refused(tmp_path, places):
    a = write_cif(tmp_path / "a.cif", places)
    b = write_cif(tmp_path / "b.cif", places, chain="B")
    with pytest.raises(InputFileError, match=r"b\.cif: 0 atom\(s\) .* are in .*a\.cif too"):
        open_structures([a, b], parameters(superpose="name CA"))
    with pytest.raises(InputError, match=r"superpose: .*is not understood"):
        open_structures([a, b], parameters(superpose="backbone"))
    atoms = Atoms(places, np.full(9, 6.0), np.full(9, 1.7))
    with pytest.raises(InputError, match="a structure in memory it is not known"):
        open_structure(atoms, parameters(frame="file"))
    with pytest.raises(InputError, match="but a structure is Atoms"):
        open_structure(atoms, parameters(superpose="name CA"))
    with pytest.raises(InputError, match=r"frame_origin=.* centre each structure"):
        open_structure(a, parameters(frame="file"), conventions="cryolike")
    middle = open_mrc_map(write_map(tmp_path / "map.mrc")).middle()
    assert middle == pytest.approx((6, 6, 6))
    assert len(open_structure(tmp_path / "map.mrc", parameters(frame=middle))) > 0
    with pytest.raises(InputFileError, match=r"map\.mrc: has its middle.* at \(6, 6, 6\)"):
        open_structure(tmp_path / "map.mrc", parameters(frame="file"))
    with pytest.raises(InputError, match="is not x, y and z"):
        parameters(frame=(1, 2))
    write_map(tmp_path / "none.mrc", voxel=0)
    with pytest.raises(InputFileError, match=r"none\.mrc: has no voxel size"):
        parameters(frame=tmp_path / "none.mrc")


@pytest.mark.parametrize("how", ["files", "templates"])
def test_recorded_poses_are_of_one_frame(tmp_path, places, rng, how):
    """Of several models each about its own mean they are refused, before anything is written."""
    particles = StarParticles(tmp_path, rng, n=3)
    models = [write_cif(tmp_path / f"{k}.cif", places - k) for k in range(2)]
    images = open_particles(particles.star(0.0), PARAMETERS)
    for frame in (None, tuple(places.mean(axis=0))):
        made = replace(PARAMETERS, frame_origin=frame)
        make_templates(models, made, tmp_path / f"of {frame}", progress=False)

    def run(frame):
        made = replace(PARAMETERS, frame_origin=frame)
        is_files = how == "files"
        folder = None if is_files else tmp_path / f"of {frame}"
        files = LikelihoodFiles(folder, None, tmp_path / "out", i_template="all")
        templates = open_structures(models, made) if is_files else None
        search = Around(0, 0, check=False)
        return run_likelihood_optimal_pose(
            files, made, SEARCH, images=images, templates=templates, search=search, progress=False
        )

    with pytest.raises(InputError, match=r"2 structures \(0, 1\) have their origins each in the"):
        run(None)
    assert not (tmp_path / "out" / "template0").exists()
    assert run(tuple(places.mean(axis=0))).sizes["image"] == 3
