"""The application that all commands belong to."""

from __future__ import annotations

import logging
import signal
from typing import Annotated, Any

import typer

from cryolike_dask.cli.console import OURS, ConsoleLog, err, errors_for_people, out
from cryolike_dask.cli.words import Words
from cryolike_dask.version import __version__


class Program(typer.Typer):
    """The application as a program: once a command has ended, Ctrl-C does not disturb Python's
    own end."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command."""
        try:
            return super().__call__(*args, **kwargs)
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)


class Commands(typer.core.TyperGroup):
    """Commands whose errors are for people, those of imports included."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        with errors_for_people():
            return super().invoke(ctx)


app = Program(
    cls=Commands,
    help="Image-to-structure likelihoods for cryo-EM.",
    no_args_is_help=True,
    rich_markup_mode=None,  # the panels cut the names of options
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
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)] = False,
) -> None:
    words = Words.of(context.invoked_subcommand, context.command.commands)  # type: ignore[attr-defined]
    log = ConsoleLog(err, words)
    context.call_on_close(log.repeat_warnings)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[log], force=True)
    logging.getLogger(OURS).setLevel(logging.INFO)
