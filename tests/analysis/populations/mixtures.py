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
