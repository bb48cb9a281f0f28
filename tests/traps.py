"""A pickle that betrays whoever unpickles it."""

from __future__ import annotations

from pathlib import Path


class Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")
