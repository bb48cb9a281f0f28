"""A block on a GPU that is not at hand: how it would be cut, what memory it would take, and how
long, by stated rates."""

from __future__ import annotations

from dataclasses import replace

from cryolike_dask.compute.gpu_rates import GpuRates
from cryolike_dask.likelihoods.comparison import Comparison, Rows
from cryolike_dask.likelihoods.tiles import Place, ranks_of
from cryolike_dask.runs.kinds import Kind
from cryolike_dask.runs.roofline import stages_on
from cryolike_dask.runs.trial import Trial, cut_block, per_pair, reading_seconds

FREE = 0.92
"""Part of a GPU's memory that a process finds free: the driver and CUDA's context take the rest."""
FASTER, SLOWER = 1.5, 2.0
"""By how much a GPU may be faster, or slower, than is estimated, as long as none has been tried."""


def try_on_paper(
    comparison: Comparison,
    images: Rows,
    templates: Rows,
    kind: Kind,
    gpu: GpuRates,
    *,
    measure: bool,
) -> Trial:
    """Say what a block would take there. Reading its rows, and making its radial basis, are timed
    here if `measure`, on this processor."""
    place = Place("cuda", int(FREE * gpu.memory_gb * 1e9))
    # whatever is here makes the basis
    comparison = replace(comparison, device="auto")
    trial, basis = cut_block(comparison, images, templates, kind, place, measure=measure)
    trial = replace(trial, gpu=str(gpu))
    if not measure:
        return trial
    n_coefficients = int(ranks_of(basis, comparison).sum())
    stages = stages_on(gpu, comparison.grid.shape, n_coefficients, trial.n_images_at_a_time)
    rate, of_pair = 1 / stages.seconds / 1e9, stages.seconds * len(comparison.displacements)
    return replace(
        trial,
        read_seconds_per_pair=per_pair(
            reading_seconds(trial, comparison, images, templates), images, templates
        ),
        compare_seconds_per_pair=(of_pair / FASTER, of_pair, of_pair * SLOWER),
        gpu=f"{gpu}: about {rate:.2g} G (image, template, displacement) per second, an estimate",
    )
