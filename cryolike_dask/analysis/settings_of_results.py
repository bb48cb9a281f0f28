"""Settings that results were computed with, by what lies in their folder."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import xarray as xr

from cryolike_dask.analysis.inventory import take_inventory
from cryolike_dask.errors import InputError, InputFileError
from cryolike_dask.geometry.displacements import DisplacementGrid
from cryolike_dask.geometry.noise import NoiseModel
from cryolike_dask.io.layout import LikelihoodFiles
from cryolike_dask.io.noise import noise_checksum, read_noise
from cryolike_dask.io.records import FolderSettings, added_b_factor
from cryolike_dask.labels import Device
from cryolike_dask.likelihoods.settings import Settings
from cryolike_dask.stacks import TemplateStack

AGAIN = "Give the output folder of a run of this program."


@dataclass(frozen=True, eq=False)
class SettingsOfResults:
    """What results were computed with.

    Attributes
    ----------
    files : LikelihoodFiles
        Of the folder of the results.
    settings : Settings
    displacements : DisplacementGrid
    checksum : str
        Of all that is the same for all results of the folder.
    """

    files: LikelihoodFiles
    settings: Settings
    displacements: DisplacementGrid
    checksum: str

    def displaced(self, templates: TemplateStack) -> TemplateStack:
        """Templates with the displacements that were tried."""
        return replace(templates, displacements=self.displacements)


def settings_of_results(results: xr.Dataset, device: Device = "auto") -> SettingsOfResults:
    """Read with which settings results were computed.

    Parameters
    ----------
    results : xarray.Dataset
        As `open_results` gives them, or their summary.
    device : "auto" | "cpu" | "cuda"
        To compute on what is computed with them.

    Raises
    ------
    InputError, InputFileError
        If they are not in a folder, without a record, or their noise model is damaged.
    """
    folder = results.attrs.get("folder")
    if not folder:
        raise InputError("the results do not say in which folder they are", remedy=AGAIN)
    files = LikelihoodFiles(None, None, Path(folder))
    record = take_inventory(replace(files, i_template="all")).record()
    x, y = (results.attrs.get(f"displacements_{axis}_angstrom", ()) for axis in "xy")
    if record is None or not len(x):
        raise InputError(f"{folder} does not say how its results were computed", remedy=AGAIN)
    recorded = record["settings"]
    settings = Settings(
        recorded["conventions"],
        device,
        record["precision"],
        recorded.get("tolerance"),
        noise=_noise(files, recorded),
        b_factor=added_b_factor(recorded),
        degrees_of_freedom=recorded.get("degrees_of_freedom"),
    )
    text = json.dumps(recorded, sort_keys=True)
    return SettingsOfResults(
        files,
        settings,
        DisplacementGrid(np.asarray(x, np.float64), np.asarray(y, np.float64)),
        hashlib.sha256(text.encode()).hexdigest(),
    )


def _noise(files: LikelihoodFiles, recorded: FolderSettings) -> NoiseModel | None:
    """The noise model that a record names; None: white."""
    checksum = recorded.get("noise")
    if checksum is None:
        return None
    if noise_checksum(files.noise) != checksum:
        raise InputFileError(
            "is not the noise model that the results were computed with",
            source=files.noise,
            remedy="Put it back, or run again.",
        )
    return read_noise(files.noise)
