"""Particles as metadata files describe them, the same for every program that wrote them."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cryolike_dask.errors import InputError
from cryolike_dask.geometry.optics import OPTICS
from cryolike_dask.particles.locate import distinct

logger = logging.getLogger("cryolike_dask")


@dataclass(frozen=True, eq=False)
class ParticleTable:
    """Particles of a metadata file: one row per particle, in the order of the file.

    Attributes
    ----------
    optics : structured array, `OPTICS`, (image,)
    image_files : tuple of str
        Absolute paths, each once, in the order of their first use.
    file_number : (image,) int64
        Which of `image_files`.
    image_index : (image,) int64
        Position in that file, from 0; -1: the metadata name the file alone, which means its only
        image.
    sign : (image,) float64
        The factor, 1 or -1, that makes particles bright on dark, as far as the metadata say.
    metadata_files : tuple of str
        Absolute paths.
    metadata_number, metadata_row : (image,) int64
        Which of `metadata_files`, and the row there, from 0.
    pixel_size_angstrom : (image,) float64 or None
        Of the stored images. Here and below, None is what the metadata do not say.
    box_size_pixels : (image,) int64 or None
    angles_radian : (image, 3) float64 or None
        rot, tilt and psi as RELION defines them.
    origin_angstrom : (image, 2) float64 or None
        x and y by which the content is to be shifted to be centred.
    random_subset : (image,) int64 or None
        Half-set, 1 or 2.
    micrograph : (image,) str or None
    optics_group : (image,) int64 or None
        As numbered by its own metadata file; where that of another file has other optics, as
        `microscopes` has renumbered it.
    true_structure : (image,) str or None
        Of particles that `simulate_particles` made.
    """

    optics: NDArray[np.void]
    image_files: tuple[str, ...]
    file_number: NDArray[np.int64]
    image_index: NDArray[np.int64]
    sign: NDArray[np.float64]
    metadata_files: tuple[str, ...]
    metadata_number: NDArray[np.int64]
    metadata_row: NDArray[np.int64]
    pixel_size_angstrom: NDArray[np.float64] | None = None
    box_size_pixels: NDArray[np.int64] | None = None
    angles_radian: NDArray[np.float64] | None = None
    origin_angstrom: NDArray[np.float64] | None = None
    random_subset: NDArray[np.int64] | None = None
    micrograph: NDArray[np.str_] | None = None
    optics_group: NDArray[np.int64] | None = None
    true_structure: NDArray[np.str_] | None = None

    def __post_init__(self) -> None:
        n = len(self.optics)
        wanted = {"angles_radian": (n, 3), "origin_angstrom": (n, 2)}
        for name, values in _columns(self).items():
            if values is not None and values.shape != wanted.get(name, (n,)):
                raise InputError(f"{name} has shape {values.shape}, but there are {n} particles")
        if self.optics.dtype != OPTICS:
            raise InputError(
                f"optics have the columns {self.optics.dtype.names}, but {OPTICS.names} are needed"
            )
        for name, numbers, files in (
            ("file_number", self.file_number, self.image_files),
            ("metadata_number", self.metadata_number, self.metadata_files),
        ):
            if n and not 0 <= numbers.min() <= numbers.max() < len(files):
                raise InputError(
                    f"{name} runs from {numbers.min()} to {numbers.max()} for {len(files)} file(s)"
                )

    def __len__(self) -> int:
        return len(self.optics)

    def __repr__(self) -> str:
        described = ", ".join(self.metadata_files)
        return (
            f"<ParticleTable: {len(self)} images in {len(self.image_files)} file(s), described "
            f"by {described}>"
        )

    def described(self) -> str:
        """Numbers of images, micrographs, optics groups and files, as far as the metadata say."""
        of = (
            ""
            if self.micrograph is None
            else f" of {len(set(self.micrograph.tolist()))} micrograph(s)"
        )
        n_groups = 0 if self.optics_group is None else len(np.unique(self.optics_group))
        grouped = f" in {n_groups} optics group(s)" if n_groups else ""
        return f"{len(self)} images{of}{grouped}, from {len(self.image_files)} file(s)"

    def take(self, rows: ArrayLike) -> ParticleTable:
        """Give some particles, by position or one boolean each; only the image files that they
        are in are kept."""
        wanted = np.asarray(rows)
        chosen = np.arange(len(self))[wanted if wanted.size else wanted.astype(np.int64)]
        columns = {
            name: None if values is None else values[chosen]
            for name, values in _columns(self).items()
        }
        files, columns["file_number"] = _used(self.image_files, self.file_number[chosen])
        return dataclasses.replace(self, image_files=files, **columns)  # type: ignore[arg-type]


def concatenate(tables: Sequence[ParticleTable]) -> ParticleTable:
    """Join tables, one after the other; a column that one of them lacks is None, and the log says
    so once.

    Raises
    ------
    InputError
        If there are none.
    """
    if not tables:
        raise InputError("no particle tables to join")
    parts = [_columns(table) for table in tables]
    lacking = [name for name in parts[0] if any(part[name] is None for part in parts)]
    columns = {name: _joined([part[name] for part in parts]) for name in parts[0]}
    partial = [name for name in lacking if any(part[name] is not None for part in parts)]
    if partial:
        logger.info(
            "Left out, because not all of the metadata files have them: %s", ", ".join(partial)
        )
    image_files, columns["file_number"] = _joined_files(
        [(t.image_files, t.file_number) for t in tables]
    )
    metadata_files, columns["metadata_number"] = _joined_files(
        [(t.metadata_files, t.metadata_number) for t in tables]
    )
    return ParticleTable(image_files=image_files, metadata_files=metadata_files, **columns)  # type: ignore[arg-type]


def _columns(table: ParticleTable) -> dict[str, NDArray[Any] | None]:
    names = (field.name for field in dataclasses.fields(table))
    return {
        name: getattr(table, name)
        for name in names
        if name not in ("image_files", "metadata_files")
    }


def _joined(parts: list[NDArray[Any] | None]) -> NDArray[Any] | None:
    present = [part for part in parts if part is not None]
    return np.concatenate(present) if len(present) == len(parts) else None


def _used(
    files: tuple[str, ...], number: NDArray[np.int64]
) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """The files that are used, in the order of their first use, and their numbers."""
    return distinct([files[i] for i in number.tolist()])


def _joined_files(
    parts: list[tuple[tuple[str, ...], NDArray[np.int64]]],
) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    files, renumbered = distinct([file for part_files, _ in parts for file in part_files])
    starts = np.cumsum([0, *(len(part_files) for part_files, _ in parts[:-1])])
    return files, np.concatenate(
        [renumbered[start + number] for start, (_, number) in zip(starts, parts, strict=True)]
    )
