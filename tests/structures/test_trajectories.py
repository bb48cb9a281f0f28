"""Trajectories as structures: the frames of files of any format, made whole, read where they are
needed; and files that are damaged, or of other atoms."""

from __future__ import annotations

import json
import logging
import pickle
import struct
import sys
import time
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from cryolike_dask import (
    Trajectory,
    make_parameters,
    make_templates,
    open_structure,
    open_structures,
)
from cryolike_dask.errors import InputError, InputFileError
from cryolike_dask.runs.frames import refuse_own_means
from cryolike_dask.structures.models import read_models
from cryolike_dask.structures.trajectories.choosing import chosen_frames
from cryolike_dask.structures.trajectories.contents import FramePlace
from cryolike_dask.structures.trajectories.trajectory import open_trajectory
from tests.structures.trajectories import Simulation

pytest.importorskip("MDAnalysis")

PARAMETERS = make_parameters(
    n_pixels=16,
    pixel_size_angstrom=3.0,
    viewing_distance=1.0,
    use_protein_residue_model=False,
    precision="double",
)
FORMATS = {".xtc": 0.006, ".trr": 1e-5, ".dcd": 1e-5, ".xyz": 1e-5, ".nc": 1e-5}
"""Angstrom by which a coordinate may be off: XTC files keep hundredths."""


@pytest.fixture
def simulation(rng):
    return Simulation.of(rng)


@pytest.fixture
def topology(simulation, tmp_path):
    return simulation.pdb(tmp_path / "top.pdb")


def models(stacks):
    return np.stack([stack.source.structure.model().position_angstrom for stack in stacks])


def read_template_source(file):
    """What a template file says it was made from."""
    return json.loads(str(np.load(file.with_suffix(".npz"))["source"]))


def size_and_time(path):
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def values(stack):
    return stack.data.compute(scheduler="synchronous")


@pytest.mark.parametrize("suffix", FORMATS)
def test_frames_are_those_of_the_models_of_a_pdb_file(simulation, topology, suffix, tmp_path):
    path = simulation.write(tmp_path / f"run{suffix}")
    frames = open_structures(path, PARAMETERS, topology=topology)
    several = simulation.pdb(tmp_path / "models.pdb", slice(None))
    as_models = open_structures(several, PARAMETERS, models="all")
    assert [s.structure for s in frames] == [f"run_frame_{k:06d}" for k in range(5)]
    assert np.abs(models(frames) - simulation.positions).max() < FORMATS[suffix]
    frame, model = (values(stacks[-1]) for stacks in (frames, as_models))
    apart = np.linalg.norm(frame - model) / np.linalg.norm(model)
    assert apart < FORMATS[suffix]  # a wave of 6 angstrom turns by as much as an atom is off
    assert sorted(p.name for p in tmp_path.iterdir()) == ["models.pdb", f"run{suffix}", "top.pdb"]


def test_frames_are_chosen_and_named_by_their_numbers(simulation, topology, tmp_path):
    path = simulation.write(tmp_path / "run.xtc")
    listed = tmp_path / "frames.txt"
    listed.write_text("# the first cluster\n4 1\n")
    for asked, every, expected in [
        ("1-3", 2, [1, 3]),
        (slice(None, None, -2), 1, [4, 2, 0]),
        ([3, 0], 1, [3, 0]),
        (2, 1, [2]),
        (str(listed), 1, [4, 1]),
        (listed, 1, [4, 1]),
        ("2-", 1, [2, 3, 4]),
        (np.array([1]), 1, [1]),
    ]:
        stacks = open_structures(path, PARAMETERS, topology=topology, frames=asked, every=every)
        assert [s.structure for s in stacks] == [f"run_frame_{k:06d}" for k in expected]
        assert np.abs(models(stacks) - simulation.positions[expected]).max() < FORMATS[".xtc"]


@pytest.mark.parametrize(
    ("frames", "every", "what"),
    [
        ("1 1", 1, "frame 1 is asked for more than once"),
        ("5", 1, "frame 5 is asked for, but there are 5. They are counted from 0"),
        ("3-10", 1, "frame 5 is asked for"),
        ("0-99999999999999", 1, "frame 5 is asked for"),
        ("3-1", 1, "'3-1' runs backwards"),
        ("1--2", 1, "'1--2' is no number or range"),
        ("", 1, "'' is no number or range"),
        ([0.5], 1, "frames=0.5 is not a whole number"),
        ([-1], 1, "frames=-1 is not"),
        ([True], 1, "frames=True is not"),
        (slice(9, 12), 1, r"frames=slice\(9, 12, None\) are none"),
        (slice("a", None), 1, "slice"),
        (slice(None, None, 0), 1, "slice"),
        ([], 1, "are none"),
        ("nowhere.txt", 1, "nowhere.txt: there is no such file"),
        (None, 0, "every=0 is not a positive number"),
        (None, 1.5, "every=1.5 is not"),
    ],
)
def test_frames_that_are_not_there_are_refused(frames, every, what):
    with pytest.raises(InputError, match=what):
        chosen_frames(frames, every, 5)


