"""Frames that stand for a trajectory: how far frames are from each other, which are chosen, and
for how many each stands."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from cryolike_dask import (
    Trajectory,
    choose_subset,
    make_parameters,
    open_structures,
    read_assignment,
    write_subset,
)
from cryolike_dask.errors import InputError, InputFileError, OutputError
from cryolike_dask.io.counts import read_counts
from cryolike_dask.structures.superposing import superposition
from cryolike_dask.structures.trajectories import measures
from cryolike_dask.structures.trajectories.measures import Features, Superposed, features_in
from cryolike_dask.structures.trajectories.representatives import clusters, farthest_points
from tests.commands import in_process, worked
from tests.structures.trajectories import Simulation

pytest.importorskip("MDAnalysis")


def superposed(positions):
    centred = (positions - positions.mean(axis=1, keepdims=True)).astype(np.float32)
    return Superposed(centred, (centred.astype(np.float64) ** 2).sum(axis=(1, 2)))


def rmsd(one, other):
    """By the definition, with the best rotation and translation."""
    rotation, translation = superposition(other, one)
    return np.sqrt(np.mean(np.sum((one @ rotation.T + translation - other) ** 2, axis=1)))


def grouped(rng, sizes=(12, 5, 3), noise=0.02):
    """Shapes of few kinds, each turned and moved: (frame, atom, 3), and the kind of each."""
    kinds = rng.normal(0, 5, (len(sizes), 8, 3))
    kind = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    turned = np.einsum("fij,faj->fai", Rotation.random(len(kind), rng).as_matrix(), kinds[kind])
    moved = turned + rng.normal(0, 20, (len(kind), 1, 3))
    return moved + rng.normal(0, noise, moved.shape), kind


@pytest.mark.parametrize("at_once", [2**25, 1])
def test_distances_are_those_of_superposed_atoms(rng, monkeypatch, at_once):
    """Three witnesses: the definition with the best rotation, MDAnalysis, and a turned copy."""
    from MDAnalysis.analysis.rms import rmsd as of_mdanalysis

    monkeypatch.setattr(measures, "BYTES_AT_ONCE", at_once)
    positions, _ = grouped(rng)
    positions[1] = positions[0] @ Rotation.random(random_state=rng).as_matrix() + 3
    positions[2] = -positions[0]  # a mirror image is no copy
    frames = superposed(positions)
    found = frames.distances(frames.point(0))
    expected = [rmsd(one, positions[0]) for one in positions]
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=1e-5)
    by_library = [
        of_mdanalysis(p, positions[0], center=True, superposition=True) for p in positions
    ]
    np.testing.assert_allclose(found, by_library, atol=1e-4, rtol=1e-5)
    assert found[:2].max() < 1e-4
    assert found[2] > 0.5


def test_means_are_those_of_superposed_atoms(rng, monkeypatch):
    monkeypatch.setattr(measures, "BYTES_AT_ONCE", 8 * 3 * 8 * 2)
    positions, kind = grouped(rng)
    frames, members = superposed(positions), np.flatnonzero(kind == 0)
    near = frames.point(int(members[0]))
    turned = [frames.point(k) @ superposition(near, frames.point(k))[0].T for k in members.tolist()]
    mean = frames.mean(members, near)
    np.testing.assert_allclose(mean, np.mean(turned, axis=0), atol=1e-5)
    assert rmsd(mean, near) < 0.2


def test_farthest_points_are_those_of_the_definition(rng):
    values = rng.normal(0, 1, (60, 2))
    apart = np.linalg.norm(values[:, None] - values[None], axis=2)
    chosen = [0]
    while len(chosen) < 7:
        chosen.append(int(np.argmax(apart[:, chosen].min(axis=1))))
    found = farthest_points(Features(values), 7)
    assert found.chosen.tolist() == chosen
    np.testing.assert_array_equal(found.assignment, np.argmin(apart[:, chosen], axis=1))
    np.testing.assert_allclose(found.distance, apart[:, chosen].min(axis=1), atol=1e-12)


def test_frames_that_are_all_alike_are_chosen_once():
    found = farthest_points(Features(np.array([[1.0], [1.0], [2.0]])), 3)
    assert found.chosen.tolist() == [0, 2]
    assert clusters(Features(np.ones((4, 2))), 3).chosen.tolist() == [0]


@pytest.mark.parametrize("choose", [farthest_points, clusters])
def test_groups_of_shapes_are_found(rng, choose):
    positions, kind = grouped(rng)
    found = choose(superposed(positions), 3)
    assert sorted(kind[found.chosen].tolist()) == [0, 1, 2]
    np.testing.assert_array_equal(kind[found.chosen][found.assignment], kind)
    assert found.distance.max() < 0.2


def test_clusters_are_about_frames_in_their_middles(rng):
    """On a line, two clouds: the frames nearest to the means of each, which farthest points are
    not."""
    values = np.concatenate([rng.normal(0, 1, (50, 1)), rng.normal(20, 1, (30, 1))])
    found = clusters(Features(values), 2)
    for rows in (slice(0, 50), slice(50, 80)):
        cloud = values[rows, 0]
        expected = rows.start + int(np.argmin(np.abs(cloud - cloud.mean())))
        assert expected in found.chosen
    assert sorted(np.bincount(found.assignment).tolist()) == [30, 50]


def test_features_are_over_their_standard_deviations(rng, tmp_path):
    table = rng.normal(0, 1, (20, 3)) * [1, 1000, 0] + [0, 5, 7]
    path = tmp_path / "features.csv"
    for head, apart in (("a, b, c\n", ","), ("", " "), ("# a b c\n", "\t")):
        text = "".join(apart.join(map(repr, row)) + "\n" for row in table.tolist())
        path.write_text(head + text)
        found = features_in(path, np.arange(20), 20)
        np.testing.assert_allclose(found.values[:, :2].std(axis=0), 1)
        np.testing.assert_allclose(found.values[:, 2], 7)
    rows = np.array([3, 8])
    assert len(features_in(path, rows, 20)) == 2
    for content, what in [
        ("", "has 0 lines, but there are 20 frames, of which 2 are chosen"),
        ("1\n" * 19, "has 19 lines"),
        ("1 2\n" * 19 + "1\n", "is not a table of numbers"),
        ("1\n" * 19 + "x\n", "is not a table of numbers"),
        ("nan\n" * 20, "not finite"),
    ]:
        path.write_text(content)
        with pytest.raises(InputFileError, match=what):
            features_in(path, rows, 20)


@pytest.fixture
def trajectory(rng, tmp_path):
    """Twelve frames of three shapes."""
    simulation = Simulation.of(rng, n_frames=12)
    kinds = simulation.positions[:3].copy()
    kinds[1, 12:] += [0.0, 1.5, 1.5]
    kinds[2, 12:] -= [0.0, 1.5, 1.5]
    simulation.positions = kinds[np.arange(12) % 3] + rng.normal(
        0, 0.02, simulation.positions.shape
    )
    path = simulation.write(tmp_path / "run.xtc")
    return Trajectory(path, simulation.pdb(tmp_path / "run.pdb"))


def test_a_subset_is_written_and_opened_by_its_frames(trajectory, tmp_path):
    subset = choose_subset(trajectory, 3)
    assert sorted(subset.chosen % 3) == [0, 1, 2]
    np.testing.assert_array_equal(subset.chosen[subset.assignment] % 3, np.arange(12) % 3)
    assert (subset.counts.tolist(), subset.unit) == ([4, 4, 4], "angstrom")
    written = write_subset(subset, tmp_path / "subset")
    assert [p.name for p in written] == ["frames.txt", "counts.txt", "assignment.csv"]
    assert [line.split() for line in written[1].read_text().splitlines()] == [
        [name, "4"] for name in subset.structures
    ]
    assert read_counts(written[1]) == dict.fromkeys(subset.structures.tolist(), 4.0)
    stacks = open_structures(
        trajectory.path,
        make_parameters(n_pixels=16, pixel_size_angstrom=3.0, viewing_distance=1.0),
        topology=trajectory.topology,
        frames=written[0],
    )
    assert [s.structure for s in stacks] == subset.structures.tolist()
    read = read_assignment(tmp_path / "subset")
    np.testing.assert_array_equal(
        read.structures[read.assignment], subset.structures[subset.assignment]
    )
    np.testing.assert_array_equal(read.frames, np.arange(12))
    np.testing.assert_allclose(read.distance, subset.distance, rtol=1e-5)
    with pytest.raises(OutputError, match="is there already"):
        write_subset(subset, tmp_path / "subset")
    write_subset(subset, tmp_path / "subset", overwrite=True)


def test_of_frames_that_are_chosen_the_others_are_not_looked_at(trajectory):
    some = Trajectory(trajectory.path, trajectory.topology, frames="1-", every=3)
    subset = choose_subset(some, 2, method="clusters")
    assert subset.frames.tolist() == [1, 4, 7, 10]
    assert set(subset.chosen) <= set(subset.frames)


def test_what_cannot_be_chosen_is_told(trajectory, tmp_path):
    for arguments, what in [
        ((trajectory, 13), "n=13, but 12 frames are chosen"),
        ((trajectory, 0), "n=0 is not a positive number"),
        ((trajectory, 1.5), "n=1.5 is not"),
        ((trajectory.path, 3), "is no trajectory"),
        ((Trajectory(trajectory.path, trajectory.topology, selection="name XX"), 3), "0 atom"),
        (
            (Trajectory(trajectory.path, trajectory.topology, selection="resid 1 and name CA"), 3),
            "1 a",
        ),
        ((Trajectory(trajectory.path, None), 3), "does not say what its atoms are"),
    ]:
        with pytest.raises(InputError, match=what):
            choose_subset(*arguments)
    with pytest.raises(InputError, match="method='far' is neither"):
        choose_subset(trajectory, 3, method="far")
    with pytest.raises(InputFileError, match=r"none\.csv: there is no such file"):
        choose_subset(trajectory, 3, by=tmp_path / "none.csv")
    with pytest.raises(OutputError, match=r"cannot take .* GB of coordinates"):
        choose_subset(trajectory, 3, folder=tmp_path / "none")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("", "has no columns frame and structure"),
        ("frame,name\n1,a\n", "has no columns"),
        ("frame,structure\n", "it is empty"),
        ("frame,structure\n1,a\n1,b\n", "names frame 1 more than once"),
        ("frame,structure\n-1,a\n", "names frame -1"),
        ("frame,structure\n1\n", "is no table of frames"),
        ("frame,structure\n1.5,a\n", "is no table of frames"),
        ("frame,structure\n1,a\0\n", "is no table of frames"),
        ("frame,structure,distance\n1,a,far\n", "is no table of frames"),
    ],
)
def test_assignments_that_are_none_are_refused(content, what, tmp_path):
    path = tmp_path / "assignment.csv"
    path.write_text(content)
    with pytest.raises(InputFileError, match=what):
        read_assignment(path)


def test_an_assignment_of_your_own_is_read(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("structure , frame\nb, 3\na,0\nb ,1\n")
    read = read_assignment(path)
    assert read.structures[read.assignment].tolist() == ["b", "a", "b"]
    assert read.frames.tolist() == [3, 0, 1]


def test_the_command_chooses_and_says_what_comes_next(trajectory, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = ["subset", "run.xtc", "--topology", "run.pdb", "--n", 3]
    said = worked(in_process(*command, "--output", "few/of"))
    assert "3 of 12 frames, each for 4 to 4; frames are" in said
    assert "templates run.xtc --topology run.pdb --frames few/of/frames.txt" in said
    assert sorted(p.name for p in (tmp_path / "few/of").iterdir()) == [
        "assignment.csv",
        "counts.txt",
        "frames.txt",
    ]
    refused = in_process(*command, "--output", "few/of")
    assert refused.returncode == 4
    assert "is there already" in refused.stderr.replace("\n", " ")
    (tmp_path / "f.csv").write_text("".join(f"{k % 3}\n" for k in range(12)))
    by = ["--by", "f.csv", "--method", "clusters", "--output", "few/of", "--overwrite"]
    worked(in_process(*command, *by))
    assert [line.split()[1] for line in (tmp_path / "few/of/counts.txt").open()] == ["4"] * 3
    for wrong in (["--n", 13], ["--by", "none.csv"], ["--selection", "nme CA"]):
        assert in_process(*command, "--output", "no", *wrong).returncode == 3
        assert not (tmp_path / "no").exists()
