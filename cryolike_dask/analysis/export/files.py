"""Files of an export: refused before anything is written, then written, and beside them the list
of what is left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.analysis.export.particles import ExportedParticles
from cryolike_dask.errors import InputError, OutputError
from cryolike_dask.io.atomic import replacing
from cryolike_dask.io.outputs import NPY, STAR, TEXT, own_output

IntArray = NDArray[np.int64]

KINDS = {".star": STAR, ".cs": NPY, ".txt": TEXT, ".csv": TEXT}


@dataclass(frozen=True)
class Export:
    """A file that was written.

    Attributes
    ----------
    path : Path
    n_written, n_dropped : int
        Particles in the file, and those of its metadata files that are not in it.
    dropped : Path or None
        The list of those, each with the reason.
    noun : str
        Name of what the file has a row for.
    """

    path: Path
    n_written: int
    n_dropped: int
    dropped: Path | None
    noun: str = "particles"


@dataclass(frozen=True, eq=False)
class ExportFiles:
    """Files that are not written yet.

    Attributes
    ----------
    particles : ExportedParticles
    images : dict of str to (Path, (image,) int64)
        Each file, and the positions of the images in it, by structure.
    dropped : Path
        The list of what is left out.
    inputs : sequence of Path
        Files that they are made from.
    write : callable
        Writes some images into a file.
    """

    particles: ExportedParticles
    images: dict[str, tuple[Path, IntArray]]
    dropped: Path
    inputs: Sequence[Path]
    write: Callable[[Path, IntArray], None]

    def claim(self, *, overwrite: bool) -> None:
        """Refuse to replace what is there; what exports start from, even if asked to.

        Raises
        ------
        OutputError
        """
        inputs = {path.resolve() for path in self.inputs}
        paths = [*(path for path, _ in self.images.values()), self.dropped]
        for path in paths:
            if path.resolve() in inputs:
                raise OutputError(
                    "describes the particles themselves", source=path, remedy="Choose another name."
                )
        claim_files(paths, overwrite=overwrite)

    def written(self, *, overwrite: bool) -> dict[str, Export]:
        """Write all of them; give what was written, by structure."""
        self.claim(overwrite=overwrite)
        left_out = self.particles.left_out()
        for path, images in self.images.values():
            self.write(path, images)
        dropped = _write_dropped(self.dropped, left_out)
        return {
            name: Export(path, len(images), len(left_out), dropped)
            for name, (path, images) in self.images.items()
        }


def claim_files(paths: Sequence[Path], *, overwrite: bool) -> None:
    """Refuse to replace files, unless that is asked for and they are of their kind.

    Raises
    ------
    OutputError
    """
    for path in paths:
        own_output(path, KINDS[path.suffix.lower()])
        if path.exists() and not overwrite:
            raise OutputError(
                "is there already",
                source=path,
                remedy="Choose another name, or pass overwrite=True (--overwrite) to replace it.",
            )


def named_with(path: str | Path, suffix: str) -> Path:
    """A path that ends as files of its kind do.

    Raises
    ------
    InputError
    """
    path = Path(path)
    if path.suffix.lower() != suffix:
        raise InputError(
            f"{path} does not end in {suffix}", remedy="Name the file so: programs go by it."
        )
    return path


def _write_dropped(path: Path, lines: Sequence[str]) -> Path | None:
    """Write the list of particles that are left out; without any, remove that of a former
    export."""
    if not lines:
        path.unlink(missing_ok=True)
        return None
    with replacing(path) as file:
        file.write("\n".join(["metadata file\trow (from 0)\treason", *lines, ""]).encode())
    return path
