"""Running what a configuration describes, and the copy of it that is kept."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
import yaml

import cryolike_dask as cld
from cryolike_dask.compute.device import torch_threads
from cryolike_dask.config.checking import check_config
from cryolike_dask.config.reading import read_config
from cryolike_dask.config.run_config import copy_of, run_config
from cryolike_dask.errors import GridMismatchError, InputError, InputFileError, OutputError
from cryolike_dask.simulation.demo import write_hinge

CONFIGS = Path(__file__).parents[2] / "configs"
GRID = {
    "n_pixels": 16,
    "pixel_size_angstrom": 16.0,
    "viewing_distance": 1.5,
    "atom_shape": "gaussian",
}


def written(folder, content, name="run.yaml"):
    path = folder / name
    path.write_text(content)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two small structures and particles of both, as RELION writes them, 64 pixels of 4
    angstrom."""
    folder = tmp_path_factory.mktemp("config") / "my data ä #1"
    for name, opening in (("closed", 0.0), ("open", 0.9)):
        write_hinge(folder / "structures" / f"{name}.pdb", opening, n_residues=30)
    parameters = cld.make_parameters(64, 4.0, atom_shape="gaussian")
    cld.simulate_particles(
        folder / "structures",
        parameters,
        folder / "relion",
        n_images=6,
        signal_to_noise=10,
        progress=False,
    )
    return folder


def small(folder, **changes):
    """A configuration of these data on a coarse grid."""
    values = {
        "structures": {"files": str(folder / "structures")},
        "particles": {"metadata": str(folder / "relion/particles.star"), "batch_size": 4},
        "parameters": GRID,
        "search": {"max_displacement_pixels": 1, "n_displacements_x": 3, "n_displacements_y": 3},
        "noise": "white",
    }
    for path, value in changes.items():
        section, key = path.split("__")
        values[section] = {**values.get(section, {}), key: value}
    return values


def same(ours, theirs):
    assert set(ours.data_vars) == set(theirs.data_vars)
    for name in ours.data_vars:
        np.testing.assert_array_equal(ours[name].values, theirs[name].values)


def test_the_laptop_configuration_runs(folder, tmp_path):
    values = yaml.safe_load((CONFIGS / "laptop.yaml").read_text())
    values["structures"]["files"] = str(folder / "structures/open.pdb")
    values["particles"]["metadata"] = str(folder / "relion/particles.star")
    values["noise"] = "white"
    config = read_config(written(tmp_path, yaml.safe_dump(values)))
    results = run_config(config)
    assert dict(results.sizes) == {"structure": 1, "image": 6}
    assert results.structure.values.tolist() == ["open"]
    assert float(results.cross_correlation.min()) > 0.5
    assert (tmp_path / "results/template0/done/stack_000000.json").is_file()


def test_the_configuration_for_cryolike_runs(folder, tmp_path):
    values = yaml.safe_load((CONFIGS / "cryolike-compatible.yaml").read_text())
    conventions, parameters = values["likelihood"]["conventions"], cld.make_parameters(**GRID)
    cld.make_templates(
        folder / "structures",
        parameters,
        tmp_path / "templates",
        conventions=conventions,
        progress=False,
    )
    cld.convert_particles(
        folder / "relion/particles.star",
        *(parameters, tmp_path / "particles"),
        batch_size=4,
        conventions=conventions,
        progress=False,
    )
    results = run_config(read_config(written(tmp_path, yaml.safe_dump(values))))
    files = cld.configure_likelihood_files(
        tmp_path / "templates", tmp_path / "particles", tmp_path / "d", i_template=[0]
    )
    search = cld.configure_displacement(8.0, 16, 16)
    how = {"conventions": "cryolike", "precision": "double", "tolerance": 0.0}
    same(
        results,
        cld.run_likelihood_optimal_pose(
            files, parameters, search, progress=False, **how, noise="white"
        ),
    )
    assert results.attrs["conventions"] == "cryolike"
    assert results.cross_correlation.dtype == np.float64


