"""Search coarse to fine: its blocks against those of the whole search and against plain sums, what
is selected, and what is lost."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from cryolike_dask import (
    ImageParameters,
    ImageStack,
    TemplateStack,
    compute_integrated_log_likelihood,
    compute_optimal_pose,
    labels,
)
from cryolike_dask.compute.block_reports import BlockReport, listening_to_blocks
from cryolike_dask.compute.progress import Meter
from cryolike_dask.errors import InputError
from cryolike_dask.geometry.displacements import DisplacementSearch
from cryolike_dask.geometry.noise import NoiseModel
from cryolike_dask.geometry.search_method import Adaptive, search_done
from cryolike_dask.io.sources import InMemory
from cryolike_dask.likelihoods import blocks
from cryolike_dask.likelihoods.graph import ComparisonGraph, image_rows, template_rows
from cryolike_dask.likelihoods.kernels.tile import Tile
from cryolike_dask.likelihoods.kernels.window_points_cpu import near_end
from cryolike_dask.likelihoods.kernels.windows import NARROWER_AT_END, Axis, Windows, interpolation
from cryolike_dask.likelihoods.search import adaptive
from cryolike_dask.likelihoods.search.coarser import (
    Coarser,
    between_nodes,
    coarser_grid,
    cosines_of_views,
    neighbours,
    spread_views,
)
from cryolike_dask.likelihoods.search.places import Places, Window, turns
from cryolike_dask.likelihoods.search.selection import FOUND, MOST_PLACES, Flat, Reach, Selection
from cryolike_dask.likelihoods.search.windows import (
    best_of_pairs_in_windows,
    optimal_poses_in_windows,
)
from cryolike_dask.likelihoods.settings import Settings
from cryolike_dask.particles.transform import normalised_stack
from cryolike_dask.structures.atoms import Atoms
from cryolike_dask.structures.projection import project
from tests.conftest import Builder
from tests.likelihoods.test_kernels import BruteForce, contrast_of
from tests.optics import microscope
from tests.real_space import StarPoses, render, two_lobes

NOWHERE = np.nan


def compared(images, templates, window, wanted, places, function, settings=None):
    """What a block of windows gives."""
    settings = settings or Settings(device="cpu", precision="double")
    whole = ComparisonGraph(images, templates, settings)
    at_window = replace(templates, displacements=window.displacements)
    graph = ComparisonGraph(images, at_window, settings)
    found = function(
        image_rows(images, settings.rules, graph.group_of_image),
        template_rows(at_window, settings.rules),
        wanted,
        places,
        blocks.radial_basis_of(graph.comparison),
        comparison=graph.comparison,
        window=window,
    )
    return found, whole


def no_places(n):
    return np.full((n, MOST_PLACES, 2), NOWHERE)


@pytest.mark.parametrize("with_noise", [False, True])
@pytest.mark.parametrize("precision", ["single", "double"])
@pytest.mark.parametrize("like", ["a window", "everything"])
def test_all_templates_in_one_window_as_large_as_the_search_are_the_whole_search(
    build, precision, like, with_noise
):
    images, templates = build.stacks(5, 7, search=(2.0, 3, 5))
    noise = None
    if with_noise:
        f = np.linspace(0, 1, 30)
        noise = NoiseModel.of_spectrum(f, np.exp(-3 * f), images.grid)
    settings = Settings(device="cpu", precision=precision, noise=noise)
    x, y = (np.unique(v) for v in templates.displacements.table())
    window = Window(x, y, templates.displacements, templates.displacements.steps)
    places = no_places(5)
    if like == "a window":
        places[:, 0] = 0
    found, graph = compared(
        images,
        templates,
        window,
        np.ones((5, 7), np.uint32),
        places,
        optimal_poses_in_windows,
        settings,
    )
    rows = (
        image_rows(images, settings.rules, graph.group_of_image),
        template_rows(templates, settings.rules),
    )
    expected = blocks.optimal_poses(
        *rows, blocks.radial_basis_of(graph.comparison), comparison=graph.comparison
    )
    for name in ("template", "displacement", "rotation"):
        np.testing.assert_array_equal(found[name], expected[name])
    found, expected = (
        blocks.with_log_likelihoods(rows[0], of[:, 0], comparison=graph.comparison)
        for of in (found, expected)
    )
    assert np.isfinite(found["log_likelihood_optimal"]).all()
    for name in ("cross_correlation", "log_likelihood_optimal", "log_likelihood_integrated"):
        np.testing.assert_allclose(
            found[name], expected[name], rtol=0, atol=1e-9 if precision == "double" else 2e-4
        )


@pytest.fixture(params=["loops", "torch"])
def reduction(request, monkeypatch):
    """What windows are reduced by: on CPUs, and on other devices."""
    if request.param == "torch":
        monkeypatch.setattr(Tile, "_reduce_in_windows_on_cpu", Tile._reduce_in_windows)


def test_loops_give_what_torch_gives(build, monkeypatch):
    images, templates = build.stacks(6, 5, search=(2.0, 5, 5), noise=0.5)
    x = np.arange(-2, 3) * 0.4
    window = Window(x, x, templates.displacements, (0.4, 0.4), finer=4)
    places = no_places(6)
    places[:, :3] = build.rng.uniform(-3, 3, (6, 3, 2))
    places[:2, 1:] = NOWHERE
    places[0, 0] = 0
    wanted = build.rng.integers(0, 8, (6, 5)).astype(np.uint32)
    found = []
    for _ in range(2):
        for function in (optimal_poses_in_windows, best_of_pairs_in_windows):
            one, _ = compared(images, templates, window, wanted, places, function)
            found.append(one)
        monkeypatch.setattr(Tile, "_reduce_in_windows_on_cpu", Tile._reduce_in_windows)
    for loops, other in zip(found[:2], found[2:], strict=True):
        for name in loops.dtype.names:
            np.testing.assert_allclose(loops[name], other[name], rtol=1e-9, atol=1e-9, err_msg=name)


def test_steps_are_finer_where_a_windows_own_place_lies_at_the_end():
    search = DisplacementSearch(4, 17, 17).grid(1.0)
    x = np.arange(-2, 3) / 2
    window = Window(x, x, search, (0.5, 0.5), finer=4)
    places = no_places(1)
    places[0, :2] = [0, 0], [4, 0]
    of_images, cpu = Places.of(places, window), torch.device("cpu")
    axis = Axis.of(x, 4, 0.5, window.limit[0], cpu)
    none_is_free = torch.zeros(2, dtype=torch.bool)
    windows = Windows(
        *(axis, axis, torch.zeros(4)),
        *(torch.tensor(of_images.of_image), torch.tensor(of_images.number)),
        *(torch.full((2, 1), 3), none_is_free),
    )
    in_the_middle = torch.zeros(2, 1, 25)
    in_the_middle[..., 12] = 1
    narrower = windows.at_end(in_the_middle, torch.zeros(2, 1, dtype=torch.int64), slice(0, 2))
    assert narrower.flatten().tolist() == [1, NARROWER_AT_END]
    terms = windows.for_loops(torch.ones(2, 1, dtype=torch.bool), np.arange(4))
    assert [near_end(terms, row, 0, 12) for row in range(2)] == [False, True]


@pytest.mark.usefixtures("reduction")
def test_windows_are_sums_over_their_poses():
    """Two places of each image, one of which reaches beyond the search, and near each other.

    Always the same ones: the offset is taken at the place, and here at rest, which is 0.03 nat of a
    single window as a rule, and rarely twice as much (2 of 150 seeds)."""
    build = Builder(np.random.default_rng(0))
    images, templates = build.stacks(3, 4, n_pixels=8, n_inplanes=12, search=(1.5, 3, 3))
    grid, search = images.grid, templates.displacements
    step = search.steps
    x = np.array([-1, 0, 1]) * step[0] / 2
    window = Window(x, x, search, (step[0] / 2, step[1] / 2))
    half_width = 1.5 * step[0] / 2
    places = no_places(3)
    places[:, :2] = build.rng.uniform(-1, 1, (3, 2, 2)) * grid.pixel_size_angstrom
    places[0, 1] = NOWHERE
    wanted = np.array([[1, 1, 0, 1], [0, 3, 1, 0], [2, 0, 0, 3]], np.uint32)
    found, graph = compared(images, templates, window, wanted, places, optimal_poses_in_windows)
    pairs, _ = compared(images, templates, window, wanted, places, best_of_pairs_in_windows)
    log_prior = template_rows(templates, graph.settings.rules)["log_prior"]
    limit = 1.5 * grid.pixel_size_angstrom + step[0] / 2
    n_dof = 4 * np.pi * grid.radius_max**2
    some_are_cut = False
    for m in range(3):
        known = places[m][~np.isnan(places[m, :, 0])]
        logs = np.full(4, -np.inf)
        for w, gamma in enumerate(grid.angles):
            turn = np.array([[np.cos(gamma), -np.sin(gamma)], [np.sin(gamma), np.cos(gamma)]])
            for k, place in enumerate(known):
                d = (turn @ place)[:, None] + window.displacements.table()
                bits = wanted[m][:, None] >> np.arange(len(known)) & 1
                others = np.array([tapers(d, turn @ other, half_width) for other in known])
                part = bits[:, [k]] * others[k] / np.maximum(bits @ others, 1e-300)
                part *= (abs(d) < limit).all(0)
                some_are_cut |= bool(((part < 1) & (part > 0)).any())
                brute = BruteForce(
                    images.source.values[m : m + 1],
                    contrast_of(images.optics[m], grid, "standard")[None],
                    templates.source.values,
                    2 * d / grid.box_size_angstrom,
                    grid,
                    grid.mask(exact=True),
                )
                mask, _ = brute.template_mask_for(0.95)
                of_poses = brute.log_likelihood(mask, n_dof)[0, :, :, w]
                with np.errstate(divide="ignore"):
                    of_poses = of_poses + np.log(part)
                logs = np.logaddexp(logs, np.logaddexp.reduce(of_poses, axis=1))
        np.testing.assert_allclose(pairs["log_likelihood"][m], logs, rtol=0, atol=0.05)
        expected = np.logaddexp.reduce(logs + log_prior) - np.log(4)
        assert found["log_likelihood_integrated"][m, 0] == pytest.approx(expected, abs=0.05)
    assert some_are_cut


@pytest.mark.parametrize("end", [NOWHERE, np.inf])
@pytest.mark.parametrize("finer", [1, 4])
@pytest.mark.usefixtures("reduction")
def test_the_whole_search_counts_as_such_in_whatever_steps(build, finer, end):
    """Steps of a level of which the last would lie across its end; of noise all poses count."""
    images, templates = build.stacks(3, 4, n_pixels=12, search=(2.0, 5, 5), noise=5)
    pixel = images.grid.pixel_size_angstrom
    everything = DisplacementSearch(2.375, 20, 20)(templates)  # up to the same end
    expected = compute_integrated_log_likelihood(images, everything, device="cpu").compute()
    places, wanted = no_places(3), np.ones((3, 4), np.uint32)
    places[:, 1] = end
    for step in (0.6, 0.9):
        window = Window.of_size((3, 3), (step * pixel,) * 2, templates.displacements, finer)
        found, _ = compared(images, templates, window, wanted, places, optimal_poses_in_windows)
        # half of the steps at the end would be 0.15 nat, a step that is another one 0.2
        np.testing.assert_allclose(
            found["log_likelihood_integrated"][:, 0],
            expected.log_likelihood_integrated,
            rtol=0,
            atol=0.03,
        )


def test_bounds_are_of_templates_that_are_wanted(build):
    """Not of others that happen to share a tile with them."""
    images, templates = build.stacks(4, 4, search=(2.0, 5, 5))
    x = np.arange(-1, 2) * templates.displacements.steps[0]
    window = Window(x, x, templates.displacements, templates.displacements.steps)
    settings = Settings(device="cpu", precision="single", tolerance=1e-3)
    places = no_places(4)
    places[:, 0] = 0
    found = []
    for wanted in (np.eye(4) > 0, np.ones((4, 4), np.bool_)):
        poses, _ = compared(
            images,
            templates,
            window,
            wanted.astype(np.uint32),
            places,
            optimal_poses_in_windows,
            settings,
        )
        found.append(poses["correlation_error_bound"][:, 0])
    assert (found[0] <= found[1]).all()
    assert (found[0] < found[1]).any()


def tapers(displacements, place, half_width):
    """What a window counts before it is shared, at displacements (2, x)."""
    u = (displacements - place[:, None]) / half_width
    return (np.maximum(1 - u**2, 0) ** 2).prod(0)


@pytest.mark.parametrize("finer", [1, 4])
@pytest.mark.parametrize("n_places", [1, 2, 5])
def test_windows_that_overlap_count_once(rng, n_places, finer):
    """A peak anywhere in them has its integral, and half of it at the end of the search."""
    search = DisplacementSearch(6, 25, 25).grid(1.0)
    x = np.arange(-6, 7) / 2
    window = Window(x, x, search, (0.5, 0.5), finer)
    places = no_places(1)
    places[0, :n_places] = rng.uniform(-1, 1, (n_places, 2))
    of_images = Places.of(places, window)
    axis, cut = Axis.of(x, finer, 0.5, window.limit[0], torch.device("cpu")), finer.bit_length() - 1
    angles = rng.uniform(0, 2 * np.pi, 3)
    windows = Windows(
        axis,
        axis,
        torch.tensor(angles),
        torch.tensor(of_images.of_image),
        torch.tensor(of_images.number),
        torch.full((n_places, 2), 2**n_places - 1),
        torch.zeros(n_places, dtype=torch.bool),
    )
    spread = 0.4
    for peak, expected in (([0.3, -0.2], 1), ([6.25, 0.0], 0.5)):
        if expected < 1:
            of_images.of_image[:, :n_places] += [6.25, 0.0]
            angles[:] = 0
            windows = replace(
                windows,
                angles=torch.tensor(angles),
                places=torch.tensor(of_images.of_image),
            )
        for w, gamma in enumerate(angles):
            total = 0.0
            (turn,) = turns(np.array([gamma]))
            for row in range(n_places):
                share = windows.shares(*torch.tensor([[w], [row], [1]]), cut)[0].numpy()
                at = axis.at[cut].numpy()
                points = np.stack([np.tile(at, len(at)), np.repeat(at, len(at))])
                own = turn.T @ (points + (turn @ windows.places[row, row].numpy())[:, None])
                distance2 = ((own - np.array(peak)[:, None]) ** 2).sum(0)
                total += (share * np.exp(-distance2 / 2 / spread**2)).sum()
            integral = total * 0.5**2 / (2 * np.pi * spread**2)
            assert integral == pytest.approx(expected, abs=0.02 if expected == 1 else 0.6 / finer)


def test_values_between_displacements_are_those_of_waves_in_the_band(rng):
    at, matrix = interpolation(9, 4, 0.25)
    frequency, phase = rng.uniform(0, 0.25, 20), rng.uniform(0, 2 * np.pi, 20)
    waves = np.cos(2 * np.pi * frequency * np.arange(9)[:, None] + phase)
    expected = np.cos(2 * np.pi * frequency * at[:, None] + phase)
    inside = (at >= 0) & (at <= 8)
    np.testing.assert_allclose((matrix @ waves)[inside], expected[inside], atol=6e-3)
    np.testing.assert_allclose(matrix @ waves, expected, atol=0.05)


def test_rows_in_a_part_of_their_band_are_those_of_its_grid(rng):
    parameters = ImageParameters(48, 2.0, n_inplanes=96)
    fine = parameters.grid
    grid = coarser_grid(fine, 0.5)
    atoms = rng.uniform(-0.3, 0.3, (2, 9, 1, 1))

    def rings(grid):
        kx, ky = grid.points()
        return np.exp(-2j * np.pi * (kx * atoms[0] + ky * atoms[1])).sum(0)[None]

    coarse = Coarser(InMemory(rings(fine)), fine, grid)
    assert coarse.shape == (1, *grid.shape)
    np.testing.assert_allclose(coarse.take(np.array([0])), rings(grid), atol=3e-3)


def test_polynomials_go_through_all_nodes(rng):
    nodes = ImageParameters(256, 1.0).grid.radii
    at = np.sort(rng.uniform(nodes[0], nodes[-1], 20))
    matrix = between_nodes(nodes, np.concatenate([at, nodes[3:5]]))
    values = np.cos(2 * np.pi * 0.4 * np.concatenate([at, nodes[3:5]]))
    np.testing.assert_allclose(matrix @ np.cos(2 * np.pi * 0.4 * nodes), values, atol=1e-9)


def test_spread_views_cover_all_others():
    viewing = ImageParameters(32, 1.0, viewing_distance=0.1).viewing_angles()
    directions = viewing.rotations()[:, :, 2]
    chosen = spread_views(viewing, 0.3)
    cosines = directions @ directions[chosen].T
    assert (cosines.max(axis=1) >= np.cos(0.3)).all()
    among = directions[chosen] @ directions[chosen].T - 2 * np.eye(len(chosen))
    assert (among < np.cos(0.3)).all()


@pytest.mark.parametrize("symmetry", ["C1", "C4"])
def test_neighbours_are_those_within_an_angle(symmetry):
    viewing = ImageParameters(32, 1.0, viewing_distance=0.3, symmetry=symmetry).viewing_angles()
    rows = np.arange(0, len(viewing), 2)
    every = np.arange(len(viewing))
    near = neighbours(viewing, rows, every, 0.5).toarray()
    np.testing.assert_array_equal(near, cosines_of_views(viewing, rows, every) >= np.cos(0.5))
    alone = neighbours(viewing, rows, rows, 0).toarray()
    np.testing.assert_array_equal(alone, np.eye(len(rows), dtype=bool))


def test_what_is_within_reach_is_selected():
    found = np.zeros((3, 12), FOUND)
    found["log_likelihood"] = -100.0
    found["log_likelihood"][0, [2, 3]] = 0, -5
    found["gain"] = 40
    found["x"][0, [2, 3]] = 1, 9
    found["log_likelihood"][1] = 0
    found["x"][1] = 10 * np.arange(12)
    found["x"][1, 1:] += 100
    found["log_likelihood"][2, 0] = -90
    near = np.eye(12, dtype=bool)
    near[6:, 6:] = True
    near, reach = csr_array(near), Reach(0.0, 2.0, 0.1)
    selection = Selection(np.zeros(12), near, near, reach, 2.0, most_places=3)
    places, wanted, left_out = selection.chosen(found)
    np.testing.assert_array_equal(places[0, :3, 0], [1, 9, np.nan])
    assert np.isnan(places[1]).all(), "it may lie anywhere"
    np.testing.assert_array_equal(wanted[0], [0, 0, 0b01, 0b10, *[0] * 8])
    assert wanted[1].all()
    np.testing.assert_array_equal(np.flatnonzero(wanted[2]), [0])
    assert left_out[:2] == pytest.approx([10 * np.exp(-100.0), 0])
    assert left_out[2] == pytest.approx(11 * np.exp(-10) / (1 + 11 * np.exp(-10)))


def test_weak_images_keep_what_noise_may_be_worth_in_more_of_the_band():
    reach = Reach(12.0, 2.0, 0.25)
    np.testing.assert_allclose(reach.below(np.array([0.0, 15, 40, 80])), [12, 12, 12, 22])


def test_templates_are_compared_where_the_views_around_them_have_found_the_particle():
    found = np.zeros((1, 6), FOUND)
    found["log_likelihood"] = [[0, -1, -50, -1, -50, -50]]
    found["gain"], found["x"] = 20, [[0, 9, 0, 18, 0, 0]]
    beside = csr_array(np.abs(np.subtract.outer(np.arange(6), np.arange(6))) <= 1)
    selection = Selection(
        np.zeros(6), csr_array(np.eye(6, dtype=bool)), beside, Reach(5, 0, 0), 2.0, 3
    )
    places, wanted, _ = selection.chosen(found)
    np.testing.assert_array_equal(places[0, :3, 0], [0, 9, 18])
    np.testing.assert_array_equal(wanted[0], [0b011, 0b011, 0, 0b100, 0, 0])


def test_images_that_tell_nothing_are_compared_with_everything():
    found = np.zeros((4, 12), FOUND)
    found["gain"] = np.array([8, 40, 8, 8])[:, None]  # the second tells something
    found["log_likelihood"][2, 1:] = -100  # and so does the third
    found["log_likelihood"][3] = -np.inf  # a level before has found that it tells nothing
    near = csr_array(np.eye(12, dtype=bool))
    selection = Selection(np.zeros(12), near, near, Reach(5, 0, 0), 2.0, 3, Flat(15, 0.3))
    places, wanted, left_out = selection.chosen(found)
    np.testing.assert_array_equal(places[:, 1, 0] == -np.inf, [True, False, False, True])
    np.testing.assert_array_equal((wanted > 0).sum(axis=1), [12, 12, 1, 12])
    np.testing.assert_allclose(left_out, [0, 0, 11 * np.exp(-100), 0])


def test_an_adaptive_search_is_named_by_the_error_that_is_asked_for():
    assert str(Adaptive()) == "adaptive"
    assert str(Adaptive(0.02)) == "adaptive to 0.02 nat"
    for error in (0.1, 0.02, 1e-5):
        assert search_done(str(Adaptive(error))) == Adaptive(error)
    assert Adaptive.named("adaptive to much nat") is None
    assert Adaptive.named("adaptive to 2 nat") is None
    for error in (0, 2, np.nan, "little"):
        with pytest.raises(InputError, match="error_nat"):
            Adaptive(error)


def test_less_error_keeps_what_is_as_much_less():
    reach = Reach(12.0, 2.0, 0.25)
    gain = np.array([0.0, 80])
    np.testing.assert_allclose(reach.to(0.1).below(gain), reach.below(gain))
    np.testing.assert_allclose(reach.to(0.001).below(gain) - reach.below(gain), np.log(100))


PIXEL_SIZE, N_PIXELS = 1.5, 64
PARAMETERS = ImageParameters(N_PIXELS, PIXEL_SIZE, viewing_distance=0.4, precision="single")
ATOMS = Atoms(two_lobes(20), np.full(48, 62.0), np.full(48, 2.0))


@pytest.fixture(scope="module")
def structure():
    viewing = PARAMETERS.viewing_angles()
    values = project(ATOMS, PARAMETERS.grid, viewing).astype(np.complex64)
    return TemplateStack.from_array(values, PARAMETERS, viewing)


def particles(rng, n, signal_to_noise, x_angstrom=0.0, atoms=ATOMS):
    """Images made in real space, off the grid, noise's standard deviation, and optics."""
    polar = np.arccos(rng.uniform(-1, 1, n))
    x, y = rng.uniform(-1, 1, (2, n)) * PIXEL_SIZE
    poses = StarPoses.of_template(
        rng.uniform(0, 2 * np.pi, n), polar, rng.uniform(0, 2 * np.pi, n), x + x_angstrom, y
    )
    u = rng.uniform(4000, 9000, n)
    rows = microscope(n, u)
    clean = render(atoms, poses, rows, N_PIXELS, PIXEL_SIZE)
    level = np.sqrt(clean.var() / signal_to_noise) if signal_to_noise else 0.0
    return clean, level, rows


