"""Verification: what is whole is believed, and every damage and every error of substance is
found and named."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import cryolike_dask as cld
from cryolike_dask.cli import app
from cryolike_dask.errors import InputError, InputFileError
from cryolike_dask.stacks import ImageStack, TemplateStack
from tests.conftest import Builder
from tests.traps import Trap

SEARCH = cld.configure_displacement(1.5, 3, 2)
PARAMETERS = cld.ImageParameters(
    n_pixels=12, pixel_size_angstrom=1.5, n_inplanes=20, viewing_distance=3.0
)
SIZES = (4, 3)
CORRELATION = "template0/cross_correlation/cross_correlation_stack_000001.pt"
RECORD = "template0/done/stack_000001.json"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Inputs of two structures and two stacks, and what the default run writes, made once."""
    folder = tmp_path_factory.mktemp("made")
    files = configured(folder)
    Builder(np.random.default_rng(0)).write_files(files, PARAMETERS, sizes=SIZES)
    compute(files)
    return folder


@pytest.fixture
def files(made, tmp_path):
    """A copy of the inputs, times included."""
    for name in ("templates", "particles"):
        shutil.copytree(made / name, tmp_path / name)
    return configured(tmp_path)


@pytest.fixture
def written(made, files):
    """What the default run writes."""
    return shutil.copytree(made / "out", files.folder_output)


def configured(folder):
    return cld.configure_likelihood_files(
        folder / "templates", folder / "particles", folder / "out", i_template="all"
    )


def compute(files, of=cld.run_likelihood_optimal_pose, **options):
    of(files, files.folder_templates / "parameters.npz", SEARCH, **{"progress": False, **options})
    return files.folder_output


def verify(files, **options):
    inputs = {"templates": files.folder_templates, "images": files.folder_particles}
    return cld.verify_likelihood(files.folder_output, **{**inputs, **options})


def only_finding(found):
    assert len(found.findings) == 1, found.findings
    return found.findings[0]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"precision": "double"},
        {"tolerance": 0.0},
        {"tolerance": 1e-2},
        {"conventions": "cryolike"},
    ],
    ids=str,
)
def test_a_whole_run_is_believed(files, options):
    compute(files, **options)
    found = verify(files)
    assert found.ok, found.findings
    assert found.notes == ()
    assert found.n_files == 2 * len(SIZES) * 8
    assert found.sample.sizes == {"sample": 2 * sum(SIZES), "quantity": 6}
    known = found.sample.isel(quantity=slice(4))
    assert bool((known.difference <= known.tolerance).all())
    if "tolerance" not in options:  # no error of substance hides in what is allowed
        assert float(found.sample.tolerance.sel(quantity="cross_correlation").max()) < 1e-4


def test_the_sample_is_of_the_size_and_the_seed_asked_for(files, written):
    samples = [verify(files, n_samples=5, seed=seed).sample for seed in (1, 1, 2)]
    assert [s.sizes["sample"] for s in samples] == [5, 5, 5]
    assert samples[0].identical(samples[1])
    assert not samples[0].identical(samples[2])
    assert verify(files, n_samples=0).sample.sizes["sample"] == 0


def test_a_full_correlation_is_compared_too(files):
    folder = compute(files, cld.run_likelihood_full_cross_correlation)
    found = verify(files)
    assert found.ok, found.findings
    compared = found.sample.difference.sel(quantity="cross_correlation")
    assert compared.sizes["sample"] == 2 * sum(SIZES)
    path = folder / "template0/cross_correlation/cross_correlation_pose_msdw_stack_000001.pt"
    values = torch.load(path, weights_only=True)
    values[2, 3, 4, 5] += 1e-3
    torch.save(values, path)
    believe(folder / "template0/done/full_cross_correlation_stack_000001.json")
    assert "cross_correlation of image 2 differs" in only_finding(verify(files))


def believe(path):
    """Record the checksums of the files that are there now."""
    from cryolike_dask.io.jobs import Job, write_record

    record = json.loads(path.read_text())
    outputs = {
        n: next(path.parents[1].glob(f"*/{o['file']}")) for n, o in record["outputs"].items()
    }
    about = {name: record[name] for name in ("i_template", "i_stack", "structure")}
    rest = {name: record[name] for name in ("kind", "settings", "precision", "inputs")}
    write_record(
        Job(
            name="", about=about, outputs=outputs, shape=tuple(record["shape"]), record=path, **rest
        ),
        {},
    )


