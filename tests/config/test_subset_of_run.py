"""A subset of a trajectory inside run.yaml: chosen once, kept, and never mixed with another."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import yaml

import cryolike_dask as cld
from cryolike_dask.config import subset as of_runs
from cryolike_dask.config.reading import read_config
from cryolike_dask.config.run_config import run_config
from cryolike_dask.errors import InputError, InputFileError, OutputError
from cryolike_dask.io.records import checksum
from tests.commands import in_process, worked
from tests.structures.trajectories import Simulation

pytest.importorskip("MDAnalysis")

N_FRAMES = 12


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A trajectory, features of its frames, and particles of some of them."""
    folder = tmp_path_factory.mktemp("subset")
    simulation = Simulation.of(np.random.default_rng(5), n_frames=N_FRAMES)
    simulation.pdb(folder / "run.pdb")
    simulation.write(folder / "run.xtc")
    (folder / "features.csv").write_text("".join(f"{k % 5},{k}\n" for k in range(N_FRAMES)))
    parameters = cld.make_parameters(16, 3.0, viewing_distance=1.5, atom_shape="gaussian")
    cld.simulate_particles(
        cld.Trajectory(folder / "run.xtc", folder / "run.pdb", every=4),
        parameters,
        folder / "relion",
        n_images=6,
        progress=False,
    )
    return folder


def described(data, output, **subset):
    """What such a run.yaml says."""
    return {
        "structures": {
            "files": str(data / "run.xtc"),
            "topology": str(data / "run.pdb"),
            "every": 2,
            "subset": {"n": 3, **subset},
        },
        "particles": {"metadata": str(data / "relion/particles.star")},
        "parameters": {
            **{"n_pixels": 16, "pixel_size_angstrom": 3.0},
            **{"viewing_distance": 1.5, "atom_shape": "gaussian"},
        },
        "search": {"max_displacement_pixels": 1, "n_displacements_x": 1, "n_displacements_y": 1},
        "noise": "white",
        "output": str(output),
        "machine": {"workers": 0},
    }


def ran(data, output, **changed):
    return run_config(read_config({**described(data, output), **changed}))


def by_hand(data, **options):
    return cld.choose_subset(
        cld.Trajectory(data / "run.xtc", data / "run.pdb", every=2), 3, **options
    )


def never(*_, **__):
    raise AssertionError("frames are chosen again")


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    """The folder of a run that asks for all there is, decoys included."""
    output = tmp_path_factory.mktemp("run") / "results"
    values = described(data, output)
    values["structures"]["decoys"] = 1
    values["populations"] = {"n_bootstrap": 0}
    path = output.with_name("run.yaml")
    path.write_text(yaml.safe_dump(values))
    worked(in_process("run", path))
    return output


def test_one_file_goes_from_a_trajectory_to_free_energies(data, finished, tmp_path, monkeypatch):
    few = by_hand(data)
    for path in cld.write_subset(few, tmp_path / "by-hand"):
        assert (finished / "subset" / path.name).read_bytes() == path.read_bytes()
    results = cld.open_results(finished)
    is_decoy = results.decoy_of.values.astype(str) != ""
    assert results.structure.values[~is_decoy].tolist() == few.structures.tolist()
    assert is_decoy.sum() == 3
    shares = xr.open_zarr(finished / "populations/populations.zarr").load()
    counts = dict(zip(few.structures.tolist(), few.counts.tolist(), strict=True))
    expected = cld.populations(results, counts=counts, n_bootstrap=0)
    np.testing.assert_array_equal(shares.population, expected.population)
    np.testing.assert_allclose(
        shares.weight, shares.population / (few.counts / few.counts.sum()), rtol=1e-12
    )
    weights = cld.frame_weight(shares, finished / "subset")
    assert weights.frame.values.tolist() == [*range(0, N_FRAMES, 2)]
    assert float(weights.sum()) == pytest.approx(1)
    # going on, and looking at a copy elsewhere, no frame is chosen again
    monkeypatch.setattr(of_runs, "choose_subset", never)
    before = {p: p.stat().st_mtime_ns for p in (finished / "subset").iterdir()}
    assert len(before) == 4
    worked(in_process("run", finished / "run.yaml"))
    assert {p: p.stat().st_mtime_ns for p in (finished / "subset").iterdir()} == before
    shutil.copytree(finished, tmp_path / "copy")
    moved = finished.rename(finished.with_name("away"))
    try:
        said = worked(in_process("verify", tmp_path / "copy", "--n-samples", 1))
    finally:
        moved.rename(finished)
    assert "nothing is wrong" in said


