"""Where blocks are computed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypedDict


class Certificates(TypedDict):
    """PEM files for a scheduler at tls://, all three or none."""

    tls_ca_file: Path | None
    tls_cert: Path | None
    tls_key: Path | None


@dataclass(frozen=True, kw_only=True)
class Place:
    """Workers that start on this machine, or those of a scheduler that runs already, or this
    process alone.

    Attributes
    ----------
    workers : int or None
        Processes that start on this machine. None: one per GPU, or per core, or none for a run of
        seconds; 0: none.
    scheduler : str or None
        Address of a scheduler that runs already.
    scheduler_file : Path or None
        File that such a scheduler wrote, instead of its address.
    tls_ca_file, tls_cert, tls_key : Path or None
        Certificates for such a scheduler.
    """

    workers: int | None = None
    scheduler: str | None = None
    scheduler_file: Path | None = None
    tls_ca_file: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None

    @property
    def running_scheduler(self) -> str | Path | None:
        """Address or file of a scheduler that runs already."""
        return self.scheduler_file if self.scheduler is None else self.scheduler

    @property
    def asks_for_a_scheduler(self) -> bool:
        """Whether anything is said of a scheduler that runs already."""
        return replace(self, workers=None) != type(self)()

    @property
    def n_workers(self) -> int:
        """How many workers start on this machine, where no scheduler runs already; 0: none."""
        from cryolike_dask.compute.local import number_of_workers

        return 0 if self.workers == 0 else number_of_workers(self.workers)

    @property
    def certificates(self) -> Certificates:
        """The certificates as `connect` and `check_connection` take them."""
        return {
            "tls_ca_file": self.tls_ca_file,
            "tls_cert": self.tls_cert,
            "tls_key": self.tls_key,
        }
