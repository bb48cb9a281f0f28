"""The noise model of a folder is of its images: not of other particles in files of the same
names."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import cryolike_dask as cld
from cryolike_dask.errors import OutputError
from cryolike_dask.simulation.demo import write_hinge

PARAMETERS = cld.ImageParameters(
    16, 8.0, n_inplanes=20, viewing_distance=2.0, atom_shape="gaussian"
)
SEARCH = cld.configure_displacement(1.0, 2, 2)
OTHERS, CHANGED = "noise model of other particles", "has changed since its results were computed"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A structure, and two particle sets of it that have nothing in common but names."""
    folder = tmp_path_factory.mktemp("inputs")
    write_hinge(folder / "closed.pdb", 0.0)
    for seed in (0, 1):
        cld.simulate_particles(
            [folder / "closed.pdb"],
            PARAMETERS,
            folder / f"set{seed}",
            n_images=12,
            seed=seed,
            progress=False,
        )
    return folder


@pytest.fixture
def particles(made, tmp_path):
    """A copy of the first set, where its files may be replaced."""
    shutil.copytree(made / "set0", tmp_path / "set")
    return tmp_path / "set" / "particles.star"


def replaced(star: Path, made: Path, *suffixes: str) -> None:
    """The files of a set, in place of those of the other set."""
    for file in (made / "set1").iterdir():
        if file.suffix in suffixes:
            shutil.copy(file, star.parent / file.name)


def inputs(made, star, output, n_images=12, **options):
    """The arguments of a run of some of the images, six to a stack."""
    images = cld.open_particles(star, PARAMETERS)[:n_images].chunk(6)
    return (
        cld.configure_likelihood_files(None, None, output),
        PARAMETERS,
        SEARCH,
    ), {
        "images": images,
        "templates": cld.open_structures([made / "closed.pdb"], PARAMETERS),
        "progress": False,
        **options,
    }


def run(made, star, output, n_images=12, **options):
    positional, named = inputs(made, star, output, n_images, **{"skip_exist": True, **options})
    return cld.run_likelihood_optimal_pose(*positional, **named)


def plan(made, star, output):
    positional, named = inputs(made, star, output, skip_exist=True)
    return cld.plan_likelihood(*positional, **named, measure=False)


@pytest.mark.parametrize("without_results", [False, True])
def test_other_particles_are_refused(made, particles, tmp_path, without_results):
    output = tmp_path / "out"
    run(made, particles, output)
    if without_results:
        shutil.rmtree(output / "template0")
    replaced(particles, made, ".star", ".mrcs")
    before = {p: p.read_bytes() for p in output.rglob("*") if p.is_file()}
    for begin in (run, plan):
        with pytest.raises(OutputError, match=rf"noise\.npz: is the {OTHERS}.*\(.*--recompute\)"):
            begin(made, particles, output)
    assert {p: p.read_bytes() for p in output.rglob("*") if p.is_file()} == before
    noise = (output / "noise.npz").read_bytes()
    run(made, particles, output, overwrite=True, skip_exist=False)
    assert (output / "noise.npz").read_bytes() != noise
    plan(made, particles, output)


@pytest.mark.parametrize("suffix", [".star", ".mrcs"])
def test_particles_that_were_refined_or_prepared_again_are_the_same(
    made, particles, tmp_path, caplog, suffix
):
    """Other optics, or other pixels: the results are computed again, with the same noise."""
    output = tmp_path / "out"
    run(made, particles, output)
    noise = (output / "noise.npz").read_bytes()
    caplog.clear()
    replaced(particles, made, suffix)
    run(made, particles, output)
    assert (output / "noise.npz").read_bytes() == noise
    assert caplog.text.count(CHANGED) == (suffix == ".mrcs")
    assert ("--overwrite --recompute" in caplog.text) == (suffix == ".mrcs")


def test_stacks_that_come_later_take_the_model_that_is_there(made, particles, tmp_path, caplog):
    output = tmp_path / "out"
    run(made, particles, output, n_images=6)
    noise = (output / "noise.npz").read_bytes()
    assert run(made, particles, output).sizes["image"] == 12
    assert (output / "noise.npz").read_bytes() == noise
    assert CHANGED not in caplog.text


def test_converted_stacks_tell_by_their_micrographs(made, tmp_path, build, caplog):
    """They say nothing of optics; without micrographs it is said that they have changed."""
    files = cld.configure_likelihood_files(
        tmp_path / "templates", tmp_path / "particles", tmp_path / "out"
    )
    micrographs = [np.array(["a.mrc", "a.mrc", "b.mrc", "b.mrc"]), np.array(["x.mrc"] * 4)]
    options = {"skip_exist": True, "progress": False}

    def replace_by(micrograph):
        entries = {} if micrograph is None else {"micrograph": lambda k, n: micrograph}
        frames = {"frame": lambda k, n: "xy"}
        build.write_files(files, PARAMETERS, ("a",), (4,), **frames, **entries)

    def start():
        parameters = files.folder_templates / "parameters.npz"
        return cld.run_likelihood_optimal_pose(files, parameters, SEARCH, **options)

    replace_by(micrographs[0])
    start()
    replace_by(micrographs[0][::-1])
    start()
    assert caplog.text.count(CHANGED) == 1
    replace_by(micrographs[1])
    with pytest.raises(OutputError, match=OTHERS):
        start()
    replace_by(None)
    start()
    assert caplog.text.count(CHANGED) == 2
