"""Image stacks (`particles_fourier_stack_NNNNNN.pt`, `.npz`) and template stacks
(`templates_fourier_NAME.pt`) on disk.

A stack of this project says `frame = "xy"` (x is the MRC column); one without that key is
CryoLike's, transposed (x is the MRC row). Templates of this project have a sidecar
`templates_fourier_NAME.npz` with their viewing angles and conventions; templates without one are
CryoLike's.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cryolike_dask.conventions import ConventionsName
from cryolike_dask.errors import GridMismatchError, InputError, InputFileError, number
from cryolike_dask.geometry.known_poses import recorded_poses
from cryolike_dask.geometry.optics import filled_optics, remarks_on
from cryolike_dask.geometry.parameters import ImageParameters
from cryolike_dask.geometry.plausible import Wording
from cryolike_dask.geometry.symmetry import NO_SYMMETRY, point_group
from cryolike_dask.geometry.viewing_angles import ViewingAngles, viewing_grid
from cryolike_dask.io import parameters as io_parameters
from cryolike_dask.io.archives import archive_keys, read_archive, write_archive
from cryolike_dask.io.layout import metadata_file
from cryolike_dask.io.noise_entries import tells_of_rings
from cryolike_dask.io.tensors import TensorFile, open_tensor, save_tensor

logger = logging.getLogger("cryolike_dask")

COMPLEX = ("complex64", "complex128")
STACK_OPTIONAL = (
    *io_parameters.OPTIONAL,
    "angleRotation",
    "angleTilt",
    "anglePsi",
    "ref_pixel_size",
    "files",
    "idxs",
    "ctfBfactor",
    "ctfScalefactor",
    "stack_start",
    "stack_end",
    "frame",
    "originX",
    "originY",
    "randomSubset",
    "micrograph",
    "opticsGroup",
    "trueStructure",
)
OPTICS_KEYS = {
    "defocusU": "defocus_u_angstrom",
    "defocusV": "defocus_v_angstrom",
    "defocusAngle": "defocus_angle_radian",
    "phaseShift": "phase_shift_radian",
    "voltage": "voltage_kilovolt",
    "sphericalAberration": "spherical_aberration_mm",
    "amplitudeContrast": "amplitude_contrast",
}
ENVELOPE_KEYS = {"ctfBfactor": "b_factor_angstrom2", "ctfScalefactor": "scale"}
GRID_KEYS = ("n_pixels", "pixel_size", "radius_max", "dist_radii", "n_inplanes")
GROUP_KEYS = ("micrograph", "opticsGroup")
ANGLE_KEYS, ORIGIN_KEYS = ("angleRotation", "angleTilt", "anglePsi"), ("originX", "originY")
POSE_KEYS = (*ANGLE_KEYS, *ORIGIN_KEYS, "recentered", "stack_start", "stack_end")
STACK_KEYS = (
    *io_parameters.KEYS,
    *OPTICS_KEYS,
    *ENVELOPE_KEYS,
    *GROUP_KEYS,
    *POSE_KEYS,
    "n_images",
    "frame",
)
SIDECAR_KEYS = ("azimuth", "polar", "viewing_weight", "conventions", *GRID_KEYS)
WORDING = Wording({name: key for key, name in (OPTICS_KEYS | ENVELOPE_KEYS).items()})
"""Names of the optics in the `.npz` of a stack."""
ONCE_IF_ALIKE = ("voltage", "sphericalAberration", "amplitudeContrast", *ENVELOPE_KEYS)
"""Written as one number where all images agree: CryoLike reads the first three in no other form."""


@dataclass(frozen=True, eq=False)
class ImageStackFile:
    """One image stack as its headers describe it.

    `groups` are micrograph and optics group of each image, or None; `knows_rings` says whether sums
    over the rings of images are there; `poses` are those that are recorded, or None.
    """

    tensor: TensorFile
    metadata: Path
    optics: NDArray[np.void]
    frame: str
    groups: NDArray[np.str_] | None
    knows_rings: bool
    poses: NDArray[np.void] | None


def open_image_stack(
    tensor_path: Path, metadata_path: Path, parameters: ImageParameters
) -> ImageStackFile:
    """Read the headers of one image stack and hold them against the parameters.

    Raises
    ------
    InputFileError, GridMismatchError
        If a file is damaged or incomplete, or the stack lies on another grid than the parameters
        describe.
    """
    tensor = open_tensor(tensor_path, n_dims=3, dtypes=COMPLEX)
    check_shape(tensor, parameters, "Convert the stack again with these parameters.")
    entries = read_archive(
        metadata_path, optional=STACK_OPTIONAL, keys=STACK_KEYS, n_images=tensor.shape[0]
    )
    io_parameters.parameters_from(entries, str(metadata_path))  # refuses what describes no grid
    _check_grid(
        entries, parameters, metadata_path, "Convert the stack again with these parameters."
    )
    missing = [key for key in (*OPTICS_KEYS, "n_images") if entries.get(key) is None]
    if missing:
        raise InputFileError(
            f"lacks {', '.join(missing)}", source=metadata_path, remedy="Convert the stack again."
        )
    n_images = _number(entries["n_images"], "n_images", metadata_path)
    if n_images != tensor.shape[0]:
        raise GridMismatchError(
            f"n_images={n_images}, but {tensor_path} holds {tensor.shape[0]} images",
            source=metadata_path,
            remedy="The two files do not belong together; convert the stack again.",
        )
    columns: dict[str, NDArray[Any] | None] = {
        name: entries[key] for key, name in OPTICS_KEYS.items()
    }
    columns |= {
        name: entries[key] for key, name in ENVELOPE_KEYS.items() if entries.get(key) is not None
    }
    try:
        optics = filled_optics(n_images, columns, WORDING)
    except InputError as error:
        raise InputFileError(str(error), source=metadata_path) from error
    frame = str(entries["frame"]) if entries.get("frame") is not None else "transposed"
    if frame not in ("xy", "transposed"):
        raise InputFileError(f'frame={frame!r} is not known; "xy" is', source=metadata_path)
    recorded = (_recorded(entries.get(key), key, n_images, metadata_path) for key in GROUP_KEYS)
    return ImageStackFile(
        tensor,
        metadata_path,
        optics,
        frame,
        groups_of(n_images, *recorded),
        tells_of_rings(archive_keys(metadata_path)),
        _poses(entries, n_images),
    )


def _poses(entries: Mapping[str, NDArray[Any] | None], n_images: int) -> NDArray[np.void] | None:
    """Poses that are recorded of the images; CryoLike's files list those of other stacks too."""
    start, stop = (entries.get(key) for key in ("stack_start", "stack_end"))

    def columns(keys: tuple[str, ...]) -> NDArray[np.float64] | None:
        found = [entries.get(key) for key in keys]
        if any(v is None or v.ndim != 1 or v.dtype.kind not in "fiu" for v in found):
            return None
        values = np.stack([np.asarray(v, np.float64) for v in found], axis=1)
        if len(values) != n_images and start is not None and stop is not None:
            values = values[start.item() : stop.item()] if start.size == stop.size == 1 else values
        return values if len(values) == n_images else None

    recentered = entries.get("recentered")
    return recorded_poses(
        n_images,
        columns(ANGLE_KEYS),
        columns(ORIGIN_KEYS),
        recentered=recentered is not None and bool(recentered.any()),
    )


