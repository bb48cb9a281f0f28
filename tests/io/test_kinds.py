"""What is given for something else is told by its name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cryolike_dask.errors import InputFileError
from cryolike_dask.io.kinds import kinds_of, need_kind

FILES = {
    "a.pdb": {"structures"},
    "A.CIF": {"structures"},
    "a.ent.gz": {"structures"},
    "map.mrc": {"structures", "images"},
    "p.star": {"particles"},
    "J7_particles.cs": {"particles"},
    "p.mrcs": {"images"},
    "parameters.npz": {"parameters"},
    "other.npz": set(),
    "density.npy": set(),
    "density.pt": set(),
    "templates_fourier_a.pt": {"templates"},
    "template_file_list.npy": {"templates"},
    "particles_fourier_stack_000001.pt": {"image stacks"},
    "particles_fourier_stack_000001.npz": {"image stacks", "parameters"},
    "run.yaml": {"a run"},
    "no suffix": set(),
}
FOLDERS = {
    ("a.pdb", "notes.txt"): {"structures"},
    ("density.pt", "run.yaml"): set(),
    ("particles.star", "a.mrcs"): {"particles"},
    ("run_data.star", "run_class001.mrc"): {"particles", "structures"},
    ("template_file_list.npy", "parameters.npz"): {"templates"},
    ("fft/particles_fourier_stack_000000.pt",): {"image stacks"},
    ("template0/done/stack_000000.json", "run.yaml"): {"results"},
    ("templates0/x",): set(),
    (): set(),
}


def make(folder, *names):
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


@pytest.mark.parametrize("name", FILES)
def test_files(tmp_path, name):
    assert kinds_of(make(tmp_path, name) / name) == FILES[name]


@pytest.mark.parametrize("names", FOLDERS)
def test_folders(tmp_path, names):
    assert kinds_of(make(tmp_path / "folder", *names)) == FOLDERS[names]


@pytest.mark.parametrize(
    ("name", "wanted", "said"),
    [
        (
            "p.star",
            ("structures",),
            r"p\.star: holds metadata of particles, not structures\. Is it meant for --p\?",
        ),
        (
            "a.pdb",
            ("image stacks", "particles"),
            r"a\.pdb: holds structures, not image stacks or metadata of particles",
        ),
        (
            "p.mrcs",
            ("a run",),
            r"p\.mrcs: holds images, not the description of a run\. Was another one meant\?",
        ),
    ],
)
def test_others_are_refused(tmp_path, name, wanted, said):
    with pytest.raises(InputFileError, match=said):
        need_kind(make(tmp_path, name) / name, *wanted, meant_for={"particles": "--p"})


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("a.pdb", "file"),
        ("p.star", "file"),
        ("x.npz", "file"),
        ("folder", "folder"),
        ("v1.2", "file or folder"),
    ],
)
def test_what_is_not_there_is_called_so(tmp_path, name, what):
    with pytest.raises(InputFileError, match=rf"{name}: there is no such {what}\. Check its name"):
        need_kind(tmp_path / name, "structures")


def test_what_may_be_right_is_let_pass(tmp_path):
    for name in ("density.pt", "other.npz", "map.mrc"):
        need_kind(make(tmp_path, name) / name, "structures")
    need_kind(tmp_path / "map.mrc")
    os.mkfifo(tmp_path / "pipe")
    need_kind(tmp_path / "pipe", "particles")


def test_a_folder_of_relion_is_asked_for_its_star_file(tmp_path):
    folder = make(tmp_path / "Extract", *(f"{k}.star" for k in range(7)))
    with pytest.raises(
        InputFileError,
        match=r"Extract: is a folder\. Name a STAR file in it: 0\.star, .*4\.star, \.\.\.",
    ):
        need_kind(folder, "particles", "image stacks")
    need_kind(make(folder, "p.cs"), "particles")


def test_a_name_that_no_file_can_have():
    with pytest.raises(InputFileError, match="there is no such folder"):
        need_kind(Path("x" * 300), "structures")
