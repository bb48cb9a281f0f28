"""The inputs that a configuration names: whether they are there, and opened."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from cryolike_dask.analysis.dataset import open_results
from cryolike_dask.config.decoys import DecoyRequest
from cryolike_dask.config.inputs import Parameters
from cryolike_dask.config.model import RunConfig
from cryolike_dask.config.reading import read_config
from cryolike_dask.config.subset import ChosenSubset, chosen_subset, subset_in_words
from cryolike_dask.conventions import ConventionsName
from cryolike_dask.errors import InputError, InputFileError, counted, missing_files
from cryolike_dask.geometry.noise import NoiseModel
from cryolike_dask.geometry.parameters import ImageParameters
from cryolike_dask.geometry.search_method import AskedSearch
from cryolike_dask.geometry.symmetry import NO_SYMMETRY, asymmetric_unit
from cryolike_dask.geometry.viewing_angles import ViewingAngles, healpix_grid
from cryolike_dask.io.identity import is_there
from cryolike_dask.io.kinds import Kind, need_kind
from cryolike_dask.io.layout import CONFIGURATION, PARAMETERS, TEMPLATE_LIST, LikelihoodFiles
from cryolike_dask.io.noise import read_noise
from cryolike_dask.io.parameters import read_parameters
from cryolike_dask.io.viewing import read_viewing_angles
from cryolike_dask.labels import BFactorWord, NoiseWord, Precision
from cryolike_dask.particles.opening import open_particles, read_particles
from cryolike_dask.runs.run import Displacer
from cryolike_dask.stacks import ImageStack, TemplateStack
from cryolike_dask.structures.opening import open_structures
from cryolike_dask.structures.trajectories.trajectory import Trajectory

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


class RunArguments(TypedDict):
    """Inputs of a run and what decides its numbers, as parameters of `run_likelihood_optimal_pose`
    and `plan_likelihood` are called."""

    file_config: LikelihoodFiles
    params_input: str | Path | ImageParameters
    displacer: Displacer
    templates: Sequence[TemplateStack] | None
    images: ImageStack | None
    conventions: ConventionsName
    precision: Precision
    tolerance: float | None
    noise: NoiseWord | str | Path | NoiseModel | None
    b_factor: BFactorWord | float | None
    degrees_of_freedom: float | None
    search: AskedSearch
    pose_posteriors: bool


@dataclass(frozen=True)
class ResultInputs:
    """Inputs that results were made from, as far as they are known: files and folders, or what is
    opened of a configuration."""

    templates: Path | Trajectory | Sequence[TemplateStack] | None = None
    particles: Path | ImageStack | None = None
    parameters: str | Path | ImageParameters | None = None


def need_inputs(config: RunConfig) -> None:
    """Refuse a configuration whose inputs are not there; all that it names itself are told at
    once."""
    if missing := [
        path for paths in _named_paths(config).values() for path in paths if not is_there(path)
    ]:
        raise missing_files(missing, REMEDY)
    for part in KEYS:
        _need_kinds(config, part)


def inputs_of(config: RunConfig) -> RunArguments:
    """Open structures and particles, and give them as `run_likelihood_optimal_pose` and
    `plan_likelihood` take them.

    Raises
    ------
    InputError, InputFileError, GridMismatchError
        If inputs are missing (all that the configuration names are told at once), damaged, or do
        not fit together.
    """
    need_inputs(config)
    return inputs_with(config, chosen_subset(config))


def inputs_with(config: RunConfig, subset: ChosenSubset | None) -> RunArguments:
    """Open structures and particles, which are there, as `inputs_of` does, in the frames that
    were chosen."""
    parameters, likelihood = _parameters(config), config.likelihood
    asked, structures = config.noise.request, config.structures
    decoys = DecoyRequest(
        structures.decoys, structures.decoy_kind, structures.decoy_structures or ()
    )
    templates, files = decoys.added(
        _opened_structures(config, parameters, subset),
        _files(config),
        parameters,
        likelihood.conventions,
    )
    return {
        "file_config": files,
        "params_input": parameters,
        "displacer": config.search.displacements,
        "templates": templates,
        "images": _opened_particles(config, parameters),
        "conventions": likelihood.conventions,
        "precision": likelihood.precision,
        "tolerance": likelihood.tolerance,
        "noise": asked.spectrum,
        "b_factor": asked.b_factor,
        "degrees_of_freedom": asked.degrees_of_freedom,
        "search": config.search.asked,
        "pose_posteriors": config.search.posteriors,
    }


def inputs_of_results(folder: str | Path) -> ResultInputs:
    """Find the inputs of results by what lies beside them: the configuration, or else where they
    say they came from.

    Raises
    ------
    CryolikeError
        If there are no results, or the configuration or its inputs cannot be read.
    """
    copy = Path(folder) / CONFIGURATION
    if copy.is_file():
        config = read_config(copy)
        # a folder that was moved has its own subset of frames
        inputs = inputs_of(config.model_copy(update={"output": copy.parent}))
        return ResultInputs(
            config.structures.templates if inputs["templates"] is None else inputs["templates"],
            config.particles.stacks if inputs["images"] is None else inputs["images"],
            inputs["params_input"],
        )
    attrs = open_results(folder).attrs
    templates, particles = attrs.get("folder_templates"), attrs.get("folder_particles")
    return ResultInputs(
        Path(templates) if templates else None, Path(particles) if particles else None
    )


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
    descriptions, problems = dict[str, str](), list[str]()
    named = _named_paths(config)
    missing = [path for paths in named.values() for path in paths if not is_there(path)]
    if missing:
        problems.append(str(missing_files(missing, REMEDY)))
    looks: dict[str, Callable[[RunConfig], str]] = {
        "parameters": _parameters_in_words,
        "structures": _structures_in_words,
        "particles": _particles_in_words,
        "noise": _noise_in_words,
    }
    for part, look in looks.items():
        if not set(named[part]) & set(missing):
            try:
                _need_kinds(config, part)
                descriptions[part] = look(config)
            except InputError as error:
                problems.append(str(error))
    if problems:
        raise InputFileError("\n".join(problems))
    return descriptions


def _named_paths(config: RunConfig) -> dict[str, list[Path]]:
    """The files and folders that each section of inputs names."""
    structures, particles, parameters = config.structures, config.particles, config.parameters
    subset = structures.subset
    if parameters is None and structures.templates is not None:
        parameters = structures.templates / PARAMETERS
    one_by_one = {
        "structures": [
            structures.templates and structures.templates / TEMPLATE_LIST,
            structures.viewing_angles,
            structures.topology,
            structures.frames if isinstance(structures.frames, Path) else None,
            subset.by if subset is not None and isinstance(subset.by, Path) else None,
        ],
        "particles": [particles.stacks, particles.folder, particles.passthrough],
        "parameters": [None if isinstance(parameters, Parameters) else parameters],
        "noise": [config.noise.spectrum if isinstance(config.noise.spectrum, Path) else None],
    }
    listed = {
        "structures": (*(structures.files or ()), *(structures.decoy_structures or ())),
        "particles": (*(particles.metadata or ()), *(particles.images or ())),
        "parameters": (),
        "noise": (),
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
            *((p, ("structures",)) for p in structures.decoy_structures or ()),
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
        "noise": [],
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


def _views(config: RunConfig, parameters: ImageParameters) -> ViewingAngles | None:
    order, file = config.structures.healpix_order, config.structures.viewing_angles
    if order is not None:
        return asymmetric_unit(healpix_grid(order), parameters.symmetry)
    return None if file is None else read_viewing_angles(file)


def _opened_structures(
    config: RunConfig, parameters: ImageParameters, subset: ChosenSubset | None
) -> list[TemplateStack] | None:
    """The structure files, opened; None: templates were made before."""
    structures = config.structures
    if structures.files is None:
        return None
    return open_structures(
        structures.files,
        parameters,
        models=structures.models,
        topology=structures.topology,
        frames=structures.frames if subset is None else subset.frames,
        every=structures.every if subset is None else 1,
        viewing=_views(config, parameters),
        conventions=config.likelihood.conventions,
        voxel_size_angstrom=structures.voxel_size_angstrom,
    )


def _opened_particles(config: RunConfig, parameters: ImageParameters) -> ImageStack | None:
    """The metadata, opened; None: image stacks were made before."""
    particles = config.particles
    if particles.metadata is None:
        return None
    return open_particles(
        particles.metadata,
        parameters,
        images=particles.images,
        folder=particles.folder,
        passthrough=particles.passthrough,
        pixel_size_angstrom=particles.pixel_size_angstrom,
        downsample=particles.downsample,
        invert_contrast=particles.invert_contrast,
        background_radius_pixels=particles.background_radius_pixels,
        recenter=particles.recenter,
        batch_size=particles.batch_size,
        conventions=config.likelihood.conventions,
    )


def _parameters_in_words(config: RunConfig) -> str:
    parameters = _parameters(config)
    size = f"{parameters.n_pixels} pixels of {parameters.pixel_size_angstrom:g} angstrom"
    views = "" if config.structures.files is None else f", {_views_in_words(config, parameters)}"
    n = len(config.search.displacements.grid(parameters.pixel_size_angstrom))
    return f"{size}{views}, {parameters.n_inplanes} rotations, {n} displacements"


def _views_in_words(config: RunConfig, parameters: ImageParameters) -> str:
    viewing = _views(config, parameters) or parameters.viewing_angles()
    if viewing.symmetry == NO_SYMMETRY:
        return f"{len(viewing)} views"
    return f"{len(viewing)} views of the asymmetric unit of {viewing.symmetry}"


def _structures_in_words(config: RunConfig) -> str:
    files, folder = config.structures.files, config.structures.templates
    if files is None:
        return f"{len(_files(config).structures())} of the templates in {folder}"
    if subset := subset_in_words(config):
        return subset
    names = ", ".join([path.name for path in files[:4]] + ["..."] * (len(files) > 4))
    return f"{len(files)} file(s) or folder(s), projected while it runs: {names}"


def _particles_in_words(config: RunConfig) -> str:
    particles = config.particles
    if particles.metadata is None:
        return f"{len(_files(config).stack_numbers())} image stack(s) of {particles.stacks}"
    table = read_particles(
        particles.metadata,
        images=particles.images,
        folder=particles.folder,
        passthrough=particles.passthrough,
    )
    n = len(table)
    return f"{n} images, {particles.batch_size} at a time, read while it runs"


def _noise_in_words(config: RunConfig) -> str:
    noise = config.noise
    if isinstance(noise.spectrum, Path):
        words = f"{counted(len(read_noise(noise.spectrum)), 'group')} of {noise.spectrum.name}"
    else:
        words = noise.spectrum or "estimated, or as of the results that are there"
    if noise.b_factor is not None:
        words += f", B-factor {noise.b_factor}"
    if noise.degrees_of_freedom is not None:
        words += f", {noise.degrees_of_freedom:g} degrees of freedom"
    return words
