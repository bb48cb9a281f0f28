"""A whole configuration: what goes in, what is searched and computed, and where it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    PrivateAttr,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from cryolike_dask.config.answer import Populations, asked, or_true
from cryolike_dask.config.inputs import (
    NEEDED,
    Parameters,
    Particles,
    Section,
    Structures,
    Subset,
    empty_if_commented_out,
    not_with,
)
from cryolike_dask.config.machine import Machine
from cryolike_dask.config.values import (
    BFactor,
    Count,
    Displacement,
    File,
    Folder,
    Freedom,
    Part,
    Spectrum,
    Step,
)
from cryolike_dask.conventions import STANDARD, ConventionsName
from cryolike_dask.geometry.displacements import MOST_DISPLACEMENTS, DisplacementSearch
from cryolike_dask.geometry.search_method import AskedAround, AskedSearch, search_asked
from cryolike_dask.labels import (
    KindName,
    Precision,
    Prior,
    SearchWord,
)
from cryolike_dask.runs.options import NoiseRequest

N_DISPLACEMENTS = 16
"""Along each axis, where nothing is said of them."""


class Search(Section):
    """The in-plane displacements that are tried, and how poses are searched."""

    max_displacement_pixels: Displacement = Field(
        default=8.0, description="Largest displacement along each axis, pixels."
    )
    displacement_step_pixels: Step | None = Field(
        default=None,
        description="From one displacement to the next along each axis, pixels. Default: such that "
        "there are 16.",
    )
    n_displacements_x: Count | None = Field(
        default=None,
        description="The older word: displacements along x, both ends included.",
        json_schema_extra={"deprecated": True},
    )
    n_displacements_y: Count | None = Field(
        default=None,
        description="The older word: displacements along y, both ends included.",
        json_schema_extra={"deprecated": True},
    )
    method: SearchWord | None = Field(
        default=None,
        description="exhaustive: every pose is compared; adaptive: coarse to fine; recorded: the "
        "pose that is recorded with the particles; around: those near it; auto: in a new folder "
        "of results adaptive, or exhaustive where the band is too narrow for it, else as these "
        "are. Default: auto.",
    )
    error_nat: float | None = Field(
        default=None, description="Nat that integrals may be off by: adaptive. Default: 0.1."
    )
    within_degrees: float | None = Field(
        default=None, ge=0, le=180, description="Largest angle from the recorded pose: around."
    )
    within_pixels: float | None = Field(
        default=None, ge=0, description="Largest distance from the recorded place: around."
    )
    prior: Prior | None = Field(
        default=None,
        description="flat, or gaussian about the recorded pose, with standard deviations of a "
        "third of within_degrees and within_pixels: around. Default: flat.",
    )
    refine: bool = Field(
        default=False,
        description="Refine best poses between those of the search: recorded, or around.",
    )
    check_poses: bool = Field(
        default=True,
        description="Compare some images with everything, and refuse recorded poses that are not "
        "those found.",
    )
    posteriors: bool = Field(
        default=False,
        description="Say how the posterior of each image is spread over poses: how many are "
        "significant, and how large the regions are that hold 95%.",
    )

    @field_validator("displacement_step_pixels")
    @classmethod
    def _not_too_fine(cls, value: Any, info: ValidationInfo) -> Any:
        farthest = info.data.get("max_displacement_pixels", 0)
        if value is not None and (1 + 2 * farthest / value) ** 2 > MOST_DISPLACEMENTS:
            raise ValueError(
                f"gives more than {MOST_DISPLACEMENTS} displacements; try a coarser search first"
            )
        return value

    @field_validator("n_displacements_x", "n_displacements_y")
    @classmethod
    def _one_word(cls, value: Any, info: ValidationInfo) -> Any:
        return not_with("displacement_step_pixels", value, info)

    @field_validator("n_displacements_y")
    @classmethod
    def _not_too_many(cls, value: Any, info: ValidationInfo) -> Any:
        if (value or 1) * (info.data.get("n_displacements_x") or 1) > MOST_DISPLACEMENTS:
            raise ValueError(
                f"times n_displacements_x is more than {MOST_DISPLACEMENTS}; try a coarser search "
                f"first"
            )
        return value

    @model_validator(mode="after")
    def _around_says_how_far(self) -> Search:
        _ = self.asked
        return self

    @property
    def asked(self) -> AskedSearch:
        """How poses are searched, as a run takes it."""
        asked = AskedAround(self.check_poses, self.prior, self.refine)
        numbers = self.within_degrees, self.within_pixels
        return search_asked(self.method, *numbers, asked, self.error_nat)

    @property
    def displacements(self) -> DisplacementSearch:
        """The search over displacements, as a run takes it."""
        farthest, step = self.max_displacement_pixels, self.displacement_step_pixels
        if step is not None:
            return DisplacementSearch.in_steps(farthest, step)
        n_x, n_y = (n or N_DISPLACEMENTS for n in (self.n_displacements_x, self.n_displacements_y))
        return DisplacementSearch(farthest, n_x, n_y)


class Likelihood(Section):
    """What is computed, and by whose conventions."""

    kind: KindName = Field(
        default="optimal_pose",
        description="Best poses and integrated likelihoods; or the correlation of every pose.",
    )
    conventions: ConventionsName = Field(
        default=STANDARD.name, description="cryolike: CryoLike's numbers, its errors included."
    )
    precision: Precision = Field(
        default="default", description="Of the comparison; default: that of the templates."
    )
    tolerance: Part | None = Field(
        default=None,
        description="What compression may leave out of templates. Default: 1e-7 in single "
        "precision, 0 in double.",
    )


class Noise(Section):
    """What is held of the noise of the images, and of their envelope."""

    spectrum: Spectrum | None = Field(
        default=None,
        description="estimate, white, or the file of a noise model: noise.npz, or the model.star "
        "of RELION. Default: estimate in a new folder of results, else as these are.",
    )
    b_factor: BFactor | None = Field(
        default=None,
        description="B-factor beside those of the metadata: fit, none, angstrom^2, or auto: fit "
        "where noise is estimated in a new folder of results, else as these are. Default: auto.",
    )
    degrees_of_freedom: Freedom | None = Field(
        default=None,
        description="Of the noise of an image. Default: what the noise model says.",
    )

    @property
    def request(self) -> NoiseRequest:
        """What is asked of the noise, as a run takes it."""
        b_factor: Any = "auto" if self.b_factor is None else self.b_factor
        return NoiseRequest(self.spectrum, b_factor, self.degrees_of_freedom)


def _spectrum_alone(section: Any) -> Any:
    """A word or a file in place of the section is the spectrum."""
    if isinstance(section, (str, Path)):
        return {"spectrum": section}
    return empty_if_commented_out(section)


def _or_text(schema: dict[str, Any]) -> None:
    """Let the JSON schema of a section take text in its place."""
    schema["anyOf"] = [{"$ref": schema.pop("$ref")}, {"type": "string", "minLength": 1}]


def _source_of_parameters(parameters: Any) -> str:
    return "file" if isinstance(parameters, (str, Path)) else "inline"


FromFile = Annotated[File, Tag("file")]
Inline = Annotated[Parameters, Tag("inline")]


class RunConfig(Section):
    """A whole run: what is compared with what, how, where the results go, and where it runs."""

    folder: Folder | None = Field(
        default=None,
        description="Absolute path where relative ones start. Default: the folder of this file.",
    )
    structures: Annotated[Structures, BeforeValidator(empty_if_commented_out)] = Field(
        description="The candidate structures."
    )
    particles: Annotated[Particles, BeforeValidator(empty_if_commented_out)] = Field(
        description="The particle images."
    )
    parameters: Annotated[FromFile | Inline, Discriminator(_source_of_parameters)] | None = Field(
        default=None,
        validate_default=True,
        description="The grid and how atoms are made: parameters.npz, or its content. Default: "
        "that of the templates.",
    )
    search: Annotated[Search, BeforeValidator(empty_if_commented_out)] = Field(
        default_factory=Search,
        description="Which displacements to try, in the plane of the images, and how to search.",
    )
    likelihood: Annotated[Likelihood, BeforeValidator(empty_if_commented_out)] = Field(
        default_factory=Likelihood, description="What to compute, and by whose conventions."
    )
    noise: Annotated[Noise, BeforeValidator(_spectrum_alone)] = Field(
        default_factory=Noise,
        description="The noise of the images: a section, or its spectrum alone.",
        json_schema_extra=_or_text,
    )
    output: File = Field(description="Folder for the results; it is created.")
    populations: Annotated[Populations | None, BeforeValidator(asked)] = Field(
        default=None,
        description="Then estimate the share of each structure: true, or how.",
        json_schema_extra=or_true,
    )
    report: bool = Field(default=False, description="Then write the report.")
    machine: Annotated[Machine, BeforeValidator(empty_if_commented_out)] = Field(
        default_factory=Machine, description="Where to run, and how; no result depends on it."
    )

    @field_validator("populations", "report")
    @classmethod
    def _of_best_poses(cls, value: Any, info: ValidationInfo) -> Any:
        likelihood = info.data.get("likelihood")
        if value and likelihood is not None and likelihood.kind != "optimal_pose":
            raise ValueError(f"is of best poses, but likelihood.kind is {likelihood.kind}")
        return value

    _text: str | None = PrivateAttr(None)
    _source: Path | None = PrivateAttr(None)

    @field_validator("parameters")
    @classmethod
    def _needed_by_structure_files(cls, value: Any, info: ValidationInfo) -> Any:
        structures = info.data.get("structures")
        if value is None and structures is not None and structures.files is not None:
            raise PydanticCustomError(
                NEEDED,
                "parameters is missing, which structure files need: its keys, or parameters.npz",
            )
        return value


SECTIONS: dict[str, type[Section]] = {
    "": RunConfig,
    "structures": Structures,
    "structures.subset": Subset,
    "particles": Particles,
    "parameters": Parameters,
    "search": Search,
    "likelihood": Likelihood,
    "noise": Noise,
    "populations": Populations,
    "machine": Machine,
}
