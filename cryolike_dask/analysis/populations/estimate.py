"""The shares of structures among the images, with their errors."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cryolike_dask import labels
from cryolike_dask.analysis.decoys.of_results import has_decoys
from cryolike_dask.analysis.populations.confusion import confusion
from cryolike_dask.analysis.populations.cost import draws_unasked
from cryolike_dask.analysis.populations.gibbs import Posterior, posterior
from cryolike_dask.analysis.populations.likelihoods import Likelihoods, identity_of, likelihoods_of
from cryolike_dask.analysis.populations.maximum import WITHIN, Maximum, maximum_likelihood
from cryolike_dask.analysis.populations.micrographs import LARGEST_P, heterogeneity
from cryolike_dask.analysis.populations.none_of_these import none_of_these
from cryolike_dask.analysis.populations.passes import Images
from cryolike_dask.analysis.populations.precision import Precision, groups, precision
from cryolike_dask.analysis.populations.priors import OfEach, concentration, one_of_each, said
from cryolike_dask.analysis.populations.resampling import bootstrap, of_parts
from cryolike_dask.errors import InputError, counted, number

PROBABILITY = 0.95
"""That shares lie in their intervals."""
MOST_RESAMPLED = 10**6
"""Cells of a matrix that is resampled unless told otherwise."""
N_BOOTSTRAP = 200

logger = logging.getLogger("cryolike_dask")

Floats = NDArray[np.float64]


def populations(
    results: xr.Dataset,
    *,
    prior: float | OfEach = 1.0,
    counts: OfEach | None = None,
    draw: bool | None = None,
    n_chains: int = 4,
    n_bootstrap: int | None = None,
    seed: int = 0,
    decoys: bool = True,
    scratch: str | Path | None = None,
) -> xr.Dataset:
    """Estimate which share of the particles shows each structure.

    Each image is taken to show one of the structures, each structure with a probability, its
    share. Shares are of the particles that were given, not of the sample: picking, ice and earlier
    selections may favour some. Where decoys were computed beside structures, images may show none,
    and shares are those of the images that show one.

    Parameters
    ----------
    results : xarray.Dataset
        As `open_results` gives it, or any Dataset with `log_likelihood_integrated`, (structure,
        image).
    prior : float, or one for each structure
        Concentration of the Dirichlet prior; a mapping goes by names. 1: all shares are equally
        likely. With `counts`: of all structures together, divided as these.
    counts : one for each structure, optional
        What each structure stands for, such as the number of frames of its cluster in a simulation:
        the prior is centred on their shares, and `weight` says by what factor the images change
        these.
    draw : bool, optional
        Whether to draw from the posterior; default: up to 1e7 likelihoods. Without, shares are
        those of largest likelihood, and errors follow from its curvature.
    n_chains : int
    n_bootstrap : int, optional
        Sets of images, and of micrographs, drawn with replacement; 0 for none. Default: 200 up to
        1e6 likelihoods.
    seed : int
        Of all that is random.
    decoys : bool
        Whether those that were computed tell how many images show none of the structures.
    scratch : path, optional
        A folder for matrices of more than a gigabyte, from which a second call goes on if the
        first was killed; it is removed once all is done. Default: a folder that is not kept.

    Returns
    -------
    xarray.Dataset
        Dims (structure): `population`, `population_sd`, `population_interval` (structure, bound) of
        95%, `population_covariance`; `population_maximum_likelihood`, `population_fisher_sd`;
        `group`, the same for structures that the images cannot tell apart, and
        `group_population`, `group_population_sd`; `expected_confusion` and, of simulated particles,
        `found_confusion`, (structure, structure_other). If drawn, `population_draws`, (chain,
        draw, structure), `r_hat`, `effective_draws`; if resampled, `population_bootstrap_sd`
        (resampled, structure), and `population_of_half_set` where half-sets are recorded. With
        `counts`, `weight`. With decoys, `population_of_none`, the part of all images that show
        none, `population_of_none_sd` and `population_of_none_interval` (bound). Attributes say of
        how many images, under which prior.

    Raises
    ------
    InputError
        If there are no likelihoods, or the prior does not fit the structures.

    Notes
    -----
    An image that shows none of T structures and D decoys is held to prefer each with the same
    probability. The likelihood of shares w is then the product over images of

        p_i + (1 - p_i) (T + D) sum_j w_j L_ij / sum_k L_ik,

    with j over structures, k over decoys too, and p_i the probability of none, which falls with the
    log-likelihood of the best of all less their mean and is otherwise free.
    """
    number("n_chains", n_chains, whole=True, at_least=1)
    number("seed", seed, whole=True, at_least=0)
    if n_bootstrap is not None:
        number("n_bootstrap", n_bootstrap, whole=True, at_least=0)
    where = None if scratch is None else Path(scratch)
    with likelihoods_of(results, where, decoys=decoys and has_decoys(results)) as likelihoods:
        names = likelihoods.structures
        n_cells = likelihoods.relative.size
        shares_before = None if counts is None else one_of_each("counts", counts, names)
        concentrations = concentration(prior, shares_before, names)
        if draw is None:
            draw = draws_unasked(n_cells)
        if n_bootstrap is None:
            n_bootstrap = N_BOOTSTRAP if n_cells <= MOST_RESAMPLED else 0
        if not draw and not (isinstance(prior, Real) and prior == 1.0):
            raise InputError(
                f"prior={prior} of a posterior that is not drawn",
                remedy="Give draw=True, or leave the prior.",
            )
        none = none_of_these(likelihoods, PROBABILITY, seed)
        images = Images(
            likelihoods.relative,
            np.ones(likelihoods.n_images),
            None if none is None else none.likelihood,
        )
        maximum = maximum_likelihood(
            images,
            likelihoods.start,
            each=lambda step: likelihoods.reached(step.shares, step.certificate),
        )
        if maximum.certificate > WITHIN:
            logger.warning(
                "shares of largest likelihood are known to within %.2g nat only",
                maximum.certificate,
            )
        errors = precision(images, maximum, PROBABILITY)
        group = groups(images, maximum, errors.information)
        drawn = posterior(images, concentrations, group, n_chains, seed) if draw else None
        estimate = _estimate(likelihoods.structures, group, maximum, errors, drawn)
        shares = estimate[labels.POPULATION].values
        shown = images.copies if none is None else none.shown(images, shares)
        estimate.update(confusion(results, likelihoods, shown, shares))
        estimate.update(_resampled(results, likelihoods, images, maximum, n_bootstrap, seed))
        differing = _differing_micrographs(results, likelihoods, images, maximum, errors, seed)
    if shares_before is not None:
        weight = estimate[labels.POPULATION] / (shares_before / shares_before.sum())
        estimate["weight"] = weight.assign_attrs(
            long_name="share over that of the counts: what each of what it stands for weighs"
        )
    if none is not None:
        estimate = estimate.assign(none.variables()).assign_attrs(n_decoys=none.n_decoys)
    estimate = estimate.assign_attrs(
        n_images=likelihoods.n_images,
        n_images_left_out=likelihoods.n_left_out,
        results=identity_of(results),
        prior=said(concentrations),
        method="posterior mean" if draw else "maximum likelihood",
        probability_of_intervals=PROBABILITY,
        certificate_nat=maximum.certificate,
        log_likelihood_relative=maximum.log_likelihood,
        seed=seed,
        **_about_draws(drawn),
        **differing,
    )
    if warning := about_micrographs(estimate):
        logger.warning("%s", warning)
    return estimate


def _estimate(
    names: Sequence[str],
    group: NDArray[np.int64],
    maximum: Maximum,
    errors: Precision,
    drawn: Posterior | None,
) -> xr.Dataset:
    """Shares and their errors: of the posterior where there is one."""
    if drawn is None:
        mean, covariance = maximum.shares, errors.covariance
        sd, interval = errors.sd, errors.interval
    else:
        flat = drawn.draws.reshape(-1, len(names))
        mean, sd = flat.mean(axis=0), flat.std(axis=0)
        covariance = np.atleast_2d(np.cov(flat, rowvar=False))
        tail = (1 - PROBABILITY) / 2
        interval = np.quantile(flat, [tail, 1 - tail], axis=0).T
    same = group[:, None] == group
    of_group = np.where(same, covariance, 0).sum(axis=1)
    of_group = np.bincount(group, of_group)[group]
    one, two = (labels.STRUCTURE,), (labels.STRUCTURE, labels.STRUCTURE_OTHER)
    variables: dict[str, tuple[Any, ...]] = {
        labels.POPULATION: (one, mean, "share of the images that show the structure"),
        labels.POPULATION_SD: (one, sd, "standard deviation of the share"),
        labels.POPULATION_INTERVAL: (
            (labels.STRUCTURE, "bound"),
            interval,
            "the share lies between",
        ),
        "population_covariance": (two, covariance, "covariance of shares"),
        labels.POPULATION_MAXIMUM_LIKELIHOOD: (
            one,
            maximum.shares,
            "share of largest likelihood",
        ),
        labels.POPULATION_FISHER_SD: (
            one,
            errors.sd,
            "standard deviation of the share by the curvature of the likelihood",
        ),
        labels.GROUP: (one, group, "the same for structures that the images cannot tell apart"),
        labels.GROUP_POPULATION: (one, same @ mean, "share of all structures of the group"),
        labels.GROUP_POPULATION_SD: (
            one,
            np.sqrt(np.maximum(of_group, 0)),
            "its standard deviation",
        ),
    }
    if drawn is not None:
        variables |= {
            "population_draws": (
                ("chain", "draw", labels.STRUCTURE),
                drawn.draws,
                "shares drawn from their posterior",
            ),
            "r_hat": (one, drawn.r_hat, "how far chains differ: 1 if they agree"),
            "effective_draws": (
                one,
                drawn.effective_draws,
                "draws that are worth independent ones",
            ),
        }
    structures = np.array(names, object)
    return xr.Dataset(
        {k: (dims, values, {"long_name": what}) for k, (dims, values, what) in variables.items()},
        coords={
            labels.STRUCTURE: structures,
            labels.STRUCTURE_OTHER: structures,
            "bound": np.array(["lower", "upper"], object),
        },
    )


def _resampled(
    results: xr.Dataset,
    likelihoods: Likelihoods,
    images: Images,
    maximum: Maximum,
    n: int,
    seed: int,
) -> dict[str, xr.DataArray]:
    """Standard deviations by a bootstrap, and shares of half-sets."""
    if not n:
        return {}
    ways: dict[str, NDArray[np.int64] | None] = {"image": None}
    members = _members(results, likelihoods, labels.MICROGRAPH)
    if members is not None:
        ways["micrograph"] = members
    sd = [bootstrap(images, maximum.shares, n, seed, which).std(axis=0) for which in ways.values()]
    found = {
        "population_bootstrap_sd": xr.DataArray(
            sd,
            dims=("resampled", labels.STRUCTURE),
            coords={"resampled": np.array(list(ways), object)},
            attrs={"long_name": f"standard deviation of the share, of {n} sets drawn again"},
        )
    }
    halves = _members(results, likelihoods, labels.RANDOM_SUBSET)
    if halves is not None:
        numbers = range(int(halves.max()) + 1)
        recorded = likelihoods.recorded(results, labels.RANDOM_SUBSET)
        found["population_of_half_set"] = xr.DataArray(
            of_parts(images, halves, numbers),
            dims=("half_set", labels.STRUCTURE),
            coords={"half_set": np.unique(recorded)},
            attrs={"long_name": "share of largest likelihood, of one half-set alone"},
        )
    return found


def _members(
    results: xr.Dataset, likelihoods: Likelihoods, coordinate: str
) -> NDArray[np.int64] | None:
    """The number of the micrograph or half-set of each image, from 0; none where it is not
    recorded of all, or is the same."""
    if coordinate not in results.coords:
        return None
    values = likelihoods.recorded(results, coordinate)
    is_unknown = values < 0 if values.dtype.kind in "iu" else values.astype(str) == ""
    distinct, members = np.unique(values, return_inverse=True)
    return None if is_unknown.any() or len(distinct) < 2 else members.astype(np.int64)


def _differing_micrographs(
    results: xr.Dataset,
    likelihoods: Likelihoods,
    images: Images,
    maximum: Maximum,
    errors: Precision,
    seed: int,
) -> dict[str, float | int]:
    """Whether micrographs differ by more than chance."""
    members = _members(results, likelihoods, labels.MICROGRAPH)
    if members is None:
        return {}
    found = heterogeneity(images, maximum.shares, errors.information, members, seed)
    if found is None:
        return {}
    return {
        "n_micrographs": found.n_micrographs,
        "micrograph_variance_ratio": found.ratio,
        "micrograph_p_value": found.p_value,
    }


def about_micrographs(estimate: xr.Dataset) -> str:
    """A warning where shares differ between micrographs by more than chance; else empty."""
    p_value = estimate.attrs.get("micrograph_p_value", 1.0)
    if p_value >= LARGEST_P:
        return ""
    return (
        f"Shares differ between {counted(estimate.attrs['n_micrographs'], 'micrograph')} by more "
        f"than chance ({estimate.attrs['micrograph_variance_ratio']:.2g} times the variance, p = "
        f"{p_value:.2g}): errors that take images for independent are too small. A bootstrap over "
        "micrographs (population_bootstrap_sd) says by how much."
    )


def _about_draws(drawn: Posterior | None) -> dict[str, float | int]:
    if drawn is None:
        return {}
    if not drawn.converged:
        logger.warning(
            "chains do not agree after %d sweeps (R-hat %.3f, %.0f effective draws): some "
            "structures are too alike; look at groups, or draw with structures merged",
            drawn.n_sweeps,
            drawn.r_hat.max(),
            drawn.effective_draws.min(),
        )
    return {"n_sweeps": drawn.n_sweeps, "n_images_of_one_structure": drawn.n_counted}
