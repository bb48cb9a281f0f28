"""What is told beside the output of a command: the log, line by line, and its warnings once more
at the end."""

from __future__ import annotations

import logging
import sys
from contextlib import suppress

from rich.console import Console
from rich.markup import escape

from cryolike_dask.cli.words import Words

OURS = "cryolike_dask"


class Told(logging.Handler):
    """Prints what is logged in the words of the command, each thing once, and keeps warnings of
    this package.

    Parameters
    ----------
    console : Console
    words : Words
        Of the command that runs.
    """

    def __init__(self, console: Console, words: Words) -> None:
        super().__init__()
        self.console, self.words = console, words
        self.said, self.warnings = set[str](), list[str]()

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record; what is no mere note starts with its level."""
        text = self.words.say(self.format(record))
        if text in self.said:
            return
        self.said.add(text)
        if record.levelno == logging.WARNING and record.name.split(".")[0] == OURS:
            self.warnings.append(text)
        level = record.levelname.lower() if record.levelno >= logging.WARNING else ""
        style = "bold yellow" if record.levelno == logging.WARNING else "bold red"
        self._print(f"[{style}]{level}:[/] {escape(text)}" if level else escape(text))

    def warn_again(self) -> None:
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
        (handler.words for handler in logging.getLogger().handlers if isinstance(handler, Told)),
        Words(),
    )