def truncate(path):
    path.write_bytes(path.read_bytes()[:-200])


def empty(path):
    path.write_bytes(b"")


def turn_a_byte(path):
    content = bytearray(path.read_bytes())
    position = content.index(torch.load(path, weights_only=True).numpy().tobytes())
    content[position] ^= 1
    path.write_bytes(content)


def pickle_a_trap(path):
    path.write_bytes(pickle.dumps(Trap(path.with_name("sprung"))))


def loop(path):
    path.unlink()
    path.symlink_to(path)


def make_folder(path):
    path.unlink()
    path.mkdir()


def make_pipe(path):
    path.unlink()
    os.mkfifo(path)


DAMAGES = [
    (truncate, "cannot be read"),
    (empty, "is empty"),
    (turn_a_byte, "is not the file that its record describes"),
    (pickle_a_trap, "not unpickled"),
    (
        lambda path: torch.save(torch.zeros(2), path),
        r"has shape \(2,\), but its record says \(3,\)",
    ),
    (
        lambda path: torch.save(torch.zeros(3).double(), path),
        "holds float64 values, but .* writes float32",
    ),
    (lambda path: torch.save([1, 2], path), "holds a list"),
    (lambda path: path.unlink(), "No such file"),
    (loop, "symbolic links"),
    (make_folder, "is not a file"),
    (make_pipe, "is not a file"),
]


@pytest.mark.parametrize(("damage", "what"), DAMAGES)
def test_a_damaged_file_is_named_and_the_others_are_compared(files, written, damage, what):
    damage(written / CORRELATION)
    found = verify(files, n_samples=1)
    with pytest.raises(AssertionError, match=rf"{CORRELATION}: .*{what}.*skip_exist=True"):
        raise AssertionError(only_finding(found))
    assert found.sample.sizes["sample"] == 1
    assert not list(written.rglob("sprung"))


@pytest.mark.parametrize(
    ("damage", "what"), [d for d in DAMAGES if d[0] in (truncate, empty, loop, make_pipe)]
)
def test_displacements_that_are_damaged_are_named(files, written, damage, what):
    damage(written / "displacements_set.pt")
    finding = only_finding(verify(files, n_samples=1))
    assert finding.startswith(f"{written}/displacements_set.pt: ")
    assert what in finding


@pytest.mark.parametrize(
    ("edit", "what"),
    [
        ({"shape": [4]}, r"has shape \(3,\), but its record says \(4,\)"),
        ({"shape": "3"}, "says shape='3'"),
        ({"format": 99}, "says format=99"),
        ({"i_stack": 0}, "says i_stack=0"),
        ({"kind": "templates"}, "says kind='templates'"),
        ({"outputs": {}}, "sha256"),
        ({"outputs": [1]}, r"says outputs=\[1\]"),
        ({"precision": "double"}, "holds float32 values"),
        ({"precision": []}, r"says precision=\[\]"),
        ({"settings": {"search": {}, "parameters": {}}}, "has other settings than most records"),
        ({"settings": None}, "says settings=None"),
        (
            {"inputs": [{"name": "x.pt"}]},
            "says that the results came from x.pt, but templates_fourier_a.pt",
        ),
    ],
    ids=str,
)
def test_an_edited_record_is_named(files, written, edit, what):
    path = written / RECORD
    path.write_text(json.dumps(json.loads(path.read_text()) | edit))
    findings = "\n".join(verify(files, n_samples=16 if "inputs" in edit else 0).findings)
    with pytest.raises(AssertionError, match=what):
        raise AssertionError(findings)
    assert "000000" not in findings


@pytest.mark.parametrize("content", ["", "{", "[]", "[" * 100000, "\0", '{"format": 1e999}'])
def test_a_record_of_nonsense_is_named(files, written, content):
    path = written / RECORD
    path.write_text(content)
    assert only_finding(verify(files, n_samples=0)).startswith(f"{path}: ")


def test_results_without_a_record_are_named_and_leftovers_noted(files, written):
    (written / RECORD).unlink()
    leftover = written / f"template0/log_likelihood/.x_stack_000000.pt.{'0' * 32}.part"
    leftover.write_bytes(b"half")
    found = verify(files, n_samples=0)
    assert f"{RECORD}: is missing, but 8 file(s) of its results are there" in only_finding(found)
    assert any(note.startswith(f"{leftover}: is left over") for note in found.notes)
    shutil.rmtree(written / "template0")
    leftover.parent.mkdir(parents=True)
    assert verify(files, n_samples=0).ok


