"""Decoys among the structures of results, and what competition with them says of each image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import dask
import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cryolike_dask import labels
from cryolike_dask.analysis.coordinates import decoys_of, refuse_mixed
from cryolike_dask.analysis.decoys.competition import Competition, compete
from cryolike_dask.analysis.summaries import BLOCK_BYTES, NOT_RESULTS, positions_of
from cryolike_dask.errors import InputError

Q_VALUE, DECOY_MARGIN = "q_value", "decoy_margin"
N_IMAGES_SHOWN, SHARE_SHOWN, SHARE_ERROR = "n_images_shown", "share_shown", "share_shown_error"
LEVEL = "false_discovery_rate"
LEVELS = (0.01, 0.05)
"""False discovery rates at which images are counted."""
LEAST_LEVEL = LEVELS[0]

ATTRIBUTES = {
    Q_VALUE: {
        "long_name": "least false discovery rate at which the image is held to show a structure"
    },
    DECOY_MARGIN: {
        "long_name": "integrated log-likelihood of the best structure less that of the best decoy",
        "units": "nat",
    },
    N_IMAGES_SHOWN: {"long_name": "images with a q-value of at most this rate"},
    SHARE_SHOWN: {"long_name": "estimated part of images that show one of the structures"},
    SHARE_ERROR: {"long_name": "standard error of the part of images that show a structure"},
}


@dataclass(frozen=True)
class Competitors:
    """Positions among the structures of results: of those that images may show, of decoys."""

    targets: tuple[int, ...]
    decoys: tuple[int, ...]


def decoy_competition(results: xr.Dataset, decoys: Sequence[str] | None = None) -> xr.Dataset:
    """Tell images that show one of the structures from those that show none, by competition with
    decoys.

    Parameters
    ----------
    results : xarray.Dataset
        As `open_results` gives it, of structures and decoys.
    decoys : sequence of str, optional
        Structures that are known to be in no image, by name; others that were computed as decoys
        are then left out. Default: those that were computed as decoys.

    Returns
    -------
    xarray.Dataset
        In memory. Along `image`: q_value, the least false discovery rate at which the image is held
        to show one of the structures, 1 where a decoy fits it better; decoy_margin, the integrated
        log-likelihood of the best structure less that of the best decoy (nat). Both are NaN where a
        result is missing. Along `false_discovery_rate`, 0.01 and 0.05: n_images_shown, how many
        images have a q_value of at most that. Alone: share_shown, the estimated part of images that
        show one of the structures, and its standard error share_shown_error. Coordinates of the
        images are kept.

    Raises
    ------
    InputError
        If these are no results, there are no decoys, or nothing besides.

    Notes
    -----
    Rates hold if an image that shows none of the structures prefers each of them, and each decoy,
    with the same probability. Among R images that T structures have won, and W that D decoys have
    won, above some score, (1 + W) T / (D R) is held to be false. Where structures resemble each
    other more than decoys do, that is too many.
    """
    chosen = competitors(results, decoys)
    rows = [*chosen.targets, *chosen.decoys]
    lazy = da.asarray(_log_likelihood(results).data)[rows]
    lazy = lazy.rechunk({0: -1, 1: "auto"}, block_size_limit=BLOCK_BYTES)
    is_decoy = np.arange(len(rows)) >= len(chosen.targets)
    blocks = lazy.to_delayed().ravel()
    parts = dask.compute(*[dask.delayed(compete)(block, is_decoy) for block in blocks])
    margin, score = (np.concatenate(of) for of in zip(*parts, strict=True))
    found = Competition(len(chosen.targets), len(chosen.decoys), margin, score)
    return _dataset(found, results)


def competitors(results: xr.Dataset, decoys: Sequence[str] | None = None) -> Competitors:
    """Find decoys among the structures of results, and those that images may show.

    Raises
    ------
    InputError
        If there are no decoys, or nothing besides; or one that is named is not there.
    """
    recorded = decoys_of(results) != ""
    if isinstance(decoys, str):
        decoys = [decoys]
    chosen = np.flatnonzero(recorded) if decoys is None else positions_of(results, *decoys)
    is_decoy = np.zeros(len(recorded), np.bool_)
    is_decoy[np.asarray(chosen, np.int64)] = True
    targets = np.flatnonzero(~recorded & ~is_decoy)
    if not is_decoy.any():
        raise InputError(
            "there are no decoys among the structures",
            remedy="Run with decoys=4 (--decoys), or name structures that no image shows.",
        )
    if not len(targets):
        raise InputError(
            f"all {len(recorded)} structure(s) are decoys",
            remedy="Compute those that images may show in the same output folder.",
        )
    return Competitors(tuple(targets.tolist()), tuple(np.flatnonzero(is_decoy).tolist()))


def competition_if_any(results: xr.Dataset) -> xr.Dataset | None:
    """What competition with decoys says, where some were computed beside structures."""
    return decoy_competition(results) if has_decoys(results) else None


def has_decoys(results: xr.Dataset) -> bool:
    """Whether decoys were computed beside structures."""
    recorded = decoys_of(results) != ""
    return bool(recorded.any() and not recorded.all())


def _log_likelihood(results: xr.Dataset) -> xr.DataArray:
    """The integrated log-likelihood, (structure, image)."""
    if not isinstance(results, xr.Dataset) or labels.LOG_LIKELIHOOD_INTEGRATED not in results:
        raise InputError("no results: there is no log-likelihood", remedy=NOT_RESULTS)
    refuse_mixed(results)
    values = results[labels.LOG_LIKELIHOOD_INTEGRATED]
    if labels.IMAGE not in values.dims:
        values = values.expand_dims(labels.IMAGE)
    return values.transpose(labels.STRUCTURE, labels.IMAGE)


def _dataset(found: Competition, results: xr.Dataset) -> xr.Dataset:
    q = found.q_values()
    share, error = found.share_shown()
    of_images: dict[str, NDArray[np.float64]] = {Q_VALUE: q, DECOY_MARGIN: found.margin}
    coords = {
        name: coordinate
        for name, coordinate in results.coords.items()
        if coordinate.dims == (labels.IMAGE,)
    }
    return xr.Dataset(
        {name: (labels.IMAGE, values, ATTRIBUTES[name]) for name, values in of_images.items()}
        | {
            N_IMAGES_SHOWN: (LEVEL, [int((q <= level).sum()) for level in LEVELS]),
            SHARE_SHOWN: ((), share),
            SHARE_ERROR: ((), error),
        },
        coords=coords | {LEVEL: list(LEVELS)},
        attrs={"n_structures": found.n_targets, "n_decoys": found.n_decoys},
    )
