"""Runs that write into an output folder: each leaves a file there, its holder, while it lives.

A holder is alive if its process is; on another machine if its file has been touched of late, by the
clock of the disk.
"""

from __future__ import annotations

import json
import os
import platform
import re
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil

from cryolike_dask.errors import InputFileError
from cryolike_dask.io.atomic import read_own, replacing, writing
from cryolike_dask.io.layout import HOLDERS

MOST_BYTES = 2**20
SECONDS_BETWEEN_BEATS, SECONDS_TO_LIVE = 20.0, 300.0
SAME_START_SECONDS = 2.0


@dataclass(frozen=True)
class Holder:
    """A run that writes into a folder, or did.

    Attributes
    ----------
    path : Path
    content : mapping
        Its process, where that counts, and the digest of the claim that it goes by.
    age_seconds : float
        Time since it was touched.
    """

    path: Path
    content: Mapping[str, object]
    age_seconds: float

    def lives(self) -> bool:
        """Whether its process does."""
        # numbers of processes of another machine or container say nothing here
        if any(self.content.get(name) != value for name, value in _place().items()):
            return self.age_seconds < SECONDS_TO_LIVE
        pid, started = self.content.get("pid"), self.content.get("started")
        if not isinstance(pid, int) or not isinstance(started, (int, float)):
            return False
        try:
            process = psutil.Process(pid)
            if process.status() == psutil.STATUS_ZOMBIE:
                return False
            # a number is given to another process in time: the same one began at the same moment
            if abs(process.create_time() - started) < SAME_START_SECONDS:
                return True
            # but a clock that was set moves the start of processes
            return self.age_seconds < SECONDS_TO_LIVE
        except (psutil.NoSuchProcess, ValueError, OverflowError):
            return False
        except psutil.AccessDenied:
            return True

    def goes_by(self, digest: str) -> bool:
        """Whether this run goes by the claim of this digest."""
        return self.content.get("claim") == digest

    def __str__(self) -> str:
        return f"process {self.content.get('pid')} on {self.content.get('host')}"


@contextmanager
def own_holder(folder: Path, digest: str) -> Iterator[Path]:
    """Hold a folder under a claim while the body runs, and give the file that says so."""
    path, ended = _write_holder(folder, digest), threading.Event()
    # a daemon: it must not keep a process alive that fails
    threading.Thread(
        target=_beat, args=(path, ended), daemon=True, name="claim of an output folder"
    ).start()
    try:
        yield path
    finally:
        ended.set()
        with suppress(OSError):
            path.unlink()


def living(folder: Path) -> list[Holder]:
    """Runs that write into a folder now."""
    return [holder for holder in _holders(folder, time.time()) if holder.lives()]


def others(own: Path) -> list[Holder]:
    """All holders but one's own."""
    with writing(own):
        # the clock of the disk, which the age of holders of other machines is taken by
        os.utime(own)
        now = own.stat().st_mtime
    return [holder for holder in _holders(own.parent, now) if holder.path != own]


def _write_holder(folder: Path, digest: str) -> Path:
    host = re.sub(r"[^\w.-]", "_", platform.node())[:64]
    path = folder / HOLDERS.replace("*", f"{host}-{os.getpid()}-{uuid.uuid4().hex[:8]}")
    process = {"pid": os.getpid(), "started": psutil.Process().create_time()}
    with replacing(path) as file:
        file.write(json.dumps({**_place(), **process, "claim": digest}).encode())
    return path


def _beat(own: Path, ended: threading.Event) -> None:
    """Touch the holder now and then."""
    while not ended.wait(SECONDS_BETWEEN_BEATS):
        with suppress(OSError):
            os.utime(own)


def _holders(folder: Path, now: float) -> list[Holder]:
    return [
        holder
        for path in sorted(folder.glob(HOLDERS))
        if (holder := _read_holder(path, now)) is not None
    ]


def _read_holder(path: Path, now: float) -> Holder | None:
    """Read a holder; None for one that is gone by now, and for anything but a file."""
    try:
        text, modified = read_own(path, MOST_BYTES), path.lstat().st_mtime
    except (InputFileError, OSError):
        return None
    try:
        content = json.loads(text or b"")
    except (ValueError, RecursionError):  # edited by hand
        content = {}
    return Holder(path, content if isinstance(content, dict) else {}, now - modified)


@cache
def _place() -> dict[str, str]:
    """Machine, its start, its container, and the user: where these are the same, numbers of
    processes mean the same."""
    place = {"host": platform.node(), "user": str(getattr(os, "getuid", int)())}
    with suppress(OSError):
        place["boot"] = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        place["namespace"] = os.readlink("/proc/self/ns/pid")
    return place
