"""The envelope of images, that metadata may not know of: a B-factor for each optics group, fitted
to some of its images.

What is maximised is the likelihood of a sample of images, integrated over all poses, without its
factor A^(-1/2) (`BestOfStructures.half_log_variance`). At best poses alone B would come out too
small: a pose is chosen for what noise and template have in common, which grows with the detail of
the template. Measured at a signal to noise ratio of 0.05, 128 images of B = 200: 28 to 44 +- 17 at
best poses, 207 +- 28 integrated.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import dask
import numpy as np
from distributed import Client
from numpy.typing import NDArray

from cryolike_dask.compute.device import count_workers
from cryolike_dask.compute.progress import watch_comparisons
from cryolike_dask.compute.stream import computed, task
from cryolike_dask.errors import InputError, counted
from cryolike_dask.geometry.noise import MICROGRAPH, OPTICS_GROUP, NoiseModel
from cryolike_dask.io.sources import evenly_spread
from cryolike_dask.io.stacks import filled_groups
from cryolike_dask.likelihoods.blocks import best_of_structures
from cryolike_dask.likelihoods.envelope import BestOfStructures
from cryolike_dask.likelihoods.graph import ComparisonGraph, image_rows, spread_templates
from cryolike_dask.likelihoods.interface import integrated_likelihoods
from cryolike_dask.likelihoods.pose_graph import pose_records
from cryolike_dask.likelihoods.settings import Settings
from cryolike_dask.runs.b_factor import BFactor, Climb
from cryolike_dask.runs.joining import joined
from cryolike_dask.stacks import ImageStack, TemplateStack, one_or_several

logger = logging.getLogger("cryolike_dask")

MOST_IMAGES, MOST_STACKS, MOST_STRUCTURES = 256, 8, 8
"""Images of an optics group, stacks that they are taken from, and structures that they are compared
with."""
PART_OF_IMAGES, FEWEST_IMAGES = 1 / 8, 64
"""Of a group, but of small ones more: each is compared some five times, which should not take as
long as the run."""
CLIMBED = 6
"""B-factors at which likelihoods are computed, as a rule."""
IMAGES_OF_PIECE = 512
"""Images that are compared in one graph: what belongs to templates is made once for all of them."""
POSES, STRUCTURES, LIKELIHOODS = "envelope-poses", "envelope-structures", "envelope-likelihoods"
"""Names of tasks."""

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class _Piece:
    """Some images, of any stacks.

    Attributes
    ----------
    images : ImageStack
    unit : (image,) int64
        The optics group that each is fitted with.
    """

    images: ImageStack
    unit: Indices


def fit_b_factors(
    images: ImageStack | Sequence[ImageStack],
    templates: TemplateStack | Sequence[TemplateStack],
    noise: NoiseModel,
    settings: Settings | None = None,
    *,
    client: Client | None = None,
    progress: bool = False,
) -> tuple[BFactor, ...]:
    """Fit a B-factor to the images of each optics group.

    Parameters
    ----------
    images : ImageStack or several
        An eighth of an optics group is taken, but at least 64 and at most 256, spread evenly over
        those of 8 stacks.
    templates : TemplateStack or several
        Structures, with their displacements; 8 are taken, spread over those that are given. Each
        image is compared with all of them once, and from then on with the one it is likeliest of.
    noise : NoiseModel
        Its B-factors are not used: those that are found replace them.
    settings : Settings, optional
        Device, tolerance and degrees of freedom. Computed in single precision.
    client : distributed.Client, optional
        Default: the threaded scheduler.
    progress : bool
        Show a bar on a terminal or in a notebook, elsewhere a line of the log now and then.

    Returns
    -------
    tuple of BFactor
        Of each group of the noise model, to be added to what the metadata of its images say. Groups
        of micrographs have that of their optics group. What a coarse search blurs is part of it.

    Raises
    ------
    InputError, GridMismatchError
        If there are no images or templates, the settings know no envelope or have one already, or
        the noise model is for other images.
    """
    stacks = one_or_several(images, ImageStack)
    structures = one_or_several(templates, TemplateStack)
    settings = settings or Settings()
    if not stacks or not structures:
        raise InputError("no images, or no templates, to fit a B-factor to")
    if settings.b_factor:
        raise InputError(
            f"b_factor={settings.b_factor:g} is given, and to be fitted too",
            remedy="Leave it out.",
        )
    settings = Settings(
        settings.conventions,
        settings.device,
        "single",
        settings.tolerance,
        replace(
            noise,
            b_factor_angstrom2=np.zeros(len(noise)),
            b_factor_error=np.full(len(noise), np.nan),
        ),
        degrees_of_freedom=settings.degrees_of_freedom,
    )
    group_of_image = [noise.find(stack.groups, len(stack)) for stack in stacks]
    units, names = _units(noise, stacks, group_of_image)
    pieces = _drawn(stacks, [units[groups] for groups in group_of_image])
    structures = [structures[i] for i in evenly_spread(len(structures), MOST_STRUCTURES)]
    n_images = sum(len(piece.images) for piece in pieces)
    logger.info(
        "fitting the envelope of %s, with %s",
        counted(n_images, "image"),
        counted(len(structures), "structure"),
    )
    total = n_images * (len(structures) + CLIMBED)
    with watch_comparisons(client, total, "comparisons for the envelope", shown=progress):
        found = _climb(_Sample(pieces, structures, settings, client))
    for unit, b in found.items():
        error = "" if math.isnan(b.error) else f" +- {b.error:.0f}"
        logger.info(
            "envelope of %s: B = %.0f%s angstrom^2, %s",
            names[unit],
            b.b_factor_angstrom2,
            error,
            b.reason,
        )
    none = BFactor(0.0, math.nan, "not fitted: no images", 0)
    return tuple(found.get(int(unit), none) for unit in units)


@dataclass(frozen=True)
class _Sample:
    """Images and structures that are compared under one B-factor after the other.

    Attributes
    ----------
    pieces : sequence of _Piece
    structures : sequence of TemplateStack
    settings : Settings
        Without an envelope.
    client : Client or None
    """

    pieces: Sequence[_Piece]
    structures: Sequence[TemplateStack]
    settings: Settings
    client: Client | None

    def first_look(self) -> list[BestOfStructures]:
        """Compare all images with all structures, without an envelope; by piece."""
        n_parts = self._parts_of_templates(len(self.pieces) * len(self.structures))
        return computed([self._best_of(piece, n_parts) for piece in self.pieces], self.client)

    def likelihoods(
        self, wanted: Mapping[int, Sequence[float]], first: Sequence[BestOfStructures]
    ) -> dict[int, dict[float, NDArray[np.float64]]]:
        """Integrated log-likelihoods of images, without A^(-1/2), each with its structure; by
        optics group, under some B-factors of each."""
        all_b = np.unique(np.concatenate(list(wanted.values())))
        parts = list(self._parts(first, wanted))
        n_parts = self._parts_of_templates(len(parts))
        graphs = []
        for i, s, rows, b in parts:
            images = _under(self.pieces[i].images[rows], b)
            templates = _spread(images, self.structures[s], n_parts)
            graph = ComparisonGraph(images, templates, self.settings)
            graphs.append(integrated_likelihoods(graph, LIKELIHOODS))
        values = [np.full((len(all_b), len(piece.unit)), np.nan) for piece in self.pieces]
        for (i, _, rows, b), found in zip(parts, computed(graphs, self.client), strict=True):
            values[i][np.searchsorted(all_b, b), rows] = np.logaddexp.reduce(found, axis=1)
        columns = {float(b): k for k, b in enumerate(all_b)}
        return {
            unit: {b: self.of_unit(unit, b, [v[columns[b]] for v in values], first) for b in of}
            for unit, of in wanted.items()
        }

    def of_unit(
        self,
        unit: int,
        b_factor: float,
        values: Sequence[NDArray[np.float64]],
        first: Sequence[BestOfStructures],
    ) -> NDArray[np.float64]:
        """Likelihoods of one optics group, without A^(-1/2)."""
        frequencies = self.pieces[0].images.grid.spatial_frequencies
        return np.concatenate(
            [
                (value + best.half_log_variance(b_factor, frequencies))[piece.unit == unit]
                for value, best, piece in zip(values, first, self.pieces, strict=True)
            ]
        )

    def _best_of(self, piece: _Piece, n_parts: int) -> Any:
        graphs = [
            ComparisonGraph(piece.images, _spread(piece.images, t, n_parts), self.settings)
            for t in self.structures
        ]
        comparisons = [graph.comparison for graph in graphs]
        rows = image_rows(piece.images, self.settings.rules, graphs[0].group_of_image)
        poses = [dask.delayed(pose_records(graph, POSES)) for graph in graphs]
        return task(STRUCTURES, best_of_structures, rows, poses, comparisons)

    def _parts(
        self, first: Sequence[BestOfStructures], wanted: Mapping[int, Sequence[float]]
    ) -> Iterator[tuple[int, int, Indices, NDArray[np.float64]]]:
        """Some optics groups by piece and structure: rows of images, each as often as there are
        B-factors to try, and these."""
        for i, (piece, best) in enumerate(zip(self.pieces, first, strict=True)):
            for s in range(len(self.structures)):
                there = np.flatnonzero((best.structure == s) & np.isin(piece.unit, list(wanted)))
                if len(there):
                    tried = [wanted[unit] for unit in piece.unit[there].tolist()]
                    rows = np.repeat(there, [len(b) for b in tried])
                    yield i, s, rows, np.concatenate(tried)

    def _parts_of_templates(self, n_graphs: int) -> int:
        """Tasks that each graph is to be cut into, so that all workers have something to do."""
        return -(-count_workers(self.client) // n_graphs)


def _under(images: ImageStack, b_factor: NDArray[np.float64]) -> ImageStack:
    """The same images with an envelope of each added to what metadata say."""
    optics = images.optics.copy()
    optics["b_factor_angstrom2"] += b_factor
    return replace(images, optics=optics)


def _spread(images: ImageStack, templates: TemplateStack, n_parts: int) -> TemplateStack:
    return templates if templates.chunks else spread_templates(images, templates, n_parts)


def _climb(sample: _Sample) -> dict[int, BFactor]:
    """Find the B-factor of each optics group that images are of."""
    present = np.unique(np.concatenate([piece.unit for piece in sample.pieces])).tolist()
    first = sample.first_look()
    without = [best.log_likelihood for best in first]
    highest = float(sample.pieces[0].images.grid.spatial_frequencies[-1])
    climbs = {
        unit: Climb(highest, {0.0: sample.of_unit(unit, 0.0, without, first)}) for unit in present
    }
    while wanted := {unit: b for unit, climb in climbs.items() if (b := climb.wanted())}:
        for unit, values in sample.likelihoods(wanted, first).items():
            climbs[unit].known.update(values)
    return {unit: climb.result() for unit, climb in climbs.items()}


def _units(
    noise: NoiseModel, stacks: Sequence[ImageStack], group_of_image: Sequence[Indices]
) -> tuple[Indices, tuple[str, ...]]:
    """Number the optics groups: for each group of the noise model that of most of its images, -1
    where it has none; and their names."""
    numbers: dict[str, int] = {}
    units = np.full(len(noise), -1)
    groups = np.concatenate(group_of_image)
    optics = np.concatenate([filled_groups(stack.groups, len(stack))[:, 1] for stack in stacks])
    pairs, counts = np.unique(np.stack([groups.astype(str), optics], 1), axis=0, return_counts=True)
    for (group, name), _ in sorted(zip(pairs.tolist(), counts.tolist(), strict=True), key=_count):
        g = int(group)
        one_of_many = noise.groups[g].startswith((MICROGRAPH, OPTICS_GROUP))
        unit = OPTICS_GROUP + name if one_of_many else noise.groups[g]
        units[g] = numbers.setdefault(unit, len(numbers))
    return units, tuple(numbers)


def _count(pair: tuple[Any, int]) -> int:
    return pair[1]


def _drawn(stacks: Sequence[ImageStack], unit_of_image: Sequence[Indices]) -> list[_Piece]:
    """Draw images of each optics group, and give them in pieces, whichever stacks they are of."""
    drawn: dict[int, list[Indices]] = {}
    for unit in np.unique(np.concatenate(unit_of_image)):
        within = [i for i, units in enumerate(unit_of_image) if (units == unit).any()]
        chosen = [within[i] for i in evenly_spread(len(within), MOST_STACKS)]
        rows = [np.flatnonzero(unit_of_image[i] == unit) for i in chosen]
        stack = np.repeat(chosen, [len(r) for r in rows])
        row = np.concatenate(rows)
        n_images = sum(int((units == unit).sum()) for units in unit_of_image)
        part = max(FEWEST_IMAGES, round(PART_OF_IMAGES * n_images))
        taken = evenly_spread(len(row), min(part, MOST_IMAGES))
        for i in chosen:
            drawn.setdefault(i, []).append(row[taken[stack[taken] == i]])
    rows_of = {i: np.sort(np.concatenate(rows)) for i, rows in sorted(drawn.items())}
    images = joined([stacks[i][rows] for i, rows in rows_of.items() if len(rows)])
    unit = np.concatenate([unit_of_image[i][rows] for i, rows in rows_of.items()])
    return [
        _Piece(images[start : start + IMAGES_OF_PIECE], unit[start : start + IMAGES_OF_PIECE])
        for start in range(0, len(images), IMAGES_OF_PIECE)
    ]
