"""Decoys of structures that are open, as templates that are projected when they are needed."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import cast, get_args

import numpy as np

from cryolike_dask.conventions import STANDARD
from cryolike_dask.errors import InputError, InputFileError, number
from cryolike_dask.labels import DecoyKind
from cryolike_dask.stacks import TemplateStack, one_or_several
from cryolike_dask.structures.atoms import Atoms
from cryolike_dask.structures.decoys.density import molecular_mask, voxels_of
from cryolike_dask.structures.decoys.sources import PHASES, SAID, Decoy
from cryolike_dask.structures.sources import Projections
from cryolike_dask.structures.volumes import Volume

logger = logging.getLogger("cryolike_dask")

MOST_STRUCTURES, MOST_DECOYS = 20, 100
"""Structures that decoys are made of, and decoys of each."""
NAME = "{}~decoy{}"
WITHIN = 0.95
"""Nyquist frequency of images' band over that of the voxels that atoms are sampled on."""


def open_decoys(
    structures: TemplateStack | Sequence[TemplateStack],
    n: int = 4,
    *,
    kind: DecoyKind = "phases",
    seed: int = 0,
) -> list[TemplateStack]:
    """Make decoys of structures: copies that keep the envelope, and that no image shows.

    Give them to a run beside the structures, `templates=[*structures, *open_decoys(structures)]`:
    they are compared as these are, `decoy_competition` tells images of none of the structures by
    them, and assignments leave them out.

    Parameters
    ----------
    structures : TemplateStack or several
        As `open_structures` gives them. Of more than 20, 20 are drawn, and it is logged which.
    n : int
        Decoys of each structure, 100 at most.
    kind : "phases" | "residues"
        Phases of the density are random beyond the spatial frequency 1 / (2 Rg), density is cut to
        the molecular mask, and has the power that each shell had; or residues of a model in a file
        are moved to each other's places.
    seed : int
        Same seed, same decoys.

    Returns
    -------
    list of TemplateStack
        `NAME~decoy1` and so on: all of number 1 first. `decoy_of` names the structure.

    Raises
    ------
    InputError, InputFileError
        If structures are templates in files, decoys themselves, of other conventions than
        "standard", or have no density or no residues.
    """
    n = number("n", n, whole=True, at_least=1)
    if n > MOST_DECOYS:
        raise InputError(f"n={n} decoys of each structure", remedy=f"Make at most {MOST_DECOYS}.")
    seed = number("seed", seed, whole=True, at_least=0)
    if kind not in get_args(DecoyKind):
        raise InputError(f"kind={kind!r} is neither phases nor residues")
    listed = one_or_several(structures, TemplateStack)
    drawn = _drawn(listed, seed)
    sources = [_projections(stack) for stack in drawn]
    finest = drawn[0].grid.box_size_angstrom / (4 * drawn[0].grid.radius_max)
    voxel_size = WITHIN * finest
    n_voxels = max(_voxels(source, kind, voxel_size) for source in sources)
    return [
        _stack(stack, source, Decoy(source.structure, kind, i, seed, n_voxels, voxel_size))
        for i in range(1, n + 1)
        for stack, source in zip(drawn, sources, strict=True)
    ]


def decoys_again(
    structures: TemplateStack | Sequence[TemplateStack], described: Iterable[str]
) -> list[TemplateStack]:
    """Make decoys of structures again, as descriptions of decoys say that they were made; what
    says something else was not made.

    Raises
    ------
    InputError
        If they were made in different ways, or as for `open_decoys`.
    """
    said = [match for match in map(SAID.fullmatch, described) if match is not None]
    if not said:
        return []
    ways = sorted({(match[1], int(match[3])) for match in said})
    if len(ways) > 1:
        raise InputError(f"decoys were made in {len(ways)} ways: {ways[:3]}")
    ((kind, seed),) = ways
    n = max(int(match[2]) for match in said)
    return open_decoys(structures, n, kind=cast(DecoyKind, kind), seed=seed)


def as_decoys(structures: TemplateStack | Sequence[TemplateStack]) -> list[TemplateStack]:
    """Say of structures that no image shows them: they are compared as decoys.

    Parameters
    ----------
    structures : TemplateStack or several
        As `open_structures` or `open_templates` give them: of another molecule, as large as those
        that images may show.

    Returns
    -------
    list of TemplateStack
        The same, their own names in `decoy_of`.
    """
    return [
        replace(stack, decoy_of=stack.structure)
        for stack in one_or_several(structures, TemplateStack)
    ]


def _drawn(stacks: list[TemplateStack], seed: int) -> list[TemplateStack]:
    """At most `MOST_STRUCTURES`, in their order."""
    if not stacks:
        raise InputError("there are no structures to make decoys of")
    if decoys := [stack.structure for stack in stacks if stack.decoy_of]:
        raise InputError(f"{decoys[0]} is a decoy itself", remedy="Give the structures alone.")
    if len(stacks) <= MOST_STRUCTURES:
        return stacks
    rows = np.random.default_rng(seed).choice(len(stacks), MOST_STRUCTURES, replace=False)
    drawn = [stacks[row] for row in np.sort(rows)]
    names = ", ".join(stack.structure for stack in drawn)
    logger.info("decoys are made of %d of %d structures: %s", len(drawn), len(stacks), names)
    return drawn


def _projections(stack: TemplateStack) -> Projections:
    if not isinstance(stack.source, Projections):
        raise InputError(
            f"{stack.structure} is given as templates, of which no decoys can be made",
            remedy="Give the structure itself; or decoys as structures: `cryolike-dask decoys` "
            "makes files of them.",
        )
    if stack.source.conventions != STANDARD:
        raise InputError(
            f"decoys are made in conventions {STANDARD.name!r}, but templates of "
            f"{stack.structure} in {stack.source.conventions.name!r}",
            remedy="Make them with the same.",
        )
    return stack.source


def _voxels(projections: Projections, kind: DecoyKind, voxel_size: float) -> int:
    """Voxels along a side that hold a structure, of which a decoy can be made; 0 if it needs none
    of its own."""
    source = projections.structure
    try:
        if kind != PHASES:
            Decoy(source, kind, 1, 0, 0, voxel_size).model()
            return 0
        structure = source.load()
        if isinstance(structure, Volume):
            molecular_mask(structure)
        return voxels_of(structure, voxel_size) if isinstance(structure, Atoms) else 0
    except InputFileError:
        raise
    except InputError as error:
        if source.path in str(error):  # the file is told already
            raise
        raise InputFileError(str(error), source=source.path) from error


def _stack(stack: TemplateStack, projections: Projections, decoy: Decoy) -> TemplateStack:
    name = NAME.format(stack.structure, decoy.number)
    source = replace(projections, structure=decoy, name=name)
    return replace(stack, source=source, structure=name, decoy_of=stack.structure)
