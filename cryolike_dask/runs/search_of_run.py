"""The method by which a run searches poses: asked for, recorded with results, and the same for all
best poses of a folder. Full cross-correlations know none: they keep every pose."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace

from cryolike_dask.errors import InputError
from cryolike_dask.geometry.search_method import Search, search_done
from cryolike_dask.io.claims import differences
from cryolike_dask.io.records import Record, search_method
from cryolike_dask.labels import AUTO, SearchMethod
from cryolike_dask.likelihoods.search.adaptive import is_worth_levels
from cryolike_dask.runs.frames import refuse_own_means
from cryolike_dask.runs.kinds import OPTIMAL_POSE, Kind
from cryolike_dask.runs.noise_of_run import OF_NOISE, noise_difference
from cryolike_dask.runs.run import Run

OF_SEARCH = "search_method"

logger = logging.getLogger("cryolike_dask")


def settle_search(
    run: Run, kind: Kind, records: Iterable[Record], *, starts_anew: bool = False
) -> Run:
    """Give the same run with its method of search, in its settings and its identity.

    Parameters
    ----------
    run : Run
        Its noise is settled.
    kind : Kind
        Of its results.
    records : iterable of Record
        Those of the output folder.
    starts_anew : bool
        What lies there does not count, for it is replaced.

    Raises
    ------
    InputError
        If a method is asked for that leaves out poses, and results keep all of them; or one around
        recorded poses of structures that do not lie in one frame.
    """
    asked = None if run.search_method == AUTO else run.search_method
    if kind.keeps_every_pose:
        if run.settings.search != "exhaustive":
            raise InputError(
                f'search="{asked}" is given, but full cross-correlations keep every pose',
                remedy="Leave it out (--search, search.method).",
            )
        if run.settings.pose_posteriors:
            raise InputError(
                "posteriors of poses are asked for, but full cross-correlations keep every pose",
                remedy="Leave it out (--pose-posteriors, search.posteriors).",
            )
        return replace(run, search_method=None)
    method = asked or (None if starts_anew else _recorded(run, records))
    if method is None:
        method = _of_new_folder(run)
        if method != "exhaustive":
            logger.info("search: coarse to fine (%s), as in a new folder", method)
    settings, identity = replace(run.settings, search=method), run.identity.copy()
    if settings.around is not None:
        refuse_own_means(run.templates.values())
    if settings.search != "exhaustive":
        identity["search_method"] = str(method)
    return replace(run, settings=settings, identity=identity, search_method=method)


def _of_new_folder(run: Run) -> SearchMethod:
    """The method where none is asked for, and no results say which it is."""
    grids = (stack.grid for stack in run.templates.values())
    is_adaptive = (
        run.search_method == AUTO
        and run.settings.rules.searches_coarse_to_fine
        and all(is_worth_levels(grid) for grid in grids)
    )
    return "adaptive" if is_adaptive else "exhaustive"


def search_difference(run: Run, record: Record) -> str:
    """Say how results were searched otherwise than a run searches; empty if they were not."""
    there, here = search_method(record["settings"]), run.search_method
    if here is None or there == str(here) or record["kind"] != OPTIMAL_POSE.name:
        return ""
    return f"{there} there, {here} here"


def _recorded(run: Run, records: Iterable[Record]) -> Search | None:
    """The method of results that are of this run, if there are any."""
    identity = {name: value for name, value in run.identity.items() if name not in OF_NOISE}
    for record in records:
        if record["kind"] != OPTIMAL_POSE.name or differences(record["settings"], identity):
            continue
        if not noise_difference(record["settings"], run.identity):
            method = search_method(record["settings"])
            logger.info("search: as of the results that are there, %s", method)
            return search_done(method)
    return None
