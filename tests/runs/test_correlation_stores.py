"""Full cross-correlations that are too large for a file: what is written, checked, continued,
and what goes wrong."""

from __future__ import annotations

import json
import logging
import shutil

import numpy as np
import pytest
import torch
import xarray as xr

import cryolike_dask as cld
from cryolike_dask.errors import CannotFitError, InputFileError, OutputError
from cryolike_dask.io import stores
from cryolike_dask.likelihoods.settings import Settings, Tiling
from cryolike_dask.runs import capacity, plan, sizes, writing
from cryolike_dask.runs import run as runs
from cryolike_dask.runs.kinds import FULL_CROSS_CORRELATION

SEARCH = cld.configure_displacement(1.5, 3, 2)
PARAMETERS = cld.ImageParameters(
    n_pixels=12, pixel_size_angstrom=1.5, n_inplanes=20, viewing_distance=1.0
)
N_TEMPLATES = len(PARAMETERS.viewing_angles())
PAIR = 7 * 20 * 4
"""Bytes of all poses of one image and one template."""
WHOLE, BLOCK = 5 * N_TEMPLATES * PAIR, 2 * 5 * PAIR
BATCHES = {"n_images_per_batch": 2, "n_templates_per_batch": 5}
CORRELATION = "template0/cross_correlation/cross_correlation_pose_msdw_stack_000000"


@pytest.fixture
def files(tmp_path, build):
    """One structure; a stack too large for the memory that `little` leaves, and one that is not."""
    files = cld.configure_likelihood_files(
        tmp_path / "templates", tmp_path / "particles", tmp_path / "out"
    )
    build.write_files(files, PARAMETERS, structures=("a",), sizes=(5, 2))
    return files


@pytest.fixture
def memory(monkeypatch):
    """Set what a worker has."""

    def worker_has(n_bytes):
        for module in (capacity, writing):
            monkeypatch.setattr(module, "memory_of_a_worker", lambda client, n_workers=0: n_bytes)

    return worker_has


@pytest.fixture
def little(memory):
    """Memory for a block and for the second stack, but not for the first."""
    memory((WHOLE - 1) * runs.FULL_CORRELATION_COPIES)


def run(files, **options):
    return cld.run_likelihood_full_cross_correlation(
        files, PARAMETERS, SEARCH, progress=False, **BATCHES | options, noise="white"
    )


def exact(files):
    images = cld.open_images(files, PARAMETERS)
    templates = SEARCH(cld.open_templates(files, PARAMETERS))
    return cld.compute_cross_correlation_complete(images, templates).load()


