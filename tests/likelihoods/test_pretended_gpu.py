"""Every kind of block on a pretended GPU: it runs there, and gives what a CPU gives, by compiled
loops and by torch."""

from __future__ import annotations

import sys
from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest
import torch

from benchmarks.pretended_gpu import pretended_gpu
from cryolike_dask import (
    Around,
    ImageParameters,
    compute_optimal_pose,
    configure_displacement,
    open_structure,
)
from cryolike_dask.errors import CannotFitError
from cryolike_dask.likelihoods import blocks, interface
from cryolike_dask.likelihoods.envelope import choose_structures
from cryolike_dask.likelihoods.graph import ComparisonGraph, image_rows, template_rows
from cryolike_dask.likelihoods.kernels import norms, tile, with_triton
from cryolike_dask.likelihoods.kernels.tile import Tile
from cryolike_dask.likelihoods.kernels.windows import Windows
from cryolike_dask.likelihoods.search.gathered import add_at
from cryolike_dask.likelihoods.search.places import Arcs, Window
from cryolike_dask.likelihoods.search.windows import (
    best_of_pairs_in_windows,
    optimal_poses_and_pairs,
)
from cryolike_dask.likelihoods.settings import Settings
from cryolike_dask.likelihoods.signal import explained_by_pairs
from cryolike_dask.structures.atoms import Atoms
from tests.conftest import Builder
from tests.likelihoods.test_known_poses import with_poses
from tests.likelihoods.test_posterior import particles
from tests.likelihoods.test_search import no_places
from tests.real_space import two_lobes

NAT = {"single": 1e-4, "double": 1e-9}
PART = {"single": 1e-6, "double": 1e-12}
"""Largest differences of log-likelihoods, and of correlations."""
OF_BOUND = 1e-4
"""What split operands may add to the bound of the error of correlations."""
OF_POSTERIOR = 2e-3
"""Part of numbers of poses, of radii and of probabilities in single precision: what differences of
log-likelihoods make of them, and thresholds."""


@pytest.fixture(autouse=True)
def without_triton(monkeypatch):
    """As where triton is not installed: its kernel is tested in `test_fused`."""
    monkeypatch.setattr(with_triton, "find_spec", lambda name: None)


@pytest.fixture
def build():
    """Always the same inputs: of others two poses might be as good to rounding."""
    return Builder(np.random.default_rng(3))


def on_each(compute):
    """What a function of the device gives: on a pretended GPU, and on a CPU by loops and by
    torch."""
    on_cpu = [compute("cpu")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tile, "_reduce_in_windows_on_cpu", Tile._reduce_in_windows)
        patch.setattr(Tile, "_reduce_on_cpu", lambda tile, reference: tile.reduce(reference)[:3])
        on_cpu.append(compute("cpu"))
    with pretended_gpu() as gpu:
        on_gpu = compute("cuda")
    assert gpu.launches.total() > 0
    return on_gpu, on_cpu


def assert_same(compute, precision="single"):
    on_gpu, on_cpu = on_each(lambda device: fields_of(compute(device)))
    for expected in on_cpu:
        assert_close(on_gpu, expected, precision)


def assert_close(found, expected, precision):
    assert found.keys() == expected.keys()
    for name, values in found.items():
        within = tolerance(name, precision)
        np.testing.assert_allclose(values, expected[name], **within, err_msg=name)


def fields_of(found):
    """Arrays by name, of a Dataset, of records, or of an array or several."""
    if hasattr(found, "data_vars"):
        return {name: array.values for name, array in found.data_vars.items()}
    if isinstance(found, tuple):
        parts = [fields_of(part) for part in found]
        return {f"{i}_{k}": v for i, part in enumerate(parts) for k, v in part.items()}
    if found.dtype.names:
        fields = {name: found[name] for name in found.dtype.names}
        if "log_missed" in fields:  # of nothing, rounding is left
            fields["log_missed"] = np.exp(
                fields["log_missed"] - fields["log_likelihood_integrated"]
            )
        return fields
    return {"log_likelihood" if found.ndim < 3 else "correlation": found}


def tolerance(name, precision):
    of_posterior = ("effective", "entropy", "radius", "mean", "probability", "significant")
    if "error_bound" in name and precision == "single":
        return {"rtol": 0, "atol": OF_BOUND}
    if "correlation" in name:
        return {"rtol": 0, "atol": PART[precision]}
    if precision == "single" and any(word in name for word in of_posterior):
        return {"rtol": OF_POSTERIOR, "atol": OF_POSTERIOR}
    return {"rtol": 0, "atol": NAT[precision]}