def groups_of(
    n_images: int, micrograph: NDArray[Any] | None, optics_group: NDArray[Any] | None
) -> NDArray[np.str_] | None:
    """Micrograph and optics group of each image as text, (image, 2), "" where it is not known; None
    if nothing is."""
    columns = [
        np.full(n_images, "") if values is None else values.astype(np.str_)
        for values in (micrograph, optics_group)
    ]
    groups: NDArray[np.str_] = np.stack(columns, axis=1)
    return groups if (groups != "").any() else None


def joined_groups(stacks: Sequence[ImageStackFile]) -> NDArray[np.str_] | None:
    """Groups of the images of several stacks, if any are known."""
    if all(stack.groups is None for stack in stacks):
        return None
    return np.concatenate([filled_groups(s.groups, s.tensor.shape[0]) for s in stacks])


def filled_groups(groups: NDArray[np.str_] | None, n_images: int) -> NDArray[np.str_]:
    """Groups of images, "" where they are not known."""
    return np.full((n_images, 2), "") if groups is None else groups


def _recorded(
    values: NDArray[Any] | None, key: str, n_images: int, source: Path
) -> NDArray[Any] | None:
    """A name or number of each image, if there is one."""
    if values is not None and (values.shape != (n_images,) or values.dtype.kind not in "iuU"):
        raise InputFileError(
            f"{key} is {values.dtype} of the shape {values.shape}, not a name or a number of each "
            f"of {n_images} images",
            source=source,
            remedy="Convert the stack again.",
        )
    return values


