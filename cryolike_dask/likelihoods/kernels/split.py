"""The contraction over shells on tensor cores: each number as a sum of two that these multiply.

Tensor cores multiply numbers of 11 bits, exactly, and sum in float32. A number x of float32 is high
+ low to 22 bits, high being x rounded to 11 bits, and low what is left, rounded likewise, so that

    x y = high high + low high + high low

but for low low and for what is left of both: about as exact as float32. One product of matrices of
three times the length is all three, [low, high, high] by [high; low; high], and operands are split
once, when images and templates are prepared. What is small comes first: summed in this order half
as much is rounded as in the other, measured on a CPU, and about as much as of float32 itself.

Parts are float16, or, where torch cannot add up products of these in float32, TF32: float32 that
holds no more bits. Numbers of float16 end at 65504, and below 2^-14 they are multiples of 2^-24. So
each image and each template is multiplied by a power of two that brings its norm to between 2^13
and 2^14 (`scales`). No coefficient is larger than the norm, correlations stay what they are, and so
does each one's rounding, whatever it is compared together with. Operands that are all shells, where
nothing is compressed, are split too: float32 would not be more exact, and takes several times as
long; double precision is what is more exact.

No GPU has run this yet. The same code runs on CPUs in tests, which multiply the same parts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import Enum

import torch
from torch import Tensor

from cryolike_dask.compute.gpu import tf32_products

ALIGNED = 8
"""Rows of operands are padded to a multiple: tensor cores read 16 bytes at a time."""
BITS = 11
"""Of a number that tensor cores multiply; the first is not stored."""
LARGEST_NORM, LEAST = 2.0**14, 2.0**-24
"""Of an image or template, scaled; and the least number of float16, which others near it are
multiples of."""


class Way(Enum):
    """How operands are held: as they are, or split into parts of float16 or TF32."""

    WHOLE = "whole"
    HALVES = "float16"
    TF32 = "tf32"

    @property
    def is_split(self) -> bool:
        """Whether each number is three in an operand, of less bits."""
        return self is not Way.WHOLE

    def dtype(self, whole: torch.dtype) -> torch.dtype:
        """Of operands that hold numbers of this type."""
        return torch.float16 if self is Way.HALVES else whole

    def length(self, n: int) -> int:
        """Of a row of an operand that holds so many numbers."""
        return -(-3 * n // ALIGNED) * ALIGNED if self.is_split else n

    def bytes_of(self, n: int, whole: torch.dtype) -> int:
        """Of such a row."""
        return self.length(n) * self.dtype(whole).itemsize


def way_on(device: torch.device, dtype: torch.dtype) -> Way:
    """The way to contract numbers of this type: by what the device has, and what torch can do."""
    if device.type != "cuda" or dtype != torch.float32 or torch.version.hip:
        return Way.WHOLE
    capability = torch.cuda.get_device_capability(device)
    if capability >= (7, 0) and hasattr(torch.ops.aten.bmm, "dtype_out"):
        return Way.HALVES
    return Way.TF32 if capability >= (8, 0) else Way.WHOLE


def way_of(like: Tensor) -> Way:
    """The way to contract numbers of the type of these, where they are."""
    return way_on(like.device, like.dtype)


def scales(norms: Tensor) -> Tensor:
    """Powers of two that bring norms to between half of `LARGEST_NORM` and that, float64; 1 for
    norms that are not positive and finite. The device computes them, and nobody waits for it."""
    mantissa, _ = torch.frexp(norms)
    exact = mantissa * LARGEST_NORM / norms
    return torch.where(exact.isfinite(), exact, 1)


def columns_of_images(values: Tensor, way: Way) -> Tensor:
    """[low, high, high] of (q, row, k), along k; as they are, if they are not split."""
    return _parts(values, way, 2, 0, slice(1, 3)) if way.is_split else values


def rows_of_templates(values: Tensor, way: Way) -> Tensor:
    """[high; low; high] of (q, k, column), along k; as they are, if they are not split."""
    return _parts(values, way, 1, 1, slice(0, None, 2)) if way.is_split else values


def _parts(values: Tensor, way: Way, dim: int, low_at: int, high_at: slice) -> Tensor:
    """Split values, with their parts one after the other along a dimension, padded with 0."""
    shape, n = list(values.shape), values.shape[dim]
    shape[dim] = way.length(n)
    out = values.new_empty(shape, dtype=way.dtype(values.dtype))
    if shape[dim] > 3 * n:
        out.narrow(dim, 3 * n, shape[dim] - 3 * n).zero_()
    parts = torch.unflatten(out.narrow(dim, 0, 3 * n), dim, (3, n)).movedim(dim, 0)
    low, high = parts[low_at], parts[high_at]
    if way is Way.HALVES:  # that copies round saves a pass over values
        high.copy_(values)
        torch.sub(values, high[0], out=low)
    else:
        high.copy_(_rounded(values))
        low.copy_(_rounded(values - high[0]))
    return out


def _rounded(values: Tensor) -> Tensor:
    """The nearest numbers of 11 bits, of float32 that is far from its largest number."""
    large = values * (2.0 ** (24 - BITS) + 1)
    return large - (large - values)


@contextmanager
def multiplying(way: Way) -> Iterator[None]:
    """Let `multiply` take operands of this way."""
    if way is Way.TF32:
        with tf32_products():
            yield
    else:
        yield


def multiply(images: Tensor, templates: Tensor, out: Tensor) -> None:
    """Contract operands of a group of angular frequencies, (q, row, k) by (q, k, column)."""
    if images.dtype == torch.float16:
        multiply_halves(images, templates, out)
    else:
        torch.bmm(images, templates, out=out)


def multiply_halves(images: Tensor, templates: Tensor, out: Tensor) -> None:
    """Multiply float16, and sum in float32; torch has it on GPUs alone."""
    torch.bmm(images, templates, out_dtype=torch.float32, out=out)


def relative_error(operands: Sequence[Tensor]) -> float:
    """How much split operands may change the sum of products over all shells and angular
    frequencies, at most, over the norms of both sides.

    Parameters
    ----------
    operands : sequence of Tensor, (q, k, column)
        Of the templates, for each group of angular frequencies.

    Notes
    -----
    Write u = 2^-11 for half a unit in the last of 11 bits. Of x, split, |x - high| <= u |x|, and
    |x - high - low| <= u^2 |x| + LEAST / 2, where the last is for float16 that is below 2^-14.
    What is left out of a product, low low and twice what is left of one side, is 3 u^2 |x y| +
    LEAST / 2 (|x| + |y|) at most, to first order. Summed over the k values of two vectors, a and
    b, that is, by Cauchy and Schwarz, 3 u^2 |a| |b| + LEAST / 2 sqrt(k) (|a| + |b|), where both
    norms are LARGEST_NORM / 2 at least, over all angular frequencies. Sums of k products in
    float32, which tensor cores do not round but cut off, add k 2^-23 |a| |b|: for all real
    products together, those of the longest group. A pose takes the real and the imaginary part of
    each product, times the cosine and the sine of an angle: sqrt(2) times as much. Angular
    frequencies other than the first and the last count twice, as they do in the norms.

    Nearly all of it is the last, and assumes that all errors have the same sign: measured, errors
    are some thousand times smaller.
    """
    longest = max(operand.shape[1] for operand in operands)
    # a third of them is a value each; -q has the same
    n_values = 2 * sum(len(operand) * operand.shape[1] for operand in operands) / 3
    of_products = 3 * 4.0**-BITS + 2 * LEAST / LARGEST_NORM * math.sqrt(n_values)
    return math.sqrt(2) * (of_products + longest * 2.0**-23)
