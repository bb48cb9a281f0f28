"""From input files to written outputs: the tree, file by file; what is skipped, what is refused,
what is replaced."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import psutil
import pytest
import torch
import xarray as xr

import cryolike_dask as cld
from cryolike_dask.errors import CannotFitError, InputError, OutputError
from cryolike_dask.io.stacks import write_image_stack

SEARCH = cld.configure_displacement(1.5, 3, 2)
PARAMETERS = cld.ImageParameters(
    n_pixels=12, pixel_size_angstrom=1.5, n_inplanes=20, viewing_distance=3.0
)
SIZES = (4, 3)
POSE_FILES = {
    "cross_correlation/cross_correlation": torch.float32,
    "cross_correlation/correlation_error_bound": torch.float32,
    "optimal_pose/optimal_template": torch.int64,
    "optimal_pose/optimal_displacement_x": torch.float32,
    "optimal_pose/optimal_displacement_y": torch.float32,
    "optimal_pose/optimal_inplane_rotation": torch.float32,
    "log_likelihood/log_likelihood_integrated_fourier": torch.float32,
    "log_likelihood/log_likelihood_optimal_fourier": torch.float32,
}


@pytest.fixture
def files(tmp_path, build):
    """Two structures and two stacks of unequal length, as a user has them."""
    files = cld.configure_likelihood_files(
        tmp_path / "templates", tmp_path / "particles", tmp_path / "out"
    )
    build.write_files(files, PARAMETERS, sizes=SIZES)
    return files


def run(files, **options):
    parameters = files.folder_templates / "parameters.npz"
    return cld.run_likelihood_optimal_pose(
        files, parameters, SEARCH, **{"progress": False, "noise": "white", **options}
    )


def tree(files):
    """Every file below the output folder."""
    root = files.folder_output
    return sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file())


def same(a, b):
    """Equal but for rounding, which may differ from one process to another."""
    assert a.sizes == b.sizes
    for name in a.data_vars:
        np.testing.assert_allclose(a[name], b[name], rtol=1e-5, atol=1e-5, err_msg=name)


def times(files):
    """When each result was written."""
    return {name: (files.folder_output / name).stat().st_mtime_ns for name in tree(files)}


def test_the_output_tree_file_by_file(files):
    results = run(files)
    expected = [f"template0/{stem}_stack_{k:06d}.pt" for stem in POSE_FILES for k in (0, 1)]
    expected += [f"template0/done/stack_{k:06d}.json" for k in (0, 1)] + [
        "blocks.csv",
        "displacements_set.pt",
    ]
    expected += ["template0/structure.npz", "images/stack_000000.npz", "images/stack_000001.npz"]
    expected += [".claim-results.json", "run.log"]
    assert tree(files) == sorted(expected)
    for stem, dtype in POSE_FILES.items():
        for k, n in enumerate(SIZES):
            tensor = torch.load(
                files.folder_output / f"template0/{stem}_stack_{k:06d}.pt", weights_only=True
            )
            assert (tensor.shape, tensor.dtype) == ((n,), dtype)
    displacements = torch.load(files.folder_output / "displacements_set.pt", weights_only=True)
    assert displacements.shape == (2, 7)
    assert displacements.dtype == torch.float32
    np.testing.assert_allclose(displacements, SEARCH.grid(1.5).table(), atol=1e-6)
    assert results.sizes == {"image": sum(SIZES)}
    assert results.structure.item() == "a"


def test_what_is_written_is_what_is_computed(files):
    results = run(files).load()
    images = cld.open_images(files, PARAMETERS)
    computed = cld.compute_optimal_pose(
        images, SEARCH(cld.open_templates(files, PARAMETERS))
    ).compute()
    for name in computed.data_vars:
        np.testing.assert_allclose(
            results[name], computed[name], rtol=1e-6, atol=1.2e-7, err_msg=name
        )
    np.testing.assert_array_equal(results["stack"], [0] * 4 + [1] * 3)
    np.testing.assert_array_equal(results["image_in_stack"], [0, 1, 2, 3, 0, 1, 2])


def test_double_precision_is_written_as_double(files):
    run(files, precision="double")
    folder = files.folder_output / "template0"
    assert (
        torch.load(folder / "cross_correlation/cross_correlation_stack_000000.pt").dtype
        == torch.float64
    )
    assert torch.load(files.folder_output / "displacements_set.pt").dtype == torch.float64


def test_files_are_configured_by_position_as_by_name():
    by_name = cld.configure_likelihood_files("t", "p", "o", n_stacks=4, i_template=1)
    assert cld.configure_likelihood_files("t", "p", "o", 4, 1) == by_name


def test_arguments_override_the_configured_numbers_for_reading_and_writing_alike(files):
    results = run(files, i_template=1, n_stacks=1)
    assert results.structure.item() == "b"
    assert results.sizes == {"image": 4}
    written = {".claim-results.json", "template1", "images", "blocks.csv", "displacements_set.pt"}
    written.add("run.log")
    assert {name.split("/")[0] for name in tree(files)} == written
    assert not any("000001" in name for name in tree(files))


@pytest.mark.parametrize("i_template", [[0, 1], "all"])
def test_several_structures_in_one_call(files, i_template):
    both = run(files, i_template=i_template).load()
    assert both.sizes == {"structure": 2, "image": 7}
    assert list(both.structure.values) == ["a", "b"]
    same(both.isel(structure=1), run(files, i_template=1).load())


def test_batch_sizes_never_change_a_result(files):
    whole = run(files, precision="double").load()
    for options in (
        {"n_images_per_batch": 1, "n_templates_per_batch": 3},
        {"discover_batch_size": True},
    ):
        tiled = run(files, precision="double", **options).load()
        xr.testing.assert_allclose(whole, tiled, rtol=1e-12)
        np.testing.assert_array_equal(whole.optimal_template, tiled.optimal_template)


def test_results_of_another_tolerance_are_not_mixed(files):
    rough = run(files, tolerance=0.3).load()
    assert (rough.correlation_error_bound > 1e-3).all()
    with pytest.raises(OutputError, match=r"tolerance: 0\.3 there, 0\.0 here"):
        run(files, tolerance=0)
    exact = run(files, tolerance=np.float32(0), overwrite=True).load()
    assert (exact.correlation_error_bound == 0).all()
    with pytest.raises(InputError, match="tolerance=1 is not a part of 1"):
        run(files, tolerance=1)


def test_full_cross_correlation_is_written_and_agrees_with_the_poses(files):
    poses = run(files).load()
    parameters = files.folder_templates / "parameters.npz"
    full = cld.run_likelihood_full_cross_correlation(files, parameters, SEARCH, progress=False)
    path = (
        files.folder_output
        / "template0/cross_correlation/cross_correlation_pose_msdw_stack_000001.pt"
    )
    stored = torch.load(path, weights_only=True)
    assert stored.shape == (3, len(PARAMETERS.viewing_angles()), 7, 20)
    assert full.cross_correlation.dims == ("image", "template", "displacement", "rotation")
    best = full.cross_correlation.max(("template", "displacement", "rotation"))
    np.testing.assert_allclose(best, poses.cross_correlation, rtol=0, atol=1e-6)
    assert any("full_cross_correlation_stack_000001.json" in name for name in tree(files))


def test_a_full_cross_correlation_whose_blocks_cannot_fit_is_refused_with_their_size(files):
    parameters = files.folder_templates / "parameters.npz"
    n_templates = len(PARAMETERS.viewing_angles())
    side = int(np.sqrt(psutil.virtual_memory().total / (4 * n_templates * 20 * 4))) | 1
    search = cld.configure_displacement(1.0, side, side)
    batches = {"n_images_per_batch": 4, "n_templates_per_batch": 1000}
    with pytest.raises(
        CannotFitError, match=rf"4 x {n_templates} x {side**2} x 20 .* takes [\d.e+]+ GB"
    ):
        cld.run_likelihood_full_cross_correlation(
            files, parameters, search, progress=False, **batches
        )
    assert not files.folder_output.exists()


def test_skip_exist_leaves_complete_results_alone(files):
    run(files)
    before = times(files)
    time.sleep(0.01)
    run(files, skip_exist=True)
    assert times(files) | {"run.log": 0} == before | {"run.log": 0}
    run(files)
    kept = ("displacements_set.pt", ".claim-results.json", "run.log")
    results = {k: v for k, v in before.items() if k not in kept and not k.endswith(".npz")}
    after = times(files)
    assert all(after[name] != written for name, written in results.items())


def truncate(path):
    path.write_bytes(path.read_bytes()[:-200])


def empty(path):
    path.write_bytes(b"")


def replace_by_another_of_the_same_shape(path):
    torch.save(torch.zeros_like(torch.load(path)), path)


def replace_by_a_pickle(path):
    import pickle

    path.write_bytes(pickle.dumps([1, 2]))


@pytest.mark.parametrize(
    "damage",
    [
        truncate,
        empty,
        replace_by_another_of_the_same_shape,
        replace_by_a_pickle,
        lambda path: path.unlink(),
    ],
)
@pytest.mark.parametrize(
    "name", ["cross_correlation/cross_correlation", "optimal_pose/optimal_template"]
)
def test_damaged_or_foreign_results_are_not_skipped_over(files, damage, name, caplog):
    first = run(files).load()
    before = times(files)
    damage(files.folder_output / f"template0/{name}_stack_000001.pt")
    time.sleep(0.01)
    with caplog.at_level("INFO", "cryolike_dask"):
        second = run(files, skip_exist=True).load()
    assert "template0-stack_000001 is computed: " in caplog.text
    assert "stack_000000 is computed" not in caplog.text
    same(first, second)
    assert all(times(files)[n] == t for n, t in before.items() if "000000" in n)


def test_results_of_changed_inputs_are_not_skipped_over(files, build, caplog):
    run(files)
    values = build.rings(4, PARAMETERS.grid).astype(np.complex64)
    write_image_stack(files.image_stack(0)[0], values, build.optics(4), PARAMETERS)
    with caplog.at_level("INFO", "cryolike_dask"):
        second = run(files, skip_exist=True).load()
    assert "template0-stack_000000 is computed: the inputs of the results are others" in caplog.text
    shutil.rmtree(files.folder_output)
    same(second, run(files).load())


def test_results_without_a_record_are_computed_again(files, caplog):
    run(files)
    (files.folder_output / "template0/done/stack_000000.json").unlink()
    with caplog.at_level("INFO", "cryolike_dask"):
        run(files, skip_exist=True)
    assert "there is no readable completion record" in caplog.text


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"conventions": "cryolike"}, "conventions: standard there, cryolike here"),
        ({"search": cld.configure_displacement(2.0, 3, 2)}, "another search"),
        (
            {"search": cld.configure_displacement(1.5, 3, 3)},
            "another search .*: n_displacements: 7 there, 9 here",
        ),
    ],
)
def test_results_of_another_run_are_refused_or_replaced(files, other, named):
    run(files)
    before = times(files)
    options = {"conventions": "standard", "search": SEARCH, **other}
    arguments = (files, PARAMETERS, options.pop("search"))
    for skip_exist in (False, True):
        with pytest.raises(OutputError, match=named) as refusal:
            cld.run_likelihood_optimal_pose(
                *arguments, skip_exist=skip_exist, progress=False, **options
            )
        assert str(files.folder_output) in str(refusal.value)
        assert "overwrite=True" in str(refusal.value)
    assert times(files) == before
    run(files, i_template=1)  # the same search in the same folder is welcome
    cld.run_likelihood_optimal_pose(*arguments, overwrite=True, progress=False, **options)
    assert not any(name.startswith("template1/") for name in tree(files)), (
        "results of the old search are gone"
    )
    records = [json.loads(p.read_text()) for p in files.folder_output.glob("template*/done/*.json")]
    assert {r["settings"]["conventions"] for r in records} == {options["conventions"]}


def test_results_of_another_program_are_not_replaced_unasked(files):
    """CryoLike's have no records; those of a run that was killed before its first record have
    origins."""
    run(files)
    for path in files.folder_output.glob("template*/done/*.json"):
        path.unlink()
    before = times(files)
    run(files, skip_exist=True)
    assert times(files) != before
    shutil.rmtree(files.folder_output / "images")
    for path in files.folder_output.glob("template*/done/*.json"):
        path.unlink()
    before = times(files)
    for skip_exist in (False, True):
        with pytest.raises(OutputError, match="holds results that this program did not write"):
            run(files, skip_exist=skip_exist)
    assert times(files) == before
    run(files, overwrite=True)


@pytest.mark.parametrize(
    "nonsense", ['{"outputs": {"cross_correlation": null}}', "[" * 100000, "[]", ""]
)
def test_a_record_of_nonsense_is_no_record(files, nonsense):
    first = run(files).load()
    (files.folder_output / "template0/done/stack_000000.json").write_text(nonsense)
    same(first, run(files, skip_exist=True, overwrite=True).load())
    assert (
        json.loads((files.folder_output / "template0/done/stack_000000.json").read_text())[
            "i_stack"
        ]
        == 0
    )


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: folder.symlink_to(folder), "out"),
        (lambda folder: folder.write_text(""), "is not a folder"),
        (
            lambda folder: (folder / "displacements_set.pt").mkdir(parents=True),
            "displacements_set.pt: is a folder",
        ),
    ],
)
def test_an_output_that_cannot_be_written_is_said_before_anything_is_computed(
    files, spoil, message
):
    spoil(files.folder_output)
    with pytest.raises(OutputError, match=message):
        run(files)


def test_results_of_another_length_are_named_on_reading(files):
    run(files)
    path = files.folder_output / "template0/cross_correlation/cross_correlation_stack_000001.pt"
    torch.save(torch.zeros(2), path)
    with pytest.raises(
        cld.errors.InputFileError, match=f"{path.name}: holds 2 images, but their stack holds 3"
    ):
        cld.open_optimal_pose(files)


def test_other_folders_in_the_output_are_no_results(files):
    results = run(files).load()
    (files.folder_output / "template_old2").mkdir()
    output = cld.configure_likelihood_files(None, None, files.folder_output, i_template="all")
    same(
        cld.open_optimal_pose(output).isel(structure=0, drop=True).load(),
        results.drop_vars("structure"),
    )
    shutil.rmtree(files.folder_output / "template0")
    with pytest.raises(cld.errors.InputFileError, match=r"template0|holds no results"):
        cld.open_optimal_pose(output)


def test_the_record_says_what_it_is_of(files):
    run(files)
    record = json.loads((files.folder_output / "template0/done/stack_000001.json").read_text())
    assert record["settings"]["conventions"] == "standard"
    assert record["settings"]["search"]["n_displacements"] == 7
    assert record["settings"]["parameters"]["n_pixels"] == 12
    assert record["precision"] == "single"
    assert record["version"] == cld.__version__
    names = {i["name"] for i in record["inputs"]}
    stack = "particles_fourier_stack_000001"
    assert names == {
        "templates_fourier_a.pt",
        "templates_fourier_a.npz",
        f"{stack}.pt",
        f"{stack}.npz",
    }


def test_results_carry_what_they_were_made_with(files):
    results = run(files)
    assert results.attrs["conventions"] == "standard"
    assert results.cross_correlation.attrs["units"] == "1"
    assert results.optimal_displacement_x.attrs["units"] == "angstrom"


def test_a_given_client_and_the_current_client_give_what_threads_give(files, cluster):
    threads = run(files).load()
    given, current = (
        replace(files, folder_output=files.folder_output.with_name(name))
        for name in ("given", "current")
    )
    same(threads, run(given, client=cluster).load())
    with cluster.as_current():
        same(threads, run(current).load())
    assert tree(given) == tree(current) == tree(files)


def test_an_error_on_a_worker_arrives_as_it_is_and_leaves_nothing_half_written(files, cluster):
    path = files.image_stack(1)[0]
    values = torch.load(path)
    values[2, 0, 0] = torch.nan
    torch.save(values, path)
    with pytest.raises(cld.errors.NotFiniteError, match=r"stack_000001.pt: image\(s\) 2 hold NaN"):
        run(files, client=cluster)
    # the other worker may be in the middle of writing what it has computed
    deadline = time.monotonic() + 30
    while any(name.endswith(".part") for name in tree(files)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [name for name in tree(files) if "000001" in name or name.endswith(".part")]


def test_killing_the_process_leaves_only_complete_files(files, tmp_path, rng):
    """Whatever stands under a final name after SIGKILL loads, and a record stands beside
    complete results alone."""
    code = (
        "import sys, cryolike_dask as cld\nfiles = "
        "cld.configure_likelihood_files(*sys.argv[1:4])\nprint('ready', flush=True)\nwhile True:\n "
        "   cld.run_likelihood_optimal_pose(files, sys.argv[1] + '/parameters.npz', "
        "cld.configure_displacement(1.5, 3, 2), progress=False, noise='white')\n"
    )
    folders = [
        str(f) for f in (files.folder_templates, files.folder_particles, files.folder_output)
    ]
    with subprocess.Popen(
        [sys.executable, "-c", code, *folders], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "ready\n"
        deadline = time.monotonic() + 60
        while not files.folder_output.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(rng.uniform(0.3, 0.8))
        os.kill(process.pid, signal.SIGKILL)
    for name in tree(files):
        if name.endswith(".pt"):
            torch.load(files.folder_output / name, weights_only=True)
        elif name.endswith(".json"):
            json.loads((files.folder_output / name).read_text())
    resumed = run(files, skip_exist=True).load()
    fresh = run(replace(files, folder_output=tmp_path / "fresh")).load()
    same(resumed, fresh)


def test_a_note_stays_with_the_results(build, tmp_path):
    files = cld.configure_likelihood_files(
        tmp_path / "templates", tmp_path / "particles", tmp_path / "out"
    )
    build.write_files(files, PARAMETERS, structures=("a",), sizes=(3,))
    text = 'masks of "March"; <b>200</b> µm\nand more'
    inputs = files, PARAMETERS, SEARCH
    cld.run_likelihood_optimal_pose(*inputs, progress=False, note=text)
    assert cld.open_results(tmp_path / "out").attrs["note"] == text
    cld.run_likelihood_optimal_pose(
        files, PARAMETERS, SEARCH, progress=False, skip_exist=True, note="no"
    )
    assert cld.open_results(tmp_path / "out").attrs["note"] == text, "nothing was computed again"
    page = cld.write_report(tmp_path / "out", progress=False).read_text()
    assert "&lt;b&gt;200&lt;/b&gt;" in page
    with pytest.raises(InputError, match="note=7 is not text"):
        cld.run_likelihood_optimal_pose(*inputs, note=7)


def test_a_report_that_cannot_be_written_costs_no_results(build, tmp_path):
    files = cld.configure_likelihood_files(
        tmp_path / "templates", tmp_path / "particles", tmp_path / "out"
    )
    build.write_files(files, PARAMETERS, structures=("a",), sizes=(3,))
    cld.run_likelihood_optimal_pose(files, PARAMETERS, SEARCH, progress=False)
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.*")}
    other = cld.configure_displacement(1.0, 3, 3)
    with pytest.raises(InputError, match="performance_report is asked for, but there are no"):
        cld.run_likelihood_optimal_pose(
            files, PARAMETERS, other, overwrite=True, performance_report=tmp_path / "report.html"
        )
    assert {path: path.stat().st_mtime_ns for path in written} == written


def test_a_client_that_is_none_is_refused_before_anything_is_opened(tmp_path):
    files = cld.configure_likelihood_files(tmp_path, tmp_path, tmp_path / "out")
    with pytest.raises(InputError, match="client='tcp://x:1' is not a Client"):
        cld.run_likelihood_optimal_pose(files, "none.npz", SEARCH, client="tcp://x:1")
