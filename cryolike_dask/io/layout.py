"""The names of all input and output files, once."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np

from cryolike_dask import labels
from cryolike_dask.errors import SHOWN, InputError, missing_files, number
from cryolike_dask.io.archives import read_list
from cryolike_dask.io.listed_files import listed_file

Templates = int | Sequence[int] | Literal["all"]

OPTIMAL_POSE_FILES = {
    labels.CROSS_CORRELATION: "cross_correlation",
    labels.OPTIMAL_TEMPLATE: "optimal_pose",
    labels.OPTIMAL_DISPLACEMENT_X: "optimal_pose",
    labels.OPTIMAL_DISPLACEMENT_Y: "optimal_pose",
    labels.OPTIMAL_INPLANE_ROTATION: "optimal_pose",
    labels.LOG_LIKELIHOOD_INTEGRATED: "log_likelihood",
    labels.LOG_LIKELIHOOD_OPTIMAL: "log_likelihood",
    labels.CORRELATION_ERROR_BOUND: "cross_correlation",
}
"""The folder of each variable of an optimal pose below templateN."""

SEARCH_FILES = dict.fromkeys(labels.OF_SEARCH, "log_likelihood")
POSTERIOR_FILES = dict.fromkeys(labels.OF_POSTERIOR, "posterior")
REFINED_FILES = dict.fromkeys(labels.REFINED, "refined_pose")
"""The same of what there is besides: where not every pose was compared, where posteriors of poses
were asked for, and where poses were refined."""
POSE_FILES = {**OPTIMAL_POSE_FILES, **SEARCH_FILES, **POSTERIOR_FILES, **REFINED_FILES}

FULL_CORRELATION_FILES = {"cross_correlation_pose_msdw": "cross_correlation"}
"""The folder of the full cross-correlation below templateN."""

FILE_SUFFIX, STORE_SUFFIX, METADATA_SUFFIX = ".pt", ".zarr", ".npz"
"""Tensors; correlations too large for a tensor; and what is known of the tensor beside it."""

STACK_NAME = re.compile(r"particles_fourier_stack_([0-9]{6})(\.pt|\.npz)")
STACK_NUMBER = re.compile(r"stack_([0-9]{6})$")
STRUCTURE_FOLDER = re.compile(r"template(0|[1-9]\d*)")
RESULT_NAME = re.compile(r".+_stack_(\d{6})\.(?:pt|zarr)")
RECORD_NAME = re.compile(r"(?:(.+)_)?stack_(\d{6})\.json")
"""Kind of the results, unless they are optimal poses, and number of the stack."""

TEMPLATES_PREFIX = "templates_fourier_"
TEMPLATE_LIST, PARAMETERS = "template_file_list.npy", "parameters.npz"
RECORDS = "done"
"""Folder of the completion records, below what they are about."""
RECORDS_OF_RESULTS = f"template*/{RECORDS}/*.json"
RESULTS, RESULT_TENSORS = (f"template*/*/*_stack_??????{end}" for end in (".*", FILE_SUFFIX))
STRUCTURE_FILE, CONFIGURATION, RUN_LOG = "structure.npz", "run.yaml", "run.log"
NOISE, NOISE_PLOT = "noise.npz", "noise.png"
CLAIM, HOLDERS = ".claim-{kind}.json", ".run-*.json"
"""Claims of output folders, and the holders of claims: `io/claims`, `io/holders`."""
LEFTOVER = re.compile(r"\..+(?:\.[0-9a-f]{32}|\.zarr)\.part")
"""Files and stores that were not finished."""
PLACES_OF_LEFTOVERS = ("", RECORDS, "fft", "phys", "images", "subset", "template*", "template*/*")

OF_FOURIER = labels.LOG_LIKELIHOOD_INTEGRATED, labels.LOG_LIKELIHOOD_OPTIMAL
STEM_SUFFIX = dict.fromkeys(OF_FOURIER, "_fourier")


@dataclass(frozen=True)
class LikelihoodFiles:
    """Folders that a run reads and writes, and the files in them. Nothing is created or read when
    this is made.

    Attributes
    ----------
    folder_templates, folder_particles : Path or None
        None: the run is given templates or images that are not in files; results are found by what
        is in the output.
    folder_output : Path
    n_stacks : int or None
        How many image stacks, from number 0 on; None: all that are there.
    i_template : int, sequence of int, or "all"
        Which entries of `template_file_list.npy`, or of the structures given.
    """

    folder_templates: Path | None
    folder_particles: Path | None
    folder_output: Path
    n_stacks: int | None = None
    i_template: Templates = 0

    def __post_init__(self) -> None:
        for name in ("folder_templates", "folder_particles", "folder_output"):
            value = getattr(self, name)
            if value is None and name != "folder_output":
                continue
            if not isinstance(value, (str, Path)):
                raise InputError(f"{name}={value!r} is not a path")
            object.__setattr__(self, name, Path(value))

    @property
    def template_list(self) -> Path:
        """The list of template files."""
        return _needed(self.folder_templates, "folder_templates") / TEMPLATE_LIST

    @property
    def displacements(self) -> Path:
        """The realised search grid."""
        return self.folder_output / "displacements_set.pt"

    @property
    def noise(self) -> Path:
        """The noise model of all results, as the first run took it; none where noise is white."""
        return self.folder_output / NOISE

    @property
    def block_table(self) -> Path:
        """Time and place of each block; a row each, appended by every run."""
        return self.folder_output / "blocks.csv"

    @property
    def calibration(self) -> Path:
        """What particles simulated for the run have shown of its probabilities."""
        return self.folder_output / "calibration.json"

    def image_stack(self, i_stack: int) -> tuple[Path, Path]:
        """The tensor and the metadata of an image stack."""
        tensor = image_stack_file(_needed(self.folder_particles, "folder_particles"), i_stack)
        return tensor, metadata_file(tensor)

    def output(self, i_template: int, variable: str, folder: str, i_stack: int) -> Path:
        """The file of one variable of one stack under one structure."""
        stem = variable + STEM_SUFFIX.get(variable, "")
        return (
            self.folder_output
            / f"template{i_template}"
            / folder
            / f"{stem}_stack_{i_stack:06d}{FILE_SUFFIX}"
        )

    def record(self, i_template: int, i_stack: int, kind: str) -> Path:
        """The completion record of one stack under one structure."""
        name = (
            f"stack_{i_stack:06d}.json"
            if kind == "optimal_pose"
            else f"{kind}_stack_{i_stack:06d}.json"
        )
        return self.folder_output / f"template{i_template}" / RECORDS / name

    def origins(self, i_stack: int) -> Path:
        """Origins of the images of a stack."""
        return self.folder_output / "images" / f"stack_{i_stack:06d}{METADATA_SUFFIX}"

    def structure(self, i_template: int) -> Path:
        """Name of a structure, and its viewing directions."""
        return self.folder_output / f"template{i_template}" / STRUCTURE_FILE

    def stack_numbers(self) -> list[int]:
        """Numbers of the stacks that the run covers.

        Raises
        ------
        InputError
            If there are fewer than `n_stacks`.
        InputFileError
            If any tensor or metadata file is missing; names the first of them, and counts the
            others.
        """
        wanted = (
            None
            if self.n_stacks is None
            else number("n_stacks", self.n_stacks, whole=True, at_least=1)
        )
        if self.folder_particles is None:
            numbers = _numbers_of_results(self.folder_output, wanted)
            return list(range(_how_many(numbers, wanted, f"{self.folder_output} has results of")))
        files = image_stack_files(self.folder_particles)
        n = _how_many({k for k, _ in files}, wanted, f"{self.folder_particles} has")
        n_missing = 2 * n - sum(k < n for k, _ in files)
        if n_missing:
            paths = (
                path
                for k in range(n)
                for path in self.image_stack(k)
                if (k, path.suffix) not in files
            )
            remedy = "Convert the particles, or give the folder that holds fft/."
            raise missing_files(islice(paths, SHOWN), remedy, n_missing)
        return list(range(n))

    def template_files(self) -> list[Path]:
        """The template file of each structure in the list.

        A name is looked for as it is, which is from the current folder on, and beside the list,
        where the whole folder may have been moved to. Of two files that hold the same the one
        beside the list is taken.

        Raises
        ------
        InputFileError
            If the list or a file is missing, or a name fits two files that differ.
        """
        folder = self.template_list.parent
        names = [Path(name) for name in read_list(self.template_list)]
        paths = [listed_file(name, folder, self.template_list) for name in names]
        missing = [
            folder / name.name for name, path in zip(names, paths, strict=True) if path is None
        ]
        if missing:
            raise missing_files(
                missing, f"Make the templates again, or correct {self.template_list}."
            )
        return [path for path in paths if path is not None]

    def structures(self) -> list[int]:
        """The template numbers that `i_template` names.

        Raises
        ------
        InputError
            If a number is beyond the list of templates.
        """
        if self.folder_templates is None:
            n = max(structure_numbers(self.folder_output), default=0) + 1
            return self.chosen(n, f"{self.folder_output}, which has results of {n} structure(s)")
        n = len(self.template_files())
        return self.chosen(n, f"{self.template_list}, which lists {n} template file(s)")

    def chosen(self, n: int, where: str) -> list[int]:
        """The numbers that `i_template` names among `n` structures, which stand in `where`."""
        if isinstance(self.i_template, str):
            if self.i_template != "all":
                raise InputError(
                    f"i_template={self.i_template!r}", remedy='Give a number, a list, or "all".'
                )
            return list(range(n))
        wanted: list[int] = np.atleast_1d(np.asarray(self.i_template, object)).tolist()
        if not wanted:
            raise InputError("i_template names no structure")
        if len(set(wanted)) < len(wanted):
            raise InputError(f"i_template={wanted} names a structure twice")
        for i in wanted:
            if not 0 <= number("i_template", i, whole=True) < n:
                raise InputError(
                    f"i_template={i} is not in {where}",
                    remedy=f"Give 0 to {n - 1}.",
                )
        return [int(i) for i in wanted]


def image_stack_file(folder: Path, i_stack: int) -> Path:
    """The images of a stack on the Fourier polar grid."""
    return folder / "fft" / f"particles_fourier_stack_{i_stack:06d}{FILE_SUFFIX}"


def metadata_file(tensor: Path) -> Path:
    """The `.npz` beside the tensor of images or templates that says what they are."""
    return tensor.with_suffix(METADATA_SUFFIX)


def image_stack_record(folder: Path, i_stack: int) -> Path:
    """The completion record of an image stack that was converted."""
    return folder / RECORDS / f"stack_{i_stack:06d}.json"


def template_record(tensor: Path) -> Path:
    """The completion record of a template file."""
    return tensor.parent / RECORDS / f"{tensor.stem}.json"


def pixel_stack_file(folder: Path, i_stack: int) -> Path:
    """The pixels of a stack."""
    return folder / "phys" / f"particles_phys_stack_{i_stack:06d}{FILE_SUFFIX}"


def pixels_of_stack(tensor: Path) -> Path | None:
    """The pixels of a stack, by the file of its images on the polar grid; None if they are not
    there."""
    match = STACK_NAME.fullmatch(tensor.name)
    pixels = pixel_stack_file(tensor.parent.parent, int(match[1])) if match else None
    return pixels if pixels is not None and pixels.is_file() else None


def as_stored(path: Path) -> Path:
    """File of a result, or the store that is written in place of a file that would be too large."""
    if path.suffix not in (FILE_SUFFIX, STORE_SUFFIX):
        return path
    file, store = path.with_suffix(FILE_SUFFIX), path.with_suffix(STORE_SUFFIX)
    return store if store.is_dir() and not file.exists() else file


def image_stack_files(folder: Path) -> set[tuple[int, str]]:
    """Number and suffix of each file of the image stacks in a folder, which is listed once."""
    try:
        names = os.listdir(folder / "fft")
    except OSError:
        return set()
    return {(int(match[1]), match[2]) for match in map(STACK_NAME.fullmatch, names) if match}


def image_stack_numbers(folder: Path) -> list[int]:
    """The numbers of the stacks in a folder, those included of which only one file is there."""
    return sorted({k for k, _ in image_stack_files(folder)})


def structure_numbers(folder: Path) -> list[int]:
    """The numbers of the structures that have a folder among results."""
    matches = (re.fullmatch(r"template(\d{1,9})", path.name) for path in folder.glob("template*"))
    return sorted(int(match[1]) for match in matches if match)


def holds_templates(path: Path) -> bool:
    """Whether a path that was given for templates is a folder of template files, or not there,
    and not structures."""
    return (path / TEMPLATE_LIST).is_file() or not path.exists()


def holds_image_stacks(path: Path) -> bool:
    """Whether a path that was given for particles is a folder of image stacks, and not particles
    to be read."""
    return path.is_dir() and not list(path.glob("*.cs"))


def structure_of(path: Path) -> str:
    """Name of the structure of a template file."""
    return path.stem.removeprefix(TEMPLATES_PREFIX)


def is_of_templates(path: Path) -> bool:
    """Whether a file is, by its name, one of those that templates are kept in."""
    return path.name == TEMPLATE_LIST or path.name.startswith(TEMPLATES_PREFIX)


def template_file(folder: Path, name: str) -> Path:
    """The templates of a structure."""
    return folder / f"{TEMPLATES_PREFIX}{name}{FILE_SUFFIX}"


def need_files(value: object) -> None:
    """Refuse what is not a `LikelihoodFiles`."""
    if not isinstance(value, LikelihoodFiles):
        raise InputError(
            f"file_config is a {type(value).__name__}",
            remedy="Make it with configure_likelihood_files.",
        )


def covering(
    file_config: LikelihoodFiles, i_template: Templates | None, n_stacks: int | None
) -> LikelihoodFiles:
    """Give files with these structures and stacks, where they are given, in place of its own."""
    need_files(file_config)
    return replace(
        file_config,
        i_template=file_config.i_template if i_template is None else i_template,
        n_stacks=file_config.n_stacks if n_stacks is None else n_stacks,
    )


def _needed(folder: Path | None, name: str) -> Path:
    if folder is None:
        raise InputError(f"{name} is None", remedy="Configure it with configure_likelihood_files.")
    return folder


def _how_many(numbers: set[int], wanted: int | None, where: str) -> int:
    """Number of stacks that are wanted, of those up to the last that is there; 1 where there is
    none."""
    n = 1 + max(numbers, default=0)
    if numbers and wanted is not None and wanted > n:
        raise InputError(
            f"n_stacks={wanted}, but {where} {n:,} image stack(s)",
            remedy=f"Give at most {n:,}, or leave it out to take all.",
        )
    return n if wanted is None else min(wanted, n)


def _numbers_of_results(folder: Path, wanted: int | None) -> set[int]:
    """The stacks that have records of results; or results at all, where so many are wanted that
    some have no record."""
    numbers: set[int] = set()
    for names in ("done/*.json", "*/*.*"):
        matches = (STACK_NUMBER.search(path.stem) for path in folder.glob(f"template*/{names}"))
        numbers = {int(match[1]) for match in matches if match}
        if wanted is None or wanted <= len(numbers):
            break
    return numbers


def leftovers(folder: Path) -> list[Path]:
    """Files and stores below an output folder that are not finished, or never were."""
    unfinished_paths = (
        path
        for place in PLACES_OF_LEFTOVERS
        for path in folder.glob(f"{place}/.*.part".lstrip("/"))
    )
    return sorted(path for path in unfinished_paths if LEFTOVER.fullmatch(path.name))
