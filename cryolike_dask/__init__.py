"""Image-to-structure likelihoods for cryo-EM, on Dask. Names are loaded when they are first used."""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cryolike_dask.analysis.cryosparc_export import export_cryosparc as export_cryosparc
    from cryolike_dask.analysis.matrix import log_likelihood_ratio as log_likelihood_ratio
    from cryolike_dask.analysis.matrix import structure_probability as structure_probability
    from cryolike_dask.analysis.matrix import write_likelihood_matrix as write_likelihood_matrix
    from cryolike_dask.analysis.matrix import write_reweighting_inputs as write_reweighting_inputs
    from cryolike_dask.analysis.opening import open_results as open_results
    from cryolike_dask.analysis.particles_plots import plot_matches as plot_matches
    from cryolike_dask.analysis.plots import plot_block_times as plot_block_times
    from cryolike_dask.analysis.plots import plot_cross_correlation as plot_cross_correlation
    from cryolike_dask.analysis.plots import plot_direction_errors as plot_direction_errors
    from cryolike_dask.analysis.plots import plot_displacements as plot_displacements
    from cryolike_dask.analysis.plots import plot_inplane_rotations as plot_inplane_rotations
    from cryolike_dask.analysis.plots import plot_viewing_directions as plot_viewing_directions
    from cryolike_dask.analysis.report import write_report as write_report
    from cryolike_dask.analysis.star_export import export_star as export_star
    from cryolike_dask.analysis.star_export import export_star_subsets as export_star_subsets
    from cryolike_dask.analysis.structure_plots import plot_assignment as plot_assignment
    from cryolike_dask.analysis.structure_plots import plot_calibration as plot_calibration
    from cryolike_dask.analysis.structure_plots import plot_confusion as plot_confusion
    from cryolike_dask.analysis.structure_plots import plot_log_likelihood_ratio as plot_log_likelihood_ratio
    from cryolike_dask.cluster import local_cluster as local_cluster
    from cryolike_dask.config.model import RunConfig as RunConfig
    from cryolike_dask.config.reading import config_schema as config_schema
    from cryolike_dask.config.reading import read_config as read_config
    from cryolike_dask.config.running import run_config as run_config
    from cryolike_dask.connecting import connect as connect
    from cryolike_dask.costs import LikelihoodPlan as LikelihoodPlan
    from cryolike_dask.costs import plan_likelihood as plan_likelihood
    from cryolike_dask.geometry.displacements import DisplacementGrid as DisplacementGrid
    from cryolike_dask.geometry.optics import optics_table as optics_table
    from cryolike_dask.geometry.parameters import ImageParameters as ImageParameters
    from cryolike_dask.geometry.viewing_angles import ViewingAngles as ViewingAngles
    from cryolike_dask.geometry.viewing_angles import healpix_grid as healpix_grid
    from cryolike_dask.io.parameters import make_parameters as make_parameters
    from cryolike_dask.io.results import open_optimal_pose as open_optimal_pose
    from cryolike_dask.io.viewing import read_viewing_angles as read_viewing_angles
    from cryolike_dask.likelihoods.interface import (
        compute_cross_correlation_complete as compute_cross_correlation_complete,
    )
    from cryolike_dask.likelihoods.interface import (
        compute_integrated_log_likelihood as compute_integrated_log_likelihood,
    )
    from cryolike_dask.likelihoods.interface import compute_optimal_displacement as compute_optimal_displacement
    from cryolike_dask.likelihoods.interface import (
        compute_optimal_displacement_and_rotation as compute_optimal_displacement_and_rotation,
    )
    from cryolike_dask.likelihoods.interface import compute_optimal_pose as compute_optimal_pose
    from cryolike_dask.likelihoods.interface import compute_optimal_rotation as compute_optimal_rotation
    from cryolike_dask.particles.converting import convert_particles as convert_particles
    from cryolike_dask.particles.opening import open_particles as open_particles
    from cryolike_dask.plots import plot_images as plot_images
    from cryolike_dask.plots import plot_templates as plot_templates
    from cryolike_dask.plots import save_figure as save_figure
    from cryolike_dask.run_likelihood import configure_displacement as configure_displacement
    from cryolike_dask.run_likelihood import configure_likelihood_files as configure_likelihood_files
    from cryolike_dask.run_likelihood import (
        run_likelihood_full_cross_correlation as run_likelihood_full_cross_correlation,
    )
    from cryolike_dask.run_likelihood import run_likelihood_optimal_pose as run_likelihood_optimal_pose
    from cryolike_dask.simulate import simulate_particles as simulate_particles
    from cryolike_dask.stacks import ImageStack as ImageStack
    from cryolike_dask.stacks import TemplateStack as TemplateStack
    from cryolike_dask.stacks import open_images as open_images
    from cryolike_dask.stacks import open_templates as open_templates
    from cryolike_dask.structures.atoms import Atoms as Atoms
    from cryolike_dask.structures.making import make_templates as make_templates
    from cryolike_dask.structures.opening import open_structure as open_structure
    from cryolike_dask.structures.opening import open_structures as open_structures
    from cryolike_dask.structures.rendering import Poses as Poses
    from cryolike_dask.structures.volumes import Volume as Volume
    from cryolike_dask.verifying import verify_likelihood as verify_likelihood

