"""The commands that make inputs, and likelihoods straight from structures and metadata."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from functools import partial

import numpy as np
import pytest
import torch

from cryolike_dask.io.parameters import read_parameters
from cryolike_dask.io.star import read_star
from cryolike_dask.simulation.demo import write_hinge
from tests.commands import in_process, worked

OPTIONS = {
    "parameters": "--n-pixels --pixel-size-angstrom --output --precision --resolution-angstrom "
    "--view-step-degrees "
    "--n-inplanes --atom-radii --atom-selection --residues --atoms --atom-shape "
    "--symmetry --frame --superpose --overwrite",
    "templates": "--parameters --output --models --topology --frames --every "
    "--healpix-order --viewing-angles --conventions "
    "--recompute --overwrite --plots --workers --scheduler",
    "particles": "--parameters --output --images --folder --passthrough --pixel-size-angstrom "
    "--downsample --invert-contrast --background-radius-pixels --recenter --batch-size "
    "--n-stacks-max --write-pixels --no-write-pixels --conventions --recompute --overwrite "
    "--plots --workers --scheduler",
    "simulate": "--parameters --output --n-images --signal-to-noise --noise --population "
    "--max-displacement-pixels "
    "--optics --models --topology --frames --every "
    "--batch-size --seed --overwrite --workers --scheduler",
}
SEARCH = ["--max-displacement-pixels", 2, "--n-displacements-x", 3, "--n-displacements-y", 3]


def command(*arguments):
    return [sys.executable, "-m", "cryolike_dask", *map(str, arguments)]


def environment():
    return {**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}


def cryolike(*arguments, **options):
    """Run the command and give what it did."""
    given = {"capture_output": True, "text": True, "env": environment(), "timeout": 240, **options}
    return subprocess.run(command(*arguments), **given)


@pytest.fixture
def here(folder, monkeypatch):
    """Run the command in this process, in the folder."""
    monkeypatch.chdir(folder)
    return in_process


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two small structures, parameters, and particles of both, all made by commands."""
    folder = tmp_path_factory.mktemp("cli") / "my data ä #1"
    for name, opening in (("closed", 0.0), ("open", 0.9)):
        write_hinge(folder / "structures" / f"{name}.pdb", opening, n_residues=30)
    grid = [
        "--n-pixels",
        16,
        "--pixel-size-angstrom",
        5,
        "--viewing-distance",
        1.5,
        "--atom-shape",
        "gaussian",
    ]
    said = worked(in_process("parameters", *grid, "--output", folder / "parameters.npz"))
    assert re.search(
        r"parameters\.npz: box of 80 angstrom, compared up to 10 angstrom, 17 shells x 32 "
        r"angles, \d+ viewing",
        said,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        said = worked(
            in_process("simulate", "structures", *SHARED, "--output", "relion", "--n-images", 12)
        )
    assert re.search(r"12 particles \(seed 0\): relion/particles\.star", said)
    return folder


SHARED = ["--parameters", "parameters.npz", "--workers", 0]


def test_help_lists_all_options():
    for name in OPTIONS:
        listed = worked(in_process(name, "--help"))
        assert [option for option in OPTIONS[name].split() if option not in listed] == []


@pytest.mark.parametrize("conventions", ["standard", "cryolike"])
def test_lazily_as_from_files_and_gone_on(here, tmp_path, conventions):
    given = [*SHARED, "--conventions", conventions]
    said = worked(here("templates", "structures", *given, "--output", tmp_path / "t"))
    assert "2 structure(s): templates are in " in said
    said = worked(
        here("particles", PARTICLES[1], *given, "--output", tmp_path / "p", "--batch-size", 5)
    )
    assert "3 image stack(s) are in " in said
    compare = ["optimal-pose", "--i-template", "all", *given, *SEARCH]
    lazily = [
        *compare,
        "--templates",
        "structures",
        "--particles",
        PARTICLES[1],
        "--output",
        tmp_path / "r2",
    ]
    for arguments in (
        [
            *compare,
            "--templates",
            tmp_path / "t",
            "--particles",
            tmp_path / "p",
            "--output",
            tmp_path / "r1",
        ],
        lazily,
    ):
        assert "12 images: results are in" in worked(here(*arguments))
    names = (
        "log_likelihood/log_likelihood_integrated_fourier",
        "cross_correlation/cross_correlation",
    )
    for i in range(2):
        for name in names:
            parts = [
                load(tmp_path / "r1" / f"template{i}" / f"{name}_stack_{k:06d}.pt")
                for k in range(3)
            ]
            whole = load(tmp_path / "r2" / f"template{i}" / f"{name}_stack_000000.pt")
            np.testing.assert_allclose(np.concatenate(parts), whole, rtol=1e-4, atol=1e-3)
    again = here(*lazily)
    worked(again)
    assert "2 of 2 stacks are complete and kept; --recompute computes them again" in again.stderr
    assert "is computed" not in again.stderr


def load(path):
    return torch.load(path, weights_only=True).numpy()


def test_pictures_lie_beside_what_they_show(here, tmp_path):
    worked(here("templates", "structures", *SHARED, "--output", tmp_path / "t", "--plots"))
    worked(
        here("particles", "relion/particles.star", *SHARED, "--output", tmp_path / "p", "--plots")
    )
    pictures = sorted(tmp_path.rglob("*.png"))
    assert [p.name for p in pictures] == [
        "particles.png",
        "templates_fourier_closed.png",
        "templates_fourier_open.png",
    ]
    assert all(p.read_bytes().startswith(b"\x89PNG") for p in pictures)


def test_what_is_complete_is_kept_unless_it_is_computed_again(here, tmp_path):
    make = ["templates", "structures", *SHARED, "--output", tmp_path / "t"]
    convert = ["particles", "relion/particles.star", *SHARED, "--output", tmp_path / "p"]
    other = [
        "parameters",
        *GRID,
        "--viewing-distance",
        1.2,
        "--atom-shape",
        "gaussian",
        "--output",
        tmp_path / "o.npz",
    ]
    worked(here(*other))
    for arguments, kept in (
        (make, "2 of 2 template files are complete and kept"),
        (convert, "1 of 1 stacks are"),
    ):
        worked(here(*arguments))
        times = {p: p.stat().st_mtime_ns for p in arguments[-1].rglob("*.pt")}
        for words in ((), ("--skip-exist",)):
            again = here(*arguments, *words)
            worked(again)
            assert kept in again.stderr
            assert "; --recompute computes them again" in again.stderr
            assert {p: p.stat().st_mtime_ns for p in times} == times
        worked(here(*arguments, "--recompute", "--overwrite"))
        assert all(p.stat().st_mtime_ns > t for p, t in times.items())
        both = here(*arguments, "--recompute", "--skip-exist")
        assert both.returncode == 3
        assert (
            both.stderr
            == "error: --recompute and --skip-exist exclude each other. Give one of them.\n"
        )
    refused = here(*make, "--parameters", tmp_path / "o.npz")
    assert refused.returncode == 4
    assert refused.stderr.startswith("error: ")
    assert "pass --overwrite to replace them" in refused.stderr


def test_what_parameters_say_is_what_is_written(tmp_path):
    options = [
        "--n-pixels",
        10,
        "--pixel-size-angstrom",
        1.25,
        "--precision",
        "double",
        "--resolution-factor",
        0.5,
    ]
    options += [
        "--viewing-distance",
        0.7,
        "--n-inplanes",
        24,
        "--atom-radii",
        2,
        "--atom-selection",
        "name CA",
    ]
    worked(cryolike("parameters", *options, "--atoms", "--atom-shape", "gaussian", cwd=tmp_path))
    made = read_parameters(tmp_path / "parameters.npz")
    assert (made.n_pixels, made.pixel_size_angstrom, made.radius_max, made.n_inplanes) == (
        10,
        1.25,
        1.25,
        24,
    )
    assert (made.precision, made.viewing_distance, made.atom_radii) == ("double", 0.7, 2)
    assert (made.atom_selection, made.use_protein_residue_model, made.atom_shape) == (
        "name CA",
        False,
        "gaussian",
    )


def test_parameters_of_atoms_that_scatter(tmp_path):
    grid = ["--n-pixels", 10, "--pixel-size-angstrom", 1.25, "--atom-shape", "scattering"]
    more = ["--atomic-b", "62.5", "--bulk-solvent", "0.6,90"]
    worked(cryolike("parameters", *grid, *more, cwd=tmp_path))
    made = read_parameters(tmp_path / "parameters.npz")
    assert (made.scatters, made.use_protein_residue_model) == (True, False)
    assert (made.atomic_b, made.bulk_solvent) == (62.5, (0.6, 90.0))
    for option, value in (("--atomic-b", "much"), ("--bulk-solvent", "0.6"), ("--atomic-b", "-5")):
        failed = cryolike(
            "parameters", *grid, f"{option}={value}", "--output", "other.npz", cwd=tmp_path
        )
        assert failed.returncode == 3
        assert option in failed.stderr + failed.stdout
        assert not (tmp_path / "other.npz").exists()


def test_simulated_particles_are_the_same_for_the_same_seed(here, tmp_path):
    options = [
        "simulate",
        "structures",
        *SHARED,
        "--n-images",
        6,
        "--batch-size",
        4,
        "--population",
        1,
        "--population",
        0,
    ]
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        worked(here(*options, "--seed", seed, "--output", tmp_path / name))
    files = ["particles.star", "particles_000000.mrcs", "particles_000001.mrcs"]
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == files
    a, b, c = ([(tmp_path / n / name).read_bytes()[1024:] for name in files[1:]] for n in "abc")
    assert a == b != c
    (particles,) = [
        block.columns
        for block in read_star(tmp_path / "a" / "particles.star")
        if block.name == "particles"
    ]
    assert set(particles["rlnClassNumber"].tolist()) == {"1"}


GRID = ["--n-pixels", 16, "--pixel-size-angstrom", 5]
TEMPLATES = ["templates", "structures", *SHARED]
PARTICLES = ["particles", "relion/particles.star", *SHARED]
SIMULATE = ["simulate", "structures", *SHARED]
MISTAKES = {
    "odd in-plane angles": (
        ["parameters", *GRID, "--n-inplanes", 33],
        "--n-inplanes 33 is not a positive even number",
    ),
    "beyond Nyquist": (
        ["parameters", *GRID, "--resolution-factor", 2],
        "--resolution-factor 2 is beyond the Nyquist",
    ),
    "no resolution": (
        ["parameters", *GRID, "--resolution-factor", "nan"],
        "--resolution-factor nan is not positive",
    ),
    "no pixels": (
        ["parameters", "--n-pixels", 0, "--pixel-size-angstrom", 1],
        "--n-pixels 0 is not a positive number",
    ),
    "no size": (
        ["parameters", "--n-pixels", 16, "--pixel-size-angstrom", -1],
        "--pixel-size-angstrom -1.0 is not",
    ),
    "no such structure": (
        ["templates", "nowhere.pdb", *SHARED],
        "nowhere.pdb: there is no such file. Check its name",
    ),
    "no such structures": (
        ["templates", "nowhere.pdb", "structures", "neither.pdb", *SHARED],
        "2 missing input file(s):\n  nowhere.pdb\n  neither.pdb",
    ),
    "no such folder": (
        ["simulate", "nowhere", *SHARED],
        "nowhere: there is no such folder. Check its name",
    ),
    "no such project": ([*PARTICLES, "--folder", "nowhere"], "nowhere: there is no such folder"),
    "particles for structures": (
        ["templates", "relion/particles.star", *SHARED],
        "particles.star: holds metadata of particles, not structures. Is it meant for `particles` "
        "or --particles?",
    ),
    "a structure for parameters": (
        ["templates", "structures", "--workers", 0, "--parameters", "structures/open.pdb"],
        "structures/open.pdb: holds structures, not parameters. Is it meant for `templates` or "
        "--templates?",
    ),
    "images for metadata": (
        ["particles", "relion/particles_000000.mrcs", *SHARED],
        "particles_000000.mrcs: holds images, not metadata of particles. Is it meant for "
        "`particles --images`?",
    ),
    "a folder for metadata": (
        ["particles", "relion", *SHARED],
        "is a folder. Name a STAR file in it: particles.star",
    ),
    "swapped": (
        [
            "optimal-pose",
            "--templates",
            "relion/particles.star",
            "--particles",
            "structures",
            *SHARED,
        ],
        "particles.star holds particles, and structures holds structures. Are --templates and "
        "--particles swapped?",
    ),
    "templates twice": (
        [
            "optimal-pose",
            "--templates",
            "structures",
            "--particles",
            "structures/open.pdb",
            *SHARED,
        ],
        "open.pdb: holds structures, not image stacks or metadata of particles",
    ),
    "optics of a structure": (
        [*SIMULATE, "--optics", "structures/open.pdb"],
        "holds structures, not metadata",
    ),
    "no such parameters": (
        ["templates", "structures", "--workers", 0, "--parameters", "x.npz"],
        "x.npz: there is no",
    ),
    "healpix": (
        [*TEMPLATES, "--healpix-order", 9],
        "--healpix-order 9 gives 3145728 viewing directions. Give 0 to 8",
    ),
    "two kinds of views": (
        [*TEMPLATES, "--healpix-order", 1, "--viewing-angles", "x.txt"],
        "--healpix-order and --viewing-angles exclude each other",
    ),
    "views": (
        [*TEMPLATES, "--viewing-angles", "nowhere.txt"],
        "nowhere.txt: there is no such file",
    ),
    "no batch": ([*PARTICLES, "--batch-size", 0], "--batch-size 0 is not a positive number"),
    "no stacks": ([*PARTICLES, "--n-stacks-max", 0], "--n-stacks-max 0 is not a positive number"),
    "nanometres": (
        [*PARTICLES, "--pixel-size-angstrom", 0.5],
        "pixels of 5 angstrom, but --pixel-size-angstrom 0.5",
    ),
    "no background": (
        [*PARTICLES, "--background-radius-pixels", 0],
        "--background-radius-pixels 0.0 is not positive",
    ),
    "no such metadata": (["particles", "nowhere.star", *SHARED], "nowhere.star"),
    "no origin": (["particles", "structures/open.pdb", *SHARED], "open.pdb"),
    "no particles": ([*SIMULATE, "--n-images", 0], "--n-images 0 is not a positive number"),
    "no signal": ([*SIMULATE, "--signal-to-noise", 0], "--signal-to-noise 0.0 is not positive"),
    "half a population": ([*SIMULATE, "--population", 1], "--population 1.0 for 2 structure(s)"),
    "negative seed": ([*SIMULATE, "--seed", -1], "--seed -1 is"),
    "no optics": ([*SIMULATE, "--optics", "nowhere.star"], "nowhere.star"),
    "two places to run": ([*SIMULATE, "--scheduler", "tcp://127.0.0.1:1"], "exclude each other"),
}


def told_in_one_piece(done, name, output):
    assert done.returncode == 3
    assert len([line for line in done.stderr.splitlines() if line.startswith("error: ")]) == 1
    assert MISTAKES[name][1] in done.stderr
    assert "Traceback" not in done.stderr
    assert not output.exists()


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told_in_one_piece_and_nothing_is_written(here, tmp_path, name):
    told_in_one_piece(
        here(*MISTAKES[name][0], "--output", tmp_path / "out"), name, tmp_path / "out"
    )


def test_a_mistake_in_a_process_of_its_own(folder, tmp_path):
    name = "nanometres"
    done = cryolike(*MISTAKES[name][0], "--output", tmp_path / "out", cwd=folder)
    told_in_one_piece(done, name, tmp_path / "out")


def test_stopped_by_ctrl_c(folder, tmp_path):
    """Ctrl-C between the stacks of a conversion."""
    options = [
        "simulate",
        "structures",
        *SHARED,
        "--n-images",
        20000,
        "--batch-size",
        200,
        "--output",
        tmp_path / "big",
    ]
    # a process started in the background of a script ignores Ctrl-C, and so would its children
    interruptible = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(
        command(*options),
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        cwd=folder,
        preexec_fn=interruptible,
    )
    deadline = time.monotonic() + 60
    while (
        not list(tmp_path.glob("big/*.mrcs"))
        and process.poll() is None
        and time.monotonic() < deadline
    ):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.splitlines()[-1].startswith("Stopped.")
    assert "Traceback" not in said
    left = [p.name for p in (tmp_path / "big").iterdir()]
    assert "particles.star" not in left
    assert all(re.fullmatch(r"particles_\d{6}\.mrcs", name) for name in left)
