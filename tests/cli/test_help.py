"""What `--help` shows: all of every text, options in panels, examples that are commands."""

from __future__ import annotations

import re
import shlex
from collections import Counter

import pytest
import typer
from typer.testing import CliRunner

from cryolike_dask.cli import app
from cryolike_dask.cli.exit_codes import EXIT_CODES, KINDS, exit_code
from cryolike_dask.cli.help import panels_of, summary
from cryolike_dask.cli.panels import ARGUMENTS, COMMANDS, OPTIONS, example_of
from cryolike_dask.errors import CannotFitError, ClusterError, FailedPiecesError, GridMismatchError

APP = typer.main.get_command(app)
COLUMNS = 80


def all_of(command, words=()):
    """Every command, those of groups and groups too, by the words that call it."""
    yield words, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from all_of(inner, (*words, name))


EVERY = dict(all_of(APP))
ALONE = {words: command for words, command in EVERY.items() if not hasattr(command, "commands")}


def shown(words):
    """The help of a command in a terminal of 80 columns."""
    done = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": str(COLUMNS)})
    assert done.exit_code == 0
    return done.stdout


@pytest.mark.parametrize("words", EVERY, ids=" ".join)
def test_help_is_whole_at_80_columns(words):
    text = shown(words)
    assert "..." not in text
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= COLUMNS
    said = " ".join(text.split())
    command = EVERY[words]
    for inner in getattr(command, "commands", {}).values():
        assert summary(inner) in said
    for parameter in command.params:
        if not getattr(parameter, "hidden", False):
            assert " ".join((parameter.help or "").split()) in said, parameter.name


@pytest.mark.parametrize("words", ALONE, ids=" ".join)
def test_every_option_is_in_exactly_one_panel(words):
    command = ALONE[words]
    panels = list(panels_of(command, typer.Context(command)))
    assert {panel for panel, _ in panels} <= {"Arguments", *OPTIONS}, "panels does not know one"
    found = Counter(names for _, rows in panels for names, _ in rows)
    hidden = [p for p in command.params if getattr(p, "hidden", False)]
    assert set(found.values()) == {1}
    assert found.total() == len(command.params) - len(hidden) + 1  # --help


def test_an_option_stands_in_the_table_of_panels_once_and_is_one():
    listed = Counter(name for options in OPTIONS.values() for name in options)
    assert set(listed.values()) == {1}
    there = {f"{words[-1]}.{p.name}" for words, command in ALONE.items() for p in command.params}
    there |= {name.partition(".")[2] for name in there} | {p.name for p in APP.params}
    assert set(listed) | set(ARGUMENTS) <= there | {"help"}


@pytest.mark.parametrize("words", EVERY, ids=" ".join)
def test_what_is_typed_is_said_in_words_that_people_know(words):
    foreign = r"(?i)<(int|float|path|str|text|list\[\w+\])>|\b(INTEGER|FLOAT|PATH)\b"
    assert re.findall(foreign, shown(words)) == []


def test_every_command_is_in_a_group():
    listed = [name for group in COMMANDS.values() for name in group]
    assert sorted(listed) == sorted(words[-1] for words in EVERY if words)
    names = APP.list_commands(None)
    assert names == [name for name in listed if name in APP.commands]
    assert names.index("parameters") < names.index("optimal-pose") < names.index("report")


@pytest.mark.parametrize("words", [words for words in EVERY if words], ids=" ".join)
def test_examples_are_commands(words):
    program, *typed = shlex.split(example_of(words[-1]))
    assert program == "cryolike-dask"
    assert tuple(typed[: len(words)]) == words
    if words in ALONE:
        EVERY[words].make_context(words[-1], typed[len(words) :])
        assert example_of(words[-1]) in shown(words).replace(" \\\n      ", " ")


def test_exit_codes_tell_kinds_of_errors():
    assert {code for _, code in KINDS} < set(EXIT_CODES)
    assert exit_code(GridMismatchError("x")) == 3
    assert exit_code(CannotFitError("x")) == 5
    assert exit_code(FailedPiecesError("x")) == 6
    assert exit_code(ClusterError("x")) == 7
    assert exit_code(OSError(28, "No space left on device")) == 4
    assert exit_code(ArithmeticError("x")) == 1
    said = " ".join(shown(()).split())
    assert all(f"{code} {meaning}" in said for code, meaning in EXIT_CODES.items())
