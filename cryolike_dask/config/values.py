"""Types of the values of a configuration; each says of a wrong value what it is not."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from reprlib import Repr
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BeforeValidator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic_core.core_schema import CoreSchema, no_info_before_validator_function

from cryolike_dask.errors import LARGEST, number
from cryolike_dask.geometry.noise import B_FACTORS, LEAST_DEGREES_OF_FREEDOM
from cryolike_dask.labels import NoiseWord
from cryolike_dask.structures.trajectories.choosing import are_numbers

MOST = 10**9
"""The largest count of anything: more is a slip of the keyboard."""
LONGEST_NAME, LONGEST_PATH = 255, 4095
"""Bytes that a file system takes."""
B_FACTOR_WORDS = ("auto", "fit", "none")
ADDRESS = r"(tcp|tls)://(\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]@]+):[0-9]{1,5}"

_SHORT = Repr()
_SHORT.maxstring = _SHORT.maxother = 80
_SHORT.maxlevel = 2


def shown(value: object) -> str:
    """Write a value as YAML does, in short."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, int) and abs(value) >= LARGEST:
        return f"a number of {value.bit_length()} bits"
    if isinstance(value, (Path, date)):
        return _SHORT.repr(str(value)) if isinstance(value, Path) else value.isoformat()
    try:
        return _SHORT.repr(value)
    except ValueError:  # a number inside of it that has too many digits
        return f"a {type(value).__name__}"


