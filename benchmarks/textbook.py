"""The comparison as it is usually programmed: every angular frequency, every shell, every pose in
memory.

The products of spectra are one einsum over (image, shell, q) and (template, displacement, shell,
q), as in the published program; or, with `batched`, one matrix product for each q, which is what
plain torch does best.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch
from torch import Tensor

IMAGES_PER_BATCH, TEMPLATES_PER_BATCH = (1, 4, 8, 16, 32, 64, 128), (1, 2, 4)
"""What `fastest_batch` tries."""


@dataclass(frozen=True, eq=False)
class Best:
    """What is found, each (image, template): correlation, int64 positions of its pose, float64
    log-likelihood."""

    correlation: Tensor
    displacement: Tensor
    rotation: Tensor
    log_likelihood: Tensor | None


@dataclass(frozen=True, eq=False)
class Images:
    """What depends on the images alone; q is an angular frequency."""

    # complex, (image, shell, q), or (q, image, shell): of the filtered images, conjugated
    spectra: Tensor
    contrast: Tensor  # real, (image, shell x angle)
    contrast_power: Tensor  # complex, (q, image, shell): spectra of contrast^2, conjugated
    power: Tensor  # real, (image, 1, 1, 1)
    mask: Tensor  # real, (image, 1, 1, 1): overlap with the box


@dataclass(frozen=True, eq=False)
class Templates:
    """What depends on the templates alone."""

    spectra: (
        Tensor  # complex, (template, displacement, shell, q), or (q, shell, template, displacement)
    )
    power: Tensor  # complex, (q, shell, template): spectra of |template|^2
    mask: Tensor  # real, (shell x angle, template): products with the box
    n_inplanes: int
    mask_power: float
    n_degrees_of_freedom: float


@dataclass(frozen=True, eq=False)
class Norms:
    """What the likelihood depends on beside the products of images and templates; broadcasts
    with the products."""

    template_power: Tensor
    template_mask: Tensor
    image_power: Tensor
    image_mask: Tensor
    mask_power: float
    n_degrees_of_freedom: float

    @classmethod
    def of(cls, images: Images, templates: Templates) -> Norms:
        """Integrate the power of the filtered templates at every rotation, and their offset at
        zero pose."""
        power = torch.bmm(images.contrast_power, templates.power).permute(1, 2, 0)
        power = torch.fft.irfft(power, n=templates.n_inplanes, norm="forward")[:, :, None]
        mask = (images.contrast @ templates.mask)[:, :, None, None]
        return cls(
            power,
            mask,
            images.power,
            images.mask,
            templates.mask_power,
            templates.n_degrees_of_freedom,
        )

    def correlate_(self, products: Tensor) -> Tensor:
        """Turn products into zero-normalised correlations, in place."""
        template_variance = self.template_power - self.template_mask**2 / self.mask_power
        image_variance = self.image_power - self.image_mask**2 / self.mask_power
        products.sub_(self.template_mask * self.image_mask / self.mask_power)
        return products.div_(torch.sqrt(template_variance * image_variance))

    def log_likelihood(self, products: Tensor) -> Tensor:
        """Weigh every pose, in float64; the same shape as the products."""
        template_mask = self.template_mask.double()
        image_mask = self.image_mask.double()
        n = self.n_degrees_of_freedom
        a = self.template_power.double() * self.mask_power - template_mask**2
        c = image_mask**2 - self.image_power.double() * self.mask_power
        p = n / 2 - 2
        constant = (
            (3 - n) / 2 * math.log(2 * math.pi) - math.log(2) - 0.5 * math.log(self.mask_power)
        )
        constant += math.lgamma(p) + p * math.log(2 * self.mask_power)
        d = (
            products.to(torch.float64, copy=True)
            .mul_(self.mask_power)
            .sub_(template_mask * image_mask)
        )
        d.square_().div_(a).add_(c).neg_().clamp_(min=-torch.finfo(products.dtype).eps * c)
        return d.log_().mul_(-p).add_(constant - 0.5 * a.log())


def prepare_images(
    images: Tensor,
    contrast: Tensor,
    weights: Tensor,
    mask: Tensor | None,
    spectra: Tensor | None = None,
    *,
    batched: bool = False,
) -> Images:
    """Expand a batch of images in angular frequency; or take the spectra that are given."""
    root = weights.sqrt()
    if spectra is None:
        spectra = torch.fft.fft(images * contrast * root, norm="ortho").conj().resolve_conj()
        spectra = spectra.permute(2, 0, 1).contiguous() if batched else spectra
    contrast_power = (
        torch.fft.rfft(contrast**2 * root, norm="ortho").conj().permute(2, 0, 1).contiguous()
    )
    power = (images.abs() ** 2 * weights).sum((1, 2))[:, None, None, None]
    overlap = torch.zeros_like(power)
    if mask is not None:
        overlap[:, 0, 0, 0] = ((mask.conj() * images).real * weights).sum((1, 2))
    return Images(spectra, contrast.flatten(1), contrast_power, power, overlap)


def prepare_templates(
    templates: Tensor,
    translation: Tensor | None,
    weights: Tensor,
    mask: Tensor | None,
    spectra: Tensor | None = None,
    *,
    batched: bool = False,
) -> Templates:
    """Displace a batch of templates and expand them in angular frequency; or take the spectra
    that are given."""
    root = weights.sqrt()
    if spectra is None:
        spectra = torch.fft.fft((templates * root)[:, None] * translation, norm="ortho")
        spectra = spectra.permute(3, 2, 0, 1).contiguous() if batched else spectra
    power = torch.fft.rfft(templates.abs() ** 2 * root, norm="ortho").permute(2, 1, 0).contiguous()
    box = torch.zeros_like(templates[0]) if mask is None else mask
    mask_power = 1.0 if mask is None else float((mask.abs() ** 2 * weights).sum())
    overlap = ((box.conj() * templates).real * weights).flatten(1).T.contiguous()
    return Templates(
        spectra, power, overlap, weights.shape[-1], mask_power, 4 * float(weights.sum())
    )


def compare(
    images: Images, templates: Templates, *, integrate: bool, batched: bool = False
) -> Best:
    """Multiply spectra, go over to rotations, normalise, look for NaN, and reduce."""
    if batched:
        products = torch.bmm(images.spectra, templates.spectra.flatten(2)).permute(1, 2, 0)
        products = products.unflatten(1, templates.spectra.shape[2:])
    else:
        products = torch.einsum("mnq,sdnq->msdq", images.spectra, templates.spectra)
    products = torch.fft.irfft(products, n=templates.n_inplanes, norm="forward")
    norms = Norms.of(images, templates)
    log_likelihood = torch.logsumexp(norms.log_likelihood(products), (2, 3)) if integrate else None
    correlation = norms.correlate_(products)
    if torch.isnan(correlation).any():
        raise ValueError("a correlation is not a number")
    best, at = correlation.flatten(2).max(2)
    return Best(best, at // templates.n_inplanes, at % templates.n_inplanes, log_likelihood)


def best_poses(
    images: Tensor,
    contrast: Tensor,
    templates: Tensor,
    translation: Tensor,
    weights: Tensor,
    *,
    n_images_per_batch: int,
    n_templates_per_batch: int,
    integrate: bool,
    mask: Tensor | None = None,
    batched: bool = False,
) -> Best:
    """Find the best displacement and rotation of every image under every template, and the
    likelihood over all poses.

    `images`, complex, `contrast`, real, `templates` and `translation`, complex, are (image |
    template | displacement, shell, angle), `weights`, real, and `mask`, complex, (shell, angle).
    With the mask the correlation is zero-normalised, otherwise plain. `integrate` sums the
    likelihood of every pose, without a prior; it needs the mask.
    """
    if integrate and mask is None:
        raise ValueError("the likelihood needs the mask")
    pairs = zip(images.split(n_images_per_batch), contrast.split(n_images_per_batch), strict=True)
    batches = [prepare_images(*pair, weights, mask, batched=batched) for pair in pairs]
    columns = []
    for some in templates.split(n_templates_per_batch):
        prepared = prepare_templates(some, translation, weights, mask, batched=batched)
        columns.append(
            joined(
                [
                    compare(batch, prepared, integrate=integrate, batched=batched)
                    for batch in batches
                ],
                0,
            )
        )
    return joined(columns, 1)


def joined(parts: list[Best], dim: int) -> Best:
    """Put results together along images (0) or templates (1)."""
    fields = [[getattr(part, name) for part in parts] for name in vars(parts[0])]
    return Best(*(None if values[0] is None else torch.cat(values, dim) for values in fields))


def fastest_batch(
    images: Tensor,
    contrast: Tensor,
    templates: Tensor,
    translation: Tensor,
    weights: Tensor,
    *,
    integrate: bool,
    mask: Tensor | None = None,
    memory_bytes: int = 2**31,
    batched: bool = False,
) -> tuple[int, int]:
    """Time `compare` on single batches of several sizes and give the images and templates per batch
    of the fastest.

    No batch is larger than the inputs, or takes more than about `memory_bytes`.
    """
    times = {}
    per_pair = len(translation) * weights.shape[-1] * (36 if integrate else 20)
    for s in TEMPLATES_PER_BATCH:
        left = memory_bytes - s * translation.numel() * 24
        sizes = [
            m for m in IMAGES_PER_BATCH if m == 1 or (m <= len(images) and m * s * per_pair <= left)
        ]
        if s > 1 and (s > len(templates) or left < 0):
            break
        some = prepare_templates(templates[:s], translation, weights, mask, batched=batched)
        for m in sizes:
            batch = prepare_images(images[:m], contrast[:m], weights, mask, batched=batched)
            for _ in range(2):  # the first may be spent on getting memory
                start = time.perf_counter()
                compare(batch, some, integrate=integrate, batched=batched)
                times[m, s] = (time.perf_counter() - start) / (m * s)
    return min(times, key=lambda size: times[size])
