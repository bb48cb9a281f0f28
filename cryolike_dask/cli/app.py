"""The application that all commands belong to."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.models import CommandFunctionType

from cryolike_dask.cli.console import OURS, ConsoleLog, err, out
from cryolike_dask.cli.help import Command, Commands
from cryolike_dask.cli.words import Words
from cryolike_dask.version import __version__


class Program(typer.Typer):
    """The application as a program: help in panels; and once a command has ended, Ctrl-C does not
    disturb Python's own end."""

    def command(
        self, *arguments: Any, **options: Any
    ) -> Callable[[CommandFunctionType], CommandFunctionType]:
        """Register a command."""
        return super().command(*arguments, **{"cls": Command} | options)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command."""
        try:
            return super().__call__(*args, **kwargs)
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)


app = Program(
    cls=Commands,
    help="Image-to-structure likelihoods for cryo-EM.",
    no_args_is_help=True,
    rich_markup_mode=None,  # its panels cut the names of options: see help
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        out.print(__version__)
        raise typer.Exit


@app.callback()
def _main(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    words = Words.of(context.invoked_subcommand, context.command.commands)  # type: ignore[attr-defined]
    log = ConsoleLog(err, words)
    context.call_on_close(log.repeat_warnings)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[log], force=True)
    logging.getLogger(OURS).setLevel(logging.INFO)
