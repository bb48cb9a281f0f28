"""The page of all commands, made from the texts of their help."""

import re
from typing import Any

import typer

from cryolike_dask.cli import app
from cryolike_dask.cli.exit_codes import EXIT_CODES
from cryolike_dask.cli.help import ARGUMENTS, continued, panels_of
from cryolike_dask.cli.panels import COMMANDS, example_of, group_of

PROGRAM = "cryolike-dask"
COLUMNS = 90


def command_reference() -> str:
    """Every command with its help, an example, arguments and options, and the exit codes, as
    MyST."""
    all_commands = commands(typer.main.get_command(app), PROGRAM)
    parts = []
    for group in COMMANDS:
        own = [found for found in all_commands if group_of(found[1].name) == group]
        parts += [f"## {group}\n"] * bool(own)
        parts += [text for name, command, context in own for text in page(name, command, context)]
    rows = [f"| {code} | {plain(meaning)} |" for code, meaning in EXIT_CODES.items()]
    return "\n".join([*parts, "## Exit codes\n", "| code | meaning |", "|---|---|", *rows, ""])


def page(name: str, command: Any, context: Any) -> list[str]:
    """A command, in the order of a manual page."""
    usage = " ".join([name, *command.collect_usage_pieces(context)])
    shown = f"```text\n{usage}\n```\n"
    example = f"```text\n{continued(example_of(command.name), COLUMNS)}\n```\n"
    parts = [f"### {name}\n", f"{plain(command.help or '')}\n", shown, "For example:\n", example]
    parts.append(f"```{{program}} {name}\n```\n")
    for panel, rows in panels_of(command, context):
        described_rows = [row for row in rows if "--help" not in row[0]]
        if panel == ARGUMENTS:
            parts += [f"- `{names}`: {plain(text)}" for names, text in described_rows] + [""]
        elif described_rows:
            parts += [f"**{panel}**\n", *(described(*row) for row in described_rows)]
    return parts


def commands(command: Any, name: str) -> list[tuple[str, Any, Any]]:
    """All commands that do something, in the order of work, each with its whole name and the
    context that its help is made in."""
    if not hasattr(command, "commands"):
        return [(name, command, typer.Context(command, info_name=name))]
    found = []
    for own in command.list_commands(None):
        found += commands(command.commands[own], f"{name} {own}")
    return found


def described(names: str, help_text: str) -> str:
    """One option, as the command's own help shows it."""
    return f"```{{option}} {names.replace(' / ', ', ')}\n{plain(help_text)}\n```\n"


def plain(text: str) -> str:
    """Text whose characters mean nothing to Markdown; what is in backticks, and options, are
    code."""
    parts = re.sub(r"(?<![\w`-])(--\w[\w-]*)", r"`\1`", text).split("`")
    parts[::2] = [re.sub(r"([\\*_<>\[\]#|])", r"\\\1", part) for part in parts[::2]]
    return "`".join(parts)
