"""Verification of results: files against their records, and a sample against its inputs."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cryolike_dask.compute.progress import counted
from cryolike_dask.errors import InputError, number
from cryolike_dask.geometry.displacements import DisplacementGrid
from cryolike_dask.geometry.parameters import ImageParameters
from cryolike_dask.io.claims import differences
from cryolike_dask.io.layout import (
    PARAMETERS,
    LikelihoodFiles,
    holds_image_stacks,
    holds_templates,
)
from cryolike_dask.io.parameters import read_parameters
from cryolike_dask.particles.opening import open_particles
from cryolike_dask.runs.decoys import is_given_as_decoy, with_decoys
from cryolike_dask.runs.integrity import (
    Report,
    Result,
    intact_results,
    read_noise_of,
    read_search,
    recorded_settings,
)
from cryolike_dask.runs.origins import check_descriptions
from cryolike_dask.runs.recomputation import beyond_tolerance, compare_again, no_sample
from cryolike_dask.runs.run import Run, open_run
from cryolike_dask.stacks import ImageStack, TemplateStack, one_or_several
from cryolike_dask.structures.opening import open_structures
from cryolike_dask.structures.trajectories.trajectory import Trajectory

logger = logging.getLogger("cryolike_dask")


@dataclass(frozen=True, eq=False)
class Verification:
    """The findings of a verification.

    Attributes
    ----------
    findings : tuple of str
        What is wrong: the file, what is wrong with it, what to do.
    notes : tuple of str
        What was not checked, what is not there, what lies about.
    n_files : int
        Files of those results all of whose files are as recorded.
    sample : xarray.Dataset
        difference and tolerance, dims (sample, quantity), NaN where a kind of result has no such
        quantity; coordinates kind, structure (its number), stack, image_in_stack. The difference of
        a pose is how much less than the best it correlates.
    """

    findings: tuple[str, ...]
    notes: tuple[str, ...]
    n_files: int
    sample: xr.Dataset

    @property
    def ok(self) -> bool:
        """Nothing is wrong with what was checked."""
        return not self.findings


def verify_likelihood(
    folder_output: str | Path,
    params_input: str | Path | ImageParameters | None = None,
    *,
    templates: str | Path | Trajectory | TemplateStack | Sequence[TemplateStack] | None = None,
    images: str | Path | ImageStack | None = None,
    n_samples: int = 16,
    seed: int = 0,
    progress: bool = True,
) -> Verification:
    """Check results against their completion records, and compute a random sample of them again.

    Every file of every record must be there, be a plain tensor of the recorded shape, and have the
    recorded checksum; so must the noise model. The sample is computed in this process in double
    precision, on the CPU, without compression, from the original inputs, which must still be those
    that the records describe. Decoys that the run made of structures are made again. Records name
    inputs but no folders: without `templates` and `images` only files are checked.

    Parameters
    ----------
    folder_output : path
    params_input : path or ImageParameters, optional
        Default: `parameters.npz` in the folder of templates.
    templates : path, Trajectory, TemplateStack or several, optional
        The folder that holds `template_file_list.npy`, or structures, as the run was given them.
    images : path or ImageStack, optional
        The folder that holds `fft`, or particles, as the run was given them.
    n_samples : int
        How many images to compute again, each under one structure; 0: none.
    seed : int
        Same seed, same sample.
    progress : bool
        Show a bar on a terminal or in a notebook, elsewhere a line of the log now and then.

    Returns
    -------
    Verification

    Raises
    ------
    InputError, InputFileError
        If an argument cannot be used, or there is no such output folder. What is wrong with
        results, and inputs that are missing or have changed, are findings.

    Notes
    -----
    Where u is the rounding of the results' precision (1.2e-7 or 2.2e-16), a correlation may differ
    by

        d = correlation_error_bound + 16 u + 2 pi K (2 s / L) u / 2:

    compression; rounding; and what the largest displacement s is rounded by in
    `displacements_set.pt` (K the band limit, L the box), in single precision. A pose that
    correlates up to 2 d less than the best is a tie. With n degrees of freedom and r the best
    correlation, a log-likelihood may differ by

        u |log-likelihood| + n/2 (16 u + 2 r e / (1 - (r + e)^2)):

    storage; the rounding of the image's power, which counts n/2 times; and correlations that are
    off by e: by d if it is integrated; by d without the first term at the best pose, which is not
    compressed, and is compared at the pose that is written. What a search that leaves out poses
    says of itself, log_likelihood_error and n_poses_compared, may differ by a quarter, and the
    former by 0.01 nat: which views are just worth comparing depends on rounding. Measured:
    correlations differ by up to 4 u, log-likelihoods by a tenth of what is allowed.
    """
    n = number("n_samples", n_samples, whole=True, at_least=0)
    rng = np.random.default_rng(number("seed", seed, whole=True, at_least=0))
    files, report = LikelihoodFiles(None, None, Path(folder_output)), Report()
    results = intact_results(
        files, report, partial(counted, title="results checked", shown=progress)
    )
    check_descriptions(files, results, report)
    parts: list[xr.Dataset] = []
    if n and (templates is None or images is None):
        report.notes.append(
            "no result was computed again, for it is not known where the inputs are. Give "
            "templates and images "
            "(--templates, --particles, and --parameters) as the run was given them."
        )
        n = 0
    parameters = _parameters(params_input, templates) if n else None
    with report.listing():
        if results and read_noise_of(files, results[0].record) is None and files.noise.exists():
            report.notes.append(f"{files.noise}: is not of these results, whose noise is white")
    with report.listing():
        search = read_search(files, results[0]) if results else None
        if parameters is not None and search is not None:
            drawn = draw(_of_these_templates(results, templates, report), n, rng)
            run = _open(
                files, read_parameters(parameters), templates, images, search, [r for r, _ in drawn]
            )
            logger.info(
                "computing %d results again in double precision",
                sum(len(rows) for _, rows in drawn),
            )
            for result, rows in counted(drawn, "results computed again", shown=progress):
                with report.listing():
                    parts.append(compare_again(result, rows, run))
                    report.findings += beyond_tolerance(parts[-1], result)
    sample = xr.concat(parts, "sample") if parts else no_sample()
    return Verification(
        tuple(report.findings), tuple(report.notes), sum(len(r.outputs) for r in results), sample
    )


def _parameters(
    given: str | Path | ImageParameters | None, templates: Any
) -> str | Path | ImageParameters:
    if given is not None:
        return given
    if not isinstance(templates, (str, Path)) or not holds_templates(Path(templates)):
        raise InputError(
            "the parameters are not known",
            remedy="Beside structures, give parameters.npz (--parameters).",
        )
    return Path(templates) / PARAMETERS


def draw(
    results: Sequence[Result], n: int, rng: np.random.Generator
) -> list[tuple[Result, NDArray[np.int64]]]:
    """Draw images of results without replacement; each result once, with the rows drawn of it."""
    sizes = np.array([len(result) for result in results])
    ends = sizes.cumsum()
    drawn = np.sort(rng.choice(ends[-1], min(n, int(ends[-1])), replace=False))
    which = np.searchsorted(ends, drawn, side="right")
    return [(results[i], drawn[which == i] - (ends[i] - sizes[i])) for i in np.unique(which)]


def _of_these_templates(results: list[Result], templates: Any, report: Report) -> list[Result]:
    """Without results of decoys that the run was given beside structures, which the files of these
    do not hold."""
    if not isinstance(templates, (str, Path, Trajectory)):
        return results
    known = [result for result in results if not is_given_as_decoy(result)]
    if n_left := len({result.i_template for result in results} - {r.i_template for r in known}):
        report.notes.append(
            f"no result of {n_left} structure(s) given as decoys was computed again. Give all as "
            "templates=[*structures, *as_decoys(...)]."
        )
    return known


def _open(
    files: LikelihoodFiles,
    parameters: ImageParameters,
    templates: Any,
    images: Any,
    search: DisplacementGrid,
    results: Sequence[Result],
) -> Run:
    """Open what these results came from, as the run did."""
    record = results[0].record
    recorded = record["settings"]
    settings = recorded_settings(files, record)
    rules = settings.rules
    if isinstance(templates, (str, Path)) and holds_templates(Path(templates)):
        files, templates = replace(files, folder_templates=Path(templates)), None
    elif isinstance(templates, (str, Path, Trajectory)):
        templates = open_structures(templates, parameters, conventions=rules.name)
    if isinstance(images, (str, Path)) and holds_image_stacks(Path(images)):
        files, images = replace(files, folder_particles=Path(images)), None
    elif isinstance(images, (str, Path)):
        images = open_particles(images, parameters, conventions=rules.name)
    if templates is not None:
        templates = with_decoys(one_or_several(templates, TemplateStack), results)
    run = open_run(
        replace(
            files,
            i_template=sorted({result.i_template for result in results}),
            n_stacks=max(result.i_stack for result in results) + 1,
        ),
        parameters,
        lambda stack: replace(stack, displacements=search),
        settings,
        images,
        templates,
    )
    if other := differences(recorded["parameters"], run.identity["parameters"]):
        raise InputError(f"the parameters are not those of the results: {other}")
    return run
