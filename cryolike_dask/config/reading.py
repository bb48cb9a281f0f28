"""Reading a configuration: every problem that it has is told at once, by its key."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cryolike_dask.config.inputs import NEEDED, UNFIT, Section
from cryolike_dask.config.model import SECTIONS, RunConfig
from cryolike_dask.config.older_words import exactly, words_of_today
from cryolike_dask.config.text import mapping_of, read_text
from cryolike_dask.config.values import shown
from cryolike_dask.errors import InputError, InputFileError

logger = logging.getLogger("cryolike_dask")

LONGEST_KEY = 80
TAGS = ("file", "inline")
"""Names of the two sources of parameters, which stand among the keys in pydantic's errors."""


def read_config(config: str | Path | Mapping[str, Any]) -> RunConfig:
    """Read what describes a run, and validate all of it; no other file is looked at.

    Parameters
    ----------
    config : path or mapping
        A YAML file; or what such a file would say. Relative paths start in the folder of the file,
        or else in the current one.

    Returns
    -------
    RunConfig

    Raises
    ------
    InputError, InputFileError
        If the file is missing or is no YAML; if a key is unknown, missing, or has a value that
        cannot be used. All problems are told at once, each with its key, its value, and the values
        that would do.
    """
    if isinstance(config, Mapping):
        return validated(config, Path.cwd())
    if not isinstance(config, (str, Path)):
        raise InputError(
            f"a configuration is a {type(config).__name__}", remedy="Give the path of a YAML file."
        )
    source = Path(config)
    text = read_text(source)
    read = validated(mapping_of(text, source), source.absolute().parent, source)
    read._text, read._source = text, source.absolute()
    _tell_words_of_today(read, source)
    return read


def _tell_words_of_today(config: RunConfig, source: Path) -> None:
    """Log a line for each older word that the file has, with the word of today."""
    for name in ("parameters", "search"):
        section = getattr(config, name)
        if not isinstance(section, Section):
            continue
        given = {key: getattr(section, key) for key in section.model_fields_set}
        more = {"max_displacement_pixels": config.search.max_displacement_pixels}
        for older, word, value in words_of_today({**more, **given}):
            keys = " and ".join(f"{name}.{key}" for key in older)
            logger.info("%s: for %s say %s: %s", source, keys, word, exactly(value))


def config_schema() -> dict[str, Any]:
    """Describe what a configuration may say, as JSON Schema, for editors and other programs.

    Returns
    -------
    dict
    """
    schema = RunConfig.model_json_schema()
    for section in (schema, *schema["$defs"].values()):
        if "description" in section:  # from a docstring, whose lines are those of the code
            section["description"] = " ".join(section["description"].split())
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def validated(values: Mapping[Any, Any], folder: Path, source: Path | None = None) -> RunConfig:
    """Validate what a configuration says; relative paths start in `folder`, unless it names one
    itself."""
    content = {_key(name): _keys(section) for name, section in values.items()}
    own_folder = content.get("folder")
    if isinstance(own_folder, (str, Path)) and Path(own_folder).is_absolute():
        folder = Path(own_folder)
    try:
        return RunConfig.model_validate(content, context={"folder": folder})
    except ValidationError as error:
        problems = [_in_our_words(problem) for problem in error.errors(include_url=False)]
    what = "\n  ".join([f"{len(problems)} problems:", *problems] if len(problems) > 1 else problems)
    raise InputError(what) if source is None else InputFileError(what, source=source)


def _keys(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    return {_key(name): _keys(inner) for name, inner in value.items()}


def _key(key: Any) -> str:
    """A key as text that can be shown; one that is no text is unknown in any case."""
    return (
        key if isinstance(key, str) and key.isprintable() and len(key) < LONGEST_KEY else shown(key)
    )


def _in_our_words(problem: Any) -> str:
    """One problem that pydantic found, in our words."""
    *path, last = _dotted(problem["loc"])
    key, kind = ".".join([*path, last]), problem["type"]
    if kind == NEEDED:
        return ": ".join([*path, problem["msg"]])
    if kind == UNFIT:
        return f"{key}.{problem['msg']}"
    if kind == "missing":
        return f"{key} is missing: {SECTIONS['.'.join(path)].model_fields[last].description}"
    if kind == "extra_forbidden":
        return f"{key} is not known; {_nearest('.'.join(path), last)}"
    return f"{key}={shown(problem['input'])} {_wrong(problem, key)}"


def _dotted(location: tuple[Any, ...]) -> list[str]:
    """The parts of a key; positions in a list stand with their list."""
    parts: list[str] = []
    for part in location:
        if isinstance(part, int) and parts:
            parts[-1] += f"[{part}]"
        else:
            parts.append(str(part))
    return [
        part
        for i, part in enumerate(parts)
        if not (i == 1 and parts[0] == "parameters" and part in TAGS)
    ]


def _wrong(problem: Any, key: str) -> str:
    kind = problem["type"]
    if kind == "value_error":
        return str(problem["ctx"]["error"])
    if kind == "literal_error":
        words = re.findall(r"'([^']*)'", problem["ctx"]["expected"])
        return f"is not one of {', '.join(words)}"
    if kind == "bool_type":
        return "is neither true nor false"
    if key in SECTIONS:
        path = "no path and " if key == "parameters" else ""
        return f"is {path}no section; its keys are {', '.join(SECTIONS[key].model_fields)}"
    return f"cannot be used: {problem['msg']}"


def _nearest(section: str, key: str) -> str:
    """The key that may have been meant: one of this section, or the same of another."""
    own = SECTIONS[section].model_fields
    elsewhere = [
        name for name, model in SECTIONS.items() if name != section and key in model.model_fields
    ]
    near = get_close_matches(key.replace("-", "_").lower(), own, n=1)
    if near or elsewhere:
        meant = f"{section}.{near[0]}" if near else f"{elsewhere[0]}.{key}"
        return f"did you mean {meant.removeprefix('.')}?"
    of_today = [name for name, key_field in own.items() if not key_field.json_schema_extra]
    return f"known are {', '.join(of_today)}"