def stack_of(pixels, rows):
    return ImageStack.from_array(
        normalised_stack(pixels, PARAMETERS.grid).astype(np.complex64), PARAMETERS, rows
    )


def integrated(images, templates, search):
    return compute_optimal_pose(images, templates, device="cpu", search=search).compute()


def test_as_near_to_the_truth_as_a_search_of_everything_in_half_the_steps(rng, structure):
    clean, level, rows = particles(rng, 4, 0.06)
    images = stack_of(clean + level * rng.standard_normal(clean.shape), rows)
    coarse, fine = DisplacementSearch(2, 9, 9), DisplacementSearch(2, 17, 17)
    truth = integrated(images, fine(structure), "exhaustive")
    found = integrated(images, coarse(structure), "adaptive")
    everything = integrated(images, coarse(structure), "exhaustive")
    # displacements stand for what is half a step about them, to which the prior is spread
    wider = 2 * np.log(4.5 / 4.25)
    off = (found - truth).log_likelihood_integrated.values + wider
    print(off, (everything - truth).log_likelihood_integrated.values + wider)
    assert abs(off).max() < 0.1
    error = found.log_likelihood_error.values
    print(error, found.n_poses_compared.values)
    assert (error >= 0).all()
    assert (error < 0.05).all(), error
    n_all = np.prod([len(structure), 81, PARAMETERS.grid.n_inplanes])
    assert (found.n_poses_compared.values <= n_all).all()
    at = np.arange(-2, 2.1, 0.5) * PIXEL_SIZE
    assert abs(found.optimal_displacement_x.values[:, None] - at).min(axis=1).max() < 1e-5
    assert found.attrs["search"] == "adaptive"
    assert abs(found - truth).cross_correlation.max() < 0.01