def test_shares_and_the_report_come_with_the_run(folder, tmp_path):
    counts = written(tmp_path, "open 3\nclosed 1\n", "counts.txt")
    asked = {"counts": str(counts), "n_bootstrap": 5, "seed": 3, "n_chains": 2}
    output = tmp_path / "answer"
    values = {**small(folder), "output": str(output), "report": True, "tables": True}
    run_config(read_config({**values, "populations": asked}))
    found = xr.open_zarr(output / "populations/populations.zarr")
    results = cld.open_results(output)
    same(
        cld.populations(
            results, counts={"open": 3, "closed": 1}, n_bootstrap=5, n_chains=2, seed=3
        ),
        found,
    )
    assert found.population_draws.sizes["chain"] == 2
    page = (output / "report.html").read_text()
    assert "not at hand" not in page  # inputs are those of the run
    assert 'id="figure-best"' in page
    particles, classes = (output / name for name in ("particles.csv", "classes.csv"))
    assert len(particles.read_text().splitlines()) == 1 + results.sizes["image"]
    header, first, _ = classes.read_text().splitlines()
    assert header == "rlnClassNumber,structure,n_images,part_of_images,population,lower,upper"
    share = first.split(",")
    np.testing.assert_allclose(float(share[4]), found.sel(structure=share[1]).population, rtol=1e-9)
    # asked for as it is by default, and not
    for said, is_asked in ((True, True), (None, True), (False, False)):
        config = read_config({**values, "populations": said})
        assert (config.populations is not None) == is_asked
    assert read_config(values).populations is None
    full = {**values, "likelihood": {"kind": "full_cross_correlation"}}
    unasked = {"report": False, "tables": False}
    for key in ("report", "tables", "populations"):
        with pytest.raises(InputError, match=f"{key}=.*is of best poses, but likelihood"):
            read_config({**full, **unasked, key: True})
    with pytest.raises(InputError, match=r"populations\.prior"):
        read_config({**values, "populations": {"prior": 0}})


@pytest.mark.parametrize(
    ("text", "more", "told"),
    [
        (None, {}, "cannot be read"),
        ("", {}, "says no number"),
        ("1\n2\n3\n", {}, "for 2 structures"),
        ("closed 1\nopne 2\n", {}, r"lacks \['open'\], and names \['opne'\]"),
        ("1\n2\n", {"prior": 2, "draw": False}, "a prior is of draws"),
    ],
)
def test_shares_that_cannot_be_estimated_are_refused_before_the_run(
    folder, tmp_path, monkeypatch, text, more, told
):
    def never(*_, **__):
        raise AssertionError("it is computed")

    monkeypatch.setattr("cryolike_dask.config.run_config.compute_run", never)
    counts = tmp_path / "counts.txt"
    if text is not None:
        counts.write_text(text)
    asked = {"counts": str(counts), **more}
    config = read_config({**small(folder), "output": str(tmp_path / "o"), "populations": asked})
    for refused in (run_config, check_config):
        with pytest.raises(InputError, match=told):
            refused(config)
    assert not (tmp_path / "o").exists()


def test_a_new_folder_is_searched_coarse_to_fine_unless_told_otherwise(
    folder, tmp_path, monkeypatch
):
    monkeypatch.setattr("cryolike_dask.likelihoods.search.adaptive.HALF_PIXELS", 4)
    values = {**small(folder), "output": str(tmp_path / "new")}
    assert run_config(read_config(values)).attrs["search"] == "adaptive"
    values = {**small(folder, search__method="exhaustive"), "output": str(tmp_path / "other")}
    assert run_config(read_config(values)).attrs["search"] == "exhaustive"
    # which goes on as it began
    assert run_config(read_config({**values, **small(folder)})).attrs["search"] == "exhaustive"


