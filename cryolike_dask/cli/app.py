"""The application: what all commands share."""

from __future__ import annotations

import inspect
import logging
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from traceback import walk_tb
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.markup import escape

from cryolike_dask.cli.telling import OURS, Told, words_of_command
from cryolike_dask.cli.words import Words
from cryolike_dask.conventions import CRYOLIKE, STANDARD
from cryolike_dask.errors import CryolikeError, InputError, InputFileError, counted
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
out, err = Console(soft_wrap=True, emoji=False), Console(stderr=True, soft_wrap=True, emoji=False)


class Conventions(StrEnum):
    """Whose numbers."""

    standard = STANDARD.name
    cryolike = CRYOLIKE.name


ConventionsOption = Annotated[
    Conventions, typer.Option(help="cryolike: CryoLike's numbers, its errors included.")
]
RESUME = "What was written is complete; the same command, without --recompute, goes on."

Workers = Annotated[
    int | None,
    typer.Option(
        help="Worker processes. Default: one per GPU, or per core; 0: none, this process alone."
    ),
]
Scheduler = Annotated[
    str | None,
    typer.Option(help="Address of a running Dask scheduler, tcp://host:port or tls://host:port."),
]
SchedulerFile = Annotated[
    Path | None,
    typer.Option(help="File that a running Dask scheduler wrote, instead of its address."),
]
TlsCaFile = Annotated[
    Path | None,
    typer.Option(help="PEM file of who signed the certificates of scheduler and client."),
]
TlsCert = Annotated[Path | None, typer.Option(help="PEM file of the client's certificate.")]
TlsKey = Annotated[Path | None, typer.Option(help="PEM file of its private key.")]
Command = TypeVar("Command", bound=Callable[..., None])


def _version(wanted: bool) -> None:
    if wanted:
        out.print(__version__)
        raise typer.Exit


@app.callback()
def _main(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)] = False,
) -> None:
    told = Told(err, Words.of(context.invoked_subcommand, context.command.commands))  # type: ignore[attr-defined]
    context.call_on_close(told.warn_again)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[told], force=True)
    logging.getLogger(OURS).setLevel(logging.INFO)


@contextmanager
def client_for(
    workers: Workers = None,
    scheduler: Scheduler = None,
    scheduler_file: SchedulerFile = None,
    tls_ca_file: TlsCaFile = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
) -> Iterator[Any]:
    """The client to run on: of a running scheduler, of a cluster on this machine, or none."""
    tls: dict[str, Any] = {"tls_ca_file": tls_ca_file, "tls_cert": tls_cert, "tls_key": tls_key}
    running = {"--scheduler": scheduler, "--scheduler-file": scheduler_file, "--workers": workers}
    given = [option for option, value in running.items() if value is not None]
    if len(given) > 1:
        raise InputError(f"{' and '.join(given)} exclude each other", remedy="Give one of them.")
    where = scheduler_file if scheduler is None else scheduler
    if where is None and any(tls.values()):
        raise InputError(
            "--tls-ca-file, --tls-cert and --tls-key need --scheduler or --scheduler-file"
        )
    if where is not None:
        from cryolike_dask.compute.remote import connect

        with connect(where, **tls) as client:
            yield client
    elif workers == 0:
        yield None
    else:
        what = "workers, one per GPU or per core" if workers is None else counted(workers, "worker")
        say(f"starting {what} ...")
        from cryolike_dask.compute.local import local_cluster

        logging.getLogger("distributed").setLevel(logging.WARNING)
        with local_cluster(workers) as client:
            n = len(client.scheduler_info(n_workers=-1)["workers"])
            say(f"{counted(n, 'worker')}; dashboard: {client.dashboard_link}")
            yield client


def say(text: str) -> None:
    """Say what happens now, for whoever waits."""
    err.print(text, style="dim", highlight=False)


def runs_on_workers(command: Command) -> Command:
    """Give a command the options of `client_for` in place of its `**where`."""
    own, shared = (inspect.signature(f, eval_str=True) for f in (command, client_for))
    kept = [p for p in own.parameters.values() if p.kind is not p.VAR_KEYWORD]
    command.__signature__ = own.replace(parameters=[*kept, *shared.parameters.values()])  # type: ignore[attr-defined]
    return command


@contextmanager
def errors_for_people(when_stopped: str = "") -> Iterator[None]:
    """Print what went wrong in one piece instead of a traceback."""
    try:
        yield
    except (CryolikeError, OSError) as error:
        said = words_of_command().say(str(error), arguments=not isinstance(error, InputFileError))
        err.print(f"[bold red]error:[/] {escape(said)}")
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        err.print(f"Stopped. {when_stopped}")
        raise typer.Exit(130) from None
    except Exception as error:
        if not _is_of_importing_dask(error):
            raise
        err.print(
            f"[bold red]error:[/] Dask cannot be imported "
            f"({escape(f'{type(error).__name__}: {error}')}). Check its "
            "settings, in environment variables that begin with DASK_ and in ~/.config/dask.",
        )
        raise typer.Exit(1) from error


def _is_of_importing_dask(error: Exception) -> bool:
    """Whether Dask's settings, which it reads when it is imported, are the reason."""
    modules = (frame.f_globals.get("__name__", "") for frame, _ in walk_tb(error.__traceback__))
    return "distributed" not in sys.modules and any(
        m.split(".")[0] in ("dask", "distributed") for m in modules
    )


def given_or_found(results: Path, *, needed: bool, **given: Path | None) -> dict[str, Any]:
    """Templates, particles and parameters of results: as given, or by what lies beside them;
    none if unreadable."""
    if any(given.values()) or not needed:
        return given
    from cryolike_dask.config.resolve import COPY, inputs_of_results

    try:
        return inputs_of_results(results)
    except (CryolikeError, OSError) as error:
        if (results / COPY).is_file():
            said = escape(words_of_command().say(str(error), arguments=False))
            err.print(f"[bold]note:[/] what {results / COPY} names cannot be read: {said}")
        return given
