"""What a noise model costs, and what it gives.

cost        The kernel is timed on the same images with white noise and with a spectrum that falls a
            hundredfold, in turns.
estimation  Particles in files are converted, and their noise is estimated: it looks at the power of
            the rings of every image, and keeps nothing else of it.
ratios      Log-likelihood ratios under noise that is estimated from the images, beside those under
            noise that is known: they should have the same standard deviation, to 1%.
spectra     Noise without particles gives back its spectrum: how far the estimate is off, and how
            far it says it may be.
envelope    B-factors that are fitted to images of a B-factor that the metadata do not know.

    python -m benchmarks.noise [cost estimation ratios spectra envelope] [--case small] [--runs 9]
        [--images 2000] [--seeds 3]
"""

from __future__ import annotations

import argparse
import itertools
import logging
import multiprocessing
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import torch
from numpy.typing import NDArray

from benchmarks.calibration import Approach, noise_of, opened, ratios
from benchmarks.cases import CASES, Case
from benchmarks.contenders import inputs, kernel, peak_bytes
from benchmarks.independent_simulator import draw_noise, random_optics
from benchmarks.simulated_particles import ATOMS, CONDITIONS, Condition
from cryolike_dask import (
    ImageParameters,
    ImageStack,
    NoiseModel,
    convert_particles,
    estimate_noise,
    open_particles,
)
from cryolike_dask.geometry.optics import OPTICS
from cryolike_dask.io.mrc import write_mrc_stack
from cryolike_dask.io.sources import InMemory
from cryolike_dask.io.star import write_star
from cryolike_dask.particles.noise import LOWEST_SHELL
from cryolike_dask.particles.transform import stack_and_rings

FALL = 100.0
N_PIXELS, PIXEL_SIZE = 128, 1.3
SIZES = (50, 200, 2000)
"""Images that noise is estimated from."""
B_FACTORS, N_ENVELOPE = (0.0, 50.0, 100.0, 200.0), 1000
SPREAD_BOUND = 0.01
CONDITIONS_LOOKED_AT = CONDITIONS[:2]
"""White noise and coloured."""


def cost(case: Case, n_runs: int) -> None:
    """Time the kernel with white noise and with a spectrum, in turns, either one first."""
    torch.set_num_threads(1)
    stacks = inputs(case, "cpu", 0.13)
    grid = case.parameters.grid
    f = grid.spatial_frequencies
    coloured = NoiseModel.of_spectrum(f, FALL ** (-f / f[-1]), grid)
    contenders = [
        kernel("white", stacks, "cpu", None),
        kernel("coloured", stacks, "cpu", None, coloured),
    ]
    times: dict[tuple[str, str], list[float]] = {}
    for _ in range(n_runs):
        for contender, kind in itertools.product(contenders, ("best", "integrated")):
            search = getattr(contender, kind)
            search()  # the other had the caches before
            start = time.process_time()  # what other programs take of the core does not count
            search()
            seconds = (time.process_time() - start) / contender.n_poses
            times.setdefault((contender.name, kind), []).append(seconds * 1e6)
        contenders.reverse()
    for kind in ("best", "integrated"):
        plain, other = times["white", kind], times["coloured", kind]
        each = [theirs / ours for ours, theirs in zip(plain, other, strict=True)]
        print(
            f"{case.name}, {kind}: white {min(plain):.3f}, coloured {min(other):.3f} microseconds; "
            f"ratio {min(other) / min(plain):.3f}, of pairs {np.median(each):.3f} "
            f"({min(each):.3f} to {max(each):.3f})",
            flush=True,
        )


