"""Commands about the file that describes a run: an example, a check, its schema."""

from __future__ import annotations

import shlex
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from cryolike_dask.cli.app import Program, app
from cryolike_dask.cli.console import errors_for_people, out, say
from cryolike_dask.cli.help import Commands
from cryolike_dask.cli.inputs import need_description, need_each
from cryolike_dask.cli.showing import show_plan
from cryolike_dask.errors import InputError, OutputError

if TYPE_CHECKING:
    from cryolike_dask.config.model import RunConfig

NAME = "run.yaml"

commands = Program(
    cls=Commands,
    help="The file that describes a run: write an example, check one, show what it may say.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(commands, name="config")


@commands.command("init")
def init(
    path: Annotated[Path, typer.Argument(help="The file to write, or a folder for it.")] = Path(
        NAME
    ),
    structures: Annotated[
        list[Path] | None,
        typer.Option(help="Structure file, or a folder of them; repeatable. With --particles."),
    ] = None,
    particles: Annotated[
        list[Path] | None,
        typer.Option(help="STAR or .cs file; repeatable. With --structures."),
    ] = None,
    resolution_angstrom: Annotated[
        float | None,
        typer.Option(help="Resolution up to which images are compared. Default: 8, or two pixels."),
    ] = None,
    symmetry: Annotated[
        str | None,
        typer.Option(
            help="Point group of the structures, with RELION's axes. Default: what they are "
            "measured to have."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Write a run.yaml: for your structures and particles, or an example that fits what `demo`
    makes.

    Of --structures and --particles it takes box and pixel size, how large structures are, and the
    recorded origins, chooses the grid, the search, noise and workers by them, says why, and prints
    the plan.
    """
    from cryolike_dask.io.atomic import replacing
    from cryolike_dask.io.outputs import RUN, own_output

    with errors_for_people():
        path = path / NAME if path.is_dir() else path
        if path.is_file() and not force:
            raise OutputError(
                "is there already", source=path, remedy="Name another file, or pass --force."
            )
        own_output(path, RUN)
        if structures or particles:
            if not (structures and particles):
                raise InputError(
                    "--structures and --particles go together", remedy="Give both, or neither."
                )
            need_each(structures, "structures")
            need_each(particles, "particles")
            _propose(path, structures, particles, resolution_angstrom, symmetry)
            return
        example = files("cryolike_dask.config").joinpath("example.yaml").read_bytes()
        with replacing(path) as file:
            file.write(example)
        name = escape(str(path))
        out.print(f"{name}: an example. Change it, then: cryolike-dask config check {name}")


def _propose(
    path: Path,
    structures: list[Path],
    particles: list[Path],
    resolution_angstrom: float | None,
    symmetry: str | None,
) -> None:
    """Write the configuration that inputs propose, and print its plan."""
    say("looking at structures and particles ...")
    from cryolike_dask.config.proposal import TEMPLATES, propose
    from cryolike_dask.config.reading import read_config, validated
    from cryolike_dask.config.run_config import plan_config
    from cryolike_dask.io.atomic import replacing
    from cryolike_dask.io.layout import PARAMETERS
    from cryolike_dask.io.parameters import write_parameters

    folder = path.absolute().parent
    proposal = propose(
        folder,
        [_seen_from(folder, given) for given in structures],
        [_seen_from(folder, given) for given in particles],
        resolution_angstrom,
        symmetry,
    )
    with replacing(path) as file:
        file.write(proposal.text().encode())
    read_config(path)
    out.print(f"{escape(str(path))}:")
    out.print(proposal.text(), markup=False, highlight=False)
    say("planning ...")
    show_plan(plan_config(validated(proposal.values, folder), None))
    if proposal.writes_templates:
        write_parameters(folder / PARAMETERS, proposal.parameters)
        typed = [*map(str, structures), "--parameters", str(folder / PARAMETERS)]
        typed += ["--output", str(folder / TEMPLATES)]
        out.print(f"Next: cryolike-dask templates {escape(shlex.join(typed))}", highlight=False)
    typed = ["config", "check", str(path)]
    out.print(f"Next: cryolike-dask {escape(shlex.join(typed))}", highlight=False)


def _seen_from(folder: Path, path: Path) -> Path:
    """A path as a file in this folder says it: relative where it lies there."""
    whole = path.absolute()
    return whole.relative_to(folder) if whole.is_relative_to(folder) else whole


@commands.command("check")
def check(config: Annotated[Path, typer.Argument(help="A YAML file.")]) -> None:
    """Validate a file, look at all that a run of it looks at, inputs and output folder, and say
    what it describes.

    The exit code says what kind of thing is wrong, as that of a run does. Nothing is written. `run
    --plan` says what the run will cost, too.
    """
    with errors_for_people():
        from cryolike_dask.config.checking import check_config
        from cryolike_dask.config.reading import read_config
        from cryolike_dask.config.resolve import describe_inputs

        need_description(config)
        described = read_config(config)
        say("opening templates and particles ...")
        table = Table(show_header=False, box=None)
        for name, value in {**describe_inputs(described), **_in_words(described)}.items():
            table.add_row(f"[bold]{name}[/]", escape(value))
        check_config(described)
        out.print(f"{escape(str(config))}: nothing is wrong")
        out.print(table)
        out.print(f"Next: cryolike-dask run {escape(str(config))}")


@commands.command("schema")
def schema() -> None:
    """Print what a file may say, as JSON Schema, for editors that complete and check YAML."""
    import json

    from cryolike_dask.config.reading import config_schema

    typer.echo(json.dumps(config_schema(), indent=2))


def _in_words(config: RunConfig) -> dict[str, str]:
    """The parts of a run that need no input to be looked at."""
    likelihood, machine = config.likelihood, config.machine
    workers = (
        "one worker per GPU, or per core"
        if machine.workers is None
        else f"{machine.workers} worker(s)"
    )
    place = machine.place.running_scheduler or (
        workers if machine.workers != 0 else "this process alone"
    )
    return {
        "search": str(config.search.asked),
        "likelihood": f"{likelihood.kind}, conventions {likelihood.conventions}, precision "
        f"{likelihood.precision}",
        "machine": f"{place}, device {machine.device}",
        "output": str(config.output),
    }