def test_the_full_correlation_and_the_best_pose_agree(folder, tmp_path):
    chosen = {"structures__i_template": 1, "likelihood__tolerance": 0.0}
    best = run_config(read_config({**small(folder, **chosen), "output": str(tmp_path / "best")}))
    values = small(folder, **chosen, likelihood__kind="full_cross_correlation")
    full = run_config(read_config({**values, "output": str(tmp_path / "full")}))
    assert full.cross_correlation.dims == ("image", "template", "displacement", "rotation")
    largest = full.cross_correlation.max(("template", "displacement", "rotation"))
    np.testing.assert_allclose(largest.values, best.cross_correlation.values, atol=1e-5)
    assert str(best.structure.values) == "open"


def test_views_and_stacks_are_those_asked_for(folder, tmp_path):
    values = small(folder, structures__healpix_order=0, particles__n_stacks=1)
    values["likelihood"] = {"kind": "full_cross_correlation"}
    results = run_config(read_config({**values, "output": str(tmp_path)}))
    assert dict(results.sizes) == {
        "structure": 2,
        "image": 4,
        "template": 12,
        "displacement": 9,
        "rotation": 32,
    }


def relative(folder):
    """The same with paths that start in its folder, as a file would say them."""
    values = small(
        folder, structures__files="structures", particles__metadata="relion/particles.star"
    )
    return "# my run\n" + yaml.safe_dump({**values, "output": "out"}, sort_keys=False)


@pytest.fixture
def own(folder, tmp_path):
    """A folder with these data, for results too."""
    own = tmp_path / "it's mine"
    own.mkdir()
    for name in ("structures", "relion"):
        (own / name).symlink_to(folder / name)
    return own


def test_the_copy_beside_the_results_can_be_run_again(own, tmp_path, caplog):
    source = written(own, relative(own))
    first = run_config(read_config(source)).load()
    kept = own / "out/run.yaml"
    text = kept.read_text()
    assert text.startswith(f"# Copied from {str(source)!r}")
    assert text.endswith(source.read_text())
    elsewhere = written(tmp_path, text, "again.yaml")
    config = read_config(elsewhere)
    assert config.model_dump(exclude={"folder"}) == read_config(source).model_dump(
        exclude={"folder"}
    )
    machine = config.machine.model_copy(update={"skip_exist": True})
    with caplog.at_level("INFO", "cryolike_dask"):
        same(run_config(config.model_copy(update={"machine": machine})), first)
    assert "4 of 4 stacks are complete and kept" in caplog.text
    assert kept.read_text() == text
    run_config(read_config(kept))
    assert kept.read_text() == text


@pytest.mark.parametrize("form", ["%YAML 1.1\n---\n{}", "--- # a document\n{}...\n", "\n  {}"])
def test_a_copy_means_the_same_whatever_its_form(own, tmp_path, form):
    text = relative(own)
    text = form.format(text.replace("\n", "\n  ") if form.startswith("\n ") else text)
    config = read_config(written(own, text))
    again = read_config(written(tmp_path, copy_of(config), "again.yaml"))
    assert again.model_dump(exclude={"folder"}) == config.model_dump(exclude={"folder"})


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("machine:\n  workers: 0\n  skip_exist: true  # go on\n", "machine:\n  workers: 0\n"),
        (
            "machine:\n  skip_exist : false  # not\n  workers: 0\n",
            "machine:\n  recompute: true\n  workers: 0\n",
        ),
        (
            "machine:\n  # skip_exist: of mine\n  skip_exist: true",
            "machine:\n  # skip_exist: of mine\n",
        ),
        (
            "machine: {workers: 0, skip_exist: false}\n",
            "machine:\n  workers: 0\n  recompute: true\n",
        ),
        ("machine: {skip_exist: true}\n", None),
        ("machine:\n  recompute: true\n", "machine:\n  recompute: true\n"),
    ],
)
def test_a_copy_has_no_older_word(own, tmp_path, said, kept):
    config = read_config(written(own, relative(own) + said))
    copy = copy_of(config)
    assert kept is None or copy.endswith(kept)
    assert "skip_exist" not in copy.replace("# skip_exist: of mine", "")
    again = read_config(written(tmp_path, copy, "again.yaml"))
    assert again.machine.keeps is config.machine.keeps
    exclude = {"folder": True, "machine": {"skip_exist", "recompute"}}
    assert again.model_dump(exclude=exclude) == config.model_dump(exclude=exclude)


