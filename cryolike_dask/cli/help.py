"""What `--help` shows: whole descriptions, in panels, in as many columns as there are."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

import typer

from cryolike_dask.cli.console import errors_for_people
from cryolike_dask.cli.exit_codes import EXIT_CODES
from cryolike_dask.cli.panels import COMMANDS, OPTIONS, OTHERS, example_of, group_of, typed_for
from cryolike_dask.cli.panels import panel_of as panel_of_option

ARGUMENTS = "Arguments"
CONTINUED = " \\\n      "
"""Between the lines of an example."""
IS_OFF = re.compile(r"\[default: no-[\w-]+\]")
"""Said of every switch that is off."""
NAMES_COLUMNS = 26
"""Of a list: longer names stand in a line of their own."""


class Command(typer.core.TyperCommand):
    """A command whose help has its options in panels, and an example."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        for parameter in self.params:
            is_argument = parameter.param_type_name == "argument"
            typed = typed_for(self.name or "", parameter.name or "", argument=is_argument)
            parameter.metavar = typed or parameter.metavar

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Options, then arguments by what is typed for them."""
        arguments = [p for p in self.get_params(ctx) if p.param_type_name == "argument"]
        return [
            "[OPTIONS]",
            *(str(p.metavar) if p.required else f"[{p.metavar}]" for p in arguments),
        ]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the options, panel by panel."""
        for panel, rows in panels_of(self, ctx):
            _list(formatter, panel, rows)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the example, in lines that a shell takes for one."""
        if example := example_of(self.name or ""):
            with formatter.section("Example"):
                formatter.write(f"  {continued(example, formatter.width)}\n")


class Commands(typer.core.TyperGroup):
    """Commands whose errors are for people, those of imports included, listed in the order of
    work."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.subcommand_metavar = "COMMAND [OPTIONS]"

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        with errors_for_people():
            return super().invoke(ctx)

    def list_commands(self, ctx: Any) -> list[str]:
        """The names of the commands, in the order of work."""
        order = [name for group in COMMANDS.values() for name in group]
        return sorted(self.commands, key=lambda n: order.index(n) if n in order else len(order))

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the commands, group by group, then the options."""
        names = self.list_commands(ctx)
        for group in dict.fromkeys(group_of(name) for name in names):
            rows = [(n, summary(self.commands[n])) for n in names if group_of(n) == group]
            _list(formatter, group, rows)
        for panel, rows in panels_of(self, ctx):
            _list(formatter, panel, rows)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write what exit codes mean, once for all commands."""
        if ctx.parent is None:
            rows = [(str(code), meaning) for code, meaning in EXIT_CODES.items()]
            _list(formatter, "Exit codes", rows)


def panels_of(command: Any, ctx: Any) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """The panels of a command: of each, arguments or options as help shows them."""
    found: dict[str, list[tuple[str, str, str]]] = {}
    for parameter in command.get_params(ctx):
        record = parameter.get_help_record(ctx)
        if record is not None:
            names, text = record
            panel = panel_of(command, parameter)
            names = parameter.metavar if panel == ARGUMENTS else names
            said = " ".join(IS_OFF.sub("", text).split())
            found.setdefault(panel, []).append((parameter.name, names, said))
    for panel in (ARGUMENTS, *OPTIONS, OTHERS):
        if panel in found:
            order = [name.rpartition(".")[-1] for name in OPTIONS.get(panel, ())]
            rows = sorted(found[panel], key=lambda r: order.index(r[0]) if r[0] in order else 0)
            yield panel, [(names, text) for _, names, text in rows]


def panel_of(command: Any, parameter: Any) -> str:
    """The panel that an argument or option stands in."""
    if parameter.param_type_name == "argument":
        return ARGUMENTS
    return panel_of_option(command.name or "", parameter.name or "")


def summary(command: Any) -> str:
    """The first paragraph of the help of a command, whole."""
    return " ".join((command.help or "").partition("\n\n")[0].split())


def _list(formatter: Any, heading: str, rows: Iterable[tuple[str, str]]) -> None:
    with formatter.section(heading):
        formatter.write_dl(list(rows), col_max=NAMES_COLUMNS)


def continued(command: str, width: int) -> str:
    """A command in lines that a shell takes for one, an option with its value in the same."""
    lines = [""]
    for part in re.split(r" (?=--)", command):
        if lines[-1] and len(lines[-1]) + len(part) + len(CONTINUED) > width:
            lines.append("")
        lines[-1] += f" {part}" if lines[-1] else part
    return CONTINUED.join(lines)
