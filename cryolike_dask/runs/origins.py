"""Origins of results, kept beside them: a small file for each image stack, and one for each
structure.

Results can be read, plotted and exported where the inputs are not. A description belongs to results
if it says that it was made of their inputs; the archive itself tells damage, by its checksums.
Several records share it, and so it is not listed in them: it may be written again, from another
place, while they stay as they are.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.errors import InputError, InputFileError, OutputError, number
from cryolike_dask.io.archives import read_archive, write_archive
from cryolike_dask.io.layout import LikelihoodFiles, metadata_file
from cryolike_dask.io.records import AGAIN
from cryolike_dask.io.sources import Files, innermost
from cryolike_dask.io.stacks import STACK_OPTIONAL
from cryolike_dask.particles.provenance import PER_IMAGE, origins_of
from cryolike_dask.stacks import ImageStack, TemplateStack

if TYPE_CHECKING:  # results are opened without what they are checked by
    from cryolike_dask.runs.integrity import Report, Result

DECOY_OF = "decoyOf"
ATOMS, MAPS = (".pdb", ".ent", ".cif", ".mmcif"), (".mrc", ".map", ".ccp4")
OPTIONAL = (*STACK_OPTIONAL, *PER_IMAGE)
TEXT = ("files", "metadataFile", "micrograph", "trueStructure")
ONE = (
    *("n_images", "structure", "frame", "folder", "recentered", "conventions", "source", "inputs"),
    *("symmetry", DECOY_OF),
)
VIEWING = ("azimuth", "polar", "viewing_weight")

Entries = dict[str, NDArray[Any] | None]


@dataclass(frozen=True)
class Description:
    """A file that says what an image stack or a structure is; tasks carry it.

    Attributes
    ----------
    path : Path
        Absolute.
    inputs : list of dict
        What it is made from, as completion records say.
    read : callable
        `read_origins` or `read_structure`.
    entries : callable
        Gives what the file says, `inputs` excepted.
    """

    path: Path
    inputs: Sequence[Mapping[str, Any]]
    read: Callable[[Path], Entries]
    entries: Callable[[], dict[str, Any]]

    def why_not_there(self) -> str | None:
        """Say why it must be written; None if it stands there, whole and made from these inputs."""
        try:
            entries = self.read(self.path)
        except InputFileError as error:
            return str(error)
        return (
            None
            if inputs_of(entries) == self.inputs
            else f"{self.path.name} was made from other inputs"
        )

    def write(self) -> None:
        """Write it, unless it stands there already."""
        if self.why_not_there() is not None:
            entries = {**self.entries(), "inputs": json.dumps(self.inputs)}
            write_archive(self.path, entries, compressed=True)  # paths are long, and repeat


def describe_images(
    path: Path, images: ImageStack, inputs: Sequence[Mapping[str, Any]]
) -> Description:
    """Say where the images of a stack come from, at `LikelihoodFiles.origins`."""
    return Description(
        path.absolute(), inputs, partial(read_origins, most_images=len(images)), _OfImages(images)
    )


def describe_structure(
    path: Path, templates: TemplateStack, inputs: Sequence[Mapping[str, Any]]
) -> Description:
    """Say what a structure is called, and its viewing directions, at
    `LikelihoodFiles.structure`."""
    return Description(path.absolute(), inputs, read_structure, _OfStructure(templates))


def read_origins(path: Path, most_images: int | None = None) -> Entries:
    """Read what a description says of the images of a stack, of which there are so many at most.

    Raises
    ------
    InputFileError
        If it is not there, damaged, or an entry is of another type or of another number of images;
        names the entry.
    """
    entries = _read(path, PER_IMAGE, most_images)
    try:
        n = number("n_images", entries.get("n_images"), whole=True, at_least=1)
    except InputError as error:
        raise InputFileError(str(error), source=path, remedy=AGAIN) from error
    for key in PER_IMAGE:
        value = entries.get(key)
        if value is not None and value.shape != (n,):
            raise InputFileError(
                f"{key} is not one value for each of its {n} images", source=path, remedy=AGAIN
            )
        if value is not None and not _may_be(key, value):
            _refuse(path, key, value)
    return entries


def read_structure(path: Path) -> Entries:
    """Read what a description says of a structure.

    Raises
    ------
    InputFileError
        If it is not there, damaged, or an entry is of another type; names the entry.
    """
    entries = _read(path, VIEWING)
    name, first = entries.get("structure"), entries.get(VIEWING[0])
    if name is None or name.dtype.kind != "U":
        _refuse(path, "structure", name)
    for key in VIEWING:
        value = entries.get(key)
        if (
            value is None
            or first is None
            or value.ndim != 1
            or value.dtype.kind != "f"
            or len(value) != len(first)
        ):
            _refuse(path, key, value)
    return entries


def inputs_of(entries: Entries) -> list[Any]:
    """By what a description says that it was made."""
    try:
        inputs = json.loads(str(entries.get("inputs")))
    except (ValueError, RecursionError):
        return []
    return inputs if isinstance(inputs, list) else []


def check_descriptions(files: LikelihoodFiles, results: Sequence[Result], report: Report) -> None:
    """List what is wrong with the descriptions of the image stacks and structures of results,
    each once."""
    stacks, structures = (
        {getattr(r, name): r for r in reversed(results)} for name in ("i_stack", "i_template")
    )
    for k, result in sorted(stacks.items()):
        with report.listing():
            entries = read_origins(files.origins(k), len(result))
            _need_same_inputs(
                files.origins(k), result, inputs_of(entries), slice(-len(inputs_of(entries)), None)
            )
            if (n := entries["n_images"]) != len(result):
                what = f"describes {n} images, but {result.path.name} is of {len(result)}"
                raise OutputError(what, source=files.origins(k), remedy=AGAIN)
    for i, result in sorted(structures.items()):
        with report.listing():
            inputs = inputs_of(read_structure(files.structure(i)))
            _need_same_inputs(files.structure(i), result, inputs, slice(len(inputs)))


def _need_same_inputs(path: Path, result: Result, inputs: list[Any], part: slice) -> None:
    if not inputs or result.record["inputs"][part] != inputs:
        what = f"was made from other inputs than {result.path} says"
        raise OutputError(what, source=path, remedy=AGAIN)


@dataclass(frozen=True, eq=False)
class _OfImages:
    images: ImageStack

    def __call__(self) -> dict[str, Any]:
        images, source = self.images, innermost(self.images.source)
        folder = Path(source.paths[0]).parent.parent if isinstance(source, Files) else ""
        known = {
            key: value
            for key, value in origins_of(images.source).items()
            if _may_be(key, np.asarray(value))
        }
        return {**known, "n_images": len(images), "frame": images.frame, "folder": str(folder)}


@dataclass(frozen=True, eq=False)
class _OfStructure:
    templates: TemplateStack

    def __call__(self) -> dict[str, Any]:
        templates, source = self.templates, innermost(self.templates.source)
        file = Path(source.paths[0])
        name = str(made_from(file).get("name", "")) if isinstance(source, Files) else file.name
        return {
            "structure": templates.structure,
            "azimuth": templates.viewing.azimuth,
            "polar": templates.viewing.polar,
            "viewing_weight": templates.viewing.weight,
            "symmetry": templates.viewing.symmetry,
            "conventions": templates.conventions or "unknown",
            "source": _kind(name),
            "folder": str(file.parent) if isinstance(source, Files) else "",
            **({DECOY_OF: templates.decoy_of} if templates.decoy_of else {}),
        }


def made_from(templates: Path) -> dict[str, Any]:
    """What records say of the structure file that templates were made from; empty if nothing
    does."""
    sidecar = metadata_file(templates)
    try:
        described = json.loads(
            str(read_archive(sidecar, optional=OPTIONAL, keys=("source",))["source"])
        )
        return dict(described[0])
    except (InputFileError, ValueError, LookupError, TypeError):  # CryoLike's have no sidecar
        return {}


def _kind(name: str) -> str:
    name = name.lower().removesuffix(".gz")
    return "atoms" if name.endswith(ATOMS) else "map" if name.endswith(MAPS) else "unknown"


def _read(path: Path, keys: Sequence[str], n_images: int | None = None) -> Entries:
    entries = read_archive(path, optional=OPTIONAL, keys=(*ONE, *keys), n_images=n_images)
    for key in ONE:
        value = entries.get(key)
        if value is not None and value.shape != ():
            _refuse(path, key, value)
    return entries


def _may_be(key: str, value: NDArray[Any]) -> bool:
    """Whether an entry has the type that it must have."""
    return key not in PER_IMAGE or value.dtype.kind in ("US" if key in TEXT else "iuf")


def _refuse(path: Path, key: str, value: NDArray[Any] | None) -> NoReturn:
    what = (
        "is missing"
        if value is None
        else f"has shape {value.shape} and type {value.dtype}, which no run writes"
    )
    raise InputFileError(f"entry {key!r} {what}", source=path, remedy=AGAIN)
