"""What comparing takes on a GPU that is not at hand: the work of each stage over the rates that its
maker states. An estimate, which no GPU has confirmed."""

from __future__ import annotations

from dataclasses import dataclass

from cryolike_dask.compute.gpu_rates import GpuRates

OF_MATRICES = 0.5
"""Part of the stated rate of tensor cores that products of our shapes reach, about; and of CUDA
cores in single precision:"""
OF_SINGLE = 0.7
OF_BANDWIDTH = 0.85
OF_ISSUE = 0.45
"""Part of the instructions that could be issued while rotations are normalised and summed, by
programs of which few fit on a multiprocessor at a time."""
OF_ROTATION = 16
"""Instructions for one rotation of one displacement: norms, and the largest; of few the exponential
too."""
SPLIT = 3
"""Products of halves of numbers in place of one of single precision."""


@dataclass(frozen=True)
class Stages:
    """Seconds that each stage takes for one (image, template, displacement) triple, all rotations
    included."""

    contraction: float
    rotations: float
    templates: float

    @property
    def seconds(self) -> float:
        """All of them, one after the other."""
        return self.contraction + self.rotations + self.templates


def stages_on(
    gpu: GpuRates, grid_shape: tuple[int, int], n_coefficients: int, n_images: int
) -> Stages:
    """Estimate the stages of the search on a GPU.

    Parameters
    ----------
    gpu : GpuRates
    grid_shape : (int, int)
        Shells, and angles of a ring.
    n_coefficients : int
        That are kept of a template, over all angular frequencies.
    n_images : int
        That are compared with a template once it is prepared.
    """
    n_shells, n_inplanes = grid_shape
    half, single, bandwidth = (
        OF_MATRICES * gpu.half * 1e12,
        OF_SINGLE * gpu.single * 1e12,
        OF_BANDWIDTH * gpu.bandwidth * 1e12,
    )
    # spectra of products are written once and read once
    products = 4 * 2 * (n_inplanes // 2 + 1) / bandwidth
    n = (n_inplanes + 2) // 4
    inverse = 4 * n * n * 2
    of_matrices = SPLIT * inverse / half if gpu.has_tf32 else inverse / single
    # two flops an instruction is how rates are stated
    of_rotations = n_inplanes * OF_ROTATION / (OF_ISSUE * gpu.single * 1e12 / 2)
    # half rings, real and imaginary, to angular frequencies in four products; to coefficients; and
    # what coefficients leave out
    expanding = n_shells * 2 * inverse + 2 * 4 * n_coefficients * n_shells
    traffic = 4 * 2 * n_shells * n_inplanes * 5
    return Stages(
        contraction=max(SPLIT * 8 * n_coefficients / half, products),
        rotations=max(of_matrices, products) + of_rotations,
        templates=max(expanding / single, traffic / bandwidth) / max(1, n_images),
    )
