"""Coordinates of results: where each image comes from, and what each structure is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cryolike_dask import labels
from cryolike_dask.errors import InputError
from cryolike_dask.runs.origins import DECOY_OF, Entries

TEXT = {
    labels.IMAGE_FILE: "files",
    labels.METADATA_FILE: "metadataFile",
    labels.MICROGRAPH: "micrograph",
    labels.TRUE_STRUCTURE: "trueStructure",
}
"""Coordinates of text, and the entries of origins that they are made of."""
WHOLE = {
    labels.IMAGE_INDEX: "idxs",
    labels.METADATA_ROW: "metadataRow",
    labels.OPTICS_GROUP: "opticsGroup",
    labels.RANDOM_SUBSET: "randomSubset",
}
REAL = {
    labels.RECORDED_ROT: "angleRotation",
    labels.RECORDED_TILT: "angleTilt",
    labels.RECORDED_PSI: "anglePsi",
    labels.RECORDED_ORIGIN_X: "originX",
    labels.RECORDED_ORIGIN_Y: "originY",
}
OF_STRUCTURE = {labels.TEMPLATE_SOURCE: "source", labels.TEMPLATE_CONVENTIONS: "conventions"}
UNKNOWN, SEVERAL = "unknown", " and "
"""Name of noise or a search that is not recorded; and what stands between several names of one
structure."""
SAME_WHERE_COMPARED = {
    labels.NOISE_MODEL: "noise models",
    labels.SEARCH_METHOD: "methods of search",
}
ALWAYS = (labels.IMAGE_FILE, labels.IMAGE_INDEX, labels.METADATA_FILE, labels.METADATA_ROW)

Selected = TypeVar("Selected", xr.Dataset, xr.DataArray)
Coordinate = tuple[str, NDArray[Any], dict[str, str]]
"""Dimension, values and attributes."""


def image_coordinates(
    stacks: Sequence[int], sizes: Sequence[int], origins: Sequence[Entries]
) -> dict[str, Coordinate]:
    """Coordinates along image; what no stack says is left out, what some do not say is "", -1 or
    NaN."""
    values = {
        labels.IMAGE: np.arange(sum(sizes)),
        labels.STACK: np.repeat(stacks, sizes),
        labels.IMAGE_IN_STACK: np.concatenate([np.arange(n) for n in sizes]),
    }
    for keys, unknown in ((TEXT, ""), (WHOLE, -1), (REAL, np.nan)):
        for name, key in keys.items():
            parts = [entries.get(key) for entries in origins]
            if name in ALWAYS or any(part is not None for part in parts):
                filled = [
                    np.full(n, unknown) if part is None else part
                    for part, n in zip(parts, sizes, strict=True)
                ]
                joined = [_shared(part) for part in filled] if keys is TEXT else filled
                values[name] = np.concatenate(joined)
    moved = [bool(entries.get(labels.RECENTERED) or False) for entries in origins]
    values[labels.RECENTERED] = np.repeat(moved, sizes)
    return {
        name: (labels.IMAGE, array, labels.ATTRIBUTES.get(name, {}))
        for name, array in values.items()
    }


def structure_coordinates(
    names: Sequence[str],
    descriptions: Sequence[Entries],
    noises: Sequence[str],
    search_methods: Sequence[str],
) -> dict[str, Coordinate]:
    """Coordinates along structure: its name, what its templates were made from, what noise was
    taken for, how poses were searched, and what decoys are of, where there are some."""
    texts = {
        labels.STRUCTURE: list(names),
        labels.NOISE_MODEL: list(noises),
        labels.SEARCH_METHOD: list(search_methods),
    } | {
        name: [str(description.get(key, UNKNOWN)) for description in descriptions]
        for name, key in OF_STRUCTURE.items()
    }
    decoys = [str(description.get(DECOY_OF, "")) for description in descriptions]
    if any(decoys):
        texts[labels.DECOY_OF] = decoys
    return {
        name: (labels.STRUCTURE, np.array(values, object), labels.ATTRIBUTES.get(name, {}))
        for name, values in texts.items()
    }


def refuse_mixed(results: xr.Dataset | xr.DataArray) -> None:
    """Refuse to compare structures whose results take noise for different things, or were searched
    by different methods.

    Raises
    ------
    InputError
    """
    for coordinate, what in SAME_WHERE_COMPARED.items():
        if coordinate not in results.coords:
            continue
        recorded = {str(name) for name in np.ravel(results[coordinate].values)}
        names = sorted(recorded - {UNKNOWN})
        if len(names) > 1 or any(SEVERAL in name for name in names):
            raise InputError(
                f"results of different {what} cannot be compared: {'; '.join(names[:4])}",
                remedy="Compute all structures in one output folder.",
            )


def decoys_of(results: xr.Dataset | xr.DataArray) -> NDArray[np.str_]:
    """Of which structure each one is a decoy; "" for those that images may show, (structure,)."""
    names = np.atleast_1d(results[labels.STRUCTURE].values)
    if labels.DECOY_OF not in results.coords:
        return np.full(len(names), "")
    return np.atleast_1d(results[labels.DECOY_OF].values).astype(np.str_)


def without_decoys(results: Selected) -> Selected:
    """Leave out decoys, which images are known not to show; all of them are kept where there is
    nothing else."""
    if labels.STRUCTURE not in results.dims or labels.DECOY_OF not in results.coords:
        return results
    is_decoy = decoys_of(results) != ""
    if is_decoy.all():
        return results
    kept: Selected = results.isel({labels.STRUCTURE: np.flatnonzero(~is_decoy)})
    return kept.drop_vars(labels.DECOY_OF)


def _shared(text: NDArray[np.str_]) -> NDArray[np.object_]:
    """Text whose equal values are one object: paths are long, and many images share each."""
    distinct, which = np.unique(text, return_inverse=True)
    shared: NDArray[np.object_] = distinct.astype(object)[which]
    return shared


def of_images(results: xr.Dataset | xr.DataArray, name: str, otherwise: Any = None) -> NDArray[Any]:
    """A coordinate, one value for each image, of one that was selected too; something else where
    there is none."""
    values = results.coords[name].values if name in results.coords else otherwise
    return np.broadcast_to(np.asarray(values), np.size(results[labels.IMAGE]))