def test_less_error_that_is_asked_for_compares_more(structure):
    clean, level, rows = particles(np.random.default_rng(5), 3, 0.06)
    images = stack_of(clean + level * np.random.default_rng(6).standard_normal(clean.shape), rows)
    templates = DisplacementSearch(2, 9, 9)(structure)
    truth = integrated(images, DisplacementSearch(2, 17, 17)(structure), "exhaustive")
    found = [integrated(images, templates, Adaptive(error)) for error in (1.0, 0.1, 1e-3)]
    off, compared = (
        np.array([one[name].values for one in found])
        for name in ("log_likelihood_integrated", "n_poses_compared")
    )
    off = abs(off - truth.log_likelihood_integrated.values + 2 * np.log(4.5 / 4.25)).max(axis=1)
    print(off, compared)
    assert (np.diff(compared, axis=0) > 0).all()
    assert (off < [1, 0.1, 0.05]).all()
    assert found[2].attrs["search"] == "adaptive to 0.001 nat"


@pytest.mark.parametrize("n", [9, 8])
def test_best_poses_are_the_best_displacements_of_the_search(structure, n):
    """Not those nearest to where likelihoods between displacements are largest; of 8 along an axis
    there is (0, 0) besides."""
    clean, level, rows = particles(np.random.default_rng(7), 12, 0.5)
    images = stack_of(clean + level * np.random.default_rng(8).standard_normal(clean.shape), rows)
    templates = DisplacementSearch(2, n, n)(structure)
    found, everything = (
        integrated(images, templates, search) for search in ("adaptive", "exhaustive")
    )
    same = (found.optimal_template == everything.optimal_template).values
    same &= (found.optimal_inplane_rotation == everything.optimal_inplane_rotation).values
    assert same.sum() >= 6
    for axis in ("x", "y"):
        name = f"optimal_displacement_{axis}"
        np.testing.assert_array_equal(found[name].values[same], everything[name].values[same])
    off = (found - everything).log_likelihood_optimal.values
    print(off)
    np.testing.assert_allclose(off[same], 0, atol=1e-6)


