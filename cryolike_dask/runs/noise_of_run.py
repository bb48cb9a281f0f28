"""The noise model of a run: asked for, kept beside the results, and the same for all of them.

What lies in the output folder decides before what is asked: results of one folder are of one noise
model. It is estimated under the claim of the folder, and kept in a file there; of several runs that
begin at a time, the first to write it decides.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
from distributed import Client

from cryolike_dask.errors import InputError, InputFileError, OutputError, counted
from cryolike_dask.geometry.noise import ALL_IMAGES, NoiseModel
from cryolike_dask.io.claims import differences
from cryolike_dask.io.noise import (
    model_checksum,
    noise_checksum,
    read_noise,
    write_noise,
    write_noise_unless_there,
)
from cryolike_dask.io.records import FITTED, FolderSettings, Record, added_b_factor
from cryolike_dask.runs.envelope import MOST_STRUCTURES
from cryolike_dask.runs.noise_check import described, warn_of_noise
from cryolike_dask.runs.noise_estimation import estimate_noise
from cryolike_dask.runs.options import NoiseRequest
from cryolike_dask.runs.other_particles import refuse_other_particles
from cryolike_dask.runs.run import Run

PENDING = "to be estimated"
"""In place of the checksum of a noise model that is not known yet."""
OF_NOISE = ("noise", "b_factor", "degrees_of_freedom")
NUMBERS = {"b_factor": "B-factor", "degrees_of_freedom": "degrees of freedom"}
WHITE, COLOURED = "white noise", "a noise model"
OF_ANOTHER_PROGRAM = (
    "these image stacks were made by another program, which may have changed their noise: it is "
    'taken as white. Pass noise="estimate" (--noise) to estimate it.'
)
RESTORE = (
    "Restore it, or pass overwrite=True and skip_exist=False (--overwrite --recompute) to compute "
    "all results again."
)
NOT_FITTED = "holds no fitted B-factor"

logger = logging.getLogger("cryolike_dask")


def settle_noise(run: Run, records: Iterable[Record], *, starts_anew: bool = False) -> Run:
    """Give the same run with what it takes the noise for, in its settings and its identity, as far
    as that can be known before anything is written or computed.

    Parameters
    ----------
    run : Run
    records : iterable of Record
        Those of the output folder.
    starts_anew : bool
        What lies there does not count, for it is replaced.

    Raises
    ------
    InputError, InputFileError
        If what is asked for cannot be used.
    """
    asked, model = run.noise, _given(run.noise)
    recorded = None if starts_anew else _recorded(run, records)
    if recorded is None:
        name, b_factor = _beginning(run, model, starts_anew=starts_anew)
    else:
        name, b_factor = _going_on(run, model, recorded)
    n_free = asked.degrees_of_freedom
    if n_free is None and recorded is not None:
        n_free = recorded.get("degrees_of_freedom")
    identity = run.identity.copy()
    if name is not None:
        identity["noise"] = name
    if b_factor:
        identity["b_factor"] = b_factor
    if n_free is not None:
        identity["degrees_of_freedom"] = float(n_free)
    settings = replace(
        run.settings,
        noise=model,
        b_factor=added_b_factor(identity),
        degrees_of_freedom=n_free,
    )
    if model is not None:
        _check(run, model)
    return replace(run, settings=settings, identity=identity)


def noise_difference(there: FolderSettings, here: FolderSettings) -> str:
    """Say how the noise of recorded results is another than that of a run; empty if it is not."""
    name_there, name_here = there.get("noise"), here.get("noise")
    if (name_there is None) != (name_here is None):
        words = [WHITE if name is None else COLOURED for name in (name_there, name_here)]
        return f"{words[0]} there, {words[1]} here"
    if name_there != name_here != PENDING:
        return "another noise model there"
    return differences(
        *({word: s.get(key, "none given") for key, word in NUMBERS.items()} for s in (there, here))
    )


def claimed_noise(identity: FolderSettings) -> str:
    """What all runs that write into a folder at a time must take noise for. Which model it is is
    decided by the first that writes its file."""
    return WHITE if identity.get("noise") is None else COLOURED


def with_known_noise(run: Run) -> Run:
    """Give the same run with its noise model read, if there is one already.

    Raises
    ------
    OutputError
        If the file of the noise model of the results is missing, or another, or of other particles.
    """
    name, path = run.identity.get("noise"), run.files.noise
    if name is None or run.settings.noise is not None:
        return run
    if path.is_file():
        refuse_other_particles(run)
    if name == PENDING:
        return _reading(run) if path.is_file() else run
    if what := why_not_kept(run):
        raise OutputError(what, source=path, remedy=RESTORE)
    return _reading(run)


def why_not_kept(run: Run) -> str | None:
    """Say why the noise model of results is not in their folder; None if it is, or need not be."""
    name, path = run.identity.get("noise"), run.files.noise
    if name in (None, PENDING):
        return None
    found = noise_checksum(path) if path.is_file() else None
    what = "is not" if found else "is missing: it is"
    return None if found == name else f"{what} the noise model of the results that are there"


def noise_said(run: Run) -> str:
    """Say what a run takes noise for, and what it does to know it."""
    model, name = run.settings.noise, run.identity.get("noise")
    said = "white"
    if model is not None:
        said = f"{described(model)}, " + (
            f"kept in {run.files.noise.name}" if run.files.noise.is_file() else "as given"
        )
    elif name is not None:
        n_images = counted(sum(map(len, run.images.values())), "image")
        structures = counted(min(run.n_structures, MOST_STRUCTURES), "structure")
        said = f"estimated first, from {n_images}, which are all read for it, and {structures}"
    b_factor, n_free = (run.identity.get(key) for key in NUMBERS)
    if b_factor:
        said += "; B-factor " + (
            "fitted" if b_factor == FITTED else f"{b_factor:g} angstrom^2 added"
        )
    return said + (f"; {n_free:g} degrees of freedom" if n_free is not None else "")


def keep_noise(
    run: Run,
    client: Client | None,
    remove_others: Callable[[Run], None] | None = None,
    *,
    starts_anew: bool = False,
    progress: bool = False,
) -> Run:
    """Give the same run with its noise model, estimated if there is none, and kept in the folder,
    which is claimed.

    Parameters
    ----------
    run : Run
    client : Client or None
    remove_others : callable, optional
        Removes results of another noise model than that of the run that it is given; without it,
        a model that is there is not replaced.
    starts_anew : bool
        As for `settle_noise`.
    progress : bool
        Show progress.

    Raises
    ------
    InputError
        If noise cannot be estimated from these images.
    OutputError
        If the file cannot be written, or another run has written one of its own.
    """
    path, given = run.files.noise, run.settings.noise
    if run.identity.get("noise") is None:
        if remove_others is not None:
            path.unlink(missing_ok=True)
        return run
    if not starts_anew:
        run = with_known_noise(run)
        if given is None and run.settings.noise is not None:
            logger.info("noise: as kept in %s (%s)", path.name, described(run.settings.noise))
            if not _is_of_all(run.settings.noise, run):
                warn_of_noise(
                    list(run.images.values()), run.some_templates(), run.settings.noise, client
                )
            return run
    if given is None:
        model = _estimate(run, client, progress=progress)
    else:
        model = given
        warn_of_noise(list(run.images.values()), run.some_templates(), model, client)
    named = _named(run, model, model_checksum(model))
    if remove_others is not None:
        remove_others(named)
        write_noise(path, model)
    elif not write_noise_unless_there(path, model):
        kept = _reading(run)
        if given is not None and kept.identity["noise"] != run.identity["noise"]:
            raise OutputError(
                "is another noise model, of results that are not there, or of a run that began "
                "meanwhile",
                source=path,
                remedy="Choose another output folder, or remove it.",
            )
        logger.info("noise: as kept in %s, where another run was first", path.name)
        return kept
    logger.info("noise: %s, kept in %s", described(model), path.name)
    return named


def _given(asked: NoiseRequest) -> NoiseModel | None:
    """The model that is asked for, if it is there; without B-factors of its own, if one is asked
    for."""
    model = _model_given(asked)
    if model is None or asked.b_factor in (None, "auto"):
        return model
    n = len(model)
    return replace(model, b_factor_angstrom2=np.zeros(n), b_factor_error=np.full(n, np.nan))


def _model_given(asked: NoiseRequest) -> NoiseModel | None:
    if asked.spectrum is None or asked.spectrum in ("estimate", "white"):
        return None
    if isinstance(asked.spectrum, NoiseModel):
        return asked.spectrum
    if not Path(asked.spectrum).exists():
        raise InputFileError(
            "there is no such file",
            source=asked.spectrum,
            remedy="Give estimate, white, or the file of a noise model.",
        )
    return read_noise(asked.spectrum)


def _recorded(run: Run, records: Iterable[Record]) -> FolderSettings | None:
    """The settings of results that may be of this run, whatever their noise."""
    for record in records:
        if not differences(record["settings"], run.identity):
            return record["settings"]
    return None


def _going_on(
    run: Run, model: NoiseModel | None, recorded: FolderSettings
) -> tuple[str | None, str | float]:
    """Name of the noise model and B-factor where there are results."""
    asked, name = run.noise, recorded.get("noise")
    if asked.spectrum is None:
        kind = WHITE if name is None else f"the model in {run.files.noise.name}"
        logger.info("noise: as of the results that are there, %s", kind)
    elif model is not None:
        name = _name_of(run, model, name)
    elif asked.spectrum == "white":
        name = None
    else:
        name = name or PENDING
    if asked.b_factor in (None, "auto"):
        return name, recorded.get("b_factor", 0.0)
    if asked.b_factor == FITTED and recorded.get("b_factor") != FITTED:
        name = PENDING
    return name, 0.0 if asked.b_factor == "none" else asked.b_factor or 0.0


def _beginning(
    run: Run, model: NoiseModel | None, *, starts_anew: bool
) -> tuple[str | None, str | float]:
    """Name of the noise model and B-factor where there are no results yet."""
    asked, name = run.noise, None
    is_there = run.files.noise.is_file() and not starts_anew
    if model is not None:
        name = _name_of(run, model, noise_checksum(run.files.noise) if is_there else None)
    elif asked.spectrum == "estimate" or asked.b_factor == "fit":
        name = PENDING
    elif asked.spectrum is None and run.settings.rules.knows_noise:
        if is_there or all(images.frame == "xy" for images in run.images.values()):
            name = PENDING
        else:
            logger.warning(OF_ANOTHER_PROGRAM)
    if is_there and name == PENDING and asked.b_factor in (FITTED, "auto"):
        fitted = bool(np.isfinite(read_noise(run.files.noise).b_factor_error).any())
        if not fitted and asked.b_factor == FITTED:
            raise InputError(
                NOT_FITTED,
                source=run.files.noise,
                remedy="Remove it, so that noise and B-factor are estimated together.",
            )
        return name, FITTED if fitted else 0.0
    if asked.b_factor == "auto":
        return name, FITTED if name == PENDING else 0.0
    return name, 0.0 if asked.b_factor == "none" else asked.b_factor or 0.0


def _name_of(run: Run, model: NoiseModel, known: str | None) -> str:
    """The checksum of a model: that of the file in the folder if it holds the same, which another
    version may have written in other bytes."""
    path, name = run.files.noise, model_checksum(model)
    if known in (None, name) or not path.is_file() or noise_checksum(path) != known:
        return name
    return known if model_checksum(read_noise(path)) == name else name


def _estimate(run: Run, client: Client | None, *, progress: bool) -> NoiseModel:
    n_images, templates = sum(map(len, run.images.values())), run.some_templates()
    logger.info(
        "estimating the noise of %s, with %s",
        counted(n_images, "image"),
        counted(len(templates), "structure"),
    )
    model = estimate_noise(
        list(run.images.values()),
        templates,
        fit_b_factor=run.identity.get("b_factor") == FITTED,
        b_factor=run.settings.b_factor,
        client=client,
        progress=progress,
    )
    _check(run, model)
    return model


def _reading(run: Run) -> Run:
    """The same run with the noise model that its folder keeps."""
    model = read_noise(run.files.noise)
    _check(run, model, run.files.noise)
    asked = run.noise.b_factor
    if asked not in (None, "auto", "fit") and model.b_factor_angstrom2.any():
        raise InputError(
            f"holds fitted B-factors, but b_factor={asked!r} is asked for",
            source=run.files.noise,
            remedy="Leave b_factor (--b-factor) out, or choose another output folder.",
        )
    return _named(run, model, noise_checksum(run.files.noise))


def _named(run: Run, model: NoiseModel, name: str) -> Run:
    identity = run.identity.copy()
    identity["noise"] = name
    return replace(run, settings=replace(run.settings, noise=model), identity=identity)


def _check(run: Run, model: NoiseModel, source: Path | None = None) -> None:
    """Refuse a model that is not of the images of a run."""
    try:
        model.check_grid(next(iter(run.images.values())).grid)
        for k, images in run.images.items():
            model.find(images.groups, len(images))
            strangers = model.strangers(images.groups)
            if len(strangers) and images.groups is not None:
                logger.warning(
                    "%d image(s) of stack %d are of optics groups that the noise model does not "
                    "know (%s): their noise is taken to be that of all images together",
                    len(strangers),
                    k,
                    ", ".join(np.unique(images.groups[strangers, 1])[:5]),
                )
    except InputError as error:
        if source is None:
            raise
        raise InputError(str(error), source=source) from error


def _is_of_all(model: NoiseModel, run: Run) -> bool:
    """Whether a model that a folder keeps was estimated from as many images as a run is of: from
    these, so that what is to be said of them was said then."""
    n_images = dict(zip(model.groups, model.n_images.tolist(), strict=True)).get(ALL_IMAGES)
    return bool(n_images == sum(map(len, run.images.values())))
