"""What a noise model costs: in the comparison, and to estimate it.

The kernel is timed on the same images with white noise and with a spectrum that falls a
hundredfold, in turns. Then particles in files are converted, and the power of their rings is looked
at, which is all that an estimation reads of every image; the posterior of poses is computed of 256
images of a group at most, whatever their number.

    python -m benchmarks.noise [--case small] [--runs 5] [--images 512]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.cases import CASES, Case
from benchmarks.contenders import inputs, kernel
from cryolike_dask import ImageParameters, NoiseModel, convert_particles, open_particles
from cryolike_dask.conventions import STANDARD
from cryolike_dask.io.mrc import write_mrc_stack
from cryolike_dask.io.star import write_star
from cryolike_dask.likelihoods.signal import power_of_rings

FALL = 100.0
N_PIXELS, PIXEL_SIZE = 128, 1.3


def compare(case: Case, n_runs: int) -> None:
    """Time the kernel with white noise and with a spectrum."""
    torch.set_num_threads(1)
    stacks = inputs(case, "cpu", 0.13)
    grid = case.parameters.grid
    f = grid.spatial_frequencies
    coloured = NoiseModel.of_spectrum(f, FALL ** (-f / f[-1]), grid)
    contenders = [
        kernel("white", stacks, "cpu", None),
        kernel("coloured", stacks, "cpu", None, coloured),
    ]
    for _ in range(n_runs):
        for contender in contenders:
            contender.time()
    white, other = contenders
    for kind in ("best", "integrated"):
        ratios = [b / a for a, b in zip(white.times[kind], other.times[kind], strict=True)]
        print(
            f"{case.name}, {kind}: white {white.microseconds(kind):.3f}, coloured "
            f"{other.microseconds(kind):.3f} microseconds; ratio {statistics.median(ratios):.3f} "
            f"({min(ratios):.3f} to {max(ratios):.3f})"
        )


def estimate(n_images: int) -> None:
    """Rate of conversion, and of looking at the power of rings of the same particles."""
    rng = np.random.default_rng(0)
    parameters = ImageParameters(N_PIXELS, PIXEL_SIZE, precision="single")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pixels = rng.standard_normal((n_images, N_PIXELS, N_PIXELS)).astype(np.float32)
        write_mrc_stack(folder / "particles.mrcs", pixels, PIXEL_SIZE)
        rows = {"rlnImageName": np.array([f"{i + 1}@particles.mrcs" for i in range(n_images)])}
        defocus = {"rlnDefocusU": 15000.0, "rlnDefocusV": 15000.0, "rlnDefocusAngle": 0.0}
        rows |= {key: np.full(n_images, value) for key, value in defocus.items()}
        rows["rlnOpticsGroup"] = np.ones(n_images, np.int64)
        optics = {
            "rlnOpticsGroup": 1,
            "rlnVoltage": 300.0,
            "rlnSphericalAberration": 2.7,
            "rlnAmplitudeContrast": 0.1,
            "rlnImagePixelSize": PIXEL_SIZE,
            "rlnImageSize": N_PIXELS,
        }
        one = {key: np.array([value]) for key, value in optics.items()}
        write_star(folder / "particles.star", {"optics": one, "particles": rows})
        images = open_particles(folder / "particles.star", parameters)
        start = time.perf_counter()
        power_of_rings(images, STANDARD)
        looked_at = n_images / (time.perf_counter() - start)
        start = time.perf_counter()
        convert_particles(folder / "particles.star", parameters, folder / "out", progress=False)
        converted = n_images / (time.perf_counter() - start)
    print(
        f"{N_PIXELS} px, images a second: {converted:.0f} converted, {looked_at:.0f} looked at; "
        f"kept of each: {2 * 8 * parameters.grid.n_shells} bytes"
    )


def main() -> None:
    """Print both."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--case", choices=[case.name for case in CASES], default="small")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--images", type=int, default=512)
    arguments = parser.parse_args()
    with torch.inference_mode():
        compare(next(case for case in CASES if case.name == arguments.case), arguments.runs)
    estimate(arguments.images)


if __name__ == "__main__":
    main()