def test_peaks_much_narrower_than_a_step_are_summed_rightly(structure):
    rng = np.random.default_rng(0)
    clean, level, rows = particles(rng, 3, 1.0)
    images = stack_of(clean + level * rng.standard_normal(clean.shape), rows)
    truth = integrated(images, DisplacementSearch(1.5, 49, 49)(structure), "exhaustive")
    off = []
    for search in ("adaptive", "exhaustive"):
        found = integrated(images, DisplacementSearch(4, 17, 17)(structure), search)
        # the prior is spread to half a step beyond the last displacement
        wider = 2 * np.log(8.5 / (3 + 1 / 16))
        off.append((found - truth).log_likelihood_integrated.values + wider)
    print(off)
    assert abs(off[0]).max() < 0.1
    assert abs(off[1]).max() > 2


def test_views_that_look_nearly_alike_are_not_lost():
    """Two halves, of which a sixth is different. Half of the band takes one side for the other
    where the right one lies farther from a view: an image that is lost if views are left out that
    are worth a tenth less than the best."""
    rng = np.random.default_rng(1)
    half = rng.normal(0, (5, 6, 9), (24, 3)) + np.array([9.0, 0, 0])
    other = half * (-1, -1, 1)
    other[:4] += rng.normal(0, 5, (4, 3))
    positions = np.concatenate([half, other])
    atoms = replace(ATOMS, positions_angstrom=positions - positions.mean(axis=0))
    viewing = PARAMETERS.viewing_angles()
    values = project(atoms, PARAMETERS.grid, viewing).astype(np.complex64)
    stack = TemplateStack.from_array(values, PARAMETERS, viewing)
    templates = DisplacementSearch(2, 5, 5)(stack)
    rng = np.random.default_rng(0)
    clean, level, rows = particles(rng, 150, 1.0, atoms=atoms)
    noise = level * rng.standard_normal(clean.shape)
    images = stack_of(clean + noise, rows)[95:96]
    logs = compute_integrated_log_likelihood(
        images, templates, dims=("image", "template"), device="cpu"
    )
    logs = logs.log_likelihood.values[0] + np.log(viewing.weight)
    posterior = np.exp(logs - np.logaddexp.reduce(logs))
    settings = Settings(device="cpu", search="adaptive")
    (compared_views,) = adaptive.wanted_in_whole_band(ComparisonGraph(images, templates, settings))
    print(posterior[~compared_views].sum(), compared_views.sum())
    assert posterior[~compared_views].sum() < 1e-4
    assert compared_views.mean() < 0.2


