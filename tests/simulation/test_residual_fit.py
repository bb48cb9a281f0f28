"""Residuals of a run: noise where structures are right, and not where images show another."""

from __future__ import annotations

import numpy as np
import pytest
from typer.testing import CliRunner

import cryolike_dask as cld
from cryolike_dask.analysis.decoys.of_results import competition_if_any
from cryolike_dask.analysis.export.star_export import export_star
from cryolike_dask.analysis.report.about_decoys import none_section
from cryolike_dask.cli import app
from cryolike_dask.errors import InputError
from cryolike_dask.geometry.parameters import ImageParameters
from cryolike_dask.io.parameters import write_parameters
from tests.analysis.made_results import text_of
from tests.structures.decoys.proteins import write_protein

PARAMETERS = ImageParameters(
    24, 3.0, viewing_distance=0.7, use_protein_residue_model=False, precision="single"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Particles of two structures, compared with one of them, and with a decoy of it."""
    folder = tmp_path_factory.mktemp("residuals")
    files = [write_protein(folder / f"{name}.pdb", 40, seed) for seed, name in enumerate("ab")]
    write_parameters(folder / "parameters.npz", PARAMETERS)
    cld.simulate_particles(
        files,
        PARAMETERS,
        folder / "relion",
        n_images=120,
        signal_to_noise=1.0,
        max_displacement_pixels=0,
        progress=False,
    )
    structures = cld.open_structures(files[0], PARAMETERS)
    cld.run_likelihood_optimal_pose(
        cld.configure_likelihood_files(None, None, folder / "out", i_template="all"),
        PARAMETERS,
        cld.configure_displacement(0, 1, 1),
        images=cld.open_particles(folder / "relion/particles.star", PARAMETERS),
        templates=[*structures, *cld.open_decoys(structures, 1)],
        noise="white",
        search="exhaustive",
        progress=False,
    )
    return folder


def inputs(folder):
    return {
        "templates": folder / "a.pdb",
        "particles": folder / "relion/particles.star",
        "parameters": folder / "parameters.npz",
    }


def test_images_of_another_structure_leave_no_noise(folder, tmp_path):
    out = folder / "out"
    p = cld.fit_residuals(out, **inputs(folder), n_images=80, progress=False)
    assert p.dims == ("image",)
    right, wrong = (p.values[p.true_structure.values == name] for name in "ab")
    assert np.median(wrong) < 0.1
    assert (wrong < 0.01).mean() > 0.2
    assert (right < 0.01).mean() < 0.15
    assert np.median(right) > 0.2
    # it lies beside the results, and goes with them
    results = cld.open_results(out)
    np.testing.assert_array_equal(results.residual_p_value, p)
    export_star(results, tmp_path / "out.star")
    columns = text_of(tmp_path / "out.star")
    np.testing.assert_allclose(np.array(columns["cryolikeResidualPValue"], float), p, atol=1e-9)
    rows = dict(none_section(results, competition_if_any(results)).rows)
    found = rows["residuals that noise leaves less often than once in 100"]
    assert found.startswith(f"{(p.values < 0.01).sum()} of 120")


def test_the_command_writes_the_same(folder):
    before = cld.fit_residuals(folder / "out", **inputs(folder), n_images=80, progress=False)
    (folder / "out/residuals.npz").unlink()
    given = [f"--{name}={path}" for name, path in inputs(folder).items()]
    command = ["residuals", str(folder / "out"), *given, "--images=80", "--workers=0"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert "of 120 images have residuals that noise leaves less often than once" in done.output
    np.testing.assert_allclose(cld.open_results(folder / "out").residual_p_value, before)


def test_what_is_of_other_results_is_left_out(folder, caplog):
    path = folder / "out/residuals.npz"
    path.write_bytes(b"nothing")
    assert "residual_p_value" not in cld.open_results(folder / "out").coords
    assert "residuals.npz" in caplog.text
    found = cld.io.residuals.Residuals(np.zeros(3, int), np.arange(3), np.ones(3), "other")
    cld.io.residuals.write_residuals(path, found)
    assert "residual_p_value" not in cld.open_results(folder / "out").coords
    assert "is of other results" in caplog.text
    path.unlink()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_images": 10}, "n_images=10 is not a whole number, 80 or more"),
        ({"seed": -1}, "seed=-1"),
        ({"particles": None}, "the results do not say where the particles are"),
    ],
)
def test_what_cannot_be_fitted_is_refused(folder, change, message):
    with pytest.raises(InputError, match=message):
        cld.fit_residuals(folder / "out", **{**inputs(folder), **change}, progress=False)
