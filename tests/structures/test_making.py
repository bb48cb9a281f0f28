"""Templates in files from structures in files, folders and memory; the same lazily; and what
stops a run."""

from __future__ import annotations

import json
import logging
import os
import pickle
import re
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path

import cloudpickle
import gemmi
import mrcfile
import numpy as np
import pytest
import torch

from cryolike_dask.errors import (
    CryolikeError,
    InputError,
    InputFileError,
    NotFiniteError,
    OutputError,
)
from cryolike_dask.geometry.displacements import DisplacementSearch
from cryolike_dask.geometry.parameters import ImageParameters
from cryolike_dask.geometry.viewing_angles import ViewingAngles, healpix_grid, viewing_grid
from cryolike_dask.io.archives import read_list
from cryolike_dask.io.layout import LikelihoodFiles
from cryolike_dask.io.parameters import read_parameters
from cryolike_dask.io.stacks import write_image_stack
from cryolike_dask.io.viewing import read_viewing_angles
from cryolike_dask.run_likelihood import run_likelihood_optimal_pose
from cryolike_dask.stacks import open_templates
from cryolike_dask.structures import making, sources
from cryolike_dask.structures.atoms import Atoms
from cryolike_dask.structures.making import make_templates
from cryolike_dask.structures.opening import open_structure, open_structures
from cryolike_dask.structures.projection import project
from cryolike_dask.structures.sources import Projections
from cryolike_dask.structures.volumes import Volume
from tests.traps import Trap

PARAMETERS = ImageParameters(12, 1.5, n_inplanes=20, viewing_distance=2.5)
N_TEMPLATES = len(PARAMETERS.viewing_angles())
SEARCH = DisplacementSearch(1.5, 3, 2)


def write_pdb(path: Path, *models: np.ndarray) -> Path:
    """C-alpha atoms of leucines at these places, one array (atom, 3) per model."""
    structure = gemmi.Structure()
    for number, places in enumerate(models, start=1):
        chain = gemmi.Chain("A")
        for i, place in enumerate(places.tolist(), start=1):
            residue, atom = gemmi.Residue(), gemmi.Atom()
            residue.name, residue.seqid = "LEU", gemmi.SeqId(i, " ")
            atom.name, atom.element, atom.pos = "CA", gemmi.Element("C"), gemmi.Position(*place)
            residue.add_atom(atom)
            chain.add_residue(residue)
        model = gemmi.Model(number)
        model.add_chain(chain)
        structure.add_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    structure.write_pdb(str(path))
    return path


@pytest.fixture
def places(rng):
    """Places of a few atoms."""
    return rng.uniform(-4, 4, (9, 3)).round(2)


@pytest.fixture
def folder(tmp_path):
    """A folder with a name that breaks careless code."""
    path = tmp_path / "my structures ä #1"
    path.mkdir()
    return path


@pytest.fixture
def two(folder, rng):
    """Two PDB files."""
    return [write_pdb(folder / f"{name}.pdb", rng.uniform(-4, 4, (9, 3)).round(2)) for name in "ab"]


@pytest.fixture
def density(rng):
    """A map of positive density on the box of the images."""
    z, y, x = np.mgrid[:12, :12, :12] - 6
    return (np.exp(-(x**2 + y**2 + z**2) / 6) * rng.uniform(0.5, 1.5, (12, 12, 12))).astype(
        np.float32
    )


def write_map(path: Path, values: np.ndarray, voxel: float) -> Path:
    with mrcfile.new(path, overwrite=True) as file:
        file.set_data(values)
        file.voxel_size = voxel
    return path


def make(structures, output, params=PARAMETERS, **options):
    """Make templates without a bar."""
    return make_templates(structures, params, output, progress=False, **options)


def load(path: Path) -> np.ndarray:
    return torch.load(path, weights_only=True).numpy()


def tree(path: Path) -> list[str]:
    """Everything in a folder, hidden files too."""
    return sorted(str(p.relative_to(path)) for p in path.rglob("*") if p.is_file())


def times(path: Path) -> dict[str, int]:
    return {str(p): p.stat().st_mtime_ns for p in path.rglob("*") if p.is_file()}


# --- what is written ---


def test_the_files_of_a_template_folder(two, tmp_path):
    output = tmp_path / "out"
    files = make(two, output)
    assert files == [output / f"templates_fourier_{name}.pt" for name in "ab"]
    assert tree(output) == [
        ".claim-templates.json",
        "done/templates_fourier_a.json",
        "done/templates_fourier_b.json",
        "parameters.npz",
        "template_file_list.npy",
        *[f"templates_fourier_{name}.{suffix}" for name in "ab" for suffix in ("npz", "pt")],
    ]
    assert read_list(output / "template_file_list.npy") == [str(f) for f in files]
    assert read_parameters(output / "parameters.npz") == PARAMETERS
    values = load(files[0])
    assert values.shape == (N_TEMPLATES, *PARAMETERS.grid.shape)
    assert values.dtype == np.complex64
    np.testing.assert_allclose(PARAMETERS.grid.integrate(np.abs(values) ** 2), 1, rtol=1e-5)
    np.testing.assert_array_equal(values[..., 10:], values[..., :10].conj())
    record = json.loads((output / "done" / "templates_fourier_b.json").read_text())
    assert record["structure"] == "b"
    assert record["inputs"][0]["name"] == "b.pdb"


