"""The page of all commands, made from the application."""

import re
from collections.abc import Iterator
from typing import Any

import typer

from cryolike_dask.cli import app

PROGRAM = "cryolike-dask"


def command_reference() -> str:
    """Every command with its help, arguments and options, as MyST."""
    parts = []
    for name, command, context in commands(typer.main.get_command(app), PROGRAM):
        records = [p.get_help_record(context) for p in command.params if p.name != "help"]
        parts += [f"## {name}\n", f"{plain(command.help or '')}\n", f"```{{program}} {name}\n```\n"]
        parts += [described(*record) for record in records if record is not None]
    return "\n".join(parts)


def commands(command: Any, name: str) -> Iterator[tuple[str, Any, Any]]:
    """All commands that do something, each with its whole name and the context that its help is
    made in."""
    groups = getattr(command, "commands", None)
    if groups is None:
        yield name, command, typer.Context(command, info_name=name)
        return
    for own, inner in groups.items():
        yield from commands(inner, f"{name} {own}")


def described(names: str, help_text: str) -> str:
    """One argument or option, as the command's own help shows it."""
    return f"```{{option}} {names.replace(' / ', ', ')}\n{plain(help_text)}\n```\n"


def plain(text: str) -> str:
    """Text whose characters mean nothing to Markdown; what is in backticks, and options, are
    code."""
    parts = re.sub(r"(?<![\w`-])(--\w[\w-]*)", r"`\1`", text).split("`")
    parts[::2] = [re.sub(r"([\\*_<>\[\]#|])", r"\\\1", part) for part in parts[::2]]
    return "`".join(parts)
