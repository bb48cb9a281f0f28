"""One block, tried where blocks will run: how it is cut, what memory it takes, and how long it
takes on real data."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.compute.device import real_dtype, resolve_device, torch_threads
from cryolike_dask.likelihoods.comparison import Comparison, Rows
from cryolike_dask.likelihoods.reading import taken
from cryolike_dask.likelihoods.setup import find_basis
from cryolike_dask.likelihoods.tiled_block import slices
from cryolike_dask.likelihoods.tiles import (
    Footprint,
    Place,
    first_tile,
    images_at_a_time,
    piece_bytes,
    ranks_of,
)
from cryolike_dask.runs.kinds import Kind

if TYPE_CHECKING:
    from cryolike_dask.likelihoods.kernels.radial_basis import RadialBasis

COMPRESSED = 0.4
"""Part of the coefficients that compression keeps, where no basis has been made yet."""
MOST_READ = 1024
"""Images that are read to time it."""
ENOUGH_SECONDS, LONGEST_SECONDS = 2, 8
"""Comparing for so long tells enough: of a block that takes less all images are compared, three
times; else as many as take so long, with no more templates than take the other."""
LEAST = 0.1
"""Of a block's time, what comparing takes at least, whatever reading was measured to take."""
COPIES_READ, COPIES_OF_PIECES, AT_ONCE = 5, 4, 64
"""Copies of the rows of a tile while they are read and checked; of a piece while it is transformed;
and the images whose likelihood at their best pose is computed together in double precision."""


@dataclass(frozen=True)
class Memory:
    """Bytes that a block takes on its device: `shared` by all its tiles, of its images, its
    templates, and their pairs.

    `least` is that of the smallest tile, one image and one template, and `each` the part of it that
    is proportional to the number of displacements.
    """

    shared: int
    images: int
    templates: int
    pairs: int
    result: int
    least: int
    each: int

    @property
    def total(self) -> int:
        """Bytes of all of it."""
        return self.shared + self.images + self.templates + self.pairs + self.result


@dataclass(frozen=True)
class Trial:
    """The findings about a block.

    Attributes
    ----------
    device : "cpu" | "cuda"
    free_bytes : int
        On the device, before.
    tile : (int, int)
        Images and templates.
    n_images_at_a_time : int
    memory : Memory
    basis_seconds : float
        To make the radial basis.
    read_seconds_per_pair : float
        Of the block's time to read its images and templates, or to project and transform what is
        not in files, the part of one image and one template.
    compare_seconds_per_pair : tuple of float
        To compare them; several turns if they are short.
    gpu : str
        Which GPU it is, with what is known of it; empty: none.
    """

    device: str
    free_bytes: int
    tile: tuple[int, int]
    n_images_at_a_time: int
    memory: Memory
    basis_seconds: float = 0.0
    read_seconds_per_pair: float = 0.0
    compare_seconds_per_pair: tuple[float, ...] = ()
    gpu: str = ""


def try_block(
    comparison: Comparison,
    images: Rows,
    templates: Rows,
    kind: Kind,
    *,
    measure: bool,
    n_threads: int | None,
) -> Trial:
    """Try a block in this process, with so many threads of torch; None: as many as it has."""
    with torch_threads(n_threads):
        place = Place.here(comparison)
        trial, basis = cut_block(comparison, images, templates, kind, place, measure=measure)
        if not measure:
            return trial
        trial = _timed(trial, comparison, images, templates, basis, kind)
        return replace(trial, gpu=_measured(trial, comparison)) if place.device == "cuda" else trial


def _measured(trial: Trial, comparison: Comparison) -> str:
    """The GPU of this process, and how fast it was."""
    import torch

    of_pair = statistics.median(trial.compare_seconds_per_pair)
    rate = len(comparison.displacements) / max(of_pair, 1e-12) / 1e9
    name = torch.cuda.get_device_name()
    return f"{name}: {rate:.2g} G (image, template, displacement) per second, measured"


def cut_block(
    comparison: Comparison,
    images: Rows,
    templates: Rows,
    kind: Kind,
    place: Place,
    *,
    measure: bool,
) -> tuple[Trial, RadialBasis]:
    """Say how a block is cut there, and what memory it takes; with the radial basis, which is made
    here, and timed, if `measure`."""
    started = time.perf_counter()
    basis = find_basis(comparison) if measure else ()
    basis_seconds = time.perf_counter() - started
    ranks = ranks_of(basis, comparison)
    if comparison.tolerance and not basis:
        ranks = (ranks * COMPRESSED).round().astype(np.int64)
    footprint = Footprint.of(comparison, ranks)
    tile = first_tile(len(images), len(templates), comparison, footprint, place)
    at_a_time = images_at_a_time(comparison, footprint, tile, place)
    at_once = min(len(images), at_a_time), len(templates)
    memory = memory_of(comparison, ranks, tile, at_once, kind, place.device)
    return Trial(*place, tile, at_a_time, memory, basis_seconds), basis


