"""A configuration proposed for inputs: what they say of themselves, and what follows from it."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cryolike_dask.compute.local import count_gpus, number_of_workers
from cryolike_dask.conventions import STANDARD
from cryolike_dask.errors import InputError, InputFileError, counted, number
from cryolike_dask.geometry.parameters import ImageParameters
from cryolike_dask.geometry.symmetry import NO_SYMMETRY
from cryolike_dask.io.mrc import open_mrc_stack
from cryolike_dask.io.parameters import make_parameters
from cryolike_dask.labels import AtomShape
from cryolike_dask.likelihoods.search.adaptive import is_worth_levels
from cryolike_dask.particles.opening import read_particles
from cryolike_dask.particles.table import ParticleTable
from cryolike_dask.runs.capacity import existing
from cryolike_dask.runs.cost import size_of
from cryolike_dask.stacks import TemplateStack
from cryolike_dask.structures.atoms import Atoms
from cryolike_dask.structures.opening import look_at_structures
from cryolike_dask.structures.sources import ModelInFile, Projections
from cryolike_dask.structures.symmetric import shared_symmetry

RESOLUTION_ANGSTROM = 8.0
"""Up to which images are compared where nothing else is asked for: finer than this few images of
proteins tell conformations apart, and poses cost with the fifth power of it."""
STEPS_DEGREES = (1.0, 15.0)
LOOKED_AT = 8
"""Structures whose size is looked at."""
PART_OF_A_MAP = 2 / 3
"""Of the side of a map, the diameter of what it shows."""
PART_OF_A_TRACE = 0.9
OFF_THE_MIDDLE = 0.995
"""Part of the particles, within which distance of the middle these are recorded is said."""
WITHOUT_ORIGINS = 0.05
"""Of the box: the search where no origins are recorded, but for the margin of one resolution."""
IMAGES_PER_STACK = 1024
PART_OF_THE_DISK = 0.1
"""That templates may take: larger ones are projected while it runs."""
TEMPLATES = "templates"


@dataclass(frozen=True)
class Proposal:
    """A configuration for inputs.

    Attributes
    ----------
    values : dict
        What the file says, section by section.
    reasons : dict
        By `section.key`, why it says so.
    parameters : ImageParameters
        The grid that it describes.
    writes_templates : bool
        Templates are to be written before; otherwise they are projected while it runs.
    """

    values: Mapping[str, Any]
    reasons: Mapping[str, str]
    parameters: ImageParameters
    writes_templates: bool

    def text(self) -> str:
        """The file, as YAML with the reasons as comments."""
        lines = ["# Proposed by `cryolike-dask config init`; `config check` looks at all of it."]
        for section, content in self.described().items():
            lines.append("")
            if isinstance(content, Mapping):
                lines.append(f"{section}:")
                lines += [self._line(f"{section}.{key}", 2) for key in content]
            else:
                lines.append(self._line(section, 0))
        return "\n".join(lines) + "\n"

    def described(self) -> dict[str, Any]:
        """What the file says: templates in place of structure files, where they are written."""
        written = {"structures": {"templates": TEMPLATES}} if self.writes_templates else {}
        return {**self.values, **written}

    def _line(self, path: str, indent: int) -> str:
        section, _, key = path.partition(".")
        value = self.described()[section]
        said = json.dumps(value[key] if key else value, ensure_ascii=False)
        reason = self.reasons.get(path)
        line = f"{' ' * indent}{key or section}: {said}"
        return line if reason is None else f"{line}  # {reason}"


def propose(
    folder: Path,
    structures: Sequence[Path],
    particles: Sequence[Path],
    resolution_angstrom: float | None = None,
    symmetry: str | None = None,
) -> Proposal:
    """Propose a configuration for structure files and particle metadata.

    Parameters
    ----------
    folder : path
        Where the configuration will be.
    structures, particles : sequence of path
        As it will name them: relative ones start in the folder.
    resolution_angstrom : float, optional
        Up to which images are compared. Default: 8, or two pixels where these are more.
    symmetry : str, optional
        Point group of the structures. Default: the one that they are measured to have.

    Raises
    ------
    InputError, InputFileError
        If they cannot be read, or do not say their pixel size.
    """
    table = read_particles([folder / path for path in particles])
    n_pixels, pixel_size = _pixels(table)
    box = n_pixels * pixel_size
    wanted = RESOLUTION_ANGSTROM if resolution_angstrom is None else resolution_angstrom
    finest = max(number("resolution_angstrom", wanted, above=0), 2 * pixel_size)
    if finest > box / 4:
        raise InputError(
            f"resolution_angstrom={finest:g} is more than a quarter of the box of {box:g} angstrom",
            remedy="Give less.",
        )
    n = min(n_pixels, 2 * math.ceil(round(box / finest, 6)))
    size = float(f"{box / n:.9g}")
    coarse = make_parameters(n, size, atom_shape="scattering", symmetry=symmetry or NO_SYMMETRY)
    stacks, _ = look_at_structures(
        [folder / path for path in structures],
        coarse,
        models="first",
        viewing=None,
        conventions=STANDARD.name,
        voxel_size_angstrom=None,
    )
    across, shape = _diameter(stacks)
    because_of_symmetry = "asked for"
    if symmetry is None:
        shown = [stack.source for stack in stacks[:LOOKED_AT]]
        symmetry = shared_symmetry([one for one in shown if isinstance(one, Projections)])
        because_of_symmetry = "measured: all have it, about the axes of their files"
    finest = 2 * box / n
    step = float(f"{np.clip(math.degrees(finest / across), *STEPS_DEGREES):.2g}")
    made = make_parameters(n, size, view_step_degrees=step, atom_shape=shape, symmetry=symmetry)
    recorded = _recorded(table)
    reach = finest if recorded is not None else WITHOUT_ORIGINS * box + finest
    farthest = float(math.ceil(round(reach / (box / n), 6)))
    because = "one resolution" if recorded is not None else "no origins are recorded"
    # interpolated between where it is coarse to fine; else half-way too much would be lost
    pixels = 1 if is_worth_levels(made.grid) else 0.5
    n_stacks = math.ceil(len(table) / IMAGES_PER_STACK)
    writes, why = _writes_templates(folder, len(stacks), made, n_stacks)
    n_gpus, n_workers = count_gpus(), number_of_workers(None)
    values = {
        "structures": {"files": [str(path) for path in structures]},
        "particles": {
            "metadata": [str(path) for path in particles],
            **({"recenter": True} if recorded is not None else {}),
        },
        "parameters": {
            "n_pixels": n,
            "pixel_size_angstrom": size,
            "view_step_degrees": step,
            "atom_shape": shape,
            **({} if symmetry == NO_SYMMETRY else {"symmetry": symmetry}),
        },
        "search": {"max_displacement_pixels": farthest, "displacement_step_pixels": pixels},
        "noise": {"spectrum": "estimate", "b_factor": "fit"},
        "output": "results",
        **({"populations": True} if len(stacks) > 1 else {}),
        "tables": True,
        "report": True,
        "machine": {"device": "cuda" if n_gpus else "cpu", "workers": n_workers},
    }
    reasons = {
        "structures.templates": why,
        "structures.files": why,
        "particles.metadata": table.described(),
        "particles.recenter": f"by origins as they are recorded: {OFF_THE_MIDDLE:.1%} are within "
        f"{recorded or 0:.3g} angstrom",
        "parameters.n_pixels": f"images of {n_pixels} pixels of {pixel_size:.4g} angstrom are "
        f"brought to these: compared up to {finest:.3g} angstrom",
        "parameters.symmetry": because_of_symmetry,
        "parameters.view_step_degrees": f"{finest:.3g} angstrom at the rim of {across:.0f}: "
        f"{len(made.viewing_angles())} views",
        "search.max_displacement_pixels": because,
        "search.displacement_step_pixels": f"{pixels * box / n:.3g} angstrom",
        "noise.spectrum": "from the images",
        "noise.b_factor": "of each optics group, by the structures",
        "machine.workers": counted(n_gpus, "GPU") if n_gpus else counted(n_workers, "core"),
    }
    return Proposal(values, reasons, made, writes)


def _pixels(table: ParticleTable) -> tuple[int, float]:
    """Pixels along a side of the images, and their size: as metadata say it, or else headers."""
    first = open_mrc_stack(table.image_files[0])
    sizes = table.pixel_size_angstrom
    size = first.voxel_size_angstrom if sizes is None else float(sizes[0])
    if sizes is not None and np.ptp(sizes) > 1e-3 * sizes[0]:
        raise InputFileError(
            f"has particles of {sizes.min():g} and of {sizes.max():g} angstrom a pixel",
            source=table.metadata_files[0],
            remedy="Propose a configuration for each kind.",
        )
    if size is None:
        raise InputFileError(
            "does not say the pixel size, nor do the headers of its images",
            source=table.metadata_files[0],
            remedy="Start from the example: `cryolike-dask config init` without inputs, where "
            "particles.pixel_size_angstrom says it.",
        )
    return first.shape[-1], size


def _diameter(stacks: Sequence[TemplateStack]) -> tuple[float, AtomShape]:
    """How large structures are, angstrom, and what stands for their atoms."""
    largest, is_trace = 0.0, False
    for stack in stacks[:LOOKED_AT]:
        structure = _loaded(stack)
        if isinstance(structure, Atoms):
            away = structure.positions_angstrom - structure.positions_angstrom.mean(axis=0)
            largest = max(largest, 2 * float(np.linalg.norm(away, axis=1).max()))
            is_trace |= _is_trace(stack)
        else:
            largest = max(largest, PART_OF_A_MAP * stack.grid.box_size_angstrom)
    return max(largest, 1.0), "hard-sphere" if is_trace else "scattering"


def _loaded(stack: TemplateStack) -> object:
    source = stack.source
    return source.structure.load() if isinstance(source, Projections) else None


def _is_trace(stack: TemplateStack) -> bool:
    """Whether a file has C-alpha atoms alone, or nearly so."""
    source = getattr(stack.source, "structure", None)
    if not isinstance(source, ModelInFile):
        return False
    return float((source.model().name == "CA").mean()) > PART_OF_A_TRACE


def _recorded(table: ParticleTable) -> float | None:
    """Within how many angstrom of the middle particles are recorded; None if they are not."""
    origins = table.origin_angstrom
    if origins is None or not origins.any():
        return None
    return float(np.quantile(np.abs(origins).max(axis=1), OFF_THE_MIDDLE))


def _writes_templates(
    folder: Path, n_structures: int, parameters: ImageParameters, n_stacks: int
) -> tuple[bool, str]:
    """Whether templates are better written before, and why."""
    if n_stacks < 2:
        return False, f"{counted(n_stacks, 'image stack')}: projected once, while it runs"
    values = math.prod(parameters.grid.shape) * len(parameters.viewing_angles())
    size, free = 8 * values * n_structures, shutil.disk_usage(existing(folder)).free
    if size > PART_OF_THE_DISK * free:
        return False, f"templates of {size_of(size)} are too large: projected while it runs"
    return True, f"of {size_of(size)}: they would be projected for each of {n_stacks} image stacks"
