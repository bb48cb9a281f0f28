"""Noise models in files: our own, and the spectra that RELION writes of its refinements."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.errors import InputError, InputFileError
from cryolike_dask.geometry.noise import ALL_IMAGES, MICROGRAPH, OPTICS_GROUP, NoiseModel
from cryolike_dask.io.archives import archive_content, read_archive
from cryolike_dask.io.atomic import replacing, write_unless_there
from cryolike_dask.io.identity import reading
from cryolike_dask.io.kinds import kinds_of
from cryolike_dask.io.star import StarBlock, read_star

KEYS = tuple(field.name for field in fields(NoiseModel))
TEXTS, COUNTS, SCALARS = (
    ("groups", "reasons"),
    ("n_pixels", "n_images"),
    ("n_pixels", "pixel_size_angstrom"),
)
"""Keys that hold text, whole numbers, and one number; others hold arrays of float64."""
OWN_KEYS = ("frequencies", "variance", "relative_error")
"""Those that no other kind of file has."""
STAR_SUFFIX = ".star"
SPECTRUM = re.compile(r"model_(optics_)?group_([1-9][0-9]{0,6})")
"""Blocks of RELION's, one for each optics group; before RELION 4, for each group of micrographs."""
GENERAL, TABLES = "model_general", {True: "model_optics_groups", False: "model_groups"}
GROUP_NAMES = ("rlnOpticsGroupName", "rlnGroupName")
N_PARTICLES = "rlnGroupNrParticles"
ESTIMATE = 'Estimate the noise from the images: noise="estimate".'


def write_noise(path: str | Path, model: NoiseModel) -> None:
    """Write a noise model, atomically; the same bytes for the same model.

    Parameters
    ----------
    path : path
        `noise.npz`.
    model : NoiseModel

    Raises
    ------
    OutputError
        If the folder or the disk does not take it.
    """
    content = _content(path, model)
    with replacing(path) as file:
        file.write(content)


