"""Commands about the file that describes a run: an example, a check, its schema."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from cryolike_dask.cli.app import Program, app
from cryolike_dask.cli.console import errors_for_people, out, say
from cryolike_dask.cli.help import Commands
from cryolike_dask.cli.inputs import need_description
from cryolike_dask.errors import OutputError

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
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Write an example with comments; its values fit what `demo` makes."""
    from cryolike_dask.io.atomic import replacing
    from cryolike_dask.io.outputs import RUN, own_output

    with errors_for_people():
        path = path / NAME if path.is_dir() else path
        if path.is_file() and not force:
            raise OutputError(
                "is there already", source=path, remedy="Name another file, or pass --force."
            )
        own_output(path, RUN)
        example = files("cryolike_dask.config").joinpath("example.yaml").read_bytes()
        with replacing(path) as file:
            file.write(example)
        name = escape(str(path))
        out.print(f"{name}: an example. Change it, then: cryolike-dask config check {name}")


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
