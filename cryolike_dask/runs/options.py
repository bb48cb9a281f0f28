"""Options of a run: what is told to it besides inputs and settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from cryolike_dask.conventions import Conventions
from cryolike_dask.errors import InputError, number
from cryolike_dask.geometry.noise import NoiseModel
from cryolike_dask.labels import BFactorWord, NoiseWord, OnError
from cryolike_dask.version import __version__


@dataclass(frozen=True)
class RunOptions:
    """Options of how a run goes about its work; no number of its results depends on them.

    Attributes are the parameters of `run_likelihood_optimal_pose` of the same names.
    """

    skip_exist: bool = False
    overwrite: bool = False
    on_error: OnError = "stop"
    progress: bool = True
    log_file: str | Path | None = None
    performance_report: str | Path | None = None
    note: str | None = None

    def __post_init__(self) -> None:
        """Refuse words that say nothing."""
        if self.on_error not in get_args(OnError):
            raise InputError(
                f"on_error={self.on_error!r} is not known", remedy="Use stop or quarantine."
            )
        if not isinstance(self.note, str | None):
            raise InputError(f"note={self.note!r} is not text")

    @property
    def starts_anew(self) -> bool:
        """Whether all results that a run covers are computed again, whatever lies there."""
        return self.overwrite and not self.skip_exist

    def recorded(self, device: str) -> dict[str, str]:
        """What records say of how results were made, on this device."""
        note = {"note": self.note} if self.note else {}
        return {"version": __version__, "device": device, **note}


@dataclass(frozen=True, eq=False)
class NoiseRequest:
    """What is asked of the noise of the images, before it is known what their folder holds.

    Attributes
    ----------
    spectrum : "estimate" | "white" | path | NoiseModel | None
        None: estimated in a new output folder, as recorded in one that holds results.
    b_factor : "auto" | "fit" | "none" | float | None
        Angstrom^2. "auto": fitted in a new output folder, where noise is estimated; None: none
        there; either: as recorded in one that holds results.
    degrees_of_freedom : float or None
        None: as recorded, or else as the noise model says.

    Raises
    ------
    InputError
        If a value is none of these.
    """

    spectrum: NoiseWord | str | Path | NoiseModel | None = None
    b_factor: BFactorWord | float | None = None
    degrees_of_freedom: float | None = None

    def __post_init__(self) -> None:
        """Refuse words that say nothing; how large numbers are is looked at by `Settings`."""
        if not isinstance(self.spectrum, (str, Path, NoiseModel, type(None))) or not (
            isinstance(self.spectrum, NoiseModel) or str(self.spectrum).strip()
        ):
            raise InputError(
                f"noise={self.spectrum!r} is no noise model",
                remedy="Give estimate, white, a path, or a NoiseModel.",
            )
        if isinstance(self.b_factor, str):
            if self.b_factor not in get_args(BFactorWord):
                raise InputError(
                    f"b_factor={self.b_factor!r} is not known",
                    remedy="Give auto, fit, none, or a number (angstrom^2).",
                )
        elif self.b_factor is not None:
            object.__setattr__(self, "b_factor", number("b_factor", self.b_factor))
        if self.degrees_of_freedom is not None:
            n_free = number("degrees_of_freedom", self.degrees_of_freedom)
            object.__setattr__(self, "degrees_of_freedom", n_free)

    def check(self, rules: Conventions) -> None:
        """Refuse what conventions do not know."""
        asked = {
            "noise": self.spectrum not in (None, "white"),
            "b_factor": self.b_factor == "fit",
        }
        for name, is_asked in asked.items():
            if is_asked and not rules.knows_noise:
                raise InputError(
                    f'{name} is given, but conventions="{rules.name}" knows none',
                    remedy="Leave it out.",
                )
        if self.b_factor == "fit" and self.spectrum not in (None, "estimate"):
            raise InputError(
                'b_factor="fit" goes with noise="estimate" alone',
                remedy="Give a number, or none.",
            )
