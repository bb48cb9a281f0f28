"""Optics groups of several metadata files: one number may stand for two microscopes.

Each file numbers its own groups. Groups of one number are taken as one where voltage, spherical
aberration, amplitude contrast and pixel size are the same, as in files that a particle set was cut
into; otherwise that of the later file gets a number of its own.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.errors import listed
from cryolike_dask.particles.table import ParticleTable

logger = logging.getLogger("cryolike_dask")

OF_MICROSCOPE = ("voltage_kilovolt", "spherical_aberration_mm", "amplitude_contrast")
LEAST_STEP = 1000
"""A number of the second file becomes 1000 more, of the third 2000: it stays what it is, whatever
files come after."""
DIGITS = 4
"""Of numbers that are compared."""
Microscope = frozenset[tuple[float, ...]]


def groups_kept_apart(tables: Sequence[ParticleTable]) -> list[ParticleTable]:
    """Give tables in which each number of an optics group stands for one microscope, as far as
    optics tell; those without groups count as of group 1 where they must be told from others."""
    numbers = [
        np.ones(len(t), np.int64) if t.optics_group is None else t.optics_group for t in tables
    ]
    highest = max((int(abs(n).max()) for n in numbers if len(n)), default=0)
    step = max(LEAST_STEP, 10 ** len(str(highest)))
    called: dict[tuple[int, Microscope], int] = {}
    first: dict[int, int] = {}
    again, apart, shared = [], False, set[int]()
    for i, (table, given) in enumerate(zip(tables, numbers, strict=True)):
        own = given.copy()
        for number in np.unique(given).tolist():
            rows = given == number
            key = number, _microscope(table, rows)
            if key in called:
                shared.add(number)
            elif number in first:
                called[key] = number + i * step
                apart = True
                logger.info(
                    "optics group %d of %s is another than that of %s (%s): it is %d here",
                    number,
                    *(_file(tables[k]) for k in (i, first[number])),
                    _differences(key[1], next(m for n, m in called if n == number)),
                    called[key],
                )
            else:
                called[key] = number
                first[number] = i
            own[rows] = called[key]
        again.append(replace(table, optics_group=own))
    if shared and any(table.optics_group is not None for table in tables):
        logger.info(
            "optics group(s) %s of several files have the same optics, and are each taken as one",
            listed(np.array(sorted(shared))),
        )
    return again if apart else list(tables)


def _microscope(table: ParticleTable, rows: NDArray[np.bool_]) -> Microscope:
    """Voltage, aberration, contrast and pixel size of some particles, each once."""
    columns = [table.optics[name][rows] for name in OF_MICROSCOPE]
    if table.pixel_size_angstrom is not None:
        columns.append(table.pixel_size_angstrom[rows])
    found = np.unique(np.round(np.stack(columns, axis=1), DIGITS), axis=0)
    return frozenset(tuple(row) for row in found.tolist())


def _differences(here: Microscope, there: Microscope) -> str:
    names = ("kilovolt", "mm of spherical aberration", "of amplitude contrast", "angstrom a pixel")
    one, other = min(here - there, default=()), min(there - here, default=())
    told = [
        f"{a:g} {name}, not {b:g}" for name, a, b in zip(names, one, other, strict=False) if a != b
    ]
    return "; ".join(told) or "not all of its particles have the same optics"


def _file(table: ParticleTable) -> str:
    return Path(table.metadata_files[0]).name
