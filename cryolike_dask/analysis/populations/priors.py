"""What is held of shares beforehand: the concentrations of a Dirichlet distribution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.errors import InputError, counted, number

OfEach = Sequence[float] | Mapping[str, float]
"""A number for each structure, in their order or by name."""

Floats = NDArray[np.float64]


def concentration(prior: float | OfEach, counts: Floats | None, names: Sequence[str]) -> Floats:
    """The concentrations: of a number the same for all, or on average, as counts divide it.

    Raises
    ------
    InputError
        If they do not fit the structures, or are not positive.
    """
    if isinstance(prior, (Sequence, Mapping, np.ndarray)):
        if counts is not None:
            raise InputError(
                "both a prior of each structure and counts",
                remedy="Give one number as the prior, which counts divide among the structures.",
            )
        return one_of_each("prior", prior, names)
    number("prior", prior, above=0)
    if counts is None:
        return np.full(len(names), float(prior))
    divided: Floats = float(prior) * len(names) * counts / counts.sum()
    return divided


def one_of_each(name: str, values: OfEach, structures: Sequence[str]) -> Floats:
    """A positive number for each structure, in their order.

    Raises
    ------
    InputError
        If they are not as many, name others, or are not positive.
    """
    if isinstance(values, Mapping):
        missing = [s for s in structures if s not in values]
        extra = [str(s) for s in values if s not in structures]
        if missing or extra:
            raise InputError(
                f"{name} lacks {missing[:5]}, and names {extra[:5]} that are no structures",
                remedy="Give one number for each structure.",
            )
        values = [values[s] for s in structures]
    try:
        array = np.asarray(values, np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name}={values!r} are no numbers") from error
    if array.shape != (len(structures),) or not (array > 0).all() or not np.isfinite(array).all():
        raise InputError(
            f"{name}={array.ravel()[:10].tolist()} for {counted(len(structures), 'structure')}",
            remedy="Give one positive number for each structure.",
        )
    return array


def said(concentrations: Floats) -> str:
    """A prior in words."""
    if (concentrations == concentrations[0]).all():
        return f"Dirichlet({concentrations[0]:g})"
    return f"Dirichlet({', '.join(f'{a:.4g}' for a in concentrations)})"
