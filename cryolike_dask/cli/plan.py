"""The command that says what a run will cost."""

from __future__ import annotations

from contextlib import nullcontext
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.markup import escape

from cryolike_dask.cli.app import (
    Conventions,
    ConventionsOption,
    app,
    client_for,
    errors_for_people,
    out,
    runs_on_workers,
    say,
)
from cryolike_dask.cli.going_on import Recompute, SkipExist, goes_on
from cryolike_dask.cli.likelihood import (
    Batch,
    Device,
    DeviceOption,
    Discover,
    ITemplate,
    MaxDisplacement,
    NDisplacements,
    NStacks,
    OutputFolder,
    Overwrite,
    ParametersFile,
    ParticlesFolder,
    TemplatesFolder,
    Tolerance,
    inputs_of,
)


class Kind(StrEnum):
    """The command of the run."""

    optimal_pose = "optimal-pose"
    full_cross_correlation = "full-cross-correlation"


@app.command("plan")
@runs_on_workers
def plan(
    templates: TemplatesFolder,
    particles: ParticlesFolder,
    output: OutputFolder,
    parameters: ParametersFile = None,
    n_stacks: NStacks = None,
    i_template: ITemplate = "all",
    max_displacement_pixels: MaxDisplacement = 8.0,
    n_displacements_x: NDisplacements = 16,
    n_displacements_y: NDisplacements = 16,
    n_templates_per_batch: Batch = None,
    n_images_per_batch: Batch = None,
    discover_batch_size: Discover = False,
    tolerance: Tolerance = None,
    recompute: Recompute = False,
    overwrite: Overwrite = False,
    device: DeviceOption = Device.auto,
    conventions: ConventionsOption = Conventions.standard,
    kind: Annotated[Kind, typer.Option(help="The command of the run.")] = Kind.optimal_pose,
    measure: Annotated[
        bool, typer.Option(help="Compute and time a block; without it the time is left out.")
    ] = True,
    skip_exist: SkipExist = None,
    **where: Any,
) -> None:
    """Say what a run will cost: tasks, bytes, memory and time. Takes the options of the run, and
    writes nothing."""
    _plan(**locals())


def _plan(**options: Any) -> None:
    say("opening templates and particles ...")
    from cryolike_dask.runs.plan import plan_likelihood

    passed = ("n_templates_per_batch", "n_images_per_batch", "discover_batch_size", "tolerance")
    with errors_for_people(), client_of_a_plan(options["where"]) as client:
        found = plan_likelihood(
            **inputs_of(options),
            skip_exist=goes_on(recompute=options["recompute"], skip_exist=options["skip_exist"]),
            client=client,
            n_workers=None if client is not None else workers_of_a_run(options["where"]["workers"]),
            kind=options["kind"].name,
            device=str(options["device"]),  # type: ignore[arg-type]
            **{name: options[name] for name in (*passed, "overwrite", "measure")},
        )
        out.print(escape(str(found)))


def client_of_a_plan(where: dict[str, Any]) -> Any:
    """A running cluster is asked; none is started for a plan."""
    running = any(value is not None for name, value in where.items() if name != "workers")
    return client_for(**where) if running else nullcontext()


def workers_of_a_run(workers: int | None) -> int:
    """How many workers `local_cluster` starts."""
    from cryolike_dask.compute.local import number_of_workers

    return 0 if workers == 0 else number_of_workers(workers)
