"""From rows of images and templates to tensors on the device: read and checked.

torch is imported inside the functions: the scheduler imports this module too, and does not need
torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.compute.gpu import ready, sent
from cryolike_dask.errors import CryolikeError, InputError, NotFiniteError, ZeroPowerError, listed
from cryolike_dask.io.sources import ArraySource, on_device
from cryolike_dask.likelihoods.comparison import Comparison, Rows
from cryolike_dask.likelihoods.image_formation import contrast_on_device

if TYPE_CHECKING:
    import torch

    from cryolike_dask.likelihoods.kernels.direct import BlockConstants, WhitenedImages


def read_images(rows: Rows, comparison: Comparison, constants: BlockConstants) -> WhitenedImages:
    """Read images, evaluate their contrast transfer, and divide both by the noise.

    Raises
    ------
    NotFiniteError, ZeroPowerError, InputError
        If a value is not finite, an image is constant, or not the transform of a real image; files
        and rows named. On a GPU when results are read (`BlockConstants.checks`).
    """
    device = constants.weights.device
    values, rings = taken(rows["index"], comparison.images, comparison.precision, device)
    refuse = partial(
        _refuse, constants=constants, source=comparison.images, rows=rows["index"], what="image"
    )
    _refuse_bad(values, constants, refuse)
    images = whitened(values, rings, rows, comparison, constants)
    power = (images.contrast**2).sum((1, 2))
    refuse(power == 0, why="have a contrast transfer of 0 everywhere", error=ZeroPowerError)
    refuse(~power.isfinite(), why="have a contrast transfer that overflows", error=NotFiniteError)
    return images


def taken(
    rows: NDArray[np.int64], source: ArraySource, precision: str, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Rows on a device, complex (row, shell, angle). Those that their source makes there come with
    the sums over their rings, where it knows them."""
    import torch

    made = on_device(source, rows, device)
    if made is None:
        return tensor_on(source.take(rows), precision, device), None
    half = _typed(made.half_rings, precision)
    return torch.cat([half, half.conj()], -1), made.ring_sums


def whitened(
    values: torch.Tensor,
    rings: torch.Tensor | None,
    rows: Rows,
    comparison: Comparison,
    constants: BlockConstants,
) -> WhitenedImages:
    """Divide images that were taken, or their half rings where the constants are of half rings, by
    the noise of their groups. `rings`: sums over their rings, as far as they have come with
    them."""
    from cryolike_dask.likelihoods.kernels.direct import whiten

    device = values.device
    if not comparison.conventions.knows_noise:
        rings = None
    elif rings is None:
        known = comparison.images.rings(rows["index"])
        rings = None if known is None else sent(known, device)
    return whiten(
        values,
        _contrast_of_rows(rows, comparison, device),
        sent(rows["group"].astype(np.int64), device),
        constants,
        rings,
    )


def read_templates(
    parts: Sequence[NDArray[np.int64]], comparison: Comparison, constants: BlockConstants
) -> Iterator[torch.Tensor]:
    """Read templates part by part, complex (template, shell, angle), each while the one before is
    in use.

    Raises
    ------
    NotFiniteError, ZeroPowerError, InputError
        As `read_images`.
    """
    source = comparison.templates
    taken_ahead = _taken_ahead(parts, comparison, constants.weights.device)
    for indices, values in zip(parts, taken_ahead, strict=True):
        refuse = partial(_refuse, constants=constants, source=source, rows=indices, what="template")
        _refuse_bad(values, constants, refuse)
        yield values


def _taken_ahead(
    parts: Sequence[NDArray[np.int64]], comparison: Comparison, device: torch.device
) -> Iterator[torch.Tensor]:
    """Templates part by part: made on the device, which is asked before it is done with what was
    before; or read by another thread."""
    source = comparison.templates
    if on_device(source, parts[0][:0], device) is not None:
        for rows in parts:
            yield taken(rows, source, comparison.precision, device)[0]
        return
    with ThreadPoolExecutor(1) as reader:

        def read(rows: NDArray[np.int64]) -> torch.Tensor:
            return ready(source.take(rows), device)

        ahead = reader.submit(read, parts[0])
        for following in [*parts[1:], None]:
            values = ahead.result()
            if following is not None:
                ahead = reader.submit(read, following)
            yield _typed(sent(values, device), comparison.precision)


def _contrast_of_rows(rows: Rows, comparison: Comparison, device: torch.device) -> torch.Tensor:
    """Contrast transfer of half rings, float64, (image, shell, W/2). Half a turn further it is the
    same."""
    grid = comparison.grid
    return contrast_on_device(
        rows,
        grid.spatial_frequencies[:, None],
        grid.angles[: grid.n_inplanes // 2],
        comparison.conventions,
        device,
    )


def tensor_on(values: NDArray[Any], precision: str, device: torch.device) -> torch.Tensor:
    """A copy of an array on a device, in a precision."""
    return _typed(sent(values, device), precision)


def _typed(values: torch.Tensor, precision: str) -> torch.Tensor:
    real = torch_real(precision)
    return values.to(real.to_complex() if values.is_complex() else real)


def torch_real(precision: str) -> torch.dtype:
    """The real torch type of a precision."""
    import torch

    return torch.float64 if precision == "double" else torch.float32


def _refuse_bad(
    values: torch.Tensor, constants: BlockConstants, refuse: Callable[..., None]
) -> None:
    """Refuse values that are not finite, have no power beside a constant offset, or do not
    transform a real image."""
    from cryolike_dask.likelihoods.kernels.cross_correlation import overlaps, powers

    power = powers(values, constants.weights)
    refuse(~power.isfinite(), why="hold NaN or infinite values", error=NotFiniteError)
    refuse(power == 0, why="have no power: they are zero everywhere", error=ZeroPowerError)
    box = powers(constants.mask, constants.weights)
    offset = overlaps(constants.mask, values, constants.weights) ** 2 / box
    refuse(
        power - offset <= 100 * constants.rounding * power,
        why="are constant: nothing is left beside their offset",
        error=ZeroPowerError,
    )
    opposite = values.roll(values.shape[-1] // 2, -1).conj()
    asymmetry = powers(values - opposite, constants.weights)
    refuse(asymmetry > 1e-4 * power, why="are not transforms of real images", error=InputError)


def _refuse(
    bad: torch.Tensor,
    *,
    constants: BlockConstants,
    source: ArraySource,
    rows: NDArray[np.int64],
    what: str,
    why: str,
    error: type[CryolikeError],
) -> None:
    """Refuse rows, naming their files and where they are there."""

    def said(which: NDArray[np.bool_]) -> CryolikeError:
        files: dict[str, list[int]] = {}
        for row in rows[which]:
            path, position = source.locate(int(row))
            files.setdefault(path, []).append(position)
        where = "; ".join(f"{path}: {what}(s) {listed(at)}" for path, at in files.items())
        return error(f"{where} {why}", remedy=f"Leave these {what}s out, or make the file again.")

    constants.checks.refuse(bad, said)
