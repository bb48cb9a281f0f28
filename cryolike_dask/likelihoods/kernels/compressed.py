"""The correlation of every pose, from compressed spectra, reduced while it is in the cache.

Per image, template and displacement the work is a contraction over shells at each angular
frequency, and a transform from angular frequencies to rotations. Six steps make it small:

1. Half of each ring and half of the angular frequencies are all there is (`rotations`).
2. On an orthonormal basis of each angular frequency displaced templates need a third of the
   coefficients that there are shells (`radial_basis`, `displaced`); filtered images are projected
   on the same basis. What is lost of a template, |R|, is measured, and bounds the error of every
   correlation: |CTF I| |R| / (|CTF T| |I|).
3. The complex contraction is one real product of [Re, Im; -Im, Re] with [Re; Im] for each group
   of angular frequencies: a batched matrix product at the full rate of the device. On tensor cores
   its operands are split, and it is three times as long (`split`).
4. The transform is done in the layout that the contraction leaves: an FFT of many columns at a
   time on CPUs, four real matrix products on GPUs (`rotations`).
5. The norm depends on image, template and rotation but not on displacement, so that the largest
   and the smallest product over displacements are taken first, and only they are normalised. All
   rotations of a few images are in the cache at a time; (image, template, displacement, rotation)
   never is in memory.
6. The likelihood is summed from the same piece, over rotations some displacement of which comes
   within reach of what the image has summed up so far: what is neglected together stays below
   rounding.

What depends on the images alone or on the templates alone is made once (`prepare_images`,
`prepare_templates`). With no basis (`BlockConstants.basis` empty) all shells are contracted and
nothing is lost. Steps 4 to 6 are compiled loops on CPUs (`fused_cpu`), and one Triton kernel on
NVIDIA GPUs (`fused_cuda`); on CPUs displaced templates are made in compiled loops too
(`displaced_cpu`).

Sources: recombination of shells, Rangan and Greengard, Inverse Problems 39, 015003 (2023); the rank
that displacements need, Rangan, Spivak, Anden and Barnett, Inverse Problems 36, 024001 (2020).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryolike_dask.compute.gpu import sent
from cryolike_dask.likelihoods.kernels import split, with_triton
from cryolike_dask.likelihoods.kernels.columns import by_templates
from cryolike_dask.likelihoods.kernels.cross_correlation import squared, without_power
from cryolike_dask.likelihoods.kernels.direct import BlockConstants, WhitenedImages
from cryolike_dask.likelihoods.kernels.displaced import (
    compressed_templates,
    left_out,
    on_basis,
    spectra_memory,
)
from cryolike_dask.likelihoods.kernels.log_likelihood import NoiseTerms
from cryolike_dask.likelihoods.kernels.norms import Norms, norms_by_torch
from cryolike_dask.likelihoods.kernels.rotations import angular_spectra
from cryolike_dask.likelihoods.kernels.tile import Tile


@dataclass(frozen=True)
class ImageTerms:
    """Terms that depend on the images alone; where operands are split, of images that are
    multiplied by powers of two (`split.scales`).

    Attributes
    ----------
    spectra : tuple of Tensor, real, (q, 2 * image, 2 * rank)
        [Re, Im] and [-Im, Re] of the filtered images on each group's basis. Split, three times as
        many columns, padded.
    contrast_of_mask : Tensor, real, (image, shell * W/2)
    contrast_power : Tensor, complex, (even q, image, shell)
        Spectra of contrast^2, conjugated.
    power, mask, filtered_norm : Tensor, float64, (image,)
        Iyy, Isy, |CTF I|.
    noise : NoiseTerms
        Of each image.
    """

    spectra: tuple[Tensor, ...]
    contrast_of_mask: Tensor
    contrast_power: Tensor
    power: Tensor
    mask: Tensor
    filtered_norm: Tensor
    noise: NoiseTerms

    def __len__(self) -> int:
        return len(self.power)

    def take(self, rows: NDArray[np.int64]) -> ImageTerms:
        """Some of the images."""
        chosen = sent(rows, self.power.device)
        return ImageTerms(
            spectra=tuple(
                _both_parts(group).index_select(2, chosen).flatten(1, 2) for group in self.spectra
            ),
            contrast_of_mask=self.contrast_of_mask[chosen],
            contrast_power=self.contrast_power[:, chosen],
            power=self.power[chosen],
            mask=self.mask[chosen],
            filtered_norm=self.filtered_norm[chosen],
            noise=self.noise.at(chosen),
        )

    @classmethod
    def joined(cls, parts: Sequence[ImageTerms]) -> ImageTerms:
        """All images of several."""
        groups = zip(*(part.spectra for part in parts), strict=True)
        return cls(
            spectra=tuple(
                torch.cat([_both_parts(part) for part in group], 2).flatten(1, 2)
                for group in groups
            ),
            contrast_of_mask=torch.cat([part.contrast_of_mask for part in parts]),
            contrast_power=torch.cat([part.contrast_power for part in parts], 1),
            power=torch.cat([part.power for part in parts]),
            mask=torch.cat([part.mask for part in parts]),
            filtered_norm=torch.cat([part.filtered_norm for part in parts]),
            noise=NoiseTerms.joined([part.noise for part in parts]),
        )


def _both_parts(spectra: Tensor) -> Tensor:
    """View (q, 2 * image, ...) as (q, 2, image, ...)."""
    return spectra.view(len(spectra), 2, -1, spectra.shape[2])


@dataclass(frozen=True)
class TemplateTerms:
    """Terms that depend on the templates alone; where operands are split, of templates that are
    multiplied by powers of two.

    Attributes
    ----------
    spectra : tuple of Tensor, real, (q, 2 * rank, column)
        [Re; Im] of the displaced templates on each group's basis; columns are (template,
        displacement), padded (`columns`). Split, three times as many rows, padded.
    power : Tensor, complex, (even q, shell, template)
        Spectra of |template|^2.
    mask_products : Tensor, real, (template, shell * W/2)
    lost : Tensor, float64, (template,)
        Norm of what coefficients leave out of the worst displacement (`displaced`), and of what
        split operands round.
    log_scale : Tensor, float64, (template,)
        Logarithm of what each is multiplied by.
    first : int
        The number of the first template in messages.
    """

    spectra: tuple[Tensor, ...]
    power: Tensor
    mask_products: Tensor
    lost: Tensor
    log_scale: Tensor
    first: int

    def __len__(self) -> int:
        return len(self.lost)


def half(rings: Tensor) -> Tensor:
    """First half of each ring."""
    return rings[..., : rings.shape[-1] // 2]


def prepare_images(images: WhitenedImages, constants: BlockConstants) -> ImageTerms:
    """Filter and expand images."""
    weights, n = half(constants.weights), len(images)
    # half of each ring: the other is its conjugate, since images are real. The root of the weights
    # goes with each side of a product, so that templates carry the other root, and a whitening of
    # their own, which is the same for all groups of images
    metric = constants.template_whitening
    roots = weights.sqrt() * torch.where(metric > 0, 1 / metric, 0)[:, None]
    filtered = half(images.values) * images.contrast * roots
    way, norms = split.way_of(weights), _norms(filtered)
    scales = torch.ones_like(norms)
    if way.is_split:
        scales = split.scales(norms)
        filtered = filtered * _of_each(scales, weights)
    rings = filtered[..., constants.folding.angles].permute(2, 1, 0).flatten(1)
    spectra = spectra_memory(constants, n)
    angular_spectra(
        rings.real.contiguous(),
        rings.imag.contiguous(),
        constants.folding,
        constants.scratch,
        spectra.flatten(2),
    )
    groups = []
    for coefficients in on_basis(spectra, constants):
        # the conjugate of the image, times a template whose parts stand one below the other: the
        # first row gives the real part of the product, the second the imaginary one
        real, imaginary = coefficients.transpose(2, 3).unbind(1)
        parts = torch.stack([torch.cat([real, imaginary], 2), torch.cat([-imaginary, real], 2)], 1)
        groups.append(split.columns_of_images(parts.flatten(1, 2), way))
    # |image|^2 of the model needs CTF^2 alone, which repeats after half a turn: even q only
    contrast_power = (
        torch.fft.rfft(images.contrast**2 * weights.sqrt(), norm="ortho").conj().permute(2, 0, 1)
    )
    return ImageTerms(
        spectra=tuple(groups),
        contrast_of_mask=images.contrast_of_mask.flatten(1),
        contrast_power=contrast_power.resolve_conj().contiguous(),
        power=images.power * scales**2,
        mask=images.mask * scales,
        filtered_norm=norms * scales,
        noise=images.noise.of_scaled(scales),
    )


def prepare_templates(
    templates: Tensor, constants: BlockConstants, first: int = 0
) -> TemplateTerms:
    """Displace, expand and compress templates, complex (template, shell, angle); messages count
    from `first`."""
    weights, rings = half(constants.weights), half(templates)
    # all that depends on a template alone is made here, once for all images of the block
    rooted = rings * weights.sqrt()
    in_metric = rooted * constants.template_whitening[:, None]
    way, log_scale = split.way_of(weights), torch.zeros_like(weights[0, 0], dtype=torch.float64)
    if way.is_split:
        norms = _norms(in_metric)
        scales = split.scales(norms)
        log_scale = scales.log()
        rings, rooted, in_metric = (
            part * _of_each(scales, weights) for part in (rings, rooted, in_metric)
        )
    lost = left_out(in_metric, constants)
    spectra = tuple(
        split.rows_of_templates(group.flatten(1, 2), way)
        for group in compressed_templates(in_metric, constants)
    )
    if way.is_split:
        lost = lost + split.relative_error(spectra) * norms * scales
    return TemplateTerms(
        spectra=spectra,
        power=torch.fft.rfft(squared(rooted) / weights.sqrt(), norm="ortho")
        .permute(2, 1, 0)
        .contiguous(),
        mask_products=2 * ((half(constants.mask).conj() * rings).real * weights).flatten(1),
        lost=lost,
        log_scale=log_scale.expand(len(lost)),
        first=first,
    )


def _norms(rings: Tensor) -> Tensor:
    """Of half rings, complex (x, shell, W/2), and the other halves: float64 (x,)."""
    return squared(rings).double().sum((1, 2)).mul(2).sqrt()


def _of_each(scales: Tensor, weights: Tensor) -> Tensor:
    """Scales as factors of half rings."""
    return scales.to(weights.dtype)[:, None, None]


def correlate(images: ImageTerms, templates: TemplateTerms, constants: BlockConstants) -> Tile:
    """Contract some images with some templates.

    The algebra is `zero_normalised_correlation` and `log_likelihood_of_poses` of the direct sums,
    taken apart by what each term depends on: those would normalise every pose, this normalises
    only the best ones (tests/likelihoods/test_compressed.py compares both).

    Raises
    ------
    ZeroPowerError
        If a filtered template has no power beside a constant offset; on a GPU when results are read
        (`BlockConstants.checks`).
    """
    n_q, columns = constants.weights.shape[1] // 2 + 1, templates.spectra[0].shape[2]
    # scratch memory: each tile overwrites the one before, which has been reduced by then
    products = constants.scratch.take("products", n_q, 2, len(images), columns)
    first = 0
    way = split.way_of(products)
    with split.multiplying(way):
        for image_spectra, template_spectra in zip(images.spectra, templates.spectra, strict=True):
            q = slice(first, first + len(image_spectra))
            first = q.stop
            # real and imaginary parts are rows: one real product in place of four
            of_group = products[q].view(len(image_spectra), 2 * len(images), columns)
            split.multiply(image_spectra, template_spectra, of_group)

    # Ixx turns with the template, but is the same for all displacements; it has even q only, since
    # |T|^2 and CTF^2 are the same half a turn further: W/2 rotations are all there is
    power_spectra = torch.bmm(images.contrast_power, templates.power).permute(1, 2, 0)
    found = norms(
        2 * torch.fft.irfft(power_spectra, n=constants.weights.shape[1] // 2, norm="forward"),
        _offsets(images.contrast_of_mask, templates.mask_products),
        (images.power, images.mask, images.noise),
        constants,
    )
    constants.checks.refuse(
        found.is_empty, partial(without_power, what="filtered template", first=templates.first)
    )
    # the offset is the same at every rotation, so that its place is q = 0: taken away here, sums
    # over q are the covariance that the likelihood needs
    zero_frequency = by_templates(products[0, 0], len(templates), constants)
    zero_frequency.sub_(found.offset[..., None].to(products.dtype))
    return Tile(
        products=products,
        shift=found.shift,
        norm=found.norm,
        scale=found.scale,
        # templates are as likely as before they were multiplied
        height=found.height + templates.log_scale if way.is_split else found.height,
        exponent=images.noise.exponent,
        # Cauchy and Schwarz: no product of the image with what is lost of a template is larger
        error_bound=images.filtered_norm[:, None] * templates.lost * found.largest,
        constants=constants,
    )


def _offsets(contrast_of_mask: Tensor, mask_products: Tensor) -> Tensor:
    """Isx, (image, template): a product for each template, so that equal templates tie exactly."""
    if contrast_of_mask.is_cpu:
        return torch.stack([contrast_of_mask @ product for product in mask_products], 1)
    of_templates = contrast_of_mask.expand(len(mask_products), -1, -1)
    return torch.bmm(of_templates, mask_products[..., None])[..., 0].T


def norms(
    template_power: Tensor,
    template_mask: Tensor,
    image_terms: tuple[Tensor, Tensor, NoiseTerms],
    constants: BlockConstants,
) -> Norms:
    """Norms as `norms_by_torch` says, on a GPU in one kernel if that works here."""
    given = template_power, template_mask, image_terms, constants
    in_single = constants.weights.dtype == torch.float32
    if template_power.is_cpu or not in_single or not with_triton.is_usable():
        return norms_by_torch(*given)

    def by_kernel() -> Norms:
        from cryolike_dask.likelihoods.kernels.norms_cuda import norms_in_one_kernel

        return norms_in_one_kernel(*given)

    return with_triton.on_device(template_power.device, by_kernel, lambda: norms_by_torch(*given))
