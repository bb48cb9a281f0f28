"""The search that results came from, by what lies in their folder."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from pathlib import Path

import xarray as xr

from cryolike_dask import labels
from cryolike_dask.analysis.displacements_tried import displacements_tried
from cryolike_dask.analysis.inventory import take_inventory
from cryolike_dask.errors import InputError
from cryolike_dask.geometry.displacements import DisplacementGrid
from cryolike_dask.io.layout import CONFIGURATION, PARAMETERS, LikelihoodFiles
from cryolike_dask.io.records import checksum_of_settings
from cryolike_dask.labels import Device
from cryolike_dask.likelihoods.settings import Settings
from cryolike_dask.runs.integrity import recorded_settings
from cryolike_dask.stacks import TemplateStack

AGAIN = "Give the output folder of a run of this program."


@dataclass(frozen=True, eq=False)
class SearchOfResults:
    """With what, and among what, results were computed.

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


def inputs_to_name(results: xr.Dataset) -> dict[str, str]:
    """Options of commands that need the inputs of results, where nothing beside the results says
    which they are.

    Parameters
    ----------
    results : xarray.Dataset
        As `open_results` gives them, or their summary.

    Returns
    -------
    dict of str
        By kind, "templates" and "particles": the options with what is known of their values, or
        else with words in capitals that stand for these.
    """
    if (Path(str(results.attrs.get("folder") or "")) / CONFIGURATION).is_file():
        return {}
    named = {}
    if not results.attrs.get("folder_templates"):
        named["templates"] = f"--templates STRUCTURES --parameters {PARAMETERS}"
    if not results.attrs.get("folder_particles"):
        files = set()
        if labels.METADATA_FILE in results.coords:
            files = {str(file) for file in results[labels.METADATA_FILE].values if file}
        known = shlex.quote(files.pop()) if len(files) == 1 else "PARTICLES"
        named["particles"] = f"--particles {known}"
    return named


def search_of_results(results: xr.Dataset, device: Device = "auto") -> SearchOfResults:
    """Read with what results were computed.

    Parameters
    ----------
    results : xarray.Dataset
        As `open_results` gives them, or their summary.
    device : "auto" | "cpu" | "cuda"
        To compute on what is computed with them.

    Raises
    ------
    InputError, OutputError
        If they are not in a folder, without a record, or their noise model is not there, damaged,
        or another.
    """
    folder = results.attrs.get("folder")
    if not folder:
        raise InputError("the results do not say in which folder they are", remedy=AGAIN)
    files = LikelihoodFiles(None, None, Path(folder))
    record = take_inventory(replace(files, i_template="all")).record()
    x, y = displacements_tried(results)
    if record is None or not len(x):
        raise InputError(f"{folder} does not say how its results were computed", remedy=AGAIN)
    settings = replace(recorded_settings(files, record), device=device)
    return SearchOfResults(
        files,
        settings,
        DisplacementGrid(x, y),
        checksum_of_settings(record),
    )
