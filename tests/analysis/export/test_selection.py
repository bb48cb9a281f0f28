"""Images that are exported by their q-value, and by the probability of structures."""

from __future__ import annotations

import numpy as np
import pytest
from typer.testing import CliRunner

import cryolike_dask as cld
from cryolike_dask.analysis.export.cryosparc_export import export_cryosparc
from cryolike_dask.analysis.export.star_export import export_star, export_star_subsets
from cryolike_dask.cli import app
from cryolike_dask.errors import InputError
from cryolike_dask.io.cryosparc import read_cs
from tests.analysis.made_results import made, particle_columns, text_of, write_text

NAMES = ("a", "b+c", "d", "a~decoy1")
LOG_LIKELIHOODS = np.log(
    [
        #   0     1     2     3     4     5
        [0.60, 0.30, 0.02, 0.45, 0.10, 0.02],
        [0.35, 0.60, 0.03, 0.10, 0.20, 0.03],
        [0.05, 0.10, 0.95, 0.45, 0.70, 0.95],
        [0.01, 0.01, 0.01, 0.90, 0.01, 0.01],
    ]
)


@pytest.fixture
def results(tmp_path, rng):
    star = write_text(tmp_path / "job" / "particles.star", particle_columns(6))
    found = made(rng, [star], names=NAMES)
    found["log_likelihood_integrated"] = ("structure", "image"), LOG_LIKELIHOODS.copy()
    return found.assign_coords(decoy_of=("structure", np.array(["", "", "", "a"], object)))


def rows(path):
    """Rows that are in a file, by their coordinates."""
    return [round(float(x)) for x in np.array(text_of(path)["rlnCoordinateX"], float) - 0.5]


def reasons(export):
    lines = export.dropped.read_text().splitlines()[1:]
    return {int(line.split("\t")[1]): line.split("\t")[2] for line in lines}


def test_q_values_are_columns(results, tmp_path):
    q = cld.decoy_competition(results).q_value.values
    assert (np.array([q[3], *q[[0, 1, 2, 4, 5]]]) == [1, *[0.6] * 5]).all()
    export = export_star(results, tmp_path / "out.star")
    assert export.n_dropped == 0
    columns = text_of(tmp_path / "out.star")
    np.testing.assert_allclose(np.array(columns["cryolikeQValue"], float), q)
    assert set(columns["cryolikeAssignedStructure"]) <= set(NAMES[:3])
    best = LOG_LIKELIHOODS[:3].max(axis=0)
    np.testing.assert_allclose(np.array(columns["cryolikeProbability"], float), np.exp(best))
    # a later export without decoys says nothing of it
    plain = results.sel(structure=list(NAMES[:3])).drop_vars("decoy_of")
    export_star(plain, tmp_path / "plain.star", metadata=tmp_path / "out.star")
    assert "cryolikeQValue" not in text_of(tmp_path / "plain.star")


def test_images_of_large_q_values_are_left_out(results, tmp_path):
    export = export_star(results, tmp_path / "out.star", max_q=0.7)
    assert rows(tmp_path / "out.star") == [0, 1, 2, 4, 5]
    assert reasons(export) == {3: "q-value above 0.7"}
    with pytest.raises(InputError, match=r"none of 6 image.* q-value above 0\.01"):
        export_star(results, tmp_path / "none.star", max_q=0.01)
    plain = results.sel(structure=list(NAMES[:3])).drop_vars("decoy_of")
    with pytest.raises(InputError, match=r"there are no decoys.*--decoys"):
        export_star(plain, tmp_path / "none.star", max_q=0.5)
    assert not (tmp_path / "none.star").exists()


