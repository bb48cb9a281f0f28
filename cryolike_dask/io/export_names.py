"""Names of files that are written for readers and other programs: simulated particles, matrices,
the report. Those of runs are in `layout`."""

from __future__ import annotations

from pathlib import Path

from cryolike_dask import labels
from cryolike_dask.io.layout import METADATA_SUFFIX, STORE_SUFFIX

SIMULATED_STAR = "particles.star"
REPORT, COMPARISON = "report.html", "comparison.html"
PARTICLES_TABLE, CLASSES_TABLE = "particles.csv", "classes.csv"
"""Tables of particles and of structures, beside the results."""
FRAMES, COUNTS, ASSIGNMENT = "frames.txt", "counts.txt", "assignment.csv"
"""Frames that stand for a trajectory, for how many each, and which of all are nearest to which."""
SUBSET, SUBSET_RECORD = "subset", "subset.json"
"""Folder of these files among the results of a run that has chosen them, and how it has."""
RESIDUALS = f"residuals{METADATA_SUFFIX}"
"""What fits of residuals have shown, beside the results."""
DROPPED = "dropped.txt"
"""The list of particles that an export leaves out; beside a single file its name comes first."""

MATRIX_FOLDER = "likelihood_matrix"
MATRICES = {
    labels.LOG_LIKELIHOOD_INTEGRATED: "integrated_fourier_log_likelihood_matrix",
    labels.LOG_LIKELIHOOD_OPTIMAL: "optimal_fourier_log_likelihood_matrix",
    labels.CROSS_CORRELATION: "cross_correlation_matrix",
}
"""Variables, and the names that CryoLike gives their matrices."""
CRYOER_DISTANCE = "cryoer_distance_is_minus_log_likelihood.npy"
CRYOER_LIKELIHOOD = "cryoer_readlikeli_is_minus_log_likelihood.txt"
LOG_LIKELIHOOD_TABLE = "log_likelihood_image_by_structure.npy"

POPULATIONS_TABLE = "populations/populations.csv"
POPULATIONS_STORE = f"populations/populations{STORE_SUFFIX}"
POPULATIONS_SCRATCH = "populations/unfinished"
DESIGN_STORE = f"design/design{STORE_SUFFIX}"
DESIGN_FIGURE = "design/design.png"


def simulated_stack(folder: Path, k: int) -> Path:
    """The pixels of some simulated particles, as RELION keeps them."""
    return folder / f"particles_{k:06d}.mrcs"


def simulated_files(folder: Path) -> list[Path]:
    """Simulated particles that are in a folder: first the STAR file, which describes the others."""
    paths = (folder / SIMULATED_STAR, *sorted(folder.glob("particles_??????.mrcs")))
    return [path for path in paths if path.exists()]


def likelihood_matrix(folder: Path, variable: str, suffix: str) -> Path:
    """A matrix, as a tensor or as text."""
    return folder / MATRIX_FOLDER / f"{MATRICES[variable]}{suffix}"