def test_the_sidecar_says_what_templates_were_made_from(two, tmp_path):
    (file,) = make(two[1], tmp_path / "out", conventions="cryolike")
    with np.load(file.with_suffix(".npz"), allow_pickle=False) as sidecar:
        entries = {name: sidecar[name] for name in sidecar}
    viewing = PARAMETERS.viewing_angles()
    for name in ("azimuth", "polar"):
        np.testing.assert_array_equal(entries[name], getattr(viewing, name))
    np.testing.assert_array_equal(entries["viewing_weight"], viewing.weight)
    assert entries["conventions"] == "cryolike"
    assert entries["structure"] == "b"
    described, *_ = json.loads(str(entries["source"]))
    assert described["name"] == "b.pdb"
    assert described["size"] == two[1].stat().st_size
    assert entries["n_pixels"].tolist() == [12, 12]


def test_what_is_written_is_what_is_opened_lazily(two, tmp_path):
    make(two, tmp_path / "out")
    files = LikelihoodFiles(tmp_path / "out", None, tmp_path / "results")
    for i, lazy in enumerate(open_structures(two, PARAMETERS)):
        written = open_templates(files, PARAMETERS, i)
        rows = np.arange(N_TEMPLATES)
        np.testing.assert_array_equal(written.source.take(rows), lazy.source.take(rows))
        assert written.structure == lazy.structure == "ab"[i]
        assert written.conventions == lazy.conventions == "standard"


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("default", "complex64"), ("single", "complex64"), ("double", "complex128")],
)
def test_precision(two, tmp_path, precision, dtype):
    (file,) = make(two[0], tmp_path / "out", replace(PARAMETERS, precision=precision))
    assert load(file).dtype == dtype


def test_names_that_collide_take_their_folders(folder, places, tmp_path):
    paths = [
        write_pdb(folder / sub / f"{name}.pdb", places)
        for sub, name in (("1", "x"), ("2", "x"), ("3", "x_1"))
    ]
    names = [f.name for f in make(paths, tmp_path / "out")]
    assert names == [f"templates_fourier_{name}.pt" for name in ("1_x", "2_x", "x_1")]
    assert len({load(tmp_path / "out" / n).tobytes() for n in names}) == 1


@pytest.mark.parametrize("name", ["with space", "ä#%'\"", "a.b.c", "-n"])
def test_odd_names(folder, places, tmp_path, name):
    (file,) = make(write_pdb(folder / f"{name}.pdb", places), tmp_path / "out")
    assert file.name == f"templates_fourier_{name}.pt"
    opened = open_templates(LikelihoodFiles(tmp_path / "out", None, tmp_path / "r"), PARAMETERS)
    assert opened.structure == name


def test_a_folder_gives_its_structures_in_the_order_of_their_names(
    folder, places, density, tmp_path
):
    for name in ("b.pdb", "a.ent", "c.pdb"):
        write_pdb(folder / name, places)
    np.save(folder / "map.npy", density)
    (folder / "notes.txt").write_text("not a structure")
    (folder / "sub.pdb").mkdir()
    stacks = open_structures(
        [p for p in [folder] if (folder / "sub.pdb").rmdir() is None], PARAMETERS
    )
    assert [s.structure for s in stacks] == ["a", "b", "c", "map"]
    assert len(make(folder, tmp_path / "out")) == 4


def test_models_as_structures(folder, places, tmp_path, caplog):
    path = write_pdb(folder / "md.pdb", places, places + 0.5 * np.arange(9)[:, None], -places)
    with caplog.at_level(logging.INFO, "cryolike_dask"):
        (first,) = make(path, tmp_path / "first")
    assert 'the first of 3 models is used; models="all" (--models)' in caplog.text
    assert first.name == "templates_fourier_md.pt"
    files = make([path, folder / "md.pdb"], tmp_path / "all", models="all")
    assert [f.stem for f in files[:4]] == [
        "templates_fourier_md_model_0001",
        "templates_fourier_md_model_0002",
        "templates_fourier_md_model_0003",
        "templates_fourier_md_model_0001_1",
    ]
    values = [load(f) for f in files]
    np.testing.assert_array_equal(values[0], load(first))
    np.testing.assert_array_equal(values[0], values[3])
    assert np.abs(values[0] - values[1]).max() > 1e-3
    np.testing.assert_allclose(values[2], values[0].conj(), atol=1e-5 * np.abs(values[0]).max())