def estimation(n_images: int) -> None:
    """Rate and memory of conversion, and of the estimation of noise, for a quarter of the particles
    and for all of them; each in a process of its own."""
    rng, context = np.random.default_rng(0), multiprocessing.get_context("spawn")
    for n in (n_images // 4, n_images):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            pixels = rng.standard_normal((n, N_PIXELS, N_PIXELS)).astype(np.float32)
            write_particles(folder, pixels)
            for what in ("estimated", "converted"):
                with context.Pool(1) as pool:
                    seconds, megabytes = pool.apply(watched, (what, folder))
                print(
                    f"{n} images of {N_PIXELS} px {what}: {n / seconds:.0f} a second, "
                    f"{megabytes:.0f} MB at most besides what was there",
                    flush=True,
                )


def watched(what: str, folder: Path) -> tuple[float, float]:
    """Seconds of a conversion or an estimation, and the memory that it adds at its highest; the
    first images are for what is loaded and compiled once."""
    parameters = ImageParameters(N_PIXELS, PIXEL_SIZE, precision="single")
    star = folder / "particles.star"
    images = open_particles(star, parameters)
    logging.disable(logging.WARNING)  # eight images are few
    estimate_noise(images[:8])
    estimate = partial(estimate_noise, images)
    convert = partial(convert_particles, star, parameters, folder / "out", progress=False)
    before, start = psutil.Process().memory_info().rss, time.perf_counter()
    peak = peak_bytes(estimate if what == "estimated" else convert)
    return time.perf_counter() - start, max(0, peak - before) / 1e6


def write_particles(folder: Path, pixels: NDArray[np.float32]) -> None:
    """Image stack and STAR file of particles without astigmatism."""
    n_images = len(pixels)
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


def spread_of_ratios(condition: Condition, n_images: int, seed: int) -> bool:
    """Ratios under noise that is estimated, and under noise that is known; whether they spread
    alike."""
    with tempfile.TemporaryDirectory() as folder:
        seeds = [seed, CONDITIONS.index(condition), n_images]
        images, templates, _ = opened(condition, "full", n_images, seeds, Approach(), Path(folder))
        true = noise_of(condition, images, templates, Approach("true"))
        known = ratios(images, templates, None if condition.is_plain else true)
        found = ratios(images, templates, estimate_noise(images, templates))
    off = found.std() / known.std() - 1
    apart = np.sqrt(((found - known) ** 2).mean()) / known.std()
    is_right = bool(abs(off) <= SPREAD_BOUND)
    print(
        f"{condition.name:<10}{n_images:>7}{seed:>5}{known.std():>8.3f}{found.std():>10.3f}"
        f"{off:>12.2%}{apart:>8.2%}  {'right' if is_right else 'wrong'}",
        flush=True,
    )
    return is_right


def spectrum_of_noise(condition: Condition, n_images: int, seed: int) -> None:
    """The spectrum of noise alone, with structures to look for in it."""
    rng = np.random.default_rng([seed, CONDITIONS.index(condition), n_images])
    with tempfile.TemporaryDirectory() as folder:
        _, templates, _ = opened(condition, "full", 2, [seed], Approach(), Path(folder))
    grid, n, (spectrum,) = templates[0].grid, condition.n_pixels, condition.spectra
    pixels = draw_noise(n_images, n, condition.pixel_size, spectrum, rng)
    values, rings = stack_and_rings(pixels, grid)
    optics = random_optics(n_images, condition.defocus, rng).astype(OPTICS)
    parameters = ImageParameters(n, condition.pixel_size, precision="single")
    images = ImageStack.from_array(values, parameters, optics)
    model = estimate_noise(replace(images, source=InMemory(values, rings)), templates)
    f, told = grid.spatial_frequencies, grid.radii >= LOWEST_SHELL
    off = np.log(model.variance[0] / spectrum(f))[told]
    off, error = off - np.average(off, weights=grid.weights[told]), model.relative_error[0, told]
    print(
        f"{condition.name:<10}{n_images:>7}{seed:>5}{np.sqrt((off**2).mean()):>8.2%}"
        f"{np.sqrt((error**2).mean()):>10.2%}{np.abs(off / error).max():>12.1f}",
        flush=True,
    )


def envelope(b_factor: float, seed: int) -> None:
    """A B-factor that is fitted, beside that of the images."""
    condition = replace(ATOMS, b_factor=b_factor)
    seeds = [seed, round(b_factor), N_ENVELOPE]
    with tempfile.TemporaryDirectory() as folder:
        images, templates, _ = opened(
            condition, "full", N_ENVELOPE, seeds, Approach(), Path(folder)
        )
        model = estimate_noise(images, templates, fit_b_factor=True)
    found, error = model.b_factor_angstrom2[0], model.b_factor_error[0]
    off = (found - b_factor) / error
    print(f"{b_factor:>6.0f}{seed:>6}{found:>8.1f} +- {error:<6.1f}{off:>6.1f}", flush=True)


def main() -> None:
    """Print what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    what = ("cost", "estimation", "ratios", "spectra", "envelope")
    parser.add_argument("what", nargs="*", default=what)
    parser.add_argument("--case", choices=[case.name for case in CASES], default="small")
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    if unknown := {*arguments.what} - {*what}:
        parser.error(f"{sorted(unknown)} are not among {what}")
    rows = list(itertools.product(CONDITIONS_LOOKED_AT, SIZES, range(arguments.seeds)))
    if "cost" in arguments.what:
        with torch.inference_mode():
            cost(next(case for case in CASES if case.name == arguments.case), arguments.runs)
    if "estimation" in arguments.what:
        estimation(arguments.images)
    if "ratios" in arguments.what:
        print("condition  images seed   known estimated of the first   apart (rms)")
        right = [spread_of_ratios(*row) for row in rows]
        print(f"{sum(right)} of {len(right)} spread alike, to {SPREAD_BOUND:.0%}")
    if "spectra" in arguments.what:
        print("condition  images seed off (rms)  stated  at most, of what is stated")
        for row in rows:
            spectrum_of_noise(*row)
    if "envelope" in arguments.what:
        print("  true  seed    found           off, errors")
        for b_factor, seed in itertools.product(B_FACTORS, range(arguments.seeds)):
            envelope(b_factor, seed)


if __name__ == "__main__":
    main()