@pytest.mark.parametrize("content", [b"", b"\0\1", b"0, x", b"# nothing\n", "9".encode("utf-16")])
def test_lists_that_are_none_are_refused(content, tmp_path):
    path = tmp_path / "frames.txt"
    path.write_bytes(content)
    with pytest.raises(InputFileError, match=r"frames\.txt: "):
        chosen_frames(path, 1, 5)


@pytest.mark.parametrize("suffix", [".xtc", ".trr", ".dcd"])
def test_what_is_cut_off_says_how_much_is_whole(simulation, topology, suffix, tmp_path, caplog):
    path = simulation.write(tmp_path / f"run{suffix}")
    content = path.read_bytes()
    for lost in (1, 50, len(content) // 6):
        path.write_bytes(content[:-lost])
        with pytest.raises(
            InputFileError, match=rf"run{suffix}: is cut off inside frame 4: it has 4"
        ):
            open_structures(path, PARAMETERS, topology=topology)
        with caplog.at_level(logging.INFO):
            stacks = open_structures(path, PARAMETERS, topology=topology, frames="0-3")
        assert "cut off inside frame 4" in caplog.text
        assert np.abs(models(stacks) - simulation.positions[:4]).max() < FORMATS[suffix]


@pytest.mark.parametrize("suffix", [".xtc", ".trr"])
def test_what_is_damaged_is_told(simulation, topology, suffix, tmp_path):
    path = simulation.write(tmp_path / f"run{suffix}")
    content = path.read_bytes()
    third = content.find(content[:8], content.find(content[:8], 8) + 8)
    for what, damaged in [
        ("damaged after 2 frames", content[:third] + b"\7" + content[third + 1 :]),
        ("damaged after 2 frames", content[:third] + content[third + 4 :]),
        ("25 atoms after frames of 24", None),
        ("is not an? ... file", b"\0" * len(content)),
        ("is not an? ... file", topology.read_bytes()),
        ("is empty", b""),
        ("cut off inside its first frame", content[:40]),
    ]:
        if damaged is None:
            at = third + (4 if suffix == ".xtc" else content.find(struct.pack(">i", 24), 8))
            damaged = content[:at] + struct.pack(">i", 25) + content[at + 4 :]
            what = what if suffix == ".xtc" else "288 bytes of positions of 25 atoms"
        path.write_bytes(damaged)
        with pytest.raises(InputFileError, match=rf"run{suffix}: .*{what}"):
            open_structures(path, PARAMETERS, topology=topology)


@pytest.mark.parametrize("suffix", [".dcd", ".xyz", ".nc", ".h5md", ".gsd"])
@pytest.mark.parametrize("content", [b"", b"\0" * 500, b"no trajectory " * 30])
def test_what_is_no_trajectory_is_told(topology, suffix, content, tmp_path):
    path = tmp_path / f"run{suffix}"
    path.write_bytes(content)
    with pytest.raises(InputFileError, match=rf"run{suffix}: "):
        open_structures(path, PARAMETERS, topology=topology)


def test_a_frame_that_is_damaged_inside_is_told_when_it_is_read(simulation, topology, tmp_path):
    path = simulation.write(tmp_path / "run.trr")
    content = bytearray(path.read_bytes())
    content[-12:-8] = struct.pack(">f", np.nan)
    path.write_bytes(content)
    *_, last = open_structures(path, PARAMETERS, topology=topology)
    with pytest.raises(InputFileError, match=r"run\.trr: frame 4 has coordinates that are not fin"):
        values(last)
    path.write_bytes(content[:-1])
    with pytest.raises(InputFileError, match="has changed since it was opened"):
        values(last)


def test_a_topology_of_other_atoms_is_refused(simulation, topology, rng, tmp_path, caplog):
    path = simulation.write(tmp_path / "run.xtc")
    more = Simulation.of(rng, n_residues=7).pdb(tmp_path / "more.pdb")
    with pytest.raises(InputFileError, match=r"has 24 atoms, but its topology .*more.pdb has 28"):
        open_structures(path, PARAMETERS, topology=more)
    shuffled = Simulation(rng.permutation(simulation.positions[0])[None]).pdb(tmp_path / "s.pdb")
    with pytest.raises(InputFileError, match=r"far from the neighbours .*s\.pdb"):
        open_structures(path, PARAMETERS, topology=shuffled)
    for other, what in [
        (None, "is a trajectory, which does not say what its atoms are"),
        (tmp_path / "none.pdb", "there is no such file. Check the name of the topology"),
        (tmp_path, "is a folder"),
        (path, "is not a topology by its name"),
        (tmp_path / "empty.pdb", "has no atoms"),
        (tmp_path / "empty.psf", "cannot be read as a topology"),
    ]:
        if other is not None and other.name.startswith("empty"):
            other.write_bytes(b"")
        with pytest.raises(InputFileError, match=what):
            open_structures(path, PARAMETERS, topology=other)
    assert not [record for record in caplog.records if record.name.startswith("MDAnalysis")]


def test_what_is_said_of_trajectories_needs_one(topology, tmp_path, simulation):
    for said in ({"topology": topology}, {"frames": 1}, {"every": 2}, {"selection": "name CA"}):
        with pytest.raises(InputError, match="there are none among the structures"):
            open_structures(topology, PARAMETERS, **said)
    path = simulation.write(tmp_path / "run.xtc")
    with pytest.raises(InputError, match="5 frames are chosen"):
        open_structure(Trajectory(path, topology), PARAMETERS)
    assert open_structure(Trajectory(path, topology, 3), PARAMETERS).structure == "run_frame_000003"
    with pytest.raises(InputFileError, match=r"missing input file.*\n.*none\.xtc"):
        open_structures([path, tmp_path / "none.xtc"], PARAMETERS, topology=topology)


def test_atoms_are_selected_and_b_factors_refused(simulation, topology, tmp_path):
    path = simulation.write(tmp_path / "run.xtc")
    (stack,) = open_structures(
        path, PARAMETERS, topology=topology, frames=0, selection="name CA and resid 1-3"
    )
    assert len(stack.source.structure.load()) == 3
    with pytest.raises(InputFileError, match="no atom is selected"):
        open_structures(path, PARAMETERS, topology=topology, selection="name XX")
    ours = make_parameters(n_pixels=16, pixel_size_angstrom=3.0, atom_selection="name N")
    with pytest.raises(InputError, match="selection='name CA', but the parameters say"):
        open_structures(path, ours, topology=topology, selection="name CA")
    scattering = make_parameters(
        n_pixels=16, pixel_size_angstrom=3.0, atom_shape="scattering", atomic_b="file"
    )
    with pytest.raises(InputFileError, match=r"run\.xtc: is a trajectory, which has no B-factors"):
        open_structures(path, scattering, topology=topology)


BOXES = ([31.0, 33.0, 35.0, 90, 90, 90], [36.0, 36.0, 36.0, 60, 60, 90])


@pytest.mark.parametrize("suffix", [".xtc", ".trr", ".dcd"])
@pytest.mark.parametrize("box", BOXES)
def test_periodic_images_are_made_whole(rng, suffix, box, tmp_path, caplog):
    """Atoms are wrapped into the box one by one; distances come back, of atoms and of chains."""
    from MDAnalysis.lib.mdamath import triclinic_vectors

    simulation = Simulation.of(rng, n_chains=2)
    edges = triclinic_vectors(box).astype(float)
    moved = simulation.positions + rng.uniform(-50, 50, (5, 1, 3))
    wrapped = moved - np.floor(moved @ np.linalg.inv(edges)) @ edges
    assert np.ptp(wrapped, axis=1).max() > 25  # some frame is broken
    path = simulation.write(tmp_path / f"run{suffix}", box, wrapped)
    with caplog.at_level(logging.INFO):
        stacks = open_structures(path, PARAMETERS, topology=simulation.pdb(tmp_path / "top.pdb"))
    assert "periodic images are made whole" in caplog.text
    back = models(stacks)
    for found, expected in zip(back, simulation.positions, strict=True):
        apart = found - expected
        assert np.abs(apart - apart[0]).max() < 4 * FORMATS[suffix]


def test_parts_that_are_apart_in_the_topology_are_told(rng, tmp_path, caplog):
    simulation = Simulation.of(rng, n_chains=2)
    simulation.positions[:, simulation.n_atoms // 2 :] += [0, 0, 12]
    path = simulation.write(tmp_path / "run.xtc", [90.0, 90, 90, 90, 90, 90])
    with caplog.at_level(logging.INFO):
        open_structures(path, PARAMETERS, topology=simulation.pdb(tmp_path / "top.pdb"))
    assert "its 2 parts that are apart there keep their places" in caplog.text


def test_topologies_of_mdanalysis_are_the_same(simulation, topology, tmp_path):
    """GRO files have names and positions, and no elements."""
    import MDAnalysis

    path = simulation.write(tmp_path / "run.trr")
    MDAnalysis.Universe(str(topology)).atoms.write(str(tmp_path / "top.gro"))
    by_pdb, by_gro = (
        open_structures(path, PARAMETERS, topology=top) for top in (topology, tmp_path / "top.gro")
    )
    np.testing.assert_array_equal(models(by_pdb), models(by_gro))
    np.testing.assert_array_equal(values(by_pdb[0]), values(by_gro[0]))


def test_bonds_that_a_topology_states_make_images_whole(simulation, topology, tmp_path):
    """PSF files have bonds, and no positions."""
    (path_of_pdb,) = open_structures(topology, PARAMETERS)
    model = read_models(topology)[0]
    bonds = [(k, k + 1) for k in range(simulation.n_atoms - 1)]
    psf = tmp_path / "top.psf"
    psf.write_text(
        f"PSF\n\n{1:8d} !NTITLE\n REMARKS\n\n{simulation.n_atoms:8d} !NATOM\n"
        + "".join(
            f"{k + 1:8d} A    {model.residue_number[k]:<4d} {model.residue_name[k]:4s} "
            f"{model.name[k]:4s} {model.name[k]:4s} {0:10.6f}     {12:9.4f}  {0:10d}\n"
            for k in range(simulation.n_atoms)
        )
        + f"\n{len(bonds):8d} !NBOND: bonds\n"
        + "".join(f"{i + 1:8d}{j + 1:8d}" + "\n" * (i % 4 == 3) for i, j in bonds)
        + "\n\n"
        + "".join(f"{0:8d} !{of}\n\n\n" for of in ("NTHETA", "NPHI", "NIMPHI", "NDON", "NACC"))
    )
    box = np.array([31.0, 33, 35])
    wrapped = (simulation.positions + np.array([15, 9, 4])) % box
    path = simulation.write(tmp_path / "run.trr", [*box, 90, 90, 90], wrapped)
    stacks = open_structures(path, PARAMETERS, topology=psf)
    apart = models(stacks) - simulation.positions
    assert np.abs(apart - apart[:, :1]).max() < 1e-4
    atoms = stacks[0].source.structure.load()
    np.testing.assert_array_equal(atoms.electrons, path_of_pdb.source.structure.load().electrons)


def test_frames_are_superposed_as_models_are(simulation, topology, tmp_path):
    parameters = make_parameters(
        n_pixels=16,
        pixel_size_angstrom=3.0,
        viewing_distance=1.0,
        use_protein_residue_model=False,
        superpose="name CA",
        precision="double",
    )
    path = simulation.write(tmp_path / "run.trr")
    several = simulation.pdb(tmp_path / "models.pdb", slice(None))
    frames = open_structures(path, parameters, topology=topology)
    as_models = open_structures(several, parameters, models="all")
    frame, model = (values(stacks[-1]) for stacks in (frames, as_models))
    np.testing.assert_allclose(frame, model, atol=1e-5 * abs(model).max())


def test_templates_say_which_frame_they_are_of(simulation, topology, tmp_path):
    path = simulation.write(tmp_path / "run.xtc")
    trajectory = Trajectory(path, topology, frames=[1, 3])
    files = make_templates(trajectory, PARAMETERS, tmp_path / "templates", progress=False)
    assert [f.name for f in files] == [f"templates_fourier_run_frame_00000{k}.pt" for k in (1, 3)]
    made_from = [read_template_source(f)[0] for f in files]
    assert [(of["name"], of["frame"]) for of in made_from] == [("run.xtc", 1), ("run.xtc", 3)]
    before = [f.stat().st_mtime_ns for f in files]
    make_templates(trajectory, PARAMETERS, tmp_path / "templates", progress=False, skip_exist=True)
    assert [f.stat().st_mtime_ns for f in files] == before


def test_frames_about_their_own_means_do_not_lie_in_one_frame(simulation, topology, tmp_path):
    """As models do not, around recorded poses."""
    path = simulation.write(tmp_path / "run.xtc")
    with pytest.raises(InputError, match="but 5 structures"):
        refuse_own_means(open_structures(path, PARAMETERS, topology=topology))
    superposed = replace(PARAMETERS, superpose="name CA")
    refuse_own_means(open_structures(path, superposed, topology=topology))


def test_chains_that_come_apart_are_of_the_topology(rng, tmp_path):
    """Contacts between chains may be gone; bonds may not."""
    simulation = Simulation.of(rng, n_chains=2, n_residues=1)
    topology = simulation.pdb(tmp_path / "top.pdb")
    simulation.positions[:, 4:] += 40
    path = simulation.write(tmp_path / "run.xtc")
    assert len(open_structures(path, PARAMETERS, topology=topology)) == 5


def test_a_million_frames_are_opened_in_a_second_and_little_memory(tmp_path):
    """Frames of three atoms, which XTC files do not compress, each a megabyte's hundredth."""
    head = struct.pack(">iiif9fi", 1995, 3, 0, 0.0, *np.eye(3).ravel() * 5, 3)
    frame = head + struct.pack(">9f", *np.arange(9) / 10)
    path, topology = tmp_path / "long.xtc", tmp_path / "top.pdb"
    with open(path, "wb") as file:
        for _ in range(100):
            file.write(frame * 10_000)
    places = np.arange(9).reshape(3, 3)
    topology.write_text(
        "".join(
            f"ATOM  {k:5d}  CA  GLY A{k:4d}    {x:8.3f}{y:8.3f}{z:8.3f}  1.00  0.00           C\n"
            for k, (x, y, z) in enumerate(places)
        )
    )
    open_structures(path, PARAMETERS, topology=topology, frames=0)  # what is imported, and compiled
    started = time.process_time()
    stacks = open_structures(path, PARAMETERS, topology=topology, every=10_000)
    seconds = time.process_time() - started
    assert [len(stacks), stacks[-1].structure] == [100, "long_frame_990000"]
    np.testing.assert_allclose(models(stacks[-1:])[0], places, atol=1e-5)
    assert seconds < 1.5  # 0.6 to 0.9 on two busy cores
    with pytest.raises(InputFileError, match="gives 1,000,000 structures"):
        open_structures(path, PARAMETERS, topology=topology)
    with open(path, "r+b") as file:
        file.truncate(len(frame) * 100_000)
    tracemalloc.start()
    opened = open_trajectory(Trajectory(path, topology, every=10_000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert opened.contents.n_frames == 100_000
    assert peak < 2**21  # eight bytes for each frame, and as many while there is room made for more
    assert len(pickle.dumps(stacks[0].source)) < 4000


def test_without_mdanalysis_it_is_said_what_to_install(simulation, topology, tmp_path, monkeypatch):
    path = simulation.write(tmp_path / "run.xtc")
    for name in [name for name in sys.modules if name.split(".")[0] == "MDAnalysis"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "MDAnalysis", None)
    with pytest.raises(InputError, match=r"pip install .cryolike_dask\[trajectories\]"):
        open_structures(path, PARAMETERS, topology=topology)


def test_bits_that_would_be_written_beyond_their_room_are_refused(rng, tmp_path):
    """Frames of XTC files with bytes changed at random: read, or refused, and never read wrongly
    beyond their atoms; and all sizes of boxes that are written are read."""
    for spread, n_residues in ((1, 4), (30, 20), (3e5, 6)):
        simulation = Simulation.of(rng, n_frames=1, n_residues=n_residues)
        moved = rng.normal(0, spread, (1, simulation.n_atoms // 8, 3))
        simulation.positions += moved.repeat(8, axis=1)
        path = simulation.write(tmp_path / f"run{n_residues}.xtc")
        place = FramePlace(str(path), 0, 0, simulation.n_atoms, *size_and_time(path))
        error = np.abs(place.read()[0] - simulation.positions).max()
        assert error < 0.006 + 1e-6 * np.abs(simulation.positions).max()
        content, refused = path.read_bytes(), []
        for _ in range(100):
            changed = bytearray(content)
            for at in rng.integers(52, len(content), 2):
                changed[at] = rng.choice([0, 1, 127, 128, 255])
            path.write_bytes(changed)
            place = FramePlace(str(path), 0, 0, simulation.n_atoms, *size_and_time(path))
            try:
                assert place.read()[0].shape == (simulation.n_atoms, 3)
            except InputFileError as told:
                refused.append(str(told).startswith(f"{path}: frame 0 "))
        assert refused  # a quarter of them
        assert all(refused)