__version__ = version("cryolike_dask")

_HOMES = {
    "analysis.cryosparc_export": ["export_cryosparc"],
    "analysis.particles_plots": ["plot_matches"],
    "analysis.plots": [
        "plot_block_times",
        "plot_cross_correlation",
        "plot_direction_errors",
        "plot_displacements",
        "plot_inplane_rotations",
        "plot_viewing_directions",
    ],
    "analysis.report": ["write_report"],
    "analysis.star_export": ["export_star", "export_star_subsets"],
    "analysis.structure_plots": [
        "plot_assignment",
        "plot_calibration",
        "plot_confusion",
        "plot_log_likelihood_ratio",
    ],
    "config.model": ["RunConfig"],
    "config.reading": ["config_schema", "read_config"],
    "config.running": ["run_config"],
    "analysis.matrix": [
        "log_likelihood_ratio",
        "structure_probability",
        "write_likelihood_matrix",
        "write_reweighting_inputs",
    ],
    "analysis.opening": ["open_results"],
    "cluster": ["local_cluster"],
    "connecting": ["connect"],
    "costs": ["LikelihoodPlan", "plan_likelihood"],
    "geometry.displacements": ["DisplacementGrid"],
    "geometry.optics": ["optics_table"],
    "geometry.parameters": ["ImageParameters"],
    "geometry.viewing_angles": ["ViewingAngles", "healpix_grid"],
    "io.parameters": ["make_parameters"],
    "io.results": ["open_optimal_pose"],
    "io.viewing": ["read_viewing_angles"],
    "likelihoods.interface": [
        "compute_cross_correlation_complete",
        "compute_integrated_log_likelihood",
        "compute_optimal_displacement",
        "compute_optimal_displacement_and_rotation",
        "compute_optimal_pose",
        "compute_optimal_rotation",
    ],
    "particles.converting": ["convert_particles"],
    "particles.opening": ["open_particles"],
    "plots": ["plot_images", "plot_templates", "save_figure"],
    "run_likelihood": [
        "configure_displacement",
        "configure_likelihood_files",
        "run_likelihood_full_cross_correlation",
        "run_likelihood_optimal_pose",
    ],
    "simulate": ["simulate_particles"],
    "stacks": ["ImageStack", "TemplateStack", "open_images", "open_templates"],
    "structures.atoms": ["Atoms"],
    "structures.making": ["make_templates"],
    "structures.rendering": ["Poses"],
    "structures.opening": ["open_structure", "open_structures"],
    "structures.volumes": ["Volume"],
    "verifying": ["verify_likelihood"],
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = ["__version__", *sorted(_HOME)]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
