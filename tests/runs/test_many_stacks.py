"""Folders of many stacks: opening takes a time that grows with their number, and what is not
there is said at once."""

from __future__ import annotations

import logging
import os
import sys
import tracemalloc
from collections import Counter
from unittest.mock import patch

import numpy as np
import pytest
import torch

import cryolike_dask as cld
from cryolike_dask.config.reading import read_config
from cryolike_dask.config.resolve import describe_inputs
from cryolike_dask.errors import InputError, InputFileError
from cryolike_dask.io.layout import OPTIMAL_POSE_FILES, LikelihoodFiles
from cryolike_dask.io.results import open_optimal_pose, write_results
from cryolike_dask.io.stacks import write_image_stack
from cryolike_dask.likelihoods.settings import Settings
from cryolike_dask.runs.kinds import OPTIMAL_POSE
from cryolike_dask.runs.origins import describe_images, describe_structure
from cryolike_dask.runs.run import open_run
from cryolike_dask.runs.sizes import find_done
from tests.commands import in_process

PARAMETERS = cld.ImageParameters(12, 1.5, n_inplanes=20, viewing_distance=2.5)
SEARCH = cld.configure_displacement(1.0, 3, 3)
NUMBERS = (8, 16, 32)


def opened(files):
    return open_run(files, PARAMETERS, SEARCH, Settings(device="cpu"))


def with_stacks(folder, build, n):
    """Templates of a structure, and n image stacks that are links to one."""
    files = cld.configure_likelihood_files(
        folder / "templates", folder / "particles", folder / "out", i_template="all"
    )
    build.write_files(files, PARAMETERS, structures=("a",), sizes=(2,))
    for k in range(1, n):
        for first, path in zip(files.image_stack(0), files.image_stack(k), strict=True):
            os.link(first, path)
    return files