def tree(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def verify(files):
    return cld.verify_likelihood(
        files.folder_output,
        templates=files.folder_templates,
        images=files.folder_particles,
        n_samples=20,
    )


def test_a_store_holds_what_a_file_would(files, little, caplog):
    with caplog.at_level(logging.INFO, "cryolike_dask"):
        written = run(files)
    assert "1 full cross-correlation(s) take more memory than a worker has" in caplog.text
    assert (files.folder_output / f"{CORRELATION}.zarr").is_dir()
    assert not (files.folder_output / f"{CORRELATION}.pt").exists()
    assert (files.folder_output / f"{CORRELATION[:-1]}1.pt").is_file()
    assert written.cross_correlation.chunks[:2] == (
        (2, 2, 1, 2),
        written.cross_correlation.chunks[1],
    )
    assert max(written.cross_correlation.chunks[1]) <= N_TEMPLATES
    np.testing.assert_allclose(
        written.cross_correlation, exact(files).cross_correlation, rtol=0, atol=1e-6
    )
    assert verify(files).ok


@pytest.mark.filterwarnings("error")
def test_a_store_says_what_it_holds(files, little):
    run(files)
    full = exact(files).isel(image=slice(5))
    with xr.open_zarr(files.folder_output / f"{CORRELATION}.zarr") as store:
        assert store.cross_correlation.chunks[0] == (2, 2, 1)
        assert store.structure.item() == "a"
        for name, coordinate in full.coords.items():
            np.testing.assert_array_equal(store[name], coordinate, err_msg=name)
            assert store[name].attrs == coordinate.attrs
        assert store.attrs["conventions"] == "standard"
        np.testing.assert_allclose(
            store.cross_correlation, full.cross_correlation, rtol=0, atol=1e-6
        )


def test_what_is_done_is_left_alone_in_either_form(files, memory, little):
    run(files)
    before = tree(files.folder_output / "template0")
    run(files, skip_exist=True)
    memory(10**10)
    run(files, skip_exist=True)
    assert tree(files.folder_output / "template0") == before
    run(files)
    assert not (files.folder_output / f"{CORRELATION}.zarr").exists()
    in_files = tree(files.folder_output / "template0")
    memory((WHOLE - 1) * runs.FULL_CORRELATION_COPIES)
    run(files, skip_exist=True)
    assert tree(files.folder_output / "template0") == in_files
    run(files)
    assert not (files.folder_output / f"{CORRELATION}.pt").exists()
    assert {*tree(files.folder_output / "template0")} == {*before}


@pytest.mark.parametrize("damage", ["changed", "missing", "added", "not a store"])
def test_a_damaged_store_is_found_and_computed_again(files, little, damage):
    run(files)
    store = files.folder_output / f"{CORRELATION}.zarr"
    chunk = next(path for path in (store / "cross_correlation/c").rglob("*") if path.is_file())
    if damage == "changed":
        values = bytearray(chunk.read_bytes())
        values[10] ^= 1
        chunk.write_bytes(values)
    elif damage == "missing":
        chunk.unlink()
    elif damage == "added":
        (store / "more").write_text("more")
    else:
        (store / "cross_correlation/zarr.json").write_text("{")
    found = verify(files)
    assert len(found.findings) == 1
    assert str(store) in found.findings[0]
    run(files, skip_exist=True)
    assert verify(files).ok


def test_readers_notice_damage(files, little):
    written = run(files)
    chunk = next(
        path
        for path in (files.folder_output / f"{CORRELATION}.zarr/cross_correlation/c").rglob(
            "0/0/0/0"
        )
    )
    values = bytearray(chunk.read_bytes())
    values[10] ^= 1
    chunk.write_bytes(values)
    with pytest.raises(ValueError, match="checksum"):
        written.load()
    with pytest.raises(InputFileError, match=r"is not a readable store .*checksum"):
        stores.open_store(files.folder_output / f"{CORRELATION}.zarr").take(np.arange(2))


def test_a_run_that_is_stopped_leaves_no_store_and_its_rest_is_used_by_the_next(
    files, little, monkeypatch
):
    write, calls = stores.write_region, []

    def stopping(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise RuntimeError("stopped")
        return write(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(writing, "write_region", stopping)
        with pytest.raises(RuntimeError, match="stopped"):
            run(files)
    store = files.folder_output / f"{CORRELATION}.zarr"
    (begun,) = store.parent.glob(f".{store.name}.*.part")
    assert begun.is_dir()
    assert not store.exists()
    notes = cld.verify_likelihood(files.folder_output, n_samples=0).notes
    assert any(str(begun) in note and "left over" in note for note in notes)
    run(files, skip_exist=True)
    assert store.is_dir()
    assert not begun.exists()


def test_a_region_that_another_run_removed_is_noticed(files, little, monkeypatch):
    write = stores.write_region

    def losing(values, begun, block):
        written = write(values, begun, block)
        if block == (0, 0, 0, 0):
            (begun / written[0]).unlink()
        return written

    monkeypatch.setattr(writing, "write_region", losing)
    with pytest.raises(OutputError, match=r"c/0/0/0/0 is missing.*Let one run alone write here"):
        run(files)
    assert not (files.folder_output / f"{CORRELATION}.zarr").exists()
    assert not [*(files.folder_output / "template0/done").glob("*000000.json")]


def test_overwriting_removes_stores(files, little):
    run(files)
    other = cld.configure_displacement(1.0, 2, 2)
    with pytest.raises(OutputError, match="another search"):
        cld.run_likelihood_full_cross_correlation(
            files, PARAMETERS, other, progress=False, noise="white"
        )
    cld.run_likelihood_full_cross_correlation(
        files, PARAMETERS, other, progress=False, n_stacks=1, overwrite=True, noise="white"
    )
    assert not (files.folder_output / f"{CORRELATION}.zarr").exists()
    assert verify(files).ok


def test_a_block_larger_than_memory_is_refused_with_its_size(files, memory):
    memory(5 * BLOCK)
    with pytest.raises(
        CannotFitError, match=rf"a block .* 5 x {N_TEMPLATES} x 7 x 20 .*Ask for fewer"
    ):
        run(files, n_images_per_batch=None, n_templates_per_batch=None)
    assert not files.folder_output.exists()


def test_workers_write_regions(files, little, cluster, monkeypatch):
    written = run(files, client=cluster)
    np.testing.assert_allclose(
        written.cross_correlation, exact(files).cross_correlation, rtol=0, atol=1e-6
    )
    record = json.loads(
        (
            files.folder_output / "template0/done/full_cross_correlation_stack_000000.json"
        ).read_text()
    )
    assert record["outputs"]["cross_correlation_pose_msdw"]["file"].endswith(".zarr")
    assert verify(files).ok


def test_what_a_store_takes_on_the_disk_is_known_before(files, little):
    run(files)
    written = sum(map(len, tree(files.folder_output / "template0").values()))
    shutil.rmtree(files.folder_output)
    opened = (
        runs.open_run(files, PARAMETERS, SEARCH, Settings(device="cpu"))
        .in_batches(Tiling(n_images=2, n_templates=5))
        .in_memory((WHOLE - 1) * runs.FULL_CORRELATION_COPIES)
    )
    groups = sizes.group_jobs(opened, FULL_CROSS_CORRELATION, (), runs.Cut(1, 1, "cpu"))
    assert [group.job.is_store for group in groups] == [True, False]
    assert sum(sizes.written_bytes(group) for group in groups) == pytest.approx(written, rel=0.03)
    held = [plan._held_bytes(group, FULL_CROSS_CORRELATION) for group in groups]
    assert held == [plan.BLOCK_COPIES * BLOCK, runs.FULL_CORRELATION_COPIES * WHOLE * 2 / 5]


def test_a_file_in_the_old_place_is_kept_until_the_store_is_complete(
    files, memory, little, monkeypatch
):
    memory(10**10)
    run(files)
    before = torch.load(files.folder_output / f"{CORRELATION}.pt", weights_only=True)
    memory((WHOLE - 1) * runs.FULL_CORRELATION_COPIES)

    def failing(*arguments):
        raise RuntimeError("stopped")

    with monkeypatch.context() as patch:
        patch.setattr(writing, "write_region", failing)
        with pytest.raises(RuntimeError, match="stopped"):
            run(files)
    assert torch.equal(
        torch.load(files.folder_output / f"{CORRELATION}.pt", weights_only=True), before
    )


def test_the_last_task_may_run_twice(files, little, monkeypatch):
    finish = stores.finish_store

    def twice(*arguments):
        assert finish(*arguments) == finish(*arguments)
        return 5

    monkeypatch.setattr(writing, "finish_store", twice)
    run(files)
    assert verify(files).ok
