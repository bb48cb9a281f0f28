"""Whether the files of an output folder are what completion records say."""

from __future__ import annotations

import json
import stat
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cryolike_dask import labels
from cryolike_dask.conventions import conventions_named
from cryolike_dask.errors import CryolikeError, InputFileError, OutputError, listed, number
from cryolike_dask.geometry.displacements import DisplacementGrid
from cryolike_dask.geometry.noise import NoiseModel
from cryolike_dask.geometry.search_method import search_done
from cryolike_dask.io.holders import living
from cryolike_dask.io.layout import (
    FILE_SUFFIX,
    RECORD_NAME,
    RECORDS,
    RESULT_NAME,
    STRUCTURE_FOLDER,
    LikelihoodFiles,
    as_stored,
    leftovers,
)
from cryolike_dask.io.noise import noise_checksum, read_noise
from cryolike_dask.io.records import (
    AGAIN,
    FORMAT,
    Record,
    added_b_factor,
    checksum,
    of_any_kind,
    read_record,
    search_method,
)
from cryolike_dask.io.results import open_result
from cryolike_dask.io.stores import Store
from cryolike_dask.io.tensors import TensorFile, load_displacements
from cryolike_dask.likelihoods.settings import Settings
from cryolike_dask.runs.kinds import KINDS, OPTIMAL_POSE

FOLDERS = {
    RECORDS,
    *(f for kind in KINDS.values() for f in {**kind.folders, **kind.more_folders}.values()),
}
REAL = {"single": "float32", "double": "float64"}
NEAR_ANGSTROM = 1e-3


@dataclass(frozen=True)
class Result:
    """One stack under one structure, whose files are as its record says."""

    kind: str
    i_template: int
    i_stack: int
    record: Record
    path: Path
    outputs: dict[str, TensorFile | Store]

    def __len__(self) -> int:
        return int(self.record["shape"][0])


@dataclass
class Report:
    """Findings (the file, what is wrong with it, what to do), and notes on what lies about or is
    not there."""

    findings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @contextmanager
    def listing(self) -> Iterator[None]:
        """List what goes wrong inside."""
        try:
            yield
        except CryolikeError as error:
            if str(error) not in self.findings:
                self.findings.append(str(error))


def intact_results(
    files: LikelihoodFiles, report: Report, counted: Callable[[Sequence[Any]], Iterable[Any]] = iter
) -> list[Result]:
    """Check every file below the output folder; give the results that are as recorded.

    `counted` is given all records, and gives them one by one.

    Raises
    ------
    InputFileError
        If the folder itself cannot be read.
    """
    try:
        folders = sorted(files.folder_output.iterdir())
    except OSError as error:
        raise InputFileError(
            f"cannot be read: {error.strerror}", source=files.folder_output
        ) from error
    _note_leftovers(files.folder_output, report)
    recorded: dict[Path, tuple[str, int, int]] = {}
    for folder in folders:
        if match := STRUCTURE_FOLDER.fullmatch(folder.name):
            with report.listing():
                recorded |= _records_of_structure(files, int(match[1]), folder, report)
    results = []
    for path in counted(list(recorded)):
        with report.listing():
            results += _checked(files, path, *recorded[path], report)
    if not recorded and not report.findings:
        report.findings.append(
            str(OutputError("holds no completion records", source=files.folder_output))
        )
    _note_gaps(recorded, report)
    return _of_one_run(results, report)


def read_search(files: LikelihoodFiles, result: Result) -> DisplacementGrid:
    """Read the displacements that were tried.

    Raises
    ------
    OutputError
        If they are not there, damaged, or others than the record of a result says.
    """
    path, search = files.displacements, result.record["settings"]["search"]
    remedy = "Remove it; a run with skip_exist=True writes it again."
    n = number("n_displacements", search.get("n_displacements"), whole=True)
    limit = number("max_displacement_angstrom", search.get("max_displacement_angstrom"))
    _need_content(path)
    try:
        grid = DisplacementGrid(*load_displacements(path))
    except CryolikeError as error:
        raise OutputError(
            str(error).removeprefix(f"{path}: "), source=path, remedy=remedy
        ) from error
    farthest = np.abs(grid.table()).max()
    if len(grid) != n or abs(farthest - limit) > NEAR_ANGSTROM:
        what = (
            f"holds {len(grid)} displacements up to {farthest:g} angstrom, but the records say "
            f"{n} up to {limit:g}"
        )
        raise OutputError(what, source=path, remedy=remedy)
    return grid