def test_chunks_and_batches_change_nothing(rng, structure):
    clean, level, rows = particles(rng, 2, 0.06)
    images = stack_of(clean + level * rng.standard_normal(clean.shape), rows)
    templates = DisplacementSearch(2, 5, 5)(structure)  # worth four times as many
    one = integrated(images, templates, "adaptive")
    cut = replace(images.chunk(1), n_per_batch=1)
    many = integrated(cut, replace(templates.chunk(90), n_per_batch=2), "adaptive")
    for name in ("optimal_template", "optimal_displacement_x", "optimal_inplane_rotation"):
        np.testing.assert_array_equal(one[name], many[name])
    np.testing.assert_allclose(
        one.log_likelihood_integrated, many.log_likelihood_integrated, atol=2e-3
    )


def test_noise_alone_is_compared_with_everything(rng, structure):
    _, _, rows = particles(rng, 2, 0)
    images = stack_of(rng.standard_normal((2, N_PIXELS, N_PIXELS)), rows)
    templates = DisplacementSearch(2, 9, 9)(structure)
    found, everything = (
        integrated(images, templates, search) for search in ("adaptive", "exhaustive")
    )
    off = (found - everything).log_likelihood_integrated.values
    print(off)
    assert abs(off).max() < 0.1


def test_noise_alone_is_compared_with_everything_in_steps_that_are_right(rng, structure):
    """Where those asked for are too long: in steps that cover the same search."""
    images = stack_of(rng.standard_normal((3, N_PIXELS, N_PIXELS)), microscope(3, np.full(3, 5e3)))
    found = integrated(images, DisplacementSearch(2, 5, 5)(structure), "adaptive")
    fine = DisplacementSearch(2.5 * 10 / 11, 11, 11)(structure)
    everything = integrated(images, fine, "exhaustive")
    for name in ("log_likelihood_integrated", "cross_correlation", "optimal_template"):
        np.testing.assert_allclose(found[name], everything[name], rtol=1e-6, err_msg=name)
    for axis in ("x", "y"):
        name = f"optimal_displacement_{axis}"
        # the nearest of the search, or one beside it that is likelier
        apart = abs(found[name] - everything[name]).values
        assert apart.max() <= 1.51 * PIXEL_SIZE, name
        assert not set(found[name].values.round(3)) - set((np.arange(-2, 3) * PIXEL_SIZE).round(3))


