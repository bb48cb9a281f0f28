"""The kinds of results that a run computes, each as one value: everything in which they differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import xarray as xr
from numpy.typing import NDArray

from cryolike_dask import labels
from cryolike_dask.errors import InputError
from cryolike_dask.io.layout import (
    FULL_CORRELATION_FILES,
    OPTIMAL_POSE_FILES,
    POSTERIOR_FILES,
    REFINED_FILES,
    SEARCH_FILES,
    LikelihoodFiles,
)
from cryolike_dask.io.results import open_full_cross_correlation, open_optimal_pose
from cryolike_dask.labels import KindName
from cryolike_dask.likelihoods import blocks, interface
from cryolike_dask.likelihoods.comparison import Comparison, Rows
from cryolike_dask.likelihoods.cutting import Cut
from cryolike_dask.likelihoods.graph import ComparisonGraph
from cryolike_dask.likelihoods.settings import Settings
from cryolike_dask.stacks import ImageStack, TemplateStack

if TYPE_CHECKING:
    from cryolike_dask.likelihoods.kernels.radial_basis import RadialBasis


@dataclass(frozen=True)
class Kind:
    """A kind of results.

    Attributes
    ----------
    name : str
        How records, configurations and messages call it.
    folders : mapping
        The folder of each variable below that of the structure.
    more_folders : mapping
        The same of variables that there are besides where not every pose was compared, posteriors
        of poses were asked for, or poses were refined.
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
    more_folders: Mapping[str, str]
    keeps_every_pose: bool
    block: Callable[..., NDArray[Any]]
    compute: Callable[[ComparisonGraph], xr.Dataset]
    open: Callable[[LikelihoodFiles], xr.Dataset]

    def folders_in(self, settings: Settings) -> dict[str, str]:
        """The folder of each variable of results with these settings."""
        is_whole = settings.search == "exhaustive"
        names = (
            *(() if is_whole else labels.OF_SEARCH),
            *(labels.OF_POSTERIOR if settings.pose_posteriors else ()),
            *(labels.REFINED if settings.refines else ()),
        )
        more = {name: of for name, of in self.more_folders.items() if name in names}
        return {**self.folders, **more}

    def shape(self, images: ImageStack, templates: TemplateStack) -> tuple[int, ...]:
        """The shape of each output."""
        if not self.keeps_every_pose:
            return (len(images),)
        n_displacements, n_inplanes = len(templates.displacements), templates.grid.n_inplanes
        return len(images), len(templates), n_displacements, n_inplanes

    def graph(
        self,
        images: ImageStack,
        templates: TemplateStack,
        settings: Settings,
        discover_tiles: bool,
        cut: Cut | None = None,
    ) -> ComparisonGraph:
        """The graph that gives these results, cut as suits them."""
        return ComparisonGraph(
            images,
            templates,
            settings,
            discover_tiles=discover_tiles,
            by_batch=self.keeps_every_pose,
            withheld=cut is not None and cut.withholds(images, templates),
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


def _block_of_poses(
    images: Rows, templates: Rows, basis: RadialBasis, *, comparison: Comparison
) -> Rows:
    poses = blocks.optimal_poses(images, templates, basis, comparison=comparison)
    return blocks.with_log_likelihoods(images, poses[:, 0], comparison=comparison)


def _all_correlations(graph: ComparisonGraph) -> xr.Dataset:
    (variable,) = FULL_CORRELATION_FILES
    return interface.all_correlations(graph).rename({labels.CROSS_CORRELATION: variable})


OPTIMAL_POSE = Kind(
    name="optimal_pose",
    folders=OPTIMAL_POSE_FILES,
    more_folders={**SEARCH_FILES, **POSTERIOR_FILES, **REFINED_FILES},
    keeps_every_pose=False,
    block=_block_of_poses,
    compute=_best_poses,
    open=open_optimal_pose,
)
FULL_CROSS_CORRELATION = Kind(
    name="full_cross_correlation",
    folders=FULL_CORRELATION_FILES,
    more_folders={},
    keeps_every_pose=True,
    block=blocks.all_correlations,
    compute=_all_correlations,
    open=open_full_cross_correlation,
)
KINDS: dict[str, Kind] = {kind.name: kind for kind in (OPTIMAL_POSE, FULL_CROSS_CORRELATION)}
