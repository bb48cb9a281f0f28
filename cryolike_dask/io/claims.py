"""Claims of output folders: nothing is mixed, whoever starts when, on whichever machine.

A claim, one small file for each kind of folder, says what is made there: what must be the same for
all that a folder holds. It is linked to its name when it is complete, which fails where there is
one: whoever is first has it. It stays when its run has ended, and the next run takes it over if
what lies there is its own, or to be overwritten.

Each run that lives has a file beside it, its holder (`io/holders`). A starter writes its holder
first and looks at the claim afterwards; who takes a claim over moves it aside first and looks for
its holders afterwards. So one of two that meet sees the other. What remains is found out when
something is written: each task sees beforehand that the claim still stands, and so does each
record.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from cryolike_dask.errors import InputFileError, OutputError
from cryolike_dask.io.atomic import read_own, write_unless_there, writing
from cryolike_dask.io.holders import (
    MOST_BYTES,
    SECONDS_TO_LIVE,
    Holder,
    living,
    others,
    own_holder,
)
from cryolike_dask.io.layout import CLAIM, leftovers

FILES_OF_RUNS = (".displacements_set.", ".noise.", ".template", ".parameters.", ".run.yaml.")
"""Beginnings of unfinished files that runs write into the folder itself; other commands write there
too, without a holder."""
TRIES = 20


@dataclass(frozen=True)
class Claim:
    """A claim that was made; tasks carry it, to see that it still stands.

    Attributes
    ----------
    path : Path
        Absolute.
    digest : str
        sha256 of its text.
    """

    path: Path
    digest: str

    def need(self) -> None:
        """Refuse to write where this claim is no more.

        Raises
        ------
        OutputError
        """
        text_there = _read_claim(self.path)
        if text_there is not None and _digest(text_there) == self.digest:
            return
        remedy = "Run again."
        if not self.path.parent.is_dir():
            what = "is gone: it was moved or removed while a run wrote into it"
        elif text_there is None:
            what = f"{self.path.name} was removed while a run wrote here"
        else:
            what = "is claimed by another run by now, of other settings"
            remedy = "Choose another output folder."
        raise OutputError(what, source=self.path.parent, remedy=remedy)


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
    text = _text_of(kind, identity)
    claim = Claim(folder.absolute() / CLAIM.format(kind=kind), _digest(text))
    is_new = not folder.exists()
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        # the holder is there before the claim is looked at: whoever takes the claim over looks for
        # holders last, so that one of both sees the other
        with own_holder(claim.path.parent, claim.digest) as own:
            _take(claim, text, own, overwrite, refuse_others)
            _remove_leftovers(own)
            yield claim
            # tasks looked before they wrote, none after: the folder may have been taken since
            claim.need()
    except BaseException:
        if is_new:
            _remove_unused(claim)
        raise


def refuse_beneath_others(folder: Path, kind: str, identity: Mapping[str, object]) -> None:
    """Refuse, as `holding` would, a folder into which a run writes that claims it for something
    else; write nothing."""
    text_there = _read_claim(folder / CLAIM.format(kind=kind))
    if text_there is not None and text_there != _text_of(kind, identity):
        digest = _digest(text_there)
        holders = [holder for holder in living(folder) if holder.goes_by(digest)]
        _refuse_beneath(holders, folder, text_there, identity)


def differences(theirs: Mapping[str, object], ours: Mapping[str, object]) -> str:
    """Say what is there and what is here, where they differ; empty where they do not. Checksums
    tell people nothing."""
    lines = []
    for name, value_here in ours.items():
        value_there = theirs.get(name)
        if value_there == value_here or name == "sha256":
            continue
        if isinstance(value_there, dict) and isinstance(value_here, dict):
            lines.append(f"{name}: {differences(value_there, value_here) or 'others there'}")
        else:
            lines.append(f"{name}: {value_there} there, {value_here} here")
    return "; ".join(lines)


def brief(names: Sequence[str]) -> list[str]:
    """Many names, such that others are told from them, few shown."""
    if len(names) < 4:
        return list(names)
    return [*names[:2], f"and others: {_digest(json.dumps(names).encode())[:16]}"]


def _take(
    claim: Claim, text: bytes, own: Path, overwrite: bool, refuse_others: Callable[[], None]
) -> None:
    """Make the claim, or share it, or take it over from a run that ended.

    Another starter may be a step ahead at any moment; then all is looked at anew.
    """
    folder, identity = claim.path.parent, json.loads(text)
    for _ in range(TRIES):
        # at each turn: whoever was ahead may have written results by now
        if not overwrite:
            refuse_others()
        # nobody claims the folder: of all that try, the disk lets one make the file
        if write_unless_there(claim.path, text):
            return
        text_there = _read_claim(claim.path)
        # runs that make the same share one claim: whoever takes it over from now on sees the holder
        # of this one, which was written before the claim was read
        if text_there == text and not overwrite:
            return
        # runs that live keep the folder, and with `overwrite` even from one that makes the same,
        # whose results would be removed while it writes
        if text_there is not None:
            _refuse_beneath(_rivals(own, text_there), folder, text_there, identity)
        if text_there == text:
            return
        # the claim of a run that ended: what it made is ours, or to be overwritten; once it is out
        # of the way, the next turn makes the claim, unless another starter is faster
        if text_there is not None:
            _remove_claim(claim.path, text_there, own, identity)
    raise OutputError(
        "is claimed by one run after the other", source=folder, remedy="Start one after the other."
    )


def _remove_claim(path: Path, text: bytes, own: Path, identity: Mapping[str, object]) -> None:
    """Move a claim aside, and put it back if a run lives that began to hold it at this moment."""
    aside = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
    try:
        # of several that take over, only one finds the file under its name
        os.rename(path, aside)
    except OSError:  # another starter was faster
        return
    try:
        # a run may have shared the claim after its holders were looked for: its holder was written
        # before it read the claim, so it is seen now, since no one can read the claim any more
        _refuse_beneath(_rivals(own, text), path.parent, text, identity)
    except OutputError:
        with suppress(OSError, OutputError):
            write_unless_there(path, text)
        raise
    finally:
        with suppress(OSError):
            aside.unlink()


def _read_claim(path: Path) -> bytes | None:
    try:
        return read_own(path, MOST_BYTES)
    except InputFileError as error:
        what = str(error).removeprefix(f"{path}: ")
        raise OutputError(
            f"{what}, where a run says what it makes", source=path, remedy="Remove it."
        ) from error


def _refuse_beneath(
    holders: list[Holder], folder: Path, text_there: bytes, identity: Mapping[str, object]
) -> None:
    """Refuse to write where runs live that made the claim which is there."""
    if not holders:
        return
    try:
        how = differences(json.loads(text_there), identity)
    except (ValueError, RecursionError, AttributeError):  # edited by hand
        how = ""
    raise OutputError(
        f"another run is writing here ({holders[0]})" + (f": {how}" if how else ""),
        source=folder,
        remedy="Wait until it ends, or choose another output folder.",
    )


def _rivals(own: Path, text_there: bytes) -> list[Holder]:
    """Other runs that live, and go by the claim that is there."""
    digest = _digest(text_there)
    return [holder for holder in others(own) if holder.goes_by(digest) and holder.lives()]


def _remove_unused(claim: Claim) -> None:
    """Remove a folder that was made for a claim, if nothing was written there."""
    with suppress(OSError):
        if os.listdir(claim.path.parent) == [claim.path.name]:
            claim.path.unlink()
            claim.path.parent.rmdir()


def _remove_leftovers(own: Path) -> None:
    """Remove what killed runs left, if no other run lives: it may be its own that is listed."""
    # listed before holders are looked for: a run that lives and wrote one of these has a holder
    left = leftovers(own.parent)
    holders = others(own)
    if any(holder.lives() for holder in holders):
        return
    for holder in holders:
        holder.path.unlink(missing_ok=True)
    with writing(own):
        now = own.stat().st_mtime
    for path in left:
        with suppress(OSError):
            # a command without a holder may be writing a file here at this moment
            of_runs = path.parent != own.parent or path.name.startswith(FILES_OF_RUNS)
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


def _text_of(kind: str, identity: Mapping[str, object]) -> bytes:
    return json.dumps({"kind": kind, **identity}, indent=1, sort_keys=True).encode()


def _digest(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()
