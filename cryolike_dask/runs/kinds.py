"""The kinds of results that a run computes, each as one value: everything in which they differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import xarray as xr
from numpy.typing import NDArray

from cryolike_dask import labels
from cryolike_dask.errors import InputError
from cryolike_dask.io.layout import (
    FULL_CORRELATION_FILES,
    OPTIMAL_POSE_FILES,
    REFINED_FILES,
    SEARCH_FILES,
    LikelihoodFiles,
)
from cryolike_dask.io.results import open_full_cross_correlation, open_optimal_pose
from cryolike_dask.labels import KindName
from cryolike_dask.likelihoods import blocks, interface
from cryolike_dask.likelihoods.graph import ComparisonGraph
from cryolike_dask.likelihoods.settings import Settings
from cryolike_dask.stacks import ImageStack, TemplateStack


@dataclass(frozen=True)
class Kind:
    """A kind of results.

    Attributes
    ----------
    name : str
        How records, configurations and messages call it.
    folders : mapping
        The folder of each variable below that of the structure.
    folders_of_search : mapping
        The same of variables that there are besides where not every pose was compared, and where
        poses were refined.
    keeps_every_pose : bool
        Whether results have a value for each template, displacement and rotation, not one for each
        image: they may be too large for a file.
    block : callable
        The block function, which a trial times.
    compute : callable
        Gives the lazy results of a graph, called as in their files.
    open : callable
        Opens what was written.
    """

    name: KindName
    folders: Mapping[str, str]
    folders_of_search: Mapping[str, str]
    keeps_every_pose: bool
    block: Callable[..., NDArray[Any]]
    compute: Callable[[ComparisonGraph], xr.Dataset]
    open: Callable[[LikelihoodFiles], xr.Dataset]

    def folders_in(self, settings: Settings) -> dict[str, str]:
        """The folder of each variable of results with these settings."""
        if settings.search == "exhaustive":
            return dict(self.folders)
        left_out = () if settings.refines else REFINED_FILES
        of_search = self.folders_of_search.items()
        return {**self.folders, **{name: f for name, f in of_search if name not in left_out}}

    def shape(self, images: ImageStack, templates: TemplateStack) -> tuple[int, ...]:
        """The shape of each output."""
        if not self.keeps_every_pose:
            return (len(images),)
        n_displacements, n_inplanes = len(templates.displacements), templates.grid.n_inplanes
        return len(images), len(templates), n_displacements, n_inplanes

    def graph(
        self, images: ImageStack, templates: TemplateStack, settings: Settings, discover_tiles: bool
    ) -> ComparisonGraph:
        """The graph that gives these results, cut as suits them."""
        return ComparisonGraph(
            images,
            templates,
            settings,
            discover_tiles=discover_tiles,
            by_batch=self.keeps_every_pose,
        )


def kind_named(name: str) -> Kind:
    """Find a kind by its name.

    Raises
    ------
    InputError
        If there is none.
    """
    if name not in KINDS:
        raise InputError(f"kind={name!r} is neither {' nor '.join(KINDS)}")
    return KINDS[name]


def _best_poses(graph: ComparisonGraph) -> xr.Dataset:
    return interface.optimal_poses(graph)[list(OPTIMAL_POSE.folders_in(graph.settings))]


def _all_correlations(graph: ComparisonGraph) -> xr.Dataset:
    (variable,) = FULL_CORRELATION_FILES
    return interface.all_correlations(graph).rename({labels.CROSS_CORRELATION: variable})


OPTIMAL_POSE = Kind(
    name="optimal_pose",
    folders=OPTIMAL_POSE_FILES,
    folders_of_search={**SEARCH_FILES, **REFINED_FILES},
    keeps_every_pose=False,
    block=blocks.optimal_poses,
    compute=_best_poses,
    open=open_optimal_pose,
)
FULL_CROSS_CORRELATION = Kind(
    name="full_cross_correlation",
    folders=FULL_CORRELATION_FILES,
    folders_of_search={},
    keeps_every_pose=True,
    block=blocks.all_correlations,
    compute=_all_correlations,
    open=open_full_cross_correlation,
)
KINDS: dict[str, Kind] = {kind.name: kind for kind in (OPTIMAL_POSE, FULL_CROSS_CORRELATION)}
