"""What images of known structures tell of the shares of structures: confusion, information, and how
many particles are needed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.special import logsumexp

from cryolike_dask import labels
from cryolike_dask.analysis.populations.maximum import Maximum
from cryolike_dask.analysis.populations.passes import Images
from cryolike_dask.analysis.populations.precision import groups

N_BOOTSTRAP = 100
MOST_PARTICLES = 1e9
"""More than anybody has: a share that needs more is never known."""
LARGEST_SD = 0.5
"""Of anything between 0 and 1."""
FLAT = 1e-13
"""Of the sum of all curvatures: along a direction of less, rounding is all that is seen."""
PARTICLES = np.round(10 ** np.arange(2, 7.01, 0.25)).astype(np.int64)
"""For which errors of shares are given."""
GROUP_DIMS = ("structure_group", "structure_group_other")

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class KnownImages:
    """Images whose structures are known, which stand for a mixture of structures.

    Attributes
    ----------
    log_likelihood : float64 array, (image, structure)
    truth : int array, (image,)
        Position of the structure that each image shows; each structure has two images or more.
    shares : float64 array, (structure,)
        Of the mixture, above 0, adding up to 1.
    """

    log_likelihood: Floats
    truth: Integers
    shares: Floats

    @property
    def n_of_each(self) -> Integers:
        """Images of each structure."""
        return np.bincount(self.truth, minlength=len(self.shares)).astype(np.int64)

    @property
    def weight(self) -> Floats:
        """What each image counts, so that structures have their shares, (image,)."""
        weight: Floats = (self.shares / self.n_of_each)[self.truth]
        return weight

    def counted(self, weight: Floats) -> Images:
        """The images, each counted so often."""
        best = self.log_likelihood.max(axis=1, keepdims=True)
        return Images(np.exp(self.log_likelihood - best).astype(np.float32), weight)

    def mean(self, values: Floats) -> tuple[Floats, Floats]:
        """Mean over the images of each structure of values, (image, ...), and its standard error:
        (structure, ...) each."""
        parts = [values[self.truth == j] for j in range(len(self.shares))]
        error = [part.std(axis=0, ddof=1) / np.sqrt(len(part)) for part in parts]
        return np.array([part.mean(axis=0) for part in parts]), np.array(error)


def design_of(known: KnownImages, error: float, n_particles: int, seed: int) -> xr.Dataset:
    """Say what images of known structures tell; variables, attributes and `n_particles` are those
    of `cryolike_dask.design`, but for the names of structures."""
    everyone = np.arange(len(known.shares))
    images = known.counted(known.weight)
    information = images.curvature(known.shares, everyone)
    group = _groups(known, information, n_particles)
    needs = _needs(known, images, information, group, error, seed)
    one, curve = (labels.STRUCTURE,), ("n_particles", labels.STRUCTURE)
    sd = np.minimum(np.sqrt((needs.root**2).sum(axis=1) / PARTICLES[:, None]), LARGEST_SD)
    variables: dict[str, tuple[Any, ...]] = {
        "share": (one, known.shares, "share that the structure is supposed to have", "1"),
        "n_simulated": (one, known.n_of_each, "particles simulated of the structure", "1"),
        labels.POPULATION_SD: (curve, sd, "standard error of a share, of so many particles", "1"),
        labels.GROUP: (
            one,
            group,
            f"the same for structures that {n_particles:,} particles do not tell apart",
            "1",
        ),
        **_said("", known, everyone, (labels.STRUCTURE, labels.STRUCTURE_OTHER)),
        **_said("group_", known, group, GROUP_DIMS),
        **needs.variables(error),
    }
    return xr.Dataset(
        {
            name: (dims, values, {"long_name": what, "units": unit})
            for name, (dims, values, what, unit) in variables.items()
        },
        coords={
            "n_particles": PARTICLES,
            **{dim: np.arange(group.max() + 1) for dim in GROUP_DIMS},
        },
    )


def _groups(known: KnownImages, information: Floats, n_particles: int) -> Integers:
    """Structures that so many particles do not tell apart have one number, as `populations` says
    of as many images."""
    n, k = float(n_particles), len(known.shares)
    at_the_truth = Maximum(known.shares, np.full(k, n), 0.0, 0.0, 0)
    return groups(known.counted(n * known.weight), at_the_truth, n * information)


def _said(
    prefix: str, known: KnownImages, group: Integers, dims: tuple[str, str]
) -> dict[str, tuple[Any, ...]]:
    """Confusion of, and information on, structures or groups of them, (structure,)."""
    n_groups = int(group.max()) + 1
    logs = known.log_likelihood + np.log(known.shares)
    joint = np.stack([logsumexp(logs[:, group == g], axis=1) for g in range(n_groups)], axis=1)
    share = np.bincount(group, known.shares)
    log_posterior = joint - logsumexp(joint, axis=1, keepdims=True)
    posterior = np.exp(log_posterior)
    # how much more probable the truth is than beforehand: the mean is mutual information
    gain = (log_posterior - np.log(share)) / np.log(2)
    told = gain[np.arange(len(gain)), group[known.truth]]
    # each row of a group is the mean of those of its structures by their shares
    rows = np.where(np.arange(n_groups)[:, None] == group, known.shares, 0) / share[:, None]
    mean, error = known.mean(posterior)
    is_best = (posterior.argmax(axis=1)[:, None] == np.arange(n_groups)).astype(np.float64)
    best, _ = known.mean(is_best)
    n = known.n_of_each[:, None]
    # the standard deviation of a frequency after n trials (Jeffreys), which is not 0 where none is
    # seen
    count = best * n
    counting = np.sqrt((count + 0.5) * (n - count + 0.5) / (n + 2)) / (n + 1)
    value, value_error = _over_all(known, told)
    what = "groups" if prefix else "structures"
    return {
        f"{prefix}confusion": (
            dims,
            rows @ mean,
            "mean probability of the other, over images that show the one",
            "1",
        ),
        f"{prefix}confusion_error": (dims, _in_rows(rows, error), "its standard error", "1"),
        f"{prefix}confusion_best": (
            dims,
            rows @ best,
            "part of the images that show the one whose most probable is the other",
            "1",
        ),
        f"{prefix}confusion_best_error": (
            dims,
            _in_rows(rows, counting),
            "its standard error, by counting",
            "1",
        ),
        f"{prefix}mutual_information": (
            (),
            value,
            f"mutual information of an image and the {what}",
            "bit",
        ),
        f"{prefix}mutual_information_error": ((), value_error, "its standard error", "bit"),
        f"{prefix}mutual_information_bound": (
            (),
            (share * np.log2(1 / share)).sum(),
            f"entropy of the shares of {what}: no image tells more",
            "bit",
        ),
    }


def _over_all(known: KnownImages, values: Floats) -> tuple[float, float]:
    """Mean over the mixture of a value of each image, and its standard error."""
    mean, error = known.mean(values)
    return float(known.shares @ mean), float(np.sqrt(known.shares**2 @ error**2))


def _in_rows(rows: Floats, error: Floats) -> Floats:
    joined: Floats = np.sqrt(rows**2 @ error**2)
    return joined


@dataclass(frozen=True, eq=False)
class _Needs:
    """Particles that are needed, and the root of the covariance of shares that one particle
    leaves."""

    root: Floats
    of_each: Floats
    of_each_error: Floats
    of_worst: float
    of_worst_error: float
    of_groups: Floats
    of_groups_error: Floats

    def variables(self, error: float) -> dict[str, tuple[Any, ...]]:
        """As they stand in a Dataset."""
        one, groups = (labels.STRUCTURE,), GROUP_DIMS[:1]
        of = f"particles of which the share has a standard error of {error:g}; infinite: never"
        its = "its standard error"
        return {
            "particles_needed": (one, self.of_each, of, "1"),
            "particles_needed_error": (one, self.of_each_error, its, "1"),
            "particles_needed_worst": ((), self.of_worst, f"{of}; for the worst structure", "1"),
            "particles_needed_worst_error": ((), self.of_worst_error, its, "1"),
            "group_particles_needed": (groups, self.of_groups, f"{of}; for a group", "1"),
            "group_particles_needed_error": (groups, self.of_groups_error, its, "1"),
        }


def _needs(
    known: KnownImages,
    images: Images,
    information: Floats,
    group: Integers,
    error: float,
    seed: int,
) -> _Needs:
    """From the Fisher information of an image; errors by drawing the images of each structure
    again."""
    members = (np.arange(group.max() + 1)[:, None] == group).astype(np.float64)
    k, everyone = len(known.shares), np.arange(len(known.shares))

    def needed(root: Floats) -> Floats:
        """Of each structure, of the worst, and of each group."""
        each, of_groups = ((one**2).sum(axis=1) for one in (root, members @ root))
        found = np.concatenate([each, [each.max()], of_groups]) / error**2
        return np.where(found > MOST_PARTICLES, np.inf, found)

    root = root_of_covariance(information)
    rng = np.random.default_rng(seed)
    rows = [np.flatnonzero(known.truth == j) for j in everyone]
    again = []
    for _ in range(N_BOOTSTRAP):
        copies = np.zeros(len(known.truth))
        for its in rows:
            drawn = rng.integers(len(its), size=len(its))
            copies[its] = np.bincount(drawn, minlength=len(its))
        drawn_again = Images(images.relative, copies * images.copies)
        again.append(needed(root_of_covariance(drawn_again.curvature(known.shares, everyone))))
    value, finite = needed(root), np.isfinite(again).all(axis=0)
    sd = np.where(finite & np.isfinite(value), np.std(np.where(finite, again, 0), axis=0), np.nan)
    return _Needs(
        root,
        value[:k],
        sd[:k],
        float(value[k]),
        float(sd[k]),
        value[k + 1 :],
        sd[k + 1 :],
    )


def root_of_covariance(information: Floats) -> Floats:
    """A root R of the covariance R R' of shares, whose sum is held, after one image that tells so
    much; of n images it is an n-th of it. Sums of shares are well known by R where R R' cancels.

    Parameters
    ----------
    information : float64 array, (structure, structure)
        Less the second derivative of the log-likelihood, in the mean over images. Structures that
        are alike make it singular: the covariance is then as large as rounding allows.
    """
    k = len(information)
    # an orthonormal basis of what keeps the sum: structures that are alike are one direction of it,
    # and do not spoil what is known of others
    basis = np.linalg.qr(np.column_stack([np.ones(k), np.eye(k)[:, 1:]]))[0][:, 1:]
    curvature, directions = np.linalg.eigh(basis.T @ information @ basis)
    spread = basis @ directions / np.sqrt(np.maximum(curvature, FLAT * np.trace(information)))
    return np.asarray(spread, np.float64)
