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
from cryolike_dask.io.sources import ArraySource
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
    values = tensor_on(comparison.images.take(rows["index"]), comparison.precision, device)
    refuse = partial(
        _refuse, constants=constants, source=comparison.images, rows=rows["index"], what="image"
    )
    _refuse_bad(values, constants, refuse)
    images = whitened(values, rows, comparison, constants)
    power = (images.contrast**2).sum((1, 2))
    refuse(power == 0, why="have a contrast transfer of 0 everywhere", error=ZeroPowerError)
    refuse(~power.isfinite(), why="have a contrast transfer that overflows", error=NotFiniteError)
    return images


def whitened(
    values: torch.Tensor, rows: Rows, comparison: Comparison, constants: BlockConstants
) -> WhitenedImages:
    """Divide images that were read, or their half rings where the constants are of half rings, by
    the noise of their groups."""
    from cryolike_dask.likelihoods.kernels.direct import whiten

    rings = comparison.images.rings(rows["index"]) if comparison.conventions.knows_noise else None
    return whiten(
        values,
        _contrast_of_rows(rows, comparison, values.device),
        sent(rows["group"].astype(np.int64), values.device),
        constants,
        None if rings is None else sent(rings, values.device),
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
    source, device = comparison.templates, constants.weights.device
    with ThreadPoolExecutor(1) as reader:

        def read(rows: NDArray[np.int64]) -> torch.Tensor:
            return ready(source.take(rows), device)

        ahead = reader.submit(read, parts[0])
        for indices, following in zip(parts, [*parts[1:], None], strict=True):
            taken = ahead.result()
            if following is not None:
                ahead = reader.submit(read, following)
            values = _typed(sent(taken, device), comparison.precision)
            refuse = partial(
                _refuse, constants=constants, source=source, rows=indices, what="template"
            )
            _refuse_bad(values, constants, refuse)
            yield values


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
