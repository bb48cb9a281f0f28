"""Decoys among the templates of a run: recorded as such, and never alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.errors import InputError
from cryolike_dask.io.identity import InputDescription
from cryolike_dask.stacks import TemplateStack


def described(templates: TemplateStack) -> list[InputDescription]:
    """What templates are made from, and whether they are decoys by themselves."""
    inputs = templates.source.describe(np.arange(len(templates)))
    if templates.decoy_of != templates.structure:  # decoys that are made say it themselves
        return inputs
    return [*inputs, InputDescription(name="decoy", value=templates.decoy_of)]


def that_images_may_show(templates: Sequence[TemplateStack]) -> NDArray[np.int64]:
    """Positions of all but decoys, which explain nothing of the images.

    Raises
    ------
    InputError
        If there are none.
    """
    shown = np.flatnonzero([not stack.decoy_of for stack in templates])
    if len(templates) and not len(shown):
        raise InputError(
            "all templates are decoys", remedy="Give the structures that images may show too."
        )
    return shown