def memory_of(
    comparison: Comparison,
    ranks: NDArray[np.int64],
    tile: tuple[int, int],
    at_once: tuple[int, int],
    kind: Kind,
    device: str,
) -> Memory:
    """Count what a block holds that compares so many images and templates, `at_once`, tile by
    tile."""
    footprint = Footprint.of(comparison, ranks)
    n_shells, n_inplanes = comparison.grid.shape
    item, n_displacements = real_dtype(comparison.precision).itemsize, len(comparison.displacements)
    row, per_pair = 2 * item * n_shells * n_inplanes, item * n_inplanes * n_displacements
    translation = item * n_inplanes * n_shells * n_displacements
    exact = AT_ONCE * 16 * n_shells * n_inplanes * COPIES_READ
    whole = kind.keeps_every_pose
    shared = (
        translation
        + 2 * item * n_shells * int(ranks.sum())
        + COPIES_OF_PIECES * piece_bytes(device)
    )
    of_template = footprint.template + COPIES_READ * row
    return Memory(
        shared=shared + (0 if whole else exact),
        images=at_once[0] * footprint.image + tile[0] * COPIES_READ * row,
        templates=tile[1] * of_template,
        pairs=tile[0] * tile[1] * footprint.pair,
        result=at_once[0] * at_once[1] * per_pair if whole else 0,
        least=shared + footprint.image + of_template + footprint.pair,
        each=translation + footprint.template + footprint.pair,
    )


def _timed(
    trial: Trial,
    comparison: Comparison,
    images: Rows,
    templates: Rows,
    basis: RadialBasis,
    kind: Kind,
) -> Trial:
    """Read, warm up, and compare as many images of the block as take long enough."""

    def compare(n_images: int, n_templates: int) -> float:
        started = time.perf_counter()
        kind.block(images[:n_images], templates[:n_templates], basis, comparison=comparison)
        return time.perf_counter() - started

    n_images, n_templates = min(trial.tile[0], len(images)), min(trial.tile[1], len(templates))
    compare(n_images, n_templates)  # compiles, and gets memory from the system
    of_tile = max(compare(n_images, n_templates), 1e-6)
    whole = len(templates)
    n_templates = min(whole, max(n_templates, int(LONGEST_SECONDS / of_tile * n_templates)))
    some = templates[:n_templates]
    first, other = (reading_seconds(trial, comparison, images, some) for _ in range(2))
    again = tuple(map(min, first, other))  # what else runs here may have made one of them longer
    seconds = [compare(n_images, n_templates)]
    # what a block takes once would weigh too much
    while n_images < len(images) and seconds[0] < ENOUGH_SECONDS:
        n_images = min(len(images), 4 * n_images)
        seconds = [compare(n_images, n_templates)]
    while len(seconds) < 3 and seconds[0] < ENOUGH_SECONDS:
        seconds.append(compare(n_images, n_templates))
    compared = (max(s * LEAST, s - n_images * again[0] - again[1]) / n_images for s in seconds)
    return replace(
        trial,
        read_seconds_per_pair=per_pair(
            (first[0], first[1] * whole / n_templates), images, templates
        ),
        compare_seconds_per_pair=tuple(s / n_templates for s in compared),
    )


def reading_seconds(
    trial: Trial, comparison: Comparison, images: Rows, templates: Rows
) -> tuple[float, float]:
    """What reading an image takes, and all templates."""
    some = images[:MOST_READ]
    of_images = _read_seconds(comparison, "images", some, trial.tile[0])
    return of_images / len(some), _read_seconds(comparison, "templates", templates, trial.tile[1])


def per_pair(reading: tuple[float, float], images: Rows, templates: Rows) -> float:
    """The part of one image and one template of what `reading_seconds` says."""
    of_image, of_templates = reading
    return (of_image + of_templates / len(images)) / len(templates)


def _read_seconds(comparison: Comparison, name: str, rows: Rows, n_at_a_time: int) -> float:
    """Take images or templates as a block does, and drop them."""
    source, device = getattr(comparison, name), resolve_device(comparison.device)
    started = time.perf_counter()
    for part in slices(0, len(rows), n_at_a_time):
        values, _ = taken(rows["index"][part], source, comparison.precision, device)
    values.abs().sum().item()  # a GPU is done by then
    return time.perf_counter() - started
