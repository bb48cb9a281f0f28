"""Lights: whether one of the things that numbers rest on is as it should be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Colour = Literal["good", "unsure", "bad"]
WORST_FIRST: tuple[Colour, ...] = ("bad", "unsure", "good")


@dataclass(frozen=True)
class Light:
    """An answer, and the sentences that it rests on."""

    colour: Colour
    text: str


@dataclass(frozen=True)
class Lights:
    """Several lights that are looked at as one: it has the colour of the worst.

    Attributes
    ----------
    parts : Mapping of str to Light
        By what they are about.
    """

    parts: Mapping[str, Light]

    @property
    def colour(self) -> Colour:
        """That of the worst."""
        colours = {light.colour for light in self.parts.values()}
        return next((colour for colour in WORST_FIRST if colour in colours), "unsure")
