"""Figures of results: what they show, where, in which units, under which names."""

from __future__ import annotations

import re

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.patches import StepPatch

from cryolike_dask.analysis.calibration import calibration, confusion
from cryolike_dask.analysis.plots.drawing import edges_of, interval_of, short
from cryolike_dask.analysis.plots.pose_plots import (
    plot_block_times,
    plot_cross_correlation,
    plot_direction_errors,
    plot_displacements,
    plot_inplane_rotations,
    plot_viewing_directions,
)
from cryolike_dask.analysis.plots.structure_plots import (
    plot_assignment,
    plot_calibration,
    plot_confusion,
    plot_log_likelihood_ratio,
)
from cryolike_dask.analysis.pose_errors import direction_errors_degree
from cryolike_dask.analysis.summaries import summarise_results
from cryolike_dask.errors import InputError
from tests.analysis.making import make_results, with_truth, without, write_blocks

ODD_NAMES = ("$a_1$", "_b", "<c> & 'd' " + "long " * 20)


@pytest.fixture
def results(rng):
    return with_truth(make_results(rng), rng)


def parts_of(axes):
    """The heights of each histogram of a panel; they are stacked."""
    steps = [patch.get_data() for patch in axes.patches if isinstance(patch, StepPatch)]
    return [np.asarray(values) - baseline for values, _, baseline in steps]


def heights(axes):
    return sum(parts_of(axes))


def edges(axes):
    return next(patch for patch in axes.patches if isinstance(patch, StepPatch)).get_data().edges


def figures(results, table):
    """Every figure of results."""
    first, second = results.structure.values[:2]
    yield from (
        plot(results)
        for plot in (plot_viewing_directions, plot_displacements, plot_inplane_rotations)
    )
    yield from (
        plot(results) for plot in (plot_cross_correlation, plot_direction_errors, plot_assignment)
    )
    yield from (plot(results) for plot in (plot_confusion, plot_calibration))
    yield plot_log_likelihood_ratio(results, second, first)
    yield plot_block_times(table)


def check_layout(figure):
    """Axes have names, nothing overlaps, nothing is cut off."""
    figure.draw_without_rendering()
    for axes in figure.findobj(Axes):
        for axis in (axes.xaxis, axes.yaxis):
            if any(t.get_visible() and t.get_text() for t in axis.get_ticklabels()):
                assert axis.get_label_text(), figure
    boxes = [axes.get_tightbbox() for axes in figure.axes]
    for i, box in enumerate(boxes):
        assert not any(box.padded(-2).overlaps(other) for other in boxes[:i]), figure.axes
        assert figure.bbox.padded(1).containsx(box.x0)
        assert figure.bbox.padded(1).containsx(box.x1)
        assert figure.bbox.padded(1).containsy(box.y0)
        assert figure.bbox.padded(1).containsy(box.y1)


@pytest.mark.parametrize(
    "names", [("closed", "open"), ODD_NAMES, [f"frame_{i:05d}" for i in range(50)]]
)
def test_figures_are_laid_out_whatever_structures_are_called(rng, names, tmp_path):
    write_blocks(tmp_path / "blocks.csv", rng.uniform(1, 2, 30), device="cuda:0")
    results = with_truth(make_results(rng, names, 150), rng)
    results["log_likelihood_integrated"][-1] += rng.choice([0, 9])  # another first
    for figure in figures(results, tmp_path / "blocks.csv"):
        check_layout(figure)
        for text in figure.findobj(lambda part: hasattr(part, "get_parse_math")):
            assert not (text.get_parse_math() and "$a_1$" in text.get_text())


