"""Results reduced to what figures and the report say, against loops in Python."""

from __future__ import annotations

from collections import Counter

import dask.array as da
import numpy as np
import pytest
import xarray as xr

from cryolike_dask.analysis import findings
from cryolike_dask.analysis.block_times import read_blocks
from cryolike_dask.analysis.calibration import OTHERS, calibration, confusion
from cryolike_dask.analysis.pose_errors import direction_errors_degree, why_no_pose_errors
from cryolike_dask.analysis.search_edge import on_the_edge
from cryolike_dask.analysis.summaries import OF_THE_WINNER, summarise_results, summary_of
from cryolike_dask.errors import InputError, InputFileError
from tests.analysis.making import make_results, with_truth, without, write_blocks


@pytest.fixture
def results(rng):
    return make_results(rng, ("a", "b", "c"))


def expected_shares(results):
    """Best structure, probability, margin, comparable, of each image; then shares of each
    structure, by loops."""
    values, names = results.log_likelihood_integrated.values, results.structure.values
    some = [s for s in range(len(names)) if np.isfinite(values[s]).any()]
    images, assigned, differences = [], Counter(), {s: [] for s in some}
    for column in values.T:
        known = {s: v for s, v in enumerate(column) if np.isfinite(v)}
        if not known:
            images.append(("", np.nan, np.nan, False))
            continue
        ranked = sorted(known, key=known.get, reverse=True)
        margin = known[ranked[0]] - known[ranked[1]] if len(known) > 1 else np.nan
        probability = 1 / sum(np.exp(v - known[ranked[0]]) for v in known.values())
        comparable = set(known) == set(some)
        images.append((names[ranked[0]], probability, margin, comparable))
        if comparable:
            assigned[ranked[0]] += 1
            for s in some:
                differences[s].append(known[s] - known[ranked[0]])
    mean = [np.mean(differences[s]) if differences.get(s) else np.nan for s in range(len(names))]
    return images, [assigned[s] for s in range(len(names))], mean, np.isfinite(values).sum(axis=1)


def check_shares(results):
    summary = summarise_results(results)
    images, assigned, mean, n_results = expected_shares(results)
    best, probability, margin, comparable = zip(*images, strict=True)
    assert summary.best_structure.values.tolist() == list(best)
    np.testing.assert_allclose(summary.probability, probability, rtol=1e-12)
    np.testing.assert_allclose(summary.margin, margin, atol=1e-9)
    assert summary.comparable.values.tolist() == list(comparable)
    assert summary.n_assigned.values.tolist() == assigned
    np.testing.assert_array_equal(summary.n_results, n_results)
    np.testing.assert_allclose(summary.mean_log_likelihood, mean, rtol=1e-9)
    return summary


@pytest.mark.parametrize(
    "chunks", [None, {}, {"structure": 1, "image": 7}, {"structure": 2, "image": (1, 30, 9)}]
)
def test_the_best_structure_and_its_pose_however_results_are_chunked(results, chunks):
    summary = check_shares(results if chunks is None else results.chunk(chunks))
    own = results.sel(structure=xr.DataArray(summary.best_structure.values, dims="image"))
    for name in OF_THE_WINNER:
        np.testing.assert_array_equal(summary[name], own[name])
    assert summary.attrs == results.attrs
    np.testing.assert_array_equal(summary["stack"], results["stack"])


@pytest.mark.parametrize("whole_stacks", [True, False])
def test_missing_results_are_left_out_of_what_compares_structures(
    rng, results, whole_stacks, monkeypatch
):
    monkeypatch.setattr("cryolike_dask.analysis.summaries.BLOCK_BYTES", 3 * 8 * 11)
    missing = (
        rng.random((3, 3))[:, results["stack"].values] < 0.4
        if whole_stacks
        else rng.random((3, 40)) < 0.2
    )
    for gone in (missing, missing | (np.arange(3) == 1)[:, None]):
        check_shares(without(results, gone).chunk({"structure": 1, "image": 15}))


def test_ensembles_stopped_in_the_middle_have_no_shares(results):
    gone = (results["stack"].values == 2) & (np.arange(3) == 2)[:, None] | (
        results["stack"].values < 2
    ) & (np.arange(3) == 1)[:, None]
    summary = check_shares(without(results, gone))
    assert not summary.comparable.any()
    assert summary.mean_log_likelihood.isnull().all()
    (finding,) = findings.warnings_about(summary)[:1]
    assert "40 images have results under some structures only" in finding.text