def with_results(files):
    """The same, with results of every stack."""
    run = opened(files)
    values = {
        name: np.zeros(2, np.int64 if name == "optimal_template" else float)
        for name in OPTIMAL_POSE_FILES
    }
    with patch("os.fsync"):
        for i, k in run.pairs():
            describe_images(files.origins(k), run.images[k], run.inputs.images[k]).write()
            describe_structure(
                files.structure(i), run.templates[i], run.inputs.templates[i]
            ).write()
            write_results(values, run.job(OPTIMAL_POSE, i, k), {})
    torch.save(torch.from_numpy(run.displacements), files.displacements)
    (files.folder_output.parent / "run.yaml").write_text(
        "structures: {templates: templates, i_template: all}\nparticles: {stacks: "
        "particles}\noutput: out\n"
    )
    return files


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Some stacks, twice and four times as many, all with results."""
    from tests.conftest import Builder

    build, folder = Builder(np.random.default_rng(0)), tmp_path_factory.mktemp("stacks")
    return [with_results(with_stacks(folder / str(n), build, n)) for n in NUMBERS]


def config(files):
    return describe_inputs(read_config(files.folder_output.parent / "run.yaml"))


OPENING = {
    "run": opened,
    "images": lambda files: cld.open_images(files, PARAMETERS),
    "plan": lambda files: cld.plan_likelihood(
        files, PARAMETERS, SEARCH, skip_exist=True, device="cpu", measure=False, noise="white"
    ),
    "config": config,
    "poses": open_optimal_pose,
    "results": lambda files: cld.open_results(files.folder_output),
    "files of results": lambda files: cld.verify_likelihood(files.folder_output, n_samples=0),
    "what is done": lambda files: find_done(opened(files), OPTIMAL_POSE),
}


def calls(function, *arguments):
    """How many functions are called, which is what time goes by, but the same on every machine."""
    n = 0

    def count(frame, event, argument):
        nonlocal n
        n += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        function(*arguments)
    finally:
        sys.setprofile(None)
    return n


@pytest.mark.parametrize("what", OPENING)
def test_opening_takes_a_time_that_grows_with_the_number_of_stacks(folders, what):
    OPENING[what](folders[0])  # what is imported and remembered the first time
    n = [calls(OPENING[what], files) for files in folders]
    assert n[2] - n[1] < 1.03 * 2 * (n[1] - n[0])


@pytest.mark.parametrize("what", ["run", "images"])
def test_opening_looks_at_each_folder_once_and_at_no_file_of_another_stack(folders, what):
    looked = Counter()

    def counted(name, real):
        def look(path=".", *arguments, **options):
            # other threads look elsewhere
            looked[name] += str(path).startswith(str(files.folder_output.parent))
            return real(path, *arguments, **options)

        return look

    found = []
    for files in folders:
        looked.clear()
        with (
            patch("os.listdir", counted("folders", os.listdir)),
            patch("os.stat", counted("files", os.stat)),
        ):
            OPENING[what](files)
        found.append(dict(looked))
    assert found[2]["folders"] == found[0]["folders"] <= 2
    assert found[2]["files"] - found[0]["files"] <= 6 * (NUMBERS[2] - NUMBERS[0])


# --- more than there are, and gaps ---


@pytest.mark.parametrize("n", [5, 2_000_000_000, 10**18])
def test_more_stacks_than_there_are_are_refused_at_once(tmp_path, build, n):
    files = with_stacks(tmp_path, build, 4)
    complaint = (
        rf"n_stacks={n}, but {files.folder_particles} has 4 image stack\(s\)\. Give at "
        rf"most 4, or leave it out"
    )
    tracemalloc.start()
    for call in (
        lambda: cld.run_likelihood_optimal_pose(
            files, PARAMETERS, SEARCH, n_stacks=n, progress=False, noise="white"
        ),
        lambda: cld.open_images(
            LikelihoodFiles(files.folder_templates, files.folder_particles, "o", n), PARAMETERS
        ),
        lambda: cld.plan_likelihood(files, PARAMETERS, SEARCH, n_stacks=n, noise="white"),
    ):
        with pytest.raises(InputError, match=complaint):
            call()
    assert tracemalloc.get_traced_memory()[1] < 2**22
    tracemalloc.stop()
    assert not files.folder_output.exists()


@pytest.mark.parametrize("n", [3, 2_000_000_000])
def test_more_results_than_there_are_are_refused_at_once(folders, tmp_path, n):
    out = folders[0].folder_output
    with pytest.raises(
        InputError,
        match=rf"n_stacks={n + NUMBERS[0]}, but {out} has results of {NUMBERS[0]} image stack",
    ):
        open_optimal_pose(LikelihoodFiles(None, None, out, n + NUMBERS[0]))
    with pytest.raises(InputFileError, match=r"missing input file\(s\):\n.*stack_000000\.pt"):
        open_optimal_pose(LikelihoodFiles(None, None, tmp_path, n, [0]))


@pytest.mark.parametrize("n", ["4", 2.5, 0, -1, True])
def test_a_number_of_stacks_that_is_none(folders, n):
    for files in (
        LikelihoodFiles(None, folders[0].folder_particles, "o", n),
        LikelihoodFiles(None, None, "o", n),
    ):
        with pytest.raises(InputError, match=r"n_stacks=.* is not a (whole|positive) number"):
            files.stack_numbers()


def test_missing_stacks_in_the_midst_are_counted_and_the_first_are_named(tmp_path, build):
    files = with_stacks(tmp_path, build, 3)
    for k in (5, 999_999):
        for first, path in zip(files.image_stack(0), files.image_stack(k), strict=True):
            os.link(first, path)
    files.image_stack(1)[1].unlink()
    tracemalloc.start()
    with pytest.raises(InputFileError) as error:
        cld.open_images(files, PARAMETERS)
    assert tracemalloc.get_traced_memory()[1] < 2**22
    tracemalloc.stop()
    first, *named, more, remedy = str(error.value).splitlines()
    assert first == "1,999,991 missing input file(s):"
    assert [name.rsplit("/", 1)[1] for name in named[:3]] == [
        f"particles_fourier_stack_{name}" for name in ("000001.npz", "000003.pt", "000003.npz")
    ]
    assert (len(named), more.strip()) == (10, "and 1,999,981 more")
    assert remedy.startswith("Convert the particles")


def test_the_command_refuses_them_too(tmp_path, build):
    files = with_stacks(tmp_path, build, 3)
    folders = [
        "--templates",
        files.folder_templates,
        "--particles",
        files.folder_particles,
        "--output",
        tmp_path / "o",
    ]
    done = in_process("optimal-pose", *folders, "--n-stacks", 2_000_000_000, "--workers", 0)
    assert done.returncode == 3
    assert "has 3 image stack(s). Give at most 3" in done.stderr.replace("\n", " ")


# --- what a run leaves out ---


def said(caplog):
    return [
        record.getMessage() for record in caplog.records if record.getMessage().startswith("takes ")
    ]


def test_a_run_says_how_many_stacks_it_leaves_out(tmp_path, build, caplog):
    files = with_stacks(tmp_path, build, 4)
    caplog.set_level(logging.INFO, "cryolike_dask")
    cld.run_likelihood_optimal_pose(files, PARAMETERS, SEARCH, 0, 3, progress=False, noise="white")
    cld.plan_likelihood(
        files, PARAMETERS, SEARCH, n_stacks=1, measure=False, overwrite=True, noise="white"
    )
    assert said(caplog) == [
        "takes 3 of 4 image stacks (6 images)",
        "takes 1 of 4 image stacks (2 images)",
    ]
    assert {
        record.levelname for record in caplog.records if record.getMessage() in said(caplog)
    } == {"WARNING"}


def test_a_run_on_images_that_are_given_counts_them_too(tmp_path, build, caplog):
    files = with_stacks(tmp_path, build, 3)
    images = cld.open_images(files, PARAMETERS).chunk((1, 2, 3))
    given = LikelihoodFiles(files.folder_templates, None, files.folder_output)
    cld.run_likelihood_optimal_pose(
        given, PARAMETERS, SEARCH, n_stacks=2, images=images, progress=False, noise="white"
    )
    assert said(caplog) == ["takes 2 of 3 image stacks (3 of 6 images)"]


def test_a_run_that_leaves_none_out_says_nothing(tmp_path, build, caplog):
    files = with_stacks(tmp_path, build, 2)
    caplog.set_level(logging.INFO, "cryolike_dask")
    for n in (None, 2):
        cld.run_likelihood_optimal_pose(
            files, PARAMETERS, SEARCH, 0, n, progress=False, noise="white"
        )
    assert said(caplog) == []
    given = {"templates": files.folder_templates, "images": files.folder_particles}
    cld.verify_likelihood(files.folder_output, PARAMETERS, **given, n_samples=1)
    assert said(caplog) == []


def test_stacks_of_another_size_and_other_files_are_no_stacks(tmp_path, build):
    files = with_stacks(tmp_path, build, 2)
    write_image_stack(
        files.image_stack(2)[0], build.rings(3, PARAMETERS.grid), build.optics(3), PARAMETERS
    )
    for name in (
        "particles_fourier_stack_9.pt",
        "particles_fourier_stack_000009.pt.part",
        "notes.txt",
    ):
        (files.folder_particles / "fft" / name).touch()
    assert files.stack_numbers() == [0, 1, 2]
    assert cld.open_images(files, PARAMETERS).chunks == (2, 2, 3)
