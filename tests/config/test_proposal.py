"""A configuration proposed for inputs, and what would make a run cheaper."""

from __future__ import annotations

import math
import re
import shutil
from dataclasses import replace

import gemmi
import numpy as np
import pytest
import yaml

import cryolike_dask as cld
from cryolike_dask.config import cheaper, proposal
from cryolike_dask.config.cheaper import alternatives
from cryolike_dask.config.plan import RunPlan
from cryolike_dask.config.proposal import propose
from cryolike_dask.config.reading import read_config
from cryolike_dask.errors import InputError
from cryolike_dask.runs.cost import LikelihoodPlan
from cryolike_dask.simulation.demo import write_hinge
from tests.commands import in_process, worked

N, PIXEL, N_IMAGES = 48, 2.5, 12


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two structures, and particles of both up to four pixels off the middle."""
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "models").mkdir()
    for name, opening in (("closed", 0.0), ("open", 0.9)):
        write_hinge(folder / f"models/{name}.pdb", opening_radian=opening)
    parameters = cld.make_parameters(N, PIXEL, view_step_degrees=60, atom_shape="scattering")
    cld.simulate_particles(folder / "models", parameters, folder / "p", n_images=N_IMAGES, seed=1)
    return folder


def diameter(path):
    """Of the atoms of a PDB file, about their mean."""
    lines = [line for line in path.read_text().splitlines() if line.startswith("ATOM")]
    at = np.array([[float(line[k : k + 8]) for k in (30, 38, 46)] for line in lines])
    return 2 * np.linalg.norm(at - at.mean(0), axis=1).max()


def test_what_inputs_say_is_what_the_file_says(data):
    proposed = propose(data, ["models"], ["p/particles.star"])
    values, box = proposed.values, N * PIXEL
    grid = values["parameters"]
    assert grid["n_pixels"] == 2 * math.ceil(box / 8)
    assert grid["n_pixels"] * grid["pixel_size_angstrom"] == pytest.approx(box)
    largest = max(diameter(path) for path in (data / "models").iterdir())
    step = math.degrees(2 * grid["pixel_size_angstrom"] / largest)
    assert grid["view_step_degrees"] == pytest.approx(step, rel=0.05)
    table = cld.open_particles(data / "p/particles.star", proposed.parameters).source.table
    # origins are taken off first, and leave less than what is resolved
    assert values["particles"]["recenter"] is True
    recorded = np.quantile(np.abs(table.origin_angstrom).max(axis=1), 0.995)
    assert f"within {recorded:.3g} angstrom" in proposed.reasons["particles.recenter"]
    farthest = values["search"]["max_displacement_pixels"] * grid["pixel_size_angstrom"]
    assert 8 <= farthest <= 8 + grid["pixel_size_angstrom"]
    assert values["structures"] == {"files": ["models"]}
    assert values["populations"] is True
    assert values["machine"]["device"] == "cpu"
    finer = propose(data, ["models"], ["p/particles.star"], resolution_angstrom=5)
    assert finer.parameters.n_pixels == N
    assert finer.parameters.resolution_angstrom == pytest.approx(5)
    one = propose(data, ["models/open.pdb"], ["p/particles.star"])
    assert "populations" not in one.values
    with pytest.raises(InputError, match="does not have the symmetry C2"):
        propose(data, ["models/open.pdb"], ["p/particles.star"], symmetry="C2")


def test_views_are_those_of_the_symmetry_that_structures_have(data, tmp_path):
    """Unless they are asked for as they are."""
    shutil.copytree(data, tmp_path / "d")
    model = gemmi.read_structure(str(data / "models/open.pdb"))
    for atom in (cra.atom for cra in model[0].all()):
        atom.pos += gemmi.Position(12, 0, 0)
    other = model[0][0].clone()
    other.name = "B"
    for atom in (atom for residue in other for atom in residue):
        atom.pos = gemmi.Position(-atom.pos.x, -atom.pos.y, atom.pos.z)
    model[0].add_chain(other)
    model.write_pdb(str(tmp_path / "d/dimer.pdb"))
    found = propose(tmp_path / "d", ["dimer.pdb"], ["p/particles.star"])
    assert found.values["parameters"]["symmetry"] == "C2"
    assert found.reasons["parameters.symmetry"].startswith("measured")
    plain = propose(tmp_path / "d", ["dimer.pdb"], ["p/particles.star"], symmetry="C1")
    assert "symmetry" not in plain.values["parameters"]
    views = [len(one.parameters.viewing_angles()) for one in (found, plain)]
    assert views[0] == pytest.approx(views[1] / 2, rel=0.1)
    both = propose(tmp_path / "d", ["dimer.pdb", "models/open.pdb"], ["p/particles.star"])
    assert "symmetry" not in both.values["parameters"]


def test_without_origins_the_search_is_wide(data, tmp_path):
    shutil.copytree(data, tmp_path / "d")
    star = tmp_path / "d/p/particles.star"
    star.write_text(re.sub("rlnOrigin([XY])Angst", r"unknown\1", star.read_text()))
    proposed = propose(tmp_path / "d", ["models"], ["p/particles.star"])
    assert proposed.reasons["search.max_displacement_pixels"] == "no origins are recorded"
    reach = proposed.values["search"]["max_displacement_pixels"]
    assert reach * proposed.parameters.pixel_size_angstrom >= 0.05 * N * PIXEL + 8
    assert "recenter" not in proposed.values["particles"]


def test_templates_are_written_where_they_would_be_projected_again(data, monkeypatch):
    assert not propose(data, ["models"], ["p/particles.star"]).writes_templates
    monkeypatch.setattr(proposal, "IMAGES_PER_STACK", N_IMAGES // 3)
    many = propose(data, ["models"], ["p/particles.star"])
    assert many.writes_templates
    assert "for each of 3 image stacks" in many.text()
    assert yaml.safe_load(many.text())["structures"] == {"templates": "templates"}
    monkeypatch.setattr(proposal, "PART_OF_THE_DISK", 0)
    assert not propose(data, ["models"], ["p/particles.star"]).writes_templates


def test_init_writes_a_file_that_runs_and_prints_the_plan(data, tmp_path, monkeypatch):
    shutil.copytree(data, tmp_path / "d")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(proposal, "IMAGES_PER_STACK", 6)
    given = ["--structures", "d/models", "--particles", "d/p/particles.star"]
    said = worked(in_process("config", "init", "d", *given, "--resolution-angstrom", 16))
    assert f"2 structures x {N_IMAGES} images" in said
    assert "Next: cryolike-dask templates d/models --parameters" in said
    assert (tmp_path / "d/parameters.npz").is_file()
    assert read_config("d/run.yaml").structures.templates == tmp_path / "d/templates"
    made = in_process(
        "templates",
        "d/models",
        "--parameters",
        "d/parameters.npz",
        "--output",
        "d/templates",
        "--workers",
        0,
    )
    worked(made)
    assert "nothing is wrong" in worked(in_process("config", "check", "d/run.yaml"))
    again = in_process("config", "init", "d", *given)
    assert again.returncode == 4
    assert "is there already" in again.stderr


@pytest.mark.parametrize(
    ("given", "code", "said"),
    [
        (["--structures", "models"], 3, "--structures and --particles go together"),
        (["--particles", "p/particles.star"], 3, "go together"),
        (["--structures", "nowhere", "--particles", "p/particles.star"], 3, "nowhere"),
        (["--structures", "models", "--particles", "nowhere.star"], 3, "nowhere.star"),
        (["--structures", "p/particles.star", "--particles", "models"], 3, "particles.star"),
        (["--structures", "models", "--particles", "empty.star"], 3, "empty.star"),
        (["--structures", "empty.pdb", "--particles", "p/particles.star"], 3, "empty.pdb"),
        (["--resolution-angstrom", "0"], 3, "resolution_angstrom=0.0 is not positive"),
        (["--resolution-angstrom", "nan"], 3, "resolution_angstrom=nan is not"),
        (["--resolution-angstrom", "500"], 3, "more than a quarter of the box"),
        (["--resolution-angstrom", "high"], 2, "valid number"),
        (["--symmetry", "Q7"], 3, "Q7"),
    ],
)
def test_what_cannot_be_proposed_writes_nothing(data, tmp_path, monkeypatch, given, code, said):
    shutil.copytree(data, tmp_path / "d")
    monkeypatch.chdir(tmp_path / "d")
    for name in ("empty.star", "empty.pdb"):
        (tmp_path / "d" / name).touch()
    if not {"--structures", "--particles"} & set(given):
        given = ["--structures", "models", "--particles", "p/particles.star", *given]
    refused = in_process("config", "init", *given)
    assert refused.returncode == code
    assert said in " ".join(refused.stderr.split())
    assert "Traceback" not in refused.stderr
    assert not (tmp_path / "d/run.yaml").exists()


PLAN = LikelihoodPlan(
    kind="optimal_pose",
    n_structures=2,
    n_stacks=4,
    n_images=4000,
    n_templates=2000,
    n_poses_per_image=10**6,
    n_jobs=8,
    n_jobs_done=0,
    n_tasks=8,
    n_workers=2,
    device="cpu",
    read_bytes=1,
    written_bytes=1,
    free_disk_bytes=10,
    block_bytes=1,
    device_free_bytes=10,
    worker_bytes=1,
    worker_memory_bytes=10,
    tile=(1, 1),
    read_seconds=800.0,
    seconds=1000.0,
)


def test_what_is_cheaper_is_planned_with_one_thing_changed(monkeypatch):
    """By a plan whose time is that of views times displacements, and half if adaptive."""
    config = read_config(
        {
            "structures": {"files": "a.pdb"},
            "particles": {"metadata": "p.star"},
            "parameters": {"n_pixels": 64, "pixel_size_angstrom": 2.0, "viewing_distance": 0.1},
            "search": {
                "method": "exhaustive",
                "max_displacement_pixels": 4,
                "n_displacements_x": 9,
                "n_displacements_y": 9,
            },
            "output": "o",
        }
    )

    def cost(config, _=None):
        grid = config.parameters.made()
        n = len(grid.viewing_angles()) * len(config.search.displacements.grid(1.0))
        return n * grid.grid.n_shells * (0.5 if str(config.search.asked) != "exhaustive" else 1)

    def plan(changed, client):
        seconds = PLAN.seconds * cost(changed) / cost(config)
        return RunPlan(replace(PLAN, seconds=seconds))

    monkeypatch.setattr(cheaper, "plan_config", plan)
    found = {one.what: one for one in alternatives(config, RunPlan(PLAN), None)}
    gains = [one.gain for one in found.values()]
    assert gains == sorted(gains, reverse=True)
    assert found["search.displacement_step_pixels: 2"].gain == pytest.approx(81 / 25)
    assert found["search.method: adaptive"].gain == pytest.approx(2)
    assert found["parameters.view_step_degrees: 8.59"].gain == pytest.approx(2.25, rel=0.15)
    assert found["parameters.resolution_angstrom: 6"].gain == pytest.approx(1.5, rel=0.05)
    written = found["structures.templates, written before by `cryolike-dask templates`"]
    assert written.seconds == pytest.approx(1000 - 800 * 0.75 / 2)
    assert "times quicker" in str(written)
    # what takes two minutes, or a time that is not known, need not be cheaper
    for seconds in (119.0, None):
        assert alternatives(config, RunPlan(replace(PLAN, seconds=seconds)), None) == ()

    # nor is it sought for longer than a tenth of the run
    monkeypatch.setattr(cheaper, "PART_OF_RUN", -1)
    assert [one.what for one in alternatives(config, RunPlan(PLAN), None)] == [written.what]
    monkeypatch.undo()

    def refuses(changed, client):
        raise InputError("of another search")

    monkeypatch.setattr(cheaper, "plan_config", refuses)
    assert [one.what for one in alternatives(config, RunPlan(PLAN), None)] == [written.what]


def test_init_into_a_folder_that_is_not_there(data, tmp_path, monkeypatch):
    monkeypatch.setattr("cryolike_dask.config.run_config.plan_config", lambda *_: "the plan")
    path = tmp_path / "a/new/own.yaml"
    given = ["--structures", data / "models", "--particles", data / "p/particles.star"]
    assert "the plan" in worked(in_process("config", "init", path, *given))
    config = read_config(path)
    assert config.structures.files == (data / "models",)
    assert config.particles.metadata == (data / "p/particles.star",)
    assert config.output == path.parent / "results"
