"""A search around recorded poses, against one of everything.

Particles of a structure made as code, by the benchmarks' own simulator, whose poses are recorded a
few degrees and half a pixel off: seconds of a search within 10 degrees and 2 pixels on one thread,
and of one of everything in the same steps, timed on a part of the views and scaled; how far
integrated log-likelihoods are from those of a wider window; and of poses that are refined, how far
off they are. Images that are not many have templates of their own: what is left is preparing these.

    python -m benchmarks.known_poses [--images 64] [--pixels 132] [--part 16]
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.independent_simulator import FloatArray, random_poses
from benchmarks.search import VIEWS, atoms_of, images_of, structure
from cryolike_dask import (
    Around,
    ImageParameters,
    ImageStack,
    TemplateStack,
    compute_optimal_pose,
    open_structure,
)
from cryolike_dask.geometry.displacements import DisplacementSearch
from cryolike_dask.geometry.known_poses import RECORDED_POSE
from cryolike_dask.geometry.viewing_angles import angles_of_rotation, viewing_rotation

LARGEST_PIXELS, STEP = 8.0, 0.5
OFF_DEGREES, OFF_PIXELS = 2.0, 0.5
"""By which recorded poses are off, root mean square."""
WITHIN, WIDER = (10, 2), (20, 4)


def particles(
    parameters: ImageParameters, n: int, signal_to_noise: float
) -> tuple[ImageStack, FloatArray]:
    """Images of white noise, whose recorded poses are off; and true rotations, (image, 3, 3)."""
    from scipy.spatial.transform import Rotation

    rng, pixel = np.random.default_rng(0), parameters.grid.pixel_size_angstrom
    poses = random_poses(n, 3 * pixel, rng)
    images = images_of(structure("elongated", 0.0), poses, parameters, signal_to_noise, rng)
    true = viewing_rotation(*(np.radians(angle) for angle in (poses.rot, poses.tilt, poses.psi)))
    off = Rotation.from_rotvec(np.radians(OFF_DEGREES) * rng.standard_normal((n, 3)) / np.sqrt(3))
    recorded = np.zeros(n, RECORDED_POSE)
    angles = angles_of_rotation(true @ off.as_matrix())
    recorded["rot_radian"], recorded["tilt_radian"], recorded["psi_radian"] = angles
    moved = OFF_PIXELS * pixel * rng.standard_normal((2, n)) / np.sqrt(2)
    recorded["x_angstrom"], recorded["y_angstrom"] = moved - [poses.origin_x, poses.origin_y]
    return replace(images, poses=recorded), true


def searched(images: ImageStack, templates: TemplateStack, search: Any) -> tuple[Any, float]:
    """Results, and seconds of the processor."""
    start = time.process_time()
    found = compute_optimal_pose(images, templates, device="cpu", search=search)
    return found.compute(scheduler="synchronous"), time.process_time() - start


def degrees_off(rotations: FloatArray, true: FloatArray) -> NDArray[np.float64]:
    """Angle between rotations."""
    cosine = ((rotations * true).sum(axis=(1, 2)) - 1) / 2
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


def main() -> None:
    """Print what was measured."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--pixels", type=int, default=132, choices=sorted(VIEWS))
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--signal-to-noise", type=float, default=0.1)
    parser.add_argument(
        "--part", type=int, default=16, help="of views, that everything is timed of"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    parameters = ImageParameters(
        arguments.pixels,
        2.0,
        viewing_distance=VIEWS[arguments.pixels],
        precision="single",
        atom_shape="gaussian",
    )
    images, true = particles(parameters, arguments.images, arguments.signal_to_noise)
    projected = open_structure(atoms_of(structure("elongated", 0.0)), parameters)
    values = projected.data.compute(scheduler="synchronous")
    n = round(2 * LARGEST_PIXELS / STEP) + 1
    displaced = DisplacementSearch(LARGEST_PIXELS, n, n)
    templates = displaced(TemplateStack.from_array(values, parameters))
    searched(images[:2], templates, Around(*WITHIN, check=False))  # compiles
    some = np.arange(0, len(templates), arguments.part)
    part = displaced(
        TemplateStack.from_array(values[some], parameters, templates.viewing.take(some))
    )
    searched(images[:2], replace(part, displacements=displaced(part).displacements), "exhaustive")
    around, seconds = searched(images, templates, Around(*WITHIN, check=False))
    wider, of_wider = searched(images, templates, Around(*WIDER, check=False))
    _, of_part = searched(images, part, "exhaustive")
    everything = of_part * len(templates) / len(part)
    refined, of_refined = searched(
        images, displaced(projected), Around(0, 0, check=False, refine=True)
    )
    lost = (wider.log_likelihood_integrated - around.log_likelihood_integrated).values
    recorded = viewing_rotation(*(images.poses[name] for name in RECORDED_POSE.names[:3]))
    found = viewing_rotation(
        refined.refined_azimuth, refined.refined_polar, refined.refined_inplane_rotation
    )
    print(
        f"{len(images)} images of {arguments.pixels} pixels, {len(templates)} views, {n * n} "
        f"displacements, one thread"
    )
    print(f"everything, of {len(part)} views scaled: {everything:.0f} s")
    for name, of_search in ((WITHIN, seconds), (WIDER, of_wider)):
        print(
            f"within {name[0]} degrees and {name[1]} pixels: {of_search:.2f} s, "
            f"{everything / of_search:.0f}x"
        )
    print(f"lost of the wider window, nat: median {np.median(lost):.3g}, largest {lost.max():.3g}")
    print(
        f"poses refined in {of_refined:.1f} s: {np.median(degrees_off(found, true)):.2f} degrees "
        f"off in the median, where recorded ones are {np.median(degrees_off(recorded, true)):.2f}"
    )


if __name__ == "__main__":
    main()
