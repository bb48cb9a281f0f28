"""The run.yaml that a run has left beside its results."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import xarray as xr
import yaml

from cryolike_dask.errors import InputFileError
from cryolike_dask.io.atomic import read_own
from cryolike_dask.io.layout import CONFIGURATION

MOST_BYTES = 2**20
COPIED = re.compile(r"# Copied from ('[^\n]*'|\"[^\n]*\"), ")


@dataclass(frozen=True)
class RunFile:
    """What describes a run.

    Attributes
    ----------
    path : str
        Of the file that was run; of its copy beside the results, where that is not there.
    text : str
    values : Mapping
        What it says, by sections; empty if it cannot be read.
    """

    path: str
    text: str
    values: Mapping[str, Any] = field(default_factory=dict)

    def value(self, section: str, key: str) -> Any:
        """A value that it gives; None if it does not."""
        its = self.values.get(section)
        return its.get(key) if isinstance(its, dict) else None


def run_file(results: xr.Dataset) -> RunFile | None:
    """Read the copy of the run.yaml that results came from; None if there is none."""
    folder = results.attrs.get("folder")
    if not folder:
        return None
    copy = Path(folder) / CONFIGURATION
    try:
        content = read_own(copy, MOST_BYTES)
    except InputFileError:
        return None
    if content is None:
        return None
    text = content.decode("utf-8", "replace")
    try:
        values = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        values = {}
    source = COPIED.match(text)
    original = Path(ast.literal_eval(source[1])) if source else copy
    path = original if original.is_file() else copy
    return RunFile(str(path), text, values if isinstance(values, dict) else {})
