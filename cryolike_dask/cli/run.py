"""The command that runs what a file describes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from cryolike_dask.cli.app import app
from cryolike_dask.cli.console import RESUME, errors_for_people, out, say
from cryolike_dask.cli.inputs import need_description
from cryolike_dask.cli.options import (
    PlaceOptions,
    SkipExist,
    client_in,
    client_of_a_plan,
    keeps_complete,
    takes_options,
)
from cryolike_dask.cli.showing import show_plan, show_shares
from cryolike_dask.labels import SearchAsked

if TYPE_CHECKING:
    from cryolike_dask.config.model import RunConfig


@app.command("run")
@takes_options()
def run(
    *,
    config: Annotated[Path, typer.Argument(help="A YAML file, such as `config init` writes.")],
    recompute: Annotated[
        bool | None,
        typer.Option(
            help="Compute again what is complete and came from these very inputs.",
            show_default=False,
        ),
    ] = None,
    overwrite: Annotated[
        bool | None,
        typer.Option(
            help="Replace results of another search, conventions or noise in the output folder.",
            show_default=False,
        ),
    ] = None,
    search: Annotated[
        SearchAsked | None,
        typer.Option(
            help="exhaustive: compare every pose; adaptive: coarse to fine; recorded: "
            "the pose that is recorded with each particle; auto: as run.yaml without a method.",
            show_default=False,
        ),
    ] = None,
    pose_posteriors: Annotated[
        bool | None,
        typer.Option(
            help="Say how the posterior of each image is spread over poses.",
            show_default=False,
        ),
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Say what the run will cost, and write nothing.")
    ] = False,
    skip_exist: SkipExist = None,
    place: PlaceOptions,
) -> None:
    """Run what a file describes: the likelihood of particles under structures.

    Options take the place of what the file says; --workers, --scheduler and the like take the place
    of all that it says of where to run.
    """
    with errors_for_people(RESUME):
        from cryolike_dask.config.reading import read_config

        need_description(config)
        described = read_config(config)
        changed: dict[str, object] = {} if overwrite is None else {"overwrite": overwrite}
        if recompute is not None or skip_exist is not None:
            keeps = keeps_complete(recompute=recompute, skip_exist=skip_exist)
            changed |= {"skip_exist": None, "recompute": not keeps}
        if place != PlaceOptions():
            changed |= vars(place)
        machine = described.machine.model_copy(update=changed)
        described = described.model_copy(update={"machine": machine})
        if search is not None:
            from cryolike_dask.config.run_config import searching

            described = searching(described, search)
        if pose_posteriors is not None:
            from cryolike_dask.config.run_config import with_posteriors

            described = with_posteriors(described, asked=pose_posteriors)
        _plan(described) if plan else _run(described)


def _run(config: RunConfig) -> None:
    say("opening templates and particles ...")
    from cryolike_dask.config.run_config import needs_no_workers, opened, run_opened
    from cryolike_dask.io.export_names import REPORT
    from cryolike_dask.io.layout import CONFIGURATION

    given = opened(config)  # what is wrong with inputs is said before workers start
    with client_in(config.machine.place, is_small=needs_no_workers(config, given.run)) as client:
        results = run_opened(given, client)
        folder = escape(str(config.output))
        out.print(
            f"{results.sizes['image']} images: results are in {folder}, and what was run in "
            f"{CONFIGURATION} there"
        )
        if config.populations is not None:
            from cryolike_dask.analysis.dataset import open_results
            from cryolike_dask.analysis.populations.written import written_populations

            found = written_populations(open_results(config.output))
            if found is not None:
                show_shares(found)
        if config.report:
            out.print(f"The report is {escape(str(config.output / REPORT))}")
        elif config.likelihood.kind == "optimal_pose":
            out.print(f"Next: cryolike-dask report {folder}")


def _plan(config: RunConfig) -> None:
    from cryolike_dask.config.run_config import plan_config

    with client_of_a_plan(config.machine.place) as client:
        planned = plan_config(config, client)
        show_plan(planned)
        from cryolike_dask.config.cheaper import alternatives

        for one in alternatives(config, planned, client):
            out.print(escape(f"  {'cheaper':<8}{one}"))
