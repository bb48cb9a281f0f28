"""How often a block lets its GPU run dry: counted on a pretended one. What compiled kernels do on a
GPU is done by torch here, and counted as one kernel each."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.pretended_gpu import pretended_gpu
from cryolike_dask.errors import InputError, NotFiniteError, ZeroPowerError
from cryolike_dask.io.sources import Files, InMemory
from cryolike_dask.io.tensors import open_tensor, save_tensor
from cryolike_dask.likelihoods import blocks, kept_images
from cryolike_dask.likelihoods.graph import ComparisonGraph, image_rows, template_rows
from cryolike_dask.likelihoods.kernels import compressed, with_triton
from cryolike_dask.likelihoods.kernels.checks import Checks, on_host
from cryolike_dask.likelihoods.kernels.norms import norms_by_torch
from cryolike_dask.likelihoods.kernels.tile import Tile
from cryolike_dask.likelihoods.settings import Settings

MOST_WAITS = 1
"""Of a block, whatever its size."""
MOST_LAUNCHES = 40
"""Of a tile, beside those of preparing its templates, which depend on no image."""
FUNCTIONS = {
    "optimal poses": blocks.optimal_poses,
    "optimal poses and pairs": blocks.optimal_poses_and_pairs,
    "likelihoods": blocks.log_likelihoods_of_pairs,
    "integrated": blocks.integrated_log_likelihoods,
}


@pytest.fixture
def gpu(monkeypatch):
    """One where Triton is."""
    monkeypatch.setattr(with_triton, "find_spec", lambda name: name)
    monkeypatch.setattr(with_triton, "_failed", [])
    with pretended_gpu() as gpu:

        def reduce_on_gpu(tile, reference, to_beat):
            with gpu.one_kernel():
                best, fit, summed, _ = tile.reduce(reference)
                m, s = torch.meshgrid(*map(torch.arange, best.shape), indexing="ij")
                there = [index.flatten().to("cuda") for index in (m, s)]
                return best, fit, summed, tile.locate(*there).view(best.shape)

        def norms_on_gpu(*terms):
            with gpu.one_kernel():
                return norms_by_torch(*terms)

        monkeypatch.setattr(Tile, "_reduce_on_gpu", reduce_on_gpu)
        monkeypatch.setattr(compressed, "norms", norms_on_gpu)
        yield gpu


def stacks_of(build, n_images, n_templates):
    return build.stacks(n_images, n_templates, n_pixels=16, n_inplanes=24, search=(2.0, 3, 2))


def counted(gpu, stacks, tile, function, precision="single", basis=None):
    """What a block of so large tiles gives; the pretended GPU counts."""
    images, templates = stacks
    graph = ComparisonGraph(images, templates, Settings(device="cuda", precision=precision))
    comparison = replace(graph.comparison, n_images_per_tile=tile[0], n_templates_per_tile=tile[1])
    rows = (
        image_rows(images, comparison.conventions, graph.group_of_image),
        template_rows(templates, comparison.conventions),
    )
    basis = basis or blocks.radial_basis_of(comparison)
    for counter in (gpu.waits, gpu.sent, gpu.launches):
        counter.clear()
    return function(*rows, basis, comparison=comparison)


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
@pytest.mark.parametrize("tile", [(12, 8), (4, 3)], ids=str)
def test_a_block_waits_once(build, gpu, function, tile):
    counted(gpu, stacks_of(build, 12, 8), tile, function)
    print(gpu.waits, gpu.sent)
    assert gpu.waits.total() <= MOST_WAITS
    assert not gpu.sent, "what is sent from memory that is not pinned makes the program wait"


def launches_of_a_tile(gpu, build, function):
    """By adding images to a tile, and templates to it, and both, all on one basis."""
    images, templates = stacks_of(build, 8, 6)
    graph = ComparisonGraph(images, templates, Settings(device="cuda", precision="single"))
    basis, n = blocks.radial_basis_of(graph.comparison), {}
    for n_images in (4, 8):
        for n_templates in (3, 6):
            some = np.arange(n_templates)
            fewer = replace(
                templates,
                source=templates.source.subset(some),
                viewing=templates.viewing.take(some),
            )
            stacks = images[:n_images], fewer
            counted(gpu, stacks, (4, 3), function, basis=basis)
            n[n_images, n_templates] = gpu.launches.copy()
    n[8, 6].subtract(n[4, 6])
    n[8, 3].subtract(n[4, 3])
    n[8, 6].subtract(n[8, 3])
    return +n[8, 6]


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_a_tile_starts_few_kernels(build, gpu, function):
    launches = launches_of_a_tile(gpu, build, function)
    print(launches)
    assert 10 < launches.total() <= MOST_LAUNCHES


def test_a_wait_in_the_loop_is_seen(build, gpu, monkeypatch):
    """What the bound is there for: it would be one for each tile."""
    real = Tile.summarise
    monkeypatch.setattr(
        Tile,
        "summarise",
        lambda tile, *given: [real(tile, *given), float(tile.shift[0, 0])][0],
    )
    counted(gpu, stacks_of(build, 12, 8), (4, 3), blocks.optimal_poses)
    assert gpu.waits.total() == MOST_WAITS + 9


def bad(stacks, what, index, value):
    images, templates = stacks
    chosen = images if what == "image" else templates
    values = np.array(chosen.source.values)
    values[index] = value(values[index])
    changed = replace(chosen, source=InMemory(values))
    return (changed, templates) if what == "image" else (images, changed)


@pytest.mark.parametrize("what", ["image", "template"])
@pytest.mark.parametrize(
    ("value", "error", "said"),
    [
        (lambda v: v * np.nan, NotFiniteError, "NaN or infinite"),
        (lambda v: v * 0, ZeroPowerError, "no power"),
        (lambda v: v * 1j, InputError, "not transforms of real images"),
    ],
    ids=["NaN", "zero", "not of a real image"],
)
def test_bad_values_are_refused_as_on_a_cpu(build, gpu, what, value, error, said):
    """At the end of the block; the first of two that are bad, and where it is."""
    stacks = bad(stacks_of(build, 12, 8), what, 6, value)
    messages = []
    for device in ("cuda", "cpu"):
        images, templates = stacks
        graph = ComparisonGraph(images, templates, Settings(device=device, precision="single"))
        comparison = replace(graph.comparison, tolerance=0.0)
        rows = image_rows(images, comparison.conventions, graph.group_of_image)
        with pytest.raises(error, match=said) as raised:
            blocks.optimal_poses(
                rows, template_rows(templates, comparison.conventions), comparison=comparison
            )
        messages.append(str(raised.value))
    assert messages[0] == messages[1]
    assert f"{what}(s) 6" in messages[0]


def test_values_are_checked_where_they_are_read():
    checks, said = Checks(at_once=False), []
    checks.refuse(torch.tensor([False, True]), lambda bad: said.append(bad) or InputError("one"))
    checks.refuse(torch.tensor([True]), lambda bad: InputError("two"))
    with pytest.raises(InputError, match="one"):
        checks.read(torch.zeros(1))
    np.testing.assert_array_equal(said, [[False, True]])
    assert checks.read(torch.ones(2))[0].tolist() == [1, 1], "each is looked at once"
    checks.refuse(torch.tensor([True]), lambda bad: InputError("three"))
    checks.forget()
    checks.read()
    with pytest.raises(InputError, match="four"):
        Checks(at_once=True).refuse(torch.tensor([True]), lambda bad: InputError("four"))


def test_all_types_are_read_in_one_transfer(rng):
    values = [
        torch.from_numpy(v)
        for v in (
            rng.integers(0, 2, (3, 5)).astype(bool),
            rng.standard_normal((2, 7)),
            rng.standard_normal((4, 3)).astype(np.float32)[:, ::2],
            rng.integers(0, 9, 3),
            rng.standard_normal((2, 2)) + 1j,
            np.zeros((0, 4)),
            np.array(2.5, np.float32),
            rng.integers(0, 9, (3, 1)).astype(np.int32).T,
        )
    ]
    with pretended_gpu() as gpu:
        found = on_host([value.to("cuda") for value in values])
        assert gpu.waits.total() == 1
    for one, value in zip(found, values, strict=True):
        assert one.dtype == value.numpy().dtype
        np.testing.assert_array_equal(one, value.numpy())


# Images that stay on the GPU


def test_images_are_read_once_for_all_templates(build, gpu, tmp_path, monkeypatch):
    images, templates = stacks_of(build, 12, 8)
    save_tensor(tmp_path / "images.pt", images.source.values)
    images = replace(images, source=Files((open_tensor(tmp_path / "images.pt"),)))
    read, real = [], Files.take
    monkeypatch.setattr(Files, "take", lambda self, rows: read.append(rows) or real(self, rows))
    first = counted(gpu, (images, templates), (12, 3), blocks.optimal_poses)
    assert len(read) == 1
    again = counted(gpu, (images, templates), (12, 4), blocks.optimal_poses)
    assert len(read) == 1
    np.testing.assert_allclose(first["cross_correlation"], again["cross_correlation"], rtol=1e-5)
    counted(gpu, (images, templates), (6, 4), blocks.optimal_poses)
    assert len(read) == 3, "others are not those"
    kept_images.forget()
    counted(gpu, (images, templates), (12, 4), blocks.optimal_poses)
    assert len(read) == 4
    values = images.source.take(np.arange(12))
    values[5] *= 1j
    save_tensor(tmp_path / "images.pt", values)
    images = replace(images, source=Files((open_tensor(tmp_path / "images.pt"),)))
    for _ in range(2):
        with pytest.raises(InputError, match=r"images\.pt: image\(s\) 5 are not transforms"):
            counted(gpu, (images, templates), (12, 4), blocks.optimal_poses)
