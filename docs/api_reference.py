"""The page of all public names, made from their docstrings."""

import importlib
import inspect
import re
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import cryolike_dask
from cryolike_dask import errors

RETURNED = {
    "io.layout": ["LikelihoodFiles"],
    "geometry.displacements": ["DisplacementSearch"],
    "runs.verification": ["Verification"],
    "analysis.export.files": ["Export"],
}
"""Classes that public functions give back, by home."""


def api_reference() -> str:
    """The public names, grouped by the modules that they come from, as MyST."""
    parts = []
    for home, names in sorted(public_names().items()):
        parts.append(f"## {home}\n\n{introduction(home)}\n")
        parts += [
            directive(getattr(cryolike_dask, name), f"cryolike_dask.{name}") for name in names
        ]
    parts.append("## What functions give back\n")
    for home, names in RETURNED.items():
        module = importlib.import_module(f"cryolike_dask.{home}")
        parts += [
            directive(getattr(module, name), f"cryolike_dask.{home}.{name}") for name in names
        ]
    parts.append(f"## errors\n\n{introduction('errors')}\n")
    parts += [directive(error, f"cryolike_dask.errors.{error.__name__}") for error in all_errors()]
    return "\n".join(parts)


def public_names() -> dict[str, list[str]]:
    """The public functions and classes, by the modules that they come from."""
    names = defaultdict(list)
    for name in cryolike_dask.__all__:
        value = getattr(cryolike_dask, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            names[value.__module__.removeprefix("cryolike_dask.")].append(name)
    return names


def introduction(home: str) -> str:
    """The first paragraph of a module's docstring."""
    documented = inspect.getdoc(importlib.import_module(f"cryolike_dask.{home}")) or ""
    return documented.partition("\n\n")[0]


def directive(value: Any, name: str) -> str:
    """What makes autodoc document a name."""
    if not inspect.isclass(value):
        kind, options = "function", ""
    elif issubclass(value, Exception):
        kind, options = "class", "   :show-inheritance:\n"
    else:
        kind, options = "class", "   :members:\n"
    return f"```{{eval-rst}}\n.. auto{kind}:: {name}\n{options}```\n"


def all_errors() -> Iterator[type]:
    """The exceptions that users meet."""
    for value in vars(errors).values():
        if inspect.isclass(value) and issubclass(value, errors.CryolikeError):
            yield value


def readable_docstring(
    app: object, what: str, name: str, value: object, options: object, lines: list[str]
) -> None:
    """Say in reStructuredText what docstrings say in plain text: formulas, code, and remarks on
    parameters."""
    lines[:] = [linked(line) for line in literal_formulas(remarks_first(lines))]


def remarks_first(lines: list[str]) -> list[str]:
    """Put sentences among the parameters, such as "The other parameters are those of `f`.",
    before their list."""
    if "Parameters" not in lines:
        return lines
    start = lines.index("Parameters")
    following = [i for i, line in enumerate(lines) if line and set(line) == {"-"} and i > start + 1]
    end = following[0] - 1 if following else len(lines)
    remarks = [line for line in lines[start:end] if line.endswith(".") and not line.startswith(" ")]
    kept = [line for line in lines[start:end] if line not in remarks]
    spaced = [line for remark in remarks for line in (remark, "")]
    return [*lines[:start], *spaced, *kept, *lines[end:]]


def literal_formulas(lines: list[str]) -> list[str]:
    """Mark indented paragraphs of running text as literal: no section of fields has a blank line
    before them."""
    literal: list[str] = []
    for line in lines:
        before = next((text for text in reversed(literal) if text), "")
        if line.startswith("    ") and literal and not literal[-1] and not before.startswith(" "):
            literal += ["::", ""]
        literal.append(line)
    return literal


def linked(line: str) -> str:
    """Make public names in backticks links, and everything else in backticks, and options of
    commands, code."""

    def written(match: re.Match[str]) -> str:
        name = match[1]
        return (
            f":py:obj:`~cryolike_dask.{name}`" if name in cryolike_dask.__all__ else f"``{name}``"
        )

    quoted = re.sub(r"(?<![\w`-])(--\w[\w-]*)(?!`)", r"`\1`", line)
    return re.sub(r"(?<![`:])`([^`]+)`(?!`)", written, quoted)
