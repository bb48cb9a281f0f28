"""Whether recorded poses can hold for all structures of a run: whether these lie in one frame."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from cryolike_dask.errors import InputError
from cryolike_dask.io.sources import Files, innermost
from cryolike_dask.runs.origins import made_from
from cryolike_dask.stacks import TemplateStack
from cryolike_dask.structures.sources import ORIGIN, Projections

OF_ATOMS = {"model", "frame"}
"""What descriptions of models of files, and of frames of trajectories, say."""
REMEDY = (
    "Make parameters with frame (--frame MAP.mrc, or file) if the structures lie in one frame, or "
    'with superpose (--superpose "name CA"), and templates with them; or run one structure at a '
    "time."
)


def refuse_own_means(templates: Iterable[TemplateStack]) -> None:
    """Refuse to search several structures around the same recorded poses where the origin of each
    is the mean of its own atoms. Of templates that do not say what they were made from nothing is
    known.

    Raises
    ------
    InputError
    """
    # decoys that are made of a structure lie where it lies
    own = list(
        dict.fromkeys(
            stack.decoy_of or stack.structure
            for stack in templates
            if OF_ATOMS & (described := _description(stack)).keys() and ORIGIN not in described
        )
    )
    if len(own) > 1:
        raise InputError(
            f"poses are recorded of one map, but {len(own)} structures ({', '.join(own[:3])}"
            f"{', ...' * (len(own) > 3)}) have their origins each in the mean of its own atoms, "
            "and lie in their files as they do",
            remedy=REMEDY,
        )


def _description(templates: TemplateStack) -> dict[str, Any]:
    """What records say of the file that a structure was read from; empty if nothing does."""
    source = innermost(templates.source)
    if isinstance(source, Projections):
        return dict(source.describe(np.arange(0))[0])
    return made_from(Path(source.paths[0])) if isinstance(source, Files) else {}
