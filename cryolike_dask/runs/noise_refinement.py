"""Signal taken out of images: what the posterior over structures and poses explains of them.

Templates of each image are drawn from that posterior as the likelihood has it, and from the prior;
then a displacement and a rotation under each, and all are weighed by a likelihood in which the
amplitude of the signal is known (`likelihoods/kernels/posterior`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from distributed import Client
from numpy.typing import NDArray

from cryolike_dask.compute.device import count_workers
from cryolike_dask.compute.stream import computed, task
from cryolike_dask.conventions import STANDARD
from cryolike_dask.likelihoods.graph import (
    ComparisonGraph,
    image_rows,
    spread_templates,
    template_rows,
)
from cryolike_dask.likelihoods.interface import pair_likelihoods
from cryolike_dask.likelihoods.settings import Settings
from cryolike_dask.likelihoods.signal import SIGNAL, explained_by_pairs
from cryolike_dask.stacks import ImageStack, TemplateStack

FloatArray = NDArray[np.float64]

PAIRS_OF_IMAGE = 4
"""Templates of each image that are drawn."""
IMAGES_OF_TASK = 32


def explained_power(
    images: ImageStack,
    structures: Sequence[TemplateStack],
    settings: Settings,
    levels: FloatArray,
    rng: np.random.Generator,
    client: Client | None,
) -> FloatArray:
    """Mean power of each ring that structures explain of each image, (image, shell).

    Parameters
    ----------
    images : ImageStack
    structures : sequence of TemplateStack
        With their displacements.
    settings : Settings
        With the noise model of the images.
    levels : (image, 2) float64
        Amplitude of the signal over the standard deviation of the noise; and variance of the noise.
    rng : Generator
    client : Client or None
    """
    n_parts = -(-count_workers(client) // len(structures))
    graphs = [
        ComparisonGraph(images, t if t.chunks else spread_templates(images, t, n_parts), settings)
        for t in structures
    ]
    log_prior = np.concatenate([template_rows(t, STANDARD)["log_prior"] for t in structures])
    log_prior -= np.logaddexp.reduce(log_prior)
    blocks = [pair_likelihoods(graph, "noise-templates") for graph in graphs]
    log_posterior = np.concatenate(computed(blocks, client), axis=1) + log_prior
    log_posterior -= np.logaddexp.reduce(log_posterior, axis=1, keepdims=True)
    # half of them by the prior, so that no weight is large wherever that posterior errs
    log_chance = np.logaddexp(log_posterior, log_prior) - np.log(2)
    cumulated = np.exp(log_chance).cumsum(axis=1)
    uniform = rng.random((2, len(images), PAIRS_OF_IMAGE))
    drawn = np.stack(
        [np.searchsorted(c[:-1], u) for c, u in zip(cumulated, uniform[0], strict=True)]
    )
    log_weight = (log_prior - log_chance)[np.arange(len(images))[:, None], drawn]
    tasks, firsts = [], np.cumsum([0, *(len(t) for t in structures)])
    for i, graph in enumerate(graphs):
        inside = (drawn >= firsts[i]) & (drawn < firsts[i + 1])
        templates = np.where(inside, drawn - firsts[i], -1)
        rows = image_rows(images, STANDARD, graph.group_of_image)
        for start in range(0, len(images), IMAGES_OF_TASK):
            part = slice(start, start + IMAGES_OF_TASK)
            arguments = (rows[part], templates[part], levels[part], uniform[1][part])
            explain = partial(explained_by_pairs, comparison=graph.comparison)
            tasks.append(task(SIGNAL, explain, *arguments))
    found = computed(tasks, client)
    n_parts = len(tasks) // len(graphs)
    by_structure = [found[k : k + n_parts] for k in range(0, len(found), n_parts)]
    # each pair is of one structure: the others have minus infinity there, and nothing explained
    log_weight += np.max([np.concatenate([p[0] for p in one]) for one in by_structure], axis=0)
    rings = np.sum([np.concatenate([p[1] for p in one]) for one in by_structure], axis=0)
    weight = np.exp(log_weight - log_weight.max(axis=1, keepdims=True))
    weight /= weight.sum(axis=1, keepdims=True)
    result: FloatArray = (weight[..., None] * rings).sum(axis=1)
    return result
