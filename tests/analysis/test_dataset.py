"""Everything that a folder of results says, opened as one lazy Dataset."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
import xarray as xr

import cryolike_dask as cld
from cryolike_dask.analysis import inventory
from cryolike_dask.analysis.displacements_tried import displacements_tried
from cryolike_dask.errors import InputFileError
from cryolike_dask.io.archives import read_archive, write_archive
from cryolike_dask.io.claims import holding
from cryolike_dask.runs.origins import OPTIONAL
from tests.conftest import Builder

PARAMETERS = cld.ImageParameters(12, 1.5, n_inplanes=20, viewing_distance=3.0, precision="single")
SEARCH = cld.configure_displacement(1.5, 3, 2)
SIZES = (4, 3)


def configured(folder, **options):
    return cld.configure_likelihood_files(
        folder / "templates",
        folder / "particles",
        folder / "out",
        **{"i_template": "all", **options},
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Results of two structures and two stacks whose particles say where they come from."""
    folder = tmp_path_factory.mktemp("results")
    recorded = {
        "files": lambda k, n: np.array([f"/data/é {k}.mrcs"] * n),
        "idxs": lambda k, n: np.arange(n)[::-1],
        "metadataFile": lambda k, n: np.array(["/data/particles.star"] * n),
        "metadataRow": lambda k, n: np.arange(n) + 10 * k,
        "micrograph": lambda k, n: np.array([f"mic_{i % 2}" for i in range(n)]),
        "opticsGroup": lambda k, n: np.arange(n) % 2 + 1,
        "angleRotation": lambda k, n: np.linspace(0, 1, n),
        "frame": lambda k, n: "xy",
    }
    Builder(np.random.default_rng(0)).write_files(
        configured(folder), PARAMETERS, sizes=SIZES, **recorded
    )
    run(configured(folder))
    return folder


@pytest.fixture
def folder(made, tmp_path):
    """A copy that a test may spoil."""
    shutil.copytree(made, tmp_path / "copy")
    return tmp_path / "copy"


def run(files, **options):
    return cld.run_likelihood_optimal_pose(
        files, PARAMETERS, SEARCH, progress=False, client=None, **options, noise="white"
    )


def test_values_are_those_of_the_run(made):
    results, written = cld.open_results(made / "out"), cld.open_optimal_pose(configured(made))
    assert results.sizes == {"structure": 2, "image": 7}
    assert all(variable.chunks is not None for variable in results.data_vars.values())
    assert results["structure"].values.tolist() == ["a", "b"]
    for name in written.data_vars:
        assert results[name].dtype == written[name].dtype
        np.testing.assert_array_equal(results[name], written[name])
        assert results[name].attrs["units"]
    viewing = PARAMETERS.viewing_angles()
    np.testing.assert_array_equal(
        results.optimal_azimuth, viewing.azimuth[results.optimal_template.values]
    )
    np.testing.assert_array_equal(
        results.optimal_polar, viewing.polar[results.optimal_template.values]
    )


def test_images_say_where_they_come_from(made):
    results = cld.open_results(made / "out")
    assert results.image_file.values.tolist() == ["/data/é 0.mrcs"] * 4 + ["/data/é 1.mrcs"] * 3
    np.testing.assert_array_equal(results.image_index, [3, 2, 1, 0, 2, 1, 0])
    np.testing.assert_array_equal(results.metadata_row, [0, 1, 2, 3, 10, 11, 12])
    np.testing.assert_allclose(results.recorded_rot, [*np.linspace(0, 1, 4), 0, 0.5, 1])
    assert results.recorded_rot.attrs["units"] == "radian"
    assert "recorded_tilt" not in results.coords
    assert "true_structure" not in results.coords


def test_selects_by_structure_micrograph_and_optics_group(made):
    results = cld.open_results(made / "out")
    some = results.sel(structure="b", micrograph="mic_1")
    np.testing.assert_array_equal(some.image, [1, 3, 5])
    np.testing.assert_array_equal(results.sel(optics_group=2).image, [1, 3, 5])
    np.testing.assert_array_equal(
        some.cross_correlation, results.cross_correlation.values[1, [1, 3, 5]]
    )