def test_the_same_frames_by_their_list_are_the_same_structures(data, finished, tmp_path):
    values = described(data, tmp_path / "out")
    frames = str(finished / "subset/frames.txt")
    values["structures"] |= {"frames": frames, "every": 1}
    del values["structures"]["subset"]
    listed, chosen = run_config(read_config(values)), cld.open_results(finished)
    chosen = chosen.sel(structure=listed.structure.values)
    np.testing.assert_array_equal(
        listed.log_likelihood_integrated, chosen.log_likelihood_integrated
    )


def test_counts_of_your_own_come_first(data, tmp_path):
    (tmp_path / "counts.txt").write_text("1\n1\n2\n")
    ran(data, tmp_path / "out", populations={"counts": str(tmp_path / "counts.txt")})
    shares = xr.open_zarr(tmp_path / "out/populations/populations.zarr")
    assert shares.attrs["prior"] == "Dirichlet(0.75, 0.75, 1.5)"


def test_the_page_of_steps_goes_from_a_simulation_to_a_figure(data, tmp_path, monkeypatch):
    monkeypatch.chdir(shutil.copytree(data, tmp_path / "here"))
    page = (Path(cld.__file__).parents[1] / "docs/steps.md").read_text()
    said, code = (
        re.search(rf" as {name} -->\n```\w+\n(.*?)\n```", page, re.DOTALL)[1]
        for name in ("simulation", "free energy")
    )
    values, small = yaml.safe_load(said), described(data, "results")
    values["structures"]["subset"]["n"] = 3
    values["parameters"] |= {"n_pixels": 16, "pixel_size_angstrom": 3.0, "viewing_distance": 1.5}
    values |= {key: small[key] for key in ("search", "noise", "machine")}
    Path("simulation.yaml").write_text(yaml.safe_dump(values))
    worked(in_process("run", "simulation.yaml"))
    np.savetxt("distance.txt", np.arange(N_FRAMES))
    names = {}
    exec(code, names)
    assert names["weight"].sizes == {"frame": N_FRAMES}
    assert np.nanmin(names["profile"].free_energy) == 0
    assert Path("free-energy.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"subset": {"n": 2}}, "n: 3 there, 2 here"),
        ({"subset": {"n": 3, "method": "clusters"}}, "method: farthest there, clusters here"),
        ({"subset": {"n": 3, "by": "features.csv"}}, "by: rmsd there, features.csv here"),
        ({"subset": {"n": 3, "selection": "name C"}}, "selection: None there, name C here"),
        ({"every": 1}, "frames: number: 6 there, 12 here"),
        ({"frames": [1, 3, 5, 7, 9, 11], "every": 1}, "frames: others there"),
    ],
)
def test_another_subset_is_refused(data, finished, changed, told):
    values = described(data, finished)
    values["structures"] |= changed
    if isinstance(values["structures"]["subset"].get("by"), str):
        values["structures"]["subset"]["by"] = str(data / "features.csv")
    with pytest.raises(OutputError) as refusal:
        run_config(read_config(values))
    assert "holds results of another subset (subset/subset.json)" in str(refusal.value)
    assert told in str(refusal.value)
    assert "--overwrite" in str(refusal.value)


def with_record(folder, frames):
    """Another list of frames, of which the record says that it was written."""
    (folder / "frames.txt").write_text(frames)
    record = json.loads((folder / "subset.json").read_text())
    record["files"]["frames.txt"] = checksum(folder / "frames.txt")
    (folder / "subset.json").write_text(json.dumps(record))


def test_overwriting_and_what_is_missing_or_changed(data, tmp_path, monkeypatch):
    output = tmp_path / "out"
    ran(data, output)
    written = {p: p.read_bytes() for p in (output / "subset").iterdir()}
    for spoil in (
        lambda: (output / "subset/frames.txt").write_text("0\n2\n4\n"),
        lambda: (output / "subset/assignment.csv").unlink(),
        lambda: with_record(output / "subset", "0\nzwei\n4\n"),
        lambda: [(output / "subset" / n).unlink() for n in ("frames.txt", "counts.txt")],
    ):
        spoil()  # as a run that was killed leaves it, or a careless hand
        ran(data, output)
        assert {p: p.read_bytes() for p in (output / "subset").iterdir()} == written
    # another, over it
    values = described(data, output, n=2, method="clusters", by=str(data / "features.csv"))
    results = run_config(read_config({**values, "machine": {"workers": 0, "overwrite": True}}))
    few = cld.choose_subset(
        cld.Trajectory(data / "run.xtc", data / "run.pdb", every=2),
        2,
        method="clusters",
        by=data / "features.csv",
    )
    assert results.structure.values.tolist() == few.structures.tolist()
    assert (output / "subset/frames.txt").read_text().split() == [*map(str, few.chosen.tolist())]
    # a record that says nothing, and files of someone else's
    for content in (b"", b"[1", b"[]", b'{"subset": 3}', b"{" * 100_000):
        (output / "subset/subset.json").write_bytes(content)
        with pytest.raises(OutputError, match=r"frames.txt: is there already"):
            run_config(read_config(values))


