"""Commands that compute likelihoods."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.markup import escape

from cryolike_dask.cli.app import app
from cryolike_dask.cli.console import RESUME, errors_for_people, out, say
from cryolike_dask.cli.inputs import need, need_comparable, need_each
from cryolike_dask.cli.options import (
    Conventions,
    OlderNumber,
    PlaceOptions,
    Recompute,
    SkipExist,
    TrajectoryOptions,
    client_in,
    displacements_of,
    keeps_complete,
    takes_options,
)
from cryolike_dask.conventions import STANDARD
from cryolike_dask.errors import InputError
from cryolike_dask.labels import (
    DecoyKind,
    Device,
    KindName,
    OnError,
    Prior,
    SearchAsked,
    SearchWord,
)

if TYPE_CHECKING:
    from cryolike_dask.config.resolve import RunArguments
    from cryolike_dask.geometry.search_method import AskedSearch

ParametersFile = Annotated[
    Path | None, typer.Option(help="parameters.npz; default: the one in the templates folder.")
]
NStacks = Annotated[int | None, typer.Option(help="Image stacks, from number 0 on. Default: all.")]
MaxDisplacement = Annotated[
    float, typer.Option(help="Largest displacement along each axis, pixels.")
]
DisplacementStep = Annotated[
    float | None,
    typer.Option(
        help="From one displacement to the next along each axis. Default: such that there are 16."
    ),
]
Batch = Annotated[
    int | None, typer.Option(help="Tile inside a task; changes no result beyond rounding.")
]


@dataclass(frozen=True, kw_only=True)
class LikelihoodOptions(TrajectoryOptions):
    """A run as its command is told of it: what goes in, what is searched, and how it is computed
    and written."""

    templates: Annotated[
        Path,
        typer.Option(
            help="Folder with template_file_list.npy; or a structure file, a folder of them, or a "
            "trajectory, projected while it runs.",
        ),
    ]
    particles: Annotated[
        Path,
        typer.Option(
            help="Folder with fft/particles_fourier_stack_*; or a .star or .cs file, read while it "
            "runs.",
        ),
    ]
    output: Annotated[Path, typer.Option(help="Folder for the results; it is created.")]
    parameters: ParametersFile = None
    n_stacks: NStacks = None
    i_template: Annotated[
        str,
        typer.Option(
            help="Which structures: a position in the list of templates, from 0; several as "
            '"0,2"; or "all".'
        ),
    ] = "all"
    decoys: Annotated[
        int,
        typer.Option(
            help="Decoys to be made of each structure file, of 20 at most, and compared beside: "
            "images that show none of the structures are told by them."
        ),
    ] = 0
    decoy_kind: Annotated[
        DecoyKind,
        typer.Option(
            help="phases: random beyond the envelope; residues: moved to each other's places."
        ),
    ] = "phases"
    decoy_structures: Annotated[
        list[Path] | None,
        typer.Option(
            help="File of a structure that no image shows, or a folder of them: compared as a "
            "decoy; repeatable."
        ),
    ] = None
    max_displacement_pixels: MaxDisplacement = 8.0
    displacement_step_pixels: DisplacementStep = None
    n_displacements_x: OlderNumber = None
    n_displacements_y: OlderNumber = None
    n_templates_per_batch: Batch = None
    n_images_per_batch: Batch = None
    discover_batch_size: Annotated[
        bool,
        typer.Option(help="Choose tiles by the device and its free memory, not by batch sizes."),
    ] = False
    noise: Annotated[
        str | None,
        typer.Option(
            help="estimate, white, or the file of a noise model (noise.npz, or model.star of "
            "RELION). Default: estimate in a new folder, else as the results there."
        ),
    ] = None
    b_factor: Annotated[
        str | None,
        typer.Option(
            help="B-factor beside those of the metadata: fit, none, angstrom^2, or auto: fit "
            "where noise is estimated in a new folder, else as the results there. Default: auto."
        ),
    ] = None
    degrees_of_freedom: Annotated[
        float | None,
        typer.Option(help="Of the noise of an image. Default: what the noise model says."),
    ] = None
    search: Annotated[
        SearchAsked | None,
        typer.Option(
            help="exhaustive: compare every pose; adaptive: coarse to fine, for best poses alone; "
            "recorded: the pose that is recorded with each particle; auto: adaptive in a new "
            "folder, or exhaustive where the band is too narrow for it, else as the results there. "
            "Default: auto."
        ),
    ] = None
    error_nat: Annotated[
        float | None,
        typer.Option(
            help="What an integrated log-likelihood may be off by, nat: --search adaptive. "
            "Default: 0.1."
        ),
    ] = None
    around: Annotated[
        Literal["recorded"] | None,
        typer.Option(help="Compare only poses near those that are recorded with the particles."),
    ] = None
    within_degrees: Annotated[
        float | None, typer.Option(help="Largest angle of the whole rotation from these.")
    ] = None
    within_pixels: Annotated[
        float | None, typer.Option(help="Largest distance from where particles are recorded.")
    ] = None
    prior: Annotated[
        Prior | None,
        typer.Option(
            help="flat: all poses alike; gaussian: about the recorded pose, with standard "
            "deviations of a third of within-degrees and within-pixels (sigma_ang of RELION is a "
            "third of its search range). Default: flat."
        ),
    ] = None
    poses: Annotated[
        Literal["recorded"] | None,
        typer.Option(help="No search: the pose that is recorded with each particle."),
    ] = None
    refine: Annotated[
        bool, typer.Option(help="Refine best poses between those of the search: recorded poses.")
    ] = False
    check_poses: Annotated[
        bool,
        typer.Option(help="Refuse recorded poses that are not those found of some images."),
    ] = True
    pose_posteriors: Annotated[
        bool,
        typer.Option(
            help="Say how the posterior of each image is spread over poses: how many are "
            "significant, and how large the regions are that hold 95%."
        ),
    ] = False
    tolerance: Annotated[
        float | None,
        typer.Option(
            help="What compression may leave out of templates. Default: 1e-7 in single precision, "
            "0 in double."
        ),
    ] = None
    recompute: Recompute = False
    skip_exist: SkipExist = None
    overwrite: Annotated[
        bool,
        typer.Option(
            help="Replace results of another search, conventions or noise in the output folder."
        ),
    ] = False
    on_error: Annotated[
        OnError,
        typer.Option(
            help="When an image stack fails: stop, or leave it out, go on, and list it at the end."
        ),
    ] = "stop"
    log_file: Annotated[
        Path | None,
        typer.Option(
            help="Append what happens to this file too, one JSON object a line, such as "
            "results/run.jsonl; run.log beside the results is written in any case."
        ),
    ] = None
    performance_report: Annotated[
        Path | None, typer.Option(help="Write Dask's report to this file, for a browser.")
    ] = None
    note: Annotated[
        str | None, typer.Option(help="Text to keep with the results, in records and the report.")
    ] = None
    device: Annotated[Device, typer.Option(help="auto: the GPU of each worker, if it has one.")] = (
        "auto"
    )
    conventions: Conventions = STANDARD.name

    @property
    def keeps(self) -> bool:
        """Whether results that are complete and came from the same inputs are kept."""
        return keeps_complete(recompute=self.recompute, skip_exist=self.skip_exist)

    def inputs(self) -> RunArguments:
        """Templates, particles and the search, opened."""
        from cryolike_dask.config.decoys import DecoyRequest
        from cryolike_dask.io.layout import PARAMETERS, holds_image_stacks, holds_templates
        from cryolike_dask.particles.opening import open_particles
        from cryolike_dask.run_likelihood import configure_likelihood_files
        from cryolike_dask.structures.opening import open_structures

        templates, particles, conventions = self.templates, self.particles, self.conventions
        need_comparable(templates, particles)
        need(self.parameters, "parameters")
        need_each(self.decoy_structures or (), "structures")
        are_templates, are_stacks = holds_templates(templates), holds_image_stacks(particles)
        if not are_templates and self.parameters is None:
            raise InputError(
                f"{templates} holds structures: --parameters is needed",
                remedy="See `parameters --help`.",
            )
        parameters = self.parameters or templates / PARAMETERS
        opened, files = DecoyRequest(
            self.decoys, self.decoy_kind, self.decoy_structures or ()
        ).added(
            None
            if are_templates
            else open_structures(self.of(templates), parameters, conventions=conventions),
            configure_likelihood_files(
                templates if are_templates else None,
                particles if are_stacks else None,
                self.output,
                self.n_stacks,
                _structures(self.i_template),
            ),
            parameters,
            conventions,
        )
        return {
            "file_config": files,
            "params_input": parameters,
            "displacer": displacements_of(
                self.max_displacement_pixels,
                self.displacement_step_pixels,
                self.n_displacements_x,
                self.n_displacements_y,
            ),
            "templates": opened,
            "images": None
            if are_stacks
            else open_particles(particles, parameters, conventions=conventions),
            "conventions": conventions,
            "precision": "default",
            "tolerance": self.tolerance,
            "noise": self.noise,
            "b_factor": _b_factor(self.b_factor),
            "degrees_of_freedom": self.degrees_of_freedom,
            "search": self._search(),
            "pose_posteriors": self.pose_posteriors,
        }

    def _search(self) -> AskedSearch:
        from cryolike_dask.geometry.search_method import AskedAround, search_asked

        given = {"--around": self.around, "--poses": self.poses, "--search": self.search}
        named = [f"{option} {word}" for option, word in given.items() if word]
        if len(named) > 1:
            raise InputError(" and ".join(named), remedy="Give one of them.")
        method: SearchWord | None = "around" if self.around else self.poses or self.search
        asked = AskedAround(self.check_poses, self.prior, self.refine)
        numbers = self.within_degrees, self.within_pixels
        return search_asked(method, *numbers, asked, self.error_nat)


NOT_OF_A_PLAN = ("on_error", "log_file", "performance_report", "note")
"""Options of a run that say nothing of what it costs."""


@app.command("optimal-pose")
@takes_options()
def optimal_pose(options: LikelihoodOptions, place: PlaceOptions) -> None:
    """Find the best pose and the integrated likelihood of every image."""
    _run("optimal_pose", options, place)


@app.command("full-cross-correlation")
@takes_options()
def full_cross_correlation(options: LikelihoodOptions, place: PlaceOptions) -> None:
    """Correlate every image with every template at every displacement and rotation, and write
    all of it."""
    _run("full_cross_correlation", options, place)


def _run(kind: KindName, options: LikelihoodOptions, place: PlaceOptions) -> None:
    with errors_for_people(RESUME):
        keeps = options.keeps
        say("opening templates and particles ...")
        from cryolike_dask.config.run_config import opened_of
        from cryolike_dask.likelihoods.settings import Tiling
        from cryolike_dask.runs.kinds import kind_named
        from cryolike_dask.runs.options import RunOptions
        from cryolike_dask.runs.small import takes_seconds
        from cryolike_dask.runs.writing import compute_run

        # what is wrong with inputs is said before workers start
        tiling = Tiling(
            options.n_images_per_batch, options.n_templates_per_batch, options.discover_batch_size
        )
        run, chosen = opened_of(options.inputs(), options.device, tiling), kind_named(kind)
        how = RunOptions(
            skip_exist=keeps,
            overwrite=options.overwrite,
            on_error=options.on_error,
            log_file=options.log_file,
            performance_report=options.performance_report,
            note=options.note,
        )
        is_small = options.performance_report is None and takes_seconds(run, chosen)
        with client_in(place, is_small=is_small) as client:
            results = compute_run(run, chosen, client, how)
            out.print(
                f"{results.sizes['image']} images: results are in {escape(str(options.output))}"
            )


def _b_factor(text: str | None) -> Any:
    """A number, or a word, which is looked at where words are."""
    if text is None:
        return "auto"
    try:
        return float(text)
    except ValueError:
        return text


def _structures(text: str) -> int | list[int] | Literal["all"]:
    if text == "all":
        return "all"
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(
            f"--i-template {text!r}", remedy='Give a number, several as "0,2", or "all".'
        ) from None
    return numbers[0] if len(numbers) == 1 else numbers
