"""The commands about the file that describes a run, and the one that runs it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml

import cryolike_dask as cld
from cryolike_dask.cli.exit_codes import KINDS
from cryolike_dask.io.parameters import write_parameters
from cryolike_dask.simulation.demo import write_hinge
from tests.commands import in_process as cryolike
from tests.commands import worked

GRID = {
    "n_pixels": 16,
    "pixel_size_angstrom": 5.0,
    "viewing_distance": 1.5,
    "atom_shape": "gaussian",
}
VALUES = {
    "structures": {"files": "structures"},
    "particles": {"metadata": "relion/particles.star", "batch_size": 4},
    "parameters": GRID,
    "search": {"max_displacement_pixels": 2, "n_displacements_x": 3, "n_displacements_y": 3},
    "output": "out",
    "machine": {"workers": 0},
}


def failed(done):
    assert done.returncode in {code for _, code in KINDS}
    assert len([line for line in done.stderr.splitlines() if line.startswith("error: ")]) == 1
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two small structures, and particles of both."""
    data = tmp_path_factory.mktemp("run") / "my data ä [1]"
    for name, opening in (("closed", 0.0), ("open", 0.9)):
        write_hinge(data / "structures" / f"{name}.pdb", opening, n_residues=30)
    cld.simulate_particles(
        data / "structures",
        cld.make_parameters(**GRID),
        data / "relion",
        n_images=6,
        progress=False,
    )
    return data


@pytest.fixture
def folder(data, tmp_path):
    """A folder of one's own with these data and the configuration of a run."""
    folder = tmp_path / data.name
    shutil.copytree(data, folder)
    (folder / "run.yaml").write_text(yaml.safe_dump(VALUES))
    return folder


def change(folder, **sections):
    values = {name: {**VALUES[name], **section} for name, section in sections.items()}
    (folder / "run.yaml").write_text(yaml.safe_dump({**VALUES, **values}))


def evidence(folder, name="out"):
    path = (
        folder / name / "template1/log_likelihood/log_likelihood_integrated_fourier_stack_000001.pt"
    )
    return torch.load(path, weights_only=True).numpy()


def test_help_lists_commands_and_options():
    assert [
        c for c in ("init", "check", "schema") if c not in worked(cryolike("config", "--help"))
    ] == []
    listed = worked(cryolike("run", "--help"))
    expected = (
        "--recompute --overwrite --plan --workers --scheduler --scheduler-file "
        "--tls-ca-file --tls-cert --tls-key"
    )
    assert [option for option in expected.split() if option not in listed] == []
    shown = worked(cryolike("--help"))
    assert all(f"\n  {name} " in shown for name in ("run", "config"))