def test_says_what_was_run(made):
    said = cld.open_results(made / "out").attrs
    expected = {
        "conventions": "standard",
        "precision": "single",
        "frame": "xy",
        "template_conventions": "standard",
        "template_source": "unknown",  # the templates of this test are made of no structure
        "n_pixels": 12,
        "n_inplanes": 20,
        "folder": str(made / "out"),
        "folder_templates": str(made / "templates"),
        "folder_particles": str(made / "particles"),
    }
    assert {name: said[name] for name in expected} == expected
    tried = displacements_tried(xr.Dataset(attrs=said))
    np.testing.assert_allclose(tried, SEARCH.grid(1.5).table(), atol=1e-6)


def test_says_what_records_say_besides(folder, monkeypatch):
    """Notes that were given to runs, and whatever else: text, distinct ones joined."""
    notes = {(0, 0): "first try", (0, 1): "<b>", (1, 0): None, (1, 1): "first try"}
    for (i, k), note in notes.items():
        path = configured(folder).record(i, k, "optimal_pose")
        record = json.loads(path.read_text()) | {"note": note, "nodes": [1, i], "folder": "no"}
        path.write_text(json.dumps(record))
    said = cld.open_results(folder / "out").attrs
    assert said["note"] == "first try; <b>"
    assert said["nodes"] == "[1, 0]; [1, 1]"
    assert said["folder"] == str(folder / "out")
    monkeypatch.setattr(inventory, "MOST_RECORDS", 0)
    assert cld.open_results(folder / "out").attrs == said
    assert cld.open_optimal_pose(configured(folder, i_template=0)).attrs["note"] == "first try"


@pytest.mark.parametrize("form", ["zarr", "netcdf"])
def test_goes_to_zarr_and_netcdf_and_back(made, tmp_path, form):
    results, path = cld.open_results(made / "out"), tmp_path / "results"
    if form == "zarr":
        results.to_zarr(path, consolidated=False)
        back = xr.open_zarr(path, consolidated=False).load()
    else:
        results.to_netcdf(path, engine="h5netcdf")
        back = xr.open_dataset(path, engine="h5netcdf").load()
    results = results.load()
    xr.testing.assert_equal(back.set_xindex("micrograph").set_xindex("optics_group"), results)
    for name, variable in results.variables.items():
        assert back[name].attrs == variable.attrs
    assert set(back.attrs) == set(results.attrs)
    for name, value in results.attrs.items():
        np.testing.assert_array_equal(back.attrs[name], value)


def test_what_is_not_there_yet_is_nan(folder, caplog):
    for path in (folder / "out/template1").glob("*/*_stack_000000.pt"):
        path.unlink()
    results = cld.open_results(folder / "out")
    assert "1 of 4 stacks have no results yet" in caplog.text
    assert np.isnan(results.cross_correlation[1, :4]).all()
    assert np.isnan(results.optimal_azimuth[1, :4]).all()
    assert (results.optimal_template[1, :4] == -1).all()
    assert np.isfinite(results.cross_correlation.isel(image=slice(4, None))).all()
    np.testing.assert_array_equal(results.sel(optics_group=1).image, [0, 2, 4, 6])


def test_stacks_that_are_missing_under_all_structures_and_runs_that_write_are_told(folder, caplog):
    out = folder / "out"
    for path in out.glob("template*/*/*_stack_000000.*"):
        path.unlink()
    with holding(out, "results", {}, overwrite=False, refuse_others=lambda: None):
        assert cld.open_results(out).sizes["image"] == 3
    assert "image stack(s) 0 have no results at all, and their images are left out" in caplog.text
    assert "a run is writing here now (process" in caplog.text


def test_folders_of_the_published_program_open(folder):
    """No records, no origins."""
    for path in [*(folder / "out").glob("template*/done"), folder / "out/images"]:
        shutil.rmtree(path)
    for path in [*(folder / "out").glob("template*/structure.npz"), folder / "out/blocks.csv"]:
        path.unlink()
    whole, results = cld.open_optimal_pose(configured(folder)), cld.open_results(folder / "out")
    assert results["structure"].values.tolist() == ["template0", "template1"]
    np.testing.assert_array_equal(
        results.log_likelihood_integrated, whole.log_likelihood_integrated
    )
    assert np.isnan(results.optimal_polar).all()
    assert (results.metadata_row == -1).all()
    assert set(results.image_file.values.tolist()) == {""}


