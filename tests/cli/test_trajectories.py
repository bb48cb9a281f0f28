"""Commands and run.yaml with trajectories: which frames are structures."""

from __future__ import annotations

import numpy as np
import pytest
import yaml

from cryolike_dask import open_results
from tests.commands import in_process, worked
from tests.structures.trajectories import Simulation

pytest.importorskip("MDAnalysis")

GRID = ["--n-pixels", 16, "--pixel-size-angstrom", 3, "--viewing-distance", 1.5]
SEARCH = {"max_displacement_pixels": 1, "n_displacements_x": 1, "n_displacements_y": 1}
FRAMES = ["--topology", "run.pdb", "--frames", "0-4", "--every", 2]
CHOSEN = [f"run_frame_{k:06d}" for k in (0, 2, 4)]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A trajectory of six frames, and parameters; the current folder."""
    monkeypatch.chdir(tmp_path)
    simulation = Simulation.of(np.random.default_rng(1), n_frames=6)
    simulation.pdb(tmp_path / "run.pdb")
    simulation.write(tmp_path / "run.xtc")
    worked(in_process("parameters", *GRID, "--atoms", "--output", "parameters.npz"))
    return tmp_path


def test_frames_are_simulated_and_compared_by_commands_and_by_run_yaml(folder):
    shared = ["--parameters", "parameters.npz", "--workers", 0]
    worked(
        in_process("simulate", "run.xtc", *FRAMES, *shared, "--output", "relion", "--n-images", 6)
    )
    compare = ["--templates", "run.xtc", *FRAMES, "--particles", "relion/particles.star", *shared]
    numbers = [x for key, n in SEARCH.items() for x in (f"--{key.replace('_', '-')}", n)]
    said = in_process("optimal-pose", *compare, *numbers, "--output", "by-command")
    assert "3 frames of 6 are taken" in said.stderr
    worked(said)
    (folder / "frames.txt").write_text("0 2 4  # every other one\n")
    run = {
        "structures": {"files": "run.xtc", "topology": "run.pdb", "frames": "frames.txt"},
        "particles": {"metadata": "relion/particles.star"},
        "parameters": "parameters.npz",
        "search": SEARCH,
        "output": "by-config",
        "machine": {"workers": 0},
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(run))
    worked(in_process("run", "run.yaml"))
    inputs = [*compare, "--n-samples", 2]
    del inputs[inputs.index("--workers") : inputs.index("--workers") + 2]
    assert "nothing is wrong" in worked(in_process("verify", "by-command", *inputs))
    refused = in_process("verify", "by-command", *FRAMES)
    assert "there are none among" in refused.stderr.replace("\n", " ")
    one, other = (open_results(folder / name) for name in ("by-command", "by-config"))
    assert one.structure.values.tolist() == CHOSEN
    np.testing.assert_array_equal(one.log_likelihood_integrated, other.log_likelihood_integrated)
    written = {p: p.stat().st_mtime_ns for p in (folder / "by-config").rglob("*.pt")}
    worked(in_process("run", "run.yaml"))
    assert written == {p: p.stat().st_mtime_ns for p in (folder / "by-config").rglob("*.pt")}


def test_templates_of_frames(folder):
    made = ["templates", "run.xtc", "--parameters", "parameters.npz", "--workers", 0]
    worked(in_process(*made, *FRAMES, "--output", "t"))
    assert sorted(p.stem for p in (folder / "t").glob("*.pt")) == [
        f"templates_fourier_{name}" for name in CHOSEN
    ]
    for arguments, what in [
        ([], "is a trajectory, which does not say what its atoms are"),
        (["--topology", "none.pdb"], "none.pdb: there is no such file"),
        (["--topology", "run.pdb", "--frames", "6"], "frame 6 is asked for, but there are 6"),
        (["--topology", "run.pdb", "--frames", "0:3"], "0:3: there is no such file"),
        (["--topology", "run.pdb", "--every", "0"], "every=0 is not a positive number"),
    ]:
        refused = in_process(*made, *arguments, "--output", "u")
        assert refused.returncode == 3
        assert what in refused.stderr.replace("\n", " ")
        assert not (folder / "u").exists()
    refused = in_process("templates", "run.pdb", *made[2:], *FRAMES, "--output", "u")
    assert "there are none among the structures" in refused.stderr.replace("\n", " ")


@pytest.mark.parametrize(
    ("section", "what"),
    [
        ({"topology": "none.pdb"}, "none.pdb"),
        ({"topology": "run.pdb", "frames": "none.txt"}, "none.txt"),
        ({"topology": "run.pdb", "frames": [1, 1]}, "is neither numbers and ranges"),
        ({"topology": "run.pdb", "frames": -1}, "is neither numbers and ranges"),
        ({"topology": "run.pdb", "every": 0}, "is not a whole number"),
        ({"topology": 3}, "is not a path"),
    ],
)
def test_frames_of_run_yaml_that_are_wrong(folder, section, what):
    run = {
        "structures": {"files": "run.xtc", **section},
        "particles": {"metadata": "run.pdb"},
        "parameters": "parameters.npz",
        "output": "results",
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(run))
    refused = in_process("config", "check", "run.yaml")
    assert refused.returncode == 3
    assert what in refused.stderr.replace("\n", " ") + refused.stdout.replace("\n", " ")
