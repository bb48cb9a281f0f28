"""Decoys among the templates of a run: recorded as such, and never alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.errors import InputError
from cryolike_dask.io.identity import InputDescription
from cryolike_dask.runs.integrity import Result
from cryolike_dask.stacks import TemplateStack
from cryolike_dask.structures.decoys.opening import decoys_again
from cryolike_dask.structures.decoys.sources import DECOY, SAID


def described(templates: TemplateStack) -> list[InputDescription]:
    """What templates are made from, and whether they are decoys by themselves."""
    inputs = templates.source.describe(np.arange(len(templates)))
    if templates.decoy_of != templates.structure:  # decoys that are made say it themselves
        return inputs
    return [*inputs, InputDescription(name=DECOY, value=templates.decoy_of)]


def with_decoys(
    templates: Sequence[TemplateStack], results: Sequence[Result]
) -> list[TemplateStack]:
    """Structures, and the decoys that a run made of them by what results say; templates that have
    decoys are left as they are."""
    if any(stack.decoy_of for stack in templates):
        return list(templates)
    said = [text for result in results for text in _said_of(result)]
    return [*templates, *decoys_again(templates, said)]


def is_given_as_decoy(result: Result) -> bool:
    """Whether results are of a decoy that a run was given, and did not make."""
    return any(SAID.fullmatch(text) is None for text in _said_of(result))


def _said_of(result: Result) -> list[str]:
    """What is recorded of the decoy that results are of; nothing of other structures."""
    inputs = result.record["inputs"]
    return [str(described.get("value")) for described in inputs if described.get("name") == DECOY]


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
