"""Names of image files in a STAR file that is written elsewhere: both RELION and `particles` must
find them.

Names start in the project folder, where RELION is started; whoever reads them looks for it upwards
from the STAR file.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.particles.image_names import split_number

logger = logging.getLogger("cryolike_dask")


def names_seen_from(path: Path, names: NDArray[np.str_], files: NDArray[Any]) -> NDArray[np.str_]:
    """Names as they are where they lead from a STAR file to the images, otherwise with the whole
    path.

    Parameters
    ----------
    path : Path
        The STAR file that is written.
    names : (image,) str
        `N@file`, or a file alone.
    files : (image,) str
        Where the images are; "" where it is not known.
    """
    parts = [split_number(name) for name in names.tolist()]
    pairs = {(name, file) for (_, _, name), file in zip(parts, files.tolist(), strict=True) if file}
    in_full = {pair: pair[1] for pair in pairs if _is_lost(*pair, path)}
    if not in_full:
        return names
    logger.info(
        "%s: %d image file(s) are named with their whole path, since it lies outside of their "
        "project folder",
        path,
        len(set(in_full.values())),
    )
    whole = [
        f"{number}{at}{in_full.get((name, file), name)}"
        for (number, at, name), file in zip(parts, files.tolist(), strict=True)
    ]
    return np.array(whole)


def _is_lost(name: str, file: str, path: Path) -> bool:
    """Whether a name means this file, and does not lead to it from a STAR file."""
    if (
        os.path.isabs(name)
        or os.path.basename(name) != os.path.basename(file)
        or not os.path.isfile(file)
    ):
        return False
    bases = (os.path.join(base, name) for base in path.absolute().parents)
    first = next((candidate for candidate in bases if os.path.isfile(candidate)), None)
    return first is None or not os.path.samefile(first, file)
