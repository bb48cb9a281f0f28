"""The section of a configuration about where it runs."""

from __future__ import annotations

from typing import Any

from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from cryolike_dask.config.inputs import NEEDED, Section, not_with
from cryolike_dask.config.place import Place
from cryolike_dask.config.values import Address, Count, File, Text, Threads, Workers
from cryolike_dask.labels import Device, OnError
from cryolike_dask.runs.options import RunOptions


class Machine(Section):
    """Where it runs, and how; it changes no result beyond rounding."""

    device: Device = Field(
        default="auto", description="auto: the GPU of each worker, if it has one."
    )
    workers: Workers | None = Field(
        default=None,
        description="Worker processes. Default: one per GPU, or per core, or none for a run of "
        "seconds; 0: none, this process alone.",
    )
    scheduler: Address | None = Field(
        default=None,
        description="Address of a running Dask scheduler, tcp://host:port or tls://host:port.",
    )
    scheduler_file: File | None = Field(
        default=None,
        description="File that a running Dask scheduler wrote, instead of its address.",
    )
    tls_ca_file: File | None = Field(
        default=None, description="PEM file of who signed the certificates of scheduler and client."
    )
    tls_cert: File | None = Field(default=None, description="PEM file of the client's certificate.")
    tls_key: File | None = Field(
        default=None, validate_default=True, description="PEM file of its private key."
    )
    threads: Threads | None = Field(
        default=None,
        description="Threads of this process where there are no workers (workers: 0). Default: one "
        "per core.",
    )
    n_templates_per_batch: Count | None = Field(
        default=None, description="Templates in a tile inside a task."
    )
    n_images_per_batch: Count | None = Field(
        default=None, description="Images in a tile inside a task."
    )
    discover_batch_size: bool = Field(
        default=False,
        description="Choose tiles by the device and its free memory, not by batch sizes.",
    )
    on_error: OnError = Field(
        default="stop",
        description="When an image stack fails: stop, or leave it out, go on, and list it at the "
        "end.",
    )
    log_file: File | None = Field(
        default=None,
        description="Append what happens to this file too, one JSON object a line; run.log beside "
        "the results is written in any case.",
    )
    performance_report: File | None = Field(
        default=None, description="Write Dask's report to this file, for a browser; needs workers."
    )
    note: Text | None = Field(
        default=None, description="Text to keep with the results, in records and the report."
    )
    skip_exist: bool | None = Field(
        default=None,
        description="The older word: false means recompute: true, and true what happens in any "
        "case.",
        json_schema_extra={"deprecated": True},
    )
    recompute: bool | None = Field(
        default=None,
        description="Compute again what is complete and came from these very inputs. Default: keep "
        "it.",
    )
    overwrite: bool = Field(
        default=False,
        description="Replace results of another search, conventions or noise in the output folder.",
    )

    @field_validator("scheduler", "scheduler_file")
    @classmethod
    def _one_scheduler(cls, value: Any, info: ValidationInfo) -> Any:
        return not_with("scheduler", not_with("workers", value, info), info)

    @field_validator("tls_key")
    @classmethod
    def _certificates(cls, value: Any, info: ValidationInfo) -> Any:
        files = [*(info.data.get(name, "refused") for name in ("tls_ca_file", "tls_cert")), value]
        places = [info.data.get(name, "refused") for name in ("scheduler", "scheduler_file")]
        if any(files) and not all(files):
            raise PydanticCustomError(
                NEEDED, "TLS needs tls_ca_file, tls_cert and tls_key, all three"
            )
        if any(files) and (not any(places) or str(places[0]).startswith("tcp:")):
            raise PydanticCustomError(
                NEEDED, "certificates are for a scheduler_file, or a scheduler at tls://"
            )
        return value

    @field_validator("recompute")
    @classmethod
    def _recompute_or_skip_exist(cls, value: Any, info: ValidationInfo) -> Any:
        return not_with("skip_exist", value, info)

    @field_validator("threads")
    @classmethod
    def _threads_of_this_process(cls, value: Any, info: ValidationInfo) -> Any:
        if value is not None and info.data.get("workers", 0) != 0:
            raise ValueError("is for workers: 0; a worker has one thread")
        return value

    @field_validator("performance_report")
    @classmethod
    def _report_needs_workers(cls, value: Any, info: ValidationInfo) -> Any:
        if value is not None and info.data.get("workers") == 0:
            raise ValueError("needs workers, but workers is 0")
        return value

    @property
    def keeps(self) -> bool:
        """Whether complete results of these very inputs and settings are kept."""
        return not self.recompute and self.skip_exist is not False

    @property
    def place(self) -> Place:
        """Where it runs."""
        return Place(
            workers=self.workers,
            scheduler=self.scheduler,
            scheduler_file=self.scheduler_file,
            tls_ca_file=self.tls_ca_file,
            tls_cert=self.tls_cert,
            tls_key=self.tls_key,
        )

    @property
    def run_options(self) -> RunOptions:
        """How the run goes about its work."""
        return RunOptions(
            skip_exist=self.keeps,
            overwrite=self.overwrite,
            on_error=self.on_error,
            log_file=self.log_file,
            performance_report=self.performance_report,
            note=self.note,
        )
