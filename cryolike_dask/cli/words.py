"""The words of a command: messages of the package name arguments of Python, and a command says the
same by its options, or by keys of a file.

In a message `recenter=True (--recenter)` and `folder=, --folder` name an option of some command,
whichever runs; `n_stacks=0` and `performance_report` are options if the command that runs has such.
"""

from __future__ import annotations

import re
import shlex
from ast import literal_eval
from collections.abc import Mapping
from dataclasses import dataclass, field
from re import Match
from typing import Any

VALUE = r"""(?:'[^']*'|"[^"]*"|\[[^\]]*\]|[^\s,;:()]*[^\s,;:().])"""
NAME_AND_OPTION = re.compile(
    rf"(?<![\w.])(?:(\w+)=({VALUE})?|(\w+_\w+))(?:(?<==), (--[\w-]+)| \((--[\w-]+)\))"
)
ARGUMENT = re.compile(rf"(?<![\w.\-/])(?:(\w+)=({VALUE})?|(\w+_\w+)(?!\w|=|/|\.\w))")
KEEPING = {
    re.compile(r" with skip_exist=True(?: \(--skip-exist\))?"): "",
    re.compile(r"\b(?:pass|set) skip_exist=True(?: \(--skip-exist\))?"): "leave --recompute out",
    re.compile(r"skip_exist=True(?: \(--skip-exist\))?"): "leaving --recompute out",
    re.compile(r"skip_exist=False"): "--recompute",
}
"""Commands go on unless they are told otherwise, functions only if they are told to."""

INPUTS = ("parameters", "templates", "particles", "optimal-pose")
"""Commands that are meant first where several have an option."""


@dataclass(frozen=True)
class Words:
    """How a command calls things.

    Attributes
    ----------
    own : dict
        By the name of a parameter in Python: the options of the command, for a value and for False.
    others : dict
        By option: the command that has it.
    from_file : bool
        The rest of what the command is told stands in a configuration.
    """

    own: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    others: Mapping[str, str] = field(default_factory=dict)
    from_file: bool = False

    @classmethod
    def of(cls, name: str | None, commands: Mapping[str, Any]) -> Words:
        """The words of one of the commands."""
        options = {command: _options(commands[command]) for command in commands}
        meant_first = sorted(options, key=lambda command: command not in INPUTS)
        others = {
            option: command
            for command in reversed(meant_first)
            for spellings in options[command].values()
            for option in spellings
        }
        return cls(options.get(name or "", {}), others, name in ("run", "config"))

    def say(self, text: str, *, arguments: bool = True) -> str:
        """Put a message into the words of the command; without `arguments`, names alone are
        entries of some file."""
        for of_functions, of_commands in KEEPING.items():
            text = of_functions.sub(of_commands, text)
        text = NAME_AND_OPTION.sub(self._name_and_option, text)
        if arguments and self.own:
            text = ARGUMENT.sub(self._argument, text)
        return text

    def _name_and_option(self, match: Match[str]) -> str:
        name_with_value, value, name_alone, option_after, option_in_brackets = match.groups()
        name, option = name_with_value or name_alone, option_after or option_in_brackets
        if any(option in spellings for spellings in self.own.values()):
            return _with(option, value)
        if self.from_file and (key := _key(name)):
            return key if value is None else f"{key}: {_in_yaml(value)}"
        return (
            f"`{self.others[option]} {_with(option, value)}`" if option in self.others else match[0]
        )

    def _argument(self, match: Match[str]) -> str:
        name_with_value, value, name_alone = match.groups()
        name = name_with_value or name_alone
        if name not in self.own:
            return match[0]
        on, off = self.own[name]
        return off if value == "False" and off else _with(on, value)


def _options(command: Any) -> dict[str, tuple[str, str]]:
    """The options of a command by the names of its parameters."""
    named = [p for p in command.params if p.opts[0].startswith("--")]
    return {p.name: (p.opts[0], p.secondary_opts[0] if p.secondary_opts else "") for p in named}


def _with(option: str, value: str | None) -> str:
    """An option with its value, as one types it."""
    if value in (None, "True", "False"):
        return option
    try:
        meant = literal_eval(str(value))
    except (SyntaxError, ValueError):
        return f"{option} {value}"
    values = meant if isinstance(meant, list) else [meant]
    return " ".join(f"{option} {shlex.quote(str(typed))}" for typed in values) or option


def _key(name: str | None) -> str:
    """The key under which a configuration says this, with its section, the first of a section of
    this name; "" if none does."""
    from cryolike_dask.config.model import SECTIONS

    if name in SECTIONS:
        return f"{name}.{next(iter(SECTIONS[name].model_fields))}"
    return next(
        (
            f"{part}.{name}"
            for part, model in SECTIONS.items()
            if part and name in model.model_fields
        ),
        "",
    )


def _in_yaml(value: str) -> str:
    return value.lower() if value in ("True", "False") else value.strip("'\"")
