"""Sizes: how a task cuts its work into tiles that its memory and its caches hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.compute.device import free_memory, real_dtype, resolve_device
from cryolike_dask.errors import CannotFitError
from cryolike_dask.likelihoods.comparison import Comparison

if TYPE_CHECKING:
    from cryolike_dask.likelihoods.kernels.radial_basis import RadialBasis


COLUMNS_PER_PRODUCT = {"cpu": 1024, "cuda": 2048}
"""(template, displacement) pairs that are worth a product of matrices: templates are taken
together up to so many."""
TILE_BYTES = {"cpu": 2**25, "cuda": 2**31}
"""Bytes of a tile's products. On a CPU they stay in the outer cache; measured: four times as much
is a fifth slower."""
PIECE_BYTES = {"cpu": 2**22, "cuda": 2**28}
"""Bytes of the correlation that is transformed and reduced at a time; on a CPU about the cache of a
core."""
MOST_TILE_BYTES = {"cpu": 2**29, "cuda": 2**31}
"""Most bytes of a tile's products, whatever batch sizes are asked for."""
IMAGES_BYTES = 2**30
"""Bytes of the spectra of images that a task holds; more images take turns, and templates are
prepared anew for each turn."""
MEMORY_FRACTION = 0.125
"""Part of the free memory for each of a tile's products, its templates, and the images."""
OF_LESS_MEMORY = "Use fewer displacements, a lower resolution factor, or a device with more memory."

MANY_DISPLACEMENTS = 32
COLUMNS_OF_SECTOR = 8
"""On a GPU templates of many displacements have a multiple of columns, so that loads begin with
whole sectors of memory: a fused kernel then takes a fifth less instructions, and 264 columns in
place of 257 are a fortieth more work before it."""

TERMS_BYTES = 128
"""Bytes that a tile holds of a pair beside its products, for each angle of half a turn, about:
norms and heights in double precision, and what they are made of."""


class Place(NamedTuple):
    """A device, "cpu" or "cuda", and the bytes that are free there."""

    device: str
    free_bytes: int

    @classmethod
    def here(cls, comparison: Comparison) -> Place:
        """The device of this process that a comparison is for."""
        device = resolve_device(comparison.device).type
        return cls(device, free_memory(device))


@dataclass(frozen=True)
class Footprint:
    """Bytes that a comparison takes: terms of one image, terms of one template, products of both,
    and their other terms; at most, as compiled loops compress a few displaced templates at a
    time."""

    image: int
    template: int
    pair: int
    terms: int

    @classmethod
    def of(cls, comparison: Comparison, ranks: NDArray[np.int64]) -> Footprint:
        """Count what the kernel holds for these ranks at each angular frequency."""
        n_shells, n_inplanes = comparison.grid.shape
        item = real_dtype(comparison.precision).itemsize
        n_displacements = columns_of_template(
            len(comparison.displacements), resolve_device(comparison.device).type
        )
        operand, half = _bytes_of_operands(comparison, ranks), n_inplanes // 2
        return cls(
            image=2 * operand + item * (n_shells * half + 2 * n_shells * (half // 2 + 1)),
            template=operand * n_displacements
            + item
            * (
                2 * n_shells * (half + 1) * n_displacements  # before they are compressed
                + n_shells * half
                + 2 * n_shells * (half // 2 + 1)
            ),
            pair=item * 2 * (half + 1) * n_displacements,
            terms=TERMS_BYTES * half,
        )


def columns_of_template(n_displacements: int, device: str) -> int:
    """Columns of products that a template takes: one for each displacement, and on a GPU some that
    repeat the last."""
    if device == "cpu" or n_displacements < MANY_DISPLACEMENTS:
        return n_displacements
    return -(-n_displacements // COLUMNS_OF_SECTOR) * COLUMNS_OF_SECTOR


def _bytes_of_operands(comparison: Comparison, ranks: NDArray[np.int64]) -> int:
    """A row of all products of matrices over real and imaginary parts of so many coefficients."""
    from cryolike_dask.likelihoods.kernels.split import way_on
    from cryolike_dask.likelihoods.reading import torch_real

    dtype = torch_real(comparison.precision)
    way = way_on(resolve_device(comparison.device), dtype)
    return sum(way.bytes_of(2 * rank, dtype) for rank in ranks.tolist())


def ranks_of(basis: RadialBasis, comparison: Comparison) -> NDArray[np.int64]:
    """Coefficients that are kept at each angular frequency; without a basis, all shells."""
    n_shells, n_inplanes = comparison.grid.shape
    return np.concatenate(
        [np.full(len(g), g.shape[1]) for g in basis] or [np.full(n_inplanes // 2 + 1, n_shells)]
    )


def piece_bytes(device: str) -> int:
    """Bytes that are transformed and reduced at a time: on a CPU every thread of torch has a cache
    of its own."""
    import torch

    return PIECE_BYTES[device] * (torch.get_num_threads() if device == "cpu" else 1)


def smaller_tile(tile: tuple[int, int], reason: str) -> tuple[int, int]:
    """Halve the larger side of an (images, templates) tile that did not fit.

    Raises
    ------
    CannotFitError
        If it is one image and one template already.
    """
    n_images, n_templates = tile
    if n_images == n_templates == 1:
        raise CannotFitError(
            f"one image and one template do not fit into the memory of the device ({reason})",
            remedy=OF_LESS_MEMORY,
        )
    return (
        ((n_images + 1) // 2, n_templates)
        if n_images >= n_templates
        else (n_images, (n_templates + 1) // 2)
    )


def first_tile(
    n_images: int,
    n_templates: int,
    comparison: Comparison,
    footprint: Footprint,
    place: Place | None = None,
) -> tuple[int, int]:
    """Choose the (images, templates) of a tile: as asked, as far as memory allows, or what the
    device does best; by default that of this process."""
    device, free = place or Place.here(comparison)
    limit = min(MOST_TILE_BYTES[device], int(free * MEMORY_FRACTION))
    asked_images = asked_templates = None
    if not comparison.discover_tiles:
        asked_images = comparison.n_images_per_tile
        asked_templates = comparison.n_templates_per_tile
    of_pair = footprint.pair + footprint.terms
    together = max(1, COLUMNS_PER_PRODUCT[device] // len(comparison.displacements))
    templates = min(
        asked_templates or together,
        n_templates,
        max(1, limit // (of_pair + footprint.template)),
    )
    images = asked_images or max(8, min(limit, TILE_BYTES[device]) // (footprint.pair * templates))
    images = max(1, min(images, n_images, limit // (of_pair * templates)))
    # tiles of one size: what is left over for a last one would be dear
    return int(images if asked_images else -(-n_images // -(-n_images // images))), int(templates)


def images_at_a_time(
    comparison: Comparison,
    footprint: Footprint,
    tile: tuple[int, int],
    place: Place | None = None,
) -> int:
    """Number of images whose terms a task holds, in whole tiles."""
    _, free = place or Place.here(comparison)
    budget = min(IMAGES_BYTES, int(free * MEMORY_FRACTION))
    return max(1, budget // (footprint.image * tile[0])) * tile[0]