def test_directions_are_where_they_are(results):
    figure = plot_viewing_directions(results, "open")
    axes = figure.axes[0]
    one = results.sel(structure="open")
    x, y = axes.collections[0].get_offsets().data.T
    order, expected = np.argsort(y), np.argsort(-one.optimal_polar.values)
    np.testing.assert_allclose(y[order], np.pi / 2 - one.optimal_polar.values[expected], atol=1e-6)
    turns = (x[order] - one.optimal_azimuth.values[expected]) / (2 * np.pi)
    np.testing.assert_allclose(turns, turns.round(), atol=1e-6)
    assert (abs(x) <= np.pi + 1e-6).all()
    assert axes.get_title() == "40 images, under open"
    labels = {t.get_text(): t.get_position()[1] for t in axes.get_yticklabels()}
    assert labels["30°"] == pytest.approx(np.pi / 3)
    assert labels["150°"] == pytest.approx(-np.pi / 3)


def test_directions_that_look_the_same_are_all_drawn(results):
    """Where a few views stand for all, these are not taken for preferred ones."""
    one = results.sel(structure="open").assign_attrs(symmetry="D2")
    shown = plot_viewing_directions(one, "open").axes[0].collections[0]
    x, y = shown.get_offsets().data.T
    found = np.stack([np.cos(x) * np.cos(y), np.sin(x) * np.cos(y), np.sin(y)], axis=1)
    azimuth, polar = one.optimal_azimuth.values, one.optimal_polar.values
    seen = np.stack([np.cos(azimuth), np.sin(azimuth), azimuth * 0]) * np.sin(polar)
    seen[2] = np.cos(polar)
    for signs in ([1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]):
        apart = np.linalg.norm((np.diag(signs) @ seen).T[:, None] - found, axis=2).min(axis=1)
        assert apart.max() < 1e-6
    assert len(found) == 4 * 40


def test_images_at_the_same_place_are_counted(results):
    results["optimal_azimuth"][:], results["optimal_polar"][:] = 1.0, 2.0
    results["optimal_azimuth"][:, :4] = -1.0
    shown = plot_viewing_directions(results).axes[0].collections[0]
    assert sorted(shown.get_array().tolist()) == [4, 36]
    x = dict(zip(shown.get_array().tolist(), shown.get_offsets().data[:, 0], strict=True))
    assert x == {36: pytest.approx(1), 4: pytest.approx(-1)}


def test_displacements_are_where_they_are_in_the_search(results):
    axes = plot_displacements(results, "closed").axes[0]
    one = results.sel(structure="closed")
    found = dict(
        zip(
            map(tuple, axes.collections[0].get_offsets().data),
            axes.collections[0].get_array(),
            strict=True,
        )
    )
    pairs = list(
        zip(one.optimal_displacement_x.values, one.optimal_displacement_y.values, strict=True)
    )
    assert sum(found.values()) == 40
    for (x, y), n in found.items():
        assert n == sum(abs(a - x) < 1e-3 and abs(b - y) < 1e-3 for a, b in pairs)
    tried, edge = axes.lines
    assert len(tried.get_xdata()) == 13
    assert {*np.abs(edge.get_xdata())} == {6.0}
    assert {*np.abs(edge.get_ydata())} == {6.0}
    assert axes.get_aspect() == 1
    assert (axes.get_xlabel(), axes.get_ylabel()) == (
        "displacement along x (Å)",
        "displacement along y (Å)",
    )


def test_bins_of_rotations_hold_as_many_of_those_tried(results):
    results["optimal_inplane_rotation"][:] = (2 * np.pi / 24 * (np.arange(40) % 24)).astype(
        np.float32
    )
    axes = plot_inplane_rotations(results).axes[0]
    assert heights(axes).tolist() == [2] * 16 + [1] * 8
    np.testing.assert_allclose(
        (edges(axes)[1:] + edges(axes)[:-1]) / 2, 15 * np.arange(24), atol=1e-9
    )
    assert axes.get_xlabel() == "in-plane rotation (degree)"