def read_noise_of(files: LikelihoodFiles, record: Record) -> NoiseModel | None:
    """Read the noise model that results were computed with; None if noise was white.

    Raises
    ------
    OutputError
        If it is not there, damaged, or another than their record says.
    """
    path, name = files.noise, record["settings"].get("noise")
    if name is None:
        return None
    remedy = "Restore it; without it no results can be added, nor computed again."
    _need_content(path, remedy)
    try:
        found, model = noise_checksum(path), read_noise(path)
    except InputFileError as error:
        raise OutputError(
            str(error).removeprefix(f"{path}: "), source=path, remedy=remedy
        ) from error
    if found != name:
        what = "is not the noise model that the records describe: its sha256 is another"
        raise OutputError(what, source=path, remedy=remedy)
    return model


def recorded_settings(files: LikelihoodFiles, record: Record) -> Settings:
    """The settings of results, for a CPU, with their noise model; errors are those of
    `read_noise_of`."""
    settings = record["settings"]
    return Settings(
        conventions_named(settings.get("conventions")).name,
        "cpu",
        record["precision"],
        settings.get("tolerance"),
        read_noise_of(files, record),
        added_b_factor(settings),
        settings.get("degrees_of_freedom"),
        search_done(search_method(settings)),
    )


def _records_of_structure(
    files: LikelihoodFiles, i: int, folder: Path, report: Report
) -> dict[Path, tuple[str, int, int]]:
    """Kind, structure and stack of every record of a structure; results without a record are
    listed."""
    try:
        subfolders = [path for path in sorted(folder.iterdir()) if path.name in FOLDERS]
        paths = [path for subfolder in subfolders for path in sorted(subfolder.iterdir())]
    except OSError as error:
        what = f"cannot be read: {error.strerror}"
        raise OutputError(
            what, source=error.filename, remedy="Make it a folder that you may read."
        ) from error
    recorded, expected = {}, Counter(filter(None, (_record_of(files, i, path) for path in paths)))
    for path in paths:
        match = RECORD_NAME.fullmatch(path.name)
        kind, k = (match[1] or OPTIMAL_POSE.name, int(match[2])) if match else ("", 0)
        if kind in KINDS and path == files.record(i, k, kind):
            recorded[path] = kind, i, k
    for path, n in expected.items():
        if path not in recorded:
            what = f"is missing, but {n} file(s) of its results are there"
            report.findings.append(str(OutputError(what, source=path, remedy=AGAIN)))
    return recorded


def _record_of(files: LikelihoodFiles, i: int, path: Path) -> Path | None:
    """The record that a result file belongs to, by its name; None for other files."""
    match = RESULT_NAME.fullmatch(path.name)
    k = int(match[1]) if match else -1
    for kind in KINDS.values():
        if path.with_suffix(FILE_SUFFIX) in (
            files.output(i, variable, folder, k)
            for variable, folder in {**kind.folders, **kind.more_folders}.items()
        ):
            return files.record(i, k, kind.name)
    return None


def _note_leftovers(folder: Path, report: Report) -> None:
    """Note what runs left that were killed; while one lives, it may be its own."""
    if writers := living(folder):
        report.notes.append(f"{folder}: {writers[0]} is writing here now: not all may be there yet")
        return
    what = "is left over from a run that was stopped; the next run removes it"
    report.notes += [f"{path}: {what}" for path in leftovers(folder)]


def _note_gaps(recorded: dict[Path, tuple[str, int, int]], report: Report) -> None:
    """Note stacks that have results under some structures only, and numbers that are left out."""
    stacks = defaultdict(set)
    for kind, i, k in recorded.values():
        stacks[kind, i].add(k)
    last: Counter[str] = Counter()
    for (kind, _), numbers in stacks.items():
        last[kind] = max(last[kind], *numbers)
    for (kind, i), numbers in stacks.items():
        if missing := set(range(last[kind] + 1)) - numbers:
            report.notes.append(
                f"template{i} has no {kind.replace('_', ' ')} of stack(s) {listed(sorted(missing))}"
            )