@pytest.mark.parametrize("module", ["cryolike_dask", "cryolike_dask.cli"])
def test_other_commands_do_not_wait_for_pydantic(module):
    code = (
        f"import sys, {module}; sys.exit(bool({{'pydantic', 'yaml', 'torch'}} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_an_example_replaces_nothing_unless_it_is_told_to(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    worked(cryolike("config", "init"))
    example = (tmp_path / "run.yaml").read_text()
    (tmp_path / "run.yaml").write_text("mine")
    assert "run.yaml: is there already. Name another file, or pass --force" in failed(
        cryolike("config", "init")
    )
    assert "run.yaml: is there already, and is no file that describes a run" in failed(
        cryolike("config", "init", "--force")
    )
    assert (tmp_path / "run.yaml").read_text() == "mine"
    (tmp_path / "run.yaml").write_text("likelihood: {}")
    worked(cryolike("config", "init", "--force"))
    worked(cryolike("config", "init", "new/other.yaml"))
    assert (
        (tmp_path / "run.yaml").read_text() == (tmp_path / "new/other.yaml").read_text() == example
    )


def test_what_a_file_may_say_is_printed(tmp_path):
    assert json.loads(worked(cryolike("config", "schema"))) == cld.config.reading.config_schema()


def test_check_names_everything_that_is_missing(folder):
    worked(cryolike("config", "check", folder / "run.yaml"))
    shutil.rmtree(folder / "structures")
    (folder / "relion/particles_000000.mrcs").unlink()
    change(folder, particles={"folder": "nowhere"})
    said = failed(cryolike("config", "check", folder / "run.yaml"))
    assert [name for name in ("structures", "nowhere") if str(folder / name) not in said] == []
    change(folder)
    said = failed(cryolike("config", "check", folder / "run.yaml"))
    assert [
        name for name in (f"{folder}/structures", "particles_000000.mrcs") if name not in said
    ] == []
    assert not (folder / "out").exists()


def test_check_holds_inputs_against_each_other(folder):
    change(folder, parameters={"n_pixels": 32})
    said = failed(cryolike("config", "check", folder / "run.yaml")).replace("\n", " ")
    assert "images of 16 pixels cannot be brought to 32" in said


def test_check_looks_into_folders_that_were_made_before(folder):
    parameters = cld.make_parameters(**GRID)
    cld.make_templates(folder / "structures", parameters, folder / "t", progress=False)
    cld.convert_particles(
        folder / "relion/particles.star", parameters, folder / "p", batch_size=4, progress=False
    )
    values = {"structures": {"templates": "t"}, "particles": {"stacks": "p"}, "output": "out"}
    (folder / "run.yaml").write_text(yaml.safe_dump(values))
    said = worked(cryolike("config", "check", folder / "run.yaml"))
    assert "2 of the templates in" in said
    assert "2 image stack(s) of" in said
    (folder / "t/templates_fourier_open.pt").unlink()
    (folder / "p/fft/particles_fourier_stack_000001.npz").unlink()
    said = failed(cryolike("config", "check", folder / "run.yaml"))
    assert [
        name for name in ("templates_fourier_open.pt", "stack_000001.npz") if name not in said
    ] == []
    assert "2 missing" not in said


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"structures": {"files": "relion/particles.star"}},
            "not structures. Is it meant for particles.metadata?",
        ),
        (
            {"particles": {"metadata": "structures/open.pdb"}},
            "not metadata of particles. Is it meant for structures.files?",
        ),
        (
            {"parameters": "run.yaml"},
            "run.yaml: holds the description of a run, not parameters. Was another one meant?",
        ),
        (
            {"particles": {"metadata": "relion"}},
            "relion: is a folder. Name a STAR file in it: particles.star",
        ),
    ],
)
def test_check_and_run_know_files_that_stand_at_another_key(data, tmp_path, changes, said):
    (data / "run.yaml").touch()
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({**VALUES, **changes, "folder": str(data)}))
    for command in (("config", "check"), ("run",)):
        assert said in failed(cryolike(*command, tmp_path / "run.yaml"))


@pytest.mark.parametrize(
    "command", [("verify",), ("report",), ("matrix",), ("export", "--star", "x.star")]
)
def test_results_are_no_inputs(data, tmp_path, command):
    said = failed(cryolike(*command, data / "structures"))
    assert (
        "structures: holds structures, not results. Is it meant for `templates` or --templates?"
        in said
    )
    assert "nowhere: there is no such folder. Check its name" in failed(
        cryolike(*command, tmp_path / "nowhere")
    )


def test_a_run_is_described_by_a_file(data):
    said = failed(cryolike("run", data / "relion/particles.star"))
    assert "particles.star: holds metadata of particles, not the description of a run" in said


OTHERS = {
    "search": ({"search": {"n_displacements_x": 5}}, "of another search"),
    "conventions": (
        {"likelihood": {"conventions": "cryolike"}},
        "conventions: standard there, cryolike here",
    ),
    "structures": (
        {"structures": {"files": ["structures/open.pdb", "structures/closed.pdb"]}},
        "structure 0 is closed",
    ),
    "fewer structures": (
        {"structures": {"files": "structures/open.pdb"}},
        "is closed there, open here",
    ),
    "particles": ({"particles": {"metadata": "relion/other.star"}}, "made from"),
    "stacks": ({"particles": {"batch_size": 6}}, "image stack"),
    "tolerance": ({"likelihood": {"tolerance": 0.0}}, "tolerance"),
    "no folder": ({"output": "run.yaml"}, "run.yaml: is not a folder"),
    "below a file": ({"output": "/dev/null/results"}, "/dev/null/results"),
    "scheduler": (
        {"machine": {"scheduler": "tcp://127.0.0.1:1"}},
        "tcp://127.0.0.1:1 cannot be reached",
    ),
    "scheduler file": ({"machine": {"scheduler_file": "s.json"}}, "s.json: there is no such file"),
    "too large": (
        {
            "likelihood": {"kind": "full_cross_correlation"},
            "search": {"n_displacements_x": 900, "n_displacements_y": 900},
            "parameters": {"viewing_distance": 0.01},
        },
        "the full cross-correlations take",
    ),
}


