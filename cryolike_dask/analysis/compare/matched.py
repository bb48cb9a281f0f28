"""Images that two results have in common, found by their names."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cryolike_dask import labels
from cryolike_dask.analysis.image_names import image_names
from cryolike_dask.errors import InputError

BY_PATH, BY_FILE, BY_ORDER = "path and number", "name of the file and number", "order"
ONE_OF_EACH = "Give results of the same particles, or of some of them."


@dataclass(frozen=True, eq=False)
class Matched:
    """Rows of two results that are of the same images.

    Attributes
    ----------
    first, second : (match,) int64
        Positions along `image`, in the order of the first.
    how : str
        By what they were matched.
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    how: str


def matched_images(first: xr.Dataset, second: xr.Dataset) -> Matched:
    """Find the images that two results have in common.

    They are matched by image file and number there; where no path is the same, as on another
    machine, by the name of the file alone; where files are not recorded, by their order, if there
    are as many.

    Raises
    ------
    InputError
        If there are none, or an image is there twice.
    """
    names = [image_names(results) for results in (first, second)]
    if not all("@" in name for of in names for name in of):
        n = [results.sizes[labels.IMAGE] for results in (first, second)]
        if n[0] != n[1]:
            raise InputError(
                f"names of images are not recorded, and there are {n[0]:,} and {n[1]:,} images",
                remedy="Give results of as many images, or of a run on a STAR or .cs file.",
            )
        every = np.arange(n[0])
        return Matched(every, every, BY_ORDER)
    short = [[_without_folder(name) for name in of] for of in names]
    for how, (ours, theirs) in ((BY_PATH, names), (BY_FILE, short)):
        common = set(ours) & set(theirs)
        if common:
            for of in (ours, theirs):
                _refuse_twice(of, common, how)
            place = {name: i for i, name in enumerate(theirs)}
            rows = [i for i, name in enumerate(ours) if name in common]
            partners = [place[ours[i]] for i in rows]
            return Matched(np.array(rows, np.int64), np.array(partners, np.int64), how)
    raise InputError(
        f"the runs have no image in common: {names[0][0]} is of the first, {names[1][0]} of the "
        "second",
        remedy=ONE_OF_EACH,
    )


def common_structures(first: xr.Dataset, second: xr.Dataset) -> list[str]:
    """Names of the structures that both have, in the order of the first.

    Raises
    ------
    InputError
        If there are none.
    """
    ours, theirs = (
        [str(name) for name in np.atleast_1d(results[labels.STRUCTURE].values)]
        for results in (first, second)
    )
    common = [name for name in ours if name in set(theirs)]
    if not common:
        raise InputError(
            f"the runs have no structure in common: {', '.join(ours[:4])} are of the first, "
            f"{', '.join(theirs[:4])} of the second",
            remedy="Structures are known by their names, those of their files.",
        )
    return common


def _without_folder(name: str) -> str:
    number, at, file = name.partition("@")
    return f"{number}{at}{file.rpartition('/')[2]}"


def _refuse_twice(names: list[str], common: set[str], how: str) -> None:
    name, n = Counter(name for name in names if name in common).most_common(1)[0]
    if n > 1:
        raise InputError(
            f"image {name} is there {n} times (by {how})",
            remedy="Select each image once: results.isel(image=...).",
        )
