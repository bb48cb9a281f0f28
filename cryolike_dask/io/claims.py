"""Who may write into an output folder: nothing is mixed, whoever starts when, on whichever machine.

A claim, one small file for each kind of folder, says what is made there: what must be the same for
all that a folder holds. It is linked to its name when it is complete, which fails where there is
one: whoever is first has it. It stays when its run has ended, and the next run takes it over if
what lies there is its own, or to be overwritten.

A holder is a file of each run that lives. A starter writes its holder first and looks at the claim
afterwards; who takes a claim over moves it aside first and looks for its holders afterwards. So one
of two that meet sees the other. What remains is found out when something is written: each task sees
beforehand that the claim still stands, and so does each record.

A holder is alive if its process is; on another machine if its file has been touched of late, by the
clock of the disk.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from cryolike_dask.errors import InputFileError, OutputError
from cryolike_dask.io.atomic import read_own, replacing, writing
from cryolike_dask.io.layout import CLAIM, HOLDERS, leftovers

MOST_BYTES = 2**20
SECONDS_BETWEEN_BEATS, SECONDS_TO_LIVE = 20.0, 300.0
SAME_START_SECONDS = 2.0
OF_RUNS = (".displacements_set.", ".template", ".parameters.", ".run.yaml.")
"""What runs write into the folder itself; other commands write there too, without a holder."""
TRIES = 20


@dataclass(frozen=True)
class Claim:
    """What may be made in a folder; tasks carry it, to see that it still stands.

    Attributes
    ----------
    path : Path
        Absolute.
    digest : str
        Of what the file says.
    """

    path: Path
    digest: str

    def need(self) -> None:
        """Refuse to write where this claim is no more.

        Raises
        ------
        OutputError
        """
        said = _claimed(self.path)
        if said is not None and _digest(said) == self.digest:
            return
        if not self.path.parent.is_dir():
            what, remedy = (
                "is gone: it was moved or removed while a run wrote into it",
                "Run again.",
            )
        elif said is None:
            what, remedy = f"{self.path.name} was removed while a run wrote here", "Run again."
        else:
            what, remedy = (
                "is claimed by another run by now, of other settings",
                "Choose another output folder.",
            )
        raise OutputError(what, source=self.path.parent, remedy=remedy)


@dataclass(frozen=True)
class Holder:
    """A run that writes into a folder, or did."""

    path: Path
    said: Mapping[str, Any]
    age_seconds: float

    def lives(self) -> bool:
        """Whether its process does."""
        if any(self.said.get(name) != value for name, value in _place().items()):
            return self.age_seconds < SECONDS_TO_LIVE
        try:
            process = psutil.Process(int(self.said["pid"]))
            if process.status() == psutil.STATUS_ZOMBIE:
                return False
            same = abs(process.create_time() - float(self.said["started"])) < SAME_START_SECONDS
            # a clock that was set moves the start of processes
            return same or self.age_seconds < SECONDS_TO_LIVE
        except (psutil.NoSuchProcess, KeyError, TypeError, ValueError, OverflowError):
            return False
        except psutil.AccessDenied:
            return True

    def claims(self, there: bytes) -> bool:
        """Whether this run goes by the claim that is there."""
        return self.said.get("claim") == _digest(there)

    def __str__(self) -> str:
        return f"process {self.said.get('pid')} on {self.said.get('host')}"


@contextmanager
def holding(
    folder: Path,
    kind: str,
    identity: Mapping[str, object],
    *,
    overwrite: bool,
    refuse_others: Callable[[], None],
) -> Iterator[Claim]:
    """Claim a folder while the body runs; what killed processes left is removed if no other run
    lives.

    Parameters
    ----------
    folder : Path
        Created if it is not there.
    kind : str
        "results", "image-stacks" or "templates".
    identity : mapping
        What must be the same for all that is made there; JSON.
    overwrite : bool
        Take the folder whatever is in it, but not beneath a run that lives.
    refuse_others : callable
        Raises if what lies there is of others; not asked with `overwrite`.

    Raises
    ------
    OutputError
        If what is there is of others, or another run writes there; and at the end, if the folder
        was taken away.
    """
    said = _said(kind, identity)
    claim = Claim(folder.absolute() / CLAIM.format(kind=kind), _digest(said))
    is_new = not folder.exists()
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    own, stop = _begin(claim), threading.Event()
    threading.Thread(
        target=_beat, args=(own, stop), daemon=True, name="claim of an output folder"
    ).start()
    try:
        _take(claim, said, own, overwrite, refuse_others)
        _tidy(own)
        yield claim
        claim.need()
    except BaseException:
        with suppress(OSError):
            own.unlink()
            if is_new and os.listdir(folder) == [claim.path.name]:  # before anything was written
                claim.path.unlink()
                folder.rmdir()
        raise
    finally:
        stop.set()
        with suppress(OSError):
            own.unlink()


def living(folder: Path) -> list[Holder]:
    """Runs that write into a folder now."""
    return [holder for holder in _holders(folder, time.time()) if holder.lives()]


def refuse_beneath_others(folder: Path, kind: str, identity: Mapping[str, object]) -> None:
    """Refuse, as `holding` would, a folder into which a run writes that claims it for something
    else; write nothing."""
    there = _claimed(folder / CLAIM.format(kind=kind))
    if there is not None and there != _said(kind, identity):
        _refuse(
            [holder for holder in living(folder) if holder.claims(there)], folder, there, identity
        )


def differences(theirs: Mapping[str, object], ours: Mapping[str, object]) -> str:
    """Say what is there and what is here, where they differ; empty where they do not. Checksums
    tell people nothing."""
    found = []
    for name, here in ours.items():
        there = theirs.get(name)
        if there == here or name == "sha256":
            continue
        if isinstance(there, dict) and isinstance(here, dict):
            found.append(f"{name}: {differences(there, here) or 'others there'}")
        else:
            found.append(f"{name}: {there} there, {here} here")
    return "; ".join(found)


def brief(names: Sequence[str]) -> list[str]:
    """Many names, such that others are told from them, few shown."""
    return (
        list(names)
        if len(names) < 4
        else [*names[:2], f"and others: {_digest(json.dumps(names).encode())[:16]}"]
    )


def _begin(claim: Claim) -> Path:
    """Write the holder of this run."""
    host = re.sub(r"[^\w.-]", "_", platform.node())[:64]
    path = claim.path.parent / HOLDERS.replace("*", f"{host}-{os.getpid()}-{uuid.uuid4().hex[:8]}")
    process = {"pid": os.getpid(), "started": psutil.Process().create_time()}
    with replacing(path) as file:
        file.write(json.dumps({**_place(), **process, "claim": claim.digest}).encode())
    return path


def _beat(own: Path, stop: threading.Event) -> None:
    """Touch the holder now and then."""
    while not stop.wait(SECONDS_BETWEEN_BEATS):
        with suppress(OSError):
            os.utime(own)


def _take(
    claim: Claim, said: bytes, own: Path, overwrite: bool, refuse_others: Callable[[], None]
) -> None:
    """Make the claim, or share it, or take it over from a run that ended."""
    folder, identity = claim.path.parent, json.loads(said)
    for _ in range(TRIES):
        if not overwrite:
            refuse_others()
        if _linked(claim.path, said):
            return
        there = _claimed(claim.path)
        if there == said and not overwrite:
            return
        if there is not None:
            _refuse(_rivals(own, there), folder, there, identity)
        if there == said:
            return
        if there is not None:
            _remove(claim.path, there, own, identity)
    raise OutputError(
        "is claimed by one run after the other", source=folder, remedy="Start one after the other."
    )


def _remove(path: Path, there: bytes, own: Path, identity: Mapping[str, object]) -> None:
    """Move a claim aside, and put it back if a run lives that began to hold it at this moment."""
    aside = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
    try:
        os.rename(path, aside)
    except OSError:  # another starter was faster
        return
    try:
        _refuse(_rivals(own, there), path.parent, there, identity)
    except OutputError:
        with suppress(OSError, OutputError):
            _linked(path, there)
        raise
    finally:
        with suppress(OSError):
            aside.unlink()


def _linked(path: Path, said: bytes) -> bool:
    """Make a file that is complete from its first moment, unless there is one."""
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
    with writing(path):
        try:
            with open(temporary, "xb") as file:
                file.write(said)
            os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError:  # a disk without links
            return _created(path, said)
        finally:
            with suppress(OSError):
                temporary.unlink()
    return True


def _created(path: Path, said: bytes) -> bool:
    try:
        with open(path, "xb", buffering=0) as file:
            file.write(said)
    except FileExistsError:
        return False
    return True


def _claimed(path: Path) -> bytes | None:
    try:
        return read_own(path, MOST_BYTES)
    except InputFileError as error:
        what = str(error).removeprefix(f"{path}: ")
        raise OutputError(
            f"{what}, where a run says what it makes", source=path, remedy="Remove it."
        ) from error


def _refuse(
    holders: list[Holder], folder: Path, there: bytes, identity: Mapping[str, object]
) -> None:
    """Refuse to write where runs live that made the claim which is there."""
    if not holders:
        return
    try:
        how = differences(json.loads(there), identity)
    except (ValueError, RecursionError, AttributeError):  # edited by hand
        how = ""
    raise OutputError(
        f"another run is writing here ({holders[0]})" + (f": {how}" if how else ""),
        source=folder,
        remedy="Wait until it ends, or choose another output folder.",
    )


def _rivals(own: Path, there: bytes) -> list[Holder]:
    """Other runs that live, and go by the claim that is there."""
    return [holder for holder in _others(own) if holder.claims(there) and holder.lives()]


def _others(own: Path) -> list[Holder]:
    """All holders but one's own, which is touched to know what time it is on this disk."""
    with writing(own):
        os.utime(own)
        now = own.stat().st_mtime
    return [holder for holder in _holders(own.parent, now) if holder.path != own]


