"""What would make a run cheaper: the same run with one thing changed, planned again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from distributed import Client

from cryolike_dask.config.inputs import Parameters
from cryolike_dask.config.model import RunConfig
from cryolike_dask.config.plan import RunPlan
from cryolike_dask.config.run_config import plan_config, searching
from cryolike_dask.errors import CryolikeError
from cryolike_dask.runs.cost import LikelihoodPlan, duration_of

WORTH_SECONDS = 120.0
"""Of a plan: what takes less need not be cheaper."""
PART_OF_RUN = 0.1
"""Of its time, after which no other is planned any more."""
LEAST_GAIN = 1.2
"""By which another has to be quicker to be named."""
FEWEST_DISPLACEMENTS = 5
"""Along an axis: of a search that has no more, steps are not made wider."""
COARSER = 1.5
OLDER_STEPS = {"n_displacements_x": None, "n_displacements_y": None}


@dataclass(frozen=True)
class Alternative:
    """The run with one thing changed.

    Attributes
    ----------
    what : str
        The keys and values that change, as the file would say them.
    price : str
        What is lost.
    seconds, gain : float
        Its time, and how many times quicker it is.
    """

    what: str
    price: str
    seconds: float
    gain: float

    def __str__(self) -> str:
        quicker = f"about {duration_of(self.seconds)}, {self.gain:.1f} times quicker"
        return f"{self.what}: {quicker}; {self.price}"


def alternatives(
    config: RunConfig, plan: RunPlan, client: Client | None
) -> tuple[Alternative, ...]:
    """What would make a run cheaper, the most first; nothing if it is done in two minutes.

    Parameters
    ----------
    config : RunConfig
    plan : RunPlan
        Its plan, with a time.
    client : distributed.Client or None
        As the plan was made with.
    """
    before = plan.likelihood.seconds
    if before is None or before < WORTH_SECONDS:
        return ()
    found = list(_without_projecting(config, plan.likelihood))
    start = time.monotonic()
    for what, price, changed in _changed(config):
        if time.monotonic() - start > PART_OF_RUN * before:
            break
        try:
            seconds = plan_config(changed, client).likelihood.seconds
        except CryolikeError:  # of results of another search in the folder, say
            continue
        if seconds:
            found.append(Alternative(what, price, seconds, before / seconds))
    gains = (one for one in found if one.gain >= LEAST_GAIN)
    return tuple(sorted(gains, key=lambda one: -one.gain))


def _changed(config: RunConfig) -> Iterator[tuple[str, str, RunConfig]]:
    """Configurations with one thing changed, each with what it says and what is lost."""
    search, grid, structures = config.search, config.parameters, config.structures
    if str(search.asked) == "exhaustive" and config.likelihood.kind == "optimal_pose":
        changed = searching(config, "adaptive")
        yield "search.method: adaptive", "integrals within 0.1 nat", changed
    displacements = search.displacements
    n = displacements.n_displacements_x
    farthest = displacements.max_displacement_pixels
    if n > FEWEST_DISPLACEMENTS:
        step = float(f"{4 * farthest / (n - 1):.3g}")
        wider = {"displacement_step_pixels": step, **OLDER_STEPS}
        changed = config.model_copy(update={"search": search.model_copy(update=wider)})
        yield (
            f"search.displacement_step_pixels: {step:g}",
            "places twice as far apart, and more is lost between them",
            changed,
        )
    if not isinstance(grid, Parameters) or structures.files is None:
        return
    made = grid.made()
    if structures.healpix_order is None and structures.viewing_angles is None:
        degrees = float(f"{made.view_step_degrees * COARSER:.3g}")
        update = {"view_step_degrees": degrees, "viewing_distance": None}
        changed = config.model_copy(update={"parameters": grid.model_copy(update=update)})
        yield (
            f"parameters.view_step_degrees: {degrees:g}",
            f"directions {COARSER:g} times as far apart, and more is lost between them",
            changed,
        )
    angstrom = float(f"{made.resolution_angstrom * COARSER:.3g}")
    update = {"resolution_angstrom": angstrom, "resolution_factor": None}
    changed = config.model_copy(update={"parameters": grid.model_copy(update=update)})
    price = "what is finer tells nothing"
    yield f"parameters.resolution_angstrom: {angstrom:g}", price, changed


def _without_projecting(config: RunConfig, plan: LikelihoodPlan) -> Iterator[Alternative]:
    """The run with templates that were written before, in place of projecting them for each image
    stack; of an adaptive search reading is not told apart."""
    if config.structures.files is None or plan.n_stacks < 2:
        return
    before, reading = plan.seconds or 0.0, plan.read_seconds or 0.0
    seconds = before - reading * (1 - 1 / plan.n_stacks) / plan.n_workers
    what = "structures.templates, written before by `cryolike-dask templates`"
    if seconds > 0:
        yield Alternative(what, "room on the disk", seconds, before / seconds)