@pytest.mark.parametrize("precision", ["single", "double"])
@pytest.mark.parametrize("conventions", ["standard", "cryolike"])
@pytest.mark.parametrize(
    "kind",
    [
        "optimal_pose",
        "optimal_displacement_and_rotation",
        "optimal_displacement",
        "optimal_rotation",
        "cross_correlation_complete",
    ],
)
def test_everything_compared(build, kind, conventions, precision):
    images, templates = build.stacks(5, 6, n_pixels=16, n_inplanes=24, search=(2.0, 3, 2))
    options = {"conventions": conventions, "precision": precision}

    def compute(device):
        lazy = getattr(interface, f"compute_{kind}")(images, templates, device=device, **options)
        return lazy.compute(scheduler="sync")

    assert_same(compute, precision)


def rows_and_comparison(images, templates, device, precision="single", **changes):
    settings = Settings(device=device, precision=precision)
    graph = ComparisonGraph(images, templates, settings)
    comparison = replace(
        graph.comparison, conventions=replace(graph.comparison.conventions, **changes)
    )
    rows = image_rows(images, settings.rules, graph.group_of_image)
    return rows, template_rows(templates, settings.rules), comparison


def places_of_all_kinds(build, wide):
    """Of eight images: one place, several that overlap or lie at the end; anywhere, at the end of
    the search, and compared with everything."""
    places = no_places(8)
    places[:5, 0] = build.rng.uniform(-1, 1, (5, 2))
    places[2:5, 1:3] = build.rng.uniform(-wide, wide, (3, 2, 2))
    places[6, 1] = np.inf
    places[7, 1] = -np.inf
    return places


def in_windows(build, function, precision="single", arcs=None, **changes):
    """A function of the device: what a block of windows gives, under conventions that are
    changed."""
    images, templates = build.stacks(8, 6, n_pixels=16, n_inplanes=24, search=(2.0, 5, 5))
    step = templates.displacements.steps[0]
    x = np.arange(-2, 3) * step / 2
    window = Window(x, x, templates.displacements, (step / 2, step / 2), finer=4, sigma=2 * step)
    places = places_of_all_kinds(build, 4 * step)
    wanted = build.rng.integers(0, 8, (8, 6)).astype(np.uint32)
    wanted[5:] = np.iinfo(np.uint32).max
    templates = replace(templates, displacements=window.displacements)
    more = {} if arcs is None else {"arcs": arcs}

    def compute(device):
        *rows, comparison = rows_and_comparison(images, templates, device, precision, **changes)
        basis = blocks.radial_basis_of(comparison)
        return function(*rows, wanted, places, basis, comparison=comparison, window=window, **more)

    return compute


@pytest.mark.parametrize("precision", ["single", "double"])
@pytest.mark.parametrize("function", [best_of_pairs_in_windows, optimal_poses_and_pairs])
def test_windows(build, function, precision):
    assert_same(in_windows(build, function, precision), precision)


def test_windows_a_few_points_at_a_time(build, monkeypatch):
    expected = in_windows(build, optimal_poses_and_pairs, "double")("cpu")
    monkeypatch.setattr(tile, "POINTS_AT_A_TIME", 1000)
    monkeypatch.setattr(
        "cryolike_dask.likelihoods.tiles.PIECE_BYTES", {"cpu": 2**15, "cuda": 2**15}
    )
    build.rng = np.random.default_rng(3)
    with pretended_gpu():
        found = in_windows(build, optimal_poses_and_pairs, "double")("cuda")
    for one, other in zip(found, expected, strict=True):
        assert_close(fields_of(one), fields_of(other), "double")


def test_arcs_of_rotations_with_a_prior(build):
    terms = build.rng.uniform(-1, 1, (8, 6, 3)) * [1, 1, 0.3]
    arcs = Arcs(terms, 3.0, build.rng.uniform(-1, 0, (8, 6)))
    assert_same(in_windows(build, optimal_poses_and_pairs, arcs=arcs))


@pytest.mark.parametrize("function", [best_of_pairs_in_windows, optimal_poses_and_pairs])
def test_pairs_of_windows_that_are_compared_directly(build, function):
    assert_same(in_windows(build, function, recomputes_offset_above=0.0))


@pytest.mark.parametrize("function", [blocks.best_of_pairs, blocks.optimal_poses])
def test_pairs_that_are_compared_directly(build, function):
    images, templates = build.stacks(3, 4, n_pixels=16, n_inplanes=24, search=(2.0, 3, 2))

    def compute(device):
        *rows, comparison = rows_and_comparison(
            images, templates, device, recomputes_offset_above=0.0
        )
        return function(*rows, blocks.radial_basis_of(comparison), comparison=comparison)

    assert_same(compute)


def searched(images, templates, precision="single", **options):
    """A function of the device: best poses, to the end."""
    return lambda device: compute_optimal_pose(
        images, templates, device=device, precision=precision, **options
    ).compute(scheduler="sync")