def test_structures_of_one_name_are_told_apart(tmp_path):
    images, templates = Builder(np.random.default_rng(1)).stacks(3, 2)
    files = cld.configure_likelihood_files(None, None, tmp_path, i_template="all")
    parameters = cld.ImageParameters(12, 1.5, n_inplanes=20)
    cld.run_likelihood_optimal_pose(
        files,
        parameters,
        lambda t: t,
        images=images,
        templates=[templates, templates],
        progress=False,
        noise="white",
    )
    results = cld.open_results(tmp_path)
    assert results["structure"].values.tolist() == [
        "structure (template0)",
        "structure (template1)",
    ]
    assert results.attrs["folder_templates"] == ""


def test_other_inputs_are_described_anew(folder):
    """The images of a stack are others now: what is said of them follows."""
    files = configured(folder)
    path = files.origins(0)
    before = path.stat().st_mtime_ns
    run(files, overwrite=True)
    assert path.stat().st_mtime_ns == before
    entries = {"files": lambda k, n: np.array(["/data/other.mrcs"] * n), "frame": lambda k, n: "xy"}
    Builder(np.random.default_rng(3)).write_files(files, PARAMETERS, sizes=SIZES, **entries)
    run(files, overwrite=True)
    said = read_archive(path, optional=OPTIONAL)
    assert set(said["files"].tolist()) == {"/data/other.mrcs"}
    assert "micrograph" not in said


def test_damaged_and_missing_results_are_named(folder, tmp_path):
    with pytest.raises(InputFileError, match=r"nothing.*No such file"):
        cld.open_results(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputFileError, match="holds no results"):
        cld.open_results(tmp_path / "empty")
    path = folder / "out/template0/cross_correlation/cross_correlation_stack_000000.pt"
    torch.save(torch.zeros(5), path)
    with pytest.raises(
        InputFileError,
        match=r"cross_correlation_stack_000000.pt: has shape \(5,\), not the 4 images",
    ):
        cld.open_results(folder / "out").cross_correlation.load()
    path.write_bytes(b"nothing")
    with pytest.raises(InputFileError, match="cannot be read as a plain tensor"):
        cld.open_results(folder / "out").cross_correlation.load()


def test_stacks_in_different_frames_are_refused(folder):
    path = configured(folder).origins(1)
    entries = {
        key: value for key, value in read_archive(path, optional=OPTIONAL).items() if key != "frame"
    }
    write_archive(path, {**entries, "frame": "transposed"})
    with pytest.raises(InputFileError, match="stacks in different frames"):
        cld.open_results(folder / "out")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"n_images": 10**9},
            r"stack_000000\.npz: \w+ is not one value for each of its 1000000000 images",
        ),
        ({"n_images": -4}, r"images/stack_000000\.npz: n_images=-4"),
        ({"n_images": np.array([4, 4])}, r"images/stack_000000\.npz: entry 'n_images' has shape"),
        (
            {"files": np.array(["a"] * 7)},
            r"images/stack_000000\.npz: files is not one value for each of its 4 images",
        ),
        (
            {"idxs": np.zeros((4, 2), int)},
            r"images/stack_000000\.npz: idxs is not one value for each of its 4 images",
        ),
    ],
)
def test_origins_that_do_not_fit_their_results(folder, changes, message):
    path = folder / "out/images/stack_000000.npz"
    write_archive(path, read_archive(path, optional=OPTIONAL) | changes)
    with pytest.raises(InputFileError, match=message):
        cld.open_results(folder / "out")


def test_angles_in_degrees(rng):
    angle = rng.uniform(0, 6, (2, 3))
    results = xr.Dataset(
        {
            "optimal_inplane_rotation": (("structure", "image"), angle, {"units": "radian"}),
            "orientation_radius_95": ("image", angle[0], {"units": "degree"}),
            "weight": ("image", angle[0], {"units": "steradian"}),
        },
        coords={"rotation": ("rotation", angle[0], {"units": "radian", "long_name": "r"})},
    ).chunk()
    found = results.cryolike.degrees()
    assert found.optimal_inplane_rotation.chunks is not None
    np.testing.assert_allclose(found.optimal_inplane_rotation, angle * 180 / np.pi, rtol=1e-15)
    np.testing.assert_allclose(found.rotation, angle[0] * 180 / np.pi, rtol=1e-15)
    assert found.rotation.attrs == {"units": "degree", "long_name": "r"}
    for name in ("orientation_radius_95", "weight"):
        xr.testing.assert_identical(found[name], results[name])
    assert results.optimal_inplane_rotation.attrs["units"] == "radian"
    xr.testing.assert_identical(found.cryolike.degrees(), found)
