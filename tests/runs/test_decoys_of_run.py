"""Decoys among the structures of a run: compared as these are, and known by what is recorded."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

import cryolike_dask as cld
from cryolike_dask.analysis.decoys import of_images
from cryolike_dask.analysis.summaries import summarise_results
from cryolike_dask.errors import InputError, OutputError
from cryolike_dask.geometry.parameters import ImageParameters
from cryolike_dask.runs.frames import refuse_own_means
from tests.structures.decoys.proteins import write_protein

PARAMETERS = ImageParameters(16, 3.0, viewing_distance=1.2, use_protein_residue_model=False)


@pytest.fixture
def structures(tmp_path):
    files = [write_protein(tmp_path / f"{name}.pdb", 30, seed) for seed, name in enumerate("ab")]
    return cld.open_structures(files, PARAMETERS)


def stack_of(build, n=12, values=0.0):
    values = values + build.rings(n, PARAMETERS.grid)
    return cld.ImageStack.from_array(values, PARAMETERS, build.optics(n))


def computed(folder, templates, images, **options):
    return cld.run_likelihood_optimal_pose(
        cld.configure_likelihood_files(None, None, folder, i_template="all"),
        PARAMETERS,
        cld.configure_displacement(1.0, 3, 3),
        images=images,
        templates=templates,
        progress=False,
        **{"noise": "white", "search": "exhaustive", **options},
    )


def test_decoys_are_recorded_with_results(structures, build, tmp_path):
    decoys = [
        *cld.open_decoys(structures, 1),
        *cld.as_decoys(replace(structures[0], structure="c")),
    ]
    computed(tmp_path / "out", [*structures, *decoys], stack_of(build))
    results = cld.open_results(tmp_path / "out")
    assert results.structure.values.tolist() == ["a", "b", "a~decoy1", "b~decoy1", "c"]
    assert results.decoy_of.values.tolist() == ["", "", "a", "b", "c"]
    found = cld.decoy_competition(results)
    assert found.attrs == {"n_structures": 2, "n_decoys": 3}
    assert np.isfinite(found.q_value).all()
    np.testing.assert_array_equal(results.q_value, found.q_value)
    assert "least false discovery rate" in results.q_value.attrs["long_name"]
    assert set(summarise_results(results).best_structure.values) <= {"a", "b"}
    xr.testing.assert_identical(
        cld.decoy_competition(results, ["c"]).n_images_shown,
        cld.decoy_competition(results.sel(structure=["a", "b", "c"])).n_images_shown,
    )
    without = cld.open_results(tmp_path / "out").sel(structure=["a", "b"])
    # images compete with all of the run, whatever is selected
    some = without.isel(image=[7, 2, 2])
    np.testing.assert_array_equal(some.q_value, found.q_value[[7, 2, 2]])
    np.testing.assert_array_equal(without.load().q_value[3:5], found.q_value[3:5])
    assert cld.structure_probability(without).dims == ("structure", "image")


def test_that_a_structure_is_a_decoy_is_part_of_what_it_is(structures, build, tmp_path):
    """Results of it as one that images may show are not those of a decoy."""
    images = stack_of(build, 5)
    given = [structures[0], *cld.as_decoys(structures[1])]
    computed(tmp_path / "out", structures, images)
    assert "decoy_of" not in cld.open_results(tmp_path / "out").coords
    with pytest.raises(OutputError, match=r"results of another run.*decoy here"):
        computed(tmp_path / "out", given, images, skip_exist=True)


def test_decoys_explain_nothing_of_the_noise(structures, build, tmp_path):
    """The noise model that is estimated is the same with and without them."""
    images = stack_of(build, values=3 * structures[0].source.take(np.arange(12)))
    both = [*structures, *cld.open_decoys(structures, 2)]
    models = []
    for name, templates in (("with", both), ("without", structures)):
        computed(tmp_path / name, templates, images, noise="estimate", b_factor="none")
        models.append(cld.read_noise(tmp_path / name / "noise.npz"))
    np.testing.assert_array_equal(models[0].variance, models[1].variance)


def test_decoys_lie_where_their_structure_lies(structures):
    """Poses that are recorded for one structure hold for its decoys, and for no other's."""
    refuse_own_means([structures[0], *cld.open_decoys(structures[0], 2)])
    with pytest.raises(InputError, match=r"2 structures \(a, b\) have their origins"):
        refuse_own_means([structures[0], *cld.as_decoys(structures[1])])


def test_a_run_of_decoys_alone_is_refused(structures, build, tmp_path):
    with pytest.raises(InputError, match="all templates are decoys"):
        computed(tmp_path / "out", cld.as_decoys(structures), stack_of(build))
    assert not (tmp_path / "out").exists()


def test_q_values_are_computed_when_they_are_asked_for(structures, build, tmp_path, monkeypatch):
    computed(tmp_path / "out", [*structures, *cld.open_decoys(structures, 1)], stack_of(build))
    expected = cld.decoy_competition(cld.open_results(tmp_path / "out")).q_value
    asked = []

    def counted(results):
        asked.append(results)
        return cld.decoy_competition(results)

    monkeypatch.setattr(of_images, "decoy_competition", counted)
    results = cld.open_results(tmp_path / "out")
    assert "q_value" in repr(results)
    assert results.q_value.isel(image=slice(2)).sizes == {"image": 2}
    assert not asked
    results.to_zarr(tmp_path / "copy.zarr", consolidated=False)
    assert len(asked) == 1
    np.testing.assert_array_equal(
        xr.open_zarr(tmp_path / "copy.zarr", consolidated=False).q_value, expected
    )
    computed(tmp_path / "plain", structures, stack_of(build))
    assert "q_value" not in cld.open_results(tmp_path / "plain")
