"""A tile of the comparison: every pose of some images under some templates, a few images at a time
in the cache.

The last three steps of `compressed`: the transform from angular frequencies to rotations, and the
reductions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryolike_dask.likelihoods.kernels import with_triton
from cryolike_dask.likelihoods.kernels.columns import by_pairs
from cryolike_dask.likelihoods.kernels.direct import BlockConstants
from cryolike_dask.likelihoods.kernels.rotations import plan, rotate
from cryolike_dask.likelihoods.kernels.threads import threads
from cryolike_dask.likelihoods.kernels.windows import Windows, extremes

if TYPE_CHECKING:
    from cryolike_dask.likelihoods.kernels.fused_cpu import PairTerms, Rotations

REDUCED_BYTES = 256
"""What is held of each pair and rotation of a piece, beside its correlations: measured, 275."""
POINTS_AT_A_TIME, FEWEST_POINTS = 2**22, 32
"""Points of windows that likelihoods are summed over at a time, of narrow peaks hundreds a step;
and for how many a rotation counts at least."""

Reduced = tuple[Tensor, Tensor, Tensor, Tensor | None]


@dataclass(frozen=True)
class Tile:
    """Some images against some templates: products of spectra, and terms that turn sums of them
    into results.

    Products are in scratch memory: the next tile overwrites them, as each piece overwrites the one
    before.

    Attributes
    ----------
    products : Tensor, real, (W/2 + 1, 2, image, column)
        sum over shells of conj(CTF I) T, less Isx Isy / Iss, so that rotations give the covariance
        v. Columns are (template, displacement), padded.
    shift : Tensor, real, (image, template)
        The correlation is (v + shift) norm.
    norm : Tensor, real, (W/2, image, template)
        By rows of `rotate`.
    scale, height : Tensor, float64, (W/2, image, template)
        The log-likelihood is height - exponent log(1 - v^2 scale).
    exponent : Tensor, float64, (image,)
    error_bound : Tensor, float64, (image, template)
        Largest error of the correlation: what the basis leaves out, and split operands round.
    """

    products: Tensor
    shift: Tensor
    norm: Tensor
    scale: Tensor
    height: Tensor
    exponent: Tensor
    error_bound: Tensor
    constants: BlockConstants

    def pieces(self) -> Iterator[tuple[slice, Tensor]]:
        """Give v of a few images at a time: real (2, W/2, image, template, displacement)."""
        n_images, columns = self.products.shape[2:]
        # rotations of all images at once would leave the cache before they are reduced
        size = self._images_of_a_piece(columns, self.shift.shape[1])
        for start in range(0, n_images, size):
            m = slice(start, min(start + size, n_images))
            spectra = self.products.flatten(2)[:, :, m.start * columns : m.stop * columns]
            sums = rotate(spectra, self.constants.folding, self.constants.scratch)
            yield (
                m,
                by_pairs(
                    torch.unflatten(sums, 2, (m.stop - m.start, -1)),
                    self.shift.shape[1],
                    self.constants,
                ),
            )

    def _images_of_a_piece(self, columns: int, n_templates: int) -> int:
        """Number of images, of so many columns each, whose correlations stay in the cache."""
        of_rotation = max(columns * self.products.element_size(), n_templates * REDUCED_BYTES)
        return max(1, self.constants.piece_bytes // (2 * len(self.products) * of_rotation))

    def correlations(self) -> Iterator[tuple[slice, Tensor]]:
        """Give the correlation of a few images at a time: real (image, template, displacement,
        rotation)."""
        for m, sums in self.pieces():
            yield m, self._correlations(sums, self.shift[m], self.norm[:, m])

    def locate_best(self, template: Tensor, improved: Tensor, poses: Tensor | None) -> Tensor:
        """Where each image is best under a template of its own, if that improves it: int (image,),
        over (displacement, rotation). `poses` are those of `summarise`, if it gives them."""
        m = torch.arange(len(template), device=template.device)
        if poses is not None:
            return poses[m, template]
        if not self.products.is_cpu:  # to know which are improved, the program would have to wait
            return self.locate(m, template)
        found, m = torch.zeros_like(template), m[improved]
        found[m] = self.locate(m, template[m])
        return found

    def locate(self, m: Tensor, s: Tensor, allowed: Tensor | None = None) -> Tensor:
        """Find the best poses of some pairs of images and templates: int64 (pair,), over
        (displacement, rotation)."""
        # where is asked for few pairs, those that improve an image's best pose: cheaper to rotate
        # these once more than to keep an index for every pair of every tile
        poses = torch.empty_like(m)
        products = by_pairs(self.products, self.shift.shape[1], self.constants)
        size = self._images_of_a_piece(products.shape[-1], 1)
        for start in range(0, len(m), size):
            k = slice(start, start + size)
            pairs = products[:, :, m[k], s[k]]
            sums = rotate(pairs.flatten(2), self.constants.folding, self.constants.scratch).view(
                2, -1, *pairs.shape[2:]
            )
            if allowed is not None:
                of_pairs = allowed.expand(-1, -1, -1, self.shift.shape[1], -1)[:, :, m[k], s[k]]
                sums = sums.masked_fill(~of_pairs, -math.inf)
            correlation = self._correlations(sums, self.shift[m[k], s[k]], self.norm[:, m[k], s[k]])
            poses[k] = correlation.flatten(1).argmax(1)
        return poses

    def _correlations(self, sums: Tensor, shift: Tensor, norm: Tensor) -> Tensor:
        correlation = (sums + shift[..., None]) * norm[..., None]
        by_rotation = torch.empty_like(correlation.flatten(0, 1))
        by_rotation[self.constants.folding.rotations.flatten()] = correlation.flatten(0, 1)
        return by_rotation.movedim(0, -1).clamp_(-1, 1)

    def summarise(self, reference: Tensor | None, to_beat: Tensor | None = None) -> Reduced:
        """Reduce over displacements and rotations.

        Parameters
        ----------
        reference : Tensor, float64, (image, template), optional
            Log-likelihoods so far below what counts that poses of that value may be neglected;
            None: do not sum.
        to_beat : Tensor, real, (image,), optional
            Correlations beyond which it matters where the best is.

        Returns
        -------
        best : Tensor, real, (image, template)
            The largest correlation.
        fit : Tensor, float64, (image, template)
            The largest v^2 scale: 1 - fit is the part of the image's variance that is left.
        log_likelihood : Tensor, float64, (image, template)
            Summed; minus infinity where no pose is within reach.
        poses : Tensor, int, (image, template), or None
            Of the best, over (displacement, rotation), where it matters; None: `locate` tells it.
        """
        poses = None
        if self.products.is_cpu:
            best, fit, summed = self._reduce_on_cpu(reference)
        elif self.products.dtype == torch.float32 and with_triton.is_usable():
            best, fit, summed, poses = self._reduce_on_gpu(reference, to_beat)
        else:
            best, fit, summed, _ = self.reduce(reference)
        return best.clamp_(-1, 1), fit, summed, None if to_beat is None else poses

    def _reduce_on_cpu(self, reference: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Summarise in compiled loops."""
        from cryolike_dask.likelihoods.kernels.fused_cpu import Summary, reduce_pairs

        if reference is None:
            reference = torch.full_like(self.error_bound, math.inf)
        terms, rotations, _ = self._for_loops(reference)
        results = self._unfilled()
        summary = Summary(*(values.numpy() for values in results))
        with threads() as in_threads:
            in_threads(reduce_pairs, self.shift.numel(), terms, rotations, summary)
        return results

    def _for_loops(self, reference: Tensor) -> tuple[PairTerms, Rotations, NDArray[np.int64]]:
        """Terms and tables for compiled loops, and which rotation each of their rows holds."""
        from cryolike_dask.likelihoods.kernels.fused_cpu import PairTerms, Rotations

        # loops would be compiled anew for arrays that are not contiguous
        terms = PairTerms(
            products=self.products.numpy(),
            n_displacements=self.constants.n_displacements,
            shift=self.shift.contiguous().numpy(),
            norm=self.norm.contiguous().numpy(),
            scale=self.scale.contiguous().numpy(),
            height=self.height.contiguous().numpy(),
            exponents=self.exponent.contiguous().numpy(),
            floor=1 - self.constants.rounding,
            reference=reference.contiguous().numpy(),
        )
        n_rows = len(self.norm)
        transform = plan(2 * n_rows, terms.products.dtype.name)
        order = np.argsort(self.constants.folding.rotations[0].numpy() % n_rows)
        rows = order[transform.rotations % n_rows]
        return terms, Rotations(transform.radices, transform.waves, rows), transform.rotations

    def summarise_in_windows(
        self, reference: Tensor, wanted: Tensor, windows: Windows
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Reduce over rotations and the displacements of windows.

        Parameters
        ----------
        reference : Tensor, float64, (row, template)
            As of `summarise`.
        wanted : Tensor, bool, (row, template)
            The others are left out.
        windows : Windows

        Returns
        -------
        best, fit, log_likelihood : Tensor, (row, template)
            As of `summarise`, minus infinity where nothing is wanted or inside of the search.
        at_edge : Tensor, float64, (row, template)
            The same sum over the points at the edge of windows.
        poses : Tensor, int64, (row, template)
            The best, over (displacement, rotation); of those that are not wanted none.
        """
        on_cpu = self.products.is_cpu
        reduce = self._reduce_in_windows_on_cpu if on_cpu else self._reduce_in_windows
        return reduce(reference, wanted, windows)

    def _reduce_in_windows(
        self, reference: Tensor, wanted: Tensor, windows: Windows
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Summarise in windows on any device."""
        allowed = windows.inside(self.constants.folding.rotations)
        best, fit, summed, at_edge = self.reduce(reference, allowed, windows)
        poses = torch.full(best.shape, -1, dtype=torch.int64, device=best.device)
        m, s = wanted.nonzero(as_tuple=True)
        poses[m, s] = self.locate(m, s, allowed)
        outside = ~wanted
        return (
            best.clamp_(max=1).masked_fill_(outside, -math.inf),
            fit,
            summed.masked_fill_(outside, -math.inf),
            at_edge.masked_fill_(outside, -math.inf),
            poses,
        )

    def _reduce_in_windows_on_cpu(
        self, reference: Tensor, wanted: Tensor, windows: Windows
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Summarise in windows in compiled loops."""
        from cryolike_dask.likelihoods.kernels.windows_cpu import (
            WindowSummary,
            reduce_pairs_in_windows,
        )

        terms, rotations, of_rows = self._for_loops(reference)
        of_windows = windows.for_loops(wanted, of_rows)
        best, fit, summed = self._unfilled()
        poses = torch.empty(self.shift.shape, dtype=torch.int64)
        results = best, fit, summed, torch.empty_like(summed), poses
        summary = WindowSummary(*(values.numpy() for values in results))
        of_all = terms, rotations, of_windows, summary
        with threads() as in_threads:
            in_threads(reduce_pairs_in_windows, self.shift.numel(), *of_all)
        best.clamp_(max=1)
        return results

    def _reduce_on_gpu(self, reference: Tensor | None, to_beat: Tensor | None) -> Reduced:
        """Summarise in one kernel, if it works here."""

        def by_kernel() -> Reduced:
            from cryolike_dask.likelihoods.kernels.fused_cuda import TileTerms, summarise_fused

            of_columns = self.constants.n_displacements, self.constants.translation[0].shape[-1]
            of_poses = self.shift, self.norm, self.scale, self.height, self.exponent
            terms = TileTerms(self.products, *of_columns, *of_poses)
            return summarise_fused(terms, reference, to_beat)

        found = with_triton.on_device(self.products.device, by_kernel, lambda: None)
        return (*self.reduce(reference)[:3], None) if found is None else found

    def reduce(
        self,
        reference: Tensor | None,
        allowed: Tensor | None = None,
        windows: Windows | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Summarise on any device; correlations are not limited to 1. Only poses that are allowed,
        bool (2, W/2, image, template, displacement), are looked at, and summed as windows of
        displacements say; at last what of the sum lies at the edge of these."""
        (best, fit, summed), least = self._unfilled(), None
        at_edge = torch.full_like(summed, -math.inf)
        if reference is not None and windows is None:
            least = self._least_covariance(reference)
        for m, sums in self.pieces():
            part = None if allowed is None else allowed[:, :, m]
            high, low = extremes(sums, part)
            best[m] = ((high + self.shift[m]) * self.norm[:, m]).amax((0, 1))
            farthest = torch.maximum(high, -low).clamp_(min=0)
            fits = farthest.double() ** 2 * self.scale[:, m]
            fit[m] = fits.amax((0, 1))
            if least is not None:
                within_reach = (farthest >= least[:, m]) & (high >= low)
                if within_reach.any():
                    summed[m] = self._sum(sums, fits, within_reach, m)
            elif windows is not None and reference is not None:
                of_piece = sums, fits, high >= low, reference[m], m, windows
                summed[m], at_edge[m] = self._sum_in_windows(*of_piece)
        return best, fit, summed, at_edge

    def _least_covariance(self, reference: Tensor) -> Tensor:
        """|v| from which on a log-likelihood reaches the reference: real (W/2, image, template)."""
        fraction = ((self.height - reference) / self.exponent[:, None]).clamp_(max=0).exp_()
        return ((1 - fraction) / self.scale).sqrt_().to(self.norm.dtype)

    def _sum(self, sums: Tensor, fits: Tensor, within_reach: Tensor, m: slice) -> Tensor:
        """Sum the likelihood of one piece over rows within reach: the logarithm, float64 (image,
        template)."""
        height = self.height[:, m].expand(fits.shape)
        top = self._tops(height, fits, m)
        peak = top.masked_fill(~within_reach, -math.inf).amax((0, 1))
        rows = (within_reach & (top >= peak - self._reach)).nonzero(as_tuple=True)
        peak = peak.masked_fill(peak == -math.inf, 0)
        likelihoods = self._likelihoods(sums[rows].double(), height - peak, rows, m)
        total = torch.zeros_like(peak).index_put_(rows[2:], likelihoods.sum(-1), accumulate=True)
        return peak + total.log_()

    def _sum_in_windows(
        self,
        sums: Tensor,
        fits: Tensor,
        allowed: Tensor,
        reference: Tensor,
        m: slice,
        windows: Windows,
    ) -> tuple[Tensor, Tensor]:
        """The same over windows, and what of the sum lies at their edge."""
        height = self.height[:, m].expand(fits.shape)
        log_prior = windows.log_prior(self.constants.folding.rotations)
        height = height if log_prior is None else height + log_prior[:, :, m]
        top = self._tops(height, fits, m).masked_fill_(~allowed, -math.inf)
        peak, best = top.flatten(0, 1).max(0)
        at_best = sums.flatten(0, 1).take_along_dim(best[None, ..., None], 0)[0]
        # as the second difference is a property of spectra, that of the best will do for all
        along_x, along_y = windows.curvature(at_best.double())
        fit = fits.clamp(0, 1 - self.constants.rounding)
        narrowness = 2 * self.exponent[m, None] * fit / (1 - fit)
        # the likelihood may be larger between displacements
        top += narrowness * (along_x + along_y) / 8
        reach = min(self._reach, windows.neglects)
        within_reach = (top >= torch.maximum(reference, peak - reach)) & allowed
        peak = peak.masked_fill(peak == -math.inf, 0)
        at_end = windows.at_end(at_best, self.constants.folding.rotations.flatten()[best], m)
        cuts = windows.parts(narrowness * torch.maximum(along_x, along_y) * at_end)
        total, at_edge = torch.zeros((2, *peak.shape), dtype=peak.dtype, device=peak.device)
        for cut in range(windows.cuts + 1):
            n_points, chosen = sums.shape[-1] * 4**cut, (within_reach & (cuts == cut)).nonzero()
            at_once = max(1, POINTS_AT_A_TIME // max(FEWEST_POINTS, n_points))
            for some in torch.split(chosen, at_once) if len(chosen) else ():
                half, row, image, template = rows = some.unbind(1)
                values = windows.between(sums[rows].double(), cut)
                likelihoods = self._likelihoods(values, height - peak, rows, m)
                rotations = self.constants.folding.rotations[half, row]
                likelihoods *= windows.shares(rotations, image + m.start, template, cut)
                total.index_put_(rows[2:], likelihoods.sum(-1), accumulate=True)
                likelihoods *= windows.at_edge(cut)
                at_edge.index_put_(rows[2:], likelihoods.sum(-1), accumulate=True)
        return peak + total.log_(), peak + at_edge.log_()

    @property
    def _reach(self) -> float:
        """Nat below the best pose that all others together do not count."""
        n_poses = self.constants.folding.n_inplanes * self.constants.n_displacements
        return math.log(n_poses / self.constants.rounding)

    def _tops(self, height: Tensor, fits: Tensor, m: slice) -> Tensor:
        """Largest log-likelihood of each rotation."""
        floor = 1 - self.constants.rounding
        return height - self.exponent[m, None] * torch.log1p(-fits.clamp(max=floor))

    def _likelihoods(
        self, values: Tensor, above: Tensor, rows: tuple[Tensor, ...], m: slice
    ) -> Tensor:
        """Of covariances of some rows, in place; of 0 it is so much above that of the peak."""
        scale = self.scale[:, m].expand(above.shape)[rows]
        exponents = self.exponent[m][rows[2]]
        x = values.square_().mul_(scale[:, None]).clamp_(max=1 - self.constants.rounding)
        return x.neg_().log1p_().mul_(-exponents[:, None]).add_(above[rows][:, None]).exp_()

    def _unfilled(self) -> tuple[Tensor, Tensor, Tensor]:
        """Results of `summarise` before they are known: no pose is summed."""
        shape = self.shift.shape
        return (
            self.shift.new_empty(shape),
            self.scale.new_empty(shape),
            self.scale.new_full(shape, -math.inf),
        )