def test_a_mapping_is_kept_too(folder, tmp_path):
    config = read_config({**small(folder), "output": str(tmp_path / "out")})
    run_config(config)
    assert read_config(tmp_path / "out/run.yaml").model_dump() == config.model_dump()


def test_what_is_refused_writes_nothing(own):
    source = written(own, relative(own))
    (own / "relion").unlink()
    (own / "structures").unlink()
    with pytest.raises(InputFileError) as error:
        run_config(read_config(source))
    assert "2 missing input file(s)" in str(error.value)
    assert [
        str(own / name) in str(error.value) for name in ("structures", "relion/particles.star")
    ] == [True, True]
    assert not (own / "out").exists()


def test_results_of_another_run_keep_their_configuration(own):
    source = written(own, relative(own))
    run_config(read_config(source))
    kept = (own / "out/run.yaml").read_text()
    other = source.read_text().replace("n_displacements_x: 3", "n_displacements_x: 5")
    with pytest.raises(OutputError, match="another search"):
        run_config(read_config(written(own, other)))
    assert (own / "out/run.yaml").read_text() == kept
    results = run_config(read_config(written(own, f"{other}\nmachine: {{overwrite: true}}\n")))
    assert "n_displacements_x: 5" in (own / "out/run.yaml").read_text()
    assert results.attrs["n_displacements"] == 15


def test_a_run_that_fails_at_work_has_kept_its_configuration(own):
    source = written(own, relative(own))
    (own / "out").mkdir()
    (own / "out/template0").write_text("where a folder should be")
    with pytest.raises(OutputError, match="template0"):
        run_config(read_config(source))
    assert (own / "out/run.yaml").read_text().endswith(source.read_text())


def test_grids_that_do_not_fit_write_nothing(folder, tmp_path):
    values = small(folder, parameters__pixel_size_angstrom=15.0)
    with pytest.raises(GridMismatchError):
        run_config(read_config({**values, "output": str(tmp_path / "out")}))
    assert not (tmp_path / "out").exists()


def test_files_of_the_machine_are_written_beside_the_results(folder, tmp_path):
    machine = {"workers": 0, "threads": 1, "log_file": str(tmp_path / "out/logs/run.jsonl")}
    run_config(read_config({**small(folder), "output": str(tmp_path / "out"), "machine": machine}))
    assert '"message": "finished"' in (tmp_path / "out/logs/run.jsonl").read_text()


NO_CLIENT = """
import json, sys
import cryolike_dask.config.reading, cryolike_dask.config.run_config as running
from cryolike_dask.errors import InputError

for machine in ({"workers": 2}, {"scheduler": "tcp://127.0.0.1:1"}, {"scheduler_file": "x.json"}):
    described = {**json.loads(sys.argv[1]), "machine": machine}
    config = cryolike_dask.config.reading.read_config(described)
    try:
        running.run_config(config)
    except InputError as error:
        print(error)
"""


def test_workers_that_were_asked_for_are_never_left_out(folder, tmp_path):
    """In a process of its own, for here may be a client of another test."""
    given = json.dumps({**small(folder), "output": str(tmp_path / "out")})
    command = [sys.executable, "-c", NO_CLIENT, given]
    said = subprocess.run(
        command, capture_output=True, text=True, timeout=240, check=True
    ).stdout.splitlines()
    assert [line.partition(",")[0] for line in said] == [
        "machine.workers=2",
        "machine.scheduler='tcp://127.0.0.1:1'",
        f"machine.scheduler_file={str(Path.cwd() / 'x.json')!r}",
    ]
    assert all("but there is no client. Make one" in line for line in said)
    assert not (tmp_path / "out").exists()


def test_what_is_no_configuration_is_not_run():
    with pytest.raises(InputError, match="config is a dict"):
        run_config({})


def test_threads_are_given_back():
    before = torch.get_num_threads()
    with torch_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
