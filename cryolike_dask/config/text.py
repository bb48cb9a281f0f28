"""The text of a configuration: YAML without duplicate keys, of a sensible size, and nothing but
data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from cryolike_dask.errors import InputFileError
from cryolike_dask.io.identity import reading

MOST_BYTES = 2**20
"""Thousands of structure files can be listed in it."""
LONGEST_VALUE = 10_000
"""Characters. Names of files have 4096 at most; longer numbers take time with the square of it."""
MOST_VALUES = 50_000
INIT = "`cryolike-dask config init` writes an example."


class Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Reads plain data; refuses keys that are there twice, and references to lists and mappings,
    which can explode."""

    n_values = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Take a reference if it is one to a single value, and not too many values."""
        self.n_values += 1
        if self.n_values > MOST_VALUES:
            what = f"there are more than {MOST_VALUES} values"
            raise yaml.composer.ComposerError(None, None, what, self.peek_event().start_mark)
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            if not isinstance(self.anchors.get(event.anchor), yaml.ScalarNode):
                what = f"*{event.anchor} does not refer to a single value"
                raise yaml.composer.ComposerError(None, None, what, event.start_mark)
        return super().compose_node(parent, index)

    def construct_scalar(self, node: Any) -> Any:
        """Take a value of a sensible length."""
        value = super().construct_scalar(node)
        if len(value) > LONGEST_VALUE:
            what = f"a value of {len(value)} characters is too long"
            raise yaml.constructor.ConstructorError(None, None, what, node.start_mark)
        return value

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        """Take keys once."""
        seen: dict[Any, Any] = {}
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode):
                first = seen.setdefault((key.tag, key.value), key)
                if first is not key:
                    what = f"{key.value} is there twice, first in line {first.start_mark.line + 1}"
                    raise yaml.constructor.ConstructorError(None, None, what, key.start_mark)
        return super().construct_mapping(node, deep)


def read_text(source: Path) -> str:
    """Read a text file.

    Raises
    ------
    InputFileError
        If it is not there, cannot be read, or is no UTF-8.
    """
    with reading(source, f"Give a YAML file; {INIT}") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise InputFileError(
            f"has more than {MOST_BYTES} bytes: it is no configuration", source=source
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise InputFileError(
            f"line {line} is not UTF-8 text", source=source, remedy="Save it as UTF-8."
        ) from error


def mapping_of(text: str, source: Path) -> dict[Any, Any]:
    """The keys and values of a text in YAML.

    Raises
    ------
    InputFileError
        If it is no YAML, or not a mapping of keys to values.
    """
    try:
        loader = Loader(text)
        try:
            content = loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise InputFileError(
            f"cannot be read as YAML: {_in_one_line(error)}", source=source
        ) from error
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        deep = isinstance(error, RecursionError)
        what = (
            "it is nested too deeply"
            if deep
            else "a number has too many digits, or a value is not what its tag says"
        )
        raise InputFileError(f"cannot be read as YAML: {what}", source=source) from error
    if content is None:
        raise InputFileError("is empty", source=source, remedy=INIT)
    if not isinstance(content, dict):
        kind = "a list" if isinstance(content, list) else "a single value"
        raise InputFileError(f"is {kind}, not keys with values", source=source, remedy=INIT)
    return content


def _in_one_line(error: Any) -> str:
    """An error of YAML in one line: where, and what."""
    if isinstance(error, yaml.reader.ReaderError):
        return f"the character U+{error.character:04X} has no place in it"
    mark = error.problem_mark or error.context_mark
    problem = (
        "a tab where only spaces may stand" if "'\\t'" in str(error.problem) else error.problem
    )
    what = " ".join(part for part in (problem, error.context and f"({error.context})") if part)
    return f"line {mark.line + 1}, column {mark.column + 1}: {what}" if mark is not None else what