@pytest.fixture(scope="module")
def with_results(data, tmp_path_factory):
    """These data with results of a run."""
    folder = tmp_path_factory.mktemp("results") / data.name
    shutil.copytree(data, folder)
    (folder / "run.yaml").write_text(yaml.safe_dump(VALUES))
    shutil.copy(folder / "relion/particles.star", folder / "relion/other.star")
    worked(cryolike("run", folder / "run.yaml"))
    return folder


@pytest.mark.parametrize("name", OTHERS)
def test_check_refuses_what_a_run_refuses_and_says_the_same(with_results, name):
    changes, said = OTHERS[name]
    values = {
        key: {**VALUES[key], **part} if isinstance(VALUES.get(key), dict) else part
        for key, part in changes.items()
    }
    if "scheduler" in name:
        values["machine"].pop("workers")
    (with_results / "other.yaml").write_text(yaml.safe_dump({**VALUES, **values}))
    before = {path: path.stat().st_mtime_ns for path in with_results.rglob("*")}
    check = cryolike("config", "check", with_results / "other.yaml")
    checked = failed(check)
    assert said in checked
    assert {path: path.stat().st_mtime_ns for path in with_results.rglob("*")} == before
    run = cryolike("run", with_results / "other.yaml")
    ran = failed(run)
    assert run.returncode == check.returncode
    if name == "below a file":
        assert "results: cannot be written: Not a directory. Choose another" in ran
        assert "results: cannot be written: Not a directory. Choose another" in checked
    elif name == "too large":
        assert said in ran
    else:
        # inputs are told before, as far as it comes
        checked, ran = (said.splitlines()[-1] for said in (checked, ran))
        assert checked.replace("machine.overwrite: true", "--overwrite") == ran


def test_check_lets_pass_what_a_run_goes_on_with(with_results, monkeypatch):
    """Read-only too, if all is done."""
    (with_results / "other.yaml").write_text(
        yaml.safe_dump({**VALUES, "search": {}, "machine": {"overwrite": True}})
    )
    worked(cryolike("config", "check", with_results / "other.yaml"))
    worked(cryolike("config", "check", with_results / "run.yaml"))
    monkeypatch.setattr(
        os,
        "access",
        lambda path, mode: not mode & os.W_OK or with_results.parent not in path.parents,
    )
    worked(cryolike("config", "check", with_results / "run.yaml"))
    (with_results / "again.yaml").write_text(
        yaml.safe_dump({**VALUES, "machine": {"workers": 0, "recompute": True}})
    )
    said = failed(cryolike("config", "check", with_results / "again.yaml"))
    assert "out: cannot be written: Permission denied" in said


def test_check_and_run_tell_mistakes_in_one_piece(folder):
    change(folder, machine={"workers": "two", "devise": "cpu"})
    for command in (("config", "check"), ("run",), ("run", "--plan")):
        said = failed(cryolike(*command, folder / "run.yaml"))
        assert "machine.workers='two' is not a whole number from 0 to 100000; it is text" in said
        assert "machine.devise is not known; did you mean machine.device?" in said
    assert not (folder / "out").exists()


def test_a_mistake_in_a_process_of_its_own(folder):
    change(folder, structures={"files": "no[wh]ere.pdb"})
    command = [sys.executable, "-m", "cryolike_dask", "run", folder / "run.yaml"]
    environment = {**os.environ, "NO_COLOR": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment)
    said = failed(done)
    assert f"1 missing input file(s):\n  {folder}/no[wh]ere.pdb" in said
    assert "dashboard" not in said  # no worker was started for it