def warn_of_optics(folder: Path | None, optics: Sequence[NDArray[np.void]]) -> None:
    """Say once what is odd about the optics of all image stacks that are taken of a folder."""
    for remark in remarks_on(np.concatenate(optics), WORDING):
        logger.warning("%s: %s", folder, remark)


def write_image_stack(
    tensor_path: Path,
    images: NDArray[Any],
    optics: NDArray[np.void],
    parameters: ImageParameters,
    more: Mapping[str, ArrayLike | None] | None = None,
) -> None:
    """Write an image stack; the metadata first, so that a tensor that is there has its metadata.

    `more` are further entries of the `.npz`; a `frame` of None there leaves the key out, as
    CryoLike does.
    """
    columns = {key: optics[name] for key, name in (OPTICS_KEYS | ENVELOPE_KEYS).items()}
    once = {key: columns[key][0] for key in ONCE_IF_ALIKE if np.ptp(columns[key]) == 0}
    unknown = ("angleRotation", "angleTilt", "anglePsi", "ref_pixel_size", "files", "idxs")
    entries: dict[str, ArrayLike | None] = {
        **io_parameters.parameters_entries(parameters),
        **columns,
        **once,
        **dict.fromkeys(unknown),
        "n_images": len(images),
        "frame": "xy",
        **(more or {}),
    }
    if entries["frame"] is None:
        del entries["frame"]
    write_archive(metadata_file(tensor_path), entries)
    save_tensor(tensor_path, images)


@dataclass(frozen=True, eq=False)
class TemplateStackFile:
    """One template stack as its headers describe it; `conventions` is None for CryoLike's, which
    do not say."""

    tensor: TensorFile
    viewing: ViewingAngles
    conventions: ConventionsName | None


