"""The likelihoods that shares are estimated from: images by structures, relative to the best.

What is too large for memory lies in a scratch file. In a folder of its own that file stays, with
how far it has been read, until shares are found: a command that is killed does not begin anew.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.special import logsumexp

from cryolike_dask import labels
from cryolike_dask.analysis.coordinates import decoys_of
from cryolike_dask.analysis.decoys.competition import compete
from cryolike_dask.analysis.matrix import matrix_of, parts
from cryolike_dask.errors import InputError, InputFileError, counted, listed
from cryolike_dask.io.archives import read_archive, write_archive
from cryolike_dask.io.atomic import writing

IN_MEMORY = 2**30
"""Bytes: larger matrices lie in a scratch file, of which memory holds what it has room for."""
SECONDS_BETWEEN = 10.0
"""Between two times that it is written down, and said, how far a scratch file has been read."""
N_PROBED = 8
"""Images by which a scratch file is known to be of these results."""
VALUES, STATE = "relative_likelihoods", "state"

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Relative = NDArray[np.float32]

logger = logging.getLogger("cryolike_dask")


@dataclass(frozen=True, eq=False)
class Likelihoods:
    """Likelihoods of images under structures.

    Attributes
    ----------
    relative : float32 array, (image, structure)
        Each image's divided by its largest: shares do not depend on a factor of an image, and
        what is below 1e-45 of the best is 0.
    images : int array, (image,)
        Their positions among the results.
    structures : tuple of str
    n_left_out : int
        Images of the results that lack some likelihood.
    beside_decoys : BesideDecoys or None
        How structures and decoys compete for the images, where decoys were asked for.
    scratch : _Scratch or None
        Where a large matrix is kept.
    """

    relative: Relative
    images: Integers
    structures: tuple[str, ...]
    n_left_out: int
    beside_decoys: BesideDecoys | None
    scratch: _Scratch | None

    @property
    def n_images(self) -> int:
        return len(self.relative)

    @property
    def start(self) -> Floats | None:
        """Shares that were reached before, if this is the second time."""
        return None if self.scratch is None else self.scratch.shares

    def recorded(self, results: xr.Dataset, coordinate: str) -> NDArray[Any]:
        """What a coordinate of the results says of these images, (image,)."""
        return np.asarray(np.atleast_1d(results[coordinate].values)[self.images])

    def reached(self, shares: Floats, nat: float) -> None:
        """Keep shares to go on from, should this be killed, and say how many nat they may be below
        the largest log-likelihood."""
        if self.scratch is not None:
            self.scratch.shares = shares
            self.scratch.write()
            logger.info("shares are at most %.2g nat below the largest log-likelihood", nat)


@dataclass(frozen=True, eq=False)
class BesideDecoys:
    """Structures and decoys, of which images of neither prefer each alike.

    Attributes
    ----------
    n_structures, n_decoys : int
    margin, score : float64 array, (image,)
        As of `Competition`, nat.
    log_all : float64 array, (image,)
        Logarithm of the sum of all likelihoods, those of decoys too, over the largest of the
        structures.
    """

    n_structures: int
    n_decoys: int
    margin: Floats
    score: Floats
    log_all: Floats


@contextmanager
def likelihoods_of(
    results: xr.Dataset, folder: Path | None = None, *, decoys: bool = False
) -> Iterator[Likelihoods]:
    """Read the likelihoods of results, some images at a time.

    Images without a result under some structure are left out, with a warning.

    Parameters
    ----------
    results : xarray.Dataset
    decoys : bool
        Read those under decoys too, of which there are some.
    folder : path, optional
        Where a large matrix is kept until all is done; default: nowhere, and a second time begins
        anew.

    Raises
    ------
    InputError
        If there are no images, a structure has no results at all, or no image has results under all
        structures.
    """
    values, names, is_decoy = _matrix(results, decoys=decoys)
    n_structures, n_all = int((~is_decoy).sum()), values.sizes[labels.IMAGE]
    if not n_all:
        raise InputError("there are no images among the results", remedy="Select some.")
    with _scratch(values, names, is_decoy, folder) as scratch:
        array = (
            np.empty((n_all, n_structures), np.float32)
            if scratch is None
            else np.memmap(scratch.file, np.float32, "r+", shape=(n_all, n_structures))
        )
        state = scratch or _Reading.at_the_beginning(n_all, is_decoy)
        for part in parts(n_all):
            if part.start >= state.n_read:
                _read(values[:, part], part, array, state)
                if scratch is not None:
                    scratch.write_now_and_then(n_all)
        if scratch is not None:
            scratch.write()
        n = state.n_known
        _refuse_gaps(state, names)
        if n < n_all:
            logger.warning(
                "%s without a result under some structure left out: %s",
                counted(n_all - n, "image"),
                listed(np.flatnonzero(~state.known)),
            )
        yield Likelihoods(
            array[:n],
            np.flatnonzero(state.known),
            tuple(name for name, is_one in zip(names, is_decoy, strict=True) if not is_one),
            n_all - n,
            BesideDecoys(n_structures, int(is_decoy.sum()), *state.beside[:, :n])
            if decoys
            else None,
            scratch,
        )


@dataclass(eq=False)
class _Reading:
    """How far a matrix has been read: images that are known go into its rows, in their order, and
    margin, score and logarithm of all of `BesideDecoys` into columns."""

    is_decoy: Bools
    n_read: int
    known: Bools
    has_results: Bools
    beside: Floats

    @classmethod
    def at_the_beginning(cls, n_images: int, is_decoy: Bools) -> _Reading:
        beside = np.zeros((3, n_images if is_decoy.any() else 0))
        return cls(is_decoy, 0, np.zeros(n_images, bool), np.zeros(len(is_decoy), bool), beside)

    @property
    def n_known(self) -> int:
        return int(self.known.sum())


def _read(values: xr.DataArray, part: slice, array: Relative, state: _Reading) -> None:
    """Read some images into the rows that come next."""
    block = np.asarray(values.values, np.float64).T
    finite = np.isfinite(block)
    known: Bools = np.asarray(finite.all(axis=1))
    block = block[known]
    rows = slice(state.n_known, state.n_known + len(block))
    of_structures = block[:, ~state.is_decoy]
    best = of_structures.max(axis=1, keepdims=True, initial=-np.inf)
    array[rows] = np.exp(of_structures - best)
    if state.is_decoy.any():
        log_all = logsumexp(block - best, axis=1) if len(block) else np.empty(0)
        state.beside[:, rows] = *compete(block.T, state.is_decoy), log_all
    state.has_results |= finite.any(axis=0)
    state.known[part.start : part.start + len(known)] = known
    state.n_read = part.start + len(known)


def _refuse_gaps(state: _Reading, names: tuple[str, ...]) -> None:
    if not state.has_results.all():
        without = np.flatnonzero(~state.has_results)
        raise InputError(
            f"{counted(len(without), 'structure')} without results: "
            f"{', '.join(names[j] for j in without[:5])}",
            remedy="Finish the run, or select the structures that are done"
            + (", or leave decoys out (decoys=False)." if state.is_decoy.any() else "."),
        )
    if not state.known.any():
        raise InputError("no image has results under all structures", remedy="Finish the run.")


@dataclass(eq=False)
class _Scratch(_Reading):
    """A matrix in a file, how far it has been read, and shares that were reached."""

    folder: Path
    identity: str
    shares: Floats | None = None
    written: float = 0.0

    @property
    def file(self) -> Path:
        return self.folder / VALUES

    def write(self) -> None:
        """Keep how far this is."""
        self.written = time.monotonic()
        write_archive(
            self.folder / STATE,
            {
                "identity": self.identity,
                "n_read": self.n_read,
                "known": self.known,
                "has_results": self.has_results,
                "beside": self.beside,
                "shares": self.shares,
            },
        )

    def write_now_and_then(self, n_images: int) -> None:
        """Keep how far this is, and say so, every few seconds."""
        if time.monotonic() - self.written > SECONDS_BETWEEN:
            self.write()
            logger.info("%d of %d images read", self.n_read, n_images)

    def go_on(self) -> None:
        """Take up what is there, if it is of these very results."""
        try:
            state = read_archive(self.folder / STATE, optional=("shares",))
            if str(state["identity"]) != self.identity or not self.file.is_file():
                return
            known, has_results = state["known"], state["has_results"]
            beside = state["beside"]
            n_read = int(str(state["n_read"]))
        except (InputFileError, KeyError, TypeError, ValueError):
            return
        if known is None or has_results is None or known.shape != self.known.shape:
            return
        if beside is None or beside.shape != self.beside.shape:
            return
        if not known[:n_read].all():  # they may have results by now
            return
        self.n_read, self.known, self.has_results = n_read, known, has_results
        self.beside = beside
        self.shares = state.get("shares")
        logger.info("goes on after %d images that had been read", n_read)


@contextmanager
def _scratch(
    values: xr.DataArray, names: tuple[str, ...], is_decoy: Bools, folder: Path | None
) -> Iterator[_Scratch | None]:
    """A scratch file for a matrix that is too large for memory; it goes once all is done."""
    n_images = values.sizes[labels.IMAGE]
    n_bytes = 4 * int((~is_decoy).sum()) * n_images
    if n_bytes <= IN_MEMORY:
        yield None
        return
    where = Path(tempfile.mkdtemp(prefix="cryolike_dask-")) if folder is None else folder
    try:
        with writing(where):
            where.mkdir(parents=True, exist_ok=True)
            scratch = _Scratch(
                **vars(_Reading.at_the_beginning(n_images, is_decoy)),
                folder=where,
                identity=_identity(values, names, is_decoy),
            )
            scratch.go_on()
            with open(scratch.file, "ab") as file:
                file.truncate(n_bytes)
        yield scratch
    except BaseException as error:
        if folder is None or isinstance(error, InputError):
            shutil.rmtree(where, ignore_errors=True)
        raise
    shutil.rmtree(where, ignore_errors=True)


def identity_of(results: xr.Dataset) -> str:
    """A checksum that tells these likelihoods, those under decoys too, from others."""
    return _identity(*_matrix(results, decoys=True))


def _matrix(results: xr.Dataset, *, decoys: bool) -> tuple[xr.DataArray, tuple[str, ...], Bools]:
    """Likelihoods, (structure, image), those under decoys too or not; names of the structures, and
    which of them are decoys."""
    is_decoy = decoys_of(results) != ""
    values = matrix_of(
        results.drop_vars(labels.DECOY_OF, errors="ignore") if decoys else results,
        labels.LOG_LIKELIHOOD_INTEGRATED,
    )
    names = tuple(str(name) for name in np.atleast_1d(values[labels.STRUCTURE].values))
    return values, names, is_decoy if decoys else np.zeros(len(names), np.bool_)


def _identity(values: xr.DataArray, names: tuple[str, ...], is_decoy: Bools) -> str:
    """A checksum of names, sizes and the likelihoods of some images."""
    probed = np.unique(np.linspace(0, values.shape[1] - 1, N_PROBED).astype(int))
    digest = hashlib.sha256(repr((names, is_decoy.tolist(), values.shape)).encode())
    digest.update(np.ascontiguousarray(values[:, probed].values).tobytes())
    return digest.hexdigest()
