"""The console, and all that is printed beside the output of a command: steps, the log line by line
and its warnings once more at the end, and errors in one piece."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from traceback import walk_tb

import typer
from rich.console import Console
from rich.markup import escape

from cryolike_dask.cli.exit_codes import STOPPED, exit_code
from cryolike_dask.cli.words import Words
from cryolike_dask.compute.run_log import Remembering
from cryolike_dask.errors import CryolikeError, InputFileError

OURS = "cryolike_dask"
RESUME = "What was written is complete; the same command, without --recompute, goes on."

out, err = Console(soft_wrap=True, emoji=False), Console(stderr=True, soft_wrap=True, emoji=False)


class ConsoleLog(Remembering):
    """Prints what is logged in the words of the command, each thing once, and keeps warnings of
    this package.

    Parameters
    ----------
    console : Console
    words : Words
        Those of the command that runs.
    """

    def __init__(self, console: Console, words: Words) -> None:
        super().__init__()
        self.console, self.words = console, words
        self.printed, self.warnings = set[str](), list[str]()

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record; what is no mere note starts with its level."""
        super().emit(record)
        text = self.worded(self.format(record))
        if text in self.printed:
            return
        self.printed.add(text)
        if record.levelno == logging.WARNING and record.name.split(".")[0] == OURS:
            self.warnings.append(text)
        level = record.levelname.lower() if record.levelno >= logging.WARNING else ""
        style = "bold yellow" if record.levelno == logging.WARNING else "bold red"
        self._print(f"[{style}]{level}:[/] {escape(text)}" if level else escape(text))

    def worded(self, text: str) -> str:
        """A message in the words of the command."""
        return self.words.say(text)

    def repeat_warnings(self) -> None:
        """Print the warnings once more, counted: a long run has moved them out of sight."""
        if n := len(self.warnings):
            self._print(f"[bold yellow]{n} warning{'s' if n > 1 else ''}:[/]")
        for text in self.warnings:
            self._print("  " + escape(text).replace("\n", "\n  "))

    def _print(self, text: str) -> None:
        # above a bar, which stands in for sys.stderr
        file = sys.stderr if self.console.stderr else self.console.file
        with suppress(OSError, SystemExit):  # nobody reads it any more: no reason to end a run
            with self.console.capture() as captured:
                self.console.print(text)
            file.write(captured.get())
            file.flush()


def words_of_command() -> Words:
    """The words of the command that runs in this process."""
    return next(
        (
            handler.words
            for handler in logging.getLogger().handlers
            if isinstance(handler, ConsoleLog)
        ),
        Words(),
    )


def say(text: str) -> None:
    """Say what happens now, for whoever waits."""
    err.print(text, style="dim", highlight=False)


@contextmanager
def errors_for_people(when_stopped: str = "") -> Iterator[None]:
    """Print what went wrong in one piece instead of a traceback."""
    try:
        yield
    except (CryolikeError, OSError) as error:
        text = words_of_command().say(str(error), arguments=not isinstance(error, InputFileError))
        err.print(f"[bold red]error:[/] {escape(text)}")
        raise typer.Exit(exit_code(error)) from error
    except KeyboardInterrupt:
        err.print(f"Stopped. {when_stopped}")
        raise typer.Exit(STOPPED) from None
    except Exception as error:
        if not _comes_from_importing_dask(error):
            raise
        err.print(
            f"[bold red]error:[/] Dask cannot be imported "
            f"({escape(f'{type(error).__name__}: {error}')}). Check its "
            "settings, in environment variables that begin with DASK_ and in ~/.config/dask.",
        )
        raise typer.Exit(1) from error


def _comes_from_importing_dask(error: Exception) -> bool:
    """Whether Dask's settings, which it reads when it is imported, are the reason."""
    modules = (frame.f_globals.get("__name__", "") for frame, _ in walk_tb(error.__traceback__))
    return "distributed" not in sys.modules and any(
        module.split(".")[0] in ("dask", "distributed") for module in modules
    )
