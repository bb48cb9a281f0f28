"""Whether images are those whose results, and whose noise model, an output folder keeps.

Files that keep their names may hold other particles. Particles that are prepared again have other
pixels but the same micrographs and optics; refined again, other optics but the same pixels. Where
both have changed, they are others.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cryolike_dask.errors import InputFileError, OutputError
from cryolike_dask.io.identity import InputDescription
from cryolike_dask.io.kinds import SUFFIXES
from cryolike_dask.io.layout import METADATA_SUFFIX
from cryolike_dask.io.sources import evenly_spread
from cryolike_dask.particles.provenance import origins_of
from cryolike_dask.runs.origins import Entries, inputs_of, read_origins
from cryolike_dask.runs.run import Run

logger = logging.getLogger("cryolike_dask")

MOST_LOOKED_AT = 16
"""Image stacks that are held against what is recorded of them."""
OF_PARTICLES = ("micrograph", "trueStructure")
"""What is said of particles that preparing and refining them again does not change."""
OF_METADATA = (*SUFFIXES["particles"], METADATA_SUFFIX)
TABLES = ("rows", "optics", "sign", "origins")
"""Arrays that say what the images are; all others hold images."""
INSTEAD = (
    "choose another output folder, or pass overwrite=True and skip_exist=False "
    "(--overwrite --recompute) to estimate the noise and compute all results again."
)


def refuse_other_particles(run: Run) -> None:
    """Refuse images that are other particles than those whose noise model the folder keeps, and
    warn of those that have changed. Stacks that have come since are none of these.

    Raises
    ------
    OutputError
        If all stacks that were there before hold other particles.
    """
    numbers = sorted(k for k in run.images if run.files.origins(k).is_file())
    looked_at = [numbers[i] for i in evenly_spread(len(numbers), MOST_LOOKED_AT)]
    states = {k: state for k in looked_at if (state := _state(run, k)) is not None}
    changed = [k for k, (is_changed, _) in states.items() if is_changed]
    if not changed:
        return
    files = ", ".join(str(one.get("name")) for one in run.inputs.images[changed[0]][:2])
    where = f"image stack {changed[0]} ({files})"
    if all(is_other for _, is_other in states.values()):
        raise OutputError(
            f"is the noise model of other particles: those of {where} have other pixels than when "
            "results were computed, and other micrographs or optics",
            source=run.files.noise,
            remedy=INSTEAD[0].upper() + INSTEAD[1:],
        )
    logger.warning(
        "%s has changed since its results were computed; noise is taken to be as it was before "
        "(%s). If these are other particles, %s",
        where,
        run.files.noise.name,
        INSTEAD,
    )


def _state(run: Run, k: int) -> tuple[bool, bool] | None:
    """Whether the pixels of a stack have changed, and whether they are of other particles; None:
    nothing is known of what was there."""
    try:
        entries = read_origins(run.files.origins(k))
    except InputFileError:
        return None
    there, here = inputs_of(entries), run.inputs.images[k]
    if not there or not all(isinstance(one, dict) for one in there):
        return None
    if _pixels(there) == _pixels(here):
        return False, False
    optics_there, optics_here = _optics(there), _optics(here)
    other_optics = bool(optics_there and optics_here) and optics_there != optics_here
    return True, other_optics or _are_others(entries, run, k)


def _are_others(there: Entries, run: Run, k: int) -> bool:
    """Whether what is known of particles says that they are others, in whatever order."""
    here = origins_of(run.images[k].source)
    return any(
        (before := there.get(key)) is not None
        and key in here
        and Counter(before.tolist()) != Counter(np.asarray(here[key]).tolist())
        for key in OF_PARTICLES
    )


def _pixels(inputs: Sequence[InputDescription]) -> list[str]:
    """The files, or arrays, that hold images."""
    named = [(str(one.get("name")), one) for one in inputs]
    files = [one for name, one in named if "size" in one and Path(name).suffix not in OF_METADATA]
    arrays = [one for name, one in named if "sha256" in one and name not in TABLES]
    return sorted(json.dumps(one, sort_keys=True) for one in files + arrays)


def _optics(inputs: Sequence[InputDescription]) -> list[str]:
    """Checksums of the optics of images, where these are recorded."""
    return [str(one.get("sha256")) for one in inputs if one.get("name") == "optics"]