def test_stacks_that_other_structures_have_are_noted(files, written):
    for path in written.glob("template1/*/*stack_000001*"):
        path.unlink()
    found = verify(files, n_samples=0)
    assert found.ok
    assert found.notes == ("template1 has no optimal pose of stack(s) 1",)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_a_folder_that_may_not_be_read_is_named(files, written):
    folder = written / "template1/done"
    folder.chmod(0)
    try:
        assert f"{folder}: cannot be read: Permission denied" in only_finding(
            verify(files, n_samples=0)
        )
    finally:
        folder.chmod(0o700)


def test_a_structure_that_is_no_folder_is_named(files, written):
    folder = written / "template2"
    folder.symlink_to(folder)
    assert f"{folder}: cannot be read" in only_finding(verify(files, n_samples=0))


def test_an_output_that_is_not_there_or_holds_nothing(files, tmp_path):
    with pytest.raises(InputFileError, match="nowhere: cannot be read: No such file"):
        cld.verify_likelihood(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "holds no completion records" in only_finding(cld.verify_likelihood(tmp_path / "empty"))


def defocus(stack):
    optics = stack.optics.copy()
    optics["defocus_u_angstrom"] *= 1.03
    optics["defocus_v_angstrom"] *= 1.03
    return replace(stack, optics=optics)


def change_template(stack):
    values = stack.source.take(np.arange(len(stack)))
    best = values.copy()
    best[:] *= 1 + 0.02 * np.cos(stack.grid.radii)[:, None]  # a slightly other envelope
    return TemplateStack.from_array(best, PARAMETERS, stack.viewing, stack.structure)


@pytest.mark.parametrize(
    "wrong",
    [
        {"images": defocus},
        {
            "images": lambda stack: replace(
                stack, source=stack.source.subset(np.array([1, 0, 2, 3]))
            )
        },
        {"templates": change_template},
        {
            "templates": lambda t: replace(
                t, viewing=replace(t.viewing, weight=np.arange(1.0, len(t) + 1))
            )
        },
    ],
    ids=["defocus 3 % off", "images swapped", "templates changed", "weights of views"],
)
def test_results_of_slightly_other_inputs_are_found_out(files, wrong):
    """Results of other inputs, with records that vouch for them: only computing them again can
    tell."""
    images, (templates, _) = (
        cld.open_images(files, PARAMETERS, 0),
        [cld.open_templates(files, PARAMETERS, i) for i in (0, 1)],
    )
    folder = replace(files, folder_templates=None, folder_particles=None, n_stacks=1, i_template=0)
    changed = {"images": images, "templates": templates}
    changed |= {name: change(changed[name]) for name, change in wrong.items()}
    cld.run_likelihood_optimal_pose(
        folder, PARAMETERS, SEARCH, progress=False, **changed, noise="white"
    )
    record = files.folder_output / "template0/done/stack_000000.json"
    inputs = [
        *templates.source.describe(np.arange(len(templates))),
        *images.source.describe(np.arange(len(images))),
    ]
    record.write_text(json.dumps(json.loads(record.read_text()) | {"inputs": inputs}))
    found = verify(files)
    assert any("log_likelihood_integrated of image" in finding for finding in found.findings)
    worst = (found.sample.difference / found.sample.tolerance).max()
    assert worst > 10, "far from what is allowed"


@pytest.mark.parametrize(
    "name", ["optimal_template", "optimal_displacement_x", "optimal_inplane_rotation"]
)
@pytest.mark.parametrize("value", [1, -7])
def test_another_pose_is_found_out(files, written, name, value):
    path = written / f"template0/optimal_pose/{name}_stack_000001.pt"
    poses = torch.load(path, weights_only=True)
    poses[1] = value if name != "optimal_template" else (poses[1] + 1) % 3 if value == 1 else value
    torch.save(poses, path)
    believe(written / RECORD)
    assert "pose of image 1 correlates less than the best" in "".join(verify(files).findings)


def test_a_tie_is_no_finding(files):
    """Two equal templates: either is right."""
    paths = [files.folder_templates / f"templates_fourier_{name}.pt" for name in "ab"]
    for path in paths:
        values = torch.load(path, weights_only=True)
        values[1:] = values[0]
        torch.save(values, path)
    folder = compute(files)
    path = folder / "template0/optimal_pose/optimal_template_stack_000001.pt"
    torch.save(torch.ones(3, dtype=torch.int64), path)
    believe(folder / RECORD)
    assert verify(files).ok


def test_inputs_that_have_changed_or_are_missing_are_named_once(files, written):
    tensor = files.image_stack(0)[0]
    os.utime(tensor, ns=(1, 1))
    found = verify(files)
    assert (
        f"{tensor.name}: has changed since results were computed from it (mtime_ns "
        in only_finding(found)
    )
    assert set(found.sample["stack"].values) == {1}
    tensor.unlink()
    assert str(tensor) in only_finding(verify(files))
    shutil.rmtree(files.folder_templates)
    assert "parameters.npz" in only_finding(verify(files))


def test_other_parameters_are_named(files, written):
    other = replace(PARAMETERS, pixel_size_angstrom=1.6)
    assert "pixel_size=1.5, but the parameters say 1.6" in only_finding(
        verify(files, params_input=other)
    )


def test_without_inputs_only_files_are_checked_and_it_is_said(files, written):
    for options in ({}, {"templates": files.folder_templates}, {"images": files.folder_particles}):
        found = cld.verify_likelihood(files.folder_output, **options)
        assert found.ok
        assert found.n_files == 32
        assert "no result was computed again" in found.notes[0]
    images, templates = cld.open_images(files, PARAMETERS), cld.open_templates(files, PARAMETERS, 0)
    with pytest.raises(InputError, match="the parameters are not known"):
        cld.verify_likelihood(files.folder_output, images=images, templates=templates)
    with pytest.raises(InputError, match="n_samples=-1"):
        verify(files, n_samples=-1)


def test_a_run_on_lazy_stacks_is_verified_with_the_same(build, tmp_path):
    images, templates = build.stacks(n_images=5)
    parameters = cld.ImageParameters(12, 1.5, n_inplanes=20)
    images = images.chunk(3)
    files = cld.configure_likelihood_files(None, None, tmp_path / "out")
    cld.run_likelihood_optimal_pose(
        files,
        parameters,
        SEARCH,
        images=images,
        templates=templates,
        precision="single",
        progress=False,
        noise="white",
    )
    found = cld.verify_likelihood(tmp_path / "out", parameters, images=images, templates=templates)
    assert found.ok, found.findings
    assert found.sample.sizes["sample"] == 5
    other = ImageStack.from_array(build.rings(5, images.grid), parameters, images.optics).chunk(3)
    found = cld.verify_likelihood(tmp_path / "out", parameters, images=other, templates=templates)
    assert all(finding.startswith("array in memory: ") for finding in found.findings)
    assert not found.ok


def test_the_command(files, written):
    command = [
        "verify",
        written,
        "--templates",
        files.folder_templates,
        "--particles",
        files.folder_particles,
    ]
    invoke = CliRunner().invoke
    done = invoke(
        app, list(map(str, [*command, "--n-samples", 3])), env={"COLUMNS": "200", "NO_COLOR": "1"}
    )
    assert done.exit_code == 0, done.output
    assert (
        "32 files of whole results are as recorded, 3 results computed again: nothing is wrong"
        in done.stdout
    )
    assert "log_likelihood_integrated" in done.stdout
    (written / CORRELATION).unlink()
    done = invoke(app, ["verify", str(written)], env={"COLUMNS": "200", "NO_COLOR": "1"})
    assert done.exit_code == 1
    assert f"wrong: {written / CORRELATION}: cannot be read" in done.stdout
    assert (
        "24 files of whole results are as recorded, 11 results computed again: 1 finding(s)"
        in done.stdout
    )
    (written / "images").rename(files.folder_particles.with_name("elsewhere"))
    done = invoke(app, ["verify", str(written)], env={"COLUMNS": "200", "NO_COLOR": "1"})
    assert "note: no result was computed again" in done.stdout
    for k in (0, 1):
        assert f"wrong: {written}/images/stack_{k:06d}.npz: there is no such file" in done.stdout
    assert "no numbers computed again: 3 finding(s)" in done.stdout
    assert isinstance(done.exception, SystemExit)
    failed = invoke(app, ["verify", str(written / "nowhere")])
    assert failed.exit_code == 3
    assert failed.stderr.startswith("reading results ...\nerror: ")