WIDE = ImageParameters(64, 1.5, n_inplanes=64, viewing_distance=0.4, precision="single")


@pytest.mark.parametrize("precision", ["single", "double"])
def test_coarse_to_fine_with_posteriors(precision):
    images, templates, *_ = particles(np.random.default_rng(5), WIDE, 3, 0.1)
    templates = configure_displacement(2, 9, 9)(templates)
    options = {"search": "adaptive", "pose_posteriors": True}
    assert_same(searched(images, templates, precision, **options), precision)


@pytest.mark.parametrize("precision", ["single", "double"])
def test_posteriors_of_everything(build, precision):
    images, templates = build.stacks(4, 6, n_pixels=12, n_inplanes=20, search=(1.5, 3, 3))
    assert_same(searched(images, templates, precision, pose_posteriors=True), precision)


ATOMS = Atoms(two_lobes(20), np.full(48, 62.0), np.full(48, 2.0))
NARROW = ImageParameters(24, 3.0, n_inplanes=48, viewing_distance=0.5, precision="single")


@pytest.mark.parametrize("precision", ["single", "double"])
@pytest.mark.parametrize(
    "around",
    [
        Around(60, 1, check=True),
        Around(60, 1, check=False, prior="gaussian", refine=True),
        Around(0, 0, check=False, refine=True),
        Around(180, 5, check=False),
    ],
    ids=["flat", "gaussian", "recorded", "all"],
)
def test_recorded_poses(build, around, precision, monkeypatch):
    monkeypatch.setattr("cryolike_dask.likelihoods.search.known_rows.LARGEST_MEDIAN", 180.0)
    images, templates = build.stacks(5, 6, n_pixels=16, n_inplanes=24, search=(2.0, 5, 5))
    images = with_poses(build, images, 0.5)
    assert_same(searched(images, templates, precision, search=around), precision)


def test_views_are_refined(build):
    images, *_ = particles(build.rng, NARROW, 3, 0.2)
    images = with_poses(build, images, 3.0)
    templates = configure_displacement(2, 5, 5)(open_structure(ATOMS, NARROW))
    refined = searched(images, templates, search=Around(20, 1, check=False, refine=True))
    # of templates that are made there what is left out, mostly rounding, is not the same
    assert_same(lambda device: refined(device).drop_vars("correlation_error_bound"))


def test_poses_are_drawn(build):
    images, templates = build.stacks(3, 4, n_pixels=16, n_inplanes=24, search=(2.0, 3, 3))
    pairs = np.array([[0, 2], [1, -1], [3, 0]])
    drawn = build.rng.uniform(0, 1, (3, 2))

    def compute(device):
        rows, _, comparison = rows_and_comparison(images, templates, device)
        return explained_by_pairs(rows, pairs, np.full((3, 2), 1.0), drawn, comparison=comparison)

    assert_same(compute)


def test_structures_are_chosen(build):
    images, templates = build.stacks(3, 4, n_pixels=16, n_inplanes=24, search=(2.0, 3, 3))

    def compute(device):
        *rows, comparison = rows_and_comparison(images, templates, device)
        poses = blocks.optimal_poses(*rows, comparison=comparison)[:, 0]
        best = choose_structures(rows[0], [poses, poses], [comparison] * 2)
        return best.log_likelihood, best.power, best.mask, best.mask_power

    assert_same(compute)


# What all of this relies on


@pytest.mark.parametrize("method", ["log_prior", "shares", "inside"])
def test_tensors_of_another_device_are_refused(build, monkeypatch, method):
    """One that was left on the CPU in the middle of a block."""
    real = getattr(Windows, method)

    def left(*args):
        values = real(*args)
        return None if values is None else values.cpu()

    monkeypatch.setattr(Windows, method, left)
    arcs = Arcs(build.rng.uniform(-1, 1, (8, 6, 3)) * [1, 1, 0.3], 3.0, np.zeros((8, 6)))
    compute = in_windows(build, optimal_poses_and_pairs, arcs=arcs)
    compute("cpu")
    with pretended_gpu(), pytest.raises(RuntimeError, match=r"(tile|windows)\.py.* not all on"):
        compute("cuda")
    assert not torch.cuda.is_available()