def write_noise_unless_there(path: Path, model: NoiseModel) -> bool:
    """Write a noise model unless there is one; say whether it was written. Of several runs that
    try at a time, one writes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_unless_there(path, _content(path, model))


def read_noise(path: str | Path) -> NoiseModel:
    """Read a noise model.

    Parameters
    ----------
    path : path
        A file that `write_noise` wrote, or a run keeps beside its results; or the `model.star` of a
        refinement or classification of RELION's. There, the mean of images (spectral index 0) is
        left out, and a spectrum that ends in zeros ends its band. A single spectrum is for all
        images; others are for the optics groups, or before RELION 4 the micrographs, that the file
        names.

    Returns
    -------
    NoiseModel

    Raises
    ------
    InputFileError
        If the file is missing, damaged or something else, or a spectrum cannot be used.
    """
    path = _path(path)
    try:
        return _of_relion(path) if path.suffix.lower() == STAR_SUFFIX else _of_archive(path)
    except InputFileError:
        raise
    except InputError as error:
        raise InputFileError(str(error), source=path) from error


@lru_cache(maxsize=2)
def model_checksum(model: NoiseModel) -> str:
    """sha256 of the file that `write_noise` would write."""
    return hashlib.sha256(_content("noise", model)).hexdigest()


def noise_checksum(path: Path) -> str:
    """sha256 of the file of a noise model: what records know it by."""
    with reading(path) as file:
        return hashlib.sha256(file.read()).hexdigest()


def _path(path: object) -> Path:
    if isinstance(path, (str, Path)) and str(path).strip():
        return Path(path)
    raise InputError(f"{path!r} is not the path of a noise model")


def _content(path: str | Path, model: NoiseModel) -> bytes:
    if not isinstance(model, NoiseModel):
        raise InputError(
            f"a {type(model).__name__} is no noise model", remedy="Give what estimate_noise gives."
        )
    return archive_content(path, noise_entries(model))


def noise_entries(model: NoiseModel) -> dict[str, NDArray[Any]]:
    """The entries of the file of a noise model: its attributes."""
    return {key: _as_stored(key, getattr(model, key)) for key in KEYS}


def _as_stored(key: str, value: Any) -> NDArray[Any]:
    if key in TEXTS:
        return np.array(value, np.str_)
    dtype = np.int64 if key in COUNTS else np.float64
    return np.asarray(value, dtype, order="C")


def _of_archive(path: Path) -> NoiseModel:
    entries = read_archive(path, optional=(), keys=KEYS)
    missing = [key for key in KEYS if key not in entries]
    if missing:
        raise InputFileError(
            _what_it_is(path, missing),
            source=path,
            remedy="Give the noise.npz that `cryolike-dask noise` makes (estimate_noise and "
            "write_noise), or that a run keeps beside its results.",
        )
    values: dict[str, Any] = {}
    for key, value in entries.items():
        _check_type(path, key, value)
        values[key] = _as_read(key, value)
    return NoiseModel(**values)


def _what_it_is(path: Path, missing: Sequence[str]) -> str:
    """Say what a file is that is no noise model, as far as its name tells."""
    if any(key not in missing for key in OWN_KEYS):
        return f"is not a whole noise model: it lacks {', '.join(missing)}"
    kinds = sorted(kinds_of(path))
    return "is no noise model" + (f", but holds {' and '.join(kinds)}" if kinds else "")


def _as_read(key: str, value: Any) -> Any:
    if key in TEXTS:
        return tuple(str(text) for text in value)
    values = value.astype(np.int64 if key in COUNTS else np.float64)
    return values.item() if key in SCALARS else values


def _check_type(path: Path, key: str, value: NDArray[Any] | None) -> None:
    """Refuse what cannot be the values of a key; their shapes are the model's business."""
    is_one = key in SCALARS
    kinds = "U" if key in TEXTS else "iu" if key in COUNTS else "fiu"
    if value is None or value.dtype.kind not in kinds or (value.shape == ()) != is_one:
        found = "nothing" if value is None else f"{value.dtype} of shape {value.shape}"
        raise InputFileError(f"{key} holds {found}", source=path, remedy="Make the file again.")
    if is_one and not (np.isfinite(value) and value > 0):
        raise InputFileError(
            f"{key}={value.item()!r} is not positive", source=path, remedy="Make the file again."
        )


def _of_relion(path: Path) -> NoiseModel:
    """The model of the spectra that RELION estimated in its last iteration."""
    blocks = {block.name: block for block in read_star(path)}
    matches = {name: match for name in blocks if (match := SPECTRUM.fullmatch(name))}
    is_of_optics = any(match[1] for match in matches.values())
    numbers = sorted(int(m[2]) for m in matches.values() if bool(m[1]) == is_of_optics)
    if not numbers:
        raise InputFileError(
            "holds no spectrum of the noise (no data_model_optics_group_1)",
            source=path,
            remedy="Give the model.star of the last iteration of a refinement.",
        )
    n_pixels, pixel_size = _box(path, blocks)
    groups = _group_names(blocks.get(TABLES[is_of_optics]), numbers, is_of_optics)
    prefix = "model_optics_group_" if is_of_optics else "model_group_"
    spectra = {
        group: _spectrum(path, blocks[f"{prefix}{number}"], n_pixels)
        for number, group in zip(numbers, groups, strict=True)
        if group is not None
    }
    if not spectra or len(spectra) < sum(group is not None for group in groups):
        what = "names two groups alike" if spectra else "says that no group has particles"
        raise InputFileError(what, source=path, remedy=ESTIMATE)
    return _model(spectra, n_pixels, pixel_size)


