"""From products of spectra to the best pose and the likelihood on a GPU: shapes of blocks, and what
the kernel (`pairs_cuda`) is given.

As compiled by Triton 3.9, at W = 256 a program takes 251 registers on sm_90 and 72 KB of shared
memory, so that two are on a multiprocessor; on sm_80 two, on sm_86 one. None leaves a register in
memory up to W = 1024, but for a few where displacements are few
(`tests/likelihoods/test_compiled_ahead.py` compiles them). Where nothing is summed a pose takes
half an instruction of a warp. Triton 3.3 is the first that can compile it; by 3.6 five and twelve
words are left in memory on sm_80 and sm_86.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from cryolike_dask.compute.gpu import sent
from cryolike_dask.likelihoods.kernels.pairs_cuda import summarise_pairs
from cryolike_dask.likelihoods.kernels.rotations import fold


class Shape(NamedTuple):
    """How a program cuts its work; sides are powers of two, 16 at least.

    Attributes
    ----------
    rows, columns, depth : int
        Rotations of a quarter turn, displacements and q of a product of matrices.
    warps, stages : int
        Of a program; stages of reading ahead.
    programs : int
        For each multiprocessor.
    """

    rows: int
    columns: int
    depth: int
    warps: int
    stages: int
    programs: int


SHAPES = {
    64: Shape(rows=16, columns=32, depth=16, warps=4, stages=1, programs=4),
    128: Shape(rows=32, columns=32, depth=32, warps=4, stages=1, programs=2),
    256: Shape(rows=64, columns=32, depth=64, warps=4, stages=1, programs=2),
    512: Shape(rows=128, columns=32, depth=16, warps=8, stages=2, programs=1),
    1024: Shape(rows=256, columns=16, depth=16, warps=8, stages=2, programs=1),
}
"""By the largest W that they are for. Larger W take several blocks of rows of the last, and read
products anew for each. Without reading ahead registers suffice for twice the columns, which halves
what matrices are read from shared memory; there is another program to go on with meanwhile."""
COLUMN_STEP = 8
"""Columns of a template are a multiple, where loads are to begin with whole sectors of memory."""
NARROW = 16
"""Columns of a block where displacements are not padded."""
PARTS_OF_PROGRAM = 4
"""Pairs for each program that keep all of them busy to the end, about; fewer pairs are divided."""


class TileTerms(NamedTuple):
    """Terms that the poses of a tile are computed from, as in `Tile`.

    Attributes
    ----------
    products : Tensor, float32, (W/2 + 1, 2, image, column), contiguous
        What lies beside the columns of templates has any content.
    n_displacements : int
    column_stride : int
        Columns of a template: the last displacement is repeated beyond `n_displacements`. Where
        there are `n_displacements`, nothing need be repeated, but loads are slower.
    shift : Tensor, float32, (image, template)
    norm : Tensor, float32, (W/2, image, template)
        Positive. Rows and pairs lie in memory in any order.
    scale, height : Tensor, float64, (W/2, image, template)
    exponents : Tensor, float64, (image,)
    """

    products: Tensor
    n_displacements: int
    column_stride: int
    shift: Tensor
    norm: Tensor
    scale: Tensor
    height: Tensor
    exponents: Tensor


def summarise_fused(
    terms: TileTerms,
    reference: Tensor | None,
    to_beat: Tensor | None = None,
    *,
    n_programs: int | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Transform products of spectra to rotations, and reduce over displacements and rotations.

    Parameters
    ----------
    terms : TileTerms
    reference : Tensor, float64, (image, template), optional
        As of `Tile.summarise`.
    to_beat : Tensor, float32, (image,), optional
        Where the best pose is, is only asked for of pairs whose best is larger; None: of none.
    n_programs : int, optional
        Programs that share the pairs; as many as the device runs at a time.

    Returns
    -------
    best : Tensor, float32, (image, template)
        The largest (v + shift) norm; by rounding it may be beyond 1.
    fit : Tensor, float64, (image, template)
        The largest v^2 scale.
    log_likelihood : Tensor, float64, (image, template)
        Summed; minus infinity where nothing is within reach, or there is no reference.
    poses : Tensor, int32, (image, template)
        Of the best, over (displacement, rotation), where it is asked for.
    """
    n_rows, n_images, n_templates = terms.norm.shape
    shape = shape_of(2 * n_rows)
    padded = terms.column_stride >= shape.columns and terms.column_stride % COLUMN_STEP == 0
    width = shape.columns if padded else NARROW
    if n_programs is None:
        n_programs = shape.programs * _multiprocessors(terms.products.device)
    n_blocks, n_pairs = -(-terms.n_displacements // width), n_images * n_templates
    n_splits = max(1, min(n_blocks, n_programs * PARTS_OF_PROGRAM // max(1, n_pairs)))
    best = terms.shift.new_empty(n_images, n_templates, n_splits)
    fit = terms.scale.new_empty(best.shape)
    poses = best.new_empty(best.shape, dtype=torch.int32)
    summed = torch.empty_like(fit)
    if reference is None:  # nothing comes within reach
        reference = terms.scale.new_full(terms.shift.shape, math.inf)
    if to_beat is None:
        to_beat = terms.shift.new_full((n_images,), math.inf)
    row_stride, _, pair_stride = terms.norm.stride()
    scale, height = (
        values
        if values.stride() == terms.norm.stride()
        else torch.empty_like(terms.norm, dtype=values.dtype).copy_(values)
        for values in (terms.scale, terms.height)
    )
    step = COLUMN_STEP if padded else 1
    summarise_pairs[(min(n_programs, best.numel()),)](
        products=terms.products,
        matrices=_matrices(2 * n_rows, terms.products.device),
        shifts=terms.shift.contiguous(),
        norms=terms.norm,
        scales=scale,
        heights=height,
        exponents=terms.exponents,
        references=reference.contiguous(),
        to_beat=to_beat.contiguous(),
        best_of_parts=best,
        fit_of_parts=fit,
        sum_of_parts=summed,
        pose_of_parts=poses,
        n_parts=best.numel(),
        n_splits=n_splits,
        n_images=n_images,
        n_templates=n_templates,
        n_displacements=terms.n_displacements,
        column_steps=terms.column_stride // step,
        image_columns=terms.products.shape[3],
        row_stride=row_stride,
        pair_stride=pair_stride,
        # all poses so far below the best of a pair are together less than rounding
        reach=math.log(2 * n_rows * terms.n_displacements / torch.finfo(torch.float32).eps),
        half=n_rows,
        column_step=step,
        block_rows=shape.rows,
        width=width,
        depth=shape.depth,
        stages=shape.stages,
        num_warps=shape.warps,
        num_stages=shape.stages,
        enable_fp_fusion=True,  # or Triton 3.9 warns, and later ones do without
    )
    if n_splits == 1:
        return best[..., 0], fit[..., 0], summed[..., 0], poses[..., 0]
    best, part = best.max(-1)  # the first of equal ones
    of_best = poses.gather(-1, part[..., None])[..., 0]
    return best, fit.amax(-1), torch.logsumexp(summed, -1), of_best


def shape_of(n_inplanes: int) -> Shape:
    """How work is cut for W rotations."""
    fitting = (shape for most, shape in SHAPES.items() if n_inplanes <= most)
    return next(fitting, SHAPES[max(SHAPES)])


@lru_cache(maxsize=4)
def _multiprocessors(device: torch.device) -> int:
    """Multiprocessors of a device; a few, where none says how many."""
    if not torch.cuda.is_available():
        return 4
    return torch.cuda.get_device_properties(device).multi_processor_count


@lru_cache(maxsize=4)
def _matrices(n_inplanes: int, device: torch.device) -> Tensor:
    """High and low parts of cosines and sines of even, then of odd q, without the quarter turn and
    q = W/2, padded: float16 (4, 2, row, q)."""
    shape, n = shape_of(n_inplanes), (n_inplanes + 2) // 4
    folding = fold(n_inplanes, torch.float64, torch.device("cpu"))
    four = torch.stack(
        [
            matrices[parity][:n, :n]
            for parity in (0, 1)
            for matrices in (folding.cosines, folding.sines)
        ]
    )
    if n_inplanes % 4 == 0:
        # odd sines of no turn are 0: those of the quarter turn stand there
        four[3, 0] = 2 - 4 * (torch.arange(n) % 2)
    high = four.half()
    both = torch.stack([high, (four - high.double()).half()], 1)
    padding = (0, -n % shape.depth, 0, -n % shape.rows)
    return sent(torch.nn.functional.pad(both, padding).numpy(), device)