def test_what_a_gpu_refuses():
    here = torch.arange(4.0)
    with pretended_gpu() as gpu:
        there = here.to("cuda")
        assert there.device == torch.device("cuda", 0)
        assert there.device == torch.zeros(3, device="cuda").device == (there + 1)[1:].device
        assert not there.is_cpu
        for mix in (
            lambda: there + here,
            lambda: torch.cat([there, here]),
            lambda: here[there.long()],
            lambda: there.index_add_(0, torch.tensor([0]), there[:1]),
            lambda: torch.add(here, 1, out=there),
        ):
            with pytest.raises(RuntimeError, match="same device"):
                mix()
        for read in (lambda: there.numpy(), lambda: np.asarray(there)):
            with pytest.raises(TypeError, match="no array"):
                read()
        assert not gpu.waits.total()
        there.cpu().zero_()
        assert float(there[3]) == 3, "a copy is a copy"
        assert len(there[there > 1]) == 2
        assert there.nonzero().device == there.device
        assert gpu.waits.total() == 4
        here.zero_()
        assert float(there.sum()) == 6


MOST_WAITS = 6
"""Of a tile of windows, beside those of the images and templates that it reads."""


def test_a_tile_waits_as_often_for_many_pairs_as_for_few(build):
    """The GPU has nothing to do each time; a loop over pairs would wait for each."""
    images, templates = build.stacks(16, 6, n_pixels=16, n_inplanes=24, search=(2.0, 5, 5))
    step = templates.displacements.steps[0]
    window = Window.of((step, step), (step / 2, step / 2), templates.displacements, finer=4)
    templates = replace(templates, displacements=window.displacements)

    def waits(n_images, tile):
        places = no_places(n_images)
        places[:, 0] = 0.1
        wanted = np.ones((n_images, 6), np.uint32)
        with pretended_gpu() as gpu:
            *rows, comparison = rows_and_comparison(images[:n_images], templates, "cuda")
            comparison = replace(comparison, n_images_per_tile=tile)
            optimal_poses_and_pairs(*rows, wanted, places, comparison=comparison, window=window)
        return sum(n for where, n in gpu.waits.items() if "reading" not in where)

    of_few, of_many, of_two_tiles = waits(4, 16), waits(16, 16), waits(16, 8)
    print(of_few, of_many, of_two_tiles)
    assert of_few == of_many < of_two_tiles <= of_many + MOST_WAITS


@pytest.fixture
def broken_triton(monkeypatch):
    """As where it is installed, and there is no C compiler that it needs."""

    def summarise(*args, **options):
        raise RuntimeError("Failed to find C compiler")

    fake = ModuleType("fused_cuda")
    fake.TileTerms, fake.summarise_fused = lambda *terms: terms, summarise
    monkeypatch.setitem(sys.modules, "cryolike_dask.likelihoods.kernels.fused_cuda", fake)
    of_norms = ModuleType("norms_cuda")
    of_norms.norms_in_one_kernel = norms.norms_by_torch
    monkeypatch.setitem(sys.modules, "cryolike_dask.likelihoods.kernels.norms_cuda", of_norms)
    monkeypatch.setattr(with_triton, "find_spec", lambda name: name)
    monkeypatch.setattr(with_triton, "_failed", [])
    return fake


def test_where_triton_does_not_work_torch_sums_and_it_is_said_once(build, broken_triton, caplog):
    images, templates = build.stacks(5, 6, n_pixels=16, n_inplanes=24, search=(2.0, 3, 2))
    assert_same(
        lambda device: compute_optimal_pose(
            images, templates, device=device, precision="single"
        ).compute(scheduler="sync")
    )
    told = [record.message for record in caplog.records if "Triton" in record.message]
    assert len(told) == 1
    assert "Failed to find C compiler" in told[0]


def test_memory_that_does_not_suffice_is_no_fault_of_triton(build, broken_triton):
    def summarise(*args, **options):
        raise RuntimeError("Triton Error [CUDA]: out of memory")

    broken_triton.summarise_fused = summarise
    images, templates = build.stacks(5, 6, n_pixels=16, n_inplanes=24, search=(2.0, 3, 2))
    lazy = compute_optimal_pose(images, templates, device="cuda", precision="single")
    with pretended_gpu(), pytest.raises(CannotFitError, match="Triton Error"):
        lazy.compute(scheduler="sync")
    assert with_triton.is_usable()


def test_posteriors_add_up_in_the_same_way_on_both():
    rng = np.random.default_rng(0)
    index = torch.from_numpy(rng.integers(0, 50, 1000))
    values = torch.from_numpy(rng.random(1000))
    expected = np.bincount(index.numpy(), values.numpy(), 50)
    on_cpu = torch.zeros(50, dtype=torch.float64)
    add_at(on_cpu, index, values)
    np.testing.assert_allclose(on_cpu.numpy(), expected, rtol=1e-12)
    with pretended_gpu():
        there = torch.zeros(50, dtype=torch.float64).to("cuda")
        add_at(there, index.to("cuda"), values.to("cuda"))
        np.testing.assert_allclose(there.cpu().numpy(), expected, rtol=1e-12)