def test_frames_that_are_ended_and_not_numbered(folder, places, tmp_path):
    frames = [write_pdb(folder / f"{k}.pdb", places * (k + 1)) for k in range(3)]
    path = tmp_path / "md.pdb"
    path.write_text("".join(frame.read_text() for frame in frames))
    stacks = open_structures(path, PARAMETERS, models="all")
    assert [stack.structure for stack in stacks] == [f"md_model_{k:04d}" for k in (1, 2, 3)]
    rows = np.arange(2)
    for stack, frame in zip(stacks, frames, strict=True):
        np.testing.assert_array_equal(
            stack.source.take(rows), open_structure(frame, PARAMETERS).source.take(rows)
        )


def test_arrays_tensors_and_objects_in_memory(density, tmp_path, folder):
    volume = Volume(density, (1.5, 1.5, 1.5))
    np.save(folder / "map.npy", density)
    torch.save(torch.from_numpy(density), folder / "map.pt")
    write_map(folder / "map.mrc", density, 1.5)
    given = [
        density,
        torch.tensor(density, requires_grad=True),
        volume,
        *(folder / f"map.{suffix}" for suffix in ("npy", "pt", "mrc")),
    ]
    files = make(given, tmp_path / "out")
    assert [f.stem.removeprefix("templates_fourier_") for f in files] == [
        *("structure", "structure_1", "structure_2", "map", "map_1", "map_2"),
    ]
    values = [load(f) for f in files]
    for other in values[1:]:
        np.testing.assert_allclose(other, values[0], atol=2e-6 * np.abs(values[0]).max())
    atoms = Atoms(np.eye(3), np.ones(3), np.ones(3))
    (file,) = make(atoms, tmp_path / "atoms")
    expected = project(atoms, PARAMETERS.grid, PARAMETERS.viewing_angles(), precision="single")
    np.testing.assert_array_equal(load(file), expected)


def test_skip_exist_compares_arrays_by_their_content(density, tmp_path):
    output = tmp_path / "out"
    make(density, output)
    before = times(output)
    make(density.copy(), output, skip_exist=True)
    assert (
        times(output)[str(output / "templates_fourier_structure.pt")]
        == before[str(output / "templates_fourier_structure.pt")]
    )
    make(density[::-1], output, skip_exist=True)
    assert times(output) != before


def test_skip_exist_compares_the_shape_of_atoms(places, tmp_path):
    atoms = Atoms(places, np.ones(9), np.full(9, 2.0))
    for shape in ("gaussian", "hard-sphere"):
        (file,) = make(replace(atoms, shape=shape), tmp_path / "out", skip_exist=True)
        (fresh,) = make(replace(atoms, shape=shape), tmp_path / shape)
        np.testing.assert_array_equal(load(file), load(fresh))


# --- viewing directions, through to likelihoods ---


def images_of(templates, folder: Path, rows) -> None:
    """An image stack of some templates, blurred as an image is, almost without contrast
    transfer."""
    from cryolike_dask.geometry.optics import optics_table

    values = templates.source.take(np.asarray(rows))
    optics = optics_table(
        len(rows),
        defocus_u_angstrom=0.0,
        defocus_v_angstrom=0.0,
        defocus_angle_radian=0.0,
        voltage_kilovolt=300.0,
        spherical_aberration_mm=0.0,
        amplitude_contrast=1.0,
    )
    write_image_stack(
        LikelihoodFiles(None, folder, folder).image_stack(0)[0], values, optics, PARAMETERS
    )


@pytest.mark.parametrize(
    "viewing",
    [
        healpix_grid(0),
        ViewingAngles(
            np.array([0.1, 2.0, 4.0]), np.array([0.5, 1.0, 2.0]), np.array([1.0, 2.0, 6.0])
        ),
    ],
)
def test_directions_and_weights_reach_the_likelihoods(two, tmp_path, viewing):
    make(two, tmp_path / "t", viewing=viewing)
    files = LikelihoodFiles(tmp_path / "t", tmp_path / "p", tmp_path / "r")
    opened = open_templates(files, PARAMETERS)
    np.testing.assert_array_equal(opened.viewing.azimuth, viewing.azimuth)
    np.testing.assert_array_equal(opened.viewing.weight, viewing.weight)
    images_of(opened, tmp_path / "p", range(len(viewing)))
    poses = run_likelihood_optimal_pose(
        files, PARAMETERS, DisplacementSearch(0, 1, 1), progress=False, noise="white"
    ).load()
    assert poses.optimal_template.values.tolist() == list(range(len(viewing)))
    np.testing.assert_allclose(poses.cross_correlation, 1, atol=1e-3)
    even = replace(
        opened, viewing=ViewingAngles(viewing.azimuth, viewing.polar, np.ones(len(viewing)))
    )
    lazy = LikelihoodFiles(None, tmp_path / "p", tmp_path / "even")
    unweighted = run_likelihood_optimal_pose(
        lazy, PARAMETERS, DisplacementSearch(0, 1, 1), templates=even, progress=False, noise="white"
    ).load()
    differ = (
        np.abs(poses.log_likelihood_integrated - unweighted.log_likelihood_integrated).max() > 1e-3
    )
    assert differ == (np.ptp(viewing.weight) > 0)


