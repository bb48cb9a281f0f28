"""What results came from, kept beside them: a small file for each image stack, and one for each structure.

Results can be read, plotted and exported where the inputs are not.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cryolike_dask.errors import InputFileError
from cryolike_dask.io.archives import read_archive, write_archive
from cryolike_dask.io.sources import Files, innermost
from cryolike_dask.io.stacks import STACK_OPTIONAL
from cryolike_dask.particles.provenance import PER_IMAGE, origins_of
from cryolike_dask.stacks import ImageStack, TemplateStack

ATOMS, MAPS = (".pdb", ".ent", ".cif", ".mmcif"), (".mrc", ".map", ".ccp4")
OPTIONAL = (*STACK_OPTIONAL, *PER_IMAGE)


def write_origins(path: Path, images: ImageStack, inputs: Sequence[dict[str, Any]]) -> None:
    """Write where the images of a stack come from, unless it stands there already.

    Parameters
    ----------
    path : Path
        `LikelihoodFiles.origins`, absolute.
    images : ImageStack
    inputs : list of dict
        What they are made from, as the completion record says.
    """
    said, source = json.dumps(inputs), innermost(images.source)
    if _said(path) == said:
        return
    folder = Path(source.paths[0]).parent.parent if isinstance(source, Files) else ""
    entries = {"n_images": len(images), "frame": images.frame, "folder": str(folder), "inputs": said}
    write_archive(path, {**origins_of(images.source), **entries}, compressed=True)  # paths are long, and repeat


def write_structure(path: Path, templates: TemplateStack, inputs: Sequence[dict[str, Any]]) -> None:
    """Write what a structure is called, its viewing directions, and what it was made from, unless it stands there.

    Parameters
    ----------
    path : Path
        `LikelihoodFiles.structure`, absolute.
    templates : TemplateStack
    inputs : list of dict
        What they are made from, as the completion record says.
    """
    said, source = json.dumps(inputs), innermost(templates.source)
    if _said(path) == said:
        return
    file = Path(source.paths[0])
    entries = {
        "structure": templates.structure,
        "azimuth": templates.viewing.azimuth,
        "polar": templates.viewing.polar,
        "viewing_weight": templates.viewing.weight,
        "conventions": templates.conventions or "unknown",
        "source": _kind(_made_from(file) if isinstance(source, Files) else file.name),
        "folder": str(file.parent) if isinstance(source, Files) else "",
        "inputs": said,
    }
    write_archive(path, entries, compressed=True)


def _made_from(templates: Path) -> str:
    """The name of the structure file that templates were made from; empty if nothing says it."""
    sidecar = templates.with_suffix(".npz")
    try:
        described = json.loads(str(read_archive(sidecar, optional=OPTIONAL, keys=("source",))["source"]))
        return str(described[0]["name"])
    except (InputFileError, ValueError, LookupError, TypeError):  # CryoLike's have no sidecar
        return ""


def _kind(name: str) -> str:
    name = name.lower().removesuffix(".gz")
    return "atoms" if name.endswith(ATOMS) else "map" if name.endswith(MAPS) else "unknown"


def _said(path: Path) -> str | None:
    """By what the file says it was made; None if it is not there, or cannot be read."""
    try:
        inputs = read_archive(path, optional=OPTIONAL, keys=("inputs",)).get("inputs")
    except InputFileError:
        return None
    return None if inputs is None else str(inputs)
