"""Fourier series over the rings of real images, both ways, as small real matrix products.

The transform F of a real image obeys F(theta + pi) = conj F(theta): half of each ring and q = 0 ..
W/2 are all there is. The real part of the half ring holds the even q and the imaginary part the odd
ones. Reflection, w -> -w or w -> W/2 - w, splits cosines from sines once more. So either way the
series is four real products of (W/4 + 1) x (W/4 + 1): at these sizes faster than torch's FFT, and
in the layout that the contraction over shells needs and leaves, angular frequency first. Where a
CPU reduces over rotations at once, a compiled FFT is faster still (`fft_cpu`).
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryolike_dask.compute.gpu import sent


@dataclass(frozen=True)
class Scratch:
    """Memory that is used again and again: getting it anew from the system would cost as much as
    the work in it.

    A tensor that `take` gives is overwritten by the next call with the same key.
    """

    like: Tensor
    kept: dict[Hashable, Tensor] = field(default_factory=dict)

    def take(self, key: Hashable, *shape: int) -> Tensor:
        """Give a tensor of this shape, not initialised."""
        n = math.prod(shape)
        if key not in self.kept or self.kept[key].numel() < n:
            self.kept[key] = self.like.new_empty(n)
        return self.kept[key][:n].view(shape)


@dataclass(frozen=True)
class Folding:
    """The matrices of W rotations.

    Attributes
    ----------
    cosines, sines : (Tensor, Tensor), real, (W // 4 + 1, number of such q)
        Cosines and sines of even and of odd q, each q counted as often as it and -q occur.
    plain_cosines, plain_sines : (Tensor, Tensor), real, (number of such q, W // 4 + 1)
        The same transposed, not counted, and normalised for the way to angular frequencies; even
        sines negative.
    multiplicity : Tensor, float64, (W/2 + 1,)
        How often |a_q|^2 counts in the power of a ring.
    rotations : Tensor, int64, (2, W/2)
        Which rotation each row of `rotate` holds; the second row is the first half a turn further.
    angles : Tensor, int64, (W/2,)
        The order of half rings: first 0 .. W // 4, then what these are reflected to.
    """

    cosines: tuple[Tensor, Tensor]
    sines: tuple[Tensor, Tensor]
    plain_cosines: tuple[Tensor, Tensor]
    plain_sines: tuple[Tensor, Tensor]
    multiplicity: Tensor
    rotations: Tensor
    angles: Tensor

    @property
    def n_inplanes(self) -> int:
        """W."""
        return self.rotations.numel()


@lru_cache(maxsize=8)
def fold(n_inplanes: int, dtype: torch.dtype, device: torch.device) -> Folding:
    """Make the matrices for W rotations; W is even, and need not be divisible by four."""
    half, quarter = n_inplanes // 2, n_inplanes // 4 + 1
    q, w = torch.arange(half + 1, dtype=torch.float64), torch.arange(quarter, dtype=torch.float64)
    angle = 2 * math.pi / n_inplanes * w[:, None] * q
    twice = torch.full((half + 1,), 2.0, dtype=torch.float64)
    twice[0] = twice[-1] = 1
    scale = 2 / math.sqrt(n_inplanes)

    def on_device(values: Tensor) -> Tensor:
        return sent(values.numpy(), device)

    def by_parity(matrix: Tensor, transposed: bool = False) -> tuple[Tensor, Tensor]:
        even, odd = (part.T if transposed else part for part in (matrix[:, 0::2], matrix[:, 1::2]))
        return on_device(even.to(dtype)), on_device(odd.to(dtype))

    sines = torch.sin(angle) * scale
    sines[:, 0::2] *= -1
    w, mirrored = torch.arange(quarter), torch.arange(1, half - quarter + 1)
    rotations = torch.stack(
        [torch.cat([w, n_inplanes - mirrored]), torch.cat([w + half, half - mirrored])]
    )
    return Folding(
        cosines=by_parity(torch.cos(angle) * twice),
        sines=by_parity(torch.sin(angle) * twice),
        plain_cosines=by_parity(torch.cos(angle) * scale, transposed=True),
        plain_sines=by_parity(sines, transposed=True),
        multiplicity=on_device(twice),
        rotations=on_device(rotations),
        angles=on_device(torch.cat([w, half - mirrored])),
    )


def angular_spectra(
    real: Tensor, imaginary: Tensor, folding: Folding, scratch: Scratch, out: Tensor
) -> None:
    """Expand half rings in angular frequency, orthonormally.

    Parameters
    ----------
    real, imaginary : Tensor, real, (W/2, x)
        Parts of the transform of real images, at the angles that `folding.angles` lists; they are
        overwritten.
    out : Tensor, real, (W/2 + 1, 2, x)
        Gets the real and imaginary parts of q = 0 .. W/2.
    """
    half, quarter = len(real), len(real) // 2 + 1
    pairs = slice(1, half - quarter + 1)
    differences = scratch.take("differences", quarter, real.shape[1])
    for parity, rings in enumerate((real, imaginary)):
        sums, reflected = rings[:quarter], rings[quarter:]
        differences[0] = sums[0]
        torch.sub(sums[pairs], reflected, out=differences[pairs])
        differences[pairs.stop :] = 0
        sums[pairs] += reflected
        cosines, sines = folding.plain_cosines[parity], folding.plain_sines[parity]
        if parity == 0:
            torch.mm(cosines, sums, out=out[0::2, 0])
            torch.mm(sines, differences, out=out[0::2, 1])
        else:
            torch.mm(sines, sums, out=out[1::2, 0])
            torch.mm(cosines, differences, out=out[1::2, 1])


def rotate(spectra: Tensor, folding: Folding, scratch: Scratch) -> Tensor:
    """Sum products of spectra into a correlation over in-plane rotations.

    Parameters
    ----------
    spectra : Tensor, real, (W/2 + 1, 2, x)
        Real and imaginary parts of conj(a_q) b_q, summed over shells.

    Returns
    -------
    Tensor, real, (2, W/2, x), in scratch memory
        sum_j conj(a)(theta_j) b(theta_j + theta_w) at the rotations w that `folding.rotations`
        lists.
    """
    half, columns = folding.n_inplanes // 2, spectra.shape[2]
    cosine_even, sine_even, cosine_odd, sine_odd = quarter_turn(spectra, folding, scratch)
    quarter = len(cosine_even)
    mirrored = slice(1, half - quarter + 1)
    rotated, even = scratch.take("rotated", 2, half, columns), scratch.take("even", half, columns)
    torch.sub(cosine_even, sine_even, out=even[:quarter])
    torch.add(cosine_even[mirrored], sine_even[mirrored], out=even[quarter:])
    torch.sub(cosine_odd, sine_odd, out=rotated[0, :quarter])
    torch.add(cosine_odd[mirrored], sine_odd[mirrored], out=rotated[0, quarter:])
    torch.sub(even, rotated[0], out=rotated[1])
    rotated[0] += even
    return rotated


def quarter_turn(spectra: Tensor, folding: Folding, scratch: Scratch) -> Tensor:
    """Sum cosines and sines of even and of odd angular frequencies over the first quarter turn.

    Parameters
    ----------
    spectra : Tensor, real, (W/2 + 1, 2, x)
        As for `rotate`.

    Returns
    -------
    Tensor, real, (4, W // 4 + 1, x), in scratch memory
        Cosines and sines of even q, then of odd q. Cosines less sines belong to a rotation w, their
        sum to W - w; half a turn further odd q change sign.
    """
    out = scratch.take("quarter turn", 4, folding.n_inplanes // 4 + 1, spectra.shape[2])
    for parity in (0, 1):
        torch.mm(folding.cosines[parity], spectra[parity::2, 0], out=out[2 * parity])
        torch.mm(folding.sines[parity], spectra[parity::2, 1], out=out[2 * parity + 1])
    return out


@dataclass(frozen=True)
class Plan:
    """Tables of an FFT of W rotations that leaves them in the order of its digits (`fft_cpu`).

    Attributes
    ----------
    radices : array, int64
        Their product is W/2.
    waves : array, real, (2, W)
        Cosine and sine of each rotation.
    rotations : array, int64, (W,)
        Which rotation each row of a transformed chunk holds.
    """

    radices: NDArray[np.int64]
    waves: NDArray[Any]
    rotations: NDArray[np.int64]


@lru_cache(maxsize=16)
def plan(n_inplanes: int, dtype: str) -> Plan:
    """Factorise W/2: fours, at most one two, then odd primes."""
    radices, rest, radix = [], n_inplanes // 2, 4
    while rest > 1:
        while rest % radix == 0:
            radices.append(radix)
            rest //= radix
        radix = {4: 2, 2: 3}.get(radix, radix + 2)
    order = np.arange(n_inplanes // 2).reshape(radices[::-1]).T.ravel()
    angle = 2 * np.pi / n_inplanes * np.arange(n_inplanes)
    waves = np.stack([np.cos(angle), np.sin(angle)]).astype(dtype)
    return Plan(np.array(radices, np.int64), waves, np.stack([2 * order, 2 * order + 1], 1).ravel())
