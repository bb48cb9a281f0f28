"""Tables of results: what they say is what results say, by names that lead back to the STAR
file."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import xarray as xr
from typer.testing import CliRunner

from cryolike_dask import (
    export_classes,
    export_csv,
    export_star,
    structure_probability,
    write_populations,
)
from cryolike_dask.analysis.export import tables
from cryolike_dask.analysis.populations.estimate import populations
from cryolike_dask.cli import app
from cryolike_dask.errors import InputError, OutputError
from cryolike_dask.io.export_names import CLASSES_TABLE, PARTICLES_TABLE
from tests.analysis.made_results import NAMES, made, particle_columns, text_of, write_text

POSE = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst")


@pytest.fixture
def star(tmp_path):
    return write_text(tmp_path / "job" / "particles.star", particle_columns(6))


@pytest.fixture
def results(rng, star):
    """Results of the rows of a STAR file, whose images are known."""
    found = made(rng, [star])
    return found.assign_coords(
        image_file=("image", np.array(["/data/Extract/a.mrcs"] * 6, object)),
        image_index=("image", np.arange(6)),
        micrograph=("image", np.array(["m1", "m1", "m2", "m2", "", "m3"], object)),
        optics_group=("image", np.array([2, 1, 2, 1, 2, -1])),
    )


def rows_of(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def column(path, name):
    return [row[name] for row in rows_of(path)]


def numbers(path, name):
    return np.array([float(value or "nan") for value in column(path, name)])


def test_the_table_says_what_results_and_the_star_file_say(results, tmp_path):
    path, star = tmp_path / "deep" / "particles.csv", tmp_path / "out.star"
    found = export_csv(results, path)
    export_star(results, star)
    assert (found.path, found.n_written, found.n_dropped) == (path, 6, 0)
    of_star, best = text_of(star), results.log_likelihood_integrated.values.argmax(axis=0)
    assert column(path, "rlnImageName") == particle_columns(6)["rlnImageName"]
    assert column(path, "structure") == [NAMES[k] for k in best]
    assert column(path, "rlnClassNumber") == of_star["rlnClassNumber"]
    assert column(path, "rlnMicrographName") == ["m1", "m1", "m2", "m2", "", "m3"]
    assert column(path, "rlnOpticsGroup") == ["2", "1", "2", "1", "2", ""]
    assert column(path, "left_out") == [""] * 6
    for label in POSE:
        np.testing.assert_allclose(numbers(path, label), np.array(of_star[label], float), atol=1e-8)
    np.testing.assert_allclose(
        numbers(path, "probability"), np.array(of_star["cryolikeProbability"], float), rtol=1e-9
    )
    probability = structure_probability(results).values
    for k, name in enumerate(NAMES):
        np.testing.assert_allclose(numbers(path, f"probability:{name}"), probability[k], rtol=1e-10)
        np.testing.assert_allclose(
            numbers(path, f"log_likelihood_integrated:{name}"),
            results.log_likelihood_integrated.values[k],
            rtol=1e-10,
        )


def test_images_that_are_left_out_have_a_row_that_says_why(results, tmp_path):
    results.log_likelihood_integrated[:, 4] = np.nan
    results.log_likelihood_integrated[0] = [9, 9, 9, 0, np.nan, 9]
    path = tmp_path / "particles.csv"
    found = export_csv(results, path, min_probability=0.9)
    assert (found.n_written, found.n_dropped) == (4, 2)
    assert column(path, "left_out") == [""] * 3 + ["probability below 0.9", "no result", ""]
    row = rows_of(path)[4]
    known = {"rlnImageName", "rlnMicrographName", "rlnOpticsGroup", "left_out"}
    assert {name for name, text in row.items() if text} == known - {"rlnMicrographName"}


@pytest.mark.parametrize("spoilt", ["gone", "truncated", "other images", "not a STAR file"])
def test_names_are_those_of_the_results_where_the_star_file_says_no_better(
    results, star, tmp_path, spoilt
):
    if spoilt == "gone":
        star.unlink()
    elif spoilt == "truncated":
        star.write_bytes(star.read_bytes()[:40])
    elif spoilt == "not a STAR file":
        star.write_bytes(b"\x00\xff" * 99)
    else:
        write_text(star, particle_columns(6, "Extract/b.mrcs"))
    path = tmp_path / "particles.csv"
    export_csv(results, path)
    assert column(path, "rlnImageName") == [f"{k + 1:06d}@/data/Extract/a.mrcs" for k in range(6)]


def test_images_of_no_known_file_are_called_by_their_number(results, tmp_path):
    path = tmp_path / "particles.csv"
    unknown = {"image_file": ("image", [""] * 6), "metadata_file": ("image", [""] * 6)}
    export_csv(results.assign_coords(unknown).isel(image=[3, 1]), path)
    assert column(path, "rlnImageName") == ["3", "1"]


def test_posteriors_over_poses_have_the_labels_of_relion(results, tmp_path, rng):
    shape, dims = results.cross_correlation.shape, results.cross_correlation.dims
    results["best_pose_probability"] = dims, rng.uniform(0.1, 1, shape).astype(np.float32)
    results["n_significant_poses"] = dims, rng.integers(1, 99, shape)
    results.log_likelihood_integrated[:, 1] = np.nan
    path = tmp_path / "particles.csv"
    export_csv(results, path)
    best = results.log_likelihood_integrated.fillna(-9).values.argmax(axis=0)
    wanted = results.best_pose_probability.values[best, np.arange(6)].astype(float)
    wanted[1] = np.nan
    np.testing.assert_allclose(numbers(path, "rlnMaxValueProbDistribution"), wanted, rtol=1e-6)
    counts = column(path, "rlnNrOfSignificantSamples")
    assert counts[0] == str(results.n_significant_poses.values[best[0], 0])
    assert counts[1] == ""


def test_many_structures_have_no_columns_of_their_own(results, tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "MOST_STRUCTURES", 1)
    path = tmp_path / "particles.csv"
    export_csv(results, path)
    assert not [name for name in rows_of(path)[0] if ":" in name]
    assert len(rows_of(path)) == 6


def test_one_structure_and_one_image(results, tmp_path):
    path = tmp_path / "one.csv"
    export_csv(results.isel(structure=1, image=2), path)
    (row,) = rows_of(path)
    assert (row["structure"], row["rlnClassNumber"]) == (NAMES[1], "1")
    assert "probability" not in row


def test_classes(results, tmp_path):
    path = tmp_path / "classes.csv"
    assert export_classes(results, path).n_written == 2
    best = results.log_likelihood_integrated.values.argmax(axis=0)
    assert column(path, "structure") == list(NAMES)
    assert column(path, "rlnClassNumber") == ["1", "2"]
    assert column(path, "n_images") == [str((best == k).sum()) for k in range(2)]
    parts = np.bincount(best, minlength=2) / 6
    assert column(path, "part_of_images") == [f"{part:.12g}" for part in parts]  # as it is written


def test_classes_have_the_shares_that_were_written(results, tmp_path):
    results = results.assign_attrs(folder=str(tmp_path))
    shares = populations(results, n_bootstrap=0, n_chains=2, seed=1)
    write_populations(shares, tmp_path)
    written = tables.write_tables(results, tmp_path)
    assert written == [tmp_path / PARTICLES_TABLE, tmp_path / CLASSES_TABLE]
    for name, wanted in (
        ("population", shares.population.values),
        ("lower", shares.population_interval.values[:, 0]),
        ("upper", shares.population_interval.values[:, 1]),
    ):
        np.testing.assert_allclose(numbers(written[1], name), wanted, rtol=1e-9)
    # shares of other results are none of these
    others = results.copy(deep=True)
    others.log_likelihood_integrated[0, 0] += 3
    export_classes(others, written[1], overwrite=True)
    assert "population" not in rows_of(written[1])[0]


def test_bad_requests(results, tmp_path):
    path = tmp_path / "particles.csv"
    with pytest.raises(InputError, match=r"particles\.txt does not end in \.csv"):
        export_csv(results, tmp_path / "particles.txt")
    with pytest.raises(InputError, match="results are a list"):
        export_csv([], path)
    with pytest.raises(InputError, match="results have no cross_correlation"):
        export_csv(xr.Dataset(coords={"image": [0]}), path)
    with pytest.raises(InputError, match=r"min_probability=2 is more than 1"):
        export_csv(results, path, min_probability=2)
    with pytest.raises(InputError, match=r"frame=None: the axes of the images are not known"):
        export_csv(results.drop_attrs(), path)
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        export_csv(results, tmp_path / "folder.csv", overwrite=True)
    path.write_bytes(b"\0\1\2")
    with pytest.raises(OutputError, match="is no text file"):
        export_csv(results, path, overwrite=True)
    path.write_text("mine")
    with pytest.raises(OutputError, match=r"is there already.*overwrite=True"):
        export_csv(results, path)
    assert path.read_text() == "mine"
    export_csv(results, path, overwrite=True)
    assert len(rows_of(path)) == 6


def test_the_command_writes_what_is_asked_for_or_nothing(results, tmp_path, monkeypatch):
    monkeypatch.setattr("cryolike_dask.analysis.dataset.open_results", lambda folder: results)
    particles, classes = tmp_path / "particles.csv", tmp_path / "classes.csv"

    def export(*arguments):
        return CliRunner().invoke(app, ["export", str(tmp_path), *map(str, arguments)])

    results.log_likelihood_integrated[:] = [[9, 9, 9, 0, 0.5, 9], [0, 0, 0, 9, 0, 0]]
    done = export("--csv", particles, "--classes", classes, "--min-probability", 0.9)
    assert done.exit_code == 0, done.output
    assert f"5 particles: {particles}" in done.stdout
    assert f"2 structures: {classes}" in done.stdout
    assert "1 particles are left out; its column left_out says why" in done.stdout
    assert column(particles, "left_out")[4] == "probability below 0.9"
    particles.unlink()
    refused = export("--csv", particles, "--classes", classes)
    assert refused.exit_code == 4
    assert "classes.csv: is there already" in refused.stderr
    assert not particles.exists()
    unclear = export()
    assert "none of --star, --cs, --csv, --classes and --subsets given" in unclear.stderr