@dataclass(frozen=True)
class Number:
    """A number within bounds, which are also told by the JSON schema."""

    whole: bool = False
    above: float = -math.inf
    at_least: float = -math.inf
    at_most: float = MOST

    def __str__(self) -> str:
        kind = f"a {'whole ' if self.whole else ''}number"
        if self.above > -math.inf:
            return f"{kind} above {self.above:g}, at most {self.at_most:g}"
        bounds = (
            f", {self.at_least:g} or more"
            if self.at_most == MOST
            else f" from {self.at_least:g} to {self.at_most:g}"
        )
        return kind + bounds

    def check(self, value: Any) -> Any:
        """Give it as a plain number, or say which ones would do."""
        try:
            taken = number("", value, whole=self.whole, above=self.above, at_least=self.at_least)
        except ValueError:
            raise ValueError(f"is not {self}{_hint(value)}") from None
        if taken > self.at_most:
            raise ValueError(f"is not {self}")
        return taken

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return no_info_before_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(
        self, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        bounds = {"minimum": self.at_least, "exclusiveMinimum": self.above, "maximum": self.at_most}
        return handler(core) | {
            name: bound for name, bound in bounds.items() if math.isfinite(bound)
        }


def _hint(value: object) -> str:
    """How a number is written that YAML has taken for text."""
    if not isinstance(value, str):
        return ""
    try:
        meant = float(value)
    except ValueError:
        return "; it is text"
    if not math.isfinite(meant):
        return "; it is text"
    mantissa, exponent, power = f"{meant:.15g}".partition("e")
    point = ".0" if exponent and "." not in mantissa else ""
    return f"; it is text: write {mantissa}{point}{exponent}{power}, without quotes"


def _path(value: Any, info: ValidationInfo) -> Path:
    """A path from the folder that the configuration is in; `~` is the home folder."""
    if not isinstance(value, (str, Path)):
        raise ValueError("is not a path; write it in quotes")
    text = str(value)
    if not text.strip():
        raise ValueError("is not a path: it is empty")
    try:
        path = Path(text).expanduser() if text.startswith("~") else Path(text)
        longest = max(len(os.fsencode(part)) for part in path.parts or [""])
    except (RuntimeError, ValueError):
        raise ValueError(
            "cannot be a path: no file has such a name, or no one has such a home folder"
        ) from None
    if "\0" in text or longest > LONGEST_NAME or len(text) > LONGEST_PATH:
        raise ValueError("cannot be a path: no file has such a name")
    folder: Path = (info.context or {}).get("folder", Path())
    return (folder / path).absolute()


def _absolute(value: Any) -> Any:
    if isinstance(value, (str, Path)) and not Path(value).is_absolute():
        raise ValueError("is not an absolute path")
    return value


def _spectrum(value: Any, info: ValidationInfo) -> Any:
    return value if value in get_args(NoiseWord) else _path(value, info)


def _frame(value: Any, info: ValidationInfo) -> Any:
    return value if value == "file" else _path(value, info)


def _by(value: Any, info: ValidationInfo) -> Any:
    return value if value == "rmsd" else _path(value, info)


def _frames(value: Any, info: ValidationInfo) -> Any:
    """Frames of a trajectory: numbers and ranges as text, the file of these, or numbers."""
    if isinstance(value, str) and value != "all" and value.strip():
        return value if are_numbers(value) else _path(value, info)
    try:
        if value != "all" and not isinstance(value, Path):
            return _which(value)
    except ValueError:
        pass
    raise ValueError(
        'is neither numbers and ranges such as "0, 5, 10-20", nor a file of these, nor a list of '
        "different numbers from 0 on"
    )


def _b_factor(value: Any) -> Any:
    if value in B_FACTOR_WORDS:
        return value
    low, high = B_FACTORS
    try:
        return Number(at_least=low, at_most=high).check(value)
    except ValueError:
        words = ", ".join(B_FACTOR_WORDS)
        raise ValueError(f"is neither {words}, nor a number from {low:g} to {high:g}") from None


def _several(value: Any) -> tuple[Any, ...]:
    listed = [value] if isinstance(value, (str, Path)) else value
    if not isinstance(listed, (list, tuple)):
        raise ValueError("is neither a path nor a list of paths")
    if not listed:
        raise ValueError("names no file")
    return tuple(listed)


def _which(value: Any) -> Any:
    """Positions of structures, from 0, each once; or all."""
    if isinstance(value, str) and value == "all":
        return value
    several = isinstance(value, (list, tuple))
    try:
        numbers = [
            number("", position, whole=True, at_least=0)
            for position in (value if several else [value])
        ]
    except ValueError:
        numbers = []
    if not numbers or len(set(numbers)) < len(numbers) or max(numbers) > MOST:
        raise ValueError("is not all, or a position from 0 on, or a list of different positions")
    return tuple(numbers) if several else numbers[0]


def _atomic_b(value: Any) -> Any:
    return value if value in ("none", "file") else _B_FACTOR.check(value)


def _bulk_solvent(value: Any) -> Any:
    if isinstance(value, str) and value in ("none", "babinet"):
        return value
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        raise ValueError("is not none, babinet, or a list of a share and a B-factor: [0.85, 200]")
    return _SHARE.check(value[0]), _B_FACTOR.check(value[1])


def _address(value: Any) -> Any:
    if not isinstance(value, str) or not re.fullmatch(ADDRESS, value):
        raise ValueError("is not an address such as tcp://host:8786 or tls://host:8786")
    return value


def _text(value: Any) -> Any:
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise ValueError("is not a text of one line")
    return value


_FILES = {
    "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]
}
_WHICH = {
    "anyOf": [
        {"const": "all"},
        {"type": "integer", "minimum": 0},
        {
            "type": "array",
            "items": {"type": "integer", "minimum": 0},
            "minItems": 1,
            "uniqueItems": True,
        },
    ]
}
_B_FACTOR, _SHARE = Number(at_least=0, at_most=500), Number(at_least=0, at_most=0.999)
_ATOMIC_B = {
    "anyOf": [{"enum": ["none", "file"]}, {"type": "number", "minimum": 0, "maximum": 500}]
}
_BULK_SOLVENT = {
    "anyOf": [
        {"enum": ["none", "babinet"]},
        {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2},
    ]
}

Count = Annotated[int, Number(whole=True, at_least=1)]
Decoys = Annotated[int, Number(whole=True, at_least=0, at_most=100)]
Workers = Annotated[int, Number(whole=True, at_least=0, at_most=100_000)]
Threads = Annotated[int, Number(whole=True, at_least=1, at_most=4096)]
Pixels = Annotated[int, Number(whole=True, at_least=1, at_most=32_768)]
Angles = Annotated[
    int, Number(whole=True, at_least=2, at_most=65_536), Field(json_schema_extra={"multipleOf": 2})
]
Sets = Annotated[int, Number(whole=True, at_least=0, at_most=100_000)]
Seed = Annotated[int, Number(whole=True, at_least=0, at_most=2**63)]
Concentration = Annotated[float, Number(above=0, at_most=MOST)]
Order = Annotated[int, Number(whole=True, at_least=0, at_most=8)]
Angstrom = Annotated[float, Number(above=0, at_most=10_000)]
Displacement = Annotated[float, Number(at_least=0, at_most=32_768)]
Radius = Annotated[float, Number(above=0, at_most=32_768)]
PartOfNyquist = Annotated[float, Number(above=0, at_most=1)]
Radian = Annotated[float, Number(above=0, at_most=3.15)]
Degrees = Annotated[float, Number(above=0, at_most=180)]
Step = Annotated[float, Number(above=0, at_most=32_768)]
Freedom = Annotated[float, Number(above=LEAST_DEGREES_OF_FREEDOM, at_most=MOST)]
Spectrum = Annotated[
    Path | str, BeforeValidator(_spectrum), WithJsonSchema({"type": "string", "minLength": 1})
]
Frame = Annotated[
    Path | str, BeforeValidator(_frame), WithJsonSchema({"type": "string", "minLength": 1})
]
By = Annotated[Path | str, BeforeValidator(_by), WithJsonSchema({"type": "string", "minLength": 1})]
BFactor = Annotated[
    float | str,
    BeforeValidator(_b_factor),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": [*B_FACTOR_WORDS]},
                {"type": "number", "minimum": B_FACTORS[0], "maximum": B_FACTORS[1]},
            ]
        }
    ),
]
Part = Annotated[float, Number(at_least=0, at_most=0.999)]
File = Annotated[Path, BeforeValidator(_path)]
Folder = Annotated[Path, BeforeValidator(_path), BeforeValidator(_absolute)]
Files = Annotated[tuple[File, ...], BeforeValidator(_several), WithJsonSchema(_FILES)]
Which = Annotated[
    int | tuple[int, ...] | Literal["all"], BeforeValidator(_which), WithJsonSchema(_WHICH)
]
FrameNumbers = Annotated[
    int | tuple[int, ...] | Path | str,
    BeforeValidator(_frames),
    WithJsonSchema({"anyOf": [{"type": "string", "minLength": 1}, *_WHICH["anyOf"][1:]]}),
]
Address = Annotated[
    str, BeforeValidator(_address), Field(json_schema_extra={"pattern": f"^{ADDRESS}$"})
]
AtomicB = Annotated[
    float | Literal["none", "file"], BeforeValidator(_atomic_b), WithJsonSchema(_ATOMIC_B)
]
Solvent = Annotated[
    tuple[float, float] | Literal["none", "babinet"],
    BeforeValidator(_bulk_solvent),
    WithJsonSchema(_BULK_SOLVENT),
]
Text = Annotated[str, BeforeValidator(_text)]