def open_template_stack(tensor_path: Path, parameters: ImageParameters) -> TemplateStackFile:
    """Read the headers of one template file and hold them against the parameters.

    Raises
    ------
    InputFileError, GridMismatchError
        If a file is damaged, on another grid, or has another number of templates than the viewing
        grid has directions.
    """
    tensor = open_tensor(tensor_path, n_dims=3, dtypes=COMPLEX)
    check_shape(tensor, parameters, "Make the templates again with these parameters.")
    sidecar = metadata_file(tensor_path)
    conventions: ConventionsName | None = None
    if sidecar.is_file():
        keys = (*SIDECAR_KEYS, io_parameters.SYMMETRY)
        entries = read_archive(sidecar, optional=(), keys=keys, n_images=tensor.shape[0])
        missing = [k for k in SIDECAR_KEYS if k not in entries]
        if missing:
            raise InputFileError(
                f"lacks {', '.join(missing)}", source=sidecar, remedy="Make the templates again."
            )
        try:
            azimuth, polar, weight = (
                np.atleast_1d(np.asarray(entries[k], np.float64))
                for k in ("azimuth", "polar", "viewing_weight")
            )
            group = point_group(str(entries.get(io_parameters.SYMMETRY, NO_SYMMETRY)))
            viewing = ViewingAngles(azimuth, polar, weight, group.name)
        except (InputError, ValueError) as error:
            raise InputFileError(str(error), source=sidecar) from error
        named = str(entries["conventions"])
        if named not in get_args(ConventionsName):
            raise InputFileError(f"conventions={named!r} is not known", source=sidecar)
        conventions = cast(ConventionsName, named)
        described = f"{sidecar} lists {len(viewing)} viewing directions"
        _check_grid(entries, parameters, sidecar, "Make the templates again with these parameters.")
    else:
        viewing = viewing_grid(parameters.viewing_distance)  # CryoLike's are of the whole sphere
        described = (
            f"view_step_degrees={parameters.view_step_degrees:.5g} gives {len(viewing)} viewing "
            f"directions"
        )
    if tensor.shape[0] != len(viewing):
        raise GridMismatchError(
            f"{tensor.shape[0]} templates, but {described}",
            source=tensor_path,
            remedy="Give the parameters that the templates were made with, or make the templates "
            "again.",
        )
    return TemplateStackFile(tensor, viewing, conventions)


def write_template_stack(
    tensor_path: Path,
    templates: NDArray[Any],
    viewing: ViewingAngles,
    parameters: ImageParameters,
    conventions: ConventionsName,
    more: Mapping[str, ArrayLike | None] | None = None,
) -> None:
    """Write a template file and its sidecar; the sidecar first, so that templates that are there
    have one.

    `more` are further entries of the sidecar.
    """
    entries = {
        **{
            key: value
            for key, value in io_parameters.parameters_entries(parameters).items()
            if key in GRID_KEYS
        },
        "azimuth": viewing.azimuth,
        "polar": viewing.polar,
        "viewing_weight": viewing.weight,
        "conventions": conventions,
        **({} if viewing.symmetry == NO_SYMMETRY else {io_parameters.SYMMETRY: viewing.symmetry}),
        **(more or {}),
    }
    write_archive(metadata_file(tensor_path), entries)
    save_tensor(tensor_path, templates)


def _check_grid(
    entries: Mapping[str, NDArray[Any] | None],
    parameters: ImageParameters,
    source: Path,
    remedy: str,
) -> None:
    """Refuse a file whose grid is not that of the parameters."""
    expected = io_parameters.parameters_entries(parameters)
    for key in GRID_KEYS:
        ours, theirs = np.atleast_1d(np.asarray(entries[key]), np.asarray(expected[key]))
        if ours.dtype.kind not in "iuf" or not np.isclose(ours, theirs[0], rtol=1e-6, atol=0).all():
            raise GridMismatchError(
                f"{key}={ours[0]}, but the parameters say {theirs[0]}", source=source, remedy=remedy
            )


def _number(value: Any, name: str, source: Path) -> int:
    try:
        return int(number(name, value, whole=True, at_least=1))
    except InputError as error:
        raise InputFileError(str(error), source=source) from error


def check_shape(tensor: TensorFile, parameters: ImageParameters, remedy: str) -> None:
    """Refuse a tensor that is not (item, shell, angle) on the grid of the parameters, or that is
    empty."""
    sizes, expected = tensor.shape[1:], parameters.grid.shape
    for value, wanted, name in zip(sizes, expected, ("shells", "in-plane angles"), strict=True):
        if value != wanted:
            raise GridMismatchError(
                f"{value} {name}, but the parameters describe {wanted}",
                source=tensor.path,
                remedy=remedy,
            )
    if tensor.shape[0] == 0:
        raise InputFileError("is empty", source=tensor.path, remedy=remedy)
