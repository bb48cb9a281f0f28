"""What commands are given: whether it is there, and of the kind that is wanted."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from cryolike_dask.errors import InputError

if TYPE_CHECKING:
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
    """The same for several, of which those that are not there are listed later, all at once."""
    listed = list(paths)
    for path in listed if len(listed) == 1 else [path for path in listed if path.exists()]:
        need(path, *wanted)


def need_description(path: Path) -> None:
    """Refuse what describes no run; who reads it says what to do where there is none."""
    if path.exists():
        need(path, "a run")


def need_inputs(templates: Path | None, particles: Path | None, parameters: Path | None) -> None:
    """Refuse inputs of results that are given instead of found, and cannot be theirs."""
    need(templates, "templates", "structures")
    need(particles, "image stacks", "particles")
    need(parameters, "parameters")


def need_comparable(templates: Path, particles: Path) -> None:
    """Refuse templates, or structures, and particles that are not, saying so if they only stand
    for each other."""
    from cryolike_dask.io.kinds import kinds_of

    ours, theirs = {"templates", "structures"}, {"image stacks", "particles"}
    if templates.exists() and particles.exists():
        found = [kinds_of(path) & (ours | theirs) for path in (templates, particles)]
        if found[0] and found[1] and found[0] <= theirs and found[1] <= ours:
            said = [" and ".join(sorted(kinds)) for kinds in found]
            what = f"{templates} holds {said[0]}, and {particles} holds {said[1]}"
            raise InputError(what, remedy="Are --templates and --particles swapped?")
    need_inputs(templates, particles, None)
