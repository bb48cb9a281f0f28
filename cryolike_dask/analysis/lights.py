"""Lights: whether one of the things that numbers rest on is as it should be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Colour = Literal["good", "unsure", "bad"]


@dataclass(frozen=True)
class Light:
    """An answer, and the sentences that it rests on."""

    colour: Colour
    text: str