def test_viewing_must_be_directions(two, tmp_path):
    with pytest.raises(
        InputError, match=r"viewing is a list. Make it with ViewingAngles or healpix_grid"
    ):
        make(two, tmp_path / "out", viewing=[1.0])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "has 0 lines of 0 columns"),
        ("# rot tilt\n\n", "has 0 lines of 0 columns"),
        ("10 20 1\n30 40 0\n", "has a weight of 0"),
        ("10 20 0\n", "has a weight of 0"),
        ("10\n", "has 1 lines of 1 columns"),
    ],
)
def test_lists_of_directions_that_cannot_be(tmp_path, text, complaint):
    path = tmp_path / "views.txt"
    path.write_text(text)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InputFileError, match=rf"views\.txt: {complaint}"):
            read_viewing_angles(path)


# --- going on where a run stopped ---


def test_skip_exist_leaves_alone_what_is_complete(two, tmp_path, caplog):
    output = tmp_path / "out"
    make(two, output)
    before = {p: t for p, t in times(output).items() if "templates_fourier" in p}
    with caplog.at_level(logging.INFO, "cryolike_dask"):
        assert make(two, output, skip_exist=True) == make(two, output, skip_exist=True)
    after = times(output)
    assert {p: after[p] for p in before} == before
    assert "is made" not in caplog.text


REASONS = {
    "a changed structure": (
        lambda p, two: write_pdb(two[0], np.eye(3)),
        {},
        "the inputs of the results are others",
    ),
    "a touched structure": (
        lambda p, two: os.utime(two[0], (1, 1)),
        {},
        "the inputs of the results are others",
    ),
    "damaged templates": (
        lambda p, two: p.write_bytes(p.read_bytes()[:-8] + bytes(8)),
        {},
        "templates_fourier_a.pt is not the file that the record describes",
    ),
    "truncated templates": (
        lambda p, two: os.truncate(p, 100),
        {},
        "is not the file that the record describes",
    ),
    "no templates": (lambda p, two: p.unlink(), {}, "templates_fourier_a.pt is missing"),
    "no sidecar": (
        lambda p, two: p.with_suffix(".npz").unlink(),
        {},
        "templates_fourier_a.npz is missing",
    ),
    "no record": (
        lambda p, two: (p.parent / "done" / "templates_fourier_a.json").unlink(),
        {},
        "there is no readable completion record templates_fourier_a.json",
    ),
    "a damaged record": (
        lambda p, two: (p.parent / "done" / "templates_fourier_a.json").write_text('{"format"'),
        {},
        "there is no readable completion record",
    ),
}


@pytest.mark.parametrize("name", REASONS)
def test_skip_exist_makes_again_what_is_not_what_it_should_be(two, tmp_path, caplog, name):
    change, options, reason = REASONS[name]
    output = tmp_path / "out"
    make(two, output)
    untouched = output / "templates_fourier_b.pt"
    time_of_b = untouched.stat().st_mtime_ns
    change(output / "templates_fourier_a.pt", two)
    with caplog.at_level(logging.INFO, "cryolike_dask"):
        make(two, output, skip_exist=True, **options)
    said = [m for m in caplog.messages if "is made" in m]
    assert len(said) == 1
    assert re.match(rf"templates-a is made: .*{re.escape(reason)}", said[0])
    assert untouched.stat().st_mtime_ns == time_of_b
    fresh = make(two, tmp_path / "fresh")
    np.testing.assert_array_equal(load(output / "templates_fourier_a.pt"), load(fresh[0]))
    caplog.clear()
    with caplog.at_level(logging.INFO, "cryolike_dask"):
        make(two, output, skip_exist=True)
    assert "is made" not in caplog.text


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"viewing": healpix_grid(0)}, "the inputs of the results are others"),
        ({"conventions": "cryolike"}, "the settings of the results are others"),
    ],
)
def test_skip_exist_makes_all_again_with_other_settings(two, tmp_path, caplog, options, reason):
    make(two, tmp_path / "out")
    with caplog.at_level(logging.INFO, "cryolike_dask"):
        make(two, tmp_path / "out", skip_exist=True, **options)
    assert len([m for m in caplog.messages if reason in m]) == 2
    fresh = make(two, tmp_path / "fresh", **options)
    for file in fresh:
        np.testing.assert_array_equal(load(tmp_path / "out" / file.name), load(file))