def _holders(folder: Path, now: float) -> list[Holder]:
    return [
        holder
        for path in sorted(folder.glob(HOLDERS))
        if (holder := _holder(path, now)) is not None
    ]


def _holder(path: Path, now: float) -> Holder | None:
    """Read a holder; None for what is gone by now, and for what is no file."""
    try:
        content, modified = read_own(path, MOST_BYTES), path.lstat().st_mtime
    except (InputFileError, OSError):
        return None
    try:
        said = json.loads(content or b"")
    except (ValueError, RecursionError):  # edited by hand
        said = {}
    return Holder(path, said if isinstance(said, dict) else {}, now - modified)


def _tidy(own: Path) -> None:
    """Remove what runs left that were killed, if no other run lives: it may be its own that is
    listed."""
    left = leftovers(own.parent)
    others = _others(own)
    if any(holder.lives() for holder in others):
        return
    for holder in others:
        holder.path.unlink(missing_ok=True)
    with writing(own):
        now = own.stat().st_mtime
    for path in left:
        with suppress(OSError):
            of_runs = path.parent != own.parent or path.name.startswith(OF_RUNS)
            if of_runs or now - path.lstat().st_mtime > SECONDS_TO_LIVE:
                _discard(path)


def _discard(path: Path) -> None:
    """Remove a file, or a store, which gets another name first: a run that begins now may begin
    it anew."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    renamed = path.with_name(f"{path.name.removesuffix('.part')}.{uuid.uuid4().hex}.part")
    path.rename(renamed)
    shutil.rmtree(renamed, ignore_errors=True)


def _said(kind: str, identity: Mapping[str, object]) -> bytes:
    return json.dumps({"kind": kind, **identity}, indent=1, sort_keys=True).encode()


def _digest(said: bytes) -> str:
    return hashlib.sha256(said).hexdigest()


@cache
def _place() -> dict[str, str]:
    """Where numbers of processes mean the same: machine, its start, container, and whose
    processes can be seen."""
    place = {"host": platform.node(), "user": str(getattr(os, "getuid", int)())}
    with suppress(OSError):
        place["boot"] = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        place["namespace"] = os.readlink("/proc/self/ns/pid")
    return place
