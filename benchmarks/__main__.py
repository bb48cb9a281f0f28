"""How fast is the comparison, against how it is usually done, and against what the device could do?

For each case, device and number of threads one table: microseconds per (image, template,
displacement), all rotations included, and in brackets how many times faster than `textbook` in the
same run.

    textbook    every angular frequency, every shell and every pose in memory, by einsum,
                expanding images for each batch of templates; at its best batch size (images x
                templates)
    batched     the same with images expanded once and one matrix product for each angular
                frequency: the best that plain torch does
    fft2        one two-dimensional FFT for each rotation gives every displacement (in brackets how
                many are used)
    exact       the kernel of this package without compression
    compressed  the kernel of this package

Weak images are noise, so that every pose counts for the integral; the peak of strong ones stands
about 60 nat or more above the rest. Times are medians of interleaved runs: of the best pose, and
with the integrated likelihood. "block" is the latter with the time to expand images and templates,
as it falls on each in a block of 1024 images and 2370 templates; these times stand in milliseconds
beside it. "products" is the time of the kernel's own matrix products alone, "rate" the part that
the best pose reaches of the device's rate for a large product, "MB" the memory that a call adds.
The last columns are the largest differences of any pair from `batched`.

On a GPU also whole blocks: triples and poses a second, the share of its ceilings, launches, waits
and energy, beside published rates (`benchmarks.rates`; `benchmarks.gpu` looks at everything).

    python -m benchmarks [--case standard] [--device cpu] [--threads 1] [--runs 5]
    python -m benchmarks --device cuda [--case standard]
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import torch

from benchmarks.cases import CASES, Case
from benchmarks.contenders import Contender, baselines, inputs, kernel, peak_megabytes, seconds
from benchmarks.rates import print_rates

BLOCK_IMAGES, BLOCK_TEMPLATES = 1024, 2370
STRONG = 0.13
"""Ratio of signal to noise amplitudes of strong images."""


def product_rate(device: str) -> float:
    """Flops per second of a large product of matrices, in single precision."""
    n = 2048 if device == "cpu" else 8192
    a = torch.randn(n, n, device=device)
    out = torch.empty_like(a)
    return 2 * n**3 / min(seconds(lambda: torch.mm(a, a, out=out), device) for _ in range(4))


def run(case: Case, device: str, n_threads: int, n_runs: int) -> list[Contender]:
    """Measure one case and print its table."""
    torch.set_num_threads(n_threads)
    rate = product_rate(device)
    n_displacements = len(case.search.grid(case.parameters.grid.pixel_size_angstrom))
    weak, strong = (inputs(case, device, signal) for signal in (0.0, STRONG))
    contenders = [
        *baselines(weak, device),
        kernel("exact", weak, device, 0.0),
        kernel("compressed, weak", weak, device, None),
        kernel("compressed, strong", strong, device, None),
    ]
    for contender in contenders:
        contender.megabytes = peak_megabytes(contender.integrated, device)
    for _ in range(n_runs):
        for contender in contenders:
            contender.time()
    grid = case.parameters.grid
    print(
        f"\n{case.name}: {case.n_pixels} px, {grid.n_shells} shells, {case.n_inplanes} rotations,",
        end=" ",
    )
    print(
        f"{n_displacements} displacements; {device}, {n_threads} thread(s), {rate / 1e9:.0f} "
        f"Gflop/s"
    )
    heads = ("best", "integrated", "block")
    print(f"{'':<18}" + "".join(f"{head:>16}" for head in heads), end="")
    print("  ms/image ms/template products rate     MB  correlation    nat")
    reference = contenders[1].pairs()
    first = None
    for c in contenders:
        found = [c.microseconds("best"), c.microseconds("integrated")]
        expanding = c.template_ms / BLOCK_IMAGES + c.image_ms / BLOCK_TEMPLATES
        found.append(found[1] + expanding / n_displacements * 1e3)
        first = first or found
        line = f"{c.name:<18}" + "".join(
            f"{a:>8.2f} ({b / a:>5.1f})" for a, b in zip(found, first, strict=True)
        )
        line += f"{c.image_ms:>10.2f}{c.template_ms:>12.1f}"
        if c.products is None:
            line += f"{'':>14}{c.megabytes:>7.0f}"
        else:
            of_peak = c.flops / found[0] * 1e6 / rate
            line += f"{c.microseconds('products'):>9.2f}{of_peak:>5.0%}{c.megabytes:>7.0f}"
        if c.products is not None and "strong" not in c.name:
            m, s = reference[0].shape
            changes = (
                float((a[:m, :s] - b).abs().max())
                for a, b in zip(c.pairs(), reference, strict=True)
            )
            line += f"{next(changes):>13.1e}{next(changes):>7.0e}"
        print(line)
    whole = (
        contenders[2].microseconds("best") / contenders[4].microseconds("best") * n_displacements
    )
    print(
        f"one transform of fft2 costs what {whole:.0f} displacements cost the compressed kernel",
        end="",
    )
    print(
        f", and gives {case.n_pixels**2 if case.resolution_factor == 1 else case.n_pixels**2 // 4} "
        f"at most"
    )
    return contenders


def main() -> None:
    """Run the cases, devices and numbers of threads that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--case", choices=[case.name for case in CASES], action="append")
    parser.add_argument("--device", choices=["cpu", "cuda"], action="append")
    parser.add_argument(
        "--threads", type=int, action="append", help="on CPUs; default: one, and all cores"
    )
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    devices = arguments.device or (["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"])
    if "cuda" not in devices:
        print("CPU only: this machine has no CUDA GPU, or it is not asked for")
    elif not torch.cuda.is_available():
        parser.error("--device cuda: this machine has no CUDA GPU")
    for case in CASES:
        if arguments.case and case.name not in arguments.case:
            continue
        for device in devices:
            all_cores = len(os.sched_getaffinity(0))
            for n_threads in (
                [1] if device == "cuda" else arguments.threads or sorted({1, all_cores})
            ):
                with torch.inference_mode():
                    run(case, device, n_threads, arguments.runs)
            if device == "cuda":
                with tempfile.TemporaryDirectory() as folder:
                    print_rates(Path(folder), dry=False, case=case.name)


if __name__ == "__main__":
    main()