def test_correlations_of_the_winners(results):
    axes = plot_cross_correlation(results).axes[0]
    summary = summarise_results(results)
    assert heights(axes).sum() == 40
    np.testing.assert_array_equal(
        heights(axes), np.histogram(summary.cross_correlation, edges(axes))[0]
    )
    (median,) = axes.lines
    np.testing.assert_allclose(median.get_xdata(), np.median(summary.cross_correlation))
    negative = plot_cross_correlation(results.assign(cross_correlation=-results.cross_correlation))
    texts = [text.get_text() for text in negative.legends[0].get_texts()]
    assert any("contrast inverted" in text for text in texts)


def test_the_ratio_states_sign_reference_and_unit(results):
    figure = plot_log_likelihood_ratio(results, "open", "closed")
    axes = figure.axes[0]
    assert axes.get_xlabel() == "log-likelihood ratio, open over closed (nat)"
    ratio = np.diff(results.log_likelihood_integrated.values, axis=0)[0]
    assert axes.get_title() == f"{(ratio > 0).sum()} images prefer open, {(ratio < 0).sum()} closed"
    assert heights(axes).sum() == 40
    np.testing.assert_array_equal(heights(axes), np.histogram(ratio, edges(axes))[0])
    names = [text.get_text() for text in axes.figure.legends[0].get_texts()]
    assert names == ["truly open", "truly closed"]
    truth = results.true_structure.values
    for name, part in zip(("open", "closed"), parts_of(axes), strict=True):
        np.testing.assert_array_equal(part, np.histogram(ratio[truth == name], edges(axes))[0])
    unknown = plot_log_likelihood_ratio(results.drop_vars("true_structure"), "open", "closed")
    assert unknown.legends == []
    for names, match in ((("open", "open"), "both 'open'"), (("open", "x"), "structure='x'")):
        with pytest.raises(InputError, match=match):
            plot_log_likelihood_ratio(results, *names)


def test_assignments_are_counted_for_the_most_frequent(rng):
    results = make_results(rng, [f"s{i}" for i in range(40)], 100)
    left, right = plot_assignment(results).axes
    (alone,) = plot_assignment(results.isel(structure=slice(3))).axes
    assert len(alone.patches) == 3
    assert alone.get_ylim() == (2.5, -0.5)  # no row is empty
    counts = dict(
        zip(results.structure.values, summarise_results(results).n_assigned.values, strict=True)
    )
    shown = {
        t.get_text(): bar.get_width()
        for t, bar in zip(left.get_yticklabels(), left.patches, strict=True)
    }
    assert len(shown) <= 30
    assert all(counts[name] == n for name, n in shown.items())
    others = [n for name, n in counts.items() if name not in shown]
    assert max(others) <= min(shown.values())
    assert left.get_title() == f"{sum(others)} images fit {len(others)} others best"
    mean = results.log_likelihood_integrated.mean("image")
    np.testing.assert_allclose(
        right.lines[0].get_ydata(), np.sort(mean - mean.max())[::-1], atol=1e-9
    )
    assert right.get_title() == f"first: {mean.structure.values[mean.values.argmax()]}"
    assert right.get_ylabel().endswith("(nat)")


def test_confusion_and_calibration_are_those_found(results):
    summary = summarise_results(results)
    texts = [int(t.get_text()) for t in plot_confusion(results).axes[0].texts]
    assert texts == confusion(summary).counts.ravel().tolist()
    found = calibration(summary)
    upper, lower = plot_calibration(results).axes
    filled = found.n_images > 0
    points = upper.containers[0].lines[0]
    np.testing.assert_allclose(points.get_xdata(), found.mean_probability[filled])
    np.testing.assert_allclose(
        points.get_ydata(), (found.n_right / np.maximum(found.n_images, 1))[filled]
    )
    assert [bar.get_height() for bar in lower.patches] == found.n_images.tolist()
    for plot in (plot_confusion, plot_calibration):
        with pytest.raises(InputError, match="it is not recorded which structures"):
            plot(results.drop_vars("true_structure"))


