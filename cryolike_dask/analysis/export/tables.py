"""Results as tables for a spreadsheet: a row for each particle, and one for each structure."""

from __future__ import annotations

import csv
import io
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cryolike_dask import labels
from cryolike_dask.analysis.coordinates import of_images, without_decoys
from cryolike_dask.analysis.export.assignment import Assignment, assign, with_images
from cryolike_dask.analysis.export.files import Export, claim_files, named_with
from cryolike_dask.analysis.export.selection import Selection
from cryolike_dask.analysis.export.star_export import ANGLES, IN_ANGSTROM, OF_RELION
from cryolike_dask.analysis.image_names import called
from cryolike_dask.analysis.matrix import matrix_of, parts, structure_probability
from cryolike_dask.analysis.populations.written import NONE_OF_THESE, written_populations
from cryolike_dask.analysis.summaries import N_ASSIGNED, PROBABILITY, summarise_results
from cryolike_dask.io.atomic import replacing
from cryolike_dask.io.export_names import CLASSES_TABLE, PARTICLES_TABLE
from cryolike_dask.labels import TemplateSource

RECORDED = {
    "rlnMicrographName": labels.MICROGRAPH,
    "rlnOpticsGroup": labels.OPTICS_GROUP,
    "rlnRandomSubset": labels.RANDOM_SUBSET,
}
"""Columns of what was recorded with the images, as far as it is known."""
NAME, CLASS, STRUCTURE, LEFT_OUT = "rlnImageName", "rlnClassNumber", "structure", "left_out"
MOST_STRUCTURES = 50
"""Structures that have columns of their own: a spreadsheet with more is read by nobody."""

Row = Sequence[Any]
logger = logging.getLogger("cryolike_dask")


def export_csv(
    results: xr.Dataset,
    path: str | Path,
    *,
    structure: str | None = None,
    template_source: TemplateSource | None = None,
    structures: Sequence[str] | None = None,
    min_probability: float | None = None,
    max_q: float | None = None,
    overwrite: bool = False,
) -> Export:
    """Write a table of the particles, as comma-separated values: a row for each image of the
    results, in their order.

    Parameters
    ----------
    results, structure, template_source, structures, min_probability, max_q
        As for `export_star`.
    path : path
        The file to write, NAME.csv.
    overwrite : bool
        Replace the file.

    Returns
    -------
    Export
        How many particles have a structure; of the others the column left_out says why.

    Raises
    ------
    InputError
        As for `export_star`, of which this needs no metadata file.
    OutputError
        If there is such a file.

    Notes
    -----
    RELION's labels where it has some: rlnImageName, as in the STAR file where that is there still;
    rlnMicrographName, rlnOpticsGroup and rlnRandomSubset where they are recorded; rlnClassNumber,
    the position of the structure from 1; rlnAngleRot, rlnAngleTilt and rlnAnglePsi in degrees;
    rlnOriginXAngst and rlnOriginYAngst in angstrom. Otherwise the names that results have:
    structure, probability, margin, cross_correlation, log_likelihood_integrated and
    log_likelihood_optimal (of the assigned structure, nat), q_value where there are decoys. For
    each structure, if there are at most 50, `probability:NAME` and
    `log_likelihood_integrated:NAME`. What is not known is empty.
    """
    selection = Selection.of(structures, min_probability, max_q)
    table = particles_table(results, path, structure, template_source, selection)
    return table.written(overwrite=overwrite)[""]


def export_classes(results: xr.Dataset, path: str | Path, *, overwrite: bool = False) -> Export:
    """Write a table of the structures, as comma-separated values: number, name and share of each.

    Parameters
    ----------
    results : xarray.Dataset
        As `open_results` gives it.
    path : path
        The file to write, NAME.csv.
    overwrite : bool
        Replace the file.

    Returns
    -------
    Export

    Raises
    ------
    InputError
        If these are no results.
    OutputError
        If there is such a file.

    Notes
    -----
    rlnClassNumber, as exported files have it; structure; n_images, how many images fit it best;
    part_of_images. Where `write_populations` has written shares of these results beside them, also
    population, and lower and upper, the ends of its interval; the last row is then the part of
    images that show none of the structures, if decoys have told it.
    """
    return classes_table(results, path).written(overwrite=overwrite)[""]


def write_tables(results: xr.Dataset, folder: Path) -> list[Path]:
    """Write both tables of a run beside its results, in place of those of before."""
    tables = [
        particles_table(results, folder / PARTICLES_TABLE, None, None, Selection()),
        classes_table(results, folder / CLASSES_TABLE),
    ]
    return [table.written(overwrite=True)[""].path for table in tables]


@dataclass(frozen=True, eq=False)
class TableFile:
    """A table that is not written yet.

    Attributes
    ----------
    path : Path
    header : sequence of str
    rows : callable
        Gives the rows, one after the other.
    n_written, n_dropped, noun
        As in `Export`.
    """

    path: Path
    header: Sequence[str]
    rows: Callable[[], Iterable[Row]]
    n_written: int
    n_dropped: int = 0
    noun: str = "particles"

    def claim(self, *, overwrite: bool) -> None:
        """Refuse to replace what is there.

        Raises
        ------
        OutputError
        """
        claim_files([self.path], overwrite=overwrite)

    def written(self, *, overwrite: bool) -> dict[str, Export]:
        """Write it; give what was written."""
        self.claim(overwrite=overwrite)
        with replacing(self.path) as file:
            text = io.TextIOWrapper(file, "utf-8", newline="")
            writer = csv.writer(text, lineterminator="\n")
            writer.writerow(self.header)
            writer.writerows(map(_as_text, row) for row in self.rows())
            text.detach()  # flushed; the file is not this function's to close
        return {"": Export(self.path, self.n_written, self.n_dropped, None, self.noun)}


