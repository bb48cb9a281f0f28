"""The command that runs what a file describes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from cryolike_dask.cli.app import (
    RESUME,
    app,
    client_for,
    errors_for_people,
    out,
    runs_on_workers,
    say,
)
from cryolike_dask.cli.given import need_description
from cryolike_dask.cli.going_on import SkipExist, goes_on
from cryolike_dask.cli.plan import client_of_a_plan, workers_of_a_run

WHERE = ("workers", "scheduler", "scheduler_file", "tls_ca_file", "tls_cert", "tls_key")


@app.command("run")
@runs_on_workers
def run(
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
            help="Replace results of another search or conventions in the output folder.",
            show_default=False,
        ),
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Say what the run will cost, and write nothing.")
    ] = False,
    skip_exist: SkipExist = None,
    **where: Any,
) -> None:
    """Run what a file describes: the likelihood of particles under structures.

    Options take the place of what the file says; --workers, --scheduler and the like take the place
    of all that it says of where to run.
    """
    with errors_for_people(RESUME):
        from cryolike_dask.config.reading import read_config

        need_description(config)
        found = read_config(config)
        changed: dict[str, Any] = {} if overwrite is None else {"overwrite": overwrite}
        if recompute is not None or skip_exist is not None:
            keep = goes_on(recompute=recompute, skip_exist=skip_exist)
            changed |= {"skip_exist": None, "recompute": not keep}
        if any(value is not None for value in where.values()):
            changed |= where
        found = found.model_copy(update={"machine": found.machine.model_copy(update=changed)})
        _plan(found) if plan else _run(found)


def _run(config: Any) -> None:
    say("opening templates and particles ...")
    from cryolike_dask.config.resolve import COPY, need_inputs
    from cryolike_dask.config.run_config import run_config

    need_inputs(config)
    with client_for(**_where(config)) as client:
        results = run_config(config, client)
        folder = escape(str(config.output))
        out.print(
            f"{results.sizes['image']} images: results are in {folder}, and what was run in {COPY} "
            f"there"
        )
        if config.likelihood.kind == "optimal_pose":
            out.print(f"Next: cryolike-dask report {folder}")


def _plan(config: Any) -> None:
    from cryolike_dask.config.resolve import inputs_of
    from cryolike_dask.runs.plan import plan_likelihood

    where, machine = _where(config), config.machine
    passed = (
        "n_templates_per_batch",
        "n_images_per_batch",
        "discover_batch_size",
        "overwrite",
        "device",
    )
    with client_of_a_plan(where) as client:
        planned = plan_likelihood(
            **inputs_of(config),
            **{name: getattr(machine, name) for name in passed},
            skip_exist=machine.keeps,
            kind=config.likelihood.kind,
            client=client,
            n_workers=None if client is not None else workers_of_a_run(where["workers"]),
        )
        out.print(escape(str(planned)))


def _where(config: Any) -> dict[str, Any]:
    return {name: getattr(config.machine, name) for name in WHERE}
