"""Back to RELION: the STAR files of a particle set, with the poses and likelihoods of results."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cryolike_dask import labels
from cryolike_dask.analysis.coordinates import of_images
from cryolike_dask.analysis.decoys.of_results import Q_VALUE
from cryolike_dask.analysis.export.files import Export, ExportFiles, named_with
from cryolike_dask.analysis.export.metadata_rows import ONE_BY_ONE, Described, Rows
from cryolike_dask.analysis.export.names import names_seen_from
from cryolike_dask.analysis.export.particles import ExportedParticles, exported_particles
from cryolike_dask.analysis.export.selection import Selection
from cryolike_dask.analysis.export.star_tables import Merged, merge
from cryolike_dask.analysis.summaries import MARGIN, PROBABILITY
from cryolike_dask.errors import InputError, OutputError
from cryolike_dask.io.export_names import DROPPED
from cryolike_dask.io.star import write_star
from cryolike_dask.labels import TemplateSource
from cryolike_dask.particles.image_names import split_names
from cryolike_dask.particles.opening import PathOrPaths
from cryolike_dask.particles.recorded import named
from cryolike_dask.particles.star_columns import StarColumns, open_columns

IntArray = NDArray[np.int64]
Columns = dict[str, NDArray[Any]]

CERTAINTY = {
    PROBABILITY: "cryolikeProbability",
    MARGIN: "cryolikeLogLikelihoodMargin",
    Q_VALUE: "cryolikeQValue",
    labels.RESIDUAL_P_VALUE: "cryolikeResidualPValue",
}
COLUMNS = {
    labels.CROSS_CORRELATION: "cryolikeCrossCorrelation",
    labels.LOG_LIKELIHOOD_INTEGRATED: "cryolikeLogLikelihoodIntegrated",
    labels.LOG_LIKELIHOOD_OPTIMAL: "cryolikeLogLikelihoodOptimal",
    labels.REFINED_LOG_LIKELIHOOD: "cryolikeLogLikelihoodRefined",
    **CERTAINTY,
}
"""Labels of the values that are added to each image."""
OF_RELION = {
    labels.LOG_LIKELIHOOD_INTEGRATED: "rlnLogLikeliContribution",
    labels.BEST_POSE_PROBABILITY: "rlnMaxValueProbDistribution",
    labels.N_SIGNIFICANT_POSES: "rlnNrOfSignificantSamples",
}
"""What RELION calls the same, as far as it is known of the results."""
DECIMALS = 9
"""Decimals of poses."""
STRUCTURE, FORMER_CLASS = "cryolikeAssignedStructure", "cryolikeFormerClassNumber"
ANGLES = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
IN_ANGSTROM, IN_PIXELS = ("rlnOriginXAngst", "rlnOriginYAngst"), ("rlnOriginX", "rlnOriginY")


def export_star(
    results: xr.Dataset,
    path: str | Path,
    *,
    structure: str | None = None,
    template_source: TemplateSource | None = None,
    metadata: PathOrPaths | None = None,
    structures: Sequence[str] | None = None,
    min_probability: float | None = None,
    max_q: float | None = None,
    overwrite: bool = False,
) -> Export:
    """Write the STAR file of the particles with the poses that were found, for RELION.

    Optics table and all columns of the particles stay as they are in the STAR files that the
    particles came from, but for pose, origin and class. Added, in columns that RELION passes by,
    are the assigned structure, likelihoods and correlation under it; and where structures compete
    its probability, and by how many nat it is ahead of the next; and where they compete with decoys
    the q-value. In RELION's own columns:
    rlnLogLikeliContribution, the integrated log-likelihood; and of results with posteriors over
    poses rlnMaxValueProbDistribution and rlnNrOfSignificantSamples.

    Parameters
    ----------
    results : xarray.Dataset
        As `open_results` gives it, or a selection of it.
    path : path
        The STAR file to write. Names of image files stay as they are, from the project folder; in a
        file outside of it they are whole paths.
    structure : str, optional
        Write the poses under this structure; default: those of each image's best structure, by
        integrated likelihood.
    template_source : "atoms" | "map", optional
        What CryoLike made the templates from. Its files do not say, and poses depend on it.
    metadata : path or several, optional
        The STAR file whose rows are the images in order: for stacks that CryoLike made, which do
        not say it, and for files that have moved.
    structures : sequence of str, optional
        Write the poses under the best of these, of images that fit them best; with
        `min_probability`, of images that show one of them so probably, summed over them.
    min_probability : float, optional
        Leave out images whose structure, or `structures` together, are less probable.
    max_q : float, optional
        Leave out images whose q_value (`decoy_competition`) is larger; needs decoys among the
        results.
    overwrite : bool
        Replace the file, never the one that the particles came from.

    Returns
    -------
    Export
        How many particles are in the file; the others are listed, each with the reason, in
        `NAME.dropped.txt`.

    Raises
    ------
    InputError, InputFileError
        If structure, frame or rows are not known, the STAR files are others than those of the run,
        or they cannot be one file; before anything is written.
    OutputError
        If there is such a file.

    Notes
    -----
    Poses are the refined ones, where there are any. Angles and origins refer to the centre of the
    structure: the mean position of the selected atoms, or the middle voxel n // 2 of a map.
    rlnClassNumber is the position of the structure in the results, from 1;
    cryolikeFormerClassNumber is what it was. Several STAR files become one, their optics groups
    renumbered. A file without an optics table (RELION 3.0) stays one, its origins in pixels: RELION
    3.1 and later convert it as they read it. Tables other than optics and particles are not
    written.
    """
    selection = Selection.of(structures, min_probability, max_q)
    return (
        open_star(results, structure, template_source, metadata, selection)
        .one(path)
        .written(overwrite=overwrite)[""]
    )


def export_star_subsets(
    results: xr.Dataset,
    folder: str | Path,
    *,
    template_source: TemplateSource | None = None,
    metadata: PathOrPaths | None = None,
    structures: Sequence[str] | None = None,
    min_probability: float | None = None,
    max_q: float | None = None,
    overwrite: bool = False,
) -> dict[str, Export]:
    """Write one STAR file for each structure, `STRUCTURE.star`, of the particles whose best
    structure it is.

    Parameters
    ----------
    results, template_source, metadata, structures, min_probability, max_q, overwrite
        As for `export_star`.
    folder : path
        Is created. Particles that are in no file are listed in `dropped.txt` there.

    Returns
    -------
    dict of str to Export
        By structure; those that no particle is assigned to have no file.

    Raises
    ------
    InputError, InputFileError, OutputError
        As for `export_star`.
    """
    selection = Selection.of(structures, min_probability, max_q)
    return (
        open_star(results, None, template_source, metadata, selection)
        .subsets(folder)
        .written(overwrite=overwrite)
    )


@dataclass(frozen=True, eq=False)
class StarParticles:
    """Particles that are written to STAR files, and the text of their metadata files."""

    particles: ExportedParticles
    merged: Merged

    def one(self, path: str | Path) -> ExportFiles:
        """One file of all particles that have a structure."""
        path = named_with(path, ".star")
        images = {"": (path, self.particles.images)}
        return self._files(images, path.with_suffix(f".{DROPPED}"))

    def subsets(self, folder: str | Path) -> ExportFiles:
        """Files of structures, one for each that particles are assigned to."""
        folder = Path(folder)
        if folder.exists() and not folder.is_dir():
            raise OutputError("is not a folder", source=folder, remedy="Choose another name.")
        number, structures = self.particles.assignment.number, self.particles.assignment.structures
        assigned = np.unique(number[number >= 0]).tolist()
        names = _file_names([structures[i] for i in assigned])
        images = {
            structures[i]: (folder / f"{name}.star", np.flatnonzero(number == i))
            for i, name in zip(assigned, names, strict=True)
        }
        return self._files(images, folder / DROPPED)

    def _files(self, images: dict[str, tuple[Path, IntArray]], dropped: Path) -> ExportFiles:
        return ExportFiles(self.particles, images, dropped, self.particles.metadata, self.write)

    def write(self, path: Path, images: IntArray) -> None:
        """Write some images. RELION converts a file without an optics table only if it states no
        version."""
        write_star(path, self.tables(path, images), version=30001 if self.merged.optics else None)

    def tables(self, path: Path, images: IntArray) -> dict[str, Columns]:
        """The tables of a STAR file of some images, whose names lead to them from there."""
        assignment, rows = self.particles.assignment, self.particles.rows.joined()[images]
        columns: Columns = {label: text[rows] for label, text in self.merged.particles.items()}
        if "rlnImageName" not in columns:
            columns["rlnImageName"] = self._image_names()[images]
        files = of_images(self.particles.results, labels.IMAGE_FILE, "")[images]
        columns["rlnImageName"] = names_seen_from(path, columns["rlnImageName"], files)
        # those of a former export, in which structures may have competed, and poses been refined
        for label in COLUMNS.values():
            columns.pop(label, None)
        columns |= self._poses(images, rows) | self._classes(images, columns)
        numbers = {**assignment.likelihoods, **assignment.certainty}
        columns |= {COLUMNS[name]: values[images] for name, values in numbers.items()}
        numbers = {**assignment.likelihoods, **assignment.posterior}
        columns |= {OF_RELION[k]: v[images] for k, v in numbers.items() if k in OF_RELION}
        columns[STRUCTURE] = assignment.names(images)
        if not self.merged.optics:
            return {"": columns}
        return {"optics": {**self.merged.optics}, "particles": columns}

    def _poses(self, images: IntArray, rows: IntArray) -> Columns:
        poses = self.particles.assignment.poses.take(images)
        origins, names = poses.origin_angstrom, IN_ANGSTROM
        if not self.merged.optics and not set(IN_ANGSTROM) <= set(self.merged.particles):
            origins, names = origins / self.merged.pixel_size_angstrom()[rows][:, None], IN_PIXELS
        # no negative zero
        values = np.round([*poses.angles_degrees().T, *origins.T], DECIMALS) + 0.0
        return dict(zip((*ANGLES, *names), values, strict=True))

    def _classes(self, images: IntArray, columns: Columns) -> Columns:
        """The class by structure, and what it was before the first export."""
        classes: Columns = {"rlnClassNumber": self.particles.assignment.number[images] + 1}
        former = columns.get(FORMER_CLASS, columns.get("rlnClassNumber"))
        return classes if former is None else {**classes, FORMER_CLASS: former}

    def _image_names(self) -> NDArray[np.str_]:
        """Names of images for STAR files whose images were given beside them."""
        results = self.particles.results
        files = of_images(results, labels.IMAGE_FILE, "")
        index = of_images(results, labels.IMAGE_INDEX, -1)
        if (files == "").any() or (index < 0).any():
            raise InputError(
                f"{self.particles.metadata[0]} has no rlnImageName, and the results do not say "
                "which files the images are",
                remedy="Give a STAR file that names them (metadata=, --metadata).",
            )
        return np.array(
            [f"{i + 1:06d}@{file}" for i, file in zip(index.tolist(), files.tolist(), strict=True)]
        )


def open_star(
    results: xr.Dataset,
    structure: str | None,
    template_source: TemplateSource | None,
    metadata: PathOrPaths | None,
    selection: Selection,
) -> StarParticles:
    """Read everything, and refuse what cannot be written."""
    read = partial(open_columns, need_names=False)
    particles, tables = exported_particles(
        results, structure, template_source, metadata, selection, ".star", read, _described
    )
    _refuse_clashes(particles.results, particles.rows)
    return StarParticles(particles, merge(tables, replaced=(*ANGLES, *IN_ANGSTROM, *IN_PIXELS)))


def _described(path: Path, table: StarColumns) -> Described:
    if "rlnImageName" not in table.particles:
        return Described(path, len(table))
    with named(path):
        names, index = split_names(table.particles["rlnImageName"])
    return Described(path, len(table), np.array(names, np.str_), np.maximum(index, 0))


def _refuse_clashes(results: xr.Dataset, rows: Rows) -> None:
    """Refuse to join files that mean different images by one name."""
    if len(rows.files) == 1:
        return
    paths, meant = of_images(results, labels.IMAGE_FILE, ""), dict[str, str]()
    for i, file in enumerate(rows.files):
        if file.names is None:
            continue
        images = np.flatnonzero((rows.number == i) & (paths != ""))
        names = file.names[rows.row[images]].tolist()
        for name, path in sorted(set(zip(names, paths[images].tolist(), strict=True))):
            if meant.setdefault(name, path) != path:
                raise InputError(
                    f"{name} means {meant[name]} in one STAR file and {path} in another: they "
                    "have different project folders",
                    remedy=ONE_BY_ONE,
                )


def _file_names(structures: Sequence[str]) -> list[str]:
    """Names that any file system takes, distinct."""
    names: list[str] = []
    for structure in structures:
        plain = re.sub(r"[^\w.+-]+", "_", structure).lstrip(".") or "structure"
        taken = [name.lower() for name in names]
        candidates = (plain if k == 0 else f"{plain}_{k}" for k in range(len(names) + 1))
        names.append(next(name for name in candidates if name.lower() not in taken))
    return names
