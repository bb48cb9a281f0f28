"""Search around poses that are recorded with the particles: views and rotations within an angle,
displacements within a window about where the particle is recorded."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
from numpy.typing import NDArray

from cryolike_dask.geometry.known_poses import Around
from cryolike_dask.geometry.symmetry import point_group
from cryolike_dask.io.sources import evenly_spread
from cryolike_dask.likelihoods.comparison import Comparison, Rows
from cryolike_dask.likelihoods.graph import ComparisonGraph, image_rows
from cryolike_dask.likelihoods.poses import POSE, combine, no_poses
from cryolike_dask.likelihoods.search.adaptive import FINER, step_of_band
from cryolike_dask.likelihoods.search.coarser import spacing_of_views
from cryolike_dask.likelihoods.search.known_rows import (
    KNOWN,
    Nodes,
    check_poses,
    file_of,
    known_poses,
    say_edges,
    sigmas,
    slope_of_trace,
    trace_terms,
    with_least_trace,
)
from cryolike_dask.likelihoods.search.places import Arcs, FloatArray, Window, all_places
from cryolike_dask.likelihoods.search.refined import (
    REFINED_POSE,
    CanTurn,
    Reach,
    refined_poses,
)
from cryolike_dask.likelihoods.search.windows import among_everything, optimal_poses_in_windows
from cryolike_dask.stacks import ImageStack, TemplateStack

if TYPE_CHECKING:
    from cryolike_dask.likelihoods.kernels.radial_basis import RadialBasis

logger = logging.getLogger("cryolike_dask")

FEWEST_STEPS = 4
"""From the middle of a window to its end."""
IMAGES_CHECKED = 100
"""Of which recorded poses are compared with those that are found."""


@dataclass(frozen=True, eq=False)
class Alike:
    """Poses that look the same as a recorded one, and how the prior falls about each.

    Attributes
    ----------
    mates : (mate, 3, 3) float64
        Rotations of the structure that leave it as it is: poses may be recorded in any of its
        units.
    slope : float
        Of the logarithm of the prior of rotations, over the trace of that from the recorded pose.
    """

    mates: FloatArray
    slope: float = 0.0


@dataclass(frozen=True, eq=False)
class AroundKnown:
    """A search around the recorded poses of images, as graphs.

    Attributes
    ----------
    graph : ComparisonGraph
    around : Around
    known : (image,) KNOWN
        Without what trace they ask for.
    """

    graph: ComparisonGraph
    around: Around
    known: Rows

    @classmethod
    def of(cls, graph: ComparisonGraph, around: Around) -> AroundKnown:
        """Refuses images whose poses are not recorded, or not in the search."""
        return cls(graph, around, known_poses(graph.images, graph.templates, around))

    def records(self, found: da.Array | None) -> da.Array:
        """Records of the best poses, (image, template chunk), POSE.

        Parameters
        ----------
        found : (image,) POSE, or None
            Of `images_to_check`, among all poses: nothing is compared unless they are the recorded
            ones.
        """
        templates = self.graph.templates
        window = window_around(self.around, templates)
        at_window = ComparisonGraph(
            self.graph.images,
            replace(templates, displacements=window.displacements),
            replace(self.graph.settings, search="exhaustive"),
            discover_tiles=self.graph.comparison.discover_tiles,
        )
        known = self._rowwise(
            with_least_trace,
            (self._known(), "m"),
            *(() if found is None else ((self._checked(found), "c"),)),
            dtype=KNOWN,
            nodes=Nodes.of(templates),
            around=self.around,
            weights=templates.viewing.weight,
        )
        return at_window.blockwise(
            optimal_poses_around,
            "search-around",
            POSE,
            one_per_chunk=True,
            more=((known, "m"), (self._views(), "vij")),
            window=window,
            alike=Alike(
                point_group(templates.viewing.symmetry).rotations, slope_of_trace(self.around)
            ),
        )

    def with_edges_said(self, poses: da.Array) -> da.Array:
        """The same poses, (image,) POSE; a message tells of those at the end of what was looked
        at."""
        return self._rowwise(
            say_edges,
            (poses, "m"),
            (self._known(), "m"),
            dtype=POSE,
            nodes=Nodes.of(self.graph.templates),
            around=self.around,
        )

    def refined(self, poses: da.Array) -> da.Array:
        """Best poses, (image,) POSE, or the recorded ones, refined: (image,) REFINED_POSE."""
        graph, templates = self.graph, self.graph.templates
        if not isinstance(templates.source, CanTurn):
            logger.info(
                "%s: views are those of its templates, and are not refined: their structure is "
                "not known; in-plane rotations and displacements are",
                templates.structure,
            )
        rows = image_rows(graph.images, graph.comparison.conventions, graph.group_of_image)
        spacing = spacing_of_views(templates.viewing)
        return self._rowwise(
            refined_poses,
            (da.from_array(rows, chunks=(graph.images.chunks,)), "m"),
            (poses, "m"),
            (self._known(), "m"),
            dtype=REFINED_POSE,
            comparison=graph.comparison,
            reach=Reach(spacing / 2, templates.grid.pixel_size_angstrom),
        )

    def _checked(self, found: da.Array) -> da.Array:
        rows = evenly_spread(len(self.graph.images), IMAGES_CHECKED)
        return da.blockwise(
            check_poses,
            "c",
            found,
            "m",
            da.from_array(self.known[rows], chunks=-1),
            "m",
            self._views(),
            "vij",
            new_axes={"c": 1},
            nodes=Nodes.of(self.graph.templates),
            source=file_of(self.graph.images),
            concatenate=True,
            dtype=np.bool_,
            meta=np.empty(0, np.bool_),
            token="check-recorded-poses",
        )

    def _rowwise(
        self,
        function: Callable[..., Rows],
        *arrays: tuple[da.Array, str],
        dtype: np.dtype[Any],
        **options: Any,
    ) -> da.Array:
        """Call a function with all views, and the rows of each chunk of images."""
        return da.blockwise(
            function,
            "m",
            self._views(),
            "vij",
            *(item for pair in arrays for item in pair),
            concatenate=True,
            dtype=dtype,
            meta=np.empty(0, dtype),
            **options,
        )

    def _known(self) -> da.Array:
        return da.from_array(self.known, chunks=(self.graph.images.chunks,))

    def _views(self) -> da.Array:
        return da.from_array(self.graph.templates.viewing.rotations(), chunks=-1)


def window_around(around: Around, templates: TemplateStack) -> Window:
    """The window of displacements about a recorded place, in steps that the band asks for, or finer
    ones in a small window; a single displacement stands for a step of the search."""
    search, grid = templates.displacements, templates.grid
    half_width = around.within_pixels * grid.pixel_size_angstrom
    if half_width == 0:
        return Window.of((0, 0), search.steps, search)
    _, sigma = sigmas(around, grid.pixel_size_angstrom)
    step = min(step_of_band(grid, 1), half_width / FEWEST_STEPS)
    steps = step if search.steps[0] else 0.0, step if search.steps[1] else 0.0
    return replace(Window.of((half_width, half_width), steps, search, FINER), sigma=sigma)


def images_to_check(images: ImageStack) -> ImageStack:
    """Some of the images, whose recorded poses are compared with what is found."""
    return images[evenly_spread(len(images), IMAGES_CHECKED)]


def optimal_poses_around(
    image_rows: Rows,
    template_rows: Rows,
    known: Rows,
    views: FloatArray,
    basis: RadialBasis = (),
    *,
    comparison: Comparison,
    window: Window,
    alike: Alike,
) -> NDArray[np.void]:
    """Best pose of each image around its recorded one among these templates, and its likelihood
    over all that are near: (image, 1), POSE.

    Parameters
    ----------
    image_rows, template_rows : structured arrays
    known : (image,) KNOWN
    views : (view, 3, 3) float64
        Rz(azimuth) Ry(polar) of all templates.
    basis : RadialBasis
        Of `comparison`.
    comparison : Comparison
        Its displacements are those of the window.
    window : Window
    alike : Alike
    """
    is_all = known["covers"] & (known["least_trace"] <= -1)
    near, arcs = _near(known, views[template_rows["index"]], alike)
    near &= ~is_all[:, None]
    mate, image = np.nonzero(near.any(axis=2))
    places = np.where(known["covers"][:, None], np.nan, known["place"])[image, None]
    of_mates = optimal_poses_in_windows(
        image_rows[image],
        template_rows,
        all_places(near[mate, image]),
        places,
        basis,
        comparison=comparison,
        window=window,
        arcs=arcs.take((mate, image)),
    )
    poses = no_poses((len(image_rows), 1))
    for k in np.unique(mate):
        of_images = image[mate == k]
        poses[of_images] = combine(poses[of_images], of_mates[mate == k])
    if is_all.any():
        found, _ = among_everything(
            image_rows[is_all], template_rows, comparison, window, window.search
        )
        poses[is_all] = found[:, None]
    return poses


def _near(known: Rows, views: FloatArray, alike: Alike) -> tuple[NDArray[np.bool_], Arcs]:
    """Which views are near the recorded poses, or near those that look the same, bool (mate, image,
    view), and at which rotations, (mate, image, view)."""
    near, terms, log_prior = [], [], []
    for mate in alike.mates:
        a, b, along = trace_terms(mate @ known["rotation"], views)
        least = known["least_trace"][:, None] - along
        near.append(np.hypot(a, b) >= least)
        terms.append(np.stack([a, b, least], axis=2))
        log_prior.append(known["log_prior"][:, None] + alike.slope * (along + np.hypot(a, b) - 3))
    return np.stack(near), Arcs(np.stack(terms), alike.slope, np.stack(log_prior))
