"""Two runs held against each other, image by image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cryolike_dask import labels
from cryolike_dask.analysis import summaries
from cryolike_dask.analysis.calibration_light import SURE
from cryolike_dask.analysis.compare.matched import common_structures, matched_images
from cryolike_dask.analysis.compare.settings import different_settings
from cryolike_dask.analysis.coordinates import without_decoys
from cryolike_dask.analysis.dataset import open_results
from cryolike_dask.analysis.image_names import IMAGE_NAME, called
from cryolike_dask.analysis.pose_errors import angles_degree, directions, symmetry_of
from cryolike_dask.analysis.summaries import summarise_results
from cryolike_dask.errors import InputError

RUN = "run"
CHANGED, COMPARED, N_IMAGES = "changed", "compared", "n_images_both"
RATIO, ANGLE = "log_likelihood_ratio", "direction_difference"
FRAME = ("frame", "conventions", "template_conventions")
ATTRIBUTES = {
    summaries.PROBABILITY: {
        "long_name": "probability of the best structure, all being equally likely before"
    },
    summaries.MARGIN: {"long_name": "log-likelihood of the best over the second", "units": "nat"},
    labels.CROSS_CORRELATION: {"long_name": "correlation with the best projection"},
    COMPARED: {"long_name": "has results under all common structures in both runs"},
    CHANGED: {"long_name": "has another best structure in the second run"},
    N_IMAGES: {"long_name": "images by their best structure in the first and the second run"},
    RATIO: {"long_name": "log-likelihood less that of the reference", "units": "nat"},
    ANGLE: {
        "long_name": "angle between the best viewing directions, the least that looks the same",
        "units": "degree",
    },
}


def compare_runs(run1: str | Path | xr.Dataset, run2: str | Path | xr.Dataset) -> xr.Dataset:
    """Hold the results of two runs against each other, for the images and structures that both
    have.

    Parameters
    ----------
    run1, run2 : path or xarray.Dataset
        Output folders of runs, or what `open_results` gives. Images are matched by image file and
        number, so that rows may differ; where no path is the same, by the names of the files; where
        files are not recorded, by their order. Decoys are left out.

    Returns
    -------
    xarray.Dataset
        In memory. Dims (run, image): `best_structure`, `probability`, `margin` (nat),
        `cross_correlation`; (run, structure, image): `log_likelihood_ratio` over the structure that
        is the best of most images, nat. Along `image`: `compared`, whether it has results under all
        common structures in both; `changed`, whether its best structure is another one; and where
        directions of both runs are of one frame, `direction_difference`, degree, the least of all
        that look the same under the symmetry, NaN where best structures differ. Dims (structure,
        structure_other): `n_images_both`, images by their best structure in the first and in the
        second. Along `setting`: `setting_value` (run, setting), text, of each that differs.
        Coordinate `rlnImageName`. Attributes: `agreement`, the part of the images that were
        compared whose best structure is the same; `n_images`, `n_changed`, `n_changed_sure`, those
        that both runs were sure of (95%); `n_only_first`, `n_only_second`, images of one run alone;
        `matched_by`; `reference`.

    Raises
    ------
    InputError, InputFileError
        If one holds no results, or they have no image or no structure in common.
    """
    opened = [_opened(run) for run in (run1, run2)]
    folders = [str(results.attrs.get("folder") or "") for results in opened]
    if folders[0] and folders[0] == folders[1]:
        raise InputError(
            f"both runs are {folders[0]}", remedy="Give the output folders of two runs."
        )
    matched = matched_images(*opened)
    structures = common_structures(*opened)
    chosen = [
        results.sel({labels.STRUCTURE: structures}).isel({labels.IMAGE: rows})
        for results, rows in zip(opened, (matched.first, matched.second), strict=True)
    ]
    both = [summarise_results(results) for results in chosen]
    best = np.stack([summary[summaries.BEST_STRUCTURE].values.astype(str) for summary in both])
    compared = np.all([summary[summaries.COMPARABLE].values for summary in both], axis=0)
    if not compared.any():
        raise InputError(
            "no image has results under all common structures in both runs",
            remedy="Let the runs end first.",
        )
    changed = compared & (best[0] != best[1])
    counts = np.zeros((len(structures),) * 2, np.int64)
    place = {name: i for i, name in enumerate(structures)}
    for a, b in best[:, compared].T:
        counts[place[a], place[b]] += 1
    reference = structures[int(counts.sum(axis=1).argmax())]
    of_run = (RUN, labels.IMAGE)
    probability = np.stack([summary[summaries.PROBABILITY].values for summary in both])
    variables = {
        summaries.PROBABILITY: (of_run, probability),
        summaries.MARGIN: (of_run, np.stack([s[summaries.MARGIN].values for s in both])),
        labels.CROSS_CORRELATION: (
            of_run,
            np.stack([s[labels.CROSS_CORRELATION].values for s in both]),
        ),
        COMPARED: (labels.IMAGE, compared),
        CHANGED: (labels.IMAGE, changed),
        N_IMAGES: ((labels.STRUCTURE, labels.STRUCTURE_OTHER), counts),
        RATIO: (
            (RUN, labels.STRUCTURE, labels.IMAGE),
            np.stack([_ratio(results, reference) for results in chosen]),
        ),
    }
    angle = _angles(both, best[0] == best[1])
    if angle is not None:
        variables[ANGLE] = (labels.IMAGE, angle)
    settings = different_settings(*opened)
    sure = (probability > SURE).all(axis=0)
    n = int(compared.sum())
    return xr.Dataset(
        {name: (dims, values, ATTRIBUTES[name]) for name, (dims, values) in variables.items()}
        | {
            "setting_value": (
                (RUN, "setting"),
                np.array([[a for _, a, _ in settings], [b for _, _, b in settings]], object),
            )
        },
        coords={
            RUN: np.array(_names(folders), object),
            labels.IMAGE: matched.first,
            labels.STRUCTURE: np.array(structures, object),
            labels.STRUCTURE_OTHER: np.array(structures, object),
            "setting": np.array([name for name, _, _ in settings], object),
            summaries.BEST_STRUCTURE: (of_run, best.astype(object)),
            IMAGE_NAME: (labels.IMAGE, called(both[0]).name),
        },
        attrs={
            "agreement": 1 - int(changed.sum()) / n,
            "n_images": n,
            "n_changed": int(changed.sum()),
            "n_changed_sure": int((changed & sure).sum()),
            "n_only_first": opened[0].sizes[labels.IMAGE] - len(matched.first),
            "n_only_second": opened[1].sizes[labels.IMAGE] - len(matched.second),
            "matched_by": matched.how,
            "reference": reference,
        },
    )


def _opened(run: str | Path | xr.Dataset) -> xr.Dataset:
    results = run if isinstance(run, xr.Dataset) else open_results(run)
    if labels.STRUCTURE in results.coords and labels.STRUCTURE not in results.dims:
        results = results.expand_dims(labels.STRUCTURE)
    return without_decoys(results)


def _names(folders: list[str]) -> list[str]:
    """What runs are called: the last part of their folders, or as much as tells them apart."""
    parts = [Path(folder).parts or (f"run {i}",) for i, folder in enumerate(folders, 1)]
    for n in range(1, max(map(len, parts)) + 1):
        names = ["/".join(of[-n:]) for of in parts]
        if names[0] != names[1]:
            return names
    return ["run 1", "run 2"]


def _ratio(results: xr.Dataset, reference: str) -> NDArray[np.float64]:
    values = results[labels.LOG_LIKELIHOOD_INTEGRATED].transpose(labels.STRUCTURE, labels.IMAGE)
    values = values.astype(np.float64)
    ratio: NDArray[np.float64] = (values - values.sel({labels.STRUCTURE: reference})).values
    return ratio


def _angles(both: list[xr.Dataset], is_same: NDArray[np.bool_]) -> NDArray[np.float64] | None:
    """Angles between best directions; none where these are not known, or of other frames."""
    names = (labels.OPTIMAL_AZIMUTH, labels.OPTIMAL_POLAR)
    if not all(name in summary for summary in both for name in names):
        return None
    frames = [[summary.attrs.get(name) for name in (*FRAME, "symmetry")] for summary in both]
    if frames[0] != frames[1]:
        return None
    first, second = (directions(*(summary[name].values for name in names)) for summary in both)
    angle = angles_degree(first, second, symmetry_of(both[0]))
    return np.where(is_same, angle, np.nan)
