"""The noise that results were computed with: what makes their images white."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cryolike_dask.analysis.inventory import take_inventory
from cryolike_dask.conventions import conventions_named
from cryolike_dask.errors import InputError
from cryolike_dask.geometry.noise import LEAST_DEGREES_OF_FREEDOM, NoiseModel
from cryolike_dask.io.layout import LikelihoodFiles
from cryolike_dask.io.noise import model_checksum
from cryolike_dask.io.records import WHITE
from cryolike_dask.likelihoods.graph import whitening_of
from cryolike_dask.likelihoods.settings import Settings
from cryolike_dask.runs.integrity import recorded_settings
from cryolike_dask.stacks import ImageStack


@dataclass(frozen=True, eq=False)
class WhiteningOfImage:
    """What makes the noise of one image white.

    Attributes
    ----------
    factors : (shell,) float64
        1 / sigma; 0 where there is no noise.
    envelope : (shell,) float64
        Besides what its optics say.
    n_degrees_of_freedom : float
    """

    factors: NDArray[np.float64]
    envelope: NDArray[np.float64]
    n_degrees_of_freedom: float

    def whitened(self, values: NDArray[Any]) -> NDArray[Any]:
        """Values on the grid, (shell, angle), divided by the standard deviation of the noise."""
        result: NDArray[Any] = values * self.factors[:, None]
        return result


def settings_of_results(results: xr.Dataset, noise: NoiseModel | None = None) -> Settings:
    """The settings of results that say what noise was taken for.

    Parameters
    ----------
    results : xarray.Dataset
        Results or their summary.
    noise : NoiseModel, optional
        Theirs; default: the one in their folder.

    Raises
    ------
    CryolikeError
        If the noise model is not there, or another.
    """
    attrs = results.attrs
    name, rules = attrs.get("noise", WHITE), conventions_named(str(attrs.get("conventions")))
    if name == WHITE:
        if noise is not None:
            raise InputError("a noise model is given, but the results take noise as white")
        return _white(attrs, rules.knows_noise, Settings(rules.name))
    if noise is None:
        files = LikelihoodFiles(None, None, Path(str(attrs.get("folder", ""))))
        record = take_inventory(files).record() if attrs.get("folder") else None
        if record is None:
            raise InputError(
                "the results do not say where their noise model is", remedy="Give noise."
            )
        return recorded_settings(files, record)
    if model_checksum(noise) != name:
        raise InputError("the noise model that is given is not that of the results")
    # all that is added to the model is the same for all groups
    added = np.ravel(attrs.get("b_factor", 0.0))[0] - noise.b_factor_angstrom2[0]
    n_free = attrs.get("degrees_of_freedom")
    return Settings(
        rules.name,
        noise=noise,
        b_factor=float(added),
        degrees_of_freedom=float(n_free) if isinstance(n_free, (int, float)) else None,
    )


def whitening_of_image(image: ImageStack, settings: Settings) -> WhiteningOfImage:
    """What makes the noise of a stack of one image white."""
    (group,), whitening = whitening_of(image, settings)
    return WhiteningOfImage(
        whitening.factors[group],
        whitening.envelopes[group],
        float(whitening.n_degrees_of_freedom[group]),
    )


def _white(attrs: dict[Any, Any], knows_noise: bool, settings: Settings) -> Settings:
    """Settings of white noise, with the numbers of these results."""
    n_free, b_factor = attrs.get("degrees_of_freedom"), attrs.get("b_factor", 0.0)
    if not knows_noise:
        return settings
    return Settings(
        settings.conventions,
        b_factor=float(b_factor),
        degrees_of_freedom=n_free if n_free and n_free > LEAST_DEGREES_OF_FREEDOM else None,
    )
