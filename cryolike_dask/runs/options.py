"""Options of a run: what is told to it besides inputs and settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from cryolike_dask.errors import InputError
from cryolike_dask.labels import OnError
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

    def recorded(self, device: str) -> dict[str, str]:
        """What records say of how results were made, on this device."""
        note = {"note": self.note} if self.note else {}
        return {"version": __version__, "device": device, **note}
