"""The inputs that a configuration names: whether they are there, and opened."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryolike_dask.analysis.dataset import open_results
from cryolike_dask.config.inputs import Parameters
from cryolike_dask.config.model import RunConfig
from cryolike_dask.config.reading import read_config
from cryolike_dask.errors import InputError, InputFileError, missing_files
from cryolike_dask.geometry.displacements import DisplacementSearch
from cryolike_dask.geometry.parameters import ImageParameters
from cryolike_dask.geometry.viewing_angles import ViewingAngles, healpix_grid
from cryolike_dask.io.identity import is_there
from cryolike_dask.io.kinds import Kind, need_kind
from cryolike_dask.io.layout import PARAMETERS, TEMPLATE_LIST, LikelihoodFiles
from cryolike_dask.io.parameters import read_parameters
from cryolike_dask.io.viewing import read_viewing_angles
from cryolike_dask.particles.opening import open_particles, read_particles
from cryolike_dask.structures.opening import open_structures

COPY = "run.yaml"
"""What was run, beside its results."""
ORIGINS = ("images", "folder", "passthrough")
"""Of particles: what else says where images are."""
PREPARATION = (
    "pixel_size_angstrom",
    "downsample",
    "invert_contrast",
    "background_radius_pixels",
    "recenter",
)
KEYS = ("structures", "particles", "parameters")
KEYS_OF_KINDS: dict[Kind, str] = {
    "templates": "structures.templates",
    "structures": "structures.files",
    "particles": "particles.metadata",
    "image stacks": "particles.stacks",
    "images": "particles.images",
    "parameters": "parameters",
}
REMEDY = "Correct their names; relative ones start in the folder of the configuration."


def need_inputs(config: RunConfig) -> None:
    """Refuse a configuration whose inputs are not there; all that it names itself are told at
    once."""
    if missing := [
        path for paths in _named(config).values() for path in paths if not is_there(path)
    ]:
        raise missing_files(missing, REMEDY)
    for part in KEYS:
        _need_kinds(config, part)


def inputs_of(config: RunConfig) -> dict[str, Any]:
    """Open structures and particles, and give them as `run_likelihood_optimal_pose` and
    `plan_likelihood` take them.

    Raises
    ------
    InputError, InputFileError, GridMismatchError
        If inputs are missing (all that the configuration names are told at once), damaged, or do
        not fit together.
    """
    need_inputs(config)
    structures, particles, likelihood = config.structures, config.particles, config.likelihood
    parameters, conventions = _parameters(config), likelihood.conventions
    given: dict[str, Any] = {"templates": None, "images": None}
    if structures.files is not None:
        given["templates"] = open_structures(
            structures.files,
            parameters,
            models=structures.models,
            viewing=_views(config),
            conventions=conventions,
            voxel_size_angstrom=structures.voxel_size_angstrom,
        )
    if particles.metadata is not None:
        reading = {
            name: getattr(particles, name) for name in (*ORIGINS, *PREPARATION, "batch_size")
        }
        given["images"] = open_particles(
            particles.metadata, parameters, **reading, conventions=conventions
        )
    compared = likelihood.model_dump(exclude={"kind"})
    search = DisplacementSearch(**dict(config.search))
    return {
        "file_config": _files(config),
        "params_input": parameters,
        "displacer": search,
        **given,
        **compared,
    }


def inputs_of_results(folder: str | Path) -> dict[str, Any]:
    """Find the inputs of results by what lies beside them: the configuration, or else where they
    say they came from.

    Returns
    -------
    dict
        templates, particles and parameters, as far as they are known: folders, or what is opened of
        the configuration.

    Raises
    ------
    CryolikeError
        If there are no results, or the configuration or its inputs cannot be read.
    """
    copy = Path(folder) / COPY
    if copy.is_file():
        config = read_config(copy)
        found = inputs_of(config)
        templates = (
            config.structures.templates if found["templates"] is None else found["templates"]
        )
        particles = config.particles.stacks if found["images"] is None else found["images"]
        return {"templates": templates, "particles": particles, "parameters": found["params_input"]}
    attrs = open_results(folder).attrs
    known = {name: attrs.get(f"folder_{name}") for name in ("templates", "particles")}
    return {name: Path(path) for name, path in known.items() if path}


def describe_inputs(config: RunConfig) -> dict[str, str]:
    """Look at the inputs, and say in a few words what is there.

    Returns
    -------
    dict of str

    Raises
    ------
    InputFileError
        If something is missing or damaged; names all that is missing.
    """
    said, problems = dict[str, str](), list[str]()
    named = _named(config)
    missing = [path for paths in named.values() for path in paths if not is_there(path)]
    if missing:
        problems.append(str(missing_files(missing, REMEDY)))
    looks: dict[str, Callable[[RunConfig], str]] = {
        "parameters": _said_of_parameters,
        "structures": _said_of_structures,
        "particles": _said_of_particles,
    }
    for part, look in looks.items():
        if not set(named[part]) & set(missing):
            try:
                _need_kinds(config, part)
                said[part] = look(config)
            except InputError as error:
                problems.append(str(error))
    if problems:
        raise InputFileError("\n".join(problems))
    return said


def _named(config: RunConfig) -> dict[str, list[Path]]:
    """The files and folders that each section of inputs names."""
    structures, particles, parameters = config.structures, config.particles, config.parameters
    if parameters is None and structures.templates is not None:
        parameters = structures.templates / PARAMETERS
    one_by_one = {
        "structures": [
            structures.templates and structures.templates / TEMPLATE_LIST,
            structures.viewing_angles,
        ],
        "particles": [particles.stacks, particles.folder, particles.passthrough],
        "parameters": [None if isinstance(parameters, Parameters) else parameters],
    }
    listed = {
        "structures": structures.files or (),
        "particles": (*(particles.metadata or ()), *(particles.images or ())),
        "parameters": (),
    }
    return {
        part: [path for path in paths if path is not None] + [*listed[part]]
        for part, paths in one_by_one.items()
    }


def _need_kinds(config: RunConfig, part: str) -> None:
    """Refuse files that are known to hold something else than their key says."""
    structures, particles, parameters = config.structures, config.particles, config.parameters
    wanted: dict[str, list[tuple[Path | None, tuple[Kind, ...]]]] = {
        "structures": [
            (structures.templates, ("templates",)),
            *((p, ("structures",)) for p in structures.files or ()),
        ],
        "particles": [
            (particles.stacks, ("image stacks",)),
            (particles.passthrough, ("particles",)),
            *((path, ("particles",)) for path in particles.metadata or ()),
            *((path, ("images",)) for path in particles.images or ()),
        ],
        "parameters": [
            (None if isinstance(parameters, Parameters) else parameters, ("parameters",))
        ],
    }
    for path, kinds in wanted[part]:
        if path is not None:
            need_kind(path, *kinds, meant_for=KEYS_OF_KINDS)


def _files(config: RunConfig) -> LikelihoodFiles:
    which = config.structures.i_template
    return LikelihoodFiles(
        config.structures.templates,
        config.particles.stacks,
        config.output,
        config.particles.n_stacks,
        [*which] if isinstance(which, tuple) else which,
    )


def _parameters(config: RunConfig) -> ImageParameters:
    parameters, templates = config.parameters, config.structures.templates
    if isinstance(parameters, Parameters):
        return parameters.made()
    return read_parameters(parameters or (templates or Path()) / PARAMETERS)


def _views(config: RunConfig) -> ViewingAngles | None:
    order, file = config.structures.healpix_order, config.structures.viewing_angles
    if order is not None:
        return healpix_grid(order)
    return None if file is None else read_viewing_angles(file)


def _said_of_parameters(config: RunConfig) -> str:
    parameters = _parameters(config)
    size = f"{parameters.n_pixels} pixels of {parameters.pixel_size_angstrom:g} angstrom"
    views = (
        ""
        if config.structures.files is None
        else f", {len(_views(config) or parameters.viewing_angles())} views"
    )
    n = len(DisplacementSearch(**dict(config.search)).grid(parameters.pixel_size_angstrom))
    return f"{size}{views}, {parameters.n_inplanes} rotations, {n} displacements"


def _said_of_structures(config: RunConfig) -> str:
    files, folder = config.structures.files, config.structures.templates
    if files is None:
        return f"{len(_files(config).structures())} of the templates in {folder}"
    names = ", ".join([path.name for path in files[:4]] + ["..."] * (len(files) > 4))
    return f"{len(files)} file(s) or folder(s), projected while it runs: {names}"


def _said_of_particles(config: RunConfig) -> str:
    particles = config.particles
    if particles.metadata is None:
        return f"{len(_files(config).stack_numbers())} image stack(s) of {particles.stacks}"
    origins = {name: getattr(particles, name) for name in ORIGINS}
    n = len(read_particles(particles.metadata, **origins))
    return f"{n} images, {particles.batch_size} at a time, read while it runs"
