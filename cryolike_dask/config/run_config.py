"""Running what a configuration describes, with a copy of it beside the results."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr
import yaml
from distributed import Client

from cryolike_dask.analysis.dataset import open_results
from cryolike_dask.analysis.export.tables import write_tables
from cryolike_dask.analysis.populations.cost import plan_populations
from cryolike_dask.compute.device import active_client, torch_threads
from cryolike_dask.config.answer import Populations
from cryolike_dask.config.model import RunConfig
from cryolike_dask.config.plan import RunPlan
from cryolike_dask.config.resolve import (
    RunArguments,
    inputs_of,
    inputs_of_results,
    inputs_with,
    need_inputs,
)
from cryolike_dask.config.subset import ChosenSubset, chosen_subset, subset_in_words
from cryolike_dask.config.text import mapping_of
from cryolike_dask.config.values import shown
from cryolike_dask.errors import InputError, InputFileError, OutputError
from cryolike_dask.io.atomic import replacing
from cryolike_dask.io.layout import CONFIGURATION
from cryolike_dask.labels import Device, SearchAsked
from cryolike_dask.likelihoods.settings import Settings, Tiling
from cryolike_dask.runs.kinds import kind_named
from cryolike_dask.runs.options import NoiseRequest
from cryolike_dask.runs.plan import plan_likelihood
from cryolike_dask.runs.run import Run, open_run
from cryolike_dask.runs.small import takes_seconds
from cryolike_dask.runs.writing import compute_run
from cryolike_dask.version import __version__

logger = logging.getLogger("cryolike_dask")

MARK = "# Copied from"
SKIP_EXIST = re.compile(r"^( +)skip_exist *:.*\n?", re.MULTILINE)


def run_config(config: RunConfig, client: Client | None = None) -> xr.Dataset:
    """Run what a configuration describes, and put a copy of it into the output folder, as
    `run.yaml`.

    The copy is written when nothing speaks against the run any more, before anything is computed,
    and can be run again.

    Parameters
    ----------
    config : RunConfig
        As `read_config` gives it.
    client : distributed.Client, optional
        Where to run; default: the current client, or else this process alone. Workers are neither
        started nor connected to: that is what the command `run` does before it comes here.

    Returns
    -------
    xarray.Dataset
        What was written, lazily read back, as `run_likelihood_optimal_pose` or
        `run_likelihood_full_cross_correlation` give it.

    Raises
    ------
    InputError
        If the configuration asks for workers or a scheduler, and there is no client; or as for
        `run_likelihood_optimal_pose`.
    InputFileError, GridMismatchError, CannotFitError, OutputError, FailedPiecesError, ClusterError
        As for `run_likelihood_optimal_pose`.
    """
    if not isinstance(config, RunConfig):
        raise InputError(f"config is a {type(config).__name__}", remedy="Read it with read_config.")
    client = _client(config, client)
    return run_opened(opened(config), client)


@dataclass(frozen=True, eq=False)
class OpenConfig:
    """A configuration whose inputs are open.

    Attributes
    ----------
    config : RunConfig
    subset : ChosenSubset or None
        The frames of a trajectory that were chosen for it, if it asks for that.
    run : Run
    """

    config: RunConfig
    subset: ChosenSubset | None
    run: Run

    def keep(self) -> None:
        """Write what was run, and the frames that were chosen, into the output folder."""
        keep_copy(self.config)
        if self.subset is not None:
            self.subset.keep()

    @property
    def populations(self) -> Populations | None:
        """How shares are estimated; of frames that stand for others, with their counts."""
        asked = self.config.populations
        if asked is None or self.subset is None or asked.counts is not None:
            return asked
        return asked.model_copy(update={"counts": self.subset.counts})


def run_opened(given: OpenConfig, client: Client | None) -> xr.Dataset:
    """Run what `opened` gives of a configuration, as `run_config` does."""
    config, run, machine = given.config, given.run, given.config.machine
    with torch_threads(machine.threads if client is None else None):
        _make_folders_of(machine.log_file, machine.performance_report)
        kind = kind_named(config.likelihood.kind)
        results = compute_run(run, kind, client, machine.run_options, claimed=given.keep)
    _answer(config, given.populations)
    return results


def plan_config(config: RunConfig, client: Client | None) -> RunPlan:
    """Say what a run of a configuration will cost; nothing is written.

    Parameters
    ----------
    config : RunConfig
    client : distributed.Client or None
        A running cluster is asked; none is started, and the plan is for the workers that the run
        would start.
    """
    machine, inputs = config.machine, inputs_of(config)
    n_workers = None
    if client is None:
        is_small = needs_no_workers(config, opened_of(inputs, machine.device, Tiling()))
        n_workers = 0 if is_small else machine.place.n_workers
    likelihood = plan_likelihood(
        **inputs,
        skip_exist=machine.keeps,
        n_templates_per_batch=machine.n_templates_per_batch,
        n_images_per_batch=machine.n_images_per_batch,
        discover_batch_size=machine.discover_batch_size,
        kind=config.likelihood.kind,
        overwrite=machine.overwrite,
        client=client,
        n_workers=n_workers,
        device=machine.device,
    )
    asked, shares, templates = config.populations, None, inputs["templates"]
    if asked is not None:
        n = likelihood.n_structures
        if templates is not None:
            n = sum(not stack.decoy_of for stack in templates)
        shares = plan_populations(likelihood.n_images, n, draw=asked.draw, n_chains=asked.n_chains)
    return RunPlan(likelihood, subset_in_words(config), shares)


def needs_no_workers(config: RunConfig, run: Run) -> bool:
    """Whether a run for which no number of workers is asked is done while they would start."""
    machine = config.machine
    is_asked = machine.place.workers is not None or machine.place.asks_for_a_scheduler
    # Dask's report is of workers
    return not (is_asked or machine.performance_report) and takes_seconds(
        run, kind_named(config.likelihood.kind)
    )


def searching(config: RunConfig, method: SearchAsked) -> RunConfig:
    """Give the same configuration with another method of search, which a copy of it says too."""
    if config.search.asked == method or config.search.method == method == "adaptive":
        return config
    of_around = {"within_degrees": None, "within_pixels": None, "prior": None}
    others = {"refine": False, "check_poses": True, "error_nat": None}
    search = config.search.model_copy(update={"method": method, **of_around, **others})
    changed = config.model_copy(update={"search": search})
    changed._text = None  # it says another
    return changed


def with_posteriors(config: RunConfig, *, asked: bool) -> RunConfig:
    """Give the same configuration with posteriors over poses asked for or not."""
    if config.search.posteriors == asked:
        return config
    search = config.search.model_copy(update={"posteriors": asked})
    changed = config.model_copy(update={"search": search})
    changed._text = None  # it says another
    return changed


def keep_copy(config: RunConfig) -> None:
    """Write the configuration into its output folder, atomically, in its own words."""
    path = config.output / CONFIGURATION
    is_source = config._source is not None and path.exists() and path.samefile(config._source)
    if not is_source or config._text is None:
        with replacing(path) as file:
            file.write(copy_of(config).encode())


def copy_of(config: RunConfig) -> str:
    """The text of a configuration such that it means the same in any folder."""
    config = _in_new_words(config)
    text, source = config._text, config._source
    origin = "what was given in Python" if source is None else repr(str(source))
    first_line = f"{MARK} {origin}, cryolike-dask {__version__}\n"
    if text is not None and source is not None:
        content = mapping_of(text, source)
        folder = content.get("folder") or str(source.parent)
        start = "" if text.startswith(MARK) else first_line
        start_of_paths = "" if "folder" in content else _dump({"folder": folder})
        copy = start + start_of_paths + text
        if _content(copy) == {**content, "folder": folder}:
            return copy
    return first_line + _dump(config.model_dump(mode="json", exclude_defaults=True))


def _in_new_words(config: RunConfig) -> RunConfig:
    """The same without `skip_exist`, in its text too if that is told there in a line of its own."""
    recompute = None if config.machine.keeps else True
    machine = config.machine.model_copy(update={"skip_exist": None, "recompute": recompute})
    new, text, source = config.model_copy(update={"machine": machine}), config._text, config._source
    if text is not None and source is not None:
        content = mapping_of(text, source)
        section = dict(content.get("machine") or {})
        if "skip_exist" in section:
            replacement = {"recompute": True} if section.pop("skip_exist") is False else {}
            text = SKIP_EXIST.sub(r"\1recompute: true\n" if replacement else "", text)
            wanted = {**content, "machine": {**section, **replacement} or None}
            new._text = text if _content(text) == wanted else None
    return new


def _dump(values: Mapping[str, object]) -> str:
    text: str = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=10**4)
    return text


def _content(text: str) -> dict[Any, Any]:
    try:
        return mapping_of(text, Path(CONFIGURATION))
    except InputFileError:  # a second document, or an indented one
        return {}


def opened(config: RunConfig) -> OpenConfig:
    """Every input open and held against the others; of a trajectory, frames chosen."""
    need_inputs(config)
    subset = chosen_subset(config)
    machine = config.machine
    tiling = Tiling(
        machine.n_images_per_batch, machine.n_templates_per_batch, machine.discover_batch_size
    )
    inputs = inputs_with(config, subset)
    run = opened_of(inputs, machine.device, tiling)
    if config.populations is not None:
        config.populations.refuse(_structures_that_get_shares(run))
    return OpenConfig(config, subset, run)


def _structures_that_get_shares(run: Run) -> list[str] | None:
    """Names of all structures but decoys; None where results will call them otherwise, or the run
    covers some of them only."""
    names = [stack.structure for stack in run.templates.values() if not stack.decoy_of]
    is_all = len(run.templates) == run.n_structures and len(set(names)) == len(names)
    return names if is_all else None


def opened_of(inputs: RunArguments, device: Device, tiling: Tiling) -> Run:
    """The inputs of a run, held against each other."""
    settings = Settings(
        inputs["conventions"],
        device,
        inputs["precision"],
        inputs["tolerance"],
        pose_posteriors=inputs["pose_posteriors"],
    )
    run = open_run(
        inputs["file_config"],
        inputs["params_input"],
        inputs["displacer"],
        settings,
        inputs["images"],
        inputs["templates"],
        NoiseRequest(inputs["noise"], inputs["b_factor"], inputs["degrees_of_freedom"]),
        inputs["search"],
    )
    return run.in_batches(tiling)


def _client(config: RunConfig, client: Client | None) -> Client | None:
    """The client to run on; never this process in place of workers that were asked for."""
    client = active_client(client)
    for name in ("workers", "scheduler", "scheduler_file"):
        asked = getattr(config.machine, name)
        if client is None and asked:
            raise InputError(
                f"machine.{name}={shown(asked)}, but there is no client",
                remedy="Make one, with local_cluster or connect; or use the command: cryolike-dask "
                "run.",
            )
    return client


def _make_folders_of(*files: Path | None) -> None:
    """Make the folders of files that are written while it runs."""
    for path in files:
        if path is not None:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise OutputError(
                    f"cannot be written: {error.strerror or error}", source=path
                ) from error


def _answer(config: RunConfig, populations: Populations | None) -> None:
    """Do what is asked for once all is compared, and log what was written."""
    folder = config.output
    written = [] if populations is None else populations.write(folder)
    if config.report:
        from cryolike_dask.analysis.report.report import write_report

        used = inputs_of_results(folder)
        page = write_report(
            folder,
            templates=used.templates,
            particles=used.particles,
            parameters=used.parameters,
        )
        written.append(page)
    if config.tables:
        written += write_tables(open_results(folder), folder)
    for path in written:
        logger.info("written: %s", path)
