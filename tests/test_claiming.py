"""Output folders that hold results already: what goes on, what is refused, what `overwrite` removes."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest

import cryolike_dask as cld
from cryolike_dask import claiming
from cryolike_dask.demo import write_hinge
from cryolike_dask.errors import OutputError

PARAMETERS = cld.ImageParameters(16, 8.0, n_inplanes=20, viewing_distance=2.0, atom_shape="gaussian")
SEARCH = cld.configure_displacement(1.0, 2, 2)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Two structures, and two STAR files of particles of them."""
    folder = tmp_path_factory.mktemp("inputs")
    structures = [folder / "closed.pdb", folder / "open.pdb"]
    for path, opening in zip(structures, (0.0, 0.9), strict=True):
        write_hinge(path, opening)
    star = cld.simulate_particles(structures, PARAMETERS, folder / "relion", n_images=9, progress=False)
    return structures, [star, Path(shutil.copy(star, star.with_name("second.star")))]


def run(output, structures, star, batch_size=3, **options):
    files = cld.configure_likelihood_files(None, None, output, i_template="all")
    images = cld.open_particles(star, PARAMETERS, batch_size=batch_size)
    templates = cld.open_structures(structures, PARAMETERS)
    cld.run_likelihood_optimal_pose(
        files, PARAMETERS, SEARCH, images=images, templates=templates, **{"progress": False, **options}
    )
    return cld.open_results(output)


def test_the_same_run_goes_on_and_says_what_it_replaces(inputs, tmp_path, caplog):
    structures, (star, _) = inputs
    first = run(tmp_path, structures, star).load()
    with caplog.at_level(logging.INFO, "cryolike_dask"):
        again = run(tmp_path, structures, star, n_stacks=2)
    assert "results that are there are replaced" in caplog.text
    assert again.sizes == first.sizes == {"structure": 2, "image": 9}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"structures": [1]}, "structure 0 is closed there, open here"),
        ({"structures": [1, 0]}, "structure 0 is closed there, open here"),
        ({"structures": [0]}, "open is structure 1 there, 1 structure(s) here"),
        ({"batch_size": 4}, "image stack 0 has 3 images there, 4 here"),
        ({"batch_size": 9}, "image stack 0 has 3 images there, 9 here"),
        ({"star": 1}, "made from particles.star there, second.star here"),
    ],
)
def test_results_of_other_inputs_are_neither_mixed_nor_replaced(inputs, tmp_path, change, message):
    structures, stars = inputs
    before = run(tmp_path, structures, stars[0]).load()
    other = {
        "structures": [structures[i] for i in change.get("structures", (0, 1))],
        "star": stars[change.get("star", 0)],
        "batch_size": change.get("batch_size", 3),
    }
    for skip_exist in (False, True):
        with pytest.raises(
            OutputError, match=r"holds results of another run .*Choose another output folder"
        ) as refusal:
            run(tmp_path, skip_exist=skip_exist, **other)
        assert message in str(refusal.value)
    assert cld.open_results(tmp_path).load().identical(before)
    after = run(tmp_path, overwrite=True, **other)
    assert after.sizes == {"structure": len(other["structures"]), "image": 9}
    assert np.isfinite(after.cross_correlation).all()
    assert sorted(after.structure.values) == sorted(path.stem for path in other["structures"])


def test_fewer_stacks_are_a_part_of_the_run_if_the_inputs_have_more(inputs, tmp_path):
    structures, (star, _) = inputs
    run(tmp_path, structures, star)
    assert run(tmp_path, structures, star, n_stacks=1, skip_exist=True).sizes["image"] == 9


def test_a_plan_refuses_what_the_run_would(inputs, tmp_path):
    structures, (star, _) = inputs
    run(tmp_path, structures, star)
    files = cld.configure_likelihood_files(None, None, tmp_path, i_template="all")
    images, templates = cld.open_particles(star, PARAMETERS, batch_size=4), cld.open_structures(structures, PARAMETERS)
    with pytest.raises(OutputError, match="image stack 0 has 3 images there, 4 here"):
        cld.plan_likelihood(files, PARAMETERS, SEARCH, images=images, templates=templates, measure=False)


def test_displacements_without_results_are_replaced(inputs, tmp_path):
    structures, (star, _) = inputs
    run(tmp_path, structures, star)
    shutil.rmtree(tmp_path / "template0")
    shutil.rmtree(tmp_path / "template1")
    files = cld.configure_likelihood_files(None, None, tmp_path, i_template="all")
    given = {"images": cld.open_particles(star, PARAMETERS), "templates": cld.open_structures(structures, PARAMETERS)}
    other = cld.configure_displacement(1.0, 3, 3)
    cld.run_likelihood_optimal_pose(files, PARAMETERS, other, **given, progress=False)
    assert len(cld.open_results(tmp_path).attrs["displacements_x_angstrom"]) == 9


def test_what_is_said_of_a_structure_stays_while_it_has_results(inputs, tmp_path):
    structures, (star, _) = inputs
    run(tmp_path, structures, star)
    images = cld.open_particles(star, PARAMETERS, batch_size=3)[:6]
    files = cld.configure_likelihood_files(None, None, tmp_path, i_template="all")
    given = {"images": images, "templates": cld.open_structures(structures, PARAMETERS)}
    cld.run_likelihood_optimal_pose(files, PARAMETERS, SEARCH, **given, progress=False, overwrite=True, skip_exist=True)
    results = cld.open_results(tmp_path)
    assert results.sizes == {"structure": 2, "image": 6}
    assert np.isfinite(results.optimal_azimuth).all()


def test_a_record_that_another_run_wrote_in_between_is_not_removed(inputs, tmp_path, monkeypatch):
    structures, (star, _) = inputs
    run(tmp_path, structures, star)
    path = tmp_path / "template0/done/stack_000000.json"
    judged = json.loads(path.read_text())
    claiming._remove_results(path, {**judged, "device": "another"})
    assert path.is_file()
    claiming._remove_results(path, judged)
    assert not path.exists()
    assert not [*tmp_path.glob("template0/*/*_stack_000000.pt")]
