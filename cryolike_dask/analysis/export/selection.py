"""Which images are exported: by what competition with decoys says of them, and by the probability
of structures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cryolike_dask import labels
from cryolike_dask.analysis.decoys.of_results import Q_VALUE, decoy_competition, has_decoys
from cryolike_dask.analysis.matrix import structure_probability
from cryolike_dask.analysis.summaries import (
    BEST_STRUCTURE,
    positions_of,
    summarise_results,
)
from cryolike_dask.errors import InputError, number

FloatArray = NDArray[np.float64]
Texts = NDArray[np.object_]

JOINT = "+"


@dataclass(frozen=True)
class Selection:
    """What images have to meet.

    Attributes
    ----------
    structures : tuple of str
        Poses are those under the best of these; none: of all.
    min_probability : float or None
        Of the structure of an image, or of these structures together.
    max_q : float or None
        Largest q-value by competition with decoys.
    """

    structures: tuple[str, ...] = ()
    min_probability: float | None = None
    max_q: float | None = None

    @classmethod
    def of(
        cls,
        structures: Sequence[str] | None,
        min_probability: float | None,
        max_q: float | None,
    ) -> Selection:
        """As it is asked for, checked.

        Raises
        ------
        InputError
        """
        for name, value in (("min_probability", min_probability), ("max_q", max_q)):
            if value is not None and number(name, value, at_least=0) > 1:
                raise InputError(f"{name}={value!r} is more than 1", remedy="Give a part of 1.")
        if isinstance(structures, str):
            structures = [structures]
        return cls(tuple(structures or ()), min_probability, max_q)

    def among(self, results: xr.Dataset, structure: str | None) -> xr.Dataset:
        """Results of the structures that are chosen, (structure, image)."""
        if structure is not None and self.structures:
            raise InputError(
                f"structure={structure!r} and structures={list(self.structures)} exclude each "
                "other",
                remedy="Give one of them.",
            )
        if not self.structures:
            return results
        return results.isel({labels.STRUCTURE: positions_of(results, *self.structures)})

    def probability(
        self, results: xr.Dataset, structure: str | None, best: FloatArray
    ) -> FloatArray:
        """The probability that counts, (image,): of the structures that are chosen, together, or of
        each image's best."""
        chosen = self.structures or (() if structure is None else (structure,))
        if not chosen:
            return best
        probability = structure_probability(results)
        of_chosen = probability.isel({labels.STRUCTURE: positions_of(results, *chosen)})
        summed: FloatArray = of_chosen.sum(labels.STRUCTURE, skipna=False).values
        return summed

    def reasons(self, results: xr.Dataset, q: FloatArray | None, probability: FloatArray) -> Texts:
        """Why each image is left out; "" where it is not."""
        reasons = np.full(len(probability), "", object)
        if self.min_probability is not None:
            low = ~(probability >= self.min_probability)
            reasons[low] = f"probability below {self.min_probability:g}"
        elif self.structures:
            best = summarise_results(results)[BEST_STRUCTURE].values
            reasons[~np.isin(best.astype(str), self.structures)] = "fits another structure better"
        if self.max_q is not None and q is not None:
            reasons[~(q <= self.max_q)] = f"q-value above {self.max_q:g}"
        return reasons


def q_values_of(results: xr.Dataset, *, needed: bool) -> FloatArray | None:
    """The q-value of each image; None where there are no decoys.

    Raises
    ------
    InputError
        If there are none, and they are needed.
    """
    if not needed and not has_decoys(results):
        return None
    q: FloatArray = decoy_competition(results)[Q_VALUE].values
    return q


def joined_names(results: xr.Dataset, texts: Sequence[str]) -> list[str]:
    """Names of structures, joined by + as one types them; a + may be part of a name."""
    known = {str(name) for name in np.atleast_1d(results[labels.STRUCTURE].values)}
    return [
        name for text in texts for name in ([text] if text in known else text.split(JOINT)) if name
    ]