def particles_table(
    results: xr.Dataset,
    path: str | Path,
    structure: str | None,
    template_source: TemplateSource | None,
    selection: Selection,
) -> TableFile:
    """The table of particles, all that is needed read but the likelihoods of each structure."""
    path = named_with(path, ".csv")
    results = with_images(results)
    assignment = assign(results, structure, template_source, selection)
    columns = _columns(results, assignment)
    names = _own_columns(results)
    header = [*columns, *(f"{PROBABILITY}:{name}" for name in names)]
    header += [f"{labels.LOG_LIKELIHOOD_INTEGRATED}:{name}" for name in names]

    def rows() -> Iterator[Row]:
        for part in parts(results.sizes[labels.IMAGE]):
            of_part = [column[part] for column in columns.values()]
            of_structures = _of_structures(results, part) if names else []
            yield from zip(*of_part, *of_structures, strict=True)

    n_written = int((assignment.number >= 0).sum())
    return TableFile(path, header, rows, n_written, len(assignment.number) - n_written)


def classes_table(results: xr.Dataset, path: str | Path) -> TableFile:
    """The table of structures."""
    path = named_with(path, ".csv")
    results = with_images(results)
    summary = summarise_results(results)
    n_images = summary[N_ASSIGNED].values
    columns: dict[str, Any] = {
        CLASS: range(1, len(n_images) + 1),
        STRUCTURE: summary[labels.STRUCTURE].values,
        "n_images": n_images,
        "part_of_images": n_images / max(1, n_images.sum()),
    }
    shares, last = written_populations(results), []
    if shares is not None:
        shares = shares.reindex({labels.STRUCTURE: summary[labels.STRUCTURE].values})
        lower, upper = shares[labels.POPULATION_INTERVAL].values.T
        columns |= {
            labels.POPULATION: shares[labels.POPULATION].values,
            "lower": lower,
            "upper": upper,
        }
        if labels.POPULATION_OF_NONE in shares:
            interval = shares[labels.POPULATION_OF_NONE_INTERVAL].values
            none = float(shares[labels.POPULATION_OF_NONE])
            last = [("", NONE_OF_THESE, "", "", none, *interval)]
    rows = [*zip(*columns.values(), strict=True), *last]
    return TableFile(path, [*columns], lambda: rows, len(n_images), noun="structures")


def _columns(results: xr.Dataset, assignment: Assignment) -> dict[str, NDArray[Any]]:
    """One value for each image, empty where the image is left out."""
    is_written = assignment.number >= 0
    columns: dict[str, NDArray[Any]] = {NAME: called(results).name}
    for label, name in RECORDED.items():
        if name in results.coords:
            columns[label] = _unless_unknown(of_images(results, name, ""))
    numbers = np.where(is_written, assignment.number + 1, 0).astype(object)
    assigned = np.where(is_written, np.array(assignment.structures)[assignment.number], "")
    columns |= {CLASS: np.where(is_written, numbers, ""), STRUCTURE: assigned}
    numbers_of_images = {**assignment.certainty, **assignment.likelihoods}
    poses = assignment.poses
    numbers_of_images |= dict(zip(ANGLES, poses.angles_degrees().T, strict=True))
    numbers_of_images |= dict(zip(IN_ANGSTROM, poses.origin_angstrom.T, strict=True))
    for name, values in assignment.posterior.items():
        numbers_of_images[OF_RELION.get(name, name)] = values
    columns |= {
        name: np.where(is_written, values.astype(np.float64), np.nan)
        for name, values in numbers_of_images.items()
    }
    columns[LEFT_OUT] = assignment.missing
    return columns


def _own_columns(results: xr.Dataset) -> list[str]:
    """Names of the structures that have columns of their own."""
    kept = without_decoys(results)
    names = [str(name) for name in np.atleast_1d(kept[labels.STRUCTURE].values)]
    if len(names) > MOST_STRUCTURES:
        logger.info(
            "the table has no columns of each of %d structures; cryolike-dask matrix --csv writes "
            "them",
            len(names),
        )
        return []
    return names


def _of_structures(results: xr.Dataset, part: slice) -> list[NDArray[np.float64]]:
    """Probability of each structure for some images, then its log-likelihood."""
    of_part = results[[labels.LOG_LIKELIHOOD_INTEGRATED]].isel({labels.IMAGE: part}).load()
    matrix = matrix_of(of_part, labels.LOG_LIKELIHOOD_INTEGRATED).values.astype(np.float64)
    return [*structure_probability(of_part).values, *matrix]


def _unless_unknown(values: NDArray[Any]) -> NDArray[Any]:
    """Recorded values; whole numbers that are not known are empty."""
    if values.dtype.kind not in "iu":
        return values
    return np.where(values < 0, "", values.astype(object))


def _as_text(value: Any) -> Any:
    """A number with the digits that it has; one that is not known is empty."""
    if not isinstance(value, float):
        return value
    return "" if math.isnan(value) else f"{value + 0.0:.12g}"