def _checked(
    files: LikelihoodFiles, path: Path, kind: str, i: int, k: int, report: Report
) -> list[Result]:
    """Check a record and all files that it describes; give the result if all is well."""
    record = _record(path, {"format": FORMAT, "kind": kind, "i_template": i, "i_stack": k})
    outputs, folders = {}, dict(KINDS[kind].folders)
    more = KINDS[kind].more_folders  # not of every search
    folders |= {name: more[name] for name in more if name in record["outputs"]}
    for variable, folder in folders.items():
        with report.listing():
            outputs[variable] = _output(
                as_stored(files.output(i, variable, folder, k)), variable, record
            )
    return [Result(kind, i, k, record, path, outputs)] if len(outputs) == len(folders) else []


def _record(path: Path, expected: dict[str, object]) -> Record:
    """Read a record that says what every record says."""
    _need_content(path)
    try:
        record = read_record(path)
    except InputFileError as error:
        raise OutputError(str(error)) from error
    if record is None:
        raise OutputError("is gone", source=path, remedy=AGAIN)
    for name, value in expected.items():
        if record.get(name) != value:
            what = f"says {name}={record.get(name)!r}, but is the record of {value!r}"
            raise OutputError(what, source=path, remedy=AGAIN)
    for name in ("search", "parameters"):
        if name not in record["settings"]:
            raise OutputError(
                f"says no {name}, as the records of results do", source=path, remedy=AGAIN
            )
    return record


def _need_content(path: Path, remedy: str = AGAIN) -> None:
    """Refuse what cannot be read as a file; nothing is opened that may block."""
    try:
        status = path.stat()
    except OSError as error:
        raise OutputError(
            f"cannot be read: {error.strerror}", source=path, remedy=remedy
        ) from error
    if not stat.S_ISREG(status.st_mode):
        raise OutputError("is not a file", source=path, remedy=f"Remove it. {remedy}")
    if not status.st_size:
        raise OutputError("is empty", source=path, remedy=remedy)


def _output(path: Path, variable: str, record: Record) -> TensorFile | Store:
    """Open a result that is as its record says."""
    if path.suffix == FILE_SUFFIX:
        _need_content(path)
    try:
        tensor = open_result(path)
        sha256 = checksum(path)
    except (InputFileError, OSError) as error:
        raise OutputError(str(error), remedy=AGAIN) from error
    dtype = "int64" if variable in labels.INTEGERS else REAL[record["precision"]]
    described = record["outputs"].get(variable)
    if list(tensor.shape) != record["shape"]:
        what = f"has shape {tensor.shape}, but its record says {tuple(record['shape'])}"
    elif tensor.dtype != dtype:
        what = f"holds {tensor.dtype} values, but a run of this precision writes {dtype}"
    elif not isinstance(described, dict) or described.get("sha256") != sha256:
        what = "is not the file that its record describes: its sha256 is another"
    else:
        return tensor
    raise OutputError(what, source=path, remedy=AGAIN)


def _of_one_run(results: list[Result], report: Report) -> list[Result]:
    """Those results whose settings are those of most; the others are listed."""
    texts = [json.dumps(of_any_kind(r.record["settings"]), sort_keys=True) for r in results]
    alike = _as_most(results, texts, report)
    poses = [result for result in alike if result.kind == OPTIMAL_POSE.name]
    methods = [search_method(result.record["settings"]) for result in poses]
    kept = {result.path for result in _as_most(poses, methods, report)}
    return [r for r in alike if r.kind != OPTIMAL_POSE.name or r.path in kept]


def _as_most(results: list[Result], settings: Sequence[str], report: Report) -> list[Result]:
    usual = Counter(settings).most_common(1)[0][0] if settings else ""
    for result, own in zip(results, settings, strict=True):
        if own != usual:
            what = "has other settings than most records of this folder"
            remedy = f"Remove it. {AGAIN}"
            report.findings.append(str(OutputError(what, source=result.path, remedy=remedy)))
    return [result for result, own in zip(results, settings, strict=True) if own == usual]
