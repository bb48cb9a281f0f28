"""Inputs of commands: whether they are there, and of the kind that is wanted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from cryolike_dask.cli.console import err, words_of_command
from cryolike_dask.cli.options import TrajectoryOptions
from cryolike_dask.errors import CryolikeError, InputError

if TYPE_CHECKING:
    from cryolike_dask.config.resolve import ResultInputs
    from cryolike_dask.io.kinds import Kind

OPTIONS: dict[Kind, str] = {
    "templates": "--templates",
    "image stacks": "--particles",
    "structures": "`templates` or --templates",
    "particles": "`particles` or --particles",
    "images": "`particles --images`",
    "parameters": "--parameters",
    "results": "`report`, `verify` or `export`",
    "a run": "`run`",
}


def need(path: Path | None, *wanted: Kind) -> None:
    """Refuse what is not there, or is known to hold something else."""
    from cryolike_dask.io.kinds import need_kind

    if path is not None:
        need_kind(path, *wanted, meant_for=OPTIONS)


def need_each(paths: Iterable[Path], *wanted: Kind) -> None:
    """Refuse each of several as `need` does; those that are not there are listed later, all at
    once."""
    listed = list(paths)
    for path in listed if len(listed) == 1 else [path for path in listed if path.exists()]:
        need(path, *wanted)


def need_description(path: Path) -> None:
    """Refuse what describes no run; who reads it says what to do where there is none."""
    if path.exists():
        need(path, "a run")


def need_comparable(templates: Path, particles: Path) -> None:
    """Refuse templates, or structures, and particles that are not, saying so if they only stand
    for each other."""
    from cryolike_dask.io.kinds import kinds_of

    template_kinds, particle_kinds = {"templates", "structures"}, {"image stacks", "particles"}
    if templates.exists() and particles.exists():
        held_by_templates, held_by_particles = (
            kinds_of(path) & (template_kinds | particle_kinds) for path in (templates, particles)
        )
        if (
            held_by_templates
            and held_by_particles
            and held_by_templates <= particle_kinds
            and held_by_particles <= template_kinds
        ):
            raise InputError(
                f"{templates} holds {' and '.join(sorted(held_by_templates))}, and {particles} "
                f"holds {' and '.join(sorted(held_by_particles))}",
                remedy="Are --templates and --particles swapped?",
            )
    need(templates, "templates", "structures")
    need(particles, "image stacks", "particles")


@dataclass(frozen=True, kw_only=True)
class InputsOfResults(TrajectoryOptions):
    """Inputs that results were made from, as options of the commands that look at results."""

    templates: Annotated[
        Path | None,
        typer.Option(
            help="As they were given to the run; default: found by what lies beside the results."
        ),
    ] = None
    particles: Annotated[
        Path | None,
        typer.Option(
            help="As they were given to the run; default: found by what lies beside the results."
        ),
    ] = None
    parameters: Annotated[
        Path | None,
        typer.Option(
            help="parameters.npz; default: that of the run, or the one in the templates folder."
        ),
    ] = None

    def need(self) -> None:
        """Refuse inputs that cannot be those of results."""
        need(self.templates, "templates", "structures")
        need(self.particles, "image stacks", "particles")
        need(self.parameters, "parameters")

    def given_or_found(self, results: Path, *, needed: bool) -> ResultInputs:
        """The inputs as given, or by what lies beside the results; none if unreadable."""
        from cryolike_dask.config.resolve import ResultInputs, inputs_of_results
        from cryolike_dask.io.layout import CONFIGURATION

        templates = self.one(self.templates)
        given_inputs = ResultInputs(templates, self.particles, self.parameters)
        if self != InputsOfResults() or not needed:
            return given_inputs
        try:
            return inputs_of_results(results)
        except (CryolikeError, OSError) as error:
            if (results / CONFIGURATION).is_file():
                reason = escape(words_of_command().say(str(error), arguments=False))
                err.print(
                    f"[bold]note:[/] what {results / CONFIGURATION} names cannot be read: {reason}"
                )
            return given_inputs
