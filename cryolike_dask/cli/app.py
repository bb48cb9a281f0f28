"""The application: what all commands share."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape

from cryolike_dask import __version__
from cryolike_dask.errors import CryolikeError, InputError

app = typer.Typer(
    help="Image-to-structure likelihoods for cryo-EM.",
    no_args_is_help=True,
    rich_markup_mode=None,  # the panels cut the names of options
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
out, err = Console(soft_wrap=True), Console(stderr=True, soft_wrap=True)


class Conventions(StrEnum):
    """Whose numbers."""

    standard = "standard"
    cryolike = "cryolike"


ConventionsOption = Annotated[Conventions, typer.Option(help="cryolike: CryoLike's numbers, its errors included.")]
RESUME = "What was written is complete; run the same command with --skip-exist to go on."

Workers = Annotated[
    int | None, typer.Option(help="Worker processes. Default: one per GPU, or per core; 0: none, this process alone.")
]
Scheduler = Annotated[str | None, typer.Option(help="Address of a running Dask scheduler, tcp://host:port.")]


def _version(wanted: bool) -> None:
    if wanted:
        out.print(__version__)
        raise typer.Exit


@app.callback()
def _main(version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)] = False) -> None:
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[_handler()], force=True)
    logging.getLogger("cryolike_dask").setLevel(logging.INFO)


@contextmanager
def client_for(workers: int | None, scheduler: str | None) -> Iterator[Any]:
    """The client to run on: of a running scheduler, of a cluster on this machine, or none."""
    if scheduler is not None and workers is not None:
        raise InputError("--workers and --scheduler exclude each other")
    if workers == 0:
        yield None
    elif scheduler is not None:
        from distributed import Client

        try:
            client = Client(scheduler, timeout=5)
        except (OSError, TypeError, ValueError) as error:
            raise InputError(f"--scheduler {scheduler}: {error}", remedy="Give tcp://host:port.") from error
        with client:
            yield client
    else:
        from cryolike_dask.cluster import local_cluster

        logging.getLogger("distributed").setLevel(logging.WARNING)
        with local_cluster(workers) as client:
            err.print(f"dashboard: {client.dashboard_link}", style="dim")
            yield client


@contextmanager
def errors_for_people(when_stopped: str = "") -> Iterator[None]:
    """Print what went wrong in one piece instead of a traceback."""
    try:
        yield
    except CryolikeError as error:
        err.print(f"[bold red]error:[/] {escape(str(error))}")
        raise typer.Exit(1) from error
    except OSError as error:
        err.print(f"[bold red]error:[/] {escape(str(error))}")
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        err.print(f"Stopped. {when_stopped}")
        raise typer.Exit(130) from None


def _handler() -> logging.Handler:
    if sys.stderr.isatty():
        return RichHandler(console=err, show_path=False, show_time=False)
    return logging.StreamHandler(sys.stderr)