def _model(
    spectra: Mapping[str, NDArray[np.float64]], n_pixels: int, pixel_size: float
) -> NoiseModel:
    """Spectra by spectral index, from 1 on, as a model; a shorter one ends its band."""
    n, n_shells = len(spectra), max(n_pixels // 2, *map(len, spectra.values()))
    frequencies = np.arange(1, n_shells + 1) / (n_pixels * pixel_size)
    variance = np.stack([np.pad(s, (0, n_shells - len(s)), "edge") for s in spectra.values()])
    ends = [frequencies[len(s) - 1] for s in spectra.values()]
    is_whole = [len(s) >= n_pixels // 2 for s in spectra.values()]
    reasons = tuple(
        "as RELION estimated it"
        if whole
        else f"as RELION estimated it; its spectrum ends at {1 / end:.3g} angstrom"
        for whole, end in zip(is_whole, ends, strict=True)
    )
    return NoiseModel(
        groups=tuple(spectra) if n > 1 else (ALL_IMAGES,),
        n_pixels=n_pixels,
        pixel_size_angstrom=pixel_size,
        frequencies=frequencies,
        variance=variance,
        relative_error=np.zeros(variance.shape),
        n_images=np.zeros(n, np.int64),
        band_limit=np.where(is_whole, np.inf, ends),
        share=np.full(n, np.nan),
        reasons=reasons,
        b_factor_angstrom2=np.zeros(n),
        b_factor_error=np.full(n, np.nan),
    )


def _box(path: Path, blocks: Mapping[str, StarBlock]) -> tuple[int, float]:
    """Pixels and pixel size of the images."""
    general = blocks.get(GENERAL)
    if general is None or len(general) != 1:
        raise InputFileError("has no block data_model_general", source=path, remedy=ESTIMATE)
    n_pixels, pixel_size = (
        float(_column(path, general, label)[0])
        for label in ("rlnOriginalImageSize", "rlnPixelSize")
    )
    if n_pixels != round(n_pixels) or not 0 < n_pixels < 2**20 or not 0 < pixel_size < 1e6:
        raise InputFileError(
            f"data_model_general says images of {n_pixels:g} pixels of {pixel_size:g} angstrom",
            source=path,
            remedy=ESTIMATE,
        )
    return int(n_pixels), pixel_size


def _group_names(
    table: StarBlock | None, numbers: Sequence[int], is_of_optics: bool
) -> list[str | None]:
    """Names of groups as images know them; None for those that have no particles."""
    prefix = OPTICS_GROUP if is_of_optics else MICROGRAPH
    columns = {} if table is None else table.columns
    names = next((columns[label] for label in GROUP_NAMES if label in columns), None)
    sizes = columns.get(N_PARTICLES)
    return [
        None
        if sizes is not None and n <= len(sizes) and sizes[n - 1].strip("0.") == ""
        else prefix + (str(n) if names is None or n > len(names) else str(names[n - 1]))
        for n in numbers
    ]


def _spectrum(path: Path, block: StarBlock, n_pixels: int) -> NDArray[np.float64]:
    """Variance by spectral index, from 1 on, as far as there is noise."""
    index = _column(path, block, "rlnSpectralIndex")
    variance = _column(path, block, "rlnSigma2Noise")
    where = f"rlnSigma2Noise in data_{block.name}"
    if (index != np.arange(len(index))).any() or len(index) > n_pixels:
        raise InputFileError(
            f"rlnSpectralIndex in data_{block.name} does not count from 0", source=path
        )
    if not (np.isfinite(variance) & (variance >= 0)).all():
        raise InputFileError(f"{where} is negative or not finite", source=path, remedy=ESTIMATE)
    # the mean of the images, which normalisation takes out, tells nothing of the noise
    ends = np.flatnonzero(variance > 0)
    inside = variance[1 : ends[-1] + 1] if len(ends) else variance[:0]
    if len(inside) < 2 or (inside == 0).any():
        what = "has zeros inside" if (inside == 0).any() else "is zero nearly everywhere"
        raise InputFileError(f"{where} {what}", source=path, remedy=ESTIMATE)
    return inside


def _column(path: Path, block: StarBlock, label: str) -> NDArray[np.float64]:
    values = block.columns.get(label)
    if values is None:
        raise InputFileError(f"data_{block.name} has no column {label}", source=path)
    try:
        return values.astype(np.float64)
    except ValueError as error:
        raise InputFileError(
            f"{label} in data_{block.name}: {str(error)[:100]}", source=path
        ) from error
