"""Options that several commands have, and how a command takes many of them as one value."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from cryolike_dask.cli.console import say
from cryolike_dask.config.place import Place
from cryolike_dask.conventions import ConventionsName
from cryolike_dask.errors import InputError, counted
from cryolike_dask.labels import Models

if TYPE_CHECKING:
    from distributed import Client

    from cryolike_dask.geometry.displacements import DisplacementSearch
    from cryolike_dask.structures.trajectories.trajectory import Trajectory

Command = Callable[..., None]

Conventions = Annotated[
    ConventionsName, typer.Option(help="cryolike: CryoLike's numbers, its errors included.")
]
Recompute = Annotated[
    bool,
    typer.Option(
        "--recompute", help="Compute again what is complete and came from these very inputs."
    ),
]
Older = Annotated[float | None, typer.Option(hidden=True)]
OlderNumber = Annotated[int | None, typer.Option(hidden=True)]
"""Options by the words of before, which go on being taken."""
SkipExist = Annotated[bool | None, typer.Option(hidden=True)]
"""The option by which keeping complete results was asked for before it was the default."""

ParametersFile = Annotated[
    Path, typer.Option("--parameters", help="parameters.npz, as `parameters` writes it.")
]
OutputFolder = Annotated[
    Path, typer.Option("--output", help="Folder for what is made; it is created.")
]
Overwrite = Annotated[bool, typer.Option(help="Replace what is in the output folder.")]
Plots = Annotated[bool, typer.Option(help="Draw the first few into a picture beside the output.")]
Structures = Annotated[
    list[Path],
    typer.Argument(
        help="PDB, mmCIF, MRC, .npy or .pt files, or folders of them; or trajectories (XTC, TRR, "
        "DCD and others).",
        show_default=False,
    ),
]
TrajectoryFrames = Annotated[
    str | None,
    typer.Option(
        "--frames",
        help='Of trajectories, from 0: "0, 5, 10-20, 100-", or a text file of such numbers. '
        "Default: all.",
    ),
]
Every = Annotated[int, typer.Option(help="Only the first of each so many of these frames.")]
ModelsOption = Annotated[
    Models, typer.Option(help="Models of PDB and mmCIF files; all: each as a structure.")
]


def takes_options(*, left_out: Collection[str] = ()) -> Callable[[Command], Command]:
    """Give a command, in place of each parameter whose type is a dataclass, the fields of that
    class as options, but for those left out; the command gets one value of that class."""

    def decorated(command: Command) -> Command:
        signature = inspect.signature(command, eval_str=True)
        classes: dict[str, type[Any]] = {}
        parameters: list[inspect.Parameter] = []
        for parameter in signature.parameters.values():
            annotation = parameter.annotation
            if isinstance(annotation, type) and is_dataclass(annotation):
                classes[parameter.name] = annotation
                parameters += _options_of(annotation, left_out)
            else:
                parameters.append(parameter.replace(kind=parameter.KEYWORD_ONLY))

        @wraps(command)
        def taking_each(**values: Any) -> None:
            for name, options in classes.items():
                own = [option.name for option in _options_of(options, left_out)]
                values[name] = options(**{option: values.pop(option) for option in own})
            command(**values)

        taking_each.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        return taking_each

    return decorated


def _options_of(options: type[Any], left_out: Collection[str]) -> list[inspect.Parameter]:
    annotations = get_type_hints(options, include_extras=True)
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.default is MISSING else field.default,
            annotation=annotations[field.name],
        )
        for field in fields(options)
        if field.name not in left_out
    ]


def tell_words_of_today(**values: Any) -> None:
    """Say the words of today for options that are given by older ones."""
    from cryolike_dask.config.older_words import exactly, words_of_today

    for older, word, value in words_of_today(values):
        options = " and ".join(f"--{name.replace('_', '-')}" for name in older)
        say(f"for {options} say --{word.replace('_', '-')} {exactly(value)}")


def displacements_of(
    farthest: float, step: float | None, n_x: int | None, n_y: int | None
) -> DisplacementSearch:
    """The search over displacements as options say it, older ones with the word of today."""
    from cryolike_dask.config.model import N_DISPLACEMENTS
    from cryolike_dask.run_likelihood import configure_displacement

    if step is not None:
        return configure_displacement(farthest, n_x, n_y, displacement_step_pixels=step)
    tell_words_of_today(
        max_displacement_pixels=farthest, n_displacements_x=n_x, n_displacements_y=n_y
    )
    return configure_displacement(farthest, n_x or N_DISPLACEMENTS, n_y or N_DISPLACEMENTS)


def keeps_complete(*, recompute: bool | None, skip_exist: bool | None) -> bool:
    """Whether results that are complete and came from the same inputs are kept: unless a command is
    told otherwise, it goes on where it stopped.

    Raises
    ------
    InputError
        If both are asked for.
    """
    if recompute and skip_exist:
        raise InputError(
            "--recompute and --skip-exist exclude each other", remedy="Give one of them."
        )
    return not recompute and skip_exist is not False


@dataclass(frozen=True, kw_only=True)
class TrajectoryOptions:
    """Which frames of trajectories are structures."""

    topology: Annotated[
        Path | None,
        typer.Option(help="Of trajectories: a PDB file, say, of the same atoms in their order."),
    ] = None
    frames: TrajectoryFrames = None
    every: Every = 1

    def one(self, templates: Path | None) -> Path | Trajectory | None:
        """Templates or structures, which may be a trajectory with this topology; or none."""
        given = self.of([] if templates is None else [templates])
        one: Path | Trajectory | None = given[0] if given else None
        return one

    def of(self, structures: Any) -> Any:
        """Structures, the trajectories among which have this topology, and frames chosen."""
        from cryolike_dask.structures.trajectories.trajectory import with_topology

        return with_topology(structures, self.topology, self.frames, self.every)


@dataclass(frozen=True, kw_only=True)
class PlaceOptions(Place):
    """The place that a command runs in, as its options."""

    workers: Annotated[
        int | None,
        typer.Option(
            help="Worker processes. Default: one per GPU, or per core, or none for a run of "
            "seconds; 0: none, this process alone."
        ),
    ] = None
    scheduler: Annotated[
        str | None,
        typer.Option(
            help="Address of a running Dask scheduler, tcp://host:port or tls://host:port."
        ),
    ] = None
    scheduler_file: Annotated[
        Path | None,
        typer.Option(help="File that a running Dask scheduler wrote, instead of its address."),
    ] = None
    tls_ca_file: Annotated[
        Path | None,
        typer.Option(help="PEM file of who signed the certificates of scheduler and client."),
    ] = None
    tls_cert: Annotated[
        Path | None,
        typer.Option(help="PEM file of the client's certificate."),
    ] = None
    tls_key: Annotated[Path | None, typer.Option(help="PEM file of its private key.")] = None


@contextmanager
def client_in(place: Place, *, is_small: bool = False) -> Iterator[Client | None]:
    """The client to run on: of a running scheduler, of a cluster on this machine, or none; nor of
    a cluster that nobody asks for, where what is to be done is small."""
    choices = {
        "--scheduler": place.scheduler,
        "--scheduler-file": place.scheduler_file,
        "--workers": place.workers,
    }
    chosen = [option for option, value in choices.items() if value is not None]
    if len(chosen) > 1:
        raise InputError(f"{' and '.join(chosen)} exclude each other", remedy="Give one of them.")
    if place.running_scheduler is None and any((place.tls_ca_file, place.tls_cert, place.tls_key)):
        raise InputError(
            "--tls-ca-file, --tls-cert and --tls-key need --scheduler or --scheduler-file"
        )
    if place.running_scheduler is not None:
        from cryolike_dask.compute.remote import connect

        with connect(place.running_scheduler, **place.certificates) as client:
            yield client
    elif place.workers == 0:
        yield None
    elif place.workers is None and is_small:
        say("this takes seconds: no workers are started (--workers 1 starts one)")
        yield None
    else:
        n_workers = place.workers
        wanted = (
            "workers, one per GPU or per core"
            if n_workers is None
            else counted(n_workers, "worker")
        )
        say(f"starting {wanted} ...")
        from cryolike_dask.compute.local import local_cluster

        logging.getLogger("distributed").setLevel(logging.WARNING)
        with local_cluster(n_workers) as client:
            n = len(client.scheduler_info(n_workers=-1)["workers"])
            say(f"{counted(n, 'worker')}; dashboard: {client.dashboard_link}")
            yield client


def client_of_a_plan(place: Place) -> AbstractContextManager[Client | None]:
    """The client of a scheduler that runs already, which is asked; none is started for a plan."""
    return client_in(place) if place.asks_for_a_scheduler else nullcontext()