def test_only_what_is_needed_is_read_and_only_once(results):
    read = Counter()

    def counted(name, values):
        def block(part, block_id=None):
            read[name, block_id] += 1
            return part

        lazy = da.from_array(values, chunks=(1, 10), asarray=True)
        return lazy.map_blocks(block, dtype=values.dtype, meta=np.empty((0, 0), values.dtype))

    lazy = results.map(lambda values: values.copy(data=counted(values.name, values.values)))
    best = summarise_results(lazy).best_structure.values
    assert set(read.values()) == {1}
    where = {(list("abc").index(name), m // 10) for m, name in enumerate(best)}
    names = {*OF_THE_WINNER}
    assert {key for key in read if key[0] in names} == {
        (name, place) for name in names for place in where
    }
    assert {name for name, _ in read} == {*OF_THE_WINNER, "log_likelihood_integrated"}
    assert len([key for key in read if key[0] == "log_likelihood_integrated"]) == 3 * 4


def test_one_structure(results):
    alone = results.sel(structure="b")
    for summary in (summarise_results(alone), summarise_results(results, "b")):
        assert set(summary.best_structure.values) == {"b"}
        np.testing.assert_array_equal(summary.optimal_polar, alone.optimal_polar)
        assert summary.probability.values.tolist() == [1] * 40
        assert summary.margin.isnull().all()


def test_images_that_are_indexed_by_more_than_their_number(results):
    indexed = (
        results.assign_coords(micrograph=("image", ["m1", "m2"] * 20))
        .set_xindex("micrograph")
        .chunk()
    )
    assert summarise_results(indexed.sel(micrograph="m2")).sizes["image"] == 20


def test_what_are_no_results_is_refused(results):
    with pytest.raises(
        InputError, match=r"structure='x' is not among the results.*There are a, b, c"
    ):
        summarise_results(results, "x")
    with pytest.raises(InputError, match="there is no log_likelihood_integrated"):
        summarise_results(results.drop_vars("log_likelihood_integrated"))
    with pytest.raises(InputError, match="of a summary"):
        summary_of(summarise_results(results), "a")


def test_winners_on_the_edge_are_counted(results):
    summary = summarise_results(results)
    edge = on_the_edge(summary)
    x, y = summary.optimal_displacement_x.values, summary.optimal_displacement_y.values
    assert edge.n_on_edge == sum(abs(a) == 6 or abs(b) == 6 for a, b in zip(x, y, strict=True))
    assert (edge.n_images, edge.limit_x, edge.limit_y) == (40, 6, 6)
    assert edge.fraction_tried == 10 / 13  # 4 x 3, and (0, 0)
    results["optimal_displacement_x"][:] = 6
    (finding,) = [
        f
        for f in findings.warnings_about(summarise_results(results))
        if f.section == "displacements"
    ]
    assert "40 of 40 images" in finding.text


@pytest.mark.parametrize(("farthest", "crowded"), [(4.9, False), (6.0, False), (7.0, True)])
def test_particles_that_end_at_the_edge_do_not_crowd_it(results, rng, farthest, crowded):
    steps = np.arange(-6.0, 7, 1)
    x, y = (values.ravel() for values in np.meshgrid(steps, steps))
    results = results.isel(image=np.zeros(4000, int)).assign_coords(image=np.arange(4000))
    for name in ("optimal_displacement_x", "optimal_displacement_y"):
        found = np.clip(np.round(rng.uniform(-farthest, farthest, 4000)), -6, 6)
        results[name] = xr.zeros_like(results[name]) + found
    results.attrs |= {
        "displacements_x_angstrom": x.tolist(),
        "displacements_y_angstrom": y.tolist(),
    }
    assert on_the_edge(summarise_results(results)).is_crowded == crowded


@pytest.mark.parametrize("n_on_edge", [0, 1, 2, 3])
def test_a_few_on_the_edge_are_no_warning(results, n_on_edge):
    x, y = (v.ravel() for v in np.meshgrid(np.arange(-6.0, 7, 3), np.arange(-6.0, 7, 3)))
    results.attrs |= {
        "displacements_x_angstrom": x.tolist(),
        "displacements_y_angstrom": y.tolist(),
    }
    results["optimal_displacement_x"][:] = 0
    results["optimal_displacement_y"][:] = 0
    results["optimal_displacement_y"][:, :n_on_edge] = -6
    summary = summarise_results(results)
    assert on_the_edge(summary).n_on_edge == n_on_edge
    assert bool(findings.warnings_about(summary)) == (n_on_edge > 2)  # 5% of 40


def test_an_axis_that_was_not_searched_has_no_edge(results):
    results.attrs["displacements_x_angstrom"] = [0.0] * 3
    results.attrs["displacements_y_angstrom"] = [-6.0, 0.0, 6.0]
    edge = on_the_edge(summarise_results(results))
    assert (edge.limit_x, edge.limit_y) == (0, 6)
    results.attrs["displacements_y_angstrom"] = [0.0] * 3
    assert on_the_edge(summarise_results(results)) is None
    del results.attrs["displacements_x_angstrom"]
    assert on_the_edge(summarise_results(results)) is None


@pytest.mark.parametrize(("n_negative", "warned"), [(0, False), (20, False), (21, True)])
def test_inverted_contrast_is_suspected(results, n_negative, warned):
    results["cross_correlation"][:, :n_negative] *= -1
    summary = summarise_results(results)
    assert findings.negative_fraction(summary) == n_negative / 40
    texts = [f.text for f in findings.warnings_about(summary) if f.section == "correlation"]
    assert bool(texts) == warned
    assert all("--invert-contrast" in text for text in texts)


def test_what_is_missing_is_said(results):
    gone = np.zeros((3, 40), bool)
    gone[:, 35:], gone[1] = True, True
    text = findings.warnings_about(summarise_results(without(results, gone)))[0].text
    assert "5 of 40 images have no result yet" in text
    assert "1 of 3 structures have no result yet (b)" in text
    assert not [
        f for f in findings.warnings_about(summarise_results(results)) if f.section == "run"
    ]


def summary_of_probabilities(probability, right):
    """The summary of images whose best structure has some probability, and is right or not."""
    below = np.log(1 / probability - 1)
    values = np.stack([np.zeros(len(probability)), below])
    truth = np.where(right, "a", "b")
    coords = {
        "structure": ["a", "b"],
        "image": np.arange(len(right)),
        "true_structure": ("image", truth),
    }
    results = xr.Dataset({"log_likelihood_integrated": (("structure", "image"), values)}, coords)
    results["cross_correlation"] = abs(results.log_likelihood_integrated) + 1
    return summarise_results(results)


def test_calibrated_probabilities_raise_no_doubt_and_others_do():
    rng = np.random.default_rng(5)
    probability = rng.uniform(0.5, 0.99, 2000)
    calibrated = summary_of_probabilities(probability, rng.random(2000) < probability)
    found = calibration(calibrated)
    which = (probability * 10).astype(int)
    for i in range(10):
        assert found.n_images[i] == (which == i).sum()
        if i >= 5:
            assert found.mean_probability[i] == pytest.approx(probability[which == i].mean())
            assert abs(found.n_right[i] / found.n_images[i] - found.mean_probability[i]) < 0.1
    assert abs(found.surprise) < findings.STANDARD_ERRORS
    assert not findings.warnings_about(calibrated)
    too_sure = summary_of_probabilities(
        probability, rng.random(2000) < 0.5 + (probability - 0.5) / 2
    )
    assert calibration(too_sure).surprise > findings.STANDARD_ERRORS
    (finding,) = findings.warnings_about(too_sure)
    assert finding.text.startswith("Probabilities are too large")
    too_shy = summary_of_probabilities(probability, rng.random(2000) < 0.99)
    (finding,) = findings.warnings_about(too_shy)
    assert finding.text.startswith("Probabilities are too small")


def test_confusion_counts_every_image_once(rng):
    results = with_truth(make_results(rng, [f"s{i}" for i in range(9)], 200), rng)
    summary = summarise_results(results)
    pairs = Counter(
        zip(
            summary.true_structure.values.tolist(),
            summary.best_structure.values.tolist(),
            strict=True,
        )
    )
    table = confusion(summary)
    assert table.names == [f"s{i}" for i in range(9)]
    expected = [[pairs[a, b] for b in table.names] for a in table.names]
    assert table.counts.tolist() == expected
    fewer = confusion(summary, most=4)
    assert len(fewer.names) == 4
    assert fewer.names[-1] == OTHERS
    assert fewer.counts.sum() == 200
    assert fewer.counts[0, 1] == pairs[fewer.names[0], fewer.names[1]]
    n = sum(k for (a, b), k in pairs.items() if a == fewer.names[0] and b not in fewer.names)
    assert fewer.counts[0, 3] == n


def test_structures_of_the_truth_that_were_not_compared(rng):
    results = with_truth(make_results(rng), rng)
    results.true_structure[:5] = "another"
    table = confusion(summarise_results(results))
    assert table.names == ["closed", "open", "another"]
    assert table.counts.sum(axis=1)[2] == 5
    assert not table.counts[:, 2].any()


def test_angles_between_directions(rng):
    results = with_truth(make_results(rng, ("a",)), rng, pose_error_radian=0.05)
    summary = summarise_results(results)
    np.testing.assert_allclose(direction_errors_degree(summary), np.degrees(0.05))
    opposite = summary.assign_coords(
        recorded_rot=summary.optimal_azimuth + np.pi, recorded_tilt=np.pi - summary.optimal_polar
    )
    np.testing.assert_allclose(direction_errors_degree(opposite), 180, atol=1e-5)
    same = summary.assign_coords(
        recorded_rot=summary.optimal_azimuth - 4 * np.pi, recorded_tilt=summary.optimal_polar
    )
    np.testing.assert_allclose(direction_errors_degree(same), 0, atol=1e-6)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda r: r.drop_vars("recorded_rot"), "no poses are recorded"),
        (lambda r: r.drop_vars("optimal_polar"), "directions of the templates are not known"),
        (lambda r: r.assign_attrs(frame="transposed"), "standard conventions"),
        (lambda r: r.assign_attrs(conventions="cryolike"), "standard conventions"),
        (lambda r: r.assign_attrs(template_conventions="unknown"), "standard conventions"),
        (
            lambda r: r.assign_coords(recorded_rot=r.recorded_rot * np.nan),
            "no image with a result has",
        ),
    ],
)
def test_poses_in_other_frames_are_not_compared(rng, spoil, reason):
    results = with_truth(make_results(rng), rng)
    assert why_no_pose_errors(summarise_results(results)) is None
    assert reason in why_no_pose_errors(summarise_results(spoil(results)))


