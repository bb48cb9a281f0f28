"""Images of a mixture of structures that are points, seen through noise: likelihoods are known."""

from __future__ import annotations

import numpy as np
import xarray as xr


def log_likelihoods(rng, points, shares, n_images):
    """Log-likelihoods, (image, structure), and which structure each image shows.

    An image is its structure's point, and unit noise along each axis.
    """
    points = np.asarray(points, float)
    truth = rng.choice(len(points), n_images, p=shares)
    seen = points[truth] + rng.normal(size=(n_images, points.shape[1]))
    return -0.5 * ((seen[:, None] - points) ** 2).sum(axis=-1), truth


def relative(log_likelihood):
    """Likelihoods over the largest of each image."""
    return np.exp(log_likelihood - log_likelihood.max(axis=1, keepdims=True)).astype(np.float32)


def as_results(log_likelihood, names=None, **coords):
    """As `open_results` gives them."""
    n_images, n_structures = log_likelihood.shape
    names = [f"s{j}" for j in range(n_structures)] if names is None else names
    return xr.Dataset(
        {"log_likelihood_integrated": (("structure", "image"), log_likelihood.T)},
        {"structure": np.array(names, object), "image": np.arange(n_images)}
        | {name: ("image", values) for name, values in coords.items()},
    )


def beside_decoys(rng, shares, of_none, n_images, n_decoys, strength=4.0):
    """Log-likelihoods of structures and decoys, (image, structure), and which structure each image
    shows; of none, their number.

    Structures and decoys are points on axes of their own, as far from the middle as the strength
    says. An image of none is unit noise around the middle, as far from each.
    """
    n = len(shares) + n_decoys
    truth = rng.choice(len(shares) + 1, n_images, p=[*np.multiply(shares, 1 - of_none), of_none])
    seen = rng.normal(size=(n_images, n))
    shows = np.flatnonzero(truth < len(shares))
    seen[shows, truth[shows]] += strength
    return strength * seen, truth


def with_decoys(log_likelihood, n_decoys, **coords):
    """As `open_results` gives them, the last being decoys of the first."""
    made = as_results(log_likelihood, **coords)
    of = [""] * (log_likelihood.shape[1] - n_decoys) + ["s0"] * n_decoys
    return made.assign_coords(decoy_of=("structure", np.array(of, object)))
