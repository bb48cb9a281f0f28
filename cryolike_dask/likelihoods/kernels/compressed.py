"""The correlation of every pose, from compressed spectra, reduced while it is in the cache.

Per image, template and displacement the work is a contraction over shells at each angular frequency, and a transform
from angular frequencies to rotations. Six steps make it small:

1. Half of each ring and half of the angular frequencies are all there is (`rotations`).
2. On an orthonormal basis of each angular frequency displaced templates need a third of the coefficients that there
   are shells (`radial_basis`); filtered images are projected on the same basis. What is lost of a template, |R|, is
   measured, and bounds the error of every correlation: |CTF I| |R| / (|CTF T| |I|).
3. The complex contraction is one real product of [Re, Im; -Im, Re] with [Re; Im] for each group of angular
   frequencies: a batched matrix product at the full rate of the device.
4. The transform is four real matrix products in the layout that the contraction leaves (`rotations`).
5. The norm depends on image, template and rotation but not on displacement, so that the largest and the smallest
   product over displacements are taken first, and only they are normalised. All rotations of a few images are in the
   cache at a time; (image, template, displacement, rotation) never is in memory.
6. The likelihood is summed from the same piece, over rotations some displacement of which comes within reach of what
   the image has summed up so far: what is neglected together stays below rounding.

What depends on the images alone or on the templates alone is made once (`prepare_images`, `prepare_templates`). With
no basis (`Frame.basis` empty) all shells are contracted and nothing is lost.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec

import torch
from torch import Tensor

from cryolike_dask.likelihoods.kernels.comparison import Frame
from cryolike_dask.likelihoods.kernels.cross_correlation import mask_terms, refuse_without_power, squared
from cryolike_dask.likelihoods.kernels.log_likelihood import log_likelihood_height
from cryolike_dask.likelihoods.kernels.rotations import angular_spectra, rotate

ALIGNED = 16
"""Columns of matrices are padded to a multiple: products of 257 columns take up to a third longer than those of 272."""
SERIES_BELOW = 0.01
"""Squared correlation below which three terms of -log(1 - x) are exact to single precision."""


@dataclass(frozen=True)
class ImageTerms:
    """What depends on the images alone.

    Attributes
    ----------
    spectra : tuple of Tensor, real, (q, 2 * image, 2 * rank)
        [Re, Im] and [-Im, Re] of the filtered images on each group's basis.
    contrast : Tensor, real, (image, shell * W/2)
    contrast_power : Tensor, complex, (even q, image, shell)
        Spectra of contrast^2, conjugated.
    power, mask, filtered_norm : Tensor, float64, (image,)
        Iyy, Isy, |CTF I|.
    """

    spectra: tuple[Tensor, ...]
    contrast: Tensor
    contrast_power: Tensor
    power: Tensor
    mask: Tensor
    filtered_norm: Tensor

    def __len__(self) -> int:
        return len(self.power)


@dataclass(frozen=True)
class TemplateTerms:
    """What depends on the templates alone.

    Attributes
    ----------
    spectra : tuple of Tensor, real, (q, 2 * rank, column)
        [Re; Im] of the displaced templates on each group's basis; columns are (template, displacement), padded.
    power : Tensor, complex, (even q, shell, template)
        Spectra of |template|^2.
    mask_products : Tensor, real, (template, shell * W/2)
    lost : Tensor, float64, (template,)
        Norm of what the basis leaves out of the worst displacement.
    first : int
        The number of the first template in messages.
    """

    spectra: tuple[Tensor, ...]
    power: Tensor
    mask_products: Tensor
    lost: Tensor
    first: int

    def __len__(self) -> int:
        return len(self.lost)


@dataclass(frozen=True)
class Tile:
    """Some images against some templates: products of spectra, and what turns sums of them into results.

    Products are in scratch memory: the next tile overwrites them, as each piece overwrites the one before.

    Attributes
    ----------
    products : Tensor, real, (W/2 + 1, 2, image, column)
        sum over shells of conj(CTF I) T, less Isx Isy / Iss, so that rotations give the covariance v. Columns are
        (template, displacement), padded.
    shift : Tensor, real, (image, template)
        The correlation is (v + shift) norm.
    norm : Tensor, real, (W/2, image, template)
        By rows of `rotate`.
    scale, height : Tensor, float64, (W/2, image, template)
        The log-likelihood is height - exponent log(1 - v^2 scale).
    exponent : float
    error_bound : Tensor, float64, (image, template)
        Of the correlation, for what the basis leaves out.
    """

    products: Tensor
    shift: Tensor
    norm: Tensor
    scale: Tensor
    height: Tensor
    exponent: float
    error_bound: Tensor
    frame: Frame

    def pieces(self) -> Iterator[tuple[slice, Tensor]]:
        """Give v of a few images at a time: real (2, W/2, image, template, displacement)."""
        n_images, columns = self.products.shape[2:]
        spectra = self.products.flatten(2)
        size = self._piece(columns)
        for start in range(0, n_images, size):
            m = slice(start, min(start + size, n_images))
            part = spectra[:, :, m.start * columns : m.stop * columns]
            sums = rotate(part, self.frame.folding, self.frame.scratch)
            yield m, _by_pairs(sums.view(2, -1, m.stop - m.start, columns), self.shift.shape[1], self.frame)

    def _piece(self, columns: int) -> int:
        """How many images, of so many columns each, make a piece."""
        return max(1, self.frame.piece_bytes // (2 * len(self.products) * columns * self.products.element_size()))

    def correlations(self) -> Iterator[tuple[slice, Tensor]]:
        """Give the correlation of a few images at a time: real (image, template, displacement, rotation)."""
        for m, sums in self.pieces():
            yield m, self._correlations(sums, self.shift[m], self.norm[:, m])

    def locate(self, m: Tensor, s: Tensor) -> Tensor:
        """Find the best poses of some pairs of images and templates: int64 (pair,), over (displacement, rotation)."""
        found = torch.empty_like(m)
        by_pairs = _by_pairs(self.products, self.shift.shape[1], self.frame)
        size = self._piece(by_pairs.shape[-1])
        for start in range(0, len(m), size):
            k = slice(start, start + size)
            pairs = by_pairs[:, :, m[k], s[k]]
            sums = rotate(pairs.flatten(2), self.frame.folding, self.frame.scratch).view(2, -1, *pairs.shape[2:])
            correlation = self._correlations(sums, self.shift[m[k], s[k]], self.norm[:, m[k], s[k]])
            found[k] = correlation.flatten(1).argmax(1)
        return found

    def _correlations(self, sums: Tensor, shift: Tensor, norm: Tensor) -> Tensor:
        correlation = (sums + shift[..., None]) * norm[..., None]
        by_rotation = torch.empty_like(correlation.flatten(0, 1))
        by_rotation[self.frame.folding.rotations.flatten()] = correlation.flatten(0, 1)
        return by_rotation.movedim(0, -1).clamp_(-1, 1)

    def summarise(self, reference: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Reduce over displacements and rotations.

        Parameters
        ----------
        reference : Tensor, float64, (image, template), optional
            Log-likelihoods so far below what counts that poses of that value may be neglected; None: do not sum.

        Returns
        -------
        best : Tensor, real, (image, template)
            The largest correlation.
        fit : Tensor, float64, (image, template)
            The largest v^2 scale: 1 - fit is the part of the image's variance that is left.
        log_likelihood : Tensor, float64, (image, template)
            Summed; minus infinity where no pose is within reach.
        """
        if self.products.is_cuda and self.products.dtype == torch.float32 and find_spec("triton") is not None:
            return self._reduce_fused(integrate=reference is not None)
        return self.reduce(reference)

    def reduce(self, reference: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """As `summarise`, on any device."""
        shape = self.shift.shape
        best, fit = self.shift.new_empty(shape), self.scale.new_empty(shape)
        summed = self.scale.new_full(shape, -math.inf)
        least = None if reference is None else self._least_covariance(reference)
        for m, sums in self.pieces():
            high, low = sums.amax(-1), sums.amin(-1)
            best[m] = ((high + self.shift[m]) * self.norm[:, m]).amax((0, 1))
            farthest = torch.maximum(high, -low)
            fits = farthest.double() ** 2 * self.scale[:, m]
            fit[m] = fits.amax((0, 1))
            if least is None:
                continue
            within_reach = farthest >= least[:, m]
            if within_reach.any():
                summed[m] = self._sum(sums, fits, within_reach, m)
        return best.clamp_(-1, 1), fit, summed

    def _reduce_fused(self, *, integrate: bool) -> tuple[Tensor, Tensor, Tensor]:
        """The same in one kernel on a GPU; it sums every pose, within reach or not."""
        from cryolike_dask.likelihoods.kernels.fused import summarise_fused

        with torch.cuda.device(self.products.device):
            best, fit, summed = summarise_fused(
                *(self.products, self.shift, self.norm, self.scale, self.height, self.exponent),
                self.frame.translation[0].shape[-1],
                self.frame.folding,
                integrate=integrate,
            )
        return best.clamp_(-1, 1), fit, summed

    def _least_covariance(self, reference: Tensor) -> Tensor:
        """|v| from which on a pose's log-likelihood reaches the reference: real (W/2, image, template)."""
        fraction = ((self.height - reference) / self.exponent).clamp_(max=0).exp_()
        return ((1 - fraction) / self.scale).sqrt_().to(self.norm.dtype)

    def _sum(self, sums: Tensor, fits: Tensor, within_reach: Tensor, m: slice) -> Tensor:
        """Sum the likelihood of one piece over rows within reach: the logarithm, float64 (image, template)."""
        floor = 1 - self.frame.rounding
        top = self.height[:, m] - self.exponent * torch.log1p(-fits.clamp(max=floor))
        peak = top.masked_fill(~within_reach, -math.inf).amax((0, 1))
        n_poses = self.frame.folding.n_inplanes * sums.shape[-1]
        within_reach = within_reach & (top >= peak - math.log(n_poses / self.frame.rounding))
        peak = peak.masked_fill(peak == -math.inf, 0)
        above = (self.height[:, m] - peak).masked_fill(~within_reach, -math.inf)
        if sums.dtype == torch.float32 and float(fits.max()) < SERIES_BELOW:
            return peak + self._sum_of_series(sums, above, m).log_()
        scale, above = (v.expand(fits.shape)[within_reach][:, None] for v in (self.scale[:, m], above))
        x = sums[within_reach].double().square_().mul_(scale).clamp_(max=floor)
        of_rows = x.neg_().log1p_().mul_(-self.exponent).add_(above).exp_().sum(-1)
        pair = torch.arange(peak.numel(), device=peak.device).view(peak.shape).expand(fits.shape)[within_reach]
        return peak + torch.zeros_like(peak).flatten().index_add_(0, pair, of_rows).view(peak.shape).log_()

    def _sum_of_series(self, sums: Tensor, above: Tensor, m: slice) -> Tensor:
        """Sum exp(above + p (x + x^2 / 2 + x^3 / 3)), x = v^2 scale, of one piece: float64 (image, template).

        In single precision. Each step is a pass over the cache, so there are few.
        """
        one, a_half = (sums.new_tensor(value) for value in (1, 1 / 2))
        x = sums.square_().mul_(self.scale[:, m, :, None].to(sums.dtype))
        power = torch.add(a_half, x, alpha=1 / 3, out=self.frame.scratch.take("power", *x.shape))
        torch.addcmul(one, power, x, out=power)
        base = (above / math.log(2)).to(x.dtype)[..., None]
        torch.addcmul(base, power, x, value=self.exponent / math.log(2), out=power)
        return power.exp2_().sum(-1).sum((0, 1), dtype=torch.float64)


def _by_pairs(columns: Tensor, n_templates: int, frame: Frame) -> Tensor:
    """View (..., column) as (..., template, displacement), without the padding."""
    n_displacements = frame.translation[0].shape[-1]
    return torch.unflatten(columns[..., : n_templates * n_displacements], -1, (n_templates, n_displacements))


def half(rings: Tensor) -> Tensor:
    """The first half of each ring."""
    return rings[..., : rings.shape[-1] // 2]


def prepare_images(images: Tensor, contrast: Tensor, frame: Frame) -> ImageTerms:
    """Filter and expand images, complex (image, shell, angle), with contrast transfer, real (image, shell, W/2)."""
    weights, n = half(frame.weights), len(images)
    filtered = half(images) * contrast * weights.sqrt()
    rings = filtered[..., frame.folding.angles].permute(2, 1, 0).flatten(1)
    spectra = _spectra(frame, n)
    angular_spectra(rings.real.contiguous(), rings.imag.contiguous(), frame.folding, frame.scratch, spectra.flatten(2))
    blocks = []
    for coefficients in _on_basis(spectra, frame):
        real, imaginary = coefficients.transpose(2, 3).unbind(1)
        parts = torch.stack([torch.cat([real, imaginary], 2), torch.cat([-imaginary, real], 2)], 1)
        blocks.append(parts.flatten(1, 2))
    contrast_power = torch.fft.rfft(contrast**2 * weights.sqrt(), norm="ortho").conj().permute(2, 0, 1)
    return ImageTerms(
        spectra=tuple(blocks),
        contrast=contrast.flatten(1),
        contrast_power=contrast_power.resolve_conj().contiguous(),
        power=(squared(images) * frame.weights).sum((1, 2)).double(),
        mask=mask_terms(frame.mask, images, frame.weights).double(),
        filtered_norm=squared(filtered).double().sum((1, 2)).mul(2).sqrt(),
    )


def prepare_templates(templates: Tensor, frame: Frame, first: int = 0) -> TemplateTerms:
    """Displace, expand and compress templates, complex (template, shell, angle); messages count from `first`."""
    weights = half(frame.weights)
    rooted = half(templates) * weights.sqrt()
    spectra = displaced_spectra(rooted, frame)
    left_out = spectra.new_zeros(spectra.shape[3], dtype=torch.float64)
    # complete spectra are in scratch memory, coefficients are not
    blocks = [block if frame.basis else block.clone() for block in _on_basis(spectra, frame, left_out)]
    return TemplateTerms(
        spectra=tuple(block.flatten(1, 2) for block in blocks),
        power=torch.fft.rfft(squared(rooted) / weights.sqrt(), norm="ortho").permute(2, 1, 0).contiguous(),
        mask_products=2 * ((half(frame.mask).conj() * half(templates)).real * weights).flatten(1),
        lost=_by_pairs(left_out, len(templates), frame).amax(1).sqrt(),
        first=first,
    )


def displaced_spectra(rooted: Tensor, frame: Frame) -> Tensor:
    """Displace and expand half rings, complex (template, shell, W/2).

    Returns
    -------
    Tensor, real, (q, 2, shell, column), in scratch memory
    """
    rings = rooted[..., frame.folding.angles].permute(2, 1, 0)
    n_templates, n_displacements = rings.shape[2], frame.translation[0].shape[-1]
    columns = -(-n_templates * n_displacements // ALIGNED) * ALIGNED
    spectra = _spectra(frame, columns)
    step = max(1, frame.piece_bytes // (len(rings) * columns * spectra.element_size()))
    for start in range(0, rings.shape[1], step):  # a few shells at a time stay in the cache
        n = slice(start, min(start + step, rings.shape[1]))
        shape = len(rings), n.stop - n.start, columns
        real, imaginary = (frame.scratch.take(name, *shape) for name in ("real", "imaginary"))
        for part in (real, imaginary):
            part[..., n_templates * n_displacements :] = 0
        displaced_real, displaced_imaginary = (_by_pairs(part, n_templates, frame) for part in (real, imaginary))
        cosine, sine = (part[:, n, None] for part in frame.translation)
        template_real, template_imaginary = rings[:, n].real[..., None], rings[:, n].imag[..., None]
        torch.mul(cosine, template_real, out=displaced_real).addcmul_(sine, template_imaginary, value=-1)
        torch.mul(cosine, template_imaginary, out=displaced_imaginary).addcmul_(sine, template_real)
        out = spectra.flatten(2)[:, :, n.start * columns : n.stop * columns]
        angular_spectra(real.flatten(1), imaginary.flatten(1), frame.folding, frame.scratch, out)
    return spectra


def _spectra(frame: Frame, columns: int) -> Tensor:
    """Scratch memory for spectra of all shells: real (q, 2, shell, x)."""
    n_shells, n_inplanes = frame.weights.shape
    return frame.scratch.take("spectra", n_inplanes // 2 + 1, 2, n_shells, columns)


def _on_basis(spectra: Tensor, frame: Frame, left_out: Tensor | None = None) -> Iterator[Tensor]:
    """Project real (q, 2, shell, x) on each group's basis: (q, 2, rank, x); add the power left out to `left_out`."""
    if not frame.basis:
        yield spectra
        return
    first = 0
    for basis in frame.basis:
        q = slice(first, first + len(basis) // 2)
        first = q.stop
        group = spectra[q].flatten(0, 1)
        coefficients = torch.bmm(basis, group)
        if left_out is not None:
            rest = torch.baddbmm(group, basis.transpose(1, 2), coefficients, alpha=-1)
            power = rest.square_().sum(1).view(len(basis) // 2, 2, -1).sum(1).double()
            left_out += frame.folding.multiplicity[q] @ power
        yield coefficients.view(len(basis) // 2, 2, *coefficients.shape[1:])


def correlate(images: ImageTerms, templates: TemplateTerms, frame: Frame) -> Tile:
    """Contract some images with some templates.

    Raises
    ------
    ZeroPowerError
        If a filtered template has no power beside a constant offset.
    """
    n_q, columns = frame.weights.shape[1] // 2 + 1, templates.spectra[0].shape[2]
    products = frame.scratch.take("products", n_q, 2, len(images), columns)
    first = 0
    for of_images, of_templates in zip(images.spectra, templates.spectra, strict=True):
        q = slice(first, first + len(of_images))
        first = q.stop
        torch.bmm(of_images, of_templates, out=products[q].view(len(of_images), 2 * len(images), columns))

    n_rows = frame.weights.shape[1] // 2
    power = torch.bmm(images.contrast_power, templates.power).permute(1, 2, 0)
    template_power = 2 * torch.fft.irfft(power, n=n_rows, norm="forward").double()
    refuse_without_power(template_power.amin((0, 2)), "filtered template", templates.first)
    # one product per template, so that equal templates tie exactly
    template_mask = torch.stack([images.contrast @ product for product in templates.mask_products], 1).double()
    offset = template_mask * images.mask[:, None] / frame.mask_power
    template_variance = template_power - (template_mask**2 / frame.mask_power)[..., None]
    refuse_without_power(template_variance.amin((0, 2)), "filtered template", templates.first)
    image_variance = images.power - images.mask**2 / frame.mask_power
    scale = 1 / (template_variance * image_variance[:, None, None])
    norm = scale.sqrt() if frame.zero_normalised else (template_power * images.power[:, None, None]).rsqrt()
    height = log_likelihood_height(
        template_variance * frame.mask_power,
        image_variance[:, None, None] * frame.mask_power,
        frame.mask_power,
        frame.n_degrees_of_freedom,
    )
    _by_pairs(products[0, 0], len(templates), frame).sub_(offset[..., None].to(products.dtype))
    order = frame.folding.rotations[0] % n_rows
    by_rows = (values[..., order].permute(2, 0, 1).contiguous() for values in (scale, height))
    return Tile(
        products=products,
        shift=torch.zeros_like(offset, dtype=products.dtype) if frame.zero_normalised else offset.to(products.dtype),
        norm=norm[..., order].permute(2, 0, 1).to(products.dtype).contiguous(),
        scale=next(by_rows),
        height=next(by_rows),
        exponent=frame.exponent,
        error_bound=images.filtered_norm[:, None] * templates.lost * norm.amax(2),
        frame=frame,
    )