def test_skip_exist_takes_more_structures_into_the_folder(two, tmp_path):
    output = tmp_path / "out"
    make(two[1], output)
    before = (output / "templates_fourier_b.pt").stat().st_mtime_ns
    make(two, output, skip_exist=True)
    files = [output / f"templates_fourier_{name}.pt" for name in "ab"]
    assert read_list(output / "template_file_list.npy") == [str(file) for file in files]
    assert (output / "templates_fourier_b.pt").stat().st_mtime_ns == before


@pytest.mark.parametrize("skip_exist", [False, True])
@pytest.mark.parametrize(
    "change",
    [{"n_inplanes": 22}, {"atom_radii": 2.0}, {"precision": "double"}, {"viewing_distance": 2.0}],
)
def test_a_folder_of_other_parameters_is_refused(two, tmp_path, change, skip_exist):
    output = tmp_path / "out"
    make(two, output)
    before = times(output)
    with pytest.raises(
        OutputError,
        match=r"parameters\.npz: holds other parameters. Choose another .*overwrite=True "
        r"\(--overwrite\)",
    ):
        make(two, output, replace(PARAMETERS, **change), skip_exist=skip_exist)
    assert times(output) == before


@pytest.mark.parametrize("skip_exist", [False, True])
def test_a_folder_of_other_templates_is_refused(two, tmp_path, skip_exist):
    output = tmp_path / "out"
    make(two, output)
    before = times(output)
    with pytest.raises(
        OutputError, match=r"out: holds templates already: templates_fourier_a\.pt, .*overwrite"
    ):
        make(two[1], output, skip_exist=skip_exist)
    assert times(output) == before


def test_overwrite_replaces_templates_and_list(two, tmp_path):
    output = tmp_path / "out"
    make(two, output)
    changed = replace(PARAMETERS, n_inplanes=22)
    (file,) = make(two[1], output, changed, overwrite=True)
    assert read_list(output / "template_file_list.npy") == [str(output / "templates_fourier_b.pt")]
    assert read_parameters(output / "parameters.npz") == changed
    assert load(file).shape[-1] == 22
    assert not [
        name
        for name in tree(output)
        if name.startswith(("templates_fourier_a", "done/templates_fourier_a"))
    ]


def test_a_list_of_other_templates_does_not_outlive_an_overwrite_that_fails(two, density, tmp_path):
    make(two, tmp_path / "out")
    np.save(tmp_path / "bad.npy", np.full_like(density, np.nan))
    with pytest.raises(NotFiniteError, match=r"bad\.npy"):
        make(
            tmp_path / "bad.npy",
            tmp_path / "out",
            replace(PARAMETERS, viewing_distance=2.0),
            overwrite=True,
        )
    assert not (tmp_path / "out" / "template_file_list.npy").exists()


def test_what_a_killed_process_left_is_removed(two, tmp_path):
    output = tmp_path / "out"
    make(two, output)
    for name in ("a", "b"):
        (output / f".templates-{name}.{32 * '0'}.part").write_bytes(b"half")
    (output / "templates_fourier_a.pt").unlink()
    make(two, output, skip_exist=True)
    assert [name for name in tree(output) if ".part" in name] == []


def test_templates_beside_their_structures(two):
    folder = two[0].parent
    files = make(folder, folder)
    assert (
        make(folder, folder, skip_exist=True)
        == files
        == [folder / f"templates_fourier_{name}.pt" for name in "ab"]
    )


def test_parameters_may_already_lie_in_the_output_folder(two, tmp_path):
    from cryolike_dask.io.parameters import write_parameters

    write_parameters(tmp_path / "out" / "parameters.npz", PARAMETERS)
    assert len(make(two, tmp_path / "out", tmp_path / "out" / "parameters.npz")) == 2


# --- what goes wrong ---


def test_nothing_half_is_left_when_one_structure_fails(two, tmp_path, density):
    output = tmp_path / "out"
    density[3, 4, 5] = np.nan
    np.save(two[0].parent / "a_map.npy", density)
    with pytest.raises(NotFiniteError, match=r"NaN or infinite voxels"):
        make(two[0].parent, output)  # a, a_map, b
    left = tree(output)
    assert "template_file_list.npy" not in left
    assert [name for name in left if ".part" in name or "map" in name] == []
    density[3, 4, 5] = 1
    np.save(two[0].parent / "a_map.npy", density)
    # a worker may have come to it, or not
    made = {path: path.stat().st_mtime_ns for path in output.glob("*.pt")}
    assert len(make(two[0].parent, output, skip_exist=True)) == 3
    assert {path: path.stat().st_mtime_ns for path in made} == made
    assert [name for name in tree(output) if ".part" in name] == []