def test_two_particles_in_an_image_are_both_seen(rng, structure):
    """As strong as each other, three pixels apart, near the edge of the search."""
    first, level, rows = particles(np.random.default_rng(3), 2, 0.05, -1.5 * PIXEL_SIZE)
    second, _, _ = particles(np.random.default_rng(4), 2, 0.05, 1.5 * PIXEL_SIZE)
    images = stack_of(first + second + level * rng.standard_normal(first.shape), rows)
    truth = integrated(images, DisplacementSearch(3, 25, 25)(structure), "exhaustive")
    found = integrated(images, DisplacementSearch(3, 13, 13)(structure), "adaptive")
    off = (found - truth).log_likelihood_integrated.values + 2 * np.log(6.5 / 6.25)
    print(off)
    assert abs(off).max() < 0.2


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"search": "fast"}, "search='fast' is not known"),
        ({"search": "adaptive", "conventions": "cryolike"}, "compare everything"),
    ],
)
def test_what_cannot_be_is_refused(build, given, problem):
    images, templates = build.stacks()
    with pytest.raises(InputError, match=problem):
        compute_optimal_pose(images, templates, **given)


def test_a_band_too_narrow_for_levels_is_compared_with_everything(build):
    images, templates = build.stacks()
    found, everything = (
        compute_optimal_pose(images, templates, device="cpu", search=search).compute()
        for search in ("adaptive", "exhaustive")
    )
    assert (found.log_likelihood_error == 0).all()
    assert (found.n_poses_compared == 7 * 7 * images.grid.n_inplanes).all()
    of_search = [labels.LOG_LIKELIHOOD_ERROR, labels.N_POSES_COMPARED]
    assert found.drop_vars(of_search).drop_attrs().identical(everything.drop_attrs())


def test_progress_counts_levels_by_their_work(build, monkeypatch):
    monkeypatch.setattr(adaptive, "HALF_PIXELS", 4)
    images, templates = build.stacks(5, 7, search=(2.0, 3, 5))
    shares = [level.share for level in adaptive.levels_of(templates)]
    assert len(shares) > 1
    assert sum(shares) == pytest.approx(1)
    assert shares[-1] > sum(shares[:-1])
    values = []
    meter = Meter(5, lambda done, kept: values.append(done))

    def heard(report):
        if isinstance(report, BlockReport):
            meter.started(report.name)
            assert meter.block(report)

    with listening_to_blocks(None, heard):
        compute_optimal_pose(images, templates, device="cpu", search="adaptive").compute(
            scheduler="sync"
        )
    assert len(values) >= len(shares)
    assert values[0] == pytest.approx(5 * shares[0])
    assert 5 * (1 - shares[-1]) < values[-1] <= 5 * (1 + 1e-9)