def test_a_run_goes_on_and_replaces_what_it_is_told_to(folder):
    source = folder / "run.yaml"
    worked(cryolike("run", source))
    first = evidence(folder)
    kept = "4 of 4 stacks are complete and kept; --recompute computes them again"
    replaced = "leaving --recompute out"
    assert kept in cryolike("run", source).stderr
    # the log says it in the same words, when it began, and in the order of time
    log = (folder / "out/run.log").read_text()
    assert kept in log
    assert "skip_exist" not in log
    assert (times := [line.split()[0] for line in log.splitlines()]) == sorted(times)
    again = cryolike("run", source, "--recompute").stderr
    assert kept not in again
    assert f"results that are there are replaced; {replaced} keeps complete ones" in again
    change(folder, machine={"skip_exist": False})
    assert replaced in cryolike("run", source).stderr
    assert "recompute: true" in (folder / "out/run.yaml").read_text()
    assert kept in cryolike("run", source, "--no-recompute").stderr
    both = failed(cryolike("run", source, "--recompute", "--skip-exist"))
    assert "--recompute and --skip-exist exclude each other" in both
    change(folder, search={"n_displacements_x": 5})
    assert "another search" in failed(cryolike("run", source))
    np.testing.assert_array_equal(evidence(folder), first)
    worked(cryolike("run", source, "--overwrite"))
    assert (evidence(folder) != first).any()


def test_the_method_of_search_is_an_option_and_kept(folder):
    source, copy = folder / "run.yaml", folder / "out/run.yaml"

    def methods():
        records = folder.glob("out/template*/done/*.json")
        return {json.loads(path.read_text())["settings"].get("search_method") for path in records}

    (folder / "run.yaml").write_text(yaml.safe_dump({**VALUES, "noise": "white"}))
    assert "those of an exhaustive search" in cryolike(
        "run", source, "--plan", "--search", "adaptive"
    ).stdout.replace("\n", " ")
    worked(cryolike("run", source, "--search", "adaptive"))
    assert methods() == {"adaptive"}
    # what was run can be run again, and what says nothing goes on
    assert yaml.safe_load(copy.read_text())["search"]["method"] == "adaptive"
    for again in (copy, source):
        assert "4 of 4 stacks are complete and kept" in cryolike("run", again).stderr
    refused = failed(cryolike("run", source, "--search", "exhaustive"))
    assert "another search" in refused
    assert "adaptive there, exhaustive here" in refused
    change(folder, search={"method": "exhaustive"})
    assert "adaptive there, exhaustive here" in failed(cryolike("config", "check", source))
    change(folder, search={"method": "adaptive"})
    source.write_text(source.read_text() + "likelihood: {kind: full_cross_correlation}\n")
    for command in (["config", "check"], ["run"]):
        assert "full cross-correlations keep every pose" in failed(cryolike(*command, source))


def test_a_plan_is_of_this_run_and_writes_nothing(folder):
    before = sorted(folder.rglob("*"))
    said = worked(cryolike("run", folder / "run.yaml", "--plan"))
    assert said.startswith("2 structures x 6 images (2 stacks): ")
    assert "on 1 worker" in said
    assert sorted(folder.rglob("*")) == before
    assert "on 3 workers" in worked(cryolike("run", folder / "run.yaml", "--plan", "--workers", 3))


def test_where_it_runs_is_what_the_file_says_or_else_the_options(
    folder, cluster, reaching_the_cluster
):
    given = dict(zip(reaching_the_cluster[::2], map(str, reaching_the_cluster[1::2]), strict=True))
    values = {
        **VALUES,
        "machine": {name.strip("-").replace("-", "_"): value for name, value in given.items()},
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(values))
    before = cluster.run_on_scheduler(lambda dask_scheduler: dask_scheduler.transition_counter)
    worked(cryolike("run", folder / "run.yaml"))
    assert (
        cluster.run_on_scheduler(lambda dask_scheduler: dask_scheduler.transition_counter) > before
    )
    on_workers = evidence(folder)
    values = {**VALUES, "output": "here", "machine": {"scheduler": "tcp://127.0.0.1:1"}}
    (folder / "run.yaml").write_text(yaml.safe_dump(values))
    assert "127.0.0.1:1" in failed(cryolike("run", folder / "run.yaml"))
    worked(cryolike("run", folder / "run.yaml", "--workers", 0))
    np.testing.assert_array_equal(evidence(folder, "here"), on_workers)