def test_probabilities_are_those_of_the_structure_or_of_several_together(results, tmp_path):
    export = export_star(results, tmp_path / "out.star", min_probability=0.65)
    assert rows(tmp_path / "out.star") == [2, 4, 5]
    assert reasons(export)[0] == "probability below 0.65"
    both = ["a", "b+c"]
    export_star(results, tmp_path / "both.star", structures=both, min_probability=0.89)
    assert rows(tmp_path / "both.star") == [0, 1]
    columns = text_of(tmp_path / "both.star")
    assert columns["cryolikeAssignedStructure"] == ["a", "b+c"]
    np.testing.assert_allclose(np.array(columns["cryolikeProbability"], float), [0.95, 0.9])
    # so improbable a pair as is asked for: poses are those under the better of the two
    export_star(results, tmp_path / "most.star", structures=both, min_probability=0.05)
    assert rows(tmp_path / "most.star") == [0, 1, 2, 3, 4, 5]
    assert set(text_of(tmp_path / "most.star")["cryolikeAssignedStructure"]) == set(both)
    # without it, those that they fit best
    export = export_star(results, tmp_path / "best.star", structures=both)
    assert rows(tmp_path / "best.star") == [0, 1, 3]
    assert reasons(export)[2] == "fits another structure better"
    export_star(results, tmp_path / "one.star", structure="d", min_probability=0.5)
    assert rows(tmp_path / "one.star") == [2, 4, 5]
    both_kinds = export_star(
        results, tmp_path / "kinds.star", structures=both, min_probability=0.5, max_q=0.9
    )
    assert reasons(both_kinds)[3] == "q-value above 0.9"


def test_an_image_that_lacks_a_result_has_no_probability(results, tmp_path):
    results.log_likelihood_integrated[0, 5] = np.nan
    export_star(results, tmp_path / "out.star", min_probability=0.65)
    assert rows(tmp_path / "out.star") == [2, 4]


def test_files_of_structures_and_of_cryosparc_take_the_same(results, tmp_path):
    files = export_star_subsets(results, tmp_path / "sets", min_probability=0.65)
    assert list(files) == ["d"]
    assert rows(files["d"].path) == [2, 4, 5]
    table = np.zeros(6, [("uid", "u8"), ("blob/psize_A", "f4")])
    table["uid"] = np.arange(6)
    source = tmp_path / "p.cs"
    with open(source, "wb") as file:
        np.save(file, table)
    export_cryosparc(results, tmp_path / "out.cs", metadata=source, max_q=0.7)
    written = read_cs(tmp_path / "out.cs")
    assert written["uid"].tolist() == [0, 1, 2, 4, 5]
    np.testing.assert_allclose(written["cryolike/q_value"], 0.6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_q": 1.5}, "max_q=1.5 is more than 1"),
        ({"max_q": -0.1}, "max_q=-0.1"),
        ({"min_probability": np.nan}, "min_probability=nan"),
        ({"min_probability": "0.9"}, "min_probability='0.9'"),
        ({"structures": ["c"]}, "structure='c' is not among the results.*There are a, b"),
        ({"structures": ["a~decoy1"]}, "structure='a~decoy1' is not among"),
        ({"structures": ["a"], "structure": "d"}, "exclude each other"),
    ],
)
def test_what_cannot_be_asked_for_is_refused(results, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        export_star(results, tmp_path / "out.star", **options)
    assert not (tmp_path / "out.star").exists()


def test_a_command_joins_names(results, tmp_path, monkeypatch):
    monkeypatch.setattr("cryolike_dask.analysis.dataset.open_results", lambda folder: results)
    monkeypatch.setattr("cryolike_dask.cli.export.need", lambda *_: None)
    options = ["--star", tmp_path / "out.star", "--min-probability", 0.89, "--max-q", 0.8]

    def run(*more):
        command = ["export", "results", *options, *more]
        return CliRunner().invoke(app, [str(part) for part in command])

    done = run("--structures", "a+d")
    assert done.exit_code == 0, done.output
    assert rows(tmp_path / "out.star") == [2, 5]
    done = run("--structures", "b+c", "--structures", "d", "--overwrite")
    assert rows(tmp_path / "out.star") == [2, 4, 5]
    done = run("--structures", "a", "--structure", "d", "--overwrite")
    assert done.exit_code == 3
    assert "--structure and --structures exclude each other" in done.output
