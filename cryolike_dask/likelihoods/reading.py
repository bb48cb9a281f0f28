"""From rows of images and templates to tensors on the device: read and checked.

torch is imported inside the functions: the scheduler imports this module too, and does not need
torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

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
        and rows named.
    """
    device = constants.weights.device
    values = tensor_on(comparison.images.take(rows["index"]), comparison.precision, device)
    _refuse_bad(values, constants, comparison.images, rows["index"], "image")
    images = whitened(values, rows, comparison, constants)
    power = (images.contrast**2).sum((1, 2))
    refuse = partial(_refuse, source=comparison.images, rows=rows["index"], what="image")
    refuse(power == 0, why="have a contrast transfer of 0 everywhere", error=ZeroPowerError)
    refuse(~power.isfinite(), why="have a contrast transfer that overflows", error=NotFiniteError)
    return images


def whitened(
    values: torch.Tensor, rows: Rows, comparison: Comparison, constants: BlockConstants
) -> WhitenedImages:
    """Divide images that were read, or their half rings where the constants are of half rings, by
    the noise of their groups."""
    import torch

    from cryolike_dask.likelihoods.kernels.direct import whiten

    rings = comparison.images.rings(rows["index"]) if comparison.conventions.knows_noise else None
    return whiten(
        values,
        _contrast_of_rows(rows, comparison, values.device),
        torch.from_numpy(rows["group"].astype(np.int64)).to(values.device),
        constants,
        None if rings is None else torch.from_numpy(rings).to(values.device),
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
    with ThreadPoolExecutor(1) as reader:
        ahead = reader.submit(source.take, parts[0])
        for indices, following in zip(parts, [*parts[1:], None], strict=True):
            taken = ahead.result()
            if following is not None:
                ahead = reader.submit(source.take, following)
            values = tensor_on(taken, comparison.precision, constants.weights.device)
            _refuse_bad(values, constants, source, indices, "template")
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
    import torch

    # copied into memory of torch's own alignment: sums over the same values then round the same way
    # every time
    return _typed(torch.from_numpy(np.ascontiguousarray(values)).to(device, copy=True), precision)


def _typed(values: torch.Tensor, precision: str) -> torch.Tensor:
    real = torch_real(precision)
    return values.to(real.to_complex() if values.is_complex() else real)


def torch_real(precision: str) -> torch.dtype:
    """The real torch type of a precision."""
    import torch

    return torch.float64 if precision == "double" else torch.float32


def _refuse_bad(
    values: torch.Tensor,
    constants: BlockConstants,
    source: ArraySource,
    rows: NDArray[np.int64],
    what: str,
) -> None:
    """Refuse values that are not finite, have no power beside a constant offset, or do not
    transform a real image."""
    from cryolike_dask.likelihoods.kernels.cross_correlation import overlaps, powers

    refuse = partial(_refuse, source=source, rows=rows, what=what)
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
    source: ArraySource,
    rows: NDArray[np.int64],
    what: str,
    why: str,
    error: type[CryolikeError],
) -> None:
    """Refuse rows, naming their files and where they are there."""
    if not bool(bad.any()):
        return
    files: dict[str, list[int]] = {}
    for row in rows[bad.cpu().numpy()]:
        path, position = source.locate(int(row))
        files.setdefault(path, []).append(position)
    where = "; ".join(f"{path}: {what}(s) {listed(positions)}" for path, positions in files.items())
    raise error(f"{where} {why}", remedy=f"Leave these {what}s out, or make the file again.")