def test_every_pose_is_written_if_it_is_asked_for(folder):
    values = {**VALUES, "likelihood": {"kind": "full_cross_correlation"}}
    (folder / "run.yaml").write_text(yaml.safe_dump(values))
    said = worked(cryolike("run", folder / "run.yaml"))
    assert "report" not in said
    assert (
        len(
            list(
                folder.glob(
                    "out/template?/cross_correlation/cross_correlation_pose_msdw_stack_*.pt"
                )
            )
        )
        == 4
    )


def test_report_and_verify_find_the_inputs_of_a_run(folder):
    worked(cryolike("run", folder / "run.yaml", "--workers", 0))
    said = failed(cryolike("verify", folder / "out", "--particles", folder / "structures"))
    assert "structures: holds structures, not image stacks or metadata of particles" in said
    assert "nowhere: there is no such folder" in failed(
        cryolike("report", folder / "out", "--templates", "nowhere")
    )
    worked(cryolike("report", folder / "out"))
    page = (folder / "out/report.html").read_text()
    assert 'id="steps"' in page
    assert "Particles cannot be shown" not in page
    said = worked(cryolike("verify", folder / "out", "--n-samples", 3))
    assert "3 results computed again: nothing is wrong" in said
    (folder / "relion/particles.star").rename(folder / "relion/moved.star")
    again = cryolike("verify", folder / "out")
    assert f"note: what {folder / 'out/run.yaml'} names cannot be read: " in again.stderr.replace(
        "\n", " "
    )
    assert "no numbers computed again: nothing is wrong" in again.stdout
    worked(cryolike("report", folder / "out"))
    assert "Particles cannot be shown" in (folder / "out/report.html").read_text()


def test_all_structures_are_compared_unless_some_are_chosen(folder):
    write_parameters(folder / "parameters.npz", cld.make_parameters(**GRID))
    given = ["--templates", folder / "structures", "--particles", folder / "relion/particles.star"]
    search = [
        "--max-displacement-pixels",
        1,
        "--n-displacements-x",
        2,
        "--n-displacements-y",
        1,
        "--workers",
        0,
    ]
    command = ["optimal-pose", *given, "--parameters", folder / "parameters.npz", *search]
    worked(cryolike(*command, "--output", folder / "all"))
    assert sorted(path.name for path in folder.glob("all/template?")) == ["template0", "template1"]
    worked(cryolike(*command, "--output", folder / "one", "--i-template", 1))
    adaptive = [*command[1:], "--output", folder / "adaptive", "--search", "adaptive"]
    said = worked(cryolike("plan", *adaptive, "--no-measure"))
    assert "adaptive; tasks, poses" in said
    worked(cryolike("optimal-pose", *adaptive))
    assert cld.open_results(folder / "adaptive").attrs["search"] == "adaptive"
    said = failed(cryolike("full-cross-correlation", *adaptive))
    assert "full cross-correlations keep every pose" in said
    near = ["--around", "recorded", "--within-degrees", 30, "--within-pixels", 0]
    near = ["optimal-pose", *command[1:], "--output", folder / "near", *near]
    assert "beyond the search, which ends at" in failed(cryolike(*near))
    assert "Give one of them" in failed(cryolike(*near, "--search", "adaptive"))
    at = ["optimal-pose", *command[1:], "--output", folder / "at", "--poses", "recorded"]
    assert "beyond the search, which ends at" in failed(cryolike(*at, "--refine"))
    assert "--prior gaussian is of a search around" in failed(cryolike(*at, "--prior", "gaussian"))
    assert [path.name for path in folder.glob("one/template?")] == ["template1"]
    swapped = ["--templates", folder / "relion", "--particles", folder / "structures"]
    (folder / "relion/fft").mkdir()
    (folder / "relion/fft/particles_fourier_stack_000000.pt").touch()
    said = failed(cryolike("optimal-pose", *swapped, *search, "--output", folder / "swapped"))
    assert (
        f"relion holds image stacks and particles, and {folder}/structures holds structures" in said
    )
    assert "Are --templates and --particles swapped?" in said
