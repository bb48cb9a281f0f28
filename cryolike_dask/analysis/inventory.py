"""Inventory of a folder of results: the files that are there, and what is recorded of them."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryolike_dask import labels
from cryolike_dask.analysis.coordinates import SEVERAL, UNKNOWN
from cryolike_dask.io.layout import (
    FILE_SUFFIX,
    POSE_FILES,
    STACK_NUMBER,
    LikelihoodFiles,
    structure_numbers,
)
from cryolike_dask.io.records import (
    FolderSettings,
    Record,
    noise_name,
    read_record,
    readable_record,
    search_method,
)
from cryolike_dask.io.results import details
from cryolike_dask.io.tensors import load_vector
from cryolike_dask.runs.origins import Entries, read_origins, read_structure

KIND = "optimal_pose"
MOST_RECORDS = 2000
"""Records that are all read for what they say besides, in 0.1 s; of more, two for each structure
and each stack at most."""


@dataclass(frozen=True)
class Inventory:
    """The files of optimal poses below an output folder.

    Attributes
    ----------
    files : LikelihoodFiles
    stacks_with : dict of structure number to dict of variable name to set of int
        Numbers of the stacks of which a variable is there; structures without any are left out.
    """

    files: LikelihoodFiles
    stacks_with: dict[int, dict[str, set[int]]]

    @property
    def structures(self) -> list[int]:
        """Numbers of the structures that have results."""
        return list(self.stacks_with)

    @property
    def stacks(self) -> list[int]:
        """Numbers of the stacks that have results under some structure."""
        every = (
            numbers for by_variable in self.stacks_with.values() for numbers in by_variable.values()
        )
        return sorted(set().union(*every))

    def descriptions(self) -> list[Entries]:
        """Descriptions of the structures; empty in CryoLike's folders."""
        paths = [self.files.structure(i) for i in self.structures]
        return [read_structure(path) if path.is_file() else {} for path in paths]

    def origins(self, k: int) -> Entries:
        """Origins of the images of a stack: no more of them than its results have bytes for."""
        path, result = self.files.origins(k), self._file_of(k)
        if not path.is_file():
            return {}
        most = result.stat().st_size // 4
        entries = read_origins(path, most)
        n = _n_images(entries)
        if n is not None and n > most:
            load_vector(result, n)  # says which of them it is
        return entries

    def size(self, k: int, origins: Entries) -> int:
        """Number of images of a stack."""
        n = _n_images(origins)
        return len(load_vector(self._file_of(k))) if n is None else n

    def record(self, structures: Sequence[int] | None = None) -> Record | None:
        """The first record that there is, of some structures or of all; None without any."""
        for i in self.structures if structures is None else structures:
            for k in sorted(self.stacks_with[i][labels.CROSS_CORRELATION]):
                record = read_record(self.files.record(i, k, KIND))
                if record is not None:
                    return record
        return None

    def names(self, descriptions: Sequence[Entries]) -> list[str]:
        """Names of the structures, told apart by their numbers where they are the same."""
        names = []
        for i, description in zip(self.structures, descriptions, strict=True):
            name = description.get("structure")
            record = self.record([i]) if name is None else None
            recorded = name if record is None else record.get("structure")
            names.append(f"template{i}" if recorded is None else str(recorded))
        counts = Counter(names)
        return [
            name if counts[name] == 1 else f"{name} (template{i})"
            for i, name in zip(self.structures, names, strict=True)
        ]

    def noises(self) -> list[str]:
        """What the results of each structure take noise for, by its first and its last record."""
        return [self._told(i, noise_name) for i in self.structures]

    def search_methods(self) -> list[str]:
        """How the results of each structure were searched, by its first and its last record."""
        return [self._told(i, search_method) for i in self.structures]

    def _told(self, i: int, name_of: Callable[[FolderSettings], str]) -> str:
        numbers = sorted(self.stacks_with[i][labels.CROSS_CORRELATION])
        ends = {
            k: readable_record(self.files.record(i, k, KIND)) for k in numbers[:1] + numbers[-1:]
        }
        names = {name_of(record["settings"]) for record in ends.values() if record is not None}
        return SEVERAL.join(sorted(names)) or UNKNOWN

    def details(self) -> dict[str, str]:
        """Entries of records that are not those of every record, as text: the note of a run, say;
        where they differ, all of them.

        In a large folder only the first and the last record of each structure and of each stack
        are read: of a run that did some pairs in between alone, the note is not seen.
        """
        pairs = sorted(
            (i, k)
            for i, by_variable in self.stacks_with.items()
            for k in by_variable[labels.CROSS_CORRELATION]
        )
        texts: dict[str, dict[str, None]] = defaultdict(dict)
        for i, k in pairs if len(pairs) <= MOST_RECORDS else _outline(pairs):
            record = readable_record(self.files.record(i, k, KIND))
            for name, text in details(record).items() if record is not None else ():
                texts[name][text] = None
        return {name: "; ".join(distinct) for name, distinct in texts.items()}

    def _file_of(self, k: int) -> Path:
        """A file of results of a stack, whichever comes first."""
        i, variable = next(
            (i, variable)
            for i, by_variable in self.stacks_with.items()
            for variable, numbers in by_variable.items()
            if k in numbers
        )
        return self.files.output(i, variable, POSE_FILES[variable], k)


def take_inventory(files: LikelihoodFiles) -> Inventory:
    """List the results of a folder; each folder below it is read once."""
    stacks_with = {i: _stacks_with(files, i) for i in structure_numbers(files.folder_output)}
    return Inventory(
        files,
        {i: by_variable for i, by_variable in stacks_with.items() if any(by_variable.values())},
    )


def _outline(pairs: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The first and the last pair of each first number, and of each second number."""
    ends = (
        {pair[axis]: pair for pair in order}.values()
        for order in (pairs, pairs[::-1])
        for axis in (0, 1)
    )
    return sorted({pair for each in ends for pair in each})


def _stacks_with(files: LikelihoodFiles, i_template: int) -> dict[str, set[int]]:
    """Numbers of the stacks of which each variable of a structure is there."""
    first = {v: files.output(i_template, v, name, 0) for v, name in POSE_FILES.items()}
    listings = {folder: _listing(folder) for folder in {path.parent for path in first.values()}}
    return {
        variable: listings[path.parent].get(STACK_NUMBER.sub("", path.stem), set())
        for variable, path in first.items()
    }


def _listing(folder: Path) -> dict[str, set[int]]:
    """Numbers of the stacks that have a file in a folder, by what comes before the number."""
    numbers: dict[str, set[int]] = defaultdict(set)
    for name in os.listdir(folder) if folder.is_dir() else ():
        stem, suffix = os.path.splitext(name)
        match = STACK_NUMBER.search(stem)
        if match and suffix == FILE_SUFFIX:
            numbers[stem[: match.start()]].add(int(match[1]))
    return numbers


def _n_images(entries: Entries) -> int | None:
    n = entries.get("n_images")
    return None if n is None else int(n)