def test_blocks_are_read_and_damaged_rows_counted(tmp_path):
    path = tmp_path / "blocks.csv"
    write_blocks(path, [1.5, 2.5, "x", "nan", -1, 0.5])
    with open(path, "a") as file:
        file.write("2026-01-01T00:00:59,half a ro")
    blocks = read_blocks(path)
    assert blocks.seconds.tolist() == [1.5, 2.5, 0.5]
    assert blocks.device.tolist() == ["cpu"] * 3
    assert blocks.n_unreadable == 4
    assert (blocks.first, blocks.last) == ("2026-01-01 00:00:00", "2026-01-01 00:00:05")


def test_what_is_no_table_of_blocks_is_refused(tmp_path):
    for content, match in (
        (b"", "lacks device, seconds, time"),
        (b"\x89PNG\r\n\x00\x1a", "no table of blocks"),
    ):
        (tmp_path / "blocks.csv").write_bytes(content)
        with pytest.raises(InputFileError, match=match):
            read_blocks(tmp_path / "blocks.csv")
    with pytest.raises(InputFileError, match=r"nowhere\.csv: there is no such file"):
        read_blocks(tmp_path / "nowhere.csv")


def test_the_middle_of_a_search_of_three_is_no_edge(results):
    x, y = (v.ravel() for v in np.meshgrid([-6.0, 0.0, 6.0], [-6.0, 0.0, 6.0]))
    results.attrs |= {
        "displacements_x_angstrom": x.tolist(),
        "displacements_y_angstrom": y.tolist(),
    }
    for name in ("optimal_displacement_x", "optimal_displacement_y"):
        results[name] = xr.zeros_like(results[name])
    results["optimal_displacement_x"][:, :4] = 6
    edge = on_the_edge(summarise_results(results))
    assert (edge.n_on_edge, edge.per_edge, edge.per_neighbour) == (4, 0.5, 36)
    assert not edge.is_crowded