def test_a_trajectory_that_was_made_again_is_looked_at_again(data, tmp_path):
    for name in ("run.xtc", "run.pdb", "relion"):
        copy = shutil.copytree if name == "relion" else shutil.copy
        copy(data / name, tmp_path / name)
    ran(tmp_path, tmp_path / "out")
    Simulation.of(np.random.default_rng(6), n_frames=N_FRAMES).write(tmp_path / "run.xtc")
    few = by_hand(tmp_path)
    if few.chosen.tolist() == by_hand(data).chosen.tolist():
        pytest.fail("choose other numbers for this test")
    with pytest.raises(OutputError, match="structure"):
        ran(tmp_path, tmp_path / "out")


def test_a_check_and_a_plan_write_nothing(data, tmp_path):
    path = tmp_path / "run.yaml"
    values = described(data, tmp_path / "out")
    values["structures"]["decoys"] = 1
    path.write_text(yaml.safe_dump({**values, "populations": True}))
    said = worked(in_process("config", "check", path))
    assert "3 frames of run.xtc (farthest, by rmsd)" in said
    planned = worked(in_process("run", path, "--plan"))
    assert "6 structures x 6 images" in planned
    assert "  frames  3 frames of run.xtc (farthest, by rmsd)" in planned
    assert "  shares  drawn, of 18 likelihoods (6 images x 3 structures): " in planned
    assert [p.name for p in tmp_path.iterdir()] == ["run.yaml"]


WRONG = [
    ({"subset": {}}, "structures.subset.n is missing: Frames that are chosen."),
    ({"subset": None}, "structures.subset.n is missing"),
    ({"subset": 3}, "structures.subset=3 is no section; its keys are n, method, by, selection"),
    ({"subset": {"n": 0}}, "structures.subset.n=0 is not a whole number, 1 or more"),
    ({"subset": {"n": "3"}}, "it is text: write 3, without quotes"),
    ({"subset": {"n": 3, "method": "nearest"}}, "is not one of farthest, clusters"),
    ({"subset": {"n": 3, "by": 5}}, "structures.subset.by=5 is not a path"),
    ({"subset": {"n": 3, "k": 5}}, "structures.subset.k is not known; known are n, method, by"),
    ({"subset": {"n": 3, 7: 5}}, "structures.subset.7 is not known"),
    ({"subset": {"n": 3, "metod": "clusters"}}, "did you mean structures.subset.method?"),
    ({"subset": {"n": 3, "selection": "name"}}, "structures.subset.selection="),
    (
        {"subset": {"n": 3, "by": "f.csv", "selection": "name CA"}},
        "is of rmsd, but by=",
    ),
    ({"files": "run.pdb"}, "structures: subset is of frames of a trajectory"),
    ({"files": ["run.xtc", "run.dcd"]}, "structures: subset is of frames of a trajectory"),
    ({"i_template": 0}, "structures: subset stands for all frames, but i_template"),
    ({"files": None, "templates": "t"}, "excludes templates="),
]


@pytest.mark.parametrize(("changed", "told"), WRONG)
def test_a_subset_that_cannot_be_is_told_at_reading(data, tmp_path, changed, told):
    values = described(data, tmp_path / "out")
    values["structures"] |= changed
    with pytest.raises(InputError) as refusal:
        read_config(values)
    assert told in str(refusal.value)


@pytest.mark.parametrize(
    ("subset", "told"),
    [
        ({"n": 7}, "n=7, but 6 frames are chosen"),
        ({"n": 3, "by": "none.csv"}, "none.csv"),
        ({"n": 3, "by": "run.pdb"}, "is not a table of numbers"),
        ({"n": 3, "selection": "name ZZ"}, "name ZZ"),
    ],
)
def test_a_subset_that_cannot_be_chosen_is_one_error(data, tmp_path, subset, told):
    if "by" in subset:
        subset = {**subset, "by": str(data / subset["by"])}
    path = tmp_path / "run.yaml"
    values = described(data, tmp_path / "out")
    values["structures"]["subset"] = subset
    path.write_text(yaml.safe_dump(values))
    for command in (["config", "check", path], ["run", path], ["run", path, "--plan"]):
        refused = in_process(*command)
        assert refused.returncode == 3
        assert told in refused.stderr.replace("\n", " ")
        assert refused.stderr.count("error: ") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["run.yaml"]


def test_a_topology_that_is_missing_is_told_first(data, tmp_path):
    values = described(data, tmp_path / "out")
    values["structures"]["topology"] = str(tmp_path / "none.pdb")
    with pytest.raises(InputFileError, match=r"none\.pdb"):
        run_config(read_config(values))
