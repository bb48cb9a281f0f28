"""The command that says what a run will cost."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from cryolike_dask.cli.app import app
from cryolike_dask.cli.console import errors_for_people, say
from cryolike_dask.cli.likelihood import NOT_OF_A_PLAN, LikelihoodOptions
from cryolike_dask.cli.options import PlaceOptions, client_of_a_plan, takes_options
from cryolike_dask.cli.showing import show_plan


@app.command("plan")
@takes_options(left_out=NOT_OF_A_PLAN)
def plan(
    *,
    options: LikelihoodOptions,
    kind: Annotated[
        Literal["optimal-pose", "full-cross-correlation"],
        typer.Option(help="The command of the run."),
    ] = "optimal-pose",
    measure: Annotated[
        bool, typer.Option(help="Compute and time a block; without it the time is left out.")
    ] = True,
    gpu: Annotated[
        str | None,
        typer.Option(
            help="Plan for workers with this GPU each, such as H100, A100 or 'RTX 4090', here or "
            "not: an estimate by stated rates. --workers says how many."
        ),
    ] = None,
    place: PlaceOptions,
) -> None:
    """Say what a run will cost: tasks, bytes, memory and time. Takes the options of the run, and
    writes nothing."""
    say("opening templates and particles ...")
    from cryolike_dask.runs.plan import plan_likelihood

    with errors_for_people(), client_of_a_plan(place) as client:
        planned = plan_likelihood(
            **options.inputs(),
            skip_exist=options.keeps,
            n_templates_per_batch=options.n_templates_per_batch,
            n_images_per_batch=options.n_images_per_batch,
            discover_batch_size=options.discover_batch_size,
            kind="optimal_pose" if kind == "optimal-pose" else "full_cross_correlation",
            overwrite=options.overwrite,
            client=client,
            n_workers=None if client is not None else place.n_workers,
            gpu=gpu,
            device=options.device,
            measure=measure,
        )
        show_plan(planned)
