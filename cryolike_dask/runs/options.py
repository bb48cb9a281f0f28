"""Options of a run: what is told to it besides inputs and settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cryolike_dask.compute.stream import OnError, check_on_error


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

    def __post_init__(self) -> None:
        """Refuse words that say nothing."""
        check_on_error(self.on_error)