def test_errors_of_directions(results):
    axes = plot_direction_errors(results).axes[0]
    errors = direction_errors_degree(summarise_results(results))
    np.testing.assert_array_equal(heights(axes), np.histogram(errors, np.linspace(0, 180, 61))[0])
    by_chance = axes.lines[0].get_ydata()
    assert by_chance.sum() == pytest.approx(40)
    with pytest.raises(InputError, match="no poses are recorded"):
        plot_direction_errors(results.drop_vars("recorded_rot"))


def test_a_summary_gives_the_same_figures(results):
    summary = summarise_results(results)
    for plot in (plot_cross_correlation, plot_inplane_rotations, plot_direction_errors):
        np.testing.assert_array_equal(
            heights(plot(summary).axes[0]), heights(plot(results).axes[0])
        )


def test_unfinished_results_are_drawn_as_far_as_they_go(results, rng):
    gone = np.zeros((2, 40), bool)
    gone[:, 30:], gone[1, 20:] = True, True
    partial = without(results, gone).chunk({"image": 15})
    assert heights(plot_cross_correlation(partial).axes[0]).sum() == 30
    assert (
        plot_viewing_directions(partial).axes[0].get_title() == "30 images, best structure of each"
    )
    assert sum(int(t.get_text()) for t in plot_confusion(partial).axes[0].texts) == 20
    assert heights(plot_log_likelihood_ratio(partial, "open", "closed").axes[0]).sum() == 20
    nothing = without(results, np.ones((2, 40), bool))
    for plot in (
        plot_viewing_directions,
        plot_displacements,
        plot_cross_correlation,
        plot_inplane_rotations,
    ):
        assert [t.get_text() for t in plot(nothing).axes[0].texts] == ["no results"]
    notes = [t.get_text() for axes in plot_assignment(nothing).axes for t in axes.texts]
    assert "no image has results under all structures" in notes


def test_times_by_device(rng, tmp_path):
    seconds = rng.uniform(1, 2, 20)
    write_blocks(tmp_path / "a.csv", seconds[:12], "cuda:0")
    write_blocks(tmp_path / "b.csv", seconds[12:], "cuda:1")
    table = tmp_path / "blocks.csv"
    table.write_text(
        (tmp_path / "a.csv").read_text() + (tmp_path / "b.csv").read_text().split("\n", 1)[1]
    )
    axes = plot_block_times(table).axes[0]
    names = [text.get_text() for text in axes.figure.legends[0].get_texts()]
    assert [re.match(r"(cuda:\d): (\d+) blocks", name).groups() for name in names] == [
        ("cuda:0", "12"),
        ("cuda:1", "8"),
    ]
    assert heights(axes).sum() == 20
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("seconds per block", "blocks")


def test_a_few_values_far_out_do_not_stretch_a_histogram(rng):
    values = rng.normal(0, 1, 5000)
    np.testing.assert_array_equal(edges_of(values)[[0, -1]], [values.min(), values.max()])
    far = np.append(values, [1e4, -1e5])
    narrow = edges_of(far)
    assert -4 < narrow[0] < narrow[-1] < 4
    assert edges_of(np.full(3, 7.0))[0] < 7 < edges_of(np.full(3, 7.0))[-1]
    assert len(edges_of(np.zeros(0))) == len(narrow)


def test_the_interval_of_a_frequency():
    low, high = interval_of(np.array([0, 5, 10]), np.array([10, 10, 10]))
    np.testing.assert_allclose(low, [0, 0.2366, 0.7225], atol=1e-4)
    np.testing.assert_allclose(high, [0.2775, 0.7634, 1], atol=1e-4)


def test_long_names_lose_their_middle():
    assert short("open") == "open"
    name = short("a" * 50 + "\n" + "b" * 50)
    assert (len(name), name[0], name[-1]) == (27, "a", "b")
