"""What differs between the settings of two runs, by their records and their run.yaml."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import xarray as xr
import yaml

from cryolike_dask.analysis.run_file import run_file

UNKNOWN, DEFAULT = "not recorded", "as by default"
CHECKSUM, SHOWN_OF_CHECKSUM = re.compile("[0-9a-f]{64}"), 12
LEFT_OUT = {
    "folder",
    "folder_templates",
    "folder_particles",
    "displacements_x_angstrom",
    "displacements_y_angstrom",
    "output",
}
"""Where files are, and lists whose lengths and largest values are told."""


def different_settings(first: xr.Dataset, second: xr.Dataset) -> list[tuple[str, str, str]]:
    """Name and both values, as text, of each setting that differs; by what records say, then by
    keys of the run.yaml."""
    of_records = [dict(_recorded(results)) for results in (first, second)]
    files = [run_file(results) for results in (first, second)]
    of_files = [
        {f"run.yaml: {key}": value for key, value in _flat(described.values)}
        for described in files
        if described is not None
    ]
    pairs = [(UNKNOWN, of_records)]
    if len(of_files) == 2:
        pairs.append((DEFAULT, of_files))
    found = []
    for otherwise, (ours, theirs) in pairs:
        for name in dict.fromkeys([*ours, *theirs]):
            a, b = (values.get(name, otherwise) for values in (ours, theirs))
            if a != b:
                found.append((name, a, b))
    return found


def _recorded(results: xr.Dataset) -> Iterator[tuple[str, str]]:
    for name, value in results.attrs.items():
        if name not in LEFT_OUT and np.isscalar(value) and value != "":
            is_checksum = isinstance(value, str) and CHECKSUM.fullmatch(value)
            yield str(name).replace("_", " ") + " (checksum)" * bool(is_checksum), _text(value)


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        name = f"{before}{key}"
        if name in LEFT_OUT:
            continue
        if isinstance(value, dict):
            yield from _flat(value, f"{name}.")
        else:
            yield name, _text(value)


def _text(value: Any) -> str:
    if isinstance(value, (bool, np.bool_)) or value is None:
        return "not given" if value is None else str(bool(value)).lower()
    if isinstance(value, (int, float, np.number)):
        return f"{float(value):.6g}"
    if isinstance(value, str):
        return value[:SHOWN_OF_CHECKSUM] if CHECKSUM.fullmatch(value) else value
    text: str = yaml.safe_dump(value, default_flow_style=True, width=10**4)
    return text.strip()