@pytest.mark.parametrize("bad", ["missing.pdb", "empty.pdb", "text.cif", "text.mrc", "x.docx"])
def test_a_bad_file_among_good_ones_stops_before_anything_is_written(two, tmp_path, bad):
    path = two[0].parent / bad
    if bad != "missing.pdb":
        path.write_text("" if bad.startswith("empty") else "hello\n" * 400)
    with pytest.raises(InputFileError, match=re.escape(bad)):
        make([two[0], path, two[1]], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_all_missing_files_are_named_at_once(two, tmp_path):
    with pytest.raises(InputFileError, match=r"2 missing input file\(s\):\n.*x\.pdb\n.*y\.mrc\n"):
        make([tmp_path / "x.pdb", two[0], tmp_path / "y.mrc"], tmp_path / "out")


@pytest.mark.parametrize("structures", [[], [[1, 2]], [3.0], b"x", None, 3])
def test_what_is_no_structure(tmp_path, structures):
    with pytest.raises(InputError, match=r"structure.*(arrays \(z, y, x\), Atoms or Volume)"):
        make(structures, tmp_path / "out")


def test_an_empty_folder(tmp_path):
    with pytest.raises(InputFileError, match=rf"{re.escape(str(tmp_path))}: holds no structures"):
        make(tmp_path, tmp_path / "out")
    with pytest.raises(InputError, match=r"is a folder. Open its structures with open_structures"):
        open_structure(tmp_path, PARAMETERS)


def test_a_selection_that_finds_nothing_names_the_file(two, tmp_path):
    parameters = replace(PARAMETERS, atom_selection="chain Z", use_protein_residue_model=False)
    with pytest.raises(
        InputFileError, match=r"a\.pdb: no atom is selected. Look at atom_selection='chain Z'"
    ):
        make(two, tmp_path / "out", parameters)


def test_a_structure_larger_than_the_box_is_told(folder, tmp_path, caplog):
    path = write_pdb(folder / "long.pdb", np.array([[-40.0, 0, 0], [0, 0, 0], [40, 0, 0]]))
    with caplog.at_level(logging.INFO, "cryolike_dask"):
        make(path, tmp_path / "out")
    assert "long: reaches 40 angstrom from its centre, but half a box is 9" in caplog.text


def test_output_that_is_a_file(two, tmp_path):
    (tmp_path / "out").write_text("notes")
    for overwrite in (False, True):
        with pytest.raises(OutputError, match=r"out"):
            make(two, tmp_path / "out", overwrite=overwrite)
    assert (tmp_path / "out").read_text() == "notes"


# --- killed, and on a cluster ---

KILLED = """
import sys, time
from pathlib import Path
from cryolike_dask.structures import making
write = making.write_record
def slow(job, details):
    if job.about["structure"] == "b":
        print("b is written", flush=True)
        time.sleep(60)
    write(job, details)
making.write_record = slow
if __name__ == "__main__":
    found = sorted(Path(sys.argv[1]).glob("*.pdb"))
    making.make_templates(found, sys.argv[2], sys.argv[3], progress=False)
"""


def test_killed_half_way_and_gone_on(two, places, tmp_path, caplog):
    from cryolike_dask.io.parameters import write_parameters

    write_pdb(two[0].parent / "c.pdb", places)
    write_parameters(tmp_path / "p.npz", PARAMETERS)
    output = tmp_path / "out"
    (tmp_path / "run.py").write_text(KILLED)
    command = [sys.executable, tmp_path / "run.py", two[0].parent, tmp_path / "p.npz", output]
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "b is written\n"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    assert not (output / "template_file_list.npy").exists()
    assert not (output / "templates_fourier_c.pt").exists()
    made = (output / "templates_fourier_a.pt").stat().st_mtime_ns
    with caplog.at_level(logging.INFO, "cryolike_dask"):
        files = make(two[0].parent, output, skip_exist=True)
    assert [m.split(" is made")[0] for m in caplog.messages if "is made" in m] == ["templates-b"]
    assert (output / "templates_fourier_a.pt").stat().st_mtime_ns == made
    for file, fresh in zip(files, make(two[0].parent, tmp_path / "fresh"), strict=True):
        np.testing.assert_array_equal(load(file), load(fresh))


def test_a_cluster_makes_the_same(two, density, tmp_path, cluster, monkeypatch):
    monkeypatch.setattr(making, "BYTES_PER_TASK", 2**14)
    np.save(two[0].parent / "map.npy", density)
    here = make(two[0].parent, tmp_path / "here")
    there = make(two[0].parent, tmp_path / "there", client=cluster)
    for a, b in zip(here, there, strict=True):
        np.testing.assert_array_equal(load(a), load(b))
    assert tree(tmp_path / "here") == tree(tmp_path / "there")
    (two[0].parent / "bad.npy").write_bytes((two[0].parent / "map.npy").read_bytes())
    density[0, 0, 0] = np.inf
    np.save(two[0].parent / "bad.npy", density)
    with pytest.raises(NotFiniteError, match="NaN or infinite voxels"):
        make(two[0].parent, tmp_path / "failed", client=cluster)
    deadline = time.monotonic() + 10
    while [n for n in tree(tmp_path / "failed") if ".part" in n] and time.monotonic() < deadline:
        time.sleep(0.1)
    assert [n for n in tree(tmp_path / "failed") if ".part" in n] == []
    assert not (tmp_path / "failed" / "template_file_list.npy").exists()


def test_tasks_are_named_after_what_they_do(two, tmp_path, monkeypatch):
    monkeypatch.setattr(making, "BYTES_PER_TASK", 10 * 13 * 20 * 8)
    keys = []
    monkeypatch.setattr(
        making,
        "stream",
        lambda jobs, *_, **__: keys.extend(k for j in jobs for k in j.build().dask),
    )
    make(two, tmp_path / "out")
    kinds = [re.sub(r"-[0-9a-f]{32}$", "", key) for key in keys]
    assert sorted(kinds) == [
        *[f"project-templates-{name}-{k:06d}" for name in "ab" for k in range(3)],
        *[f"write-templates-{name}" for name in "ab"],
    ]


# --- lazily ---


def test_opening_projects_nothing(two, monkeypatch):
    calls = []
    counted = sources.project
    monkeypatch.setattr(sources, "project", lambda *a, **k: (calls.append(1), counted(*a, **k))[1])
    stacks = open_structures(two, PARAMETERS)
    lazy = [stack.data for stack in stacks]
    assert calls == []
    assert lazy[0].shape == (N_TEMPLATES, *PARAMETERS.grid.shape)
    lazy[0][:2].compute(scheduler="sync")
    assert len(calls) >= 1


def test_a_stack_travels_light(folder, rng):
    small = open_structure(write_pdb(folder / "s.pdb", np.eye(3)), PARAMETERS)
    large = open_structure(write_pdb(folder / "l.pdb", rng.uniform(-8, 8, (9000, 3))), PARAMETERS)
    sizes = [len(cloudpickle.dumps(stack.source)) for stack in (small, large)]
    assert max(sizes) < 4000
    assert abs(sizes[1] - sizes[0]) < 50


def test_a_subset_is_those_rows(two):
    stack = open_structure(two[0], PARAMETERS)
    rows = np.array([5, 2, 2, 17])
    whole = stack.source.take(np.arange(N_TEMPLATES))
    np.testing.assert_array_equal(stack.source.take(rows), whole[rows])
    np.testing.assert_array_equal(stack.source.subset(rows).take(np.arange(4)), whole[rows])
    assert stack.source.locate(3) == (str(two[0]), 3)


def test_rows_of_a_map_do_not_depend_on_what_is_taken_with_them(density, monkeypatch):
    monkeypatch.setattr(sources, "PAGE", 8)
    stack = open_structure(density, PARAMETERS)
    whole = stack.source.take(np.arange(N_TEMPLATES))
    for rows in (np.array([3]), np.arange(6, 20), np.array([27, 0, 13])):
        np.testing.assert_allclose(
            stack.source.take(rows), whole[rows], atol=1e-6 * np.abs(whole).max()
        )


@pytest.mark.parametrize("suffix", ["pdb", "mrc", "npy", "pt"])
def test_a_file_that_changes_after_opening_is_refused(folder, density, places, suffix):
    path = folder / f"x.{suffix}"

    def write(values):
        if suffix == "pdb":
            write_pdb(path, places * float(values.mean() > 0))
        elif suffix == "mrc":
            write_map(path, values, 1.5)
        else:
            np.save(path, values) if suffix == "npy" else torch.save(torch.from_numpy(values), path)

    write(density)
    stack = open_structure(path, PARAMETERS)
    write(-density)
    os.utime(path, (1, 1))
    with pytest.raises(
        InputFileError, match=rf"x\.{suffix}: has changed since it was opened. Open it again"
    ):
        stack.source.take(np.arange(2))
    path.unlink()
    with pytest.raises(InputFileError, match=rf"x\.{suffix}: cannot be read: No such file"):
        stack.source.take(np.arange(2))


def test_a_relative_path_survives_another_working_directory(two, monkeypatch):
    monkeypatch.chdir(two[0].parent)
    stack = open_structure("a.pdb", PARAMETERS)
    monkeypatch.chdir("/")
    assert stack.source.take(np.arange(1)).shape == (1, *PARAMETERS.grid.shape)


# --- maps ---


def test_a_map_without_voxel_size_has_that_of_the_pixels_if_its_box_fits(folder, density, caplog):
    path = write_map(folder / "m.mrc", density, 0.0)
    with caplog.at_level(logging.INFO, "cryolike_dask"):
        stack = open_structure(path, PARAMETERS)
    assert (
        "m: the header has no voxel size; that of the pixels is taken, 1.5 angstrom" in caplog.text
    )
    expected = open_structure(write_map(folder / "n.mrc", density, 1.5), PARAMETERS)
    rows = np.arange(4)
    np.testing.assert_array_equal(stack.source.take(rows), expected.source.take(rows))


def test_a_map_without_voxel_size_of_another_box_is_refused(folder, density):
    path = write_map(folder / "m.mrc", density[:8, :8, :8], 0.0)
    complaint = (
        r"m\.mrc: has no voxel size, and \(8, 8, 8\) voxels are not the 12 of the images. "
        r"Write the voxel size"
    )
    with pytest.raises(InputFileError, match=complaint):
        open_structure(path, PARAMETERS)


def test_a_map_that_is_no_cube(folder, density, caplog):
    path = write_map(folder / "m.mrc", density[:10], 1.5)
    with caplog.at_level(logging.INFO, "cryolike_dask"):
        open_structure(path, PARAMETERS)
    assert (
        "m: is no cube (12 x 12 x 10 voxels): the origin is the middle of each side" in caplog.text
    )
    with pytest.raises(
        InputFileError, match=r"m\.mrc: is no cube: \(12, 12, 10\) voxels. Pad it to a cube"
    ):
        open_structure(path, PARAMETERS, conventions="cryolike")


def test_a_map_padded_with_nothing_gives_the_same_templates(density):
    padded = np.zeros((16, 14, 12), np.float32)
    padded[2:14, 1:13] = density
    rows = np.arange(N_TEMPLATES)
    taken = [open_structure(values, PARAMETERS).source.take(rows) for values in (density, padded)]
    np.testing.assert_allclose(taken[1], taken[0], atol=1e-5 * np.abs(taken[0]).max())


def test_a_map_coarser_than_the_images_is_told(folder, density, caplog):
    with caplog.at_level(logging.INFO, "cryolike_dask"):
        open_structure(write_map(folder / "m.mrc", density, 2.0), PARAMETERS)
    assert (
        "m: the map ends at 4 angstrom, the images at 3; its templates are 0 beyond" in caplog.text
    )


@pytest.mark.parametrize("suffix", ["npy", "pt"])
@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda d: d[0], r"has shape \(12, 12\)"),
        (lambda d: d.astype(np.complex64), "complex64"),
        (lambda d: np.full_like(d, np.nan), "NaN or infinite voxels"),
        (np.zeros_like, "a power of 0"),
    ],
    ids=["plane", "complex", "nan", "flat"],
)
def test_a_file_that_is_no_density_is_named(folder, density, tmp_path, suffix, change, complaint):
    path, values = folder / f"m.{suffix}", change(density)
    np.save(path, values) if suffix == "npy" else torch.save(torch.from_numpy(values), path)
    with pytest.raises(InputError, match=rf"m\.{suffix}: .*{complaint}"):
        make(path, tmp_path / "out")


def test_a_density_whose_power_overflows_is_refused(density, tmp_path):
    with pytest.raises(InputError, match="a power of inf"):
        make(density.astype(np.float64) * 1e200, tmp_path / "out")
    assert not (tmp_path / "out" / "template_file_list.npy").exists()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda d: d[0], r"shape \(12, 12\)"),
        (lambda d: d.astype(complex), "complex128"),
        (lambda d: d > 0, "bool"),
        (lambda d: d.astype(object), "object"),
        (lambda d: np.where(d > d.mean(), np.nan, d), "NaN or infinite voxels"),
        (lambda d: d[:1], r"shape \(1, 12, 12\)"),
    ],
)
def test_arrays_that_are_no_density(density, change, complaint):
    with pytest.raises(InputError, match=complaint):
        open_structure(change(density), PARAMETERS)


@pytest.mark.parametrize("name", ["trap.npy", "trap.pt"])
def test_pickles_are_not_opened(folder, tmp_path, name):
    path, sprung = folder / name, tmp_path / "sprung"
    if name.endswith("npy"):
        np.save(path, np.array([[[Trap(sprung)]]], object), allow_pickle=True)
    else:
        path.write_bytes(pickle.dumps(Trap(sprung)))
    with pytest.raises(InputFileError, match=re.escape(name)):
        open_structure(path, PARAMETERS)
    assert not sprung.exists()


def test_a_flat_map_has_no_power(tmp_path):
    with pytest.raises(CryolikeError, match=r"a power of 0"):
        make(np.zeros((12, 12, 12)), tmp_path / "out")
    assert not (tmp_path / "out" / "template_file_list.npy").exists()


def test_views_are_those_of_the_parameters_by_default(two):
    stack = open_structure(two[0], replace(PARAMETERS, viewing_distance=1.5))
    np.testing.assert_array_equal(stack.viewing.polar, viewing_grid(1.5).polar)
    assert isinstance(stack.source, Projections)


def test_unknown_words(two):
    with pytest.raises(InputError, match=r"models='last' is neither first nor all"):
        open_structures(two, PARAMETERS, models="last")
    with pytest.raises(InputError, match=r"conventions='mine'"):
        open_structures(two, PARAMETERS, conventions="mine")
